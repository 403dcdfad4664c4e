//! The ruleset as written: from the YAML tree to typed fields with their places.

mod fields;
mod reader;

pub(crate) use reader::read;

use crate::{
    diagnostic::Span,
    expression::{DeclaredAttribute, Expr},
};
use halftone_rules::Scope;
use std::{collections::BTreeMap, net::SocketAddr};

/// A value and its place.
#[derive(Clone, Debug)]
pub(crate) struct Spanned<T> {
    pub(crate) span: Span,
    pub(crate) value: T,
}

/// A ruleset's fields.
#[derive(Debug)]
pub(crate) struct Document {
    pub(crate) name: Option<Spanned<String>>,
    pub(crate) scope: Scope,
    /// The attribute that is randomised.
    pub(crate) unit: Option<Spanned<String>>,
    pub(crate) attributes: BTreeMap<String, DeclaredAttribute>,
    /// `None` when the ruleset declares no targets: then a target exists by being named.
    pub(crate) targets: Option<Vec<Target>>,
    pub(crate) default: Option<Spanned<String>>,
    pub(crate) rules: Vec<Rule>,
}

/// A declared target.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) name: String,
    pub(crate) endpoints: Vec<SocketAddr>,
}

/// A rule as written.
#[derive(Debug)]
pub(crate) struct Rule {
    /// Of its name.
    pub(crate) span: Span,
    pub(crate) name: String,
    pub(crate) condition: Option<Expr>,
    /// In buckets, see [`halftone_rules::bucket::share`].
    pub(crate) share: u32,
    /// Missing only when that is reported.
    pub(crate) target: Option<Spanned<String>>,
    pub(crate) seed: Option<String>,
}
