//! The real filter module outside of Envoy: what it imports, what a request costs, and that it decides
//! as the native evaluator does.

use anyhow::{Context, Result, bail, ensure};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use halftone_compiler::{Release, compile, compile_released, link};
use halftone_filter_host::{FilterInstance, FilterModule, Outcome, Settings};
use halftone_proto::v1::{EvaluationContext, Participation};
use halftone_rules::{Decision, Request, Ruleset, Timestamp, VerifiedBundle, bucket::Seed, codec};
use halftone_tests::{
    Paths,
    trace_cases::{TraceCase, trace_cases},
};
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use prost::Message;
use std::cell::RefCell;

// Rulesets with everything that they can say, and enough rules for the index; shared with the compiler's tests.
#[path = "../../compiler/tests/random/mod.rs"]
mod random;

/// What the portable module may ask of its host. A missing import would keep the whole module from loading, so
/// this is the safe core of the ABI that every host has, plus what Rust's standard library needs.
const PORTABLE_IMPORTS: [(&str, &str); 14] = [
    ("env", "proxy_add_header_map_value"),
    ("env", "proxy_get_buffer_bytes"),
    ("env", "proxy_get_current_time_nanoseconds"),
    ("env", "proxy_get_header_map_pairs"),
    ("env", "proxy_get_property"),
    ("env", "proxy_log"),
    ("env", "proxy_remove_header_map_value"),
    ("env", "proxy_replace_header_map_value"),
    ("env", "proxy_set_property"),
    ("wasi_snapshot_preview1", "environ_get"),
    ("wasi_snapshot_preview1", "environ_sizes_get"),
    ("wasi_snapshot_preview1", "fd_write"),
    ("wasi_snapshot_preview1", "proc_exit"),
    ("wasi_snapshot_preview1", "random_get"),
];

/// The clock of the filter's host, see [`halftone_filter_host::Settings`].
const NOW: Timestamp = Timestamp(1_700_000_000_000_000_000);

type Headers = Vec<(String, Vec<u8>)>;

/// The native host of the evaluator.
struct Native<'a>(&'a Headers);

impl Request for Native<'_> {
    fn header(&self, name: &str) -> Option<&[u8]> {
        self.0.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_slice())
    }

    fn headers(&self) -> Option<impl Iterator<Item = (&[u8], &[u8])>> {
        Some(self.0.iter().map(|(name, value)| (name.as_bytes(), value.as_slice())))
    }

    fn client_address(&self) -> Option<&[u8]> {
        Some(CLIENT)
    }

    fn property(&self, path: &[String]) -> Option<&[u8]> {
        (path == ["connection", "requested_server_name"]).then_some(SNI)
    }
}

const CLIENT: &[u8] = b"10.1.2.3:4711";
const SNI: &[u8] = b"models.example.com";

fn module() -> Result<FilterModule> {
    Ok(FilterModule::new(&std::fs::read(Paths::find()?.filter)?)?)
}

fn bundle(ruleset: &str) -> Result<Vec<u8>> {
    let compiled = compile(ruleset, "digits").map_err(|problems| anyhow::anyhow!("{problems:#?}"))?;
    Ok(codec::encode(&link(7, [&compiled])?)?)
}

fn started(ruleset: &str) -> Result<FilterInstance> {
    let mut instance = module()?.start()?;
    assert!(instance.configure(&bundle(ruleset)?)?, "{:?}", instance.take_logs());
    Ok(instance)
}

fn context(outcome: &Outcome) -> Result<EvaluationContext> {
    let header = outcome.request_header("x-halftone-context").context("no context")?;
    Ok(EvaluationContext::decode(URL_SAFE_NO_PAD.decode(header)?.as_slice())?)
}

fn request(extra: &[(&str, &[u8])]) -> Headers {
    let base: [(&str, &[u8]); 6] = [
        (":method", b"POST"),
        (":scheme", b"http"),
        (":authority", b"models.example.com:8443"),
        (":path", b"/v2/models/digits/infer?x=1"),
        ("content-type", b"application/json"),
        ("user-agent", b"curl/8"),
    ];
    base.iter().chain(extra).map(|(name, value)| ((*name).to_owned(), value.to_vec())).collect()
}

const CANARY: &str =
    "version: v1\nrules:\n  - {name: canary, condition: 'user.id > 0', weight: 0.5, target: v2}\n";

/// What the module for Envoy asks for besides.
const ENVOY_IMPORTS: [(&str, &str); 9] = [
    ("env", "proxy_define_metric"),
    ("env", "proxy_get_header_map_value"),
    ("env", "proxy_get_shared_data"),
    ("env", "proxy_http_call"),
    ("env", "proxy_increment_metric"),
    ("env", "proxy_record_metric"),
    ("env", "proxy_set_shared_data"),
    ("env", "proxy_set_tick_period_milliseconds"),
    ("wasi_snapshot_preview1", "clock_time_get"),
];

#[test]
fn imports_are_on_the_allow_lists() -> Result<()> {
    let portable = FilterModule::new(&std::fs::read(Paths::find()?.portable_filter)?)?;
    for (module, name) in portable.imports() {
        let import = (module.as_str(), name.as_str());
        assert!(PORTABLE_IMPORTS.contains(&import), "{module}.{name} is not allowed");
    }
    for (module, name) in module()?.imports() {
        let import = (module.as_str(), name.as_str());
        let allowed = PORTABLE_IMPORTS.contains(&import) || ENVOY_IMPORTS.contains(&import);
        assert!(allowed, "{module}.{name} is not allowed");
    }
    Ok(())
}

#[test]
fn a_request_costs_a_fixed_number_of_host_calls() -> Result<()> {
    let mut instance = started(CANARY)?;
    let traced: &[u8] = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let outcome = instance.request_with_response(
        &request(&[("x-user-id", b"42"), ("traceparent", traced), ("x-halftone-route", b"bootstrap")]),
        &[(":status", "200")],
    )?;
    // One read of all headers, the clock, the decision in three headers, in the access log's property and in the
    // baggage of the request, and in one header of the response.
    assert_eq!(
        outcome.usage.calls(),
        [
            "proxy_get_header_map_pairs",
            "proxy_get_current_time_nanoseconds",
            "proxy_replace_header_map_value",
            "proxy_replace_header_map_value",
            "proxy_replace_header_map_value",
            "proxy_set_property",
            "proxy_replace_header_map_value",
            "proxy_replace_header_map_value",
        ]
    );
    // Fuel counts wasm instructions and so is the same on every machine; see scripts/bench.sh.
    assert!(outcome.usage.fuel < 14_000, "{} units of fuel", outcome.usage.fuel);
    // A trace that starts here takes randomness and one header more; without route tables there is one less.
    let outcome = instance.request(&request(&[("x-user-id", b"42")]))?;
    assert_eq!(outcome.usage.count("random_get"), 1);
    assert_eq!(outcome.usage.host_calls(), 8);
    Ok(())
}

#[test]
fn a_refused_configuration_leaves_the_last_good_rules() -> Result<()> {
    let mut instance = started("version: v1\nrules:\n  - {name: all, target: v2}\n")?;
    let good = bundle(CANARY)?;
    for length in 1..good.len() {
        assert!(!instance.configure(&good[..length])?, "{length} bytes were taken");
    }
    for bit in (0..good.len() * 8).step_by(7) {
        let mut damaged = good.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert!(!instance.configure(&damaged)?, "bit {bit}");
    }
    assert!(!instance.configure(b"{\"json\": true}")?);
    let logs = instance.take_logs();
    assert!(logs.iter().any(|line| line.message.contains("configuration refused: ")), "{logs:?}");
    let outcome = instance.request(&request(&[("x-user-id", b"42")]))?;
    assert_eq!(outcome.request_header("x-halftone-target"), Some(&b"v2"[..]));
    Ok(())
}

#[test]
fn a_ruleset_of_megabytes_is_taken() -> Result<()> {
    let condition = (0..120).map(|n| format!("age != {n}")).collect::<Vec<_>>().join(" && ");
    let rules = (0..2_500)
        .map(|n| format!("  - {{name: r{n}, condition: 'age == 1{n} && {condition}', target: v2}}\n"));
    let attributes = "attributes: {age: {header: x-age, type: int}}";
    let text = format!("version: v1\n{attributes}\nrules:\n{}", rules.collect::<String>());
    assert!(text.len() > 3 << 20);
    let bytes = bundle(&text)?;
    // As much as the control plane's gate allows; the second time, the rules before are still there.
    let mut instance =
        module()?.start_with(Settings { fuel_per_call: 2_000_000_000, ..Settings::default() })?;
    for _ in 0..2 {
        assert!(instance.configure(&bytes)?, "{:?}", instance.take_logs());
    }
    let outcome = instance.request(&request(&[("x-age", b"12499")]))?;
    assert_eq!(outcome.request_header("x-halftone-target"), Some(&b"v2"[..]));
    Ok(())
}

#[test]
fn without_rules_the_filter_only_cleans() -> Result<()> {
    let mut instance = module()?.start()?;
    assert!(instance.configure(b"")?);
    let spoofed = request(&[
        ("x-halftone-target", b"v2"),
        ("x-halftone-target", b"v3"),
        ("x-halftone-context", b"CAES"),
        ("x-halftone-route", b"xds/digits"),
        ("x-halftone-ä", b"x"),
        ("x-halftones", b"stays"),
    ]);
    let outcome = instance.request_with_response(&spoofed, &[(":status", "200")])?;
    let ours: Vec<_> =
        outcome.request_headers.iter().filter(|(name, _)| name.starts_with(b"x-halftone-")).collect();
    assert_eq!(ours, [&(b"x-halftone-route".to_vec(), b"bootstrap".to_vec())]);
    assert_eq!(outcome.request_header("x-halftones"), Some(&b"stays"[..]));
    assert_eq!(outcome.request_header("traceparent"), None);
    assert_eq!(outcome.response_header("x-halftone-target"), None);
    Ok(())
}

#[test]
fn the_context_says_what_was_decided() -> Result<()> {
    let mut instance = started("version: v1\nrules:\n  - {name: half, weight: 0.999999, target: v2}\n")?;
    instance.settings_mut().now_ns = 1_700_000_000_123_456_789;
    let outcome = instance.request(&request(&[("x-user-id", b"42")]))?;
    let context = context(&outcome)?;
    let bucket = Seed::of_rule("digits", "half").ready().bucket(b"42");
    assert_eq!(
        context,
        EvaluationContext {
            timestamp_ms: 1_700_000_000_123,
            ruleset: "digits".into(),
            revision: 7,
            rule: "half".into(),
            target: "v2".into(),
            unit_hash: halftone_rules::unit_hash(b"42"),
            bucket: Some(bucket),
            reason: halftone_proto::v1::Reason::Split.into(),
            ..EvaluationContext::default()
        }
    );
    Ok(())
}

#[test]
fn a_route_table_is_named_where_the_proxy_asks_for_one() -> Result<()> {
    let mut decides = started("version: v1\nrules: [{name: all, target: v2}]\n")?;
    let mut cleans = module()?.start()?;
    ensure!(cleans.configure(b"")?);
    let (bootstrap, xds) = (&b"bootstrap"[..], &b"xds/digits"[..]);
    for (inbound, decided, undecided) in [
        (&[][..], None, None),
        (&[bootstrap], Some(xds), Some(bootstrap)),
        (&[xds], Some(xds), Some(bootstrap)),
        (&[b"\xff"], Some(xds), Some(bootstrap)),
        (&[bootstrap, bootstrap], Some(xds), Some(bootstrap)),
        (&[bootstrap, xds], Some(xds), Some(bootstrap)),
    ] {
        let headers: Vec<_> = inbound.iter().map(|value| ("x-halftone-route", *value)).collect();
        for (instance, expected) in [(&mut decides, decided), (&mut cleans, undecided)] {
            let outcome = instance.request(&request(&headers))?;
            let found = outcome.request_headers.iter().filter(|(name, _)| name == b"x-halftone-route");
            let found: Vec<&[u8]> = found.map(|(_, value)| value.as_slice()).collect();
            assert_eq!(found, expected.into_iter().collect::<Vec<_>>(), "{inbound:?}");
        }
    }
    Ok(())
}

#[test]
fn the_context_stays_small() -> Result<()> {
    let mut instance = started(
        "version: v1\nrules: [{name: recommendation-canary, weight: 0.999999, target: ranker-2026-11}]\nexperiments:\n\
         - {name: checkout-button, arms: [{name: control}]}\n\
         - {name: prompt-length, arms: [{name: treatment}]}\n\
         - {name: retrieval-depth, arms: [{name: control}]}\n",
    )?;
    let outcome = instance.request(&request(&[("x-user-id", b"1234567890")]))?;
    let header = outcome.request_header("x-halftone-context").context("no context")?;
    assert_eq!(context(&outcome)?.experiments.len(), 3);
    assert!(header.len() < 300, "{} bytes", header.len());
    Ok(())
}

/// The request's headers of that name, in order.
fn lines(outcome: &Outcome, name: &str) -> Vec<String> {
    let named = outcome.request_headers.iter().filter(|(other, _)| other == name.as_bytes());
    named.map(|(_, value)| String::from_utf8_lossy(value).into_owned()).collect()
}

#[test]
fn traces_are_continued_or_replaced_by_the_rules() -> Result<()> {
    let mut instance = started(CANARY)?;
    for TraceCase { name, sent, continued, state } in trace_cases() {
        let extra: Vec<(&str, &[u8])> = sent.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
        let outcome = instance.request(&request(&extra))?;
        let found = lines(&outcome, "traceparent");
        let [traceparent] = found.as_slice() else { bail!("{name}: {found:?}") };
        let came = sent.iter().any(|(header, value)| *header == "traceparent" && value == traceparent);
        assert_eq!(came, continued, "{name}");
        assert!(
            continued || halftone_rules::trace::is_valid_traceparent(traceparent.as_bytes()),
            "{found:?}"
        );
        assert_eq!(lines(&outcome, "tracestate"), state, "{name}");
    }
    Ok(())
}

#[test]
fn the_decision_travels_in_the_baggage() -> Result<()> {
    let mut instance =
        started("version: v1\nmatch: {hosts: [models.example.com]}\nrules: [{name: all, target: v2}]\n")?;
    let baggage: [(&str, &[u8]); 2] = [("baggage", b"a=1;p, halftone.target=v9"), ("baggage", b"b=\xff")];
    let outcome = instance.request(&request(&baggage))?;
    assert_eq!(lines(&outcome, "baggage"), ["a=1;p,b=\u{fffd},halftone.target=v2,halftone.revision=7"]);
    // A request that no ruleset governs: nobody speaks in our name, and nothing is added.
    let mut elsewhere = request(&baggage);
    elsewhere.retain(|(name, _)| name != ":authority");
    let outcome = instance.request(&elsewhere)?;
    assert_eq!(outcome.request_header("x-halftone-target"), None);
    assert_eq!(lines(&outcome, "baggage"), ["a=1;p,b=\u{fffd}"]);
    elsewhere.retain(|(name, _)| name != "baggage");
    assert!(lines(&instance.request(&elsewhere)?, "baggage").is_empty());
    Ok(())
}

#[test]
fn the_access_log_gets_the_decision() -> Result<()> {
    let mut instance = started("version: v1\nrules:\n  - {name: half, weight: 0.999999, target: v2}\n")?;
    let outcome = instance.request(&request(&[("x-user-id", b"42")]))?;
    let bucket = Seed::of_rule("digits", "half").ready().bucket(b"42");
    let expected = format!("ruleset=digits rule=half target=v2 reason=SPLIT revision=7 bucket={bucket}");
    assert_eq!(outcome.properties, [(b"halftone".to_vec(), expected.into_bytes())]);
    Ok(())
}

#[test]
fn a_release_says_its_epoch() -> Result<()> {
    let release = Release {
        name: "v2-ramp".into(),
        epoch: u64::MAX,
        condition: None,
        layer: None,
        range: None,
        before: None,
        stable: "v1".into(),
        candidates: vec!["v2".into()],
        dropped: Vec::new(),
        share: 0.5,
        control: 0.5,
    };
    let released = compile_released("version: v1\nrules: []\n", "digits", &[release]);
    let released = released.map_err(|problems| anyhow::anyhow!("{problems:#?}"))?;
    let mut instance = module()?.start()?;
    assert!(instance.configure(&codec::encode(&link(7, [&released])?)?)?, "{:?}", instance.take_logs());
    let outcome = instance.request(&request(&[("x-user-id", b"42")]))?;
    let context = context(&outcome)?;
    let bucket = Seed::of_rule("digits", "v2-ramp").ready().bucket(b"42");
    let (arm, target) = if bucket < 500_000 { ("v2", "v2") } else { ("control", "v1") };
    assert_eq!(
        (context.rule.as_str(), context.arm.as_str(), context.target.as_str()),
        ("v2-ramp", arm, target)
    );
    assert_eq!((context.epoch, context.bucket), (u64::MAX, Some(bucket)));
    let expected = format!(
        "ruleset=digits rule=v2-ramp arm={arm} target={target} reason=SPLIT revision=7 epoch={} bucket={bucket}",
        u64::MAX
    );
    assert_eq!(outcome.properties, [(b"halftone".to_vec(), expected.into_bytes())]);
    Ok(())
}

/// Conditions over everything that a request has, some without a value for some requests.
const CONDITIONS: [&str; 25] = [
    "user.id % 100 < 10",
    "user.id in [1, 2, 3, 42] || tier == 'gold'",
    "request.headers['x-tier'].startsWith('g') && !('x-beta' in request.headers)",
    "has(user.id) ? user.id > 50 : tier == 'none'",
    "score * 2.0 >= 1.5 && score < 10.0",
    "age - 10 > 20 && age / 3 < 100 && age % 7 != 0",
    "request.path == '/v2/models/digits/infer' && request.method == 'POST'",
    "request.host.endsWith('.com:8443') && request.host.contains('models')",
    "size(tier) > 2",
    "beta",
    "!beta || age < 0",
    "age > 9223372036854775806 || -age > 5",
    "tier < 'h' && tier >= 'b'",
    "tier in ['gold', 'größe', 'silver']",
    "group == 'gold' || group.startsWith('1')",
    "tier.matches('^[a-m]') || tier.matches('[0-9]$')",
    "cidr(request.client_address, '10.0.0.0/8') && sni.endsWith('.com')",
    "now > timestamp('2023-01-01T00:00:00Z') && now.getHours() == 22",
    "bucket(user.id, 'x', 10) < 5",
    "{'gold': 3, 'silver': 2}[tier] >= 2",
    "int(tier) > 3 || uint(score) == 1u",
    "version >= semver('1.2.3-rc.1')",
    "'beta' in groups || size(groups) == 2",
    "raw < b'5' && size(raw) > 1",
    "request.query['x'] == '1' && double(age) * 2.0 > score",
];

fn rulesets() -> impl Strategy<Value = String> {
    let rule = (prop::option::of(prop::sample::select(&CONDITIONS[..])), 0..=4u8, 0..4u8);
    prop::collection::vec(rule, 0..12).prop_map(|rules| {
        let mut text = String::from(
            "version: v1\nattributes:\n  tier: {header: x-tier}\n  group: {cookie: group}\n  age: {header: x-age, type: int}\n  score: {header: x-score, type: double}\n  beta: {header: x-beta, type: bool}\n  version: {header: x-version, type: semver}\n  groups: {header: x-groups, type: list}\n  raw: {header: x-age, type: bytes}\n  sni: {property: connection.requested_server_name}\nrules:\n  - {name: first, condition: 'user.id == 18446744073709551615', target: v0}\n",
        );
        for (index, (condition, weight, target)) in rules.into_iter().enumerate() {
            let condition = condition.map(|text| format!("condition: \"{text}\", ")).unwrap_or_default();
            text += &format!("  - {{name: r{index}, {condition}weight: {}, target: v{target}}}\n", f64::from(weight) / 4.0);
        }
        text
    })
}

fn values() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => (-5i64..130).prop_map(|n| n.to_string().into_bytes()),
        1 => prop::sample::select(vec![
            &b""[..], b"true", b"false", b"gold", b"silver", b"g", b"0.75", b"1e400", b"NaN", b"-0", b"+7", b"007",
            b"9223372036854775807", b"-9223372036854775808", b"18446744073709551615", b"18446744073709551616",
            b"1.2.3", b"1.2.3-beta.7", b"beta, qa", b"\xff\xfe", "größe".as_bytes(), b" 5", b"0x10",
        ]).prop_map(<[u8]>::to_vec),
        1 => prop::collection::vec(1u8.., 0..20),
    ]
}

fn requests() -> impl Strategy<Value = Headers> {
    let names = [
        "x-user-id",
        "x-tier",
        "x-age",
        "x-score",
        "x-beta",
        "x-version",
        "x-groups",
        "x-halftone-target",
        "traceparent",
        "x-other",
        "cookie",
    ];
    prop::collection::vec((prop::sample::select(names.to_vec()), values()), 0..8).prop_map(|extra| {
        let extra: Vec<(&str, Vec<u8>)> = extra
            .into_iter()
            .map(|(name, value)| {
                (name, if name == "cookie" { [b"a=1; group=", &value[..]].concat() } else { value })
            })
            .collect();
        let extra: Vec<(&str, &[u8])> = extra.iter().map(|(name, value)| (*name, value.as_slice())).collect();
        request(&extra)
    })
}

fn agrees(native: Option<Decision<'_>>, wasm: &Outcome) -> Result<()> {
    let native = native.context("the ruleset governs every request")?;
    let context = context(wasm)?;
    let experiments = native
        .experiments()
        .map(|part| Participation { experiment: part.experiment.into(), arm: part.arm.into() });
    let expected = EvaluationContext {
        timestamp_ms: context.timestamp_ms,
        ruleset: native.ruleset.into(),
        revision: native.revision,
        rule: native.rule.unwrap_or_default().into(),
        target: native.target.into(),
        unit_hash: native.unit_hash.unwrap_or_default(),
        bucket: native.bucket,
        reason: native.reason as i32,
        arm: native.arm.unwrap_or_default().into(),
        experiments: experiments.collect(),
        overridden: native.overridden,
        held_out: native.held_out,
        epoch: native.epoch,
        // The filter knows of neither.
        tenant: None,
        feature_version: None,
    };
    ensure!(context == expected, "{context:?} where {expected:?} is right");
    let target = wasm.request_header("x-halftone-target");
    ensure!(target == Some(native.target.as_bytes()), "{target:?} where {} is right", native.target);
    Ok(())
}

/// Runs a corpus through the module and the native evaluator. Its seed is fixed: it is the same in every run.
fn compare(
    cases: u32,
    corpus: impl Strategy<Value = (String, Timestamp, Vec<Headers>)>,
    mut seen: impl FnMut(&Ruleset),
) -> Result<()> {
    let module = module()?;
    let mut runner = TestRunner::new_with_rng(
        Config { cases, failure_persistence: None, ..Config::default() },
        proptest::test_runner::TestRng::deterministic_rng(proptest::test_runner::RngAlgorithm::ChaCha),
    );
    let compare = |ruleset: &str, now: Timestamp, requests: &[Headers]| -> Result<VerifiedBundle> {
        let bytes = bundle(ruleset)?;
        let verified = codec::decode(&bytes)?;
        let mut instance = module.start()?;
        instance.settings_mut().now_ns = now.0.try_into()?;
        instance.settings_mut().set_property(&["source", "address"], CLIENT);
        instance.settings_mut().set_property(&["connection", "requested_server_name"], SNI);
        ensure!(instance.configure(&bytes)?, "{:?}", instance.take_logs());
        for headers in requests {
            let outcome = instance.request(headers)?;
            agrees(verified.decide(&Native(headers), now, &mut ()), &outcome)
                .with_context(|| format!("{headers:?}"))?;
        }
        Ok(verified)
    };
    let seen = RefCell::new(&mut seen);
    runner
        .run(&corpus, |(ruleset, now, requests)| {
            let verified = compare(&ruleset, now, &requests)
                .map_err(|error| TestCaseError::fail(format!("{error:#}\n{ruleset}")))?;
            verified.bundle().rulesets.iter().for_each(&mut **seen.borrow_mut());
            Ok(())
        })
        .map_err(|error| anyhow::anyhow!("{error}"))
}

#[test]
fn the_module_decides_as_the_native_evaluator() -> Result<()> {
    compare(300, (rulesets(), Just(NOW), prop::collection::vec(requests(), 1..24)), |_| {})
}

#[test]
fn the_module_decides_as_the_native_evaluator_by_whole_rulesets() -> Result<()> {
    let requests = random::requests().prop_map(|random::Headers(headers)| {
        let headers: Vec<(&str, &[u8])> =
            headers.iter().map(|(name, value)| (*name, value.as_slice())).collect();
        request(&headers)
    });
    let corpus = (random::rulesets(), random::moments(), prop::collection::vec(requests, 1..24));
    let (mut rulesets, mut large) = (0, 0);
    compare(200, corpus, |ruleset| {
        rulesets += 1;
        large += usize::from(ruleset.rules.iter().filter(|rule| rule.guard.is_some()).count() >= 40);
    })?;
    assert!(large * 10 >= rulesets, "{large} of {rulesets} rulesets have 40 rules with guards");
    Ok(())
}
