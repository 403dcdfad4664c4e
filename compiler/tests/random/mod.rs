//! Random rulesets, and requests for them. Everything that a ruleset can say is in them; the conditions are
//! such that rules get guards of every kind, and predicates of their own.

use halftone_rules::{Request, Timestamp};
use proptest::{
    prelude::*,
    sample::{Index, select},
};
use std::{collections::BTreeSet, fmt::Write};

/// A request by its headers.
#[derive(Clone)]
pub(crate) struct Headers(pub(crate) Vec<(&'static str, Vec<u8>)>);

impl std::fmt::Debug for Headers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map()
            .entries(self.0.iter().map(|(name, value)| (name, value.escape_ascii().to_string())))
            .finish()
    }
}

impl Request for Headers {
    fn header(&self, name: &str) -> Option<&[u8]> {
        self.0.iter().find(|(other, _)| *other == name).map(|(_, value)| value.as_slice())
    }
}

/// Something that rules look at.
struct Attribute {
    /// Also the header's name.
    name: &'static str,
    ty: &'static str,
    /// Constants as conditions write them.
    constants: &'static [&'static str],
    /// Values as requests carry them.
    values: &'static [&'static [u8]],
}

const ATTRIBUTES: [Attribute; 5] = [
    Attribute {
        name: "s",
        ty: "string",
        constants: &["''", "'a'", "'ab'", "'abc'", "'b'", "'ba'", "'A'", "'gr'", "'größe'", "'日'", "'日本'"],
        values: &[
            b"",
            b"a",
            b"ab",
            b"abc",
            b"abcd",
            b"b",
            b"ba",
            b"bb",
            b"A",
            b"gr",
            "größe".as_bytes(),
            "gr\u{f6}".as_bytes(),
            "日".as_bytes(),
            "日本".as_bytes(),
            b"\xff\xfe",
            b"gr\xc3",
            b"a\xff",
        ],
    },
    Attribute {
        name: "t",
        ty: "string",
        constants: &["'x'", "'y'", "'z'", "'xyz'", "'v1'", "'v1.2'", "'v1.20'"],
        values: &[b"x", b"y", b"z", b"xyz", b"xyzz", b"v1", b"v1.2", b"v1.20", b"v1.200", b""],
    },
    Attribute {
        name: "i",
        ty: "int",
        constants: &[
            "-2",
            "-1",
            "0",
            "1",
            "2",
            "3",
            "7",
            "9223372036854775807",
            "9223372036854775806",
            "-9223372036854775808",
            "-9223372036854775807",
        ],
        values: &[
            b"-3",
            b"-2",
            b"-1",
            b"-0",
            b"0",
            b"1",
            b"2",
            b"+2",
            b"3",
            b"5",
            b"7",
            b"8",
            b"9223372036854775807",
            b"9223372036854775806",
            b"-9223372036854775808",
            b"-9223372036854775807",
            b"9223372036854775808",
            b"",
            b"x",
            b"1.0",
            b" 1",
        ],
    },
    Attribute {
        name: "u",
        ty: "uint",
        constants: &[
            "0",
            "1",
            "2",
            "3",
            "10",
            "9223372036854775808",
            "18446744073709551614",
            "18446744073709551615",
        ],
        values: &[
            b"0",
            b"1",
            b"2",
            b"3",
            b"4",
            b"10",
            b"11",
            b"007",
            b"9223372036854775808",
            b"18446744073709551614",
            b"18446744073709551615",
            b"18446744073709551616",
            b"-1",
            b"",
        ],
    },
    Attribute {
        name: "d",
        ty: "double",
        constants: &[
            "0.0",
            "-0.0",
            "0.5",
            "-0.5",
            "1.0",
            "1.5",
            "5e-324",
            "1.7976931348623157e308",
            "1.0 / 0.0",
            "-1.0 / 0.0",
            "0.0 / 0.0",
        ],
        values: &[
            b"0",
            b"-0",
            b"0.5",
            b"-0.5",
            b"1",
            b"1.25",
            b"1.5",
            b"5e-324",
            b"-5e-324",
            b"1.7976931348623157e308",
            b"1e400",
            b"inf",
            b"-inf",
            b"NaN",
            b"",
            b"1,5",
        ],
    },
];

/// What rules ask besides; `{}` stands for a leaf.
const OTHERS: [&str; 24] = [
    "b",
    "!b",
    "has(s)",
    "!has(s) || s.size() > 1",
    "user.id % 3 == 0",
    "user.id in [1, 2, 3, 42]",
    "s.endsWith('b') && t != 'x'",
    "s < 'b'",
    "i + 1 > 0",
    "10 / i > 2",
    "u - 2 < 5",
    "d * 2.0 <= 1.0",
    "gone == 1 || b",
    "gone == 1 && s == 'a'",
    "1 / 0 == 1",
    "true",
    "2 > 1",
    "false",
    "t.matches('^v[0-9]')",
    "v >= semver('1.2.0')",
    "'beta' in groups",
    "now.getSeconds() == 20",
    "{'a': 1, 'b': 2}[s] == 1",
    "b ? i > 0 : u > 0",
];

const OTHER_ATTRIBUTES: &str = "
  b: {header: b, type: bool}
  v: {header: v, type: semver}
  groups: {header: groups, type: list}
  gone: {header: gone, type: int}
";

/// The moments at which schedules begin and end, and what the text of a ruleset says for them.
const MOMENTS: [(i64, &str); 2] =
    [(1_700_000_000, "2023-11-14T22:13:20Z"), (1_700_000_001, "2023-11-14T22:13:21Z")];

/// A moment before, at or behind a schedule's ends.
pub(crate) fn moments() -> impl Strategy<Value = Timestamp> {
    (select(&MOMENTS[..]), -1..=1i64).prop_map(|((second, _), by)| Timestamp(second * 1_000_000_000 + by))
}

/// A way to ask for an attribute, as the compiler tells them apart.
#[derive(Clone, Copy, Debug)]
enum Way {
    Value,
    Prefix,
    Range,
}

const WAYS: [(usize, Way); 9] = [
    (0, Way::Value),
    (0, Way::Prefix),
    (1, Way::Value),
    (1, Way::Prefix),
    (2, Way::Value),
    (2, Way::Range),
    (3, Way::Value),
    (3, Way::Range),
    (4, Way::Range),
];

/// A condition that rules can be looked up by.
fn leaf((attribute, way): (usize, Way)) -> BoxedStrategy<String> {
    let Attribute { name, constants, .. } = &ATTRIBUTES[attribute];
    let constant = || select(*constants);
    let some = || prop::collection::vec(constant(), 1..4);
    match way {
        Way::Value => prop_oneof![
            4 => constant().prop_map(move |c| format!("{name} == {c}")),
            1 => constant().prop_map(move |c| format!("{c} == {name}")),
            2 => some().prop_map(move |c| format!("{name} in [{}]", c.join(", "))),
            2 => some().prop_map(move |c| {
                let equalities: Vec<String> = c.iter().map(|c| format!("{name} == {c}")).collect();
                format!("({})", equalities.join(" || "))
            }),
        ]
        .boxed(),
        Way::Prefix => constant().prop_map(move |c| format!("{name}.startsWith({c})")).boxed(),
        Way::Range => {
            let comparison = || select(vec!["<", "<=", ">", ">="]);
            prop_oneof![
                (constant(), comparison()).prop_map(move |(c, op)| format!("{name} {op} {c}")),
                (constant(), comparison()).prop_map(move |(c, op)| format!("{c} {op} {name}")),
                (constant(), comparison(), constant(), comparison())
                    .prop_map(move |(c, op, e, other)| format!("{name} {op} {c} && {e} {other} {name}")),
            ]
            .boxed()
        }
    }
}

/// A condition with a leaf of the given kind somewhere in it, mostly such that it can be a guard.
fn condition(way: (usize, Way)) -> impl Strategy<Value = String> {
    let other = || {
        prop_oneof![
            6 => select(&OTHERS[..]).prop_map(str::to_owned),
            1 => select(&WAYS[..]).prop_flat_map(leaf),
            1 => select(&WAYS[..]).prop_flat_map(leaf).prop_map(|leaf| format!("!({leaf})")),
            1 => (select(&WAYS[..]).prop_flat_map(leaf), select(&OTHERS[..]))
                .prop_map(|(leaf, other)| format!("({other}) || ({leaf})")),
        ]
    };
    prop_oneof![
        3 => leaf(way),
        5 => (leaf(way), prop::collection::vec(other(), 1..3), any::<Index>()).prop_map(|(leaf, others, at)| {
            let mut parts: Vec<String> = others.into_iter().map(|other| format!("({other})")).collect();
            parts.insert(at.index(parts.len() + 1), leaf);
            parts.join(" && ")
        }),
        1 => (leaf(way), other()).prop_map(|(leaf, other)| format!("{leaf} || ({other})")),
    ]
}

/// A rule or an experiment.
#[derive(Clone, Debug)]
struct Entry {
    condition: Option<String>,
    share: Option<&'static str>,
    /// More than one: arms with these splits.
    splits: Vec<&'static str>,
    control: bool,
    layer: Option<usize>,
    seeded: bool,
    start: bool,
    end: bool,
}

fn entry(condition: impl Strategy<Value = Option<String>>) -> impl Strategy<Value = Entry> {
    let rarely = || prop::bool::weighted(0.1);
    (
        condition,
        prop::option::of(select(vec!["0", "0.25", "0.5", "0.75", "0.999999", "1"])),
        prop_oneof![4 => Just(vec![]), 1 => prop::collection::vec(select(vec!["1", "3", "0.001"]), 1..4)],
        rarely(),
        prop::option::weighted(0.2, 0..LAYERS),
        rarely(),
        rarely(),
        rarely(),
    )
        .prop_map(|(condition, share, splits, control, layer, seeded, start, end)| Entry {
            condition,
            share,
            splits,
            control,
            layer,
            seeded,
            start,
            end,
        })
}

const LAYERS: usize = 2;
/// Parts of a layer that are given away one by one.
const PARTS: u32 = 8;

impl Entry {
    /// Names of the arms that an override can name.
    fn arms(&self, experiment: bool) -> Vec<String> {
        match self.splits.len() {
            0 if experiment => vec!["a0".into()],
            0 if self.control => vec!["treatment".into(), "control".into()],
            0 => vec![],
            n => (0..n).map(|arm| format!("a{arm}")).collect(),
        }
    }

    /// As YAML; `used` are the parts of the layers that others have.
    fn write(&self, name: &str, experiment: bool, used: &mut [u32; LAYERS]) -> String {
        let mut text = format!("  - {{name: {name}");
        let mut field =
            |field: &str, value: String| write!(text, ", {field}: {value}").expect("a string takes all");
        if let Some(condition) = &self.condition {
            field("condition", serde_json::to_string(condition).expect("a string"));
        }
        let layer = self.layer.filter(|layer| used[*layer] < PARTS);
        let control = self.control && !experiment && self.splits.is_empty();
        if let Some(layer) = layer {
            let part = |n: u32| f64::from(n) / f64::from(PARTS);
            field("layer", format!("l{layer}"));
            field("range", format!("[{}, {}]", part(used[layer]), part(used[layer] + 1)));
            used[layer] += 1;
        } else if self.seeded {
            field("seed", format!("of-{name}"));
        }
        match self.share {
            Some("0") => field("weight", "0".into()),
            Some(_) if layer.is_some() => field("weight", "0.06".into()),
            Some(_) if control => field("weight", "0.4".into()),
            Some(share) => field("weight", share.into()),
            None => {}
        }
        if control {
            field("control", if layer.is_some() { "0.06" } else { "{weight: 0.3, target: v9}" }.into());
        }
        for (wanted, name, (_, moment)) in [(self.start, "start", MOMENTS[0]), (self.end, "end", MOMENTS[1])]
        {
            if wanted {
                field(name, format!("'{moment}'"));
            }
        }
        let splits = if experiment && self.splits.is_empty() { &["1"] } else { self.splits.as_slice() };
        if splits.is_empty() {
            field("target", format!("v{}", name.len() % 3));
        } else {
            let arms = splits.iter().enumerate().map(|(at, split)| {
                let target = if experiment { String::new() } else { format!(", target: v{at}") };
                format!("{{name: a{at}, split: {split}{target}}}")
            });
            field("arms", format!("[{}]", arms.collect::<Vec<_>>().join(", ")));
        }
        text + "}\n"
    }
}

/// Rulesets of many rules, most of which can be found by a guard.
pub(crate) fn rulesets() -> impl Strategy<Value = String> {
    // What most rules ask for: as many rules for each as a lookup pays for, and some fewer.
    let rules = prop::sample::subsequence(&WAYS[..], 1..=6)
        .prop_flat_map(|ways| {
            let rules =
                |way: &(usize, Way)| prop::collection::vec(entry(condition(*way).prop_map(Some)), 7..14);
            let others =
                prop_oneof![1 => Just(None), 9 => select(&OTHERS[..]).prop_map(|text| Some(text.to_owned()))];
            let others = prop::collection::vec(entry(others), 0..4).boxed();
            let all: Vec<_> = ways.iter().map(|way| rules(way).boxed()).chain([others]).collect();
            all.prop_map(|lists| lists.concat())
        })
        .prop_shuffle();
    let experiments = prop::option::of(select(&WAYS[..]).prop_flat_map(condition));
    let experiments = prop::collection::vec(entry(experiments), 0..6);
    let overrides = prop::collection::vec((0..USERS, 0..4u8, any::<Index>(), any::<Index>()), 0..12);
    let holdouts = (select(vec!["0", "0.1", "0.5"]), select(vec!["0", "0.1", "0.5"]));
    (rules, experiments, overrides, holdouts).prop_map(
        |(rules, experiments, overrides, (holdout, of_layer))| {
            let mut text =
                format!("version: v1\nholdout: {holdout}\nlayers: {{l0: {{holdout: {of_layer}}}, l1: }}\n");
            write!(text, "attributes:{OTHER_ATTRIBUTES}").expect("a string takes all");
            for Attribute { name, ty, .. } in &ATTRIBUTES {
                text += &format!("  {name}: {{header: {name}, type: {ty}}}\n");
            }
            let mut used = [0; LAYERS];
            for (key, list) in [("rules", &rules), ("experiments", &experiments)] {
                text += &format!("{key}:{}\n", if list.is_empty() { " []" } else { "" });
                for (at, entry) in list.iter().enumerate() {
                    let experiment = key == "experiments";
                    text += &entry.write(&format!("{}{at}", &key[..1]), experiment, &mut used);
                }
            }
            text + &written_overrides(&rules, &experiments, &overrides)
        },
    )
}

/// Units that requests have: 0 to this.
const USERS: u32 = 60;

fn written_overrides(
    rules: &[Entry],
    experiments: &[Entry],
    overrides: &[(u32, u8, Index, Index)],
) -> String {
    let mut text = String::new();
    let mut taken = BTreeSet::new();
    for (unit, kind, entry, arm) in overrides {
        let (what, list, letter) = match kind {
            0 => ("target", &rules[..0], 'v'),
            1 | 2 => ("rule", rules, 'r'),
            _ => ("experiment", experiments, 'e'),
        };
        if list.is_empty() && *kind > 0 {
            continue;
        }
        let at = if list.is_empty() { 1 } else { entry.index(list.len()) };
        // A unit has one target or rule, and one arm of each experiment.
        if !taken.insert((*unit, (*kind == 3).then_some(at))) {
            continue;
        }
        let arms = list.get(at).map(|entry| entry.arms(*kind == 3)).unwrap_or_default();
        let arm =
            if arms.is_empty() { String::new() } else { format!(", arm: {}", arms[arm.index(arms.len())]) };
        text += &format!("  - {{units: ['{unit}'], {what}: {letter}{at}{arm}}}\n");
    }
    if text.is_empty() { text } else { format!("overrides:\n{text}") }
}

/// Requests with values that the rules ask for, others, none, and some that are no values.
pub(crate) fn requests() -> impl Strategy<Value = Headers> {
    let values = |values: &'static [&'static [u8]]| prop::option::weighted(0.85, select(values));
    let id = prop_oneof![
        12 => (0..USERS).prop_map(|id| Some(id.to_string().into_bytes())),
        1 => select(vec![None, Some(&b""[..]), Some(b"x"), Some(b"-1")]).prop_map(|id| id.map(<[u8]>::to_vec)),
    ];
    let [s, t, i, u, d] = ATTRIBUTES.each_ref().map(|attribute| values(attribute.values));
    let others = (
        values(&[b"true", b"false", b"1"]),
        values(&[b"1.2.3", b"1.2.0-rc.1", b"0.9.0", b"1.2"]),
        values(&[b"beta, qa", b"qa", b""]),
    );
    (id, (s, t, i, u, d), others).prop_map(|(id, (s, t, i, u, d), (b, v, groups))| {
        let named =
            [("s", s), ("t", t), ("i", i), ("u", u), ("d", d), ("b", b), ("v", v), ("groups", groups)];
        let named = named.into_iter().filter_map(|(name, value)| Some((name, value?.to_vec())));
        Headers(id.map(|id| ("x-user-id", id)).into_iter().chain(named).collect())
    })
}
