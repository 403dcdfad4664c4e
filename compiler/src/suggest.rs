//! "did you mean".

/// Characters of a name that is compared with others. The work grows with the product of both lengths.
const MAX_COMPARED_CHARS: usize = 64;
/// Names that one is compared with.
pub(crate) const MAX_CANDIDATES: usize = 1_000;

/// The candidate that a misspelt name most likely means.
pub(crate) fn closest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let length = name.chars().count();
    if length > MAX_COMPARED_CHARS {
        return None;
    }
    // Of short names every other one is close: there only the case may differ.
    let limit = match length {
        ..4 => 0,
        4..6 => 1,
        _ => length / 3,
    };
    candidates
        .into_iter()
        .take(MAX_CANDIDATES)
        .filter(|candidate| candidate.chars().count().abs_diff(length) <= limit)
        .map(|candidate| {
            (strsim::damerau_levenshtein(&name.to_lowercase(), &candidate.to_lowercase()), candidate)
        })
        .filter(|(distance, _)| *distance <= limit)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Whether a name that may be right is most likely a misspelling of another one: both have the same parts, but for
/// case and a letter or two in those that are long enough. Names that count (`user.id1`, `user.id2`) are meant.
pub(crate) fn is_misspelling(name: &str, other: &str) -> bool {
    if name == other || name.len().max(other.len()) > MAX_COMPARED_CHARS {
        return false;
    }
    let letters = |name: &str| name.replace(|c: char| c.is_ascii_digit(), "");
    if letters(name) == letters(other) {
        return false;
    }
    let (name, other) = (name.to_lowercase(), other.to_lowercase());
    if name.matches('.').count() != other.matches('.').count() {
        return false;
    }
    name.split('.').zip(other.split('.')).all(|(part, of_other)| {
        // Closer than what is suggested for a name that does not exist: this one does.
        let limit = match part.len().max(of_other.len()) {
            ..4 => 0,
            4..8 => 1,
            _ => 2,
        };
        part.len().abs_diff(of_other.len()) <= limit && strsim::damerau_levenshtein(part, of_other) <= limit
    })
}

/// The help text for a name that does not exist.
#[must_use]
pub fn did_you_mean<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str> + Clone) -> String {
    if let Some(candidate) = closest(name, candidates.clone()) {
        return format!("did you mean `{candidate}`?");
    }
    let all: Vec<&str> = candidates.into_iter().take(20).collect();
    if all.is_empty() { "there is none".into() } else { format!("known are: {}", all.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_likely_is_suggested() {
        let known = ["id", "hosts", "weight", "v2", "user.tier", "condition"];
        for (name, expected) in [
            ("weigth", Some("weight")),
            ("host", Some("hosts")),
            ("conditions", Some("condition")),
            ("user.teir", Some("user.tier")),
            ("ID", Some("id")),
            ("a", None),
            ("is", None),
            ("v1", None),
            ("idx", None),
            ("ghost", None),
            ("weird", None),
        ] {
            assert_eq!(closest(name, known), expected, "{name}");
        }
        assert_eq!(did_you_mean("v1", ["v2", "v3"]), "known are: v2, v3");
    }

    #[test]
    fn names_that_may_be_right_have_to_be_close() {
        for (name, other, expected) in [
            ("user.teir", "user.tier", true),
            ("usr.tier", "user.tier", true),
            ("user.ID", "user.id", true),
            ("User.id", "user.id", true),
            ("user.groups", "user.group", true),
            ("user.subscirptoin", "user.subscription", true),
            ("user.tier", "user.tier", false),
            ("user.type", "user.tier", false),
            ("user.ip", "user.id", false),
            ("user.region", "user.reason", false),
            ("user.id1", "user.id2", false),
            ("user.tier2", "user.tier", false),
            ("user.tier.name", "user.tier", false),
            ("api.version", "app.version", false),
        ] {
            assert_eq!(is_misspelling(name, other), expected, "{name}");
        }
    }
}
