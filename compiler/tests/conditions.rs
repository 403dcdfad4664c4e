//! What conditions mean: CEL's meaning, from the text to the evaluator.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use halftone_compiler::{Compiled, Diagnostic, compile, link};
use halftone_rules::{EvalError, Observer, Outcome, Request, Ruleset, VerifiedBundle, codec};

/// A request given by its headers.
struct Headers(Vec<(&'static str, &'static [u8])>);

impl Request for Headers {
    fn header(&self, name: &str) -> Option<&[u8]> {
        self.0.iter().find(|(other, _)| *other == name).map(|(_, value)| *value)
    }
}

/// Compiles, encodes, decodes and verifies.
fn bundle(text: &str) -> Result<VerifiedBundle, Vec<Diagnostic>> {
    let compiled: Compiled = compile(text, "test")?;
    let bytes = codec::encode(&link(1, [&compiled]).expect("one ruleset links")).expect("encodes");
    Ok(codec::decode(&bytes).expect("what the compiler makes verifies"))
}

/// How the first rule comes out.
#[derive(Default)]
struct First(Option<Outcome>);

impl Observer for First {
    fn rule(&mut self, _: &Ruleset, index: usize, outcome: Outcome) {
        if index == 0 {
            self.0 = Some(outcome);
        }
    }
}

/// `attributes` shared by all cases.
const ATTRIBUTES: &str = "
  n: {header: n, type: int}
  u: {header: u, type: uint}
  d: {header: d, type: double}
  b: {header: b, type: bool}
  s: {header: s}
  c: {cookie: c, type: uint}
  gone: {header: gone, type: int}
  bad: {header: bad, type: int}
";

fn outcome(condition: &str) -> Outcome {
    // JSON's string quoting is YAML's double quoting.
    let quoted = format!("\"{}\"", condition.replace('\\', "\\\\").replace('"', "\\\""));
    let text = format!(
        "version: v1\nattributes:{ATTRIBUTES}rules:\n  - {{name: r, condition: {quoted}, target: v2}}\n"
    );
    let bundle = bundle(&text).unwrap_or_else(|problems| panic!("{condition}: {problems:#?}"));
    let request = Headers(vec![
        ("n", b"-7"),
        ("u", b"18446744073709551615"),
        ("d", b"2.5"),
        ("b", b"true"),
        ("s", "größe".as_bytes()),
        ("cookie", b"b=1; c=42"),
        ("bad", b"seven"),
        ("x-user-id", b"42"),
        ("x-raw", b"\xff\xfe"),
        ("x-long", &[b'a'; (8 << 10) + 1]),
        (":path", b"/v2/models"),
        (":method", b"POST"),
        (":authority", b"example.com"),
    ]);
    let mut first = First::default();
    let _ = bundle.decide(&request, &mut first);
    first.0.expect("the first rule is always tried")
}

#[test]
fn true_conditions() {
    for condition in [
        "n == -7",
        "n % 5 == -2",
        "n / 2 == -3",
        "-n == 7",
        "n + 1 < -5 && n - 1 > -9 && n * 2 <= -14",
        "u == 18446744073709551615u",
        "u > 5",
        "u % 2 == 1",
        "d * 2.0 == 5.0 && d / 0.0 > 1e300",
        "-d == -2.5",
        "b",
        "b == true && !(b == false) && b > false",
        "user.id == 42 && user.id % 100 < 50",
        "user.id in [1, 2, 42]",
        "!(user.id in [])",
        "n in [-7, 3]",
        "d in [2.5]",
        "s in ['größe', 'x']",
        "c == 42",
        "size(s) == 5 && s.size() == 5",
        "s.startsWith('gr') && s.endsWith('e') && s.contains('öß')",
        "s < 'h' && s >= 'g'",
        "request.path == '/v2/models' && request.method == 'POST' && request.host == 'example.com'",
        "request.headers['s'] == 'größe' && request.headers['S'] == s",
        "'s' in request.headers && !('nope' in request.headers)",
        "has(s) && has(user.id) && !has(user.name) && has(bad)",
        "(n < 0 ? 'neg' : 'pos') == 'neg'",
        "n < 0 ? u > 5 : gone > 5",
        "'\\n' == \"\\x0a\" && r'\\n' != '\\n' && '\\u00e4' == 'ä' && '''a'b''' == \"a'b\"",
        "0x10 == 16 && 1e3 == 1000.0 && .5 == 0.5",
        "-9223372036854775808 < 9223372036854775807",
        "1 + 2 * 3 == 7 && (1 + 2) * 3 == 9 && 7 - 2 - 1 == 4",
        "true || false && false",
        // Errors are absorbed from both sides.
        "gone > 4 || true",
        "true || gone > 4",
        "!(gone > 4 && false)",
        "!(false && gone > 4)",
        "1 / 0 > 4 || b",
        "s == 'größe' // a comment",
    ] {
        assert_eq!(outcome(condition), Outcome::Taken, "{condition}");
    }
}

#[test]
fn false_conditions() {
    for condition in
        ["n > 0", "!b", "n in [1]", "b && n > 0", "d == d + 1.0", "'a' == 'A'", "gone > 4 && false"]
    {
        assert_eq!(outcome(condition), Outcome::NoMatch, "{condition}");
    }
}

#[test]
fn conditions_without_a_value() {
    for (condition, error) in [
        ("gone == 1", EvalError::Missing),
        ("gone == 1 && true", EvalError::Missing),
        ("false || gone == 1", EvalError::Missing),
        ("!(gone == 1)", EvalError::Missing),
        ("gone == 1 ? true : true", EvalError::Missing),
        ("request.headers['nope'] == ''", EvalError::Missing),
        ("bad == 1", EvalError::Malformed),
        ("x.raw == 'a'", EvalError::Missing),
        ("raw.x == 'a' || request.headers['x-raw'] == 'a'", EvalError::Missing),
        ("request.headers['x-raw'] == 'a'", EvalError::Malformed),
        ("request.headers['x-long'].contains('a')", EvalError::TooLong),
        ("n / 0 == 1", EvalError::DivisionByZero),
        ("n % 0 == 1", EvalError::DivisionByZero),
        ("n + 9223372036854775807 + 8 == 1", EvalError::Overflow),
        ("(n - n - 9223372036854775807 - 1) / -1 == 1", EvalError::Overflow),
        ("-(n - n - 9223372036854775807 - 1) == 1", EvalError::Overflow),
        ("u + 1 == 1", EvalError::Overflow),
        ("u - u - 1 == 1", EvalError::Overflow),
    ] {
        assert_eq!(outcome(condition), Outcome::Error(error), "{condition}");
    }
}

#[test]
fn the_documents_example_works_unchanged() {
    let text = r#"
version: v1
rules:
  - name: "user-id-mod100"
    condition: "user.id % 100 < 10"
    weight: 0.1
    target: "v2"
"#;
    let bundle = bundle(text).unwrap();
    let mut to_v2 = 0u32;
    for id in 0..100_000u32 {
        let id: &'static [u8] = id.to_string().leak().as_bytes();
        let request = Headers(vec![("x-user-id", id)]);
        to_v2 += u32::from(bundle.decide(&request, &mut ()).unwrap().target == "v2");
    }
    // A tenth by the condition, a tenth of those by the weight: one in a hundred, give or take five
    // standard deviations.
    assert!((842..=1158).contains(&to_v2), "{to_v2}");
    for id in [&b""[..], b"-5", b"abc", b"\xff\xfe"] {
        let decision =
            bundle.decide(&Headers(vec![("x-user-id", Box::leak(id.into()))]), &mut ()).map(|d| d.target);
        assert_eq!(decision, Some("default"), "{id:?}");
    }
}

#[test]
fn long_chains_compile() {
    let chain = |operator: &str, n: usize| vec!["user.id != 7"; n].join(operator);
    assert_eq!(outcome(&chain(" && ", 800)), Outcome::Taken);
    assert_eq!(outcome(&chain(" || ", 800)), Outcome::Taken);
    let sums = format!("n{} == 25", " + 1".repeat(32));
    assert_eq!(outcome(&sums), Outcome::Taken);
    let ternaries = format!("{}true{}", "b ? ".repeat(24), " : false".repeat(24));
    assert_eq!(outcome(&ternaries), Outcome::Taken);
    let nested = format!("{}b{}", "(".repeat(40), ")".repeat(40));
    assert_eq!(outcome(&nested), Outcome::Taken);
}
