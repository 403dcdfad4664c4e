//! How long a candidate that goes wrong goes on being used: on real Envoy, with the version that is faulty on demand.
//!
//! One clock for all: the traffic, the control plane and Envoy's workers are on this machine.

use anyhow::{Context, Result, ensure};
use halftone_tests::{
    Paths, Stack,
    digits::{self, Digit, Fault},
    traffic::{Asked, Load},
};
use serde_json::Value;
use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// Share of the candidate.
const SHARE: f64 = 0.05;
/// Clients that think for so long make 100 requests a second.
const CONNECTIONS: usize = 10;
const PAUSE: Duration = Duration::from_millis(96);
/// Units of the candidate that are well before the fault begins.
const WELL: u64 = 10;
/// When a fault counts as never noticed.
const PATIENCE: Duration = Duration::from_secs(180);
const WORKERS: usize = 2;

struct Case {
    name: &'static str,
    asked: Asked,
    runs: usize,
}

/// Milliseconds of one run.
struct Times {
    /// From the fault to the decision.
    decided: i64,
    /// From the decision until the last worker of the proxy decides by the new revision.
    applied: i64,
    /// From the fault to the last answer of the candidate.
    last: i64,
    /// From the decision to when the release was found to be safe, as its record says.
    to_safe: i64,
    /// Answers of the candidate meanwhile.
    answers: i64,
}

pub(crate) fn run() -> Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(measure())
}

async fn measure() -> Result<()> {
    let mut stack = Stack::start_observed(Paths::find()?, 1, 1, WORKERS).await?;
    stack.add_faulty().await?;
    stack.publish("digits", &format!("version: v1\n{}default: v1\nrules: []\n", stack.targets())).await?;
    let digits = Arc::new(digits::test_set()?);
    let case = |name, fault, share, runs| Case { name, asked: Asked { fault, share }, runs };
    println!(
        "release: from the fault to the last answer of the candidate, {:.0} % of 100 requests/s",
        SHARE * 100.0
    );
    for case in [
        case("20 % errors", Fault::Fail, 0.2, 20),
        case("50 % errors", Fault::Fail, 0.5, 8),
        case("5 % errors", Fault::Fail, 0.05, 8),
        case("latency, all", Fault::Slow, 1.0, 8),
    ] {
        let mut times = Vec::new();
        let (mut requests, begun) = (0, Instant::now());
        for run in 0..case.runs {
            let name = format!("{}-{run}", case.name.replace(|c: char| !c.is_ascii_alphanumeric(), "-"));
            let (of_run, sent) = one(&stack, &digits, &name, case.asked).await.context(name)?;
            times.push(of_run);
            requests += sent;
        }
        let rate = requests as f64 / begun.elapsed().as_secs_f64();
        println!("  {} ({} runs, {rate:.0} requests/s)", case.name, case.runs);
        type Column = fn(&Times) -> i64;
        let columns: [(&str, Column); 5] = [
            ("fault to decision, ms", |of| of.decided),
            ("decision to applied, ms", |of| of.applied),
            ("fault to the last answer, ms", |of| of.last),
            ("time to safe on record, ms", |of| of.to_safe),
            ("answers of the candidate", |of| of.answers),
        ];
        for (what, of) in columns {
            let mut values: Vec<i64> = times.iter().map(of).collect();
            values.sort_unstable();
            let at = |percent: usize| {
                values.get((values.len() * percent).div_ceil(100).saturating_sub(1)).copied()
            };
            let at = |percent| at(percent).context("nothing measured");
            println!("    {what:<30} p50 {:>6}   p95 {:>6}   max {:>6}", at(50)?, at(95)?, at(100)?);
        }
    }
    Ok(())
}

/// One release that goes wrong, and how many requests there were.
async fn one(stack: &Stack, digits: &Arc<Vec<Digit>>, name: &str, asked: Asked) -> Result<(Times, u64)> {
    let control_plane = stack.control_plane()?;
    let urls = stack.infer_urls();
    // Each request is of a new user: only a unit's first latency counts.
    let load =
        Load { urls: &urls, digits, connections: CONNECTIONS, pause: PAUSE, users: u64::MAX, tell: None };
    let traffic = load.start()?;
    let text = format!(
        "version: v1\nruleset: digits\nstable: v1\ncandidates: [v4]\nsteps: [{{share: {SHARE}, hold: {{for: 1h}}}}]\n\
         metrics:\n  error: {{kind: event, role: guardrail}}\n  nan: {{kind: event, role: guardrail, ceiling: 0.001}}\n\
         \x20 latency: {{kind: latency, role: guardrail, tolerance: 1}}\n"
    );
    control_plane.put_release(name, text).await?;
    let well = |release: &Value| release["arms"]["v4"]["units"].as_u64() >= Some(WELL);
    control_plane.wait_for_release(name, PATIENCE, well).await?;
    let (begun, begun_ms) = (Instant::now(), now_ms()?);
    traffic.ask(Some(asked));
    let back =
        |release: &Value| release["phase"] == "rolled_back" && !release["safety"]["safe_at_ms"].is_null();
    let safe = control_plane.wait_for_release(name, PATIENCE, back).await?;
    let revision = safe["safety"]["revision"].as_u64();
    let applied = last_applied(&control_plane.get("/v1/nodes").await?, revision.context("a revision")?);
    let sent = traffic.sent();
    let exchanges = traffic.stop().await?;
    let of_candidate: Vec<_> = exchanges
        .iter()
        .filter(|exchange| exchange.at >= begun && exchange.target.as_deref() == Some("v4"))
        .collect();
    let last = of_candidate.last().context("nothing of the candidate")?.at - begun;
    let decided_ms = safe["safety"]["decided_at_ms"].as_i64().context("when it was decided")?;
    ensure!(decided_ms >= begun_ms, "it was taken back before the fault: {}", safe["why"]);
    let times = Times {
        decided: decided_ms - begun_ms,
        applied: applied.context("a proxy decides by older rules")? - decided_ms,
        last: i64::try_from(last.as_millis())?,
        to_safe: safe["safety"]["time_to_safe_ms"].as_i64().context("the time to safe")?,
        answers: i64::try_from(of_candidate.len())?,
    };
    Ok((times, sent))
}

/// When the last worker took a revision, in milliseconds since 1970; `None` while one has another.
fn last_applied(nodes: &Value, revision: u64) -> Option<i64> {
    let workers: Vec<&Value> =
        nodes.as_array()?.iter().filter_map(|node| node["workers"].as_array()).flatten().collect();
    let all = workers.iter().all(|worker| worker["revision"].as_u64() == Some(revision));
    all.then(|| workers.iter().filter_map(|worker| worker["since_ms"].as_i64()).max()).flatten()
}

fn now_ms() -> Result<i64> {
    Ok(i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis())?)
}
