//! Releases as text.

use super::super::{decisions, moment, percent, word};
use crate::release::{
    Event,
    spec::duration,
    view::{Summary, View},
};
use halftone_judge::{Verdict, policy::Test};
use std::{fmt::Write, time::Duration};

/// All releases, one per line.
pub(super) fn table(all: &[Summary], now_ms: u64) -> String {
    if all.is_empty() {
        return "there are no releases: `halftone apply -f` makes one\n".to_owned();
    }
    let mut rows = vec![["release", "phase", "step", "share", "since", "ruleset", "why"].map(str::to_owned)];
    rows.extend(all.iter().map(|of| {
        [
            of.name.clone(),
            of.phase.name().to_owned(),
            format!("{}/{}", of.step, of.steps),
            of.intended.map_or("-".to_owned(), |shares| percent(shares.candidate)),
            age(now_ms, of.since_ms),
            of.ruleset.clone(),
            of.trouble
                .as_ref()
                .map_or_else(|| of.why.clone(), |trouble| format!("it cannot go on: {trouble}")),
        ]
    }));
    columns(&rows, &[2, 3, 4])
}

/// A change of a release.
pub(super) fn line(of: &Summary) -> String {
    let share = of.intended.map_or("-".to_owned(), |shares| percent(shares.candidate));
    let (when, phase, step, steps) = (moment(of.since_ms), of.phase.name(), of.step, of.steps);
    format!("{when}  {}  {phase}  step {step}/{steps}  {share}: {}\n", of.name, of.why)
}

/// A release with everything that is known of it.
pub(super) fn one(view: &View, decisions: &[Event], now_ms: u64) -> String {
    let View { summary: of, waits_for, verdicts, safety, .. } = view;
    let mut out = format!(
        "{}: {}, step {} of {}, for {}\n",
        of.name,
        of.phase.name(),
        of.step,
        of.steps,
        age(now_ms, of.since_ms)
    );
    // Writing to a string does not fail.
    let _ = writeln!(out, "{} → {} in ruleset {}", of.stable, of.candidates.join(", "), of.ruleset);
    let _ = writeln!(out, "why: {}", of.why);
    if let Some(trouble) = &of.trouble {
        let _ = writeln!(out, "it cannot go on: {trouble}");
    }
    if let Some(waiting) = waits_for {
        let expected = waiting
            .expected_at_ms
            .map_or(String::new(), |at| format!(" (expected at {}, in {})", moment(at), age(at, now_ms)));
        let _ = writeln!(out, "waits for: {}{expected}", waiting.what);
    }
    if let Some(safety) = safety {
        let _ = match safety.time_to_safe_ms {
            Some(ms) => {
                writeln!(
                    out,
                    "safe: {} s after the decision no proxy routed to a candidate any more",
                    seconds(ms)
                )
            }
            None => writeln!(out, "safe: not known yet"),
        };
    }
    if !view.arms.is_empty() {
        let mut rows = vec![["arm", "target", "intended", "observed", "units"].map(str::to_owned)];
        rows.extend(view.arms.iter().map(|(name, arm)| {
            let observed = arm.observed.map_or("-".to_owned(), percent);
            [name.clone(), arm.target.clone(), percent(arm.intended), observed, arm.units.to_string()]
        }));
        out.push('\n');
        out += &columns(&rows, &[2, 3, 4]);
    }
    for (name, verdict) in verdicts {
        out += &of_candidate(name, verdict);
    }
    if !decisions.is_empty() {
        out.push_str("\nlast decisions\n");
        decisions.iter().for_each(|event| out += &decisions::line(event));
    }
    out
}

fn of_candidate(name: &str, verdict: &Verdict) -> String {
    let mut out = format!("\n{name}: {}. {}\n", word(&verdict.decision), verdict.sentence);
    if let Some(warning) = &verdict.warning {
        let _ = writeln!(out, "warning: {warning}");
    }
    if verdict.tests.is_empty() {
        return out;
    }
    let titles = ["metric", "purpose", "test", "estimate", "interval", "p or 1/E", "reached"];
    let mut rows = vec![titles.map(str::to_owned)];
    rows.extend(verdict.tests.iter().map(row));
    out += &columns(&rows, &[3, 4, 5]);
    out
}

fn row(test: &Test) -> [String; 7] {
    let quantile = test.quantile.map(|q| format!(" p{}", 100.0 * q)).unwrap_or_default();
    let estimate = match (test.relative, test.estimate) {
        (Some(relative), _) => format!("{:+.2} %", 100.0 * relative),
        (None, Some(estimate)) => format!("{estimate:+.4}"),
        (None, None) => "-".to_owned(),
    };
    let limit = |limit: Option<f64>| limit.map_or("…".to_owned(), |limit| format!("{limit:.4}"));
    let interval = match (test.low, test.high) {
        (None, None) => "-".to_owned(),
        (low, high) => format!("{} to {}", limit(low), limit(high)),
    };
    [
        test.metric.clone(),
        word(&test.purpose),
        word(&test.method) + &quantile,
        estimate,
        interval,
        test.shown_p().unwrap_or_else(|| "-".to_owned()),
        if test.reached { "yes" } else { "no" }.to_owned(),
    ]
}

/// Rows with their columns below each other; those of numbers end together.
fn columns<const N: usize>(rows: &[[String; N]], numbers: &[usize]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths: [usize; N] = std::array::from_fn(width);
    let mut out = String::new();
    for row in rows {
        let cells = row.iter().zip(widths).enumerate().map(|(column, (cell, width))| {
            if numbers.contains(&column) { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
        });
        out += cells.collect::<Vec<_>>().join("  ").trim_end();
        out.push('\n');
    }
    out
}

fn seconds(ms: u64) -> String {
    format!("{:.1}", ms as f64 / 1e3)
}

/// How long ago, to the second.
fn age(now_ms: u64, since_ms: u64) -> String {
    duration::text(Duration::from_secs(now_ms.saturating_sub(since_ms) / 1_000))
}
