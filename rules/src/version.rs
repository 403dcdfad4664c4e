//! Versions by Semantic Versioning 2.0.0, compared without allocation.

use std::cmp::Ordering;

/// The parts that count when versions are compared. Build metadata does not.
struct Version<'a> {
    /// Major, minor and patch.
    core: [u64; 3],
    /// After the dash; empty when the version is a release.
    pre_release: &'a str,
}

/// Whether the text is a version: `1.2.3`, `1.2.3-rc.1`, `1.2.3-rc.1+build.5`.
#[must_use]
pub fn is_version(text: &str) -> bool {
    parse(text).is_some()
}

/// The order of two versions by precedence (section 11 of the specification); `None` when one of them is
/// no version.
#[must_use]
pub fn compare_versions(a: &str, b: &str) -> Option<Ordering> {
    let (a, b) = (parse(a)?, parse(b)?);
    Some(a.core.cmp(&b.core).then_with(|| compare_pre_releases(a.pre_release, b.pre_release)))
}

fn parse(text: &str) -> Option<Version<'_>> {
    let (version, build) = text.split_once('+').map_or((text, None), |(v, build)| (v, Some(build)));
    let (core, pre_release) = version.split_once('-').map_or((version, None), |(v, pre)| (v, Some(pre)));
    if !build.is_none_or(|build| build.split('.').all(is_identifier)) {
        return None;
    }
    let valid = |identifier: &str| {
        is_identifier(identifier) && (!is_number(identifier) || no_leading_zero(identifier))
    };
    if !pre_release.is_none_or(|pre| pre.split('.').all(valid)) {
        return None;
    }
    let mut numbers = core.split('.').map(number);
    let parsed = [numbers.next()??, numbers.next()??, numbers.next()??];
    numbers.next().is_none().then_some(Version { core: parsed, pre_release: pre_release.unwrap_or_default() })
}

fn number(text: &str) -> Option<u64> {
    (is_number(text) && no_leading_zero(text)).then(|| text.parse().ok())?
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn no_leading_zero(number: &str) -> bool {
    number.len() == 1 || !number.starts_with('0')
}

fn is_identifier(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

fn compare_pre_releases(a: &str, b: &str) -> Ordering {
    match (a.is_empty(), b.is_empty()) {
        (true, true) => return Ordering::Equal,
        // A release comes after its pre-releases.
        (true, false) => return Ordering::Greater,
        (false, true) => return Ordering::Less,
        (false, false) => {}
    }
    let (mut left, mut right) = (a.split('.'), b.split('.'));
    loop {
        let order = match (left.next(), right.next()) {
            (None, None) => return Ordering::Equal,
            (None, Some(_)) => return Ordering::Less,
            (Some(_), None) => return Ordering::Greater,
            (Some(a), Some(b)) => match (is_number(a), is_number(b)) {
                // Without leading zeros the longer number is the larger one, however long they are.
                (true, true) => a.len().cmp(&b.len()).then_with(|| a.cmp(b)),
                (true, false) => Ordering::Less,
                (false, true) => Ordering::Greater,
                (false, false) => a.cmp(b),
            },
        };
        if order != Ordering::Equal {
            return order;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn precedence_is_that_of_the_specification() {
        let ascending = [
            "0.0.0",
            "0.9.12",
            "1.0.0-0",
            "1.0.0-2",
            "1.0.0-10",
            "1.0.0-18446744073709551616",
            "1.0.0-alpha",
            "1.0.0-alpha.1",
            "1.0.0-alpha.beta",
            "1.0.0-beta",
            "1.0.0-beta.2",
            "1.0.0-beta.11",
            "1.0.0-rc.1",
            "1.0.0",
            "1.0.1",
            "1.2.0",
            "1.10.0",
            "2.0.0",
        ];
        for (i, a) in ascending.iter().enumerate() {
            for (j, b) in ascending.iter().enumerate() {
                assert_eq!(compare_versions(a, b), Some(i.cmp(&j)), "{a} {b}");
            }
        }
        assert_eq!(compare_versions("1.0.0+a", "1.0.0+b-c.01"), Some(Ordering::Equal));
    }

    #[test]
    fn what_is_no_version() {
        for text in [
            "",
            "1",
            "1.2",
            "1.2.3.4",
            "v1.2.3",
            "01.2.3",
            "1.02.3",
            "1.2.03",
            "1.2.3-",
            "1.2.3-01",
            "1.2.3-a..b",
            "1.2.3+",
            "1.2.3+a..b",
            "1.2.3-ä",
            " 1.2.3",
            "1.2.+3",
            "-1.2.3",
            "99999999999999999999.0.0",
        ] {
            assert!(!is_version(text), "{text:?}");
        }
        for text in ["1.2.3--", "1.2.3-0a", "1.2.3+001", "1.2.3-x-y-z.--"] {
            assert!(is_version(text), "{text:?}");
        }
    }
}
