//! Where a metric's numbers come from.

use halftone_judge::policy::MetricKind;
use serde::{Deserialize, Serialize};

/// Where a metric's numbers come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// What backends observe: `error`, `nan`, `range`, `latency`, `confidence`, `output:NAME`.
    Observed(String),
    /// What applications report later, by the metric's name there.
    Outcome(String),
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
            Self::Outcome(name.to_owned())
        }
    }

    /// Why a metric of this kind cannot come from here.
    pub(super) fn problem(&self, kind: MetricKind) -> Option<String> {
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
            Self::Outcome(_) => (!matches!(kind, MetricKind::Proportion | MetricKind::Mean)).then(|| {
                "outcomes are a proportion or a mean: events and latencies come from backends".to_owned()
            }),
        }
    }
}
