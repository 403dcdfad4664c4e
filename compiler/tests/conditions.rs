//! What conditions mean: CEL's meaning, from the text to the evaluator.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use halftone_compiler::{Compiled, Diagnostic, Optimisation, compile_with, link};
use halftone_rules::{EvalError, Observer, Outcome, Request, Ruleset, Timestamp, VerifiedBundle, codec};

/// A request given by its headers.
struct Headers(Vec<(&'static str, &'static [u8])>);

impl Request for Headers {
    fn header(&self, name: &str) -> Option<&[u8]> {
        self.0.iter().find(|(other, _)| *other == name).map(|(_, value)| *value)
    }

    fn client_address(&self) -> Option<&[u8]> {
        Some(b"10.1.2.3:4711")
    }

    fn property(&self, path: &[String]) -> Option<&[u8]> {
        match path.last()?.as_str() {
            "requested_server_name" => Some(b"example.com"),
            // 2.5, as Envoy gives a number of a struct.
            "level" => Some(&[0, 0, 0, 0, 0, 0, 4, 0x40]),
            _ => None,
        }
    }
}

/// Compiles, encodes, decodes and verifies.
fn bundle(text: &str, optimisation: Optimisation) -> Result<VerifiedBundle, Vec<Diagnostic>> {
    let compiled: Compiled = compile_with(text, "test", optimisation)?;
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

/// 2026-01-31T08:30:00Z, a Saturday.
const NOW: Timestamp = Timestamp(1_769_848_200_000_000_000);

/// A rule without a weight takes everybody who matches.
const TAKEN: Outcome = Outcome::Taken { arm: 0, bucket: None };

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
  raw: {header: x-raw, type: bytes}
  v: {header: v, type: semver}
  groups: {header: groups, type: list}
  q: {query: q, type: int}
  ip: {source: client_address}
  sni: {property: connection.requested_server_name}
  claim: {property: [metadata, filter_metadata, envoy.filters.http.jwt_authn, jwt, level], type: double}
  region: {constant: eu-west}
  limit: {constant: 5, type: int}
";

fn outcome(condition: &str) -> Outcome {
    // JSON's string quoting is YAML's double quoting.
    let quoted = format!("\"{}\"", condition.replace('\\', "\\\\").replace('"', "\\\""));
    let text = format!(
        "version: v1\nattributes:{ATTRIBUTES}rules:\n  - {{name: r, condition: {quoted}, target: v2}}\n"
    );
    let [optimised, plain] = [Optimisation::Full, Optimisation::None].map(|optimisation| {
        bundle(&text, optimisation).unwrap_or_else(|problems| panic!("{condition}: {problems:#?}"))
    });
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
        ("v", b"2.10.0-rc.1"),
        ("groups", b"beta, staff"),
        (":path", b"/v2/models?q=7&q=8"),
        (":method", b"POST"),
        (":authority", b"example.com"),
    ]);
    let [optimised, plain] = [optimised, plain].map(|bundle| {
        let mut first = First::default();
        let _ = bundle.decide(&request, NOW, &mut first);
        first.0.expect("the first rule is always tried")
    });
    assert_eq!(optimised, plain, "{condition}");
    optimised
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
        // Bytes.
        "raw == b'\\xff\\xfe' && size(raw) == 2 && b'ab' + b'c' == b'abc' && raw > b'\\xff'",
        "bytes(s) != raw && string(b'abc') == 'abc'",
        // Lists and maps.
        "'beta' in groups && 'staff' in groups && !('sta' in groups) && size(groups) == 2",
        "[1, 2] == [1, 2] && [1] + [2] == [1, 2] && size([1, 2, 3]) == 3 && [1, 2][1] == 2",
        "{'größe': 3, 'x': 4}[s] == 3 && {'a': 1}.a == 1 && has({'a': 1}.a) && !has({'a': 1}.b)",
        "s in {'größe': 3} && [10, 20, 30][q - 6] == 20 && 's' in {'s': 1}",
        // Times.
        "now == timestamp('2026-01-31T08:30:00Z') && now > timestamp('2026-01-01T00:00:00Z')",
        "now.getHours() == 8 && now.getHours('+02:00') == 10 && now.getDayOfWeek() == 6",
        "now - timestamp('2026-01-31T08:00:00Z') == duration('30m') && now + duration('1h') > now",
        "now.getFullYear() == 2026 && now.getMonth() == 0 && now.getDate() == 31 && now.getMinutes() == 30",
        "duration('90m').getHours() == 1 && timestamp(0) == timestamp('1970-01-01T00:00:00Z')",
        // Conversions.
        "int('7') == 7 && uint(7.9) == 7u && double(n) == -7.0 && int(d) == 2 && bool('true')",
        "string(7) == '7' && string(1.5) == '1.5' && string(true) == 'true' && int(u - 18446744073709551610u) == 5",
        // Versions, networks, expressions, buckets, constants, properties.
        "v >= semver('2.9.0') && v < semver('2.10.0') && semver('1.0.0') < v",
        "cidr(ip, '10.0.0.0/8') && !cidr(ip, '192.168.0.0/16') && cidr(request.client_address, '10.1.2.3')",
        "s.matches('^gr.*e$') && !matches(s, '^e') && request.path.matches(r'/v\\d+/')",
        "bucket(user.id, 'seed', 1) == 0 && bucket(user.id, 'seed', 100) == bucket('42', 'seed', 100)",
        "bucket(n, 'seed', 1000000) == bucket('-7', 'seed', 1000000)",
        "region == 'eu-west' && limit + 1 == 6 && sni == 'example.com' && claim == 2.5 && q == 7",
        "request.query['q'] == '7' && 'q' in request.query && request.cookies['c'] == '42'",
        "request.headers.`s` == s && has(request.headers.`s`) && !has(request.headers.`x-none`)",
        "now in [timestamp('2026-01-31T08:30:00Z')] && b in [false, true] && !(b in [false])",
        "!(b in []) && !(now in []) && !(raw in []) && !(v in []) && !(s in []) && !(now - now in [])",
        "- 7 == n && -(7) == n && - 2.5 == -d && 1 -5 == -4 && -7.0 < -d && .s == s",
    ] {
        assert_eq!(outcome(condition), TAKEN, "{condition}");
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
        ("gone.flag in [] || (gone.flag ? false : false)", EvalError::Missing),
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
        ("int(s) == 1", EvalError::Conversion),
        ("{'a': 1}[s] == 1", EvalError::NoSuchKey),
        ("[1, 2][n] == 1", EvalError::NoSuchKey),
        ("[1, 2][2] == 1", EvalError::NoSuchKey),
        ("string(b'\\xff') == ''", EvalError::Conversion),
        ("cidr(s, '10.0.0.0/8')", EvalError::Conversion),
        ("semver(s) > semver('1.0.0')", EvalError::Conversion),
        ("now + duration('2562047h') > now", EvalError::Overflow),
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
    let bundle = bundle(text, Optimisation::Full).unwrap();
    let mut to_v2 = 0u32;
    for id in 0..100_000u32 {
        let id: &'static [u8] = id.to_string().leak().as_bytes();
        let request = Headers(vec![("x-user-id", id)]);
        to_v2 += u32::from(bundle.decide(&request, NOW, &mut ()).unwrap().target == "v2");
    }
    // A tenth by the condition, a tenth of those by the weight: one in a hundred, give or take five
    // standard deviations.
    assert!((842..=1158).contains(&to_v2), "{to_v2}");
    for id in [&b""[..], b"-5", b"abc", b"\xff\xfe"] {
        let decision = bundle
            .decide(&Headers(vec![("x-user-id", Box::leak(id.into()))]), NOW, &mut ())
            .map(|d| d.target);
        assert_eq!(decision, Some("default"), "{id:?}");
    }
}

#[test]
fn long_chains_compile() {
    let chain = |operator: &str, n: usize| vec!["user.id != 7"; n].join(operator);
    assert_eq!(outcome(&chain(" && ", 800)), TAKEN);
    assert_eq!(outcome(&chain(" || ", 800)), TAKEN);
    let sums = format!("n{} == 25", " + 1".repeat(32));
    assert_eq!(outcome(&sums), TAKEN);
    let ternaries = format!("{}true{}", "b ? ".repeat(24), " : false".repeat(24));
    assert_eq!(outcome(&ternaries), TAKEN);
    let nested = format!("{}b{}", "(".repeat(40), ")".repeat(40));
    assert_eq!(outcome(&nested), TAKEN);
}

/// A condition that is nested too deep for a graph is run as code, and so is the predicate in it, which another
/// condition shares: each of them needs nearly the whole stack.
#[test]
fn a_shared_predicate_has_the_stack_for_itself() {
    let sum = format!("{}n{} < 0", "(n + ".repeat(60), ")".repeat(60));
    let deep = (0..12).fold(sum.clone(), |inner, level| {
        if level % 2 == 0 { format!("b && ({inner})") } else { format!("!b || ({inner})") }
    });
    let text = format!(
        "version: v1\nattributes:{ATTRIBUTES}rules:\n  - {{name: r, condition: \"{deep}\", target: v2}}\n  - {{name: other, condition: \"{sum} && !b\", target: v1}}\n"
    );
    let request = Headers(vec![("n", b"-7"), ("b", b"true"), ("s", b"y")]);
    for optimisation in [Optimisation::None, Optimisation::Full] {
        let Ok(bundle) = bundle(&text, optimisation) else {
            // What is not shared is too deep for the compiler, and it says so.
            assert_eq!(optimisation, Optimisation::None);
            continue;
        };
        assert!(!bundle.bundle().rulesets[0].predicates.is_empty());
        let mut first = First::default();
        let decision = bundle.decide(&request, NOW, &mut first);
        assert_eq!(first.0, Some(TAKEN));
        assert_eq!(decision.and_then(|decision| decision.rule), Some("r"));
    }
}
