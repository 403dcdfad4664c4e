//! Takes back a revision that every proxy refused.
//!
//! Every bundle has passed the [gate](crate::gate), the very filter that proxies run. So when some proxies refuse what
//! others take, the difference is in the proxies, and those who took it keep it: the ones that refused are brought back
//! one by one ([`crate::xds`]). Only when nobody whom the change concerns took it is the revision itself bad. Then the content of the newest
//! revision that a proxy has comes back as a new revision, so that its bytes are new, too.

use crate::{
    node_clusters::Audience,
    publisher::{Concern, Publisher},
    xds::{Fleet, Nodes},
};
use std::{collections::BTreeMap, time::Duration};
use tokio::time::Instant;

/// How long proxies that have not answered hold up the verdict once one refused.
const PATIENCE: Duration = Duration::from_secs(10);

/// Answers of many proxies come close together; they need not be judged after each.
const PAUSE: Duration = Duration::from_millis(20);
/// Between the last answer and taking back what everybody refused.
const GRACE: Duration = Duration::from_millis(50);

/// A change that was refused by some.
struct Refused {
    first: Instant,
    judged: bool,
}

/// Watches the proxies and rolls back, for as long as it is polled.
pub async fn watch(publisher: Publisher, nodes: Nodes) {
    let mut changes = nodes.changes();
    let mut refused: BTreeMap<u64, Refused> = BTreeMap::new();
    loop {
        let current = publisher.current();
        refused.retain(|revision, _| current.newest.iter().any(|newest| newest.revision == *revision));
        let mut deadline = None;
        // A change for other proxies does not end the trial of one before it.
        for Concern { revision, audience } in &current.newest {
            // The others got new bytes with the same rules: that they take them says nothing about the change.
            let fleet = nodes.fleet_of(*revision, audience);
            if fleet.nacked == 0 {
                continue;
            }
            let now = Instant::now();
            let trial = refused.entry(*revision).or_insert(Refused { first: now, judged: false });
            let until = trial.first + PATIENCE;
            if trial.judged {
                continue;
            }
            if is_bad(&fleet, now < until) {
                trial.judged = true;
                // Who waits for the proxies' answers reads them before they are mended: nobody decides by the change.
                tokio::time::sleep(GRACE).await;
                roll_back(&publisher, &nodes, &fleet, audience).await;
            } else if now < until {
                deadline = Some(deadline.map_or(until, |other: Instant| other.min(until)));
            }
        }
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            () = tokio::time::sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {}
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Whether it is the revision that is bad, not a proxy. `patient`: there is time for more answers.
fn is_bad(fleet: &Fleet, patient: bool) -> bool {
    fleet.nacked > 0 && fleet.acked == 0 && (fleet.answered() || !patient)
}

async fn roll_back(publisher: &Publisher, nodes: &Nodes, fleet: &Fleet, audience: &Audience) {
    let refused = fleet.revision;
    let reason = fleet.behind.iter().find_map(|node| node.refused.as_ref());
    let message = reason.map_or("", |reason| reason.message.as_str());
    let Some(good) = nodes.newest_below(refused, audience) else {
        tracing::error!(
            refused,
            proxies = fleet.proxies,
            message,
            "every proxy refused the revision, and none has an earlier one to go back to: upload other rules"
        );
        return;
    };
    match publisher.roll_back(refused, good).await {
        Ok(Some(revision)) => tracing::error!(
            refused,
            good,
            revision,
            proxies = fleet.proxies,
            message,
            "every proxy refused the revision: its changes were taken back; correct them and upload them again"
        ),
        Ok(None) => tracing::error!(
            refused,
            proxies = fleet.proxies,
            message,
            "every proxy refused the revision, and it is not taken back, because it is a rollback itself or was \
             replaced: look at the proxies"
        ),
        Err(error) => tracing::error!(
            refused,
            good,
            %error,
            "every proxy refused the revision, and taking it back failed: upload the rules of the good one again"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fleet(acked: usize, nacked: usize, pending: usize) -> Fleet {
        let proxies = acked + nacked + pending;
        Fleet { revision: 2, proxies, acked, applied: 0, nacked, pending, behind: Vec::new() }
    }

    #[test]
    fn only_what_nobody_took_is_rolled_back() {
        assert!(!is_bad(&fleet(0, 0, 0), false), "there are no proxies");
        assert!(!is_bad(&fleet(0, 0, 9), false), "nobody refused");
        assert!(!is_bad(&fleet(999, 1, 0), false));
        assert!(!is_bad(&fleet(1, 999, 0), false));
        assert!(!is_bad(&fleet(0, 1, 999), true), "the others may take it");
        assert!(is_bad(&fleet(0, 1, 999), false));
        assert!(is_bad(&fleet(0, 1000, 0), true));
    }
}
