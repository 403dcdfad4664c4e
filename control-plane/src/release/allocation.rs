//! What a release takes of its ruleset, beside what others take.

use super::{
    shares::Shares,
    spec::Spec,
    status::{Epoch, Phase, Status},
};
use halftone_compiler::Release;

/// Half a bucket: shares that differ by less are the same.
const SAME: f64 = 5e-7;

/// What a release takes with these shares in an epoch.
pub(super) fn allocation(spec: &Spec, status: &Status, shares: Shares, epoch: u64) -> Release {
    let width = spec.width();
    let promoted = status.winner.as_ref().filter(|_| status.phase == Phase::Promoted);
    let (candidates, dropped) = match promoted {
        Some(winner) => (vec![winner.clone()], Vec::new()),
        None => {
            let is_dropped = |name: &&String| status.candidates.get(*name).is_some_and(|of| of.dropped);
            (spec.candidates.clone(), spec.candidates.iter().filter(is_dropped).cloned().collect())
        }
    };
    Release {
        name: spec.name.clone(),
        epoch,
        condition: spec.eligible.clone(),
        layer: spec.layer.clone(),
        range: spec.range,
        before: spec.before.clone(),
        stable: spec.stable.clone(),
        candidates,
        dropped,
        share: shares.candidate * width,
        control: shares.control * width,
    }
}

/// Whether two allocations give everybody the same.
pub(super) fn is_same(a: &Release, b: &Release) -> bool {
    let equal = |a: f64, b: f64| (a - b).abs() < SAME;
    let rest = |of: &Release| Release { epoch: 0, share: 0.0, control: 0.0, ..of.clone() };
    equal(a.share, b.share) && equal(a.control, b.control) && rest(a) == rest(b)
}

/// The epoch that an allocation begins.
pub(super) fn epoch_of(allocation: &Release, width: f64, now_ms: u64) -> Epoch {
    let candidates = allocation.candidates.len() as f64;
    let (candidate, control) = (allocation.share / width, allocation.control / width);
    let rest = (1.0 - candidate * candidates - control).max(0.0);
    Epoch {
        epoch: allocation.epoch,
        shares: Shares { candidate, control, rest: if rest < SAME { 0.0 } else { rest } },
        since_ms: now_ms,
        until_ms: None,
        candidates: allocation.candidates.clone(),
    }
}

/// Whether everybody gets the candidate, for good.
fn is_settled(of: &Release) -> bool {
    let width = of.range.map_or(1.0, |[start, end]| end - start);
    of.control < SAME && of.share > width - SAME
}

/// The releases of a ruleset with one of them as given, or gone. Those that are tried come first, in the order in which they
/// began; then those that are settled, the newest first, because it was tried on what those before had left. When who reaches
/// a release changes, its epoch ends.
pub(super) fn arrange(
    current: &[Release],
    name: &str,
    given: Option<Release>,
    revision: u64,
) -> Vec<Release> {
    let mut all = current.to_vec();
    let before = all.iter().position(|release| release.name == name);
    let others_change = before.is_some() != given.is_some();
    let was_settled = before.and_then(|at| all.get(at)).is_some_and(is_settled);
    let place = match (before, &given) {
        (Some(at), Some(given)) if is_settled(given) == was_settled => Some(at),
        _ => None,
    };
    if let Some(at) = before {
        all.remove(at);
    }
    if others_change {
        all.iter_mut().filter(|release| !is_settled(release)).for_each(|release| release.epoch = revision);
    }
    if let Some(given) = given {
        let first_settled = all.iter().position(is_settled).unwrap_or(all.len());
        all.insert(place.unwrap_or(first_settled), given);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn release(name: &str, share: f64, epoch: u64) -> Release {
        Release {
            name: name.to_owned(),
            epoch,
            condition: None,
            layer: None,
            range: None,
            before: None,
            stable: "v1".to_owned(),
            candidates: vec!["v2".to_owned()],
            dropped: Vec::new(),
            share,
            control: if share < 1.0 { 0.05 } else { 0.0 },
        }
    }

    fn names(of: &[Release]) -> Vec<(&str, u64)> {
        of.iter().map(|release| (release.name.as_str(), release.epoch)).collect()
    }

    #[test]
    fn what_is_tried_comes_before_what_is_settled() {
        let mut all = arrange(&[], "a", Some(release("a", 0.1, 1)), 1);
        all = arrange(&all, "b", Some(release("b", 0.1, 2)), 2);
        assert_eq!(names(&all), [("a", 2), ("b", 2)], "who reaches a may have changed");
        all = arrange(&all, "a", Some(release("a", 0.2, 3)), 3);
        assert_eq!(names(&all), [("a", 3), ("b", 2)], "b is reached by the same units");
        all = arrange(&all, "a", Some(release("a", 1.0, 4)), 4);
        assert_eq!(names(&all), [("b", 2), ("a", 4)]);
        all = arrange(&all, "b", Some(release("b", 1.0, 5)), 5);
        assert_eq!(names(&all), [("b", 5), ("a", 4)]);
        all = arrange(&all, "b", None, 6);
        assert_eq!(names(&all), [("a", 4)]);
    }
}
