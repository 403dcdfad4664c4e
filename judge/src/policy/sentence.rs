//! A verdict in one sentence, for whoever is woken by it.

use super::{
    snapshot::Snapshot,
    verdict::{Decision, Method, Reason, Test, Verdict},
};

/// What the verdict says and why, in plain words, with the number that matters.
pub(super) fn sentence(verdict: &Verdict, snapshot: &Snapshot) -> String {
    let Some(main) = verdict.causes.first() else { return String::new() };
    let subject = main.subject.as_deref().unwrap_or("the release");
    let detail = &main.detail;
    let after = duration(snapshot.elapsed_s as f64);
    let left =
        verdict.remaining_s.map(|left| format!(" About {} to go.", duration(left))).unwrap_or_default();
    match (verdict.decision, main.reason) {
        (Decision::Rollback, _) => format!("Roll back: {subject} is worse in the candidate: {detail}."),
        (Decision::Promote, Reason::Step) => format!("Widen: nothing looks worse, and {detail}."),
        (Decision::Promote, _) => {
            let of_goal = verdict.tests.iter().find(|test| test.reached && test.metric == subject);
            let number = of_goal.map(|test| format!(" ({})", describe(test))).unwrap_or_default();
            format!("Promote after {after}: {subject}: {detail}{number}, and no guardrail is worse.")
        }
        (Decision::Invalid, Reason::Srm) => format!(
            "The data cannot be trusted: units do not arrive by their shares in epoch {subject} ({detail}). Look at routing and \
             exposure before anything else."
        ),
        (Decision::Invalid, _) => format!("The data cannot be trusted: {subject}: {detail}."),
        (Decision::InsufficientData, _) => {
            format!(
                "Too little data to say anything about {subject}: {detail}. This is neither a pass nor a failure."
            )
        }
        (Decision::Hold, Reason::Suspect) => format!("Hold the ramp: {subject} looks worse: {detail}."),
        (Decision::Hold, Reason::Signal) => format!("Hold: the signal {subject} is worse: {detail}."),
        (Decision::Hold, Reason::GuardrailInconclusive) => {
            format!("Hold after {after}: {subject} is {detail}.{left}")
        }
        (Decision::Hold, Reason::Futile | Reason::Horizon | Reason::Expired) => {
            format!("Stop after {after} and keep stable: {detail}.")
        }
        (Decision::Hold, Reason::RollbackReview) => format!("Paused: {subject} is {detail}."),
        (Decision::Hold, _) => format!("Hold after {after}: {subject}: {detail}.{left}"),
    }
}

/// A test in a few words and numbers.
pub(super) fn describe(test: &Test) -> String {
    let change = match (test.relative, test.estimate) {
        (Some(relative), _) if relative.abs() < 100.0 => format!("{:+.1} %", 100.0 * relative),
        (_, Some(estimate)) => format!("{estimate:+.4}"),
        _ => "difference not estimable".to_owned(),
    };
    let odds = |ln_e: f64| {
        let log10 = ln_e / std::f64::consts::LN_10;
        if log10 < 6.0 { format!("{:.0}", ln_e.exp()) } else { format!("10^{log10:.0}") }
    };
    match test.method {
        Method::EventShare => {
            let sure = odds(test.highest_ln_e.or(test.ln_e).unwrap_or_default());
            let all = test.n_control.saturating_add(test.n_treatment);
            format!(
                "{} of {all} units with a bad event had the candidate ({sure} to 1 against chance)",
                test.n_treatment
            )
        }
        Method::Ceiling => {
            let sure = odds(test.highest_ln_e.or(test.ln_e).unwrap_or_default());
            let rate = 100.0 * test.estimate.unwrap_or_default();
            format!("{rate:.2} % of {} units had a bad event ({sure} to 1 against chance)", test.n_treatment)
        }
        Method::Quantile => {
            let sure = odds(test.highest_ln_e.or(test.ln_e).unwrap_or_default());
            let q = 100.0 * test.quantile.unwrap_or_default();
            format!("p{q} {change} over {} units ({sure} to 1 against chance)", test.n_treatment)
        }
        _ => {
            let told = |p: String| if p.starts_with('<') { format!(", p {p}") } else { format!(", p = {p}") };
            let p = test.shown_p().map(told).unwrap_or_default();
            format!("{change} over {} units{p}", test.n_treatment)
        }
    }
}

/// Seconds as people say them.
fn duration(seconds: f64) -> String {
    let (value, unit) = match seconds {
        s if s < 120.0 => (s, "s"),
        s if s < 7_200.0 => (s / 60.0, "min"),
        s if s < 172_800.0 => (s / 3_600.0, "h"),
        s => (s / 86_400.0, "days"),
    };
    format!("{value:.0} {unit}")
}
