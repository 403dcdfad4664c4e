//! What the filter is set to besides rules: who owns traces, where anonymous units are kept, whose override tokens are
//! taken, what is counted. The real modules, outside of Envoy; `data_plane.rs` has the same inside of it.

use anyhow::{Context, Result, ensure};
use base64::{Engine, engine::general_purpose::STANDARD};
use halftone_compiler::{compile, link};
use halftone_filter_host::{FilterInstance, FilterModule, Outcome, Settings};
use halftone_rules::codec;
use halftone_tests::{Paths, command};
use serde_json::json;
use std::{
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

const ALL_TO_V2: &str = "version: v1\nrules: [{name: all, target: v2}]\n";

fn bundle(ruleset: &str) -> Result<Vec<u8>> {
    let compiled = compile(ruleset, "digits").map_err(|problems| anyhow::anyhow!("{problems:#?}"))?;
    Ok(codec::encode(&link(7, [&compiled])?)?)
}

/// Settings as they travel by xDS, before the bundle.
fn configuration(settings: &serde_json::Value, ruleset: &str) -> Result<Vec<u8>> {
    Ok([settings.to_string().as_bytes(), b"\n", &bundle(ruleset)?].concat())
}

fn module(path: &Path) -> Result<FilterModule> {
    Ok(FilterModule::new(&std::fs::read(path)?)?)
}

fn started(configuration: &[u8]) -> Result<FilterInstance> {
    let mut instance = module(&Paths::find()?.filter)?.start()?;
    ensure!(instance.configure(configuration)?, "{:?}", instance.take_logs());
    Ok(instance)
}

fn get(instance: &mut FilterInstance, headers: &[(&str, &str)]) -> Result<Outcome> {
    let base = [(":method", "GET"), (":scheme", "http"), (":authority", "a.test"), (":path", "/")];
    let headers: Vec<_> = base.iter().chain(headers).copied().collect();
    Ok(instance.request_with_response(&headers, &[(":status", "200")])?)
}

fn target(outcome: &Outcome) -> String {
    String::from_utf8_lossy(outcome.request_header("x-halftone-target").unwrap_or_default()).into_owned()
}

#[test]
fn a_configuration_is_settings_a_bundle_both_or_neither() -> Result<()> {
    let bytes = bundle(ALL_TO_V2)?;
    let base64 = STANDARD.encode(&bytes);
    let pretty = serde_json::to_vec_pretty(&json!({"bundle": base64, "tracing": "proxy"}))?;
    for (configuration, decides) in [
        (Vec::new(), false),
        (b"{}".to_vec(), false),
        (b" \n{\"tracing\": \"filter\"}\n".to_vec(), false),
        (bytes.clone(), true),
        ([b"{}", &bytes[..]].concat(), true),
        ([b"{\"override_keys\": []}\n", &bytes[..]].concat(), true),
        (pretty, true),
    ] {
        let outcome = get(&mut started(&configuration)?, &[])?;
        assert_eq!(target(&outcome) == "v2", decides, "{}", configuration.escape_ascii());
    }
    for (configuration, reason) in [
        (json!({"bundel": ""}).to_string().into_bytes(), "unknown field `bundel`"),
        (
            json!({"trace_sample": {"stable": 1.5}}).to_string().into_bytes(),
            "1.5 is no share of all, from 0 to 1",
        ),
        (json!({"trace_sample": {"all": 1}}).to_string().into_bytes(), "unknown field `all`"),
        (json!({"tracing": "both"}).to_string().into_bytes(), "unknown variant `both`"),
        (json!({"bundle": "@"}).to_string().into_bytes(), "`bundle`: "),
        (json!({"bundle": STANDARD.encode("x")}).to_string().into_bytes(), "truncated"),
        ([json!({"bundle": base64}).to_string().as_bytes(), &bytes].concat(), "two bundles"),
        (json!({"override_keys": ["AAAA"]}).to_string().into_bytes(), "no public key"),
        (json!({"override_keys": vec!["A"; 5]}).to_string().into_bytes(), "more than 4 keys"),
        (b"{".to_vec(), "EOF"),
        (b"{} x".to_vec(), "truncated"),
        (b"[]".to_vec(), "truncated"),
    ] {
        let mut instance = module(&Paths::find()?.filter)?.start()?;
        assert!(!instance.configure(&configuration)?, "{}", configuration.escape_ascii());
        let logs = instance.take_logs();
        let message = &logs.last().context("no reason")?.message;
        assert!(message.contains("configuration refused: ") && message.contains(reason), "{message}");
    }
    Ok(())
}

#[test]
fn traces_are_left_to_the_proxy_that_owns_them() -> Result<()> {
    let mut instance = started(&configuration(&json!({"tracing": "proxy"}), ALL_TO_V2)?)?;
    let outcome = get(&mut instance, &[])?;
    assert_eq!(outcome.request_header("traceparent"), None);
    assert_eq!(
        outcome.request_header("baggage"),
        Some(&b"halftone.target=v2,halftone.revision=7"[..]),
        "the decision travels all the same"
    );
    let spoiled = [("traceparent", "00-nonsense"), ("tracestate", "=")];
    let outcome = get(&mut instance, &spoiled)?;
    for (name, value) in spoiled {
        assert_eq!(outcome.request_header(name), Some(value.as_bytes()));
    }
    Ok(())
}

#[test]
fn who_brings_no_unit_gets_one_by_cookie() -> Result<()> {
    let ruleset = "version: v1\nunit_cookie: {name: visitor, max_age: 1h}\ntargets: {v1: , v2: }\ndefault: v1\nrules: [{name: half, weight: 0.5, target: v2}]\n";
    for path in [Paths::find()?.filter, Paths::find()?.portable_filter] {
        let mut instance = module(&path)?.start()?;
        ensure!(instance.configure(&bundle(ruleset)?)?, "{:?}", instance.take_logs());
        let mut targets = std::collections::BTreeSet::new();
        for visitor in 0..30 {
            let first = get(&mut instance, &[("cookie", "other=1")])?;
            let cookie =
                String::from_utf8(first.response_header("set-cookie").context("no cookie")?.to_vec())?;
            let (pair, rest) = cookie.split_once(';').context("no attributes")?;
            assert_eq!(rest, " Path=/; Max-Age=3600; HttpOnly; SameSite=Lax; Secure");
            let (name, unit) = pair.split_once('=').context("no value")?;
            assert!(name == "visitor" && unit.len() == 32, "{pair}");
            // What comes back is the same visitor, and nothing is set again.
            let cookies = format!("other=1; {pair}");
            let again = get(&mut instance, &[("cookie", &cookies)])?;
            assert_eq!(target(&again), target(&first), "visitor {visitor}");
            assert_eq!(again.response_header("set-cookie"), None);
            targets.insert(target(&first));
        }
        assert_eq!(targets.len(), 2, "30 visitors fell all to one side");
        let outcome = get(&mut instance, &[("x-user-id", "42")])?;
        assert_eq!(outcome.response_header("set-cookie"), None);
    }
    Ok(())
}

/// A key that `halftone override new-key` made, and how tokens are made with it.
struct Key {
    folder: tempfile::TempDir,
    paths: Paths,
}

impl Key {
    fn new() -> Result<Self> {
        let key = Self { folder: tempfile::tempdir()?, paths: Paths::find()? };
        let file = key.folder.path().join("qa.key");
        let made = command(&key.paths.halftone).args(["override", "new-key", "--out"]).arg(file).output()?;
        ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        Ok(key)
    }

    fn public(&self) -> Result<String> {
        Ok(std::fs::read_to_string(self.folder.path().join("qa.key.pub"))?.trim().to_owned())
    }

    fn token(&self, ruleset: &str, target: &str) -> Result<String> {
        let made = command(&self.paths.halftone)
            .args(["override", "token", "--ruleset", ruleset, "--target", target, "--key"])
            .arg(self.folder.path().join("qa.key"))
            .output()?;
        ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        Ok(String::from_utf8(made.stdout)?.trim().to_owned())
    }
}

fn now() -> Result<u64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos().try_into()?)
}

const TWO_TARGETS: &str = "version: v1\ntargets: {v1: , v2: }\ndefault: v1\nrules: []\n";

#[test]
fn a_signed_token_gives_its_target_and_nothing_else_does() -> Result<()> {
    let (key, other) = (Key::new()?, Key::new()?);
    let settings = json!({"override_keys": [other.public()?, key.public()?]});
    let mut instance = started(&configuration(&settings, TWO_TARGETS)?)?;
    instance.settings_mut().now_ns = now()?;
    let token = key.token("digits", "v2")?;
    for _ in 0..3 {
        let outcome = get(&mut instance, &[("x-halftone-override", &token)])?;
        assert_eq!(target(&outcome), "v2");
        assert_eq!(outcome.request_header("x-halftone-override"), None, "it goes no further");
        assert_eq!(outcome.response_header("x-halftone-target"), Some(&b"v2"[..]));
    }
    assert_eq!(target(&get(&mut instance, &[("x-halftone-override", &other.token("digits", "v2")?)])?), "v2");

    let (text, signature) = token.rsplit_once('.').context("no signature")?;
    let expires = text.rsplit_once('/').context("no time")?.1;
    let later = expires.parse::<u64>()? + 1;
    for bad in [
        "v2".to_owned(),
        text.to_owned(),
        format!("digits/v1/{expires}.{signature}"),
        format!("digits/v2/{later}.{signature}"),
        format!("digits/v2/{expires}.{}", signature.chars().rev().collect::<String>()),
        key.token("other", "v2")?,
        key.token("digits", "v3")?,
        Key::new()?.token("digits", "v2")?,
    ] {
        let outcome = get(&mut instance, &[("x-halftone-override", &bad)])?;
        assert_eq!(target(&outcome), "v1", "{bad}");
        assert_eq!(outcome.request_header("x-halftone-override"), None);
    }
    // It ends.
    instance.settings_mut().now_ns += 3_601_000_000_000;
    assert_eq!(target(&get(&mut instance, &[("x-halftone-override", &token)])?), "v1");
    // Without a key no token is taken.
    let mut instance = started(&configuration(&json!({}), TWO_TARGETS)?)?;
    instance.settings_mut().now_ns = now()?;
    assert_eq!(target(&get(&mut instance, &[("x-halftone-override", &token)])?), "v1");
    Ok(())
}

#[test]
fn junk_tokens_are_cheap() -> Result<()> {
    let key = Key::new()?;
    let mut instance = started(&configuration(&json!({"override_keys": [key.public()?]}), TWO_TARGETS)?)?;
    instance.settings_mut().now_ns = now()?;
    let plain = get(&mut instance, &[])?.usage.fuel;
    let (valid, other) = (key.token("digits", "v2")?, key.token("digits", "v1")?);
    let check = get(&mut instance, &[("x-halftone-override", &valid)])?.usage.fuel;
    let known = get(&mut instance, &[("x-halftone-override", &valid)])?.usage.fuel;
    assert!(known < plain * 2, "a known token takes {known} units of fuel, a request without {plain}");

    // A flood with the right form: after the first few of a second none is checked, and the known one still holds.
    let mut total = 0;
    for junk in 0..1_000_u64 {
        let (text, signature) = valid.rsplit_once('.').context("no signature")?;
        let token = format!("{text}.{:04}{}", junk, &signature[4..]);
        let outcome = get(&mut instance, &[("x-halftone-override", &token)])?;
        assert_eq!(target(&outcome), "v1");
        total += outcome.usage.fuel;
    }
    assert!(total < 1_000 * plain * 2 + 21 * check, "{total} units of fuel for 1,000 junk tokens");
    assert_eq!(target(&get(&mut instance, &[("x-halftone-override", &valid)])?), "v2");
    // A new one waits for the next second.
    assert!(get(&mut instance, &[("x-halftone-override", &other)])?.usage.fuel < plain * 2);
    instance.settings_mut().now_ns += 1_000_000_000;
    assert!(get(&mut instance, &[("x-halftone-override", &other)])?.usage.fuel > check / 2);
    Ok(())
}

#[test]
fn a_token_in_use_outlives_new_rules_during_a_flood() -> Result<()> {
    let (key, other) = (Key::new()?, Key::new()?);
    let taking = |key: &Key| configuration(&json!({"override_keys": [key.public()?]}), TWO_TARGETS);
    let mut instance = started(&taking(&key)?)?;
    instance.settings_mut().now_ns = now()?;
    let token = key.token("digits", "v2")?;
    let (text, signature) = token.rsplit_once('.').context("no signature")?;
    assert_eq!(target(&get(&mut instance, &[("x-halftone-override", &token)])?), "v2");
    for (key, expected) in [(&key, "v2"), (&other, "v1"), (&key, "v2")] {
        assert!(instance.configure(&taking(key)?)?, "{:?}", instance.take_logs());
        for junk in 0..100 {
            let junk = format!("{text}.{junk:04}{}", &signature[4..]);
            assert_eq!(target(&get(&mut instance, &[("x-halftone-override", &junk)])?), "v1");
        }
        assert_eq!(target(&get(&mut instance, &[("x-halftone-override", &token)])?), expected);
    }
    Ok(())
}

const RULES: &str = "
version: v1
targets: {v1: , v2: }
default: v1
overrides: [{units: ['7'], target: v2}]
rules:
  - {name: broken, condition: '1 / user.id > 0', target: v2}
  - {name: even, condition: user.id % 2 == 0, target: v2}
";

#[test]
fn decisions_and_errors_are_counted_once_a_second() -> Result<()> {
    let mut instance = started(&configuration(&json!({}), RULES)?)?;
    assert_eq!(instance.metric("halftone_revision"), Some(7));
    assert_eq!(instance.tick_period_ms(), 1, "soon, but not in the callback that the canary runs too");
    let mut calls = 0;
    for user in ["0", "2", "3", "3", "7", "", "x"] {
        calls += get(&mut instance, &[("x-user-id", user)])?.usage.count("proxy_increment_metric");
    }
    assert_eq!(calls, 0, "a request does not pay for the counters");
    instance.tick()?;
    assert_eq!(instance.tick_period_ms(), 1_000);
    let decisions =
        |rule, target| format!("halftone_decisions_total;ruleset=digits;rule={rule};target={target}");
    let errors = |rule| format!("halftone_evaluation_errors_total;ruleset=digits;rule={rule}");
    for (name, expected) in [
        (decisions("even", "v2"), Some(2)),
        (decisions("(default)", "v1"), Some(4)),
        (decisions("(override)", "v2"), Some(1)),
        (decisions("broken", "v2"), None),
        // Division by zero, an empty id and one that is no number.
        (errors("broken"), Some(3)),
        (errors("even"), Some(2)),
    ] {
        assert_eq!(instance.metric(&name), expected, "{name}");
    }
    // The same metrics after an update, and what was counted before it is not lost.
    get(&mut instance, &[("x-user-id", "2")])?;
    assert!(instance.configure(&bundle(RULES)?)?);
    get(&mut instance, &[("x-user-id", "2")])?;
    instance.tick()?;
    assert_eq!(instance.metric(&decisions("even", "v2")), Some(4));
    Ok(())
}

#[test]
fn series_are_bounded_over_all_revisions() -> Result<()> {
    let mut instance = started(b"")?;
    instance.settings_mut().fuel_per_call = 2_000_000_000;
    for revision in 0..30 {
        let rules: String = (0..100)
            .map(|n| format!("  - {{name: r{revision}-{n}, condition: user.id == {n}, target: v2}}\n"))
            .collect();
        assert!(instance.configure(&bundle(&format!("version: v1\nrules:\n{rules}"))?)?);
        for user in 0..100 {
            get(&mut instance, &[("x-user-id", &user.to_string())])?;
        }
        instance.tick()?;
    }
    let of = |rule: &str| format!("halftone_decisions_total;ruleset=digits;rule={rule};target=v2");
    assert_eq!(instance.metric(&of("r0-0")), Some(1));
    assert_eq!(instance.metric(&of("r29-99")), None);
    let rest = instance.metric("halftone_decisions_total;ruleset=(other);rule=(other);target=(other)");
    let rest = rest.context("the rest is not counted")?;
    assert!((1_000..=1_010).contains(&rest), "{rest} of 3,000");
    Ok(())
}

#[test]
fn a_host_without_metrics_timers_and_shared_data_still_decides() -> Result<()> {
    let unimplemented = [
        "proxy_set_tick_period_milliseconds",
        "proxy_define_metric",
        "proxy_increment_metric",
        "proxy_record_metric",
        "proxy_get_shared_data",
        "proxy_set_shared_data",
        "proxy_http_call",
        "proxy_set_property",
        "proxy_get_property",
    ];
    let settings = Settings { unimplemented: unimplemented.map(str::to_owned).into(), ..Settings::default() };
    let source = json!({"cluster": "halftone"});
    let configuration =
        configuration(&json!({"source": source, "report": {"cluster": "halftone"}}), ALL_TO_V2)?;
    let mut instance = module(&Paths::find()?.filter)?.start_with(settings)?;
    assert!(instance.configure(&configuration)?, "{:?}", instance.take_logs());
    for _ in 0..3 {
        assert_eq!(target(&get(&mut instance, &[("x-user-id", "42")])?), "v2");
        instance.tick()?;
    }
    Ok(())
}

#[test]
fn the_portable_module_refuses_what_it_cannot_do() -> Result<()> {
    let portable = module(&Paths::find()?.portable_filter)?;
    let mut instance = portable.start()?;
    assert!(instance.configure(&configuration(&json!({"tracing": "proxy"}), ALL_TO_V2)?)?);
    assert_eq!(target(&get(&mut instance, &[])?), "v2");
    assert!(!instance.configure(&configuration(&json!({"source": {"cluster": "x"}}), ALL_TO_V2)?)?);
    let logs = instance.take_logs();
    assert!(logs.iter().any(|line| line.message.contains("unknown field `source`")), "{logs:?}");
    Ok(())
}
