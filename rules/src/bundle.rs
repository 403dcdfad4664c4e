//! What a bundle holds once it is decoded. Plain data: [`verify`](crate::verify) says what is valid.

use crate::{bucket::HASH_VERSION, isa::Op, value::Type};
use bincode::{Decode, Encode};

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
        Self::new(
            revision,
            vec![Ruleset {
                name: ruleset.into(),
                scope: Scope::default(),
                unit: Source::Header("x-user-id".into()),
                targets: vec![target.into()],
                default: 0,
                attributes: vec![],
                constants: vec![],
                lists: vec![],
                code: vec![],
                rules: vec![],
            }],
        )
    }
}

/// A compiled ruleset.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Ruleset {
    /// Unique in the bundle.
    pub name: String,
    /// The requests that it governs.
    pub scope: Scope,
    /// What is randomised.
    pub unit: Source,
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
    /// Operations of all conditions, one after the other.
    pub code: Vec<Op>,
    /// In order; the first that takes the request wins.
    pub rules: Vec<Rule>,
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
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Rule {
    /// Unique in the ruleset.
    pub name: String,
    /// What keeps this rule's split independent of the other rules'.
    pub seed: String,
    /// Which requests it matches; `None` means all.
    pub condition: Option<Condition>,
    /// The matching units in the buckets below this number take the rule (see [`crate::bucket`]).
    pub share: u32,
    /// Index of the target.
    pub target: u16,
}

/// A range of a ruleset's code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Condition {
    /// Index of the first operation.
    pub start: u32,
    /// Number of operations.
    pub length: u32,
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
}

/// A scalar constant.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub enum Constant {
    /// See [`Type::Bool`].
    Bool(bool),
    /// See [`Type::Int`].
    Int(i64),
    /// See [`Type::Uint`].
    Uint(u64),
    /// See [`Type::Double`].
    Double(f64),
    /// See [`Type::String`].
    String(String),
}

impl Constant {
    /// The constant's type.
    #[must_use]
    pub fn ty(&self) -> Type {
        match self {
            Self::Bool(_) => Type::Bool,
            Self::Int(_) => Type::Int,
            Self::Uint(_) => Type::Uint,
            Self::Double(_) => Type::Double,
            Self::String(_) => Type::String,
        }
    }
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
}
