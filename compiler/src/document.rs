//! The ruleset as written: from the YAML tree to typed fields with their places.

mod enrolment;
mod fields;
mod reader;
mod shape;
mod target;
mod unit_cookie;

pub(crate) use enrolment::{CONTROL_ARM, TREATMENT, less_than_a_bucket};
pub(crate) use reader::read;
pub use shape::json_schema;

use crate::{
    diagnostic::Span,
    expression::{DeclaredAttribute, Expr},
    target::TargetSettings,
};
use halftone_rules::{Scope, anonymous::UnitCookie, bundle::Schedule};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

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
    /// The clusters of proxies that it is for; empty for all.
    pub(crate) node_clusters: BTreeSet<String>,
    /// The attribute that is randomised.
    pub(crate) unit: Option<Spanned<String>>,
    pub(crate) attributes: BTreeMap<String, DeclaredAttribute>,
    /// `None` when the ruleset declares no targets: then a target exists by being named.
    pub(crate) targets: Option<Vec<Target>>,
    pub(crate) default: Option<Spanned<String>>,
    /// In buckets, see [`halftone_rules::bucket::share`].
    pub(crate) holdout: u32,
    pub(crate) layers: Vec<Layer>,
    pub(crate) rules: Vec<Rule>,
    pub(crate) experiments: Vec<Rule>,
    pub(crate) overrides: Vec<Override>,
    pub(crate) unit_cookie: Option<UnitCookie>,
    /// Identifiers that expressions have so far: the next one's.
    pub(crate) next_id: usize,
}

impl Document {
    /// The targets that rules and overrides name, each as often as it is named.
    pub(crate) fn named_targets(&self) -> impl Iterator<Item = &Spanned<String>> {
        let of_rules = self.rules.iter().flat_map(|rule| {
            let arms = rule.arms.iter().filter_map(|arm| arm.target.as_ref());
            let control = rule.control.as_ref().and_then(|control| control.target.as_ref());
            let stable = rule.release.as_ref().map(|release| &release.stable);
            rule.target.iter().chain(arms).chain(control).chain(stable)
        });
        let of_overrides = self.overrides.iter().filter_map(|other| match &other.forced {
            Forced::Target(target) => Some(target),
            Forced::Rule(_) | Forced::Experiment(_) => None,
        });
        of_rules.chain(of_overrides)
    }

    /// The rules and experiments that overrides name, each as often as it is named.
    pub(crate) fn forced_entries(&self) -> impl Iterator<Item = &Spanned<String>> {
        self.overrides.iter().filter_map(|other| match &other.forced {
            Forced::Rule(name) | Forced::Experiment(name) => Some(name),
            Forced::Target(_) => None,
        })
    }
}

/// A declared target.
#[derive(Debug)]
pub(crate) struct Target {
    /// Of its name.
    pub(crate) span: Span,
    pub(crate) name: String,
    pub(crate) endpoints: Vec<SocketAddr>,
    pub(crate) settings: TargetSettings,
    /// Where the settings stand that may surprise.
    pub(crate) places: Places,
}

/// Places of a target's settings.
#[derive(Debug, Default)]
pub(crate) struct Places {
    /// Of the first setting that is written.
    pub(crate) first: Option<Span>,
    /// Of what [`crate::target::Retries::on`] lists, when it is written.
    pub(crate) retry_on: Vec<Span>,
    pub(crate) per_try_timeout: Option<Span>,
    pub(crate) consecutive_5xx: Option<Span>,
}

/// A declared layer.
#[derive(Debug)]
pub(crate) struct Layer {
    pub(crate) name: String,
    pub(crate) seed: Option<String>,
    /// In buckets.
    pub(crate) holdout: u32,
}

/// A rule or an experiment as written. What an experiment does not have is empty.
#[derive(Debug)]
pub(crate) struct Rule {
    /// Of its name.
    pub(crate) span: Span,
    pub(crate) name: String,
    pub(crate) condition: Option<Expr>,
    /// In buckets.
    pub(crate) share: u32,
    /// Where all its units go; then it has no arms.
    pub(crate) target: Option<Spanned<String>>,
    pub(crate) arms: Vec<Arm>,
    pub(crate) control: Option<Control>,
    pub(crate) seed: Option<String>,
    pub(crate) layer: Option<Spanned<String>>,
    /// In buckets of the layer, the end not included.
    pub(crate) range: Option<Spanned<(u32, u32)>>,
    pub(crate) schedule: Option<Schedule>,
    /// Only of a rule that is a release: its arms are the candidates, and its share is that of all of them.
    pub(crate) release: Option<ReleaseParts>,
}

impl Rule {
    /// The buckets of its control.
    pub(crate) fn control_share(&self) -> u32 {
        let control = self.control.as_ref().map(|control| control.share);
        control.or(self.release.as_ref().map(|release| release.control)).unwrap_or(0)
    }
}

/// What a release has and other rules have not.
#[derive(Debug)]
pub(crate) struct ReleaseParts {
    /// Above 0.
    pub(crate) epoch: u64,
    /// In buckets.
    pub(crate) control: u32,
    /// Where its control goes, and whoever gets no candidate.
    pub(crate) stable: Spanned<String>,
}

/// An arm of a rule or an experiment.
#[derive(Debug)]
pub(crate) struct Arm {
    pub(crate) name: Spanned<String>,
    /// Only of rules.
    pub(crate) target: Option<Spanned<String>>,
    /// In relation to the others.
    pub(crate) split: f64,
}

/// What a rule compares with.
#[derive(Debug)]
pub(crate) struct Control {
    pub(crate) span: Span,
    /// In buckets.
    pub(crate) share: u32,
    pub(crate) target: Option<Spanned<String>>,
}

/// What units get whatever the rules say.
#[derive(Debug)]
pub(crate) struct Override {
    pub(crate) units: Vec<Spanned<String>>,
    pub(crate) forced: Forced,
    pub(crate) arm: Option<Spanned<String>>,
}

/// What an override names.
#[derive(Debug)]
pub(crate) enum Forced {
    Target(Spanned<String>),
    Rule(Spanned<String>),
    Experiment(Spanned<String>),
}
