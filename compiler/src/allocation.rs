//! Which buckets rules and experiments take, and that what is exclusive stays exclusive.

use crate::{
    diagnostic::{Code, Diagnostics},
    document::{CONTROL_ARM, Document, Forced, Layer, Override, ReleaseParts, Rule, Spanned, TREATMENT},
    suggest::did_you_mean,
};
use halftone_rules::{
    bucket::BUCKETS,
    bundle::{self, Allocation, Arm, Schedule, Share, Slice, Space},
    limits::{MAX_ARMS, MAX_VALUE_BYTES},
};
use std::collections::{BTreeMap, HashSet};

/// The arm of a release whose units get no candidate and are not compared.
pub(crate) const REST_ARM: &str = "rest";

/// How many buckets a rule has, and for what.
struct Parts {
    start: u32,
    end: u32,
    /// From the start upwards.
    share: u32,
    /// From the end downwards.
    control: u32,
}

impl Parts {
    /// `None` when they are more than there are in the range.
    fn of(rule: &Rule) -> Option<Self> {
        let (start, end) = range(rule);
        let mut control = rule.control_share();
        // A whole range is what a rule without a weight takes. A release has all that it says or none of it: a share that
        // grows must take nobody from the candidates.
        let mut share = match &rule.release {
            _ if rule.share < BUCKETS => rule.share,
            Some(_) => end - start,
            None => (end - start).saturating_sub(control),
        };
        // Halves of a range are rounded each for itself, which may be a bucket too many.
        if rule.release.is_some() && share.saturating_add(control) == end - start + 1 {
            let gives_way = if control > 0 { &mut control } else { &mut share };
            *gives_way -= 1;
        }
        (share.saturating_add(control) <= end - start).then_some(Self { start, end, share, control })
    }

    /// The buckets between.
    fn rest(&self) -> u32 {
        self.end - self.start - self.share - self.control
    }
}

/// Whether a rule takes every unit for which its condition holds, at all times.
pub(crate) fn takes_every_unit(rule: &Rule, layers: &[Layer]) -> bool {
    let held_out = rule
        .layer
        .as_ref()
        .is_some_and(|name| layers.iter().any(|layer| layer.name == name.value && layer.holdout > 0));
    let parts = Parts::of(rule).is_some_and(|parts| rule.release.is_some() || parts.rest() == 0);
    range(rule) == (0, BUCKETS) && parts && !held_out && rule.schedule.is_none()
}

fn range(rule: &Rule) -> (u32, u32) {
    rule.range.as_ref().map_or((0, BUCKETS), |range| range.value)
}

/// The arms of a rule. `target` finds a target's index.
pub(crate) fn arms(rule: &Rule, default: u16, target: impl Fn(&Spanned<String>) -> u16) -> Vec<Arm> {
    let named = |name: &str, target| Arm { name: name.into(), target };
    let of = |name: &Option<Spanned<String>>| name.as_ref().map_or(default, &target);
    let own = rule.arms.iter().map(|arm| named(&arm.name.value, of(&arm.target)));
    if let (Some(ReleaseParts { stable, .. }), Some(parts)) = (&rule.release, Parts::of(rule)) {
        let stable = target(stable);
        let control = (parts.control > 0).then(|| named(CONTROL_ARM, stable));
        let rest = (parts.rest() > 0).then(|| named(REST_ARM, stable));
        return own.chain(control).chain(rest).collect();
    }
    match &rule.control {
        _ if !rule.arms.is_empty() => own.collect(),
        Some(control) => vec![named(TREATMENT, of(&rule.target)), named(CONTROL_ARM, of(&control.target))],
        None => vec![named("", of(&rule.target))],
    }
}

/// The buckets that a rule or an experiment takes; `None` when it takes everybody, with a unit or without.
///
/// What it gives to units grows from the start of its range upwards, its control from the end downwards: a larger share
/// only ever adds units. A release takes what is between, too.
pub(crate) fn allocation(
    rule: &Rule,
    layers: &[Layer],
    diagnostics: &mut Diagnostics<'_>,
) -> Option<Allocation> {
    let Some(parts) = Parts::of(rule) else {
        let (start, end) = range(rule);
        let whole = f64::from(end - start) / f64::from(BUCKETS);
        let (what, whose) = match &rule.release {
            Some(_) => ("the candidates' shares", "release"),
            None => ("the weight", "rule"),
        };
        let message = format!(
            "{what} and the control are more than the {whole} of the buckets that belong to the {whose}"
        );
        let help = "make one of them smaller, or the range larger";
        diagnostics.report_with_help(Code::WeightOutOfRange, &rule.span, message, help);
        return None;
    };
    let rest = rule.release.as_ref().map_or(0, |_| parts.rest());
    let Parts { start, end, share, control } = parts;
    let arms = rule.arms.len();
    let all_arms = if rule.release.is_some() { arms + 2 } else { arms };
    if all_arms > MAX_ARMS {
        let message = format!("{all_arms} arms, but at most {MAX_ARMS} are allowed");
        diagnostics.report(Code::TooLarge, &rule.span, message);
        return None;
    }
    if share == BUCKETS && rule.layer.is_none() && rule.arms.len() < 2 {
        return None;
    }
    let mut slices = Vec::new();
    if share > 0 {
        slices.push(Slice { start, end: start + share, division: division(rule) });
    }
    // What follows the arms of its own, which are one where none are written.
    let further = u16::try_from(arms.max(1)).unwrap_or(u16::MAX);
    let whole = |arm| vec![Share { end: BUCKETS, arm }];
    if rest > 0 {
        let arm = if control > 0 { further + 1 } else { further };
        slices.push(Slice { start: start + share, end: end - control, division: whole(arm) });
    }
    if control > 0 {
        slices.push(Slice { start: end - control, end, division: whole(further) });
    }
    let space = match (&rule.layer, &rule.seed) {
        (Some(name), _) => match layers.iter().position(|layer| layer.name == name.value) {
            Some(at) => Space::Layer(u16::try_from(at).unwrap_or(u16::MAX)),
            None => {
                let message = format!("there is no layer `{}`", name.value);
                let help = if layers.is_empty() {
                    format!("declare it: `layers: {{{}: }}`", name.value)
                } else {
                    let known = did_you_mean(&name.value, layers.iter().map(|layer| layer.name.as_str()));
                    format!("{known}; a new one is declared under `layers`")
                };
                diagnostics.report_with_help(Code::UnknownReference, &name.span, message, help);
                return None;
            }
        },
        (None, Some(seed)) => Space::Seeded(seed.clone()),
        (None, None) => Space::Own,
    };
    Some(Allocation { space, slices })
}

/// The arms' parts of a slice, by their splits.
fn division(rule: &Rule) -> Vec<Share> {
    if rule.arms.len() < 2 {
        return vec![Share { end: BUCKETS, arm: 0 }];
    }
    let total: f64 = rule.arms.iter().map(|arm| arm.split).sum();
    let mut sum = 0.0;
    let mut shares = Vec::with_capacity(rule.arms.len());
    for (arm, index) in rule.arms.iter().zip(0u16..) {
        sum += arm.split;
        // Between 0 and 1e6, so the cast loses nothing but the fraction.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let end = (sum / total * f64::from(BUCKETS)).round() as u32;
        shares.push(Share { end: end.min(BUCKETS), arm: index });
    }
    if let Some(last) = shares.last_mut() {
        last.end = BUCKETS;
    }
    shares
}

/// Reports rules and experiments of one layer whose buckets overlap at the same time: exclusive means
/// exclusive.
pub(crate) fn check_layers(document: &Document, diagnostics: &mut Diagnostics<'_>) {
    let mut layers: BTreeMap<&str, Vec<&Rule>> = BTreeMap::new();
    for rule in document.rules.iter().chain(&document.experiments) {
        if let Some(layer) = &rule.layer {
            layers.entry(&layer.value).or_default().push(rule);
        }
    }
    for (layer, mut rules) in layers {
        rules.sort_by_key(|rule| range(rule));
        // Those that start before the current one ends, and may therefore overlap with it.
        let mut open: Vec<&Rule> = Vec::new();
        for rule in rules {
            let (start, _) = range(rule);
            open.retain(|other| range(other).1 > start);
            let clash = open.iter().find(|other| coincide(other.schedule, rule.schedule));
            if let Some(other) = clash {
                let span = rule.range.as_ref().map_or(&rule.span, |range| &range.span);
                let message = format!("`{}` and `{}` overlap in the layer `{layer}`", other.name, rule.name);
                let help = "give each a part of its own, for example `range: [0, 0.5]` and `range: [0.5, 1]`";
                diagnostics.report_with_help(Code::Overlap, span, message, help);
            }
            open.push(rule);
        }
    }
}

/// Whether two schedules have a moment in common.
pub(crate) fn coincide(a: Option<Schedule>, b: Option<Schedule>) -> bool {
    let before =
        |a: Option<Schedule>, b: Option<Schedule>| match (a.and_then(|a| a.end), b.and_then(|b| b.start)) {
            (Some(end), Some(start)) => end <= start,
            _ => false,
        };
    !before(a, b) && !before(b, a)
}

/// The overrides in ascending order of their units. `target` finds a target's index.
pub(crate) fn overrides(
    document: &Document,
    target: impl Fn(&Spanned<String>) -> u16,
    diagnostics: &mut Diagnostics<'_>,
) -> Vec<bundle::Override> {
    let mut overrides = Vec::new();
    let mut seen = HashSet::new();
    for written in &document.overrides {
        let Some(forced) = forced(written, document, &target, diagnostics) else { continue };
        for unit in &written.units {
            // A unit can have one target or rule, and one arm of each experiment.
            let place = match forced {
                bundle::Forced::Target(_) | bundle::Forced::Rule { .. } => None,
                bundle::Forced::Experiment { experiment, .. } => Some(experiment),
            };
            if !seen.insert((unit.value.as_str(), place)) {
                let message = format!("the unit {:?} is overridden already", unit.value);
                diagnostics.report_with_help(
                    Code::DuplicateName,
                    &unit.span,
                    message,
                    "remove one of the two",
                );
            }
            if unit.value.len() > MAX_VALUE_BYTES {
                let message = format!("a unit has at most {MAX_VALUE_BYTES} bytes");
                diagnostics.report(Code::TooLarge, &unit.span, message);
            }
            overrides.push(bundle::Override { unit: unit.value.clone().into_bytes(), forced });
        }
    }
    overrides.sort_by(|a, b| a.unit.cmp(&b.unit));
    overrides
}

fn forced(
    written: &Override,
    document: &Document,
    target: impl Fn(&Spanned<String>) -> u16,
    diagnostics: &mut Diagnostics<'_>,
) -> Option<bundle::Forced> {
    let (what, name, entries) = match &written.forced {
        Forced::Target(name) => return Some(bundle::Forced::Target(target(name))),
        Forced::Rule(name) => ("rule", name, &document.rules),
        Forced::Experiment(name) => ("experiment", name, &document.experiments),
    };
    // A release is not in the text, which has to stand without it.
    let written_there = |entry: &&Rule| entry.release.is_none();
    let same = |entry: &Rule| written_there(&entry) && entry.name == name.value;
    let Some(at) = entries.iter().position(same) else {
        let message = format!("there is no {what} `{}`", name.value);
        let names = entries.iter().filter(written_there).map(|entry| entry.name.as_str());
        let help = did_you_mean(&name.value, names);
        diagnostics.report_with_help(Code::UnknownReference, &name.span, message, help);
        return None;
    };
    let entry = entries.get(at)?;
    let arms: Vec<&str> = match &entry.control {
        Some(_) => vec![TREATMENT, CONTROL_ARM],
        None => entry.arms.iter().map(|arm| arm.name.value.as_str()).collect(),
    };
    let arm = match &written.arm {
        Some(arm) => match arms.iter().position(|name| *name == arm.value) {
            Some(at) => at,
            None => {
                let message = format!("`{}` has no arm `{}`", name.value, arm.value);
                diagnostics.report_with_help(
                    Code::UnknownReference,
                    &arm.span,
                    message,
                    did_you_mean(&arm.value, arms.iter().copied()),
                );
                return None;
            }
        },
        None if arms.len() > 1 => {
            let message = format!("`{}` has several arms", name.value);
            let help = format!("add `arm:` with one of {}", arms.join(", "));
            diagnostics.report_with_help(Code::MissingField, &name.span, message, help);
            return None;
        }
        None => 0,
    };
    let arm = u16::try_from(arm).unwrap_or(u16::MAX);
    Some(match written.forced {
        Forced::Experiment(_) => {
            bundle::Forced::Experiment { experiment: u16::try_from(at).unwrap_or(u16::MAX), arm }
        }
        _ => bundle::Forced::Rule { rule: u32::try_from(at).unwrap_or(u32::MAX), arm },
    })
}
