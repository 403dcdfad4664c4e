//! What a bundle holds once it is decoded. Plain data: [`verify`](crate::verify) says what is valid.

use crate::{
    anonymous::UnitCookie,
    bucket::HASH_VERSION,
    headers,
    isa::{AttributeId, ConstantId, ListId, Op},
    network::Network,
    time::Timestamp,
    value::{Type, Value},
};
use bincode::{Decode, Encode};
use std::cmp::Ordering;

/// All rulesets of one revision.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Bundle {
    /// Number of the revision.
    pub revision: u64,
    /// Version of the bucket function that the shares were planned for.
    pub hash_version: u8,
    /// In ascending order of their names.
    pub rulesets: Vec<Ruleset>,
}

impl Bundle {
    /// A bundle of the given rulesets for the current bucket function.
    #[must_use]
    pub fn new(revision: u64, mut rulesets: Vec<Ruleset>) -> Self {
        rulesets.sort_by(|a, b| a.name.cmp(&b.name));
        Self { revision, hash_version: HASH_VERSION, rulesets }
    }

    /// A bundle with one ruleset without rules: every request goes to `target`.
    #[must_use]
    pub fn pass_all(revision: u64, ruleset: &str, target: &str) -> Self {
        Self::new(revision, vec![Ruleset::pass_all(ruleset, target)])
    }
}

/// A compiled ruleset.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Ruleset {
    /// Unique in the bundle.
    pub name: String,
    /// The requests that it governs.
    pub scope: Scope,
    /// What is randomised: an attribute's bytes.
    pub unit: AttributeId,
    /// Names of the targets.
    pub targets: Vec<String>,
    /// Index of the target for requests that no rule takes.
    pub default: u16,
    /// What conditions read.
    pub attributes: Vec<Attribute>,
    /// What conditions compare with.
    pub constants: Vec<Constant>,
    /// Right operands of `in`.
    pub lists: Vec<List>,
    /// What conditions look values up in.
    pub maps: Vec<Map>,
    /// Right operands of `cidr`.
    pub networks: Vec<Network>,
    /// Compiled regular expressions.
    pub automata: Vec<Automaton>,
    /// Operations of all conditions and predicates, one after the other.
    pub code: Vec<Op>,
    /// Boolean expressions that several conditions share.
    pub predicates: Vec<Condition>,
    /// Bucket spaces that rules and experiments share.
    pub layers: Vec<Layer>,
    /// Units in the buckets below this number take no rule and no experiment (see
    /// [`seed`](crate::bucket::Seed::holdout)).
    pub holdout: u32,
    /// In ascending order of their units.
    pub overrides: Vec<Override>,
    /// In order; the first that takes the request wins.
    pub rules: Vec<Rule>,
    /// Reported for every request, whatever its target.
    pub experiments: Vec<Experiment>,
    /// Where a request without a unit gets one from; `None`: it has none.
    pub unit_cookie: Option<UnitCookie>,
}

impl Ruleset {
    /// A ruleset without rules: every request goes to `target`.
    #[must_use]
    pub fn pass_all(name: &str, target: &str) -> Self {
        Self {
            name: name.into(),
            scope: Scope::default(),
            unit: AttributeId(0),
            targets: vec![target.into()],
            default: 0,
            attributes: vec![Attribute {
                name: "user.id".into(),
                source: Source::Header("x-user-id".into()),
                ty: Type::Uint,
            }],
            constants: vec![],
            lists: vec![],
            maps: vec![],
            networks: vec![],
            automata: vec![],
            code: vec![],
            predicates: vec![],
            layers: vec![],
            holdout: 0,
            overrides: vec![],
            rules: vec![],
            experiments: vec![],
            unit_cookie: None,
        }
    }
}

/// The requests that a ruleset governs. An empty list means all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Encode, Decode)]
pub struct Scope {
    /// Host names in lower case without port; `*.example.com` takes every name below `example.com`.
    pub hosts: Vec<String>,
    /// Path prefixes, matched by whole segments: `/v2` takes `/v2` and `/v2/models`, not `/v20`.
    pub path_prefixes: Vec<String>,
}

/// A compiled rule.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Rule {
    /// Unique in the ruleset.
    pub name: String,
    /// What has to hold before anything else; rules are looked up by it.
    pub guard: Option<Guard>,
    /// Which units it takes.
    pub enrolment: Enrolment,
    /// What a unit is given; the allocation says which one.
    pub arms: Vec<Arm>,
    /// When it is a release, the epoch that it is in: while that stays, so does what it takes; 0 when it is none.
    pub epoch: u64,
}

/// One of the things that a rule gives to units.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Arm {
    /// What it is reported as; empty when the rule has only one arm.
    pub name: String,
    /// Index of the target.
    pub target: u16,
}

/// Arms that are reported and do not route.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Experiment {
    /// Unique among the ruleset's rules and experiments.
    pub name: String,
    /// Which units take part.
    pub enrolment: Enrolment,
    /// Names of the arms.
    pub arms: Vec<String>,
}

/// Which units a rule or an experiment takes, and which arm each of them gets.
#[derive(Clone, Debug, Default, PartialEq, Encode, Decode)]
pub struct Enrolment {
    /// When it is in force; `None` means always.
    pub schedule: Option<Schedule>,
    /// Which requests it matches; `None` means all.
    pub condition: Option<Condition>,
    /// Which buckets get which arm; `None` means that everybody gets the first one, also without a unit.
    pub allocation: Option<Allocation>,
}

/// The time in which a rule is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Schedule {
    /// From this time on.
    pub start: Option<Timestamp>,
    /// Before this time.
    pub end: Option<Timestamp>,
}

impl Schedule {
    /// Whether the time lies in the schedule.
    #[must_use]
    pub fn holds(&self, now: Timestamp) -> bool {
        self.start.is_none_or(|start| start <= now) && self.end.is_none_or(|end| now < end)
    }
}

/// Bucket ranges and what their units get.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Allocation {
    /// Whose buckets.
    pub space: Space,
    /// In ascending order, not overlapping. A unit in none of them is not taken.
    pub slices: Vec<Slice>,
}

/// The bucket space of an allocation.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Space {
    /// One of its own, by a seed that is made of the ruleset's and the rule's name.
    Own,
    /// One of its own, by this seed.
    Seeded(String),
    /// The layer of this index: what takes a bucket there, takes it from all others in the layer.
    Layer(u16),
}

/// The buckets from `start` to before `end`, and the arms that their units are divided among.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Slice {
    /// The first bucket.
    pub start: u32,
    /// The first bucket behind.
    pub end: u32,
    /// For each arm the first bucket behind its own, in a second space that is independent of the first
    /// one. Ascending; the last one is the number of buckets. With one arm the second space is not asked.
    pub division: Vec<Share>,
}

/// A part of a slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Share {
    /// The first bucket behind.
    pub end: u32,
    /// Index of the arm.
    pub arm: u16,
}

/// A bucket space that several rules and experiments share, so that a unit is in at most one of them.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Layer {
    /// Unique in the ruleset.
    pub name: String,
    /// What the buckets are computed under, when it is not made of the ruleset's and the layer's name.
    pub seed: Option<String>,
    /// Units in the buckets below this number (of a space of its own) take nothing in the layer.
    pub holdout: u32,
}

/// What a unit gets whatever the rules say.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Override {
    /// The unit's bytes.
    pub unit: Vec<u8>,
    /// What it gets.
    pub forced: Forced,
}

/// What an override gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Forced {
    /// A target.
    Target(u16),
    /// A rule's arm.
    Rule {
        /// Index of the rule.
        rule: u32,
        /// Index of the arm.
        arm: u16,
    },
    /// An experiment's arm.
    Experiment {
        /// Index of the experiment.
        experiment: u16,
        /// Index of the arm.
        arm: u16,
    },
}

/// A range of a ruleset's code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub struct Condition {
    /// Index of the first operation.
    pub start: u32,
    /// Number of operations.
    pub length: u32,
}

/// A part of a rule's condition that only looks at one attribute, in a form that rules can be found by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Guard {
    /// The attribute equals the constant.
    Equals(AttributeId, ConstantId),
    /// The list has the attribute.
    OneOf(AttributeId, ListId),
    /// The attribute, a string, starts with the constant.
    StartsWith(AttributeId, ConstantId),
    /// The attribute's [`order_key`] lies between the two, both included.
    Between(AttributeId, u64, u64),
}

impl Guard {
    /// The attribute that the guard looks at.
    #[must_use]
    pub fn attribute(&self) -> AttributeId {
        match self {
            Self::Equals(id, _) | Self::OneOf(id, _) | Self::StartsWith(id, _) | Self::Between(id, ..) => *id,
        }
    }
}

/// Maps numbers and times to integers in the same order; `None` for what has no such order, NaN among it.
#[must_use]
pub fn order_key(value: &Value<'_>) -> Option<u64> {
    const SIGN: u64 = 1 << 63;
    Some(match *value {
        Value::Int(value) | Value::Duration(value) => value.cast_unsigned() ^ SIGN,
        Value::Timestamp(value) => value.0.cast_unsigned() ^ SIGN,
        Value::Uint(value) => value,
        Value::Double(value) if value.is_nan() => return None,
        Value::Double(value) => {
            // Adding zero makes -0.0 to 0.0: the two are equal.
            let bits = (value + 0.0).to_bits();
            if bits & SIGN == 0 { bits | SIGN } else { !bits }
        }
        _ => return None,
    })
}

/// Something that conditions read from a request.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Attribute {
    /// The name that the rules use.
    pub name: String,
    /// Where it comes from.
    pub source: Source,
    /// The type that its bytes are read as.
    pub ty: Type,
}

/// A place in the request. The order is a part of the bundle's format: new ones go to the end.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub enum Source {
    /// A header, its name in lower case.
    Header(String),
    /// The path without the query.
    Path,
    /// The method.
    Method,
    /// The authority, as the client sent it.
    Host,
    /// A cookie, its name as it is.
    Cookie(String),
    /// A parameter of the query, as it stands there: not decoded.
    Query(String),
    /// The address that the connection comes from.
    ClientAddress,
    /// A property of the proxy, by the path of its name: a JWT's claim, filter state, the connection's SNI.
    Property(Vec<String>),
}

impl Source {
    /// The name of the header that it is read from, if it is. Headers of ours are read by no rule: what a client
    /// writes there is not to be believed.
    #[must_use]
    pub fn header_name(&self) -> Option<&str> {
        let name = match self {
            Self::Header(name) => name,
            Self::Cookie(_) => "cookie",
            Self::Path | Self::Query(_) => ":path",
            Self::Method => ":method",
            Self::Host => ":authority",
            Self::ClientAddress | Self::Property(_) => return None,
        };
        (!name.starts_with(headers::PREFIX)).then_some(name)
    }
}

macro_rules! constants {
    ($( $variant:ident($ty:ty) => $borrow:expr; )+) => {
        /// A scalar constant.
        #[derive(Clone, Debug, PartialEq, Encode, Decode)]
        #[allow(missing_docs, reason = "each variant is the type of its name")]
        pub enum Constant { $( $variant($ty), )+ }

        impl Constant {
            /// The constant's type.
            #[must_use]
            pub fn ty(&self) -> Type {
                match self { $( Self::$variant(_) => Type::$variant, )+ }
            }

            /// The constant as a value.
            #[must_use]
            #[inline]
            pub fn value(&self) -> Value<'_> {
                match self { $( Self::$variant(value) => { let borrow: fn(&$ty) -> Value<'_> = $borrow; borrow(value) } )+ }
            }
        }
    };
}

constants! {
    Bool(bool) => |value| Value::Bool(*value);
    Int(i64) => |value| Value::Int(*value);
    Uint(u64) => |value| Value::Uint(*value);
    Double(f64) => |value| Value::Double(*value);
    String(String) => |value| Value::String(value);
    Bytes(Vec<u8>) => |value| Value::Bytes(value);
    Timestamp(Timestamp) => |value| Value::Timestamp(*value);
    Duration(i64) => |value| Value::Duration(*value);
    Semver(String) => |value| Value::Semver(value);
}

/// A list constant, its elements of one type, strictly ascending, so that it can be searched.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub enum List {
    /// See [`Type::Int`].
    Int(Vec<i64>),
    /// See [`Type::Uint`].
    Uint(Vec<u64>),
    /// See [`Type::Double`]; contains no NaN.
    Double(Vec<f64>),
    /// See [`Type::String`].
    String(Vec<String>),
}

impl List {
    /// The elements' type.
    #[must_use]
    pub fn element_type(&self) -> Type {
        match self {
            Self::Int(_) => Type::Int,
            Self::Uint(_) => Type::Uint,
            Self::Double(_) => Type::Double,
            Self::String(_) => Type::String,
        }
    }

    /// Number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Int(values) => values.len(),
            Self::Uint(values) => values.len(),
            Self::Double(values) => values.len(),
            Self::String(values) => values.len(),
        }
    }

    /// Whether it has no elements.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// An element.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<Value<'_>> {
        Some(match self {
            Self::Int(values) => Value::Int(*values.get(index)?),
            Self::Uint(values) => Value::Uint(*values.get(index)?),
            Self::Double(values) => Value::Double(*values.get(index)?),
            Self::String(values) => Value::String(values.get(index)?),
        })
    }

    /// The place of a value in the list. `Err` when the value is of another type.
    pub(crate) fn position(&self, value: &Value<'_>) -> Result<Option<usize>, ()> {
        Ok(match (self, value) {
            (Self::Int(values), Value::Int(value)) => values.binary_search(value).ok(),
            (Self::Uint(values), Value::Uint(value)) => values.binary_search(value).ok(),
            // By IEEE order, so that -0.0 is found as 0.0. NaN has none, and is not found.
            (Self::Double(_), Value::Double(value)) if value.is_nan() => None,
            (Self::Double(values), Value::Double(value)) => {
                values.binary_search_by(|other| other.partial_cmp(value).unwrap_or(Ordering::Less)).ok()
            }
            // Texts mostly differ in length already: among few, no order is faster.
            (Self::String(values), Value::String(value)) if values.len() <= 8 => {
                values.iter().position(|other| other == value)
            }
            (Self::String(values), Value::String(value)) => {
                values.binary_search_by(|other| other.as_str().cmp(value)).ok()
            }
            _ => return Err(()),
        })
    }
}

/// A map constant: keys, and for each the value at the same place.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Map {
    /// The keys.
    pub keys: List,
    /// As many, of one type.
    pub values: Vec<Constant>,
}

/// A regular expression as the automaton that searches for it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Automaton {
    /// The expression as it was written, for people.
    pub pattern: String,
    /// A sparse DFA in the little-endian form of the crate `regex-automata`.
    pub dfa: Vec<u8>,
}
