//! Whether the return to stable has happened, and how long it took.

use serde::{Deserialize, Serialize};

/// Proxies and backends that are away, because the control plane was, are back by then; and a proxy that is away for longer
/// is seen by what its requests' backends report.
const BACK_MS: u64 = 45_000;
/// So long nothing may be seen of a candidate once no proxy routes to it: what was under way is reported then.
const QUIET_MS: u64 = 3_000;

/// How the return to stable went. Times are milliseconds since the Unix epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Safety {
    /// When the return was decided.
    pub decided_at_ms: u64,
    /// The revision that brought it.
    pub revision: u64,
    /// When every connected proxy decided by that revision on all of its workers.
    pub applied_at_ms: Option<u64>,
    /// When the last batch of observations ended that had requests to a candidate.
    pub last_seen_ms: Option<u64>,
    /// Since when no proxy routes to a candidate, as far as proxies and observations show. Missing until that is known.
    pub safe_at_ms: Option<u64>,
    /// From the decision until then.
    pub time_to_safe_ms: Option<u64>,
}

/// What is known of the fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Since when every connected proxy decides by the revision, or by a newer one, on all of its workers; `None` while one
    /// does not.
    pub applied_at_ms: Option<u64>,
    /// When the last batch of observations ended that had requests to a candidate.
    pub last_seen_ms: Option<u64>,
    /// How many proxies are connected.
    pub proxies: usize,
    /// When the controller started: milliseconds since the Unix epoch.
    pub started_ms: u64,
}

impl Safety {
    /// A return that was just decided.
    #[must_use]
    pub fn begun(decided_at_ms: u64, revision: u64) -> Self {
        Self {
            decided_at_ms,
            revision,
            applied_at_ms: None,
            last_seen_ms: None,
            safe_at_ms: None,
            time_to_safe_ms: None,
        }
    }

    /// Takes in what is known now. Whether the return is complete.
    pub fn observe(&mut self, seen: Seen, now_ms: u64) -> bool {
        self.last_seen_ms = seen.last_seen_ms.max(self.last_seen_ms);
        // Who is not connected says nothing.
        let since = if seen.proxies == 0 { self.decided_at_ms.max(seen.started_ms) } else { seen.started_ms };
        let asked_before_start = seen.started_ms > self.decided_at_ms;
        if (seen.proxies == 0 || asked_before_start) && now_ms < since.saturating_add(BACK_MS) {
            return false;
        }
        let Some(applied_at_ms) = seen.applied_at_ms else {
            // A proxy came back with older rules.
            self.applied_at_ms = None;
            return false;
        };
        // Later revisions are taken up later. Without a proxy it is so at once.
        let applied = *self.applied_at_ms.get_or_insert(applied_at_ms.max(self.decided_at_ms));
        let safe = self.last_seen_ms.map_or(applied, |last| last.max(applied));
        if now_ms < safe.saturating_add(QUIET_MS) {
            return false;
        }
        self.safe_at_ms = Some(safe);
        self.time_to_safe_ms = Some(safe.saturating_sub(self.decided_at_ms));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_safe_once_all_proxies_and_observations_say_so() {
        let mut safety = Safety::begun(1_000, 7);
        let seen =
            |applied_at_ms, last_seen_ms| Seen { applied_at_ms, last_seen_ms, proxies: 1, started_ms: 0 };
        assert!(!safety.observe(seen(None, Some(900)), 1_100));
        assert!(!safety.observe(seen(Some(1_020), Some(1_200)), 1_300));
        assert!(!safety.observe(seen(Some(1_020), Some(2_000)), 4_000), "one was under way");
        assert!(safety.observe(seen(Some(1_020), Some(2_000)), 5_000));
        assert_eq!((safety.safe_at_ms, safety.time_to_safe_ms), (Some(2_000), Some(1_000)));
    }

    #[test]
    fn it_is_as_old_as_the_last_worker_that_took_the_revision_up() {
        let mut safety = Safety::begun(1_000, 7);
        let seen = |applied_at_ms| Seen {
            applied_at_ms: Some(applied_at_ms),
            last_seen_ms: Some(990),
            proxies: 1,
            started_ms: 0,
        };
        assert!(!safety.observe(seen(1_018), 2_000));
        assert!(safety.observe(seen(4_700), 5_000), "another revision does not make it later");
        assert_eq!(safety.time_to_safe_ms, Some(18));
    }

    #[test]
    fn without_a_proxy_it_is_safe_at_once() {
        let mut safety = Safety::begun(1_000, 7);
        assert!(
            safety.observe(
                Seen { applied_at_ms: Some(0), last_seen_ms: None, proxies: 1, started_ms: 0 },
                4_000
            )
        );
        assert_eq!(safety.time_to_safe_ms, Some(0));
    }

    #[test]
    fn a_proxy_that_returns_with_old_rules_is_not_safe() {
        let mut safety = Safety::begun(1_000, 7);
        let seen = |applied_at_ms| Seen { applied_at_ms, last_seen_ms: None, proxies: 1, started_ms: 0 };
        assert!(!safety.observe(seen(Some(1_100)), 1_100));
        assert!(!safety.observe(seen(None), 9_000));
        assert!(!safety.observe(seen(Some(9_500)), 9_500));
        assert!(safety.observe(seen(Some(9_500)), 12_500));
        assert_eq!(safety.time_to_safe_ms, Some(8_500));
    }

    #[test]
    fn what_is_still_observed_is_not_safe() {
        let mut safety = Safety::begun(0, 1);
        for now in (1_000..60_000).step_by(1_000) {
            assert!(!safety.observe(
                Seen { applied_at_ms: Some(1), last_seen_ms: Some(now), proxies: 1, started_ms: 0 },
                now + 500
            ));
        }
    }

    #[test]
    fn who_is_not_connected_says_nothing() {
        // Without a proxy, and after a restart, with one that came back: others may still be on their way.
        for (proxies, started_ms) in [(0, 0), (1, 2_000), (0, 2_000)] {
            let mut safety = Safety::begun(1_000, 7);
            let seen = Seen { applied_at_ms: Some(0), last_seen_ms: None, proxies, started_ms };
            assert!(!safety.observe(seen, 40_000));
            assert!(safety.observe(seen, 50_000), "{proxies} {started_ms}");
        }
    }
}
