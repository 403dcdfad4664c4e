//! Traces and baggage through real Envoy: by the filter alone, and with Envoy's own tracer.

use anyhow::{Context, Result, ensure};
use halftone_rules::trace::is_valid_traceparent;
use halftone_tests::{
    Edge, EdgeOptions, Seen,
    collector::{Received, Receiver, with_tracer},
    trace_cases::{TRACEPARENT, TraceCase, trace_cases},
    wire::{Client, Message},
};

/// Everybody gets `v2`.
const RULES: &str = "default: v1\nrules: [{name: all, target: v2}]\n";

/// A path and headers, each with its bytes.
fn get(lines: &[(&str, String)]) -> Message {
    // A tracestate beyond ASCII travels in one byte for each character.
    let lines: Vec<(&str, Vec<u8>)> =
        lines.iter().map(|(name, value)| (*name, halftone_tests::wire::bytes(value))).collect();
    Message::get("/v2", &lines.iter().map(|(name, value)| (*name, value.as_slice())).collect::<Vec<_>>())
}

#[tokio::test]
async fn traces_go_on_or_begin_by_the_rules() -> Result<()> {
    let edge = Edge::start(EdgeOptions::default()).await?;
    edge.publish("traced", &edge.targets(), RULES).await?;
    for mut client in Client::both(edge.envoy.address) {
        let wire = if matches!(client, Client::Http1(..)) { "HTTP/1.1" } else { "HTTP/2" };
        for TraceCase { name, sent, continued, state } in trace_cases() {
            let seen = client.send(&get(&sent)).await?.seen().with_context(|| format!("{wire}: {name}"))?;
            let traceparent = seen.one("traceparent").with_context(|| format!("{wire}: {name}"))?;
            let came = sent.iter().any(|(header, value)| *header == "traceparent" && value == traceparent);
            assert_eq!(came, continued, "{wire}: {name}: {traceparent}");
            assert!(
                continued || is_valid_traceparent(traceparent.as_bytes()),
                "{wire}: {name}: {traceparent}"
            );
            assert!(continued || traceparent.ends_with("-03"), "a random id, sampled: {traceparent}");
            assert_eq!(seen.all("tracestate"), state, "{wire}: {name}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn baggage_stays_whole_and_within_its_limits() -> Result<()> {
    let edge = Edge::start(EdgeOptions::default()).await?;
    let revision = edge.publish("traced", &edge.targets(), RULES).await?;
    let ours = format!("halftone.target=v2,halftone.revision={revision}");
    let members =
        |range: std::ops::Range<usize>| range.map(|n| format!("k{n}=v")).collect::<Vec<_>>().join(",");
    let filled = |bytes: usize| format!("k={}", "v".repeat(bytes - 2));
    // Lines, what is left of them, and whether ours stand behind it.
    let mut cases: Vec<(Vec<String>, String, bool)> = vec![
        (vec![], String::new(), true),
        (vec!["a=1;p=2;q, b = 2".into()], "a=1;p=2;q,b = 2".into(), true),
        (vec!["b=2".into(), ",a=1,,".into(), "b=3".into()], "b=2,a=1,b=3".into(), true),
        (vec!["a=%E2%82%AC%2C".into()], "a=%E2%82%AC%2C".into(), true),
        (vec!["halftone.target=v9".into(), "a=1, halftone.revision = 99;x".into()], "a=1".into(), true),
        (vec![members(0..62)], members(0..62), true),
        (vec![members(0..40), members(40..62)], members(0..62), true),
    ];
    for count in [63, 64, 90] {
        cases.push((vec![members(0..count)], members(0..count), false));
        cases.push((vec![members(0..count), "halftone.target=v9".into()], members(0..count), false));
    }
    let room = 8_192 - ours.len() - 1;
    cases.push((vec![filled(room)], filled(room), true));
    for bytes in [room + 1, 8_192, 20_000] {
        cases.push((vec![filled(bytes)], filled(bytes), false));
    }
    for mut client in Client::both(edge.envoy.address) {
        for (lines, left, stamped) in &cases {
            let lines: Vec<_> = lines.iter().map(|line| ("baggage", line.clone())).collect();
            let seen = client.send(&get(&lines)).await?.seen()?;
            let expected = match (left.as_str(), stamped) {
                ("", _) => ours.clone(),
                (left, true) => format!("{left},{ours}"),
                (left, false) => left.to_owned(),
            };
            assert_eq!(seen.one("baggage")?, expected);
        }
    }
    Ok(())
}

/// A span of a trace, once it has come.
async fn span(receiver: &Receiver, trace: &str) -> Result<Received> {
    receiver.trace(trace, |spans| !spans.is_empty()).await?.pop().context("no span")
}

/// What a backend sees of requests with a trace and without, and of enough of them for the tracer to send its spans.
async fn with_and_without_trace(edge: &Edge) -> Result<(Seen, Seen)> {
    let mut client = Client::Http1(edge.envoy.address, None);
    let sent = [
        ("traceparent", TRACEPARENT.to_owned()),
        ("tracestate", "theirs=1".to_owned()),
        ("baggage", "theirs=1,halftone.target=v9".to_owned()),
    ];
    let with = client.send(&get(&sent)).await?.seen()?;
    let without = client.send(&get(&[])).await?.seen()?;
    for _ in 0..5 {
        client.send(&get(&[])).await?.seen()?;
    }
    for seen in [&with, &without] {
        ensure!(seen.by == "v2" && seen.one("x-halftone-target")? == "v2");
        ensure!(seen.one("baggage")?.ends_with("halftone.target=v2,halftone.revision=1"), "{seen:?}");
    }
    ensure!(with.one("baggage")?.starts_with("theirs=1,"), "{with:?}");
    Ok((with, without))
}

#[tokio::test]
async fn without_a_tracer_the_proxys_traces_are_left_alone() -> Result<()> {
    let edge =
        Edge::start(EdgeOptions { serve: &["--trace-owner", "proxy"], ..EdgeOptions::default() }).await?;
    edge.publish("traced", &edge.targets(), RULES).await?;
    let (with, without) = with_and_without_trace(&edge).await?;
    assert_eq!((with.one("traceparent")?, with.one("tracestate")?), (TRACEPARENT, "theirs=1"));
    assert!(without.all("traceparent").is_empty() && without.all("tracestate").is_empty());
    Ok(())
}

#[tokio::test]
async fn envoys_tracer_has_the_trace_and_the_decision_on_its_span() -> Result<()> {
    let collector = Receiver::start().await?;
    let edit = |bootstrap: &str| with_tracer(bootstrap, collector.address, true);
    let options = EdgeOptions { serve: &["--trace-owner", "proxy"], edit: &edit, ..EdgeOptions::default() };
    let edge = Edge::start(options).await?;
    edge.publish("traced", &edge.targets(), RULES).await?;
    let (with, without) = with_and_without_trace(&edge).await?;
    // The client's trace goes on, below Envoy's span.
    let (trace, parent) = (&TRACEPARENT[3..35], &TRACEPARENT[36..52]);
    let traceparent = with.one("traceparent")?;
    assert!(traceparent.contains(trace) && !traceparent.contains(parent), "{traceparent}");
    assert_eq!(with.one("tracestate")?, "theirs=1");
    let begun = without.one("traceparent")?;
    assert!(is_valid_traceparent(begun.as_bytes()), "{begun}");
    for seen in [&with, &without] {
        let traceparent = seen.one("traceparent")?;
        let span = span(&collector, &traceparent[3..35]).await?;
        assert_eq!(span.attribute("halftone.target").as_deref(), Some("v2"), "{span:?}");
        let baggage = span.attribute("halftone.baggage").context("no baggage")?;
        assert_eq!(baggage, seen.one("baggage")?);
    }
    Ok(())
}

#[tokio::test]
async fn a_tracer_that_does_not_propagate_leaves_the_headers_alone() -> Result<()> {
    // Then the filter may take part in the trace itself.
    for (owner, begins) in [("proxy", false), ("filter", true)] {
        let collector = Receiver::start().await?;
        let edit = |bootstrap: &str| with_tracer(bootstrap, collector.address, false);
        let options = EdgeOptions { serve: &["--trace-owner", owner], edit: &edit, ..EdgeOptions::default() };
        let edge = Edge::start(options).await?;
        edge.publish("traced", &edge.targets(), RULES).await?;
        let (with, without) = with_and_without_trace(&edge).await?;
        assert_eq!((with.one("traceparent")?, with.one("tracestate")?), (TRACEPARENT, "theirs=1"));
        assert_eq!(without.all("traceparent").len(), usize::from(begins), "{owner}");
        let span = span(&collector, &TRACEPARENT[3..35]).await?;
        assert_eq!(span.attribute("halftone.target").as_deref(), Some("v2"), "{span:?}");
    }
    Ok(())
}
