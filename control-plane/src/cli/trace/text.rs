//! Requests and why, as text.

use super::{
    super::{moment, percent, word},
    Logged, LoggedRequest,
    log::Line,
};
use crate::{
    store::Action,
    terminal::{one_line, printable},
    trace::{
        Decision, Explanation, Found, Id, Request,
        why::{OfRelease, Origin, Why},
    },
};
use std::fmt::Write;

/// What backends reported.
pub(super) fn found(id: &Id, found: &Found) -> String {
    let mut out = heading(id, found.requests.len(), found.more);
    for request in &found.requests {
        // Writing to a string does not fail.
        let _ = writeln!(out, "\n{}", other(id, &request.trace_id, &request.evaluation_id));
        explanation(&mut out, &request.explanation);
        answer(&mut out, request);
    }
    printable(&out)
}

/// What a log has.
pub(super) fn logged(id: &Id, Logged { requests, more }: &Logged) -> String {
    let mut out = heading(id, requests.len(), *more);
    for LoggedRequest { line, explanation: why } in requests {
        let Line { line, trace_id, evaluation_id, time, status, model, version, output_hash, .. } = line;
        let ids = trace_id.as_ref().zip(evaluation_id.as_ref());
        let other = ids.map(|(trace, evaluation)| other(id, trace, evaluation));
        let parts = [Some(format!("line {line}")), other, time.clone()];
        let said = parts.into_iter().flatten().collect::<Vec<_>>().join(", ");
        let _ = writeln!(out, "\n{}", one_line(&said));
        explanation(&mut out, why);
        if let Some(status) = status {
            let by = model.as_ref().zip(version.as_ref());
            let by = by.map(|(model, version)| format!(" by {model}:{version}")).unwrap_or_default();
            let said = format!("answered{by} with {status}{}", output(output_hash.as_ref()));
            let _ = writeln!(out, "  {}", one_line(&said));
        }
    }
    printable(&out)
}

fn heading(id: &Id, count: usize, more: bool) -> String {
    let requests = if count == 1 { "request" } else { "requests" };
    let more = match id {
        _ if !more => "",
        Id::Trace(_) => "there are older ones, which are not shown: ask for an evaluation (16 digits)\n",
        Id::Evaluation(_) => "there are older ones, which are not shown\n",
    };
    format!("{id}: {count} {requests}\n{more}")
}

/// The id that was not asked by.
fn other(id: &Id, trace: &str, evaluation: &str) -> String {
    match id {
        Id::Trace(_) => format!("evaluation {evaluation}"),
        Id::Evaluation(_) => format!("trace {trace}"),
    }
}

fn explanation(out: &mut String, Explanation { decision, why }: &Explanation) {
    if let Some(decision) = decision {
        of_decision(out, decision);
    }
    let Why { sentence, ruleset, rule, release, .. } = why;
    let _ = writeln!(out, "  why: {}", one_line(sentence));
    if let Some(rule) = rule {
        let _ = writeln!(out, "  line {} of the ruleset{}:", rule.line, since(ruleset.as_ref()));
        rule.text.lines().for_each(|line| {
            let _ = writeln!(out, "    {line}");
        });
    } else if let Some(ruleset) = ruleset {
        let _ = writeln!(out, "  by the ruleset{}", since(Some(ruleset)));
    }
    if let Some(release) = release {
        of_release(out, release);
    }
}

fn of_decision(out: &mut String, decision: &Decision) {
    let Decision { ruleset, revision, target, reason, .. } = decision;
    let at = decision.at_ms.map(|at| format!("{}: ", moment(at))).unwrap_or_default();
    let mut facts = vec![format!("revision {revision}")];
    let mut fact =
        |name: &str, value: Option<String>| facts.extend(value.map(|value| format!("{name}{value}")));
    fact("rule ", decision.rule.clone());
    fact("arm ", decision.arm.clone());
    fact("epoch ", decision.epoch.map(|epoch| epoch.to_string()));
    fact("bucket ", decision.bucket.map(|bucket| bucket.to_string()));
    fact("unit ", decision.unit_hash.clone());
    fact("tenant ", decision.tenant.clone());
    fact("features ", decision.feature_version.clone());
    fact("overridden", decision.overridden.then(String::new));
    fact("held out", decision.held_out.then(String::new));
    fact("", Some(reason.clone()));
    let said = format!("{at}{ruleset} → {target}: {}", facts.join(", "));
    let _ = writeln!(out, "  {}", one_line(&said));
    for part in &decision.experiments {
        let said = format!("experiment {}: arm {}", part.experiment, part.arm);
        let _ = writeln!(out, "  {}", one_line(&said));
    }
}

fn since(ruleset: Option<&Origin>) -> String {
    ruleset.map(|of| format!(", as {} left it", origin(of))).unwrap_or_default()
}

fn origin(Origin { revision, at_ms, action, by }: &Origin) -> String {
    format!("revision {revision} ({} by {by}, {})", word(action), moment(*at_ms))
}

fn of_release(out: &mut String, OfRelease { allocation, began, decision }: &OfRelease) {
    let eligible =
        allocation.condition.as_ref().map(|condition| format!(", of `{condition}`")).unwrap_or_default();
    let candidates = allocation.candidates.join(", ");
    let each = if allocation.candidates.len() == 1 { "the candidate" } else { "each candidate" };
    let _ = writeln!(
        out,
        "  release {}: {} → {candidates}{eligible}; {} of all buckets for {each}, {} for the control",
        allocation.name,
        allocation.stable,
        percent(allocation.share),
        percent(allocation.control),
    );
    let with = began.as_ref().map(|began| format!(" with {}", origin(began))).unwrap_or_default();
    let _ = writeln!(out, "  its epoch {} began{with}", allocation.epoch);
    let Some(decision) = decision else {
        *out += "  no decision is known that led to it: the release was deleted with its records\n";
        return;
    };
    let is_release = |began: &Origin| began.action == Action::Release;
    let by = if decision.revision == Some(allocation.epoch) {
        "by"
    } else if began.as_ref().is_some_and(is_release) {
        // That of a release that was deleted.
        "by a decision that is not known any more; the last one before:"
    } else {
        "not by a decision: the ruleset was changed; the last one before:"
    };
    let _ = writeln!(
        out,
        "  {by} decision {} of release {}: {} ({}, step {}) by {}: {}",
        decision.id,
        decision.release,
        word(&decision.action),
        decision.to.name(),
        decision.step,
        decision.by,
        decision.why
    );
}

fn answer(out: &mut String, request: &Request) {
    let Request { model, version, begun_ms, duration_us, .. } = request;
    let by = if model.is_empty() {
        "answered, as no model was found,".to_owned()
    } else {
        format!("answered by {model}:{version}")
    };
    let how = match (request.http_status, request.grpc_code) {
        (Some(status), _) => format!("{by} with {status}"),
        (None, Some(code)) => format!("{by} with code {code} of gRPC"),
        (None, None) => format!("not answered by {model}:{version}: the client left before"),
    };
    let hash = output(request.output_hash.as_ref());
    let ms = std::time::Duration::from_micros(*duration_us).as_secs_f64() * 1e3;
    // Without a model there was none.
    let took = if *duration_us > 0 { format!(", the inference took {ms:.3} ms") } else { String::new() };
    let _ = writeln!(out, "  {how}{hash}; begun {}{took}", moment(*begun_ms));
}

fn output(hash: Option<&String>) -> String {
    hash.map(|hash| format!(", output {hash}")).unwrap_or_default()
}
