//! A candidate that nobody hears of. Whoever answers nothing reports no errors either: to the judge it is a sample ratio
//! that is wrong, and a reason to wait for a person. Its users cannot wait so long.

use crate::ledger::EpochObservations;

/// So long a candidate may be silent while its control is heard. Backends that lost the control plane come back within some
/// twenty seconds of one another.
const QUIET_MS: u64 = 30_000;
/// As many new units of the control, and none of the candidate, are no accident at equal shares: 1e-6 for one try. Each time
/// that the candidate is heard of another try begins, so with every doubling of tries two more are needed: all tries
/// together stay below 2e-6.
const UNITS: u64 = 20;
/// The same by requests, where all units were seen before: many more, because they come from the same units again and again.
const REQUESTS: u64 = 300;

/// What was heard of a candidate last, and of the control then. It is not kept: after a restart everybody has to be heard
/// again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Silence {
    epoch: u64,
    /// Requests to the candidate in the epoch.
    requests: u64,
    /// Since when the control was heard, and the candidate was not: milliseconds since the Unix epoch.
    since_ms: Option<u64>,
    /// Requests to the control then.
    control_requests: u64,
    /// Units of the control then.
    control_units: u64,
}

impl Silence {
    /// Takes in what is known of the current epoch, in which the control has `control` and the candidate `share` of the
    /// units. Says why the candidate is given up, when it is.
    pub(super) fn listen(
        &mut self,
        observed: &EpochObservations,
        candidate: &str,
        (share, control): (f64, f64),
        now_ms: u64,
    ) -> Option<String> {
        let arm = |name: &str| observed.arms.get(name);
        let requests = |name: &str| {
            let errors = arm(name).and_then(|arm| arm.statistics.get("error"));
            errors.map_or(0, |errors| errors.moments.n)
        };
        let units = |name: &str| arm(name).map_or(0, |arm| arm.units.units);
        let heard = requests(candidate);
        if self.epoch != observed.epoch || heard > self.requests {
            *self = Self {
                epoch: observed.epoch,
                requests: heard,
                since_ms: None,
                control_requests: requests(super::CONTROL),
                control_units: units(super::CONTROL),
            };
            return None;
        }
        // A control that is larger than the candidate has to say more.
        let ratio = (control / share).max(1.0);
        let tries = u64::from(2 * (1 + heard).ilog2());
        let enough = |count: u64, needed: u64| count as f64 >= (needed + tries) as f64 * ratio;
        let new_units = units(super::CONTROL).saturating_sub(self.control_units);
        let new_requests = requests(super::CONTROL).saturating_sub(self.control_requests);
        if new_requests == 0 {
            return None;
        }
        let silent_ms = now_ms.saturating_sub(*self.since_ms.get_or_insert(now_ms));
        let by_units = enough(new_units, UNITS);
        let by_requests = enough(new_requests, REQUESTS) && units(candidate) >= UNITS;
        (silent_ms >= QUIET_MS && (by_units || by_requests)).then(|| {
            format!(
                "nothing was heard of {candidate} for {} s, while {new_requests} requests of {new_units} new units of the \
                 control were: it does not answer, or its backend does not report (--observations-to)",
                silent_ms / 1_000
            )
        })
    }
}
