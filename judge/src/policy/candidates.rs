//! More than one candidate: each is judged against the same control, at its part of the level (`Policy::candidates`);
//! at most one of them can become stable.

use super::verdict::{Action, Cause, Decision, Purpose, Reason, Test, Verdict};
use std::collections::BTreeMap;

/// Leaves the best of several candidates that would become stable at the same run, by the largest Z of a goal; where
/// none has one, the first by name. The others hold, as `outperformed`. Other verdicts stay what they are.
pub fn choose(verdicts: &mut BTreeMap<String, Verdict>) {
    let strength = |verdict: &Verdict| {
        let of_goals = verdict.tests.iter().filter(|test| test.purpose == Purpose::Goal && test.reached);
        of_goals.filter_map(|test: &Test| test.z).fold(f64::NEG_INFINITY, f64::max)
    };
    let is_final =
        |verdict: &Verdict| verdict.decision == Decision::Promote && verdict.action == Action::Candidate;
    let mut best: Option<(String, f64)> = None;
    for (name, verdict) in verdicts.iter().filter(|(_, verdict)| is_final(verdict)) {
        let z = strength(verdict);
        if best.as_ref().is_none_or(|(_, highest)| z > *highest) {
            best = Some((name.clone(), z));
        }
    }
    let Some((best, _)) = best else { return };
    for (name, verdict) in verdicts.iter_mut().filter(|(_, verdict)| is_final(verdict)) {
        if *name == best {
            continue;
        }
        let detail = format!("candidate {best} is better");
        verdict.decision = Decision::Hold;
        verdict.action = Action::None;
        verdict.reason = Reason::Outperformed;
        verdict.subject = Some(best.clone());
        verdict.sentence = format!("Hold: {detail}.");
        verdict.causes.insert(0, Cause { reason: Reason::Outperformed, subject: Some(best.clone()), detail });
    }
}
