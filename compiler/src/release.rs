//! Releases: rules that are not in a ruleset's text, and that take every unit that is eligible.

use crate::{
    allocation::REST_ARM,
    compile::{Compiled, compile_document, name_problem},
    diagnostic::{Appendix, Code, Diagnostic, Diagnostics, Span},
    document::{Arm, CONTROL_ARM, Document, ReleaseParts, Rule, Spanned, less_than_a_bucket},
    expression::{Expr, Optimisation, SourceMap, parse},
    limits::MAX_CONDITION_BYTES,
    suggest::did_you_mean,
};
use halftone_rules::bucket::share;
use serde::{Deserialize, Serialize};
use std::{
    borrow::Cow,
    collections::{BTreeMap, HashSet},
};

/// What a release takes of its ruleset's requests during an epoch.
///
/// The candidates' units are counted from the start of the range upwards, those of the control from its end downwards, and
/// all between are the rest. So a larger share never takes a unit from a candidate. The arms are the candidates, under their
/// names, and then `control` and `rest`, as far as there are some.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Release {
    /// Becomes the rule's name, by which its buckets are drawn.
    pub name: String,
    /// Reported with each decision. Above 0; another one whenever something else of the release, or who reaches it, changes.
    pub epoch: u64,
    /// Which requests are eligible; all when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub condition: Option<String>,
    /// The layer whose buckets it takes; buckets of its own when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer: Option<String>,
    /// The part of the layer that belongs to it, as two shares; the whole layer when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<[f64; 2]>,
    /// The rule of the text that it is tried before; after all of them when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// The target of the control and the rest.
    pub stable: String,
    /// Targets; each is an arm of its own.
    pub candidates: Vec<String>,
    /// Those of them whose units are with stable again. Their arms stay, so that nobody else moves.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dropped: Vec<String>,
    /// Of each candidate, of all buckets, from 0 to 1. When all candidates together have 1, they have the whole range.
    pub share: f64,
    /// Of the control, of all buckets, from 0 to 1.
    pub control: f64,
}

/// Compiles a ruleset with releases, which are tried in their order. `name` is as in [`compile`](crate::compile()), which
/// is the same without releases.
///
/// # Errors
/// All problems of the text and of the releases. What is wrong with a release has the text's beginning as its place, and a
/// message that starts with the release's name.
pub fn compile_released(text: &str, name: &str, releases: &[Release]) -> Result<Compiled, Vec<Diagnostic>> {
    compile_document(text, |_| name.to_owned(), Optimisation::Full, releases)
}

/// A text with releases behind it, so that all places are places in one text.
pub(crate) struct Appended<'a> {
    pub(crate) text: Cow<'a, str>,
    /// Where each release starts: a line feed, and then its condition.
    starts: Vec<usize>,
    releases: &'a [Release],
}

impl<'a> Appended<'a> {
    pub(crate) fn new(text: &'a str, releases: &'a [Release]) -> Self {
        let mut appended = Self { text: text.into(), starts: Vec::with_capacity(releases.len()), releases };
        for release in releases {
            let text = appended.text.to_mut();
            // The end of what is before is no place of the release.
            text.push('\n');
            appended.starts.push(text.len());
            text.push('\n');
            text.push_str(release.condition.as_deref().unwrap_or_default());
        }
        appended
    }

    pub(crate) fn diagnostics(&self) -> Diagnostics<'_> {
        let appendix =
            |(release, start): (&'a Release, &usize)| Appendix { start: *start, release: &release.name };
        let appendices = self.releases.iter().zip(&self.starts).map(appendix).collect();
        Diagnostics::with_releases(&self.text, appendices)
    }

    /// Makes rules of the releases, where they stand among those of the text.
    pub(crate) fn insert(&self, document: &mut Document, diagnostics: &mut Diagnostics<'_>) {
        let entries = document.rules.iter().chain(&document.experiments);
        let mut names: HashSet<String> = entries.map(|entry| entry.name.clone()).collect();
        // By the index of the rule that they are before.
        let mut placed: BTreeMap<usize, Vec<Rule>> = BTreeMap::new();
        for (release, start) in self.releases.iter().zip(&self.starts) {
            let mut reader = Reader {
                release,
                span: *start..*start,
                text: &self.text,
                next_id: &mut document.next_id,
                diagnostics,
            };
            let at = reader.place(&document.rules);
            let rule = reader.rule(&mut names);
            placed.entry(at).or_default().push(rule);
        }
        let written = std::mem::take(&mut document.rules);
        let count = written.len();
        for (at, rule) in written.into_iter().enumerate() {
            document.rules.extend(placed.remove(&at).unwrap_or_default());
            document.rules.push(rule);
        }
        document.rules.extend(placed.remove(&count).unwrap_or_default());
    }
}

/// Makes a rule of a release. Whatever is wrong is reported and left out.
struct Reader<'a, 'd> {
    release: &'a Release,
    /// The release's place.
    span: Span,
    /// The ruleset's, with the releases behind it.
    text: &'a str,
    next_id: &'a mut usize,
    diagnostics: &'a mut Diagnostics<'d>,
}

impl Reader<'_, '_> {
    fn report(&mut self, code: Code, message: impl Into<String>, help: impl Into<String>) {
        self.diagnostics.report_with_help(code, &self.span, message, help);
    }

    /// The index of the rule that the release is before.
    fn place(&mut self, rules: &[Rule]) -> usize {
        let Some(before) = &self.release.before else { return rules.len() };
        let found = rules.iter().position(|rule| rule.name == *before);
        if found.is_none() {
            let known = did_you_mean(before, rules.iter().map(|rule| rule.name.as_str()));
            let help = format!("{known}; `before` names a rule of the text");
            self.report(Code::UnknownReference, format!("there is no rule `{before}`"), help);
        }
        found.unwrap_or(rules.len())
    }

    /// The rule; `names` are those that are taken.
    fn rule(&mut self, names: &mut HashSet<String>) -> Rule {
        let release = self.release;
        self.check_name(&release.name, "its name");
        if !names.insert(release.name.clone()) {
            let message = "there is a rule, an experiment or a release of this name already";
            self.report(Code::DuplicateName, message, "give each its own name");
        }
        if release.epoch == 0 {
            self.report(Code::WrongForm, "its epoch is 0", "epochs count from 1");
        }
        self.check_targets();
        let span = self.span.clone();
        let spanned = |value: &String| Spanned { span: span.clone(), value: value.clone() };
        let stable = spanned(&release.stable);
        let target = |name| if release.dropped.contains(name) { &release.stable } else { name };
        let arm = |name| Arm { name: spanned(name), target: Some(spanned(target(name))), split: 1.0 };
        let arms: Vec<Arm> = release.candidates.iter().map(arm).collect();
        let share = self.share_of_all();
        let control = self.share(release.control, "control").unwrap_or(0);
        let range = self.range();
        // Nobody overlaps with a range that could not be read.
        let is_read = release.range.is_none() || range.is_some();
        let layer = release.layer.as_ref().filter(|_| is_read).map(spanned);
        Rule {
            span: self.span.clone(),
            name: release.name.clone(),
            condition: self.condition(),
            share,
            target: None,
            arms,
            control: None,
            seed: None,
            layer,
            range,
            schedule: None,
            release: Some(ReleaseParts { epoch: release.epoch, control, stable }),
        }
    }

    fn check_name(&mut self, name: &str, what: &str) {
        if let Some(problem) = name_problem(name) {
            let help = "use letters, digits, `.`, `_` and `-`, starting with a letter or a digit";
            self.report(Code::InvalidName, format!("{what} {problem}"), help);
        }
    }

    fn check_targets(&mut self) {
        let Release { stable, candidates, .. } = self.release;
        if candidates.is_empty() {
            self.report(Code::WrongForm, "it has no candidates", "name at least one target");
        }
        for target in [stable].into_iter().chain(candidates) {
            self.check_name(target, &format!("the target's name {target:?}"));
            if [CONTROL_ARM, REST_ARM].contains(&target.as_str()) {
                let message = format!("the target `{target}` has the name of an arm that releases have");
                self.report(Code::WrongForm, message, "give the target another name");
            }
        }
        let mut seen = HashSet::new();
        for candidate in candidates {
            if candidate == stable {
                let message = format!("`{candidate}` is its stable target and a candidate");
                self.report(Code::WrongForm, message, "a candidate is another target");
            }
            if !seen.insert(candidate) {
                let message = format!("there is a candidate `{candidate}` already");
                self.report(Code::DuplicateName, message, "name each once");
            }
        }
    }

    /// The buckets of all candidates.
    fn share_of_all(&mut self) -> u32 {
        let Release { share: each, candidates, .. } = self.release;
        if self.share(*each, "share").is_none() {
            return 0;
        }
        #[allow(
            clippy::cast_precision_loss,
            reason = "more candidates than are exact do not fit into memory"
        )]
        let sum = each * candidates.len() as f64;
        // Thirds add up to all, however they are rounded.
        let sum = if (sum - 1.0).abs() < 1e-9 { 1.0 } else { sum };
        share(sum).unwrap_or_else(|| {
            let message = format!("{} candidates with {each} each have more than all", candidates.len());
            self.report(
                Code::WeightOutOfRange,
                message,
                "`share` is that of each candidate; make it smaller",
            );
            0
        })
    }

    /// A number from 0 to 1 as buckets.
    fn share(&mut self, number: f64, what: &str) -> Option<u32> {
        let share = share(number);
        match share {
            Some(share) => less_than_a_bucket(number, share, what, &self.span, self.diagnostics),
            None => {
                let message = format!("the {what} {number} is not a number from 0 to 1");
                self.report(Code::WeightOutOfRange, message, "0.1 means 10 % of the eligible units");
            }
        }
        share
    }

    fn range(&mut self) -> Option<Spanned<(u32, u32)>> {
        let [start, end] = self.release.range?;
        if self.release.layer.is_none() {
            let message = "a range is a part of a layer, but no layer is named";
            self.report(Code::WrongForm, message, "name the `layer`");
        }
        let (start, end) = (self.share(start, "start"), self.share(end, "end"));
        let value = (start?, end?);
        if value.0 >= value.1 {
            self.report(
                Code::WrongForm,
                "the range is empty",
                "[0.2, 0.5] are the buckets from 20 % to 50 %",
            );
            return None;
        }
        Some(Spanned { span: self.span.clone(), value })
    }

    fn condition(&mut self) -> Option<Expr> {
        let condition = self.release.condition.as_ref()?;
        let length = condition.len();
        if length > MAX_CONDITION_BYTES {
            let message =
                format!("the condition has {length} bytes, more than the {MAX_CONDITION_BYTES} allowed");
            self.report(Code::TooLarge, message, "shorten it");
            return None;
        }
        let start = self.span.start + 1;
        let map = SourceMap::new(self.text, &(start..start + length), condition);
        parse(condition, &map, self.next_id, self.diagnostics)
    }
}
