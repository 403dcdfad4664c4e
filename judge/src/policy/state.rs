//! What has to survive between two runs, and a restart. Losing it is peeking again from the start.

use super::config::Seconds;
use crate::{
    error::{Error, Result},
    sequential::{Boundary, SAME_LOOK, Spending},
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Where `classic` is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// The release runs.
    #[default]
    Running,
    /// It waits for approval.
    Candidate,
    /// Its share is frozen, as an A/B test.
    Degraded,
}

/// Looks that a release may have: with more, taking up a stored history would take minutes.
pub(crate) const MOST_LOOKS: u32 = 1_000;

/// A boundary with the times of its looks. Only the times are stored; the bounds follow from them, to the same bits.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(try_from = "Vec<f64>", into = "Vec<f64>")]
pub struct Looks {
    times: Vec<f64>,
    /// Kept so that a look costs one step instead of all; for one level and shape of spending.
    warm: Option<(Spending, f64, bool, Boundary)>,
}

impl TryFrom<Vec<f64>> for Looks {
    type Error = Error;

    fn try_from(times: Vec<f64>) -> Result<Self> {
        if times.len() > MOST_LOOKS as usize {
            return Err(Error::malformed(format!("{} looks, of at most {MOST_LOOKS}", times.len())));
        }
        let mut last = 0.0;
        for t in &times {
            if !(*t > last + SAME_LOOK && t.is_finite()) {
                return Err(Error::malformed(format!("a look at {t} after one at {last}: times ascend")));
            }
            last = *t;
        }
        Ok(Self { times, warm: None })
    }
}

impl From<Looks> for Vec<f64> {
    fn from(looks: Looks) -> Self {
        looks.times
    }
}

impl PartialEq for Looks {
    fn eq(&self, other: &Self) -> bool {
        self.times == other.times
    }
}

impl Looks {
    /// Information times of the looks.
    #[must_use]
    pub fn times(&self) -> &[f64] {
        &self.times
    }

    /// The boundary after these looks, at a level.
    ///
    /// # Errors
    /// When the times do not ascend, or the level is no probability.
    pub(crate) fn boundary(
        &mut self,
        spending: Spending,
        alpha: f64,
        two_sided: bool,
    ) -> Result<&mut Boundary> {
        let fits = |(kept, level, sides, boundary): &(Spending, f64, bool, Boundary)| {
            *kept == spending
                && *level == alpha
                && *sides == two_sided
                && boundary.looks().len() == self.times.len()
        };
        let kept = match self.warm.take().filter(fits) {
            Some(kept) => kept,
            None => {
                let mut boundary = Boundary::new(spending, alpha, two_sided)?;
                self.times.iter().try_for_each(|t| boundary.look(*t).map(drop))?;
                (spending, alpha, two_sided, boundary)
            }
        };
        Ok(&mut self.warm.insert(kept).3)
    }

    /// Takes a look at `t` and returns its bound, and what has been spent of one side's level.
    ///
    /// # Errors
    /// As [`Boundary::look`], and when there were [`MOST_LOOKS`].
    pub(crate) fn look(
        &mut self,
        spending: Spending,
        alpha: f64,
        two_sided: bool,
        t: f64,
    ) -> Result<(f64, f64)> {
        let known = self.times.len();
        if known >= MOST_LOOKS as usize {
            return Err(Error::TooLarge { what: "the number of looks".to_owned() });
        }
        let boundary = self.boundary(spending, alpha, two_sided)?;
        let z = boundary.look(t)?;
        let spent = boundary.spent();
        let taken: Vec<f64> = boundary.looks().iter().skip(known).map(|look| look.t).collect();
        self.times.extend(taken);
        Ok((z, spent))
    }

    /// Whether all information was used.
    pub(crate) fn is_finished(&self) -> bool {
        self.times.last().is_some_and(|t| *t >= 1.0)
    }
}

/// What is remembered of a goal.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GoalState {
    /// The information that was planned; fixed at the first look.
    pub max_information: Option<f64>,
    /// The MDE in the unit of the metric; fixed with it.
    pub mde: Option<f64>,
    /// Looks at this goal.
    pub looks: Looks,
    /// Whether it crossed its bound.
    pub won: bool,
    /// Running intersection of its confidence sequence.
    pub low: Option<f64>,
    /// Its upper end.
    pub high: Option<f64>,
}

/// What has to survive between two runs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct State {
    /// The policy that the look history belongs to.
    pub policy_hash: String,
    /// Time of the last run.
    pub elapsed_s: Seconds,
    /// Planned looks that were taken.
    pub looks: u32,
    /// The last period that was looked at, and its exact time.
    pub period: u64,
    /// When that was.
    pub looked_at_s: Seconds,
    /// Epochs that were looked at under another policy: the goals have no use for them any more.
    pub spent_epochs: usize,
    /// How long the plan takes; fixed at the first look.
    pub planned_s: Option<f64>,
    /// Goals by name.
    pub goals: BTreeMap<String, GoalState>,
    /// Looks at means that have to be non-inferior.
    pub non_inferior: Looks,
    /// The highest ln E of each test so far, by the test's key.
    pub evidence: BTreeMap<String, f64>,
    /// `classic`: where it is.
    pub status: Status,
    /// `classic`: periods in a row with the lower limit above the MDE, by goal.
    pub streaks: BTreeMap<String, u32>,
    /// `classic`: units of both arms at the end of the last period.
    pub period_units: (u64, u64),
    /// `classic`: how often it promotes a version that is no better, on its schedule.
    pub false_promotion: Option<f64>,
}
