//! The report for people.

use super::{Reading, Report};
use halftone_compiler::simulate::{Sides, TargetName};
use std::fmt::Write;

/// What stands for a count that there is none of.
const NONE: &str = "-";

pub(super) fn render(report: &Report) -> String {
    let mut text = String::new();
    if let Some(partial) = &report.partial {
        let _ = writeln!(text, "PARTIAL REPORT ({partial}): what follows covers only what was read\n");
    }
    let _ = writeln!(text, "records: {}, skipped: {}", report.input.records, report.input.skipped);
    text.push_str(&reasons(&report.input));
    if report.input.without_time > 0 {
        let _ = writeln!(text, "records without a time, decided as of now: {}", report.input.without_time);
    }
    let simulation = &report.simulation;
    let compared = simulation.moved_requests.is_some();
    for (what, count) in
        [("governed by no ruleset", &simulation.ungoverned), ("without a unit", &simulation.without_unit)]
    {
        let _ = match (count.old, count.new.unwrap_or_default()) {
            (Some(old), new) => writeln!(text, "{what}: {new} (old rules: {old})"),
            (None, new) => writeln!(text, "{what}: {new}"),
        };
    }
    text.push('\n');
    targets(report, compared, &mut text);
    text.push('\n');
    units(report, compared, &mut text);
    text.push('\n');
    rules(report, compared, &mut text);
    text
}

/// The lines that could not be read, as far as they are told.
pub(super) fn reasons(reading: &Reading) -> String {
    let mut text = String::new();
    for reason in &reading.reasons {
        let _ = writeln!(text, "  {}:{}: {}", reason.file, reason.line, reason.reason);
    }
    let told = reading.reasons.len() as u64;
    if reading.skipped > told {
        let _ = writeln!(text, "  and {} more", reading.skipped - told);
    }
    text
}

fn targets(report: &Report, compared: bool, text: &mut String) {
    let heading: &[&str] =
        if compared { &["target", "old", "", "new", "", "difference"] } else { &["target", "requests", ""] };
    let mut rows = vec![heading.iter().map(ToString::to_string).collect::<Vec<_>>()];
    for target in &report.simulation.targets {
        let mut row = vec![format!("{}/{}", target.ruleset, target.target)];
        let sides = [
            compared.then_some((target.requests.old, target.share.old)),
            Some((target.requests.new, target.share.new)),
        ];
        for (requests, share) in sides.into_iter().flatten() {
            row.push(requests.map_or(NONE.into(), |requests| requests.to_string()));
            row.push(share.map_or(String::new(), percent));
        }
        row.extend(target.difference.map(|difference| format!("{:+.2} pp", normal(difference))));
        rows.push(row);
    }
    table(&rows, text);
}

fn units(report: &Report, compared: bool, text: &mut String) {
    let units = &report.simulation.units;
    let _ = write!(text, "units: {}", units.distinct);
    if let (Some(moved), Some(share)) = (units.moved, units.moved_share) {
        let _ = write!(text, ", of which {moved} move ({})", percent(share));
    }
    text.push('\n');
    let name = |place: &Option<TargetName>| match place {
        Some(target) => format!("{}/{}", target.ruleset, target.target),
        None => "no ruleset".into(),
    };
    let row = |way: &halftone_compiler::simulate::Move| {
        let way_text = format!("  {} -> {}", name(&way.from), name(&way.to));
        vec![way_text, way.units.to_string(), percent(way.share)]
    };
    table(&units.moves.iter().map(row).collect::<Vec<_>>(), text);
    if units.mixed > 0 {
        let verb = if compared { "is attributed by" } else { "counts with" };
        let _ = writeln!(
            text,
            "  {} units got several targets, because their requests differ; each {verb} its last request",
            units.mixed
        );
    }
    if units.untracked_requests > 0 {
        let _ = writeln!(
            text,
            "  only the first {} units are followed; {} requests came from others",
            units.limit, units.untracked_requests
        );
    }
}

fn rules(report: &Report, compared: bool, text: &mut String) {
    let heading: &[&str] = if compared { &["rule", "hits old", "hits new"] } else { &["rule", "hits"] };
    let mut rows = vec![heading.iter().map(ToString::to_string).collect::<Vec<_>>()];
    let mut notes = String::new();
    for rule in &report.simulation.rules {
        let name = format!("{}/{}", rule.ruleset, rule.rule);
        let count = |count: Option<u64>| count.map_or(NONE.into(), |count| count.to_string());
        let mut row = vec![name.clone()];
        row.extend(compared.then(|| count(rule.hits.old)));
        row.push(count(rule.hits.new));
        rows.push(row);
        let unit = &rule.without_unit;
        if [unit.old, unit.new].iter().any(|count| count.unwrap_or_default() > 0) {
            let _ = writeln!(notes, "  {name}: no unit to split by: {}", side_counts(unit, compared));
        }
        // The causes of both sides, each once.
        let causes = |side: &Option<Vec<_>>| side.clone().unwrap_or_default();
        let (old, new) = (causes(&rule.errors.old), causes(&rule.errors.new));
        let mut seen: Vec<&str> = Vec::new();
        for error in new.iter().chain(&old) {
            if seen.contains(&error.error.as_str()) {
                continue;
            }
            seen.push(&error.error);
            let of = |side: &[halftone_compiler::simulate::ErrorCount]| {
                side.iter().find(|other| other.error == error.error).map_or(0, |found| found.requests)
            };
            let counts = Sides {
                old: rule.errors.old.as_ref().map(|_| of(&old)),
                new: rule.errors.new.as_ref().map(|_| of(&new)),
            };
            let _ = writeln!(notes, "  {name}: {}: {}", error.error, side_counts(&counts, compared));
        }
    }
    table(&rows, text);
    if !notes.is_empty() {
        let _ = write!(text, "\nrequests for which a rule could not be decided\n{notes}");
    }
    if !report.simulation.never_hit.is_empty() {
        text.push_str("\nrules that took no request\n");
        for rule in &report.simulation.never_hit {
            let _ = writeln!(text, "  {}/{}", rule.ruleset, rule.rule);
        }
    }
}

fn side_counts(count: &Sides<u64>, compared: bool) -> String {
    let text = |count: Option<u64>| count.map_or(NONE.into(), |count| count.to_string());
    if compared { format!("{} (old rules: {})", text(count.new), text(count.old)) } else { text(count.new) }
}

fn percent(share: f64) -> String {
    format!("{:.2} %", normal(share))
}

/// In percent, without the sign of a zero.
fn normal(share: f64) -> f64 {
    let percent = share * 100.0;
    if percent.abs() < 0.005 { 0.0 } else { percent }
}

/// Columns as wide as they need to be; the first one to the left, the others to the right.
fn table(rows: &[Vec<String>], text: &mut String) {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or_default()
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for row in rows {
        let mut line = String::new();
        for (index, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let _ =
                if index == 0 { write!(line, "{cell:<width$}") } else { write!(line, "  {cell:>width$}") };
        }
        let _ = writeln!(text, "{}", line.trim_end());
    }
}
