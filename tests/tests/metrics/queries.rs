//! Every query of the dashboards and every rule runs against the real Prometheus, while a release runs under traffic and is
//! then taken back, and finds something.

use crate::{RELEASE, Watched};
use anyhow::{Context, Result, ensure};
use halftone_tests::{digits, repository, traffic::Traffic};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

/// How long a query may find nothing. Generous: the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// Queries that find nothing here, by something that is in them, and why.
const EMPTY: [(&str, &str); 7] = [
    ("halftone_model_breaker_open", "no model of this test is on another server"),
    ("halftone_webhook_", "no webhook is configured"),
    ("absent(", "the control plane is there"),
    ("{rule=\"(other)\"}", "the proxy has fewer series than it may"),
    ("{phase=\"candidate\"}", "the release stays at its first step"),
    ("{decision=\"invalid\"}", "units arrive by the configured shares"),
    ("{reason=~\"stale|no_data\"}", "there is traffic, and it is reported"),
];

/// Metrics that are not exposed here, and why.
const UNSEEN: [(&str, &str); 2] = [
    ("halftone_model_breaker_open", "no model of this test is on another server"),
    ("halftone_webhook_waiting", "no webhook is configured"),
];

/// Where a query stands, and its text.
type Queries = BTreeMap<String, String>;

/// Those of the dashboards, with every variable standing for all that it can.
fn of_dashboards() -> Result<Queries> {
    let mut queries = Queries::new();
    for file in std::fs::read_dir(repository().join("deploy/grafana"))? {
        let path = file?.path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let dashboard: Value = serde_json::from_str(&std::fs::read_to_string(&path)?)?;
        let title = dashboard["title"].as_str().context("a dashboard has no title")?;
        let variables = dashboard["templating"]["list"].as_array().context("no variables")?;
        for variable in variables.iter().filter(|variable| variable["type"] == "query") {
            let (name, query) = (&variable["name"], variable["query"]["query"].as_str());
            queries
                .insert(format!("{title}: ${name}"), substituted(&of_variable(query.context("no query")?)?)?);
        }
        for panel in dashboard["panels"].as_array().context("no panels")? {
            for target in panel["targets"].as_array().into_iter().flatten() {
                let query = target["expr"].as_str().context("a target has no query")?;
                let place = format!("{title}: {} {}", panel["title"], target["refId"]);
                ensure!(queries.insert(place.clone(), substituted(query)?).is_none(), "twice: {place}");
            }
        }
    }
    ensure!(queries.len() > 50, "only {} queries were found", queries.len());
    Ok(queries)
}

/// Grafana's `label_values(metric, label)` as a query.
fn of_variable(query: &str) -> Result<String> {
    let inner = query.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')'));
    let (metric, label) = inner.and_then(|inner| inner.rsplit_once(", ")).context(query.to_owned())?;
    Ok(format!("group by ({label}) ({metric})"))
}

fn substituted(query: &str) -> Result<String> {
    let mut text = query.replace("$__rate_interval", "30s");
    for name in ["release", "ruleset", "model", "instance"] {
        text = text.replace(&format!("${name}"), ".*");
    }
    ensure!(!text.contains('$'), "an unknown variable: {query}");
    Ok(text)
}

/// The rules that Prometheus has, as it evaluates them.
async fn of_rules(watched: &Watched) -> Result<Queries> {
    let mut queries = Queries::new();
    let answer = watched.prometheus.api("rules", &[]).await?;
    for rule in answer["groups"].as_array().into_iter().flatten().flat_map(|group| group["rules"].as_array())
    {
        for rule in rule {
            let (name, query) = (rule["name"].as_str(), rule["query"].as_str());
            let (name, query) = (name.context("a name")?, query.context("a query")?);
            ensure!(rule["lastError"].is_null(), "{rule:#}");
            let query = if rule["type"] == "alerting" { without_condition(query) } else { query.to_owned() };
            queries.insert(format!("rule {name}"), query);
        }
    }
    ensure!(queries.len() > 40, "only {} rules were found", queries.len());
    Ok(queries)
}

/// An alert's query without what it is compared to: what it looks at is there when nothing is wrong, too.
fn without_condition(query: &str) -> String {
    let mut words = query.split(' ').peekable();
    let mut kept = Vec::new();
    while let Some(word) = words.next() {
        if matches!(word, ">" | "<" | "==" | ">=" | "<=") {
            // Its other side is one word: a number, or what is made one.
            words.next();
        } else {
            kept.push(word);
        }
    }
    kept.join(" ")
}

/// The metrics that a query names.
fn metrics(query: &str) -> BTreeSet<&str> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | ':');
    let ours = ["halftone_", "halftone:", "target:", "model_request", "model_inference", "model:", "envoy_"];
    // What stands in quotes is no metric.
    let outside = query.split('"').step_by(2);
    let words = outside.flat_map(|part| part.split(|c| !is_part(c)));
    let labels = ["envoy_cluster_name", "envoy_response_code_class"];
    words
        .filter(|word| ours.iter().any(|prefix| word.starts_with(prefix)) && !labels.contains(word))
        .collect()
}

/// That the latencies which dashboards show lead to traces. Every request belongs to one: the filter sees to it.
async fn exemplars_are_traces(watched: &Watched) -> Result<()> {
    let query = "model_inference_duration_seconds_bucket{model_name=\"digits\"}";
    let (start, end) = ("2020-01-01T00:00:00Z", "2100-01-01T00:00:00Z");
    let form = [("query", query), ("start", start), ("end", end)];
    let found = watched.prometheus.api("query_exemplars", &form).await?;
    let exemplars =
        found.as_array().into_iter().flatten().flat_map(|of| of["exemplars"].as_array()).flatten();
    let traces: Vec<&str> = exemplars.filter_map(|of| of["labels"]["trace_id"].as_str()).collect();
    let is_trace = |id: &&str| id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    ensure!(!traces.is_empty() && traces.iter().all(is_trace), "{found:#}");
    Ok(())
}

/// Asks all that have found nothing yet. What remains.
async fn ask(watched: &Watched, queries: &mut Queries) -> Result<()> {
    for (place, query) in queries.clone() {
        let found = watched.prometheus.query(&query).await.with_context(|| place.clone())?;
        if !found.is_empty() {
            queries.remove(&place);
        }
    }
    Ok(())
}

#[tokio::test]
async fn every_query_of_dashboards_and_rules_finds_something() -> Result<()> {
    let watched = Watched::start().await?;
    let control_plane = watched.stack.control_plane()?;
    control_plane.apply("digits", watched.ruleset()?, 1, 1).await?;
    control_plane.put_release("canary", RELEASE).await?;
    let digits = Arc::new(digits::test_set()?);
    let traffic = Traffic::start(&watched.stack.infer_urls(), &digits, 2, Duration::from_millis(10), 500)?;

    let mut queries = of_dashboards()?;
    queries.extend(of_rules(&watched).await?);
    let all = queries.clone();
    let allowed = |query: &str| EMPTY.iter().any(|(part, _)| query.contains(part));
    let judged =
        |release: &Value| release["verdicts"]["v2"]["tests"].as_array().is_some_and(|of| !of.is_empty());
    control_plane.wait_for_release("canary", PATIENCE, judged).await?;
    // What is there only until it is safe again is seen below.
    let later = |query: &str| {
        query.contains("_safe_seconds") || query.contains("unsafe") || query.contains("rolled_back")
    };
    let start = Instant::now();
    loop {
        ask(&watched, &mut queries).await?;
        if queries.values().all(|query| allowed(query) || later(query)) || start.elapsed() > PATIENCE {
            break;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let missing: Vec<_> = queries.iter().filter(|(_, query)| !allowed(query) && !later(query)).collect();
    ensure!(missing.is_empty(), "these found nothing: {missing:#?}");

    let (status, answer) = control_plane.command("canary", "rollback").await?;
    ensure!(status == 200, "{answer}");
    let start = Instant::now();
    while queries.values().any(|query| !allowed(query)) {
        ask(&watched, &mut queries).await?;
        let missing: Vec<_> = queries.iter().filter(|(_, query)| !allowed(query)).collect();
        ensure!(start.elapsed() < PATIENCE, "these found nothing: {missing:#?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    traffic.stop().await?;
    exemplars_are_traces(&watched).await?;
    // Who is on the list and finds something does not belong there.
    for (part, why) in EMPTY {
        let empty = queries.values().any(|query| query.contains(part));
        ensure!(empty, "{part:?} found something, or nobody asks for it, though {why}");
    }

    let exposed = watched.prometheus.api("label/__name__/values", &[]).await?;
    let exposed: BTreeSet<&str> =
        exposed.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let named: BTreeSet<&str> = all.values().flat_map(|query| metrics(query)).collect();
    let unseen: BTreeSet<&str> = named.difference(&exposed).copied().collect();
    ensure!(unseen == UNSEEN.map(|(name, _)| name).into(), "no such metrics: {unseen:?}");
    all_are_documented(&watched).await
}

/// An alert that nobody has seen fire, or that tells nobody what to do, is none.
#[tokio::test]
async fn every_alert_has_a_test_and_a_place_in_the_runbook() -> Result<()> {
    let read = |path: &str| std::fs::read_to_string(repository().join(path)).with_context(|| path.to_owned());
    let alerts = read("deploy/prometheus/rules/alerts.yml")?;
    let (tests, runbook) = (read("deploy/prometheus/tests/alerts.yml")?, read("docs/observability.md")?);
    let names: Vec<&str> = alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    ensure!(names.len() > 20, "{names:?}");
    for name in names {
        let fires = format!("ALERTS{{alertname=\"{name}\", alertstate=\"firing\"");
        ensure!(tests.contains(&fires), "{name} fires in no test of deploy/prometheus/tests/alerts.yml");
        ensure!(runbook.contains(&format!("### {name}\n")), "{name} has no section in docs/observability.md");
    }
    Ok(())
}

/// Every metric of ours is told of, and none that is not there.
async fn all_are_documented(watched: &Watched) -> Result<()> {
    let told = std::fs::read_to_string(repository().join("docs/observability.md"))?;
    let is_ours = |name: &&str| name.starts_with("halftone_") || name.starts_with("model_");
    let rows = told.lines().filter_map(|line| line.strip_prefix("| `")?.split(['`', '{']).next());
    let documented: BTreeSet<&str> = rows.filter(is_ours).collect();
    let families: BTreeMap<String, Value> =
        serde_json::from_value(watched.prometheus.api("metadata", &[]).await?)?;
    let exposed: BTreeSet<&str> = families.keys().map(String::as_str).filter(is_ours).collect();
    // Families of counters have no `_total` in the text form that our programs write.
    let is_same = |family: &str, name: &str| family == name || name.strip_suffix("_total") == Some(family);
    let has = |family: &&&str| documented.iter().any(|name| is_same(family, name));
    let unknown: Vec<&&str> = exposed.iter().filter(|family| !has(family)).collect();
    ensure!(unknown.is_empty(), "these are not in docs/observability.md: {unknown:?}");
    let there = |name: &&&str| exposed.iter().any(|family| is_same(family, name));
    let unseen: Vec<&&str> = documented.iter().filter(|name| !there(name)).collect();
    ensure!(unseen.is_empty(), "documented, and not there: {unseen:?}");
    Ok(())
}
