//! `halftone judge` and `halftone plan`.

use anyhow::Result;
use halftone_tests::{Cli, stderr, stdout};
use serde_json::Value;
use std::process::Output;

const POLICY: &str = "metrics:
  errors: {role: guardrail, kind: event, ceiling: 0.05}
  conversion: {role: goal, kind: proportion, mde: {relative: 0.05}, baseline: {mean: 0.2}}
";

/// Two arms of 20,000 units; treatment has so many errors and conversions.
fn snapshot(errors: u32, converted: u32) -> String {
    format!(
        r#"{{"elapsed_s": 259200, "gate": "final", "epochs": [{{
            "id": "1", "shares": {{"control": 0.5, "treatment": 0.5}}, "units": {{"control": 20000, "treatment": 20000}},
            "metrics": {{
                "errors": {{"control": {{"proportion": {{"n": 20000, "k": 300}}}},
                            "treatment": {{"proportion": {{"n": 20000, "k": {errors}}}}}}},
                "conversion": {{"control": {{"proportion": {{"n": 20000, "k": 4000}}}},
                                "treatment": {{"proportion": {{"n": 20000, "k": {converted}}}}}}}
            }}}}]}}"#
    )
}

fn said(output: &Output) -> String {
    stdout(output) + &stderr(output)
}

#[test]
fn a_verdict_has_a_sentence_and_an_exit_code() -> Result<()> {
    let cli = Cli::new(&[
        ("policy.yaml", POLICY),
        ("better.json", &snapshot(300, 4_600)),
        ("same.json", &snapshot(300, 4_010)),
        ("broken.json", &snapshot(900, 4_600)),
        ("empty.json", r#"{"elapsed_s": 1, "gate": "final", "epochs": []}"#),
    ])?;
    for (data, code, sentence) in [
        ("better.json", 0, "PROMOTE\nPromote after 3 days: conversion: better at this look (+15.0 %"),
        ("same.json", 0, "HOLD\n"),
        ("broken.json", 3, "ROLLBACK\nRoll back: errors is worse in the candidate: 900 of 1200 units"),
        ("empty.json", 4, "INSUFFICIENT_DATA\nToo little data"),
    ] {
        let output = cli.run(&["judge", "--policy", "policy.yaml", data])?;
        assert_eq!(output.status.code(), Some(code), "{data}: {}", said(&output));
        assert!(said(&output).starts_with(sentence), "{data}: {}", said(&output));
    }
    let output = cli.run(&["judge", "--policy", "policy.yaml", "--format", "json", "better.json"])?;
    let verdict: Value = serde_json::from_slice(&output.stdout)?;
    assert_eq!((&verdict["decision"], &verdict["reason"]), (&"PROMOTE".into(), &"goal".into()));
    Ok(())
}

#[test]
fn the_state_is_kept_between_runs() -> Result<()> {
    let cli = Cli::new(&[
        ("policy.yaml", POLICY),
        ("broken.json", &snapshot(900, 4_000)),
        ("mended.json", &snapshot(300, 4_000)),
    ])?;
    let run = |data| cli.run(&["judge", "--policy", "policy.yaml", "--state", "state.json", data]);
    assert_eq!(run("broken.json")?.status.code(), Some(3));
    // What was crossed once stays crossed, and the same inputs leave the same bytes.
    let state = std::fs::read(cli.path().join("state.json"))?;
    assert_eq!(run("mended.json")?.status.code(), Some(3));
    assert_eq!(run("broken.json")?.status.code(), Some(3));
    assert_eq!(std::fs::read(cli.path().join("state.json"))?, state);
    Ok(())
}

#[test]
fn two_arms_can_come_as_csv() -> Result<()> {
    let row = |i: u32| {
        let (arm, errors, good) = if i.is_multiple_of(2) { ("control", 100, 5) } else { ("treatment", 8, 4) };
        format!(
            "{arm},{},{}\n",
            u32::from((i / 2).is_multiple_of(errors)),
            u32::from((i / 2).is_multiple_of(good))
        )
    };
    let csv: String =
        std::iter::once("arm,errors,conversion\n".to_owned()).chain((0..8_000).map(row)).collect();
    let cli = Cli::new(&[
        ("policy.yaml", POLICY),
        ("arms.csv", &csv),
        ("bad.csv", "arm,errors\ncontrol,2\ntreatment,x\n"),
    ])?;
    let output = cli.run(&["judge", "--policy", "policy.yaml", "arms.csv"])?;
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    let output = cli.run(&["judge", "--policy", "policy.yaml", "bad.csv"])?;
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("line 3: `x` in errors is no number"), "{}", said(&output));
    Ok(())
}

#[test]
fn what_is_wrong_with_a_policy_is_shown_where_it_is() -> Result<()> {
    let data = snapshot(300, 4_000);
    for (policy, told) in [
        ("metrics:\n  errors: {role: guard, kind: event}\n", "policy.yaml:2:18"),
        ("metrics:\n  errors: {role: guardrail, kind: event, ceiling: 2}\n", "policy.yaml:2:51"),
        ("metrics:\n  errors: {role: guardrail, kind: event, celing: 0.1}\n", "unknown field `celing`"),
        ("alpha: {kill: 0}\nmetrics:\n  errors: {role: guardrail, kind: event}\n", "policy.yaml:1:15"),
        ("metrics:\n  rating: {role: goal, kind: mean}\n", "a goal needs the least effect worth finding"),
        ("metrics: [", "policy.yaml"),
        ("", "a policy starts with `metrics:`"),
        ("metrics: &all {}\n", "anchors are not supported in policies"),
    ] {
        let cli = Cli::new(&[("policy.yaml", policy), ("data.json", &data)])?;
        let output = cli.run(&["judge", "--policy", "policy.yaml", "data.json"])?;
        assert_eq!(output.status.code(), Some(1), "{policy}: {}", said(&output));
        assert!(said(&output).contains(told), "{policy}: {}", said(&output));
        assert!(!said(&output).contains("ruleset"), "{policy}: {}", said(&output));
    }
    let cli = Cli::new(&[("policy.yaml", POLICY), ("data.json", r#"{"elapsed_s": -1}"#)])?;
    let output = cli.run(&["judge", "--policy", "policy.yaml", "data.json"])?;
    assert!(said(&output).contains("elapsed_s: invalid value"), "{}", said(&output));
    Ok(())
}

#[test]
fn a_plan_says_how_many_and_how_long() -> Result<()> {
    let cli = Cli::new(&[])?;
    let plan = [
        "plan",
        "--baseline",
        "0.2",
        "--mde",
        "5%",
        "--per-day",
        "20000",
        "--share",
        "0.1",
        "--format",
        "json",
    ];
    let plan: Value = serde_json::from_slice(&cli.run(&plan)?.stdout)?;
    // (2.5758 + .8416)²·2·.16/.01² = 37,373; times 1.101; a tenth of the traffic; whole days.
    assert_eq!(plan["units_per_arm_fixed"], 37_373.0);
    assert_eq!(plan["planned_s"], 21.0 * 86_400.0);
    for wrong in
        [&["plan", "--baseline", "5", "--mde", "1"][..], &["plan", "--baseline", "0.2", "--mde", "-1%"]]
    {
        assert_ne!(cli.run(wrong)?.status.code(), Some(0), "{wrong:?}");
    }
    Ok(())
}

#[test]
fn simulations_have_a_seed_and_drawings() -> Result<()> {
    let cli = Cli::new(&[])?;
    let run = || {
        cli.run(&[
            "judge",
            "simulate",
            "rules",
            "sample-ratio",
            "--runs",
            "20",
            "--seed",
            "7",
            "--draw",
            "drawn",
        ])
    };
    let (one, again) = (run()?, run()?);
    assert!(one.status.success(), "{}", said(&one));
    assert_eq!(said(&one), said(&again));
    assert!(said(&one).contains("56 looks: 4.56 %"), "{}", said(&one));
    for name in ["power.svg", "false-calls.svg", "paths.svg"] {
        let drawing = std::fs::read_to_string(cli.path().join("drawn").join(name))?;
        assert!(
            drawing.starts_with("<svg") && drawing.contains("<polyline") && !drawing.contains("NaN"),
            "{name}"
        );
    }
    Ok(())
}
