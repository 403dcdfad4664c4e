//! Which ruleset governs a request.

use crate::{
    bundle::{Ruleset, Scope},
    request::{Request, path},
};

/// How closely a scope fits: host patterns first (a full name before a wildcard before none), then the
/// length of the path prefix.
type Fit = (usize, usize);

/// The index of the ruleset whose scope fits the request best; among equals the first by name.
pub(crate) fn governing(rulesets: &[Ruleset], request: &impl Request) -> Option<usize> {
    let mut best: Option<(usize, Fit)> = None;
    for (index, ruleset) in rulesets.iter().enumerate() {
        if let Some(fit) = fit(&ruleset.scope, request)
            && best.is_none_or(|(_, other)| fit > other)
        {
            best = Some((index, fit));
        }
    }
    best.map(|(index, _)| index)
}

fn fit(scope: &Scope, request: &impl Request) -> Option<Fit> {
    let host = if scope.hosts.is_empty() {
        0
    } else {
        let host = without_port(request.header(":authority")?);
        scope.hosts.iter().filter_map(|pattern| host_fit(pattern, host)).max()?
    };
    let path = if scope.path_prefixes.is_empty() {
        0
    } else {
        let path = path(request)?;
        scope.path_prefixes.iter().filter(|prefix| path_fits(prefix, path)).map(String::len).max()?
    };
    Some((host, path))
}

fn host_fit(pattern: &str, host: &[u8]) -> Option<usize> {
    if let Some(suffix) = pattern.strip_prefix('*') {
        let start = host.len().checked_sub(suffix.len())?;
        let fits = start > 0 && host.get(start..)?.eq_ignore_ascii_case(suffix.as_bytes());
        fits.then_some(suffix.len())
    } else {
        // A full name beats every wildcard, whatever their lengths.
        host.eq_ignore_ascii_case(pattern.as_bytes()).then_some(usize::MAX)
    }
}

fn path_fits(prefix: &str, path: &[u8]) -> bool {
    path.strip_prefix(prefix.as_bytes())
        .is_some_and(|rest| prefix.ends_with('/') || rest.is_empty() || rest.first() == Some(&b'/'))
}

/// `example.com:443` → `example.com`, `[::1]:443` → `[::1]`.
fn without_port(authority: &[u8]) -> &[u8] {
    let colon = authority.iter().rposition(|&byte| byte == b':');
    match colon.and_then(|at| Some((authority.get(..at)?, authority.get(at.checked_add(1)?..)?))) {
        Some((host, port)) if port.iter().all(u8::is_ascii_digit) && !host.is_empty() => host,
        _ => authority,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct At(&'static str, &'static str);
    impl Request for At {
        fn header(&self, name: &str) -> Option<&[u8]> {
            match name {
                ":authority" => Some(self.0.as_bytes()),
                ":path" => Some(self.1.as_bytes()),
                _ => None,
            }
        }
    }

    fn ruleset(name: &str, hosts: &[&str], prefixes: &[&str]) -> Ruleset {
        let mut ruleset = Ruleset::pass_all(name, "v1");
        ruleset.scope = Scope {
            hosts: hosts.iter().map(ToString::to_string).collect(),
            path_prefixes: prefixes.iter().map(ToString::to_string).collect(),
        };
        ruleset
    }

    #[test]
    fn the_closest_scope_governs() {
        let rulesets = [
            ruleset("all", &[], &[]),
            ruleset("below", &["*.example.com"], &[]),
            ruleset("exact", &["api.example.com"], &[]),
            ruleset("exact-models", &["api.example.com"], &["/v2/models"]),
            ruleset("models", &[], &["/v2/models/"]),
        ];
        for (host, path, expected) in [
            ("other.org", "/", "all"),
            ("a.example.com", "/", "below"),
            ("a.example.com:8443", "/x", "below"),
            ("API.example.com", "/", "exact"),
            ("api.example.com", "/v2/models", "exact-models"),
            ("api.example.com", "/v2/models/digits/infer", "exact-models"),
            ("api.example.com", "/v2/modelsx", "exact"),
            ("example.com", "/v2/models/digits", "models"),
            ("example.com", "/v2/models", "all"),
            ("[::1]:80", "/", "all"),
        ] {
            let found = governing(&rulesets, &At(host, path)).map(|index| rulesets[index].name.as_str());
            assert_eq!(found, Some(expected), "{host} {path}");
        }
        assert_eq!(governing(&rulesets[1..3], &At("other.org", "/")), None);
    }

    #[test]
    fn a_wildcard_takes_no_empty_label() {
        assert_eq!(host_fit("*.example.com", b".example.com"), None);
        assert_eq!(without_port(b"a:b"), b"a:b");
        assert_eq!(without_port(b"[::1]"), b"[::1]");
    }
}
