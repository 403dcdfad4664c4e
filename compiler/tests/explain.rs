//! What an explanation shows is what the evaluator saw.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use halftone_compiler::{compile, explain, link};
use halftone_rules::{Request, Timestamp, VerifiedBundle};

struct Headers(Vec<(&'static str, Vec<u8>)>);

impl Request for Headers {
    fn header(&self, name: &str) -> Option<&[u8]> {
        self.0.iter().find(|(other, _)| *other == name).map(|(_, value)| value.as_slice())
    }
}

#[test]
fn attributes_have_the_values_that_conditions_see() {
    let text = "version: v1
attributes:
  fits: {header: fits}
  long: {header: long}
  long.bytes: {header: long, type: bytes}
  wrong: {header: wrong, type: int}
  right: {header: right, type: int}
  gone: {header: gone}
rules:
- name: r
  condition: long == 'a' || long.bytes == b'a' || wrong == 1 || right == 1 || gone == 'a' || fits == 'a'
  target: v2
";
    let compiled = compile(text, "test").unwrap();
    let bundle = VerifiedBundle::new(link(1, [&compiled]).unwrap()).unwrap();
    let request = Headers(vec![
        ("fits", vec![b'a'; 8 << 10]),
        ("long", vec![b'a'; (8 << 10) + 1]),
        ("wrong", b"seven".to_vec()),
        ("right", b"7".to_vec()),
        ("x-user-id", vec![b'1'; (8 << 10) + 1]),
    ]);
    let explanation = explain(&bundle, &request, Timestamp(0)).unwrap();
    let too_long = "8193 bytes, more than the 8192 that conditions work on";
    for (name, expected) in [
        ("fits", format!("{:?}", "a".repeat(8 << 10)).as_str()),
        ("long", too_long),
        ("long.bytes", too_long),
        ("wrong", "\"seven\" is not of this type"),
        ("right", "7"),
        ("gone", "missing"),
        ("user.id", too_long),
    ] {
        let shown = explanation.attributes.iter().find(|attribute| attribute.name == name).unwrap();
        assert_eq!(shown.value, expected, "{name}");
    }
    // A unit may be longer.
    assert_eq!(explanation.unit.map(|unit| unit.len()), Some((8 << 10) + 1));
}
