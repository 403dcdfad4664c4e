//! What was known in the last half minute. Backends report at moments of their own: what is known of two arms at one moment is
//! of two times, and a second more of one of them looks like a share that is wrong, or like errors that only it has.

use super::{CONTROL, REST};
use crate::ledger::ReleaseObservations;
use std::{collections::VecDeque, sync::Arc};

/// Reports are no later than this, also of backends that were away because the control plane was: they try again every 15 s.
const LATEST_MS: u64 = 30_000;

/// What was known in the last half minute, the newest last.
#[derive(Clone, Debug, Default)]
pub(super) struct History(VecDeque<(u64, Arc<ReleaseObservations>)>);

impl History {
    /// Takes in what is known at a moment, in milliseconds since the Unix epoch.
    pub(super) fn push(&mut self, now_ms: u64, observed: Arc<ReleaseObservations>) {
        self.0.push_back((now_ms, observed));
        // One that is old enough is kept.
        while self.0.get(1).is_some_and(|(at, _)| at.saturating_add(LATEST_MS) <= now_ms) {
            self.0.pop_front();
        }
    }

    /// What is known now.
    pub(super) fn now(&self) -> Option<&ReleaseObservations> {
        self.0.back().map(|(_, observed)| &**observed)
    }

    /// What was known half a minute ago; `None` when that was before the start. All of it is of a time of which everything is
    /// known now.
    pub(super) fn before(&self) -> Option<&ReleaseObservations> {
        let (now_ms, _) = self.0.back()?;
        let (at, observed) = self.0.front()?;
        (at.saturating_add(LATEST_MS) <= *now_ms).then_some(&**observed)
    }

    /// The newest of what was known of a candidate that is not of a later time than what is known of stable now; `None` when
    /// there is none yet.
    pub(super) fn beside_stable(&self, epoch: u64, candidate: &str) -> Option<&ReleaseObservations> {
        let (now_ms, now) = self.0.back()?;
        let stable = [CONTROL, REST].into_iter().filter_map(|arm| ended(now, epoch, arm)).max();
        // Stable may have no requests.
        let until = stable.unwrap_or_default().max(now_ms.saturating_sub(LATEST_MS));
        let fits =
            |observed: &ReleaseObservations| ended(observed, epoch, candidate).is_none_or(|at| at <= until);
        self.0.iter().rev().map(|(_, observed)| &**observed).find(|observed| fits(observed))
    }
}

/// When the last batch ended that had requests of an arm.
fn ended(observed: &ReleaseObservations, epoch: u64, arm: &str) -> Option<u64> {
    let of = observed.series.iter().filter(|of| of.series.epoch == epoch && of.series.arm == arm);
    of.map(|of| of.ended_ms).max()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::SeriesStatistics;
    use halftone_proto::v1::Series;
    use std::collections::BTreeMap;

    fn observed(arms: &[(&str, u64)]) -> Arc<ReleaseObservations> {
        let series = arms.iter().map(|(arm, ended_ms)| SeriesStatistics {
            series: Series { epoch: 7, arm: (*arm).to_owned(), ..Series::default() },
            begun_ms: 0,
            ended_ms: *ended_ms,
            statistics: BTreeMap::new(),
        });
        Arc::new(ReleaseObservations { series: series.collect(), ..ReleaseObservations::default() })
    }

    fn candidate(history: &History) -> Option<u64> {
        history.beside_stable(7, "v2").map(|of| ended(of, 7, "v2").unwrap_or_default())
    }

    #[test]
    fn a_candidate_is_never_known_of_a_later_time_than_stable() {
        let mut history = History::default();
        history.push(1_000, observed(&[("v2", 950)]));
        assert_eq!(candidate(&history), None, "stable has not reported");
        history.push(2_000, observed(&[("v2", 1_950), ("rest", 1_400)]));
        assert_eq!(candidate(&history), Some(950));
        history.push(3_000, observed(&[("v2", 2_950), ("control", 2_970), ("rest", 2_400)]));
        assert_eq!(candidate(&history), Some(2_950));
        // Stable has no requests any more: after a while nothing of it is on its way.
        history.push(20_000, observed(&[("v2", 19_900), ("control", 2_970)]));
        assert_eq!(candidate(&history), Some(2_950));
        history.push(50_000, observed(&[("v2", 19_900), ("control", 2_970)]));
        assert_eq!(candidate(&history), Some(19_900));
    }

    #[test]
    fn what_was_known_before_is_half_a_minute_old() {
        let mut history = History::default();
        for second in 0..100 {
            history.push(1_000 * second, observed(&[("v2", 1_000 * second)]));
            let before = history.before().and_then(|of| ended(of, 7, "v2"));
            assert_eq!(before, (second >= 30).then(|| 1_000 * (second - 30)), "after {second} s");
        }
        assert!(history.0.len() <= 32);
    }
}
