//! Conditional requests (RFC 9110, section 13.1.2).

use axum::http::{HeaderMap, HeaderValue, header::IF_NONE_MATCH};

/// Whether the client has what the entity tag stands for, by its `If-None-Match`. Weak tags count too.
pub(crate) fn is_known(headers: &HeaderMap, tag: &str) -> bool {
    let known = headers.get_all(IF_NONE_MATCH).iter().filter_map(|value: &HeaderValue| value.to_str().ok());
    known.flat_map(|tags| tags.split(',')).map(str::trim).any(|known| {
        // Our tags have no commas, so splitting there cannot make one of them up.
        known == "*" || known.strip_prefix("W/").unwrap_or(known) == tag
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_compared_one_by_one() {
        for (known, expected) in [
            (&["\"a\""][..], true),
            (&["W/\"a\""], true),
            (&["\"b\", \"a\""], true),
            (&["\"b\"", "\"a\""], true),
            (&["*"], true),
            (&["a"], false),
            (&["\"b\""], false),
            (&[], false),
        ] {
            let headers = known.iter().map(|tag| (IF_NONE_MATCH, HeaderValue::from_static(tag))).collect();
            assert_eq!(is_known(&headers, "\"a\""), expected, "{known:?}");
        }
    }
}
