//! Where a metric's numbers come from.

use super::prometheus::Ratio;
use crate::ledger::{Aggregate, Missing};
use halftone_judge::policy::{Metric, MetricKind};
use serde::Deserialize;

/// Where a metric's numbers come from.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// What backends observe: `error`, `nan`, `range`, `latency`, `confidence`, `output:NAME`.
    Observed(String),
    /// What applications report later.
    Outcome(Reported),
    /// What a Prometheus server has by target.
    Prometheus(Ratio),
}

/// What applications report later, and what it adds up to. Only its name is needed.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(from = "Written")]
pub struct Reported {
    /// The metric's name in the reports.
    pub metric: String,
    /// Which of a unit's outcomes is its value.
    pub aggregate: Aggregate,
    /// What a unit without one counts as; when left out, 0 where there is a window in which it could have had one, and
    /// nothing elsewhere.
    pub missing: Option<Missing>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Name(String),
    Whole(Whole),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Whole {
    metric: String,
    #[serde(default)]
    aggregate: Aggregate,
    missing: Option<Missing>,
}

impl From<Written> for Reported {
    fn from(written: Written) -> Self {
        match written {
            Written::Name(metric) => Self { metric, aggregate: Aggregate::default(), missing: None },
            Written::Whole(Whole { metric, aggregate, missing }) => Self { metric, aggregate, missing },
        }
    }
}

impl Reported {
    /// What a unit without an outcome counts as.
    pub(super) fn missing(&self, metric: &Metric) -> Missing {
        let conversion = metric.kind == MetricKind::Proportion && metric.window_s > 0;
        self.missing.unwrap_or(if conversion { Missing::Zero } else { Missing::LeaveOut })
    }
}

/// Bad events that backends report by unit.
const EVENTS: [&str; 3] = ["error", "nan", "range"];

impl Source {
    /// The source of a metric that names none: its name says it.
    pub(super) fn of_name(name: &str) -> Self {
        let observed = EVENTS.contains(&name) || ["latency", "confidence"].contains(&name);
        if observed || name.starts_with("output:") {
            Self::Observed(name.to_owned())
        } else {
            Self::Outcome(Written::Name(name.to_owned()).into())
        }
    }

    /// Why a metric cannot come from here.
    pub(super) fn problem(&self, metric: &Metric) -> Option<String> {
        let kind = metric.kind;
        match self {
            Self::Observed(name) => {
                let fits = match kind {
                    MetricKind::Event => EVENTS.contains(&name.as_str()),
                    MetricKind::Latency => name == "latency",
                    MetricKind::Ratio => !EVENTS.contains(&name.as_str()),
                    MetricKind::Proportion | MetricKind::Mean | MetricKind::Cuped => false,
                };
                (!fits).then(|| {
                    format!(
                        "backends report `error`, `nan` and `range` as events, `latency` as a latency, and per request \
                         `confidence` and `output:NAME`, which are ratios; `{name}` is none of this kind"
                    )
                })
            }
            Self::Outcome(_) if !matches!(kind, MetricKind::Proportion | MetricKind::Mean) => {
                Some("outcomes are a proportion or a mean: events and latencies come from backends".to_owned())
            }
            Self::Outcome(reported) if metric.window_s == 0 && reported.missing(metric) == Missing::Zero => {
                Some("without a `window_s` nobody knows when an outcome is missing: each unit would be 0 at first".to_owned())
            }
            Self::Outcome(_) => None,
            Self::Prometheus(_) if kind != MetricKind::Ratio => {
                Some("what a Prometheus server has is a `ratio`: it knows requests, and no units".to_owned())
            }
            Self::Prometheus(ratio) => ratio.problem(),
        }
    }
}
