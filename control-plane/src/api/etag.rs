//! Conditional requests (RFC 9110, section 13.1.2).

use super::problem::Problem;
use crate::precondition::Precondition;
use axum::http::{
    HeaderMap, HeaderValue,
    header::{IF_MATCH, IF_NONE_MATCH},
};

/// The entity tag of a version.
pub(crate) fn etag(version: u64) -> String {
    format!("\"{version}\"")
}

/// `If-Match` with an entity tag of ours or `*`, and `If-None-Match: *`. `what` it is about.
pub(crate) fn precondition(headers: &HeaderMap, what: &str) -> Result<Precondition, Problem> {
    match (headers.get(IF_MATCH), headers.get(IF_NONE_MATCH)) {
        (None, None) => Ok(Precondition::None),
        (Some(tag), None) if tag == "*" => Ok(Precondition::Exists),
        (Some(tag), None) => tag
            .to_str()
            .ok()
            .and_then(|tag| {
                let version = tag.strip_prefix('"')?.strip_suffix('"')?.parse().ok()?;
                // Only as we write it: no signs, no leading zeros.
                (etag(version) == tag).then_some(Precondition::Since(version))
            })
            .ok_or_else(|| {
                Problem::bad_request(format!("If-Match takes the ETag of {what}, for example \"3\""))
            }),
        (None, Some(tag)) if tag == "*" => Ok(Precondition::Absent),
        _ => Err(Problem::bad_request("use either If-Match, or If-None-Match: *")),
    }
}

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
