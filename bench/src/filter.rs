//! What the filter module costs, in counts that are the same on every machine.

use crate::rulesets::{CANARY, TEN_RULES, THREE_EXPERIMENTS, bundle, headers, tenants};
use anyhow::{Context, Result, ensure};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use halftone_filter_host::{FilterModule, Settings};
use halftone_proto::v1::EvaluationContext;
use halftone_rules::headers::{ROUTE, SCOPE_BOOTSTRAP};
use halftone_tests::Paths;
use prost::Message;
use std::{
    hint::black_box,
    time::{Duration, Instant},
};

/// In one run.
const DECODES: u32 = 1_000;

pub(crate) fn run() -> Result<()> {
    let wasm = std::fs::read(Paths::find()?.filter)?;
    println!("filter: {} bytes of wasm", wasm.len());
    let module = FilterModule::new(&wasm)?;
    println!("  rules         host calls  wasm fuel  callbacks  (request and response, trace continued)");
    let tenants = tenants(10_000);
    for (name, ruleset) in [
        ("none", None),
        ("1 rule", Some(CANARY)),
        ("10 rules", Some(TEN_RULES)),
        ("10,000 rules", Some(&tenants)),
    ] {
        // Taking up 10,000 rules takes more than the default allows.
        let mut instance =
            module.start_with(Settings { fuel_per_call: 2_000_000_000, ..Settings::default() })?;
        let configuration = ruleset.map(bundle).transpose()?.unwrap_or_default();
        ensure!(instance.configure(&configuration)?, "the filter refused the bundle");
        let mut request = headers();
        // As Envoy has it, where the control plane's routes are used.
        request.push((ROUTE, SCOPE_BOOTSTRAP));
        // The first request grows memory once.
        instance.request(&request)?;
        let outcome = instance.request_with_response(&request, &[(":status", "200")])?;
        let usage = &outcome.usage;
        println!("  {name:<12}  {:>10}  {:>9}  {:>9}", usage.host_calls(), usage.fuel, usage.callbacks);
    }
    context(&module)
}

/// What a backend pays for the decision.
fn context(module: &FilterModule) -> Result<()> {
    let mut instance = module.start()?;
    ensure!(instance.configure(&bundle(THREE_EXPERIMENTS)?)?, "the filter refused the bundle");
    let outcome = instance.request(&headers())?;
    let header = outcome.request_header("x-halftone-context").context("the filter wrote no context")?;
    let mut fastest = Duration::MAX;
    for _ in 0..200 {
        let start = Instant::now();
        for _ in 0..DECODES {
            let message = URL_SAFE_NO_PAD.decode(black_box(header))?;
            black_box(EvaluationContext::decode(message.as_slice())?);
        }
        fastest = fastest.min(start.elapsed() / DECODES);
    }
    println!(
        "  context with three experiments: {} bytes, decoded in {} ns",
        header.len(),
        fastest.as_nanos()
    );
    Ok(())
}
