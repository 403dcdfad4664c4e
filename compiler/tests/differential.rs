//! Conditions mean what they mean to another implementation of CEL, the crate `cel`: random well-typed
//! expressions of the subset over random variables have the same value, or none, in both.
#![allow(clippy::expect_used, reason = "a test that cannot go on panics")]

use cel::{Context, ExecutionError, Program, Value};
use halftone_compiler::{Optimisation, compile_with, link};
use halftone_rules::{EvalError, Observer, Outcome, Request, Ruleset, Timestamp, VerifiedBundle};
use proptest::{
    prelude::*,
    sample::select,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use std::cell::Cell;

/// Strategies for expressions, by the expression's type.
#[derive(Clone)]
struct Expressions {
    bool: BoxedStrategy<String>,
    int: BoxedStrategy<String>,
    uint: BoxedStrategy<String>,
    double: BoxedStrategy<String>,
    string: BoxedStrategy<String>,
    bytes: BoxedStrategy<String>,
}

const INTS: [&str; 14] = [
    "0",
    "1",
    "-1",
    "2",
    "3",
    "7",
    "-7",
    "0x1f",
    "100",
    "9007199254740993",
    "4611686018427387904",
    "9223372036854775807",
    "-9223372036854775808",
    "-9223372036854775807",
];
const UINTS: [&str; 8] =
    ["0u", "1u", "2u", "7u", "0xffu", "9007199254740993u", "9223372036854775808u", "18446744073709551615u"];
const DOUBLES: [&str; 16] = [
    "0.0",
    "-0.0",
    "1.0",
    "-1.0",
    "0.5",
    "1.5",
    "-7.9",
    "1e3",
    "5e-324",
    "1e308",
    "-1.7976931348623157e308",
    "9223372036854775807.0",
    "-9223372036854775808.0",
    "18446744073709551615.0",
    "4503599627370497.5",
    "1.0 / 0.0",
];
const STRINGS: [&str; 22] = [
    "''",
    "'a'",
    "'ab'",
    "'b'",
    "\"A\"",
    "'größe'",
    "'gro\\u00df'",
    "'日本'",
    "'\\U0001F600'",
    "r'\\n'",
    "'\\n'",
    "'''a'b'''",
    "'1'",
    "'-7'",
    "'+7'",
    "'007'",
    "'1.5'",
    "'1e3'",
    "'true'",
    "'9223372036854775808'",
    "' 1'",
    "'x' + 'y'",
];
const BYTES: [&str; 7] = ["b''", "b'a'", "b'ab'", "b'\\xff'", "b'größe'", "b'\\303\\237'", "b'a' + b'b'"];

fn leaves() -> Expressions {
    let leaf = |name: &'static str, literals: &'static [&'static str]| {
        prop_oneof![1 => Just(name), 1 => select(literals)].prop_map(str::to_owned).boxed()
    };
    Expressions {
        bool: leaf("b", &["true", "false"]),
        int: prop_oneof![leaf("i", &INTS), Just("j".to_owned())].boxed(),
        uint: leaf("u", &UINTS),
        double: leaf("d", &DOUBLES),
        string: leaf("s", &STRINGS),
        bytes: leaf("y", &BYTES),
    }
}

/// Expressions one level deeper than those below.
fn deeper(below: &Expressions) -> Expressions {
    let Expressions { bool, int, uint, double, string, bytes } = below;
    let binary = |operand: &BoxedStrategy<String>, operators: &'static [&'static str]| {
        (operand.clone(), select(operators), operand.clone())
            .prop_map(|(a, op, b)| format!("({a}) {op} ({b})"))
    };
    let call = |function: &'static str, operand: &BoxedStrategy<String>| {
        operand.clone().prop_map(move |operand| format!("{function}({operand})"))
    };
    let conditional = |operand: &BoxedStrategy<String>| {
        (bool.clone(), operand.clone(), operand.clone()).prop_map(|(c, a, b)| format!("({c} ? {a} : {b})"))
    };
    let negation =
        |operand: &BoxedStrategy<String>| operand.clone().prop_map(|operand| format!("-({operand})"));
    let list = |literals: &'static [&'static str]| {
        prop::collection::vec(select(literals), 1..4)
            .prop_map(|elements| format!("[{}]", elements.join(", ")))
    };
    let member = |operand: &BoxedStrategy<String>, literals: &'static [&'static str]| {
        (operand.clone(), list(literals)).prop_map(|(operand, list)| format!("({operand}) in {list}"))
    };
    const COMPARISONS: &[&str] = &["==", "!=", "<", "<=", ">", ">="];
    const ARITHMETIC: &[&str] = &["+", "-", "*", "/", "%"];
    let comparisons = prop_oneof![
        1 => binary(bool, COMPARISONS),
        4 => binary(int, COMPARISONS),
        3 => binary(uint, COMPARISONS),
        1 => binary(double, &["==", "!="]),
        // See `DIFFERENCES`: what is not a number is kept away from the ordering.
        2 => (double.clone(), select(&COMPARISONS[2..]), double.clone())
            .prop_map(|(a, op, b)| format!("(({a}) == ({a}) && ({b}) == ({b}) ? ({a}) {op} ({b}) : false)")),
        3 => binary(string, COMPARISONS),
        2 => binary(bytes, COMPARISONS),
    ];
    let memberships = prop_oneof![
        member(int, &INTS),
        member(uint, &UINTS),
        member(double, &DOUBLES),
        member(string, &STRINGS),
        member(bool, &["true", "false"]),
        string.clone().prop_map(|key| format!("({key}) in {{'a': 1, 'größe': 2}}")),
        (list(&INTS), list(&INTS)).prop_map(|(a, b)| format!("{a} == {b}")),
    ];
    let texts = (string.clone(), select(vec!["startsWith", "endsWith", "contains"]), string.clone())
        .prop_map(|(text, function, part)| format!("({text}).{function}({part})"));
    Expressions {
        bool: prop_oneof![
            1 => bool.clone(),
            5 => comparisons,
            6 => binary(bool, &["&&", "||"]),
            1 => bool.clone().prop_map(|operand| format!("!({operand})")),
            1 => conditional(bool),
            2 => memberships,
            2 => texts,
            1 => call("bool", string),
        ]
        .boxed(),
        int: prop_oneof![
            1 => int.clone(),
            4 => binary(int, ARITHMETIC),
            1 => negation(int),
            1 => conditional(int),
            1 => prop_oneof![call("size", string), call("size", bytes)],
            2 => prop_oneof![call("int", int), call("int", uint), call("int", double), call("int", string)],
            1 => string.clone().prop_map(|key| format!("{{'a': 1, 'größe': 2}}[{key}]")),
            1 => int.clone().prop_map(|at| format!("[10, 20, 30][{at}]")),
        ]
        .boxed(),
        uint: prop_oneof![
            1 => uint.clone(),
            4 => binary(uint, ARITHMETIC),
            1 => conditional(uint),
            2 => prop_oneof![call("uint", int), call("uint", uint), call("uint", double), call("uint", string)],
        ]
        .boxed(),
        double: prop_oneof![
            1 => double.clone(),
            4 => binary(double, &["+", "-", "*", "/"]),
            1 => negation(double),
            1 => conditional(double),
            2 => prop_oneof![call("double", int), call("double", uint), call("double", double), call("double", string)],
        ]
        .boxed(),
        string: prop_oneof![
            3 => string.clone(),
            1 => conditional(string),
            2 => call("string", bytes),
            1 => call("string", string),
            // New strings are made of constants only.
            1 => select(&INTS[..]).prop_map(|constant| format!("string({constant})")),
            1 => select(&["0.5", "-1.5", "100.0"][..]).prop_map(|constant| format!("string({constant})")),
            1 => select(&["true", "1u == 2u"][..]).prop_map(|constant| format!("string({constant})")),
        ]
        .boxed(),
        bytes: prop_oneof![3 => bytes.clone(), 1 => conditional(bytes), 2 => call("bytes", string)].boxed(),
    }
}

/// The value of a variable, as the request carries it and as `cel` takes it.
type Variable = Option<(Vec<u8>, Value)>;

const VARIABLES: [(&str, &str); 7] = [
    ("b", "bool"),
    ("i", "int"),
    ("j", "int"),
    ("u", "uint"),
    ("d", "double"),
    ("s", "string"),
    ("y", "bytes"),
];

fn variables() -> impl Strategy<Value = Vec<(&'static str, Variable)>> {
    fn some<T: ToString + Into<Value>>(value: T) -> (Vec<u8>, Value) {
        (value.to_string().into_bytes(), value.into())
    }
    let ints = || {
        prop_oneof![
            4 => -10..=10i64,
            1 => select(vec![i64::MIN, i64::MIN + 1, i64::MAX, i64::MAX - 1, 9_007_199_254_740_993, 1 << 62]),
            1 => any::<i64>(),
        ]
        .prop_map(some)
    };
    let uints = prop_oneof![
        4 => 0..=10u64,
        1 => select(vec![u64::MAX, u64::MAX - 1, 1 << 63, i64::MAX.unsigned_abs(), 9_007_199_254_740_993]),
        1 => any::<u64>(),
    ];
    let doubles = prop_oneof![
        2 => (-20..=20i32).prop_map(|half| f64::from(half) / 2.0),
        2 => select(vec![
            0.0, -0.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::MAX, f64::MIN_POSITIVE, 5e-324,
            9_223_372_036_854_775_808.0, 18_446_744_073_709_551_616.0, -9_223_372_036_854_775_808.0,
        ]),
        1 => any::<f64>(),
    ];
    let strings = prop_oneof![
        3 => select(vec![
            "", "a", "ab", "abc", "b", "A", "größe", "gr", "日本", "日", "\u{1f600}", "\u{ffff}", "1", "-7", "+7", "007",
            "1.5", "1e400", "true", "True", "t", "9223372036854775808", "18446744073709551615", "-0", " 1", "0x10",
        ]).prop_map(str::to_owned),
        1 => any::<String>(),
    ];
    let bytes = prop_oneof![
        select(vec![&b""[..], b"a", b"ab", b"\xff", "größe".as_bytes(), b"\xc3\x9f", b"\xc3"])
            .prop_map(<[u8]>::to_vec),
        any::<Vec<u8>>(),
    ];
    let values = (
        any::<bool>().prop_map(some),
        ints(),
        ints(),
        uints.prop_map(some),
        doubles.prop_map(some),
        strings.prop_map(some),
        bytes.prop_map(|value| (value.clone(), Value::Bytes(value.into()))),
    );
    (values, prop::collection::vec(prop::bool::weighted(0.9), VARIABLES.len())).prop_map(
        |((b, i, j, u, d, s, y), there)| {
            let values = [b, i, j, u, d, s, y];
            let named = VARIABLES.iter().zip(values).zip(there);
            named.map(|(((name, _), value), there)| (*name, there.then_some(value))).collect()
        },
    )
}

struct Variables<'a>(&'a [(&'static str, Variable)]);

impl Request for Variables<'_> {
    fn header(&self, name: &str) -> Option<&[u8]> {
        let (_, variable) = self.0.iter().find(|(other, _)| *other == name)?;
        variable.as_ref().map(|(bytes, _)| bytes.as_slice())
    }
}

/// How the first rule comes out.
#[derive(Default)]
struct First(Option<Outcome>);

impl Observer for First {
    fn rule(&mut self, _: &Ruleset, _: usize, outcome: Outcome) {
        self.0 = Some(outcome);
    }
}

/// What a condition is: its value, or none.
type Verdict = Result<bool, EvalError>;

fn ours(
    condition: &str,
    variables: &[(&'static str, Variable)],
    optimisation: Optimisation,
) -> Result<Verdict, TestCaseError> {
    let attributes: String =
        VARIABLES.iter().map(|(name, ty)| format!("  {name}: {{header: {name}, type: {ty}}}\n")).collect();
    let quoted = serde_json::to_string(condition).expect("a string");
    let text = format!(
        "version: v1\nattributes:\n{attributes}rules: [{{name: r, condition: {quoted}, target: v2}}]\n"
    );
    let compiled = compile_with(&text, "test", optimisation)
        .map_err(|problems| TestCaseError::fail(format!("{condition}: {:?}", problems.first())))?;
    let bundle = VerifiedBundle::new(link(1, [&compiled]).expect("links")).expect("verifies");
    let mut first = First::default();
    let _ = bundle.decide_by_each_rule(&Variables(variables), Timestamp(0), &mut first);
    Ok(match first.0 {
        Some(Outcome::Taken { .. }) => Ok(true),
        Some(Outcome::NoMatch) => Ok(false),
        Some(Outcome::Error(error)) => Err(error),
        other => panic!("{condition}: {other:?}"),
    })
}

fn theirs(expression: &str, variables: &[(&'static str, Variable)]) -> Result<Value, ExecutionError> {
    let program = Program::compile(expression).unwrap_or_else(|error| panic!("{expression}: {error:?}"));
    let mut context = Context::default();
    for (name, variable) in variables {
        if let Some((_, value)) = variable {
            context.add_variable_from_value(*name, value.clone());
        }
    }
    program.execute(&context)
}

/// A condition that holds when the expression has the value that `cel` found.
fn holds(expression: &str, value: &Value) -> String {
    match value {
        Value::Bool(true) => expression.to_owned(),
        Value::Bool(false) => format!("!({expression})"),
        Value::Int(value) => format!("({expression}) == {value}"),
        Value::UInt(value) => format!("({expression}) == {value}u"),
        // Nothing equals what is not a number.
        Value::Float(value) if value.is_nan() => format!("({expression}) != ({expression})"),
        Value::Float(value) if value.is_infinite() => {
            format!("({expression}) == {}1.0 / 0.0", if *value > 0.0 { "" } else { "-" })
        }
        Value::Float(value) => {
            format!("({expression}) == {value:?}")
        }
        Value::String(text) => {
            format!("({expression}) == {}", serde_json::to_string(text.as_str()).expect("a string"))
        }
        Value::Bytes(bytes) => {
            let octets: String = bytes.iter().map(|byte| format!("\\x{byte:02x}")).collect();
            format!("({expression}) == b'{octets}'")
        }
        other => panic!("{expression} is {other:?}"),
    }
}

/// Where `cel` 0.15 is not what the specification says, and therefore not compared: the expression, its value by
/// the specification, and the sentence that decides. `cel` has no value for them.
const DIFFERENCES: [(&str, bool, &str); 4] = [
    ("0.0 / 0.0 < 1.0", false, ORDERING),
    ("1.0 <= 0.0 / 0.0", false, ORDERING),
    ("1.0 > double('NaN')", false, ORDERING),
    ("!(double('NaN') >= double('NaN'))", true, ORDERING),
];
const ORDERING: &str = "Equality and Ordering: ordering operators are defined for int, uint, double, …; \
    Numeric Values: double is 64-bit IEEE floating-point (which orders NaN with nothing, without an error)";

#[test]
fn the_differences_are_those_listed() {
    for (expression, expected, sentence) in DIFFERENCES {
        for optimisation in [Optimisation::Full, Optimisation::None] {
            let ours = ours(expression, &[], optimisation).expect("compiles");
            assert_eq!(ours, Ok(expected), "{expression}: {sentence}");
        }
        // Once this fails, `cel` has caught up: compare it.
        assert!(theirs(expression, &[]).is_err(), "{expression}");
    }
}

#[test]
fn conditions_have_the_values_of_another_implementation() {
    let mut expressions = leaves();
    for _ in 0..3 {
        expressions = deeper(&expressions);
    }
    let Expressions { bool, int, uint, double, string, bytes } = expressions;
    let any_type = prop_oneof![4 => bool, 2 => int, 1 => uint, 1 => double, 1 => string, 1 => bytes];
    // A fixed seed: the corpus is the same in every run.
    let mut runner = TestRunner::new_with_rng(
        Config { cases: 5_000, failure_persistence: None, ..Config::default() },
        TestRng::deterministic_rng(RngAlgorithm::ChaCha),
    );
    let (values, errors) = (Cell::new(0), Cell::new(0));
    let run = runner.run(&(any_type, variables()), |(expression, variables)| {
        let theirs = theirs(&expression, &variables);
        let reached = if theirs.is_ok() { &values } else { &errors };
        reached.set(reached.get() + 1);
        let condition = match &theirs {
            Ok(value) => holds(&expression, value),
            Err(_) => format!("({expression}) == ({expression})"),
        };
        for optimisation in [Optimisation::Full, Optimisation::None] {
            let ours = ours(&condition, &variables, optimisation)?;
            prop_assert_eq!(
                ours.ok(),
                theirs.as_ref().ok().map(|_| true),
                "{}: {:?}, cel: {:?}",
                expression,
                ours,
                theirs
            );
        }
        Ok(())
    });
    run.unwrap_or_else(|error| panic!("{error}"));
    assert!(values.get() > 1_000 && errors.get() > 1_000, "{values:?} with a value, {errors:?} without");
}
