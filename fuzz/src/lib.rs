//! What the fuzz targets share: requests, and what has to hold of every bundle that verifies.

pub mod inference;

use halftone_rules::{
    EvalError, Observer, Outcome, Request, Ruleset, Timestamp, VerifiedBundle, codec, isa::AttributeId,
};

/// A request whose headers all have values of the same list, picked by the header's name.
pub struct Headers<'a> {
    /// What headers, properties and the rest carry.
    pub values: Vec<&'a [u8]>,
}

impl Headers<'_> {
    /// Some names have no value.
    fn value(&self, name: &str) -> Option<&[u8]> {
        let at = name.bytes().fold(0usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
        self.values.get(at % (self.values.len() + 1)).copied()
    }
}

impl Request for Headers<'_> {
    fn header(&self, name: &str) -> Option<&[u8]> {
        self.value(name)
    }

    fn client_address(&self) -> Option<&[u8]> {
        self.value("client_address")
    }

    fn property(&self, path: &[String]) -> Option<&[u8]> {
        self.value(path.last()?)
    }
}

/// Requests for any ruleset.
pub fn requests() -> Vec<Headers<'static>> {
    let values: [&[&[u8]]; 6] = [
        &[],
        &[b"1"],
        &[b"gold", b"42", b"-7", b"2.5", b"true"],
        &[b"NaN", b"18446744073709551615", b"-9223372036854775808", b"10.1.2.3:80"],
        &[b"1.2.3-rc.1", b"a, b", b"", b"/v2/models?q=1", b"inf"],
        &[b"\xff\xfe", &[b'a'; 9_000], "größe".as_bytes(), b"\0"],
    ];
    values.map(|values| Headers { values: values.to_vec() }).into()
}

/// Fails when something that verification rules out happens.
struct NoFault;

impl Observer for NoFault {
    fn rule(&mut self, _: &Ruleset, index: usize, outcome: Outcome) {
        assert_ne!(outcome, Outcome::Error(EvalError::Fault), "rule {index}");
    }

    fn experiment(&mut self, _: &Ruleset, index: usize, outcome: Outcome) {
        assert_ne!(outcome, Outcome::Error(EvalError::Fault), "experiment {index}");
    }

    fn unknown(&mut self, _: &Ruleset, attribute: AttributeId, error: EvalError) {
        assert_ne!(error, EvalError::Fault, "{attribute:?}");
    }
}

/// Lets a bundle decide: without a fault, and by the index as without it.
pub fn decides<'a>(
    bundle: &VerifiedBundle,
    requests: impl IntoIterator<Item = &'a Headers<'a>>,
    now: Timestamp,
) {
    for request in requests {
        let by_index = bundle.decide(request, now, &mut NoFault);
        let in_order = bundle.decide_by_each_rule(request, now, &mut NoFault);
        assert_eq!(by_index, in_order);
    }
}

/// Sends a bundle through its bytes.
pub fn survives(bundle: &VerifiedBundle) {
    let bytes = codec::encode(bundle.bundle()).expect("a small bundle encodes");
    let again = codec::decode(&bytes).expect("what was encoded decodes");
    // NaN differs from itself, so the bytes are compared.
    assert_eq!(codec::encode(again.bundle()).expect("encodes again"), bytes);
}
