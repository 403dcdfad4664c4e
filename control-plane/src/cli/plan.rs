//! `halftone plan`

use super::{Format, print};
use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use halftone_judge::{
    fixed::{minimum_duration, units_per_arm},
    policy::planned_inflation,
    sequential::Spending,
};
use serde::Serialize;

const DAY: f64 = 86_400.0;

/// An effect: `0.02` in the metric's unit, or `5%` of the baseline.
#[derive(Clone, Copy, Debug)]
struct Effect {
    value: f64,
    relative: bool,
}

impl std::str::FromStr for Effect {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let (number, relative) = text.strip_suffix('%').map_or((text, false), |number| (number, true));
        match number.trim().parse::<f64>() {
            Ok(value) if value > 0.0 && value.is_finite() => {
                Ok(Self { value: if relative { value / 100.0 } else { value }, relative })
            }
            _ => Err("give a number above 0, with % when it is a share of the baseline".to_owned()),
        }
    }
}

/// Flags of `halftone plan`.
#[derive(Args, Debug)]
pub struct PlanArgs {
    /// The metric before the release: its mean, or a proportion.
    #[arg(long)]
    baseline: f64,
    /// Standard deviation of one unit. Left out: the metric is a proportion.
    #[arg(long)]
    sd: Option<f64>,
    /// The least effect worth finding: `0.02`, or `5%` of the baseline.
    #[arg(long)]
    mde: Effect,
    /// Two-sided level.
    #[arg(long, default_value_t = 0.01)]
    alpha: f64,
    /// Power at that effect.
    #[arg(long, default_value_t = 0.8)]
    power: f64,
    /// Share of treatment; an equally large control is beside it.
    #[arg(long, default_value_t = 0.5)]
    share: f64,
    /// New units a day, of all arms. Left out: only numbers of units are told.
    #[arg(long, value_name = "UNITS")]
    per_day: Option<f64>,
    /// Days of a cycle: 7 where days of the week differ.
    #[arg(long, value_name = "DAYS", default_value_t = 1.0)]
    cycle: f64,
    /// Form of the output.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// What is told.
#[derive(Debug, Serialize)]
struct Plan {
    /// The effect in the unit of the metric.
    mde: f64,
    /// Units of each arm for one look at the end.
    units_per_arm_fixed: f64,
    /// Units of each arm when it is looked at every six hours.
    units_per_arm: f64,
    /// New units of all traffic until then.
    units_in_all: f64,
    /// Seconds until then; whole cycles.
    planned_s: Option<f64>,
}

impl PlanArgs {
    /// Prints the plan.
    ///
    /// # Errors
    /// When a number is outside of its range.
    pub fn run(&self) -> Result<()> {
        let plan = self.plan()?;
        print(match self.format {
            Format::Json => serde_json::to_string_pretty(&plan)? + "\n",
            Format::Text => self.text(&plan),
        })
    }

    fn plan(&self) -> Result<Plan> {
        if !(self.share > 0.0 && self.share <= 0.5) {
            bail!("--share {}: give a share above 0 and at most 0.5: control takes as much", self.share);
        }
        let sd = match self.sd {
            Some(sd) => sd,
            None if (0.0..=1.0).contains(&self.baseline) => (self.baseline * (1.0 - self.baseline)).sqrt(),
            None => bail!("--baseline {} is no proportion: give --sd too", self.baseline),
        };
        let mde = if self.mde.relative { self.mde.value * self.baseline.abs() } else { self.mde.value };
        let fixed = units_per_arm(sd * sd, sd * sd, mde, 1.0, self.alpha, self.power)
            .map_err(|error| anyhow!("there is no such plan: {error}"))?;
        let units = fixed * planned_inflation(Spending::default());
        let all = units / self.share;
        let seconds = |per_day: f64| {
            minimum_duration(all / per_day * DAY, 0.0, 0.0, self.cycle * DAY).context("--per-day and --cycle")
        };
        Ok(Plan {
            mde,
            units_per_arm_fixed: fixed.ceil(),
            units_per_arm: units.ceil(),
            units_in_all: all.ceil(),
            planned_s: self.per_day.map(seconds).transpose()?,
        })
    }

    fn text(&self, plan: &Plan) -> String {
        let days = plan
            .planned_s
            .map(|seconds| format!(", which takes {:.0} days", seconds / DAY))
            .unwrap_or_default();
        format!(
            "To find an effect of {:.4} with {:.0} % power at a level of {}:\n\
             {:>12.0} units in each arm, looked at every six hours ({:.0} for a single look)\n\
             {:>12.0} units of all traffic, with {:.0} % in each arm{days}\n",
            plan.mde,
            100.0 * self.power,
            self.alpha,
            plan.units_per_arm,
            plan.units_per_arm_fixed,
            plan.units_in_all,
            100.0 * self.share,
        )
    }
}
