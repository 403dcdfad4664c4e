//! A URL with attributes of the request in it.

use super::attribute::Attribute;
use axum::http::Uri;
use halftone_proto::v1::EvaluationContext;
use std::fmt::Write;

/// A URL with attributes of the request in it: `http://host/features/{unit_hash}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    /// What stands before each attribute, and the attribute.
    parts: Vec<(String, Attribute)>,
    end: String,
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let expected = "expected http://host/… with attributes such as {unit_hash} in its path or query";
        let wrong = |problem: &str| format!("url is {text:?} ({problem}), {expected}");
        let (mut parts, mut rest) = (Vec::new(), text);
        while let Some((before, after)) = rest.split_once('{') {
            let (name, after) = after.split_once('}').ok_or_else(|| wrong("a brace is not closed"))?;
            let attribute = Attribute::named(name).map_err(|problem| wrong(&problem))?;
            parts.push((before.to_owned(), attribute));
            rest = after;
        }
        let template = Self { parts, end: rest.to_owned() };
        let uri: Uri = template
            .filled(|_| Some("x".into()))
            .unwrap_or_default()
            .parse()
            .map_err(|error: axum::http::uri::InvalidUri| wrong(&error.to_string()))?;
        let authority = uri.authority().map(|authority| authority.as_str()).unwrap_or_default();
        if uri.scheme_str() != Some("http") || authority.contains('@') {
            return Err(wrong("it is not plain http"));
        }
        // An attribute within the host would choose who is asked.
        if !text.starts_with(&format!("http://{authority}/")) {
            return Err(wrong("the host is not followed by a path"));
        }
        Ok(template)
    }

    /// The URL for a request; none when it does not have all of the attributes.
    #[must_use]
    pub fn url(&self, context: &EvaluationContext) -> Option<String> {
        self.filled(|attribute| attribute.text(context).and_then(|text| encode(&text)))
    }

    fn filled(&self, value: impl Fn(&Attribute) -> Option<String>) -> Option<String> {
        let mut url = String::new();
        for (before, attribute) in &self.parts {
            url.push_str(before);
            url.push_str(&value(attribute)?);
        }
        url.push_str(&self.end);
        Some(url)
    }
}

/// The text with everything encoded that could mean something in a URL; none for a dot or two, which mean other folders
/// however they are written.
fn encode(text: &str) -> Option<String> {
    if matches!(text, "." | "..") {
        return None;
    }
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            write!(encoded, "%{byte:02X}").ok()?;
        }
    }
    Some(encoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_filled_with_what_the_request_has() {
        let template = Template::parse("http://f:80/{tenant}/x?arm={arm}&v=1").unwrap();
        let context = |tenant: &str, arm: &str| EvaluationContext {
            tenant: Some(tenant.into()),
            arm: arm.into(),
            ..EvaluationContext::default()
        };
        let url = |tenant, arm| template.url(&context(tenant, arm));
        assert_eq!(url("acme", "b").as_deref(), Some("http://f:80/acme/x?arm=b&v=1"));
        assert_eq!(
            url("a/../é?", "b&v=2").as_deref(),
            Some("http://f:80/a%2F..%2F%C3%A9%3F/x?arm=b%26v%3D2&v=1")
        );
        for (tenant, arm) in [("", "b"), ("acme", ""), ("..", "b"), (".", "b")] {
            assert_eq!(url(tenant, arm), None, "{tenant:?} {arm:?}");
        }
        let fixed = Template::parse("http://f/all").unwrap();
        assert_eq!(fixed.url(&EvaluationContext::default()).as_deref(), Some("http://f/all"));
    }

    #[test]
    fn says_what_is_wrong() {
        for (text, problem) in [
            ("", "empty string"),
            ("https://f/{arm}", "it is not plain http"),
            ("http://u:p@f/{arm}", "it is not plain http"),
            ("http://f/{arm", "a brace is not closed"),
            ("http://f/{user}", "unknown attribute \"user\""),
            ("http://{arm}/x", "the host is not followed by a path"),
            ("http://f{arm}/x", "the host is not followed by a path"),
            ("http://f:{bucket}/x", "the host is not followed by a path"),
            ("http://f?{arm}", "the host is not followed by a path"),
        ] {
            let got = Template::parse(text).unwrap_err();
            assert!(got.contains(problem) && got.contains("expected http://host/"), "{text}: {got}");
        }
    }
}
