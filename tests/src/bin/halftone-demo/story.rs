//! Releases that go up, or back, by themselves: told as they happen.

use anyhow::{Context, Result};
use halftone_tests::{
    Stack,
    digits::Digit,
    outcomes::Labels,
    traffic::{Exchange, Load},
};
use serde_json::Value;
use std::{sync::Arc, time::Duration};

/// Users who come again and again: enough that a fifth of them has some dozens of wrong answers, whichever version answers.
const USERS: u64 = 10_000;
/// Clients that send at the same time.
const CONNECTIONS: usize = 8;
/// How long a client thinks.
const PAUSE: Duration = Duration::from_millis(4);
/// Between two looks at what was decided.
const LOOK: Duration = Duration::from_millis(100);
/// Shares of the steps.
const FIRST_STEP: f64 = 0.2;
const LAST_STEP: f64 = 0.5;

/// The ruleset that the releases are of: everybody gets version 1.
pub(crate) fn ruleset(stack: &Stack) -> Result<String> {
    let copy = stack.backend(1)?.address;
    Ok(format!(
        "version: v1\n{}  v1-copy: {{endpoints: [\"{copy}\"]}}\ndefault: v1\nrules: []\n",
        stack.targets()
    ))
}

/// A release of `candidate`. Levels are the default ones; looks are seconds apart instead of hours, because here a day's
/// requests come in a minute.
pub(crate) fn text(stable: &str, candidate: &str) -> String {
    format!(
        "\
version: v1
ruleset: digits
stable: {stable}
candidates: [{candidate}]
steps:
  - {{share: {FIRST_STEP}, hold: {{for: 2s, units: 1500}}}}
  - {{share: {LAST_STEP}, hold: {{for: 2s, units: 1500}}}}
metrics:
  more-right: {{role: goal, kind: proportion, mde: {{absolute: 0.05}}, source: {{outcome: right}}}}
  right: {{role: guardrail, kind: proportion}}
  error: {{role: guardrail, kind: event, ceiling: 0.01}}
approval: auto
watch: {{for: 5s, control: 0.05}}
policy: {{look_every_s: 2, cycle_s: 2}}
"
    )
}

/// How a release went.
pub(crate) struct Told {
    /// The release in the end.
    pub(crate) release: Value,
    /// Its records, oldest first.
    pub(crate) decisions: Vec<Value>,
    /// All requests meanwhile.
    pub(crate) exchanges: Vec<Exchange>,
    /// Requests that were answered after it was known to be over.
    pub(crate) afterwards: Vec<Exchange>,
    /// Labels that were sent back.
    pub(crate) labels: usize,
}

/// Creates a release, sends digits and labels until it is over, and tells what it does.
pub(crate) async fn tell(
    stack: &Stack,
    digits: &Arc<Vec<Digit>>,
    stable: &str,
    candidate: &str,
) -> Result<Told> {
    let control_plane = stack.control_plane()?;
    let name = format!("digits-{candidate}");
    // Before its first label: what an earlier release of a name brought would count for this one.
    control_plane.put_release(&name, text(stable, candidate)).await?;
    let (told, labels) = Labels::start(control_plane.rest, "digits", &name)?;
    let urls = stack.infer_urls();
    let load =
        Load { urls: &urls, digits, connections: CONNECTIONS, pause: PAUSE, users: USERS, tell: Some(told) };
    let traffic = load.start()?;
    let mut shown = 0;
    let (release, decisions) = loop {
        let release = control_plane.release(&name).await?;
        let decisions = control_plane.decisions(&name).await?;
        for record in decisions.iter().skip(shown) {
            show(record, &release, decisions.first().context("no record")?);
        }
        shown = decisions.len();
        if is_over(&release) {
            break (release, decisions);
        }
        tokio::time::sleep(LOOK).await;
    };
    let over = std::time::Instant::now();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let exchanges = traffic.stop().await?;
    let afterwards = exchanges.iter().filter(|exchange| exchange.at - exchange.latency > over);
    let afterwards = afterwards.cloned().collect();
    Ok(Told { release, decisions, exchanges, afterwards, labels: labels.finish().await? })
}

/// Whether nothing is left to happen.
fn is_over(release: &Value) -> bool {
    let ended = ["promoted", "rolled_back", "aborted", "paused"];
    let phase = release["phase"].as_str().unwrap_or_default();
    ended.contains(&phase) && (release["waits_for"].is_null() || phase == "paused")
}

/// One line for what was done; what was only looked at needs none.
fn show(record: &Value, release: &Value, first: &Value) {
    let action = record["action"].as_str().unwrap_or_default();
    if ["note", "create"].contains(&action) {
        return;
    }
    let at = |record: &Value| record["at_ms"].as_f64().unwrap_or_default();
    let after = (at(record) - at(first)) / 1e3;
    let candidate = release["candidates"][0].as_str().unwrap_or_default();
    let text = match action {
        "start" => {
            format!("{:.0} % of the users get {candidate}, as many are its control", FIRST_STEP * 100.0)
        }
        "widen" => format!("{:.0} % of the users get {candidate}", LAST_STEP * 100.0),
        "settle" => format!("everybody gets {candidate}"),
        "safe" => {
            let seconds = record["time_to_safe_ms"].as_f64().unwrap_or_default() / 1e3;
            format!(
                "nobody has got {candidate} since {seconds:.1} s after the decision; watched for 3 s more, to be sure"
            )
        }
        _ => record["why"].as_str().unwrap_or_default().to_owned(),
    };
    println!("  {after:>+6.1} s  {action:<8}  {text}");
}

impl Told {
    /// The record of an action.
    pub(crate) fn record(&self, action: &str) -> Option<&Value> {
        self.decisions.iter().find(|record| record["action"] == action)
    }

    /// Where it ended.
    pub(crate) fn phase(&self) -> &str {
        self.release["phase"].as_str().unwrap_or_default()
    }

    /// Seconds between two actions.
    pub(crate) fn seconds(&self, from: &str, to: &str) -> Option<f64> {
        let at = |action: &str| self.record(action)?["at_ms"].as_f64();
        Some((at(to)? - at(from)?) / 1e3)
    }

    /// How long it took from the decision to return to stable until no proxy sent anybody to the candidate.
    pub(crate) fn seconds_to_safe(&self) -> Option<f64> {
        Some(self.record("safe")?["time_to_safe_ms"].as_f64()? / 1e3)
    }
}
