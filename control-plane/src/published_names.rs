//! The names that requests can have been decided by: those of what was published lately.

use halftone_proto::v1::Series;
use halftone_rules::bundle::Ruleset;
use std::{
    collections::BTreeMap,
    sync::{PoisonError, RwLock},
};

/// For so many revisions a name is remembered after the last one that had it: backends report late, and proxies may be behind. That
/// is also how much older than the start revisions may be that proxies decide by.
const REMEMBERED: u64 = 256;

/// What was published lately.
#[derive(Debug, Default)]
pub struct PublishedNames(RwLock<Names>);

#[derive(Debug, Default)]
struct Names {
    newest: Option<u64>,
    rulesets: BTreeMap<String, OfRuleset>,
}

/// Everything is with the last revision that had it.
#[derive(Debug, Default)]
struct OfRuleset {
    targets: BTreeMap<String, u64>,
    /// Of all its releases.
    epochs: BTreeMap<u64, u64>,
    /// Its releases, rules with arms and experiments, by name.
    parts: BTreeMap<String, Part>,
}

#[derive(Debug, Default)]
struct Part {
    arms: BTreeMap<String, u64>,
    /// Those in which it was a release.
    epochs: BTreeMap<u64, u64>,
    /// Where it was there without being one: its epoch is then the revision, or that of the release that took the request.
    plain: Option<u64>,
}

impl PublishedNames {
    /// Takes note of what a revision has: all its rulesets. To be called before any proxy can have it.
    pub fn add<'a>(&self, revision: u64, rulesets: impl IntoIterator<Item = &'a Ruleset>) {
        let mut names = self.0.write().unwrap_or_else(PoisonError::into_inner);
        names.newest = Some(revision);
        for ruleset in rulesets {
            names.rulesets.entry(ruleset.name.clone()).or_default().add(ruleset, revision);
        }
        let oldest = revision.saturating_sub(REMEMBERED);
        names.rulesets.retain(|_, of| of.forget_before(oldest));
    }

    /// Whether requests that were decided by what was published can have this series.
    #[must_use]
    pub fn has(&self, series: &Series) -> bool {
        let Series { ruleset, release, epoch, arm, target, model: _, version: _ } = series;
        if ruleset.is_empty() {
            return *epoch == 0 && [release, arm, target].into_iter().all(String::is_empty);
        }
        let names = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let Some(of) = names.rulesets.get(ruleset).filter(|of| of.targets.contains_key(target)) else {
            return false;
        };
        let is_plain_epoch = || {
            let revisions = |newest: u64| newest.saturating_sub(REMEMBERED)..=newest;
            names.newest.is_some_and(|newest| revisions(newest).contains(epoch))
                || of.epochs.contains_key(epoch)
        };
        if release.is_empty() {
            return arm.is_empty() && is_plain_epoch();
        }
        of.parts.get(release).is_some_and(|part| {
            part.arms.contains_key(arm)
                && (part.epochs.contains_key(epoch) || part.plain.is_some() && is_plain_epoch())
        })
    }
}

impl OfRuleset {
    fn add(&mut self, ruleset: &Ruleset, revision: u64) {
        self.targets.extend(ruleset.targets.iter().map(|target| (target.clone(), revision)));
        for rule in &ruleset.rules {
            self.part(&rule.name, rule.epoch, rule.arms.iter().map(|arm| &arm.name), revision);
        }
        for experiment in &ruleset.experiments {
            self.part(&experiment.name, 0, &experiment.arms, revision);
        }
    }

    /// `epoch` is 0 where it is no release.
    fn part<'a>(
        &mut self,
        name: &str,
        epoch: u64,
        arms: impl IntoIterator<Item = &'a String>,
        revision: u64,
    ) {
        let part = self.parts.entry(name.to_owned()).or_default();
        let named = arms.into_iter().filter(|arm| !arm.is_empty());
        part.arms.extend(named.map(|arm| (arm.clone(), revision)));
        if epoch > 0 {
            part.epochs.insert(epoch, revision);
            self.epochs.insert(epoch, revision);
        } else {
            part.plain = Some(revision);
        }
    }

    /// Whether anything is left.
    fn forget_before(&mut self, oldest: u64) -> bool {
        let recent = |last: &u64| *last >= oldest;
        self.targets.retain(|_, last| recent(last));
        self.epochs.retain(|_, last| recent(last));
        self.parts.retain(|_, part| {
            part.arms.retain(|_, last| recent(last));
            part.epochs.retain(|_, last| recent(last));
            part.plain = part.plain.filter(recent);
            !part.arms.is_empty() || !part.epochs.is_empty() || part.plain.is_some()
        });
        !self.targets.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use halftone_rules::bundle::{Arm, Enrolment, Experiment, Rule};

    fn ruleset(epoch: u64) -> Ruleset {
        let arms = ["control", "treatment"];
        let rule = |name: &str, epoch| Rule {
            name: name.to_owned(),
            guard: None,
            enrolment: Enrolment::default(),
            arms: arms.map(|name| Arm { name: name.to_owned(), target: 0 }).to_vec(),
            epoch,
        };
        let experiment = Experiment {
            name: "colours".to_owned(),
            enrolment: Enrolment::default(),
            arms: vec!["red".to_owned()],
        };
        let rules = vec![rule("canary", epoch), rule("split", 0)];
        Ruleset { rules, experiments: vec![experiment], ..Ruleset::pass_all("digits", "v1") }
    }

    fn series(release: &str, arm: &str, epoch: u64) -> Series {
        Series {
            ruleset: "digits".to_owned(),
            release: release.to_owned(),
            arm: arm.to_owned(),
            epoch,
            target: "v1".to_owned(),
            model: "whatever".to_owned(),
            version: "it is".to_owned(),
        }
    }

    #[test]
    fn what_was_published_is_known_and_nothing_else() {
        let names = PublishedNames::default();
        let nameless = Series { model: "digits".to_owned(), ..Series::default() };
        assert!(names.has(&nameless) && !names.has(&series("canary", "control", 7)));
        names.add(1_000, [&ruleset(7)]);
        names.add(1_002, [&ruleset(1_002)]);
        names.add(1_003, []);
        for known in [
            series("canary", "control", 7),
            series("canary", "treatment", 1_002),
            series("split", "control", 1_000),
            series("split", "control", 1_003 - REMEMBERED),
            series("split", "control", 7),
            series("colours", "red", 1_003),
            series("", "", 1_001),
            series("", "", 7),
        ] {
            assert!(names.has(&known), "{known:?}");
        }
        for made_up in [
            series("canary", "control", 1_003),
            series("canary", "red", 7),
            series("split", "control", 1_004),
            series("split", "control", 8),
            series("colours", "control", 1_000),
            series("birds", "control", 1_000),
            series("", "control", 1_000),
            Series { target: "v9".to_owned(), ..series("canary", "control", 7) },
            Series { ruleset: "letters".to_owned(), ..series("canary", "control", 7) },
            Series { target: "v1".to_owned(), ..nameless },
        ] {
            assert!(!names.has(&made_up), "{made_up:?}");
        }
        // What is published is not forgotten, and what was for a while.
        names.add(1_000 + REMEMBERED, [&ruleset(1_002)]);
        assert!(names.has(&series("canary", "control", 7)));
        names.add(1_001 + REMEMBERED, [&ruleset(1_002)]);
        assert!(!names.has(&series("canary", "control", 7)));
        assert!(
            names.has(&series("canary", "control", 1_002)) && names.has(&series("split", "control", 1_257))
        );
        names.add(2_000, []);
        assert!(names.0.read().unwrap().rulesets.is_empty());
    }
}
