//! A request of HTTP, put together by hand.

use halftone_rules::Request;

/// What rules may read of a request of HTTP, as it is on the wire. Of what is given twice, the first one counts.
///
/// ```
/// use halftone_embed::{Engine, HttpRequest, now};
///
/// let engine = Engine::from_ruleset("{version: v1, match: {path_prefixes: [/v2]}, rules: [{name: all, target: v2}]}", "digits")?;
/// let request = HttpRequest::new().method("POST").path("/v2/models/digits/infer").header("x-user-id", "42");
/// let rules = engine.rules();
/// assert_eq!(rules.decide(&request, now()).map(|decision| decision.target), Some("v2"));
/// assert_eq!(rules.decide(&HttpRequest::new().path("/"), now()), None);
/// # Ok::<(), halftone_embed::LoadError>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct HttpRequest {
    /// By their names in lower case.
    headers: Vec<(String, Vec<u8>)>,
    client_address: Option<Vec<u8>>,
}

impl HttpRequest {
    /// A request of which nothing is known.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The method, for example `POST`.
    #[must_use]
    pub fn method(self, method: impl AsRef<[u8]>) -> Self {
        self.header(":method", method)
    }

    /// The host, with or without a port.
    #[must_use]
    pub fn host(self, host: impl AsRef<[u8]>) -> Self {
        self.header(":authority", host)
    }

    /// The path, with the query if there is one.
    #[must_use]
    pub fn path(self, path: impl AsRef<[u8]>) -> Self {
        self.header(":path", path)
    }

    /// A header.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers.push((name.to_ascii_lowercase(), value.as_ref().into()));
        self
    }

    /// The address that the request comes from, with or without a port.
    #[must_use]
    pub fn client_address(mut self, address: impl AsRef<[u8]>) -> Self {
        self.client_address.get_or_insert_with(|| address.as_ref().into());
        self
    }
}

impl Request for HttpRequest {
    fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_slice())
    }

    fn headers(&self) -> Option<impl Iterator<Item = (&[u8], &[u8])>> {
        Some(self.headers.iter().map(|(name, value)| (name.as_bytes(), value.as_slice())))
    }

    fn client_address(&self) -> Option<&[u8]> {
        self.client_address.as_deref()
    }
}
