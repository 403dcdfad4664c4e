//! Who gets how much at a point of the ramp.

use super::spec::Spec;
use serde::{Deserialize, Serialize};

/// Shares of a release's units.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Shares {
    /// Of each candidate.
    pub candidate: f64,
    /// Of the concurrent control.
    pub control: f64,
    /// Of the rest of stable.
    pub rest: f64,
}

/// A millionth is one bucket: less than that is rounding.
const BUCKET: f64 = 1e-6;

impl Shares {
    /// Those of a step: the control is as large as a candidate, for as long as there is room.
    #[must_use]
    pub fn of_step(spec: &Spec, step: usize) -> Self {
        let share = spec.steps.get(step).map_or(0.0, |step| step.share);
        Self::with_control(share, spec.candidates.len(), share)
    }

    /// Those of the watch after a promotion.
    #[must_use]
    pub fn of_watch(spec: &Spec) -> Self {
        Self::with_control(1.0 - spec.watch.control, 1, spec.watch.control)
    }

    /// Everything to the candidate.
    #[must_use]
    pub fn all() -> Self {
        Self { candidate: 1.0, control: 0.0, rest: 0.0 }
    }

    /// Whether a step leaves as much for the control as the watch will.
    pub(super) fn leaves_control(spec: &Spec, share: f64) -> bool {
        share * spec.candidates.len() as f64 <= 1.0 - spec.watch.control + BUCKET / 2.0
    }

    fn with_control(candidate: f64, candidates: usize, control: f64) -> Self {
        let left = (1.0 - candidate * candidates as f64).max(0.0);
        let control = control.min(left);
        let rest = left - control;
        if rest < BUCKET / 2.0 {
            return Self { candidate, control: left, rest: 0.0 };
        }
        Self { candidate, control, rest }
    }
}
