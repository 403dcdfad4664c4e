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

/// The releases of a ruleset with one of them as given, or gone. They are tried in the order in which they began; one that goes on
/// from a settled one, whose candidate is its stable, stands before that. When who reaches a release changes, its epoch
/// ends.
pub(super) fn arrange(
    current: &[Release],
    name: &str,
    given: Option<Release>,
    revision: u64,
) -> Vec<Release> {
    let mut all = current.to_vec();
    let before = all.iter().position(|release| release.name == name);
    if before.is_some() != given.is_some() {
        all.iter_mut().filter(|release| !is_settled(release)).for_each(|release| release.epoch = revision);
    }
    match (before, given) {
        (Some(at), Some(given)) => {
            if let Some(place) = all.get_mut(at) {
                *place = given;
            }
        }
        (Some(at), None) => drop(all.remove(at)),
        (None, Some(given)) => {
            let went_on = |of: &Release| is_settled(of) && of.candidates.contains(&given.stable);
            let place = all.iter().position(went_on).unwrap_or(all.len());
            all.insert(place, given);
        }
        (None, None) => {}
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
    fn nobody_who_was_promoted_is_moved_by_another_release() {
        let mut all = arrange(&[], "a", Some(release("a", 0.1, 1)), 1);
        all = arrange(&all, "b", Some(release("b", 0.1, 2)), 2);
        assert_eq!(names(&all), [("a", 2), ("b", 2)], "who reaches a may have changed");
        all = arrange(&all, "a", Some(release("a", 0.2, 3)), 3);
        assert_eq!(names(&all), [("a", 3), ("b", 2)], "b is reached by the same units");
        all = arrange(&all, "a", Some(release("a", 1.0, 4)), 4);
        assert_eq!(names(&all), [("a", 4), ("b", 2)], "a keeps its units when it is settled");
        // One that goes on from a takes its units; one that does not has what is left.
        let next =
            Release { stable: "v2".to_owned(), candidates: vec!["v3".to_owned()], ..release("c", 0.1, 5) };
        all = arrange(&all, "c", Some(next), 5);
        all = arrange(&all, "d", Some(release("d", 0.1, 6)), 6);
        assert_eq!(names(&all), [("c", 6), ("a", 4), ("b", 6), ("d", 6)]);
        all = arrange(&all, "b", None, 7);
        assert_eq!(names(&all), [("c", 7), ("a", 4), ("d", 7)]);
    }
}
