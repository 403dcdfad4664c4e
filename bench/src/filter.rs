//! What the filter module costs, in counts that are the same on every machine.

use crate::rulesets::{CANARY, TEN_RULES, bundle, headers};
use anyhow::{Result, ensure};
use halftone_filter_host::FilterModule;
use halftone_tests::Paths;

pub(crate) fn run() -> Result<()> {
    let wasm = std::fs::read(Paths::find()?.filter)?;
    println!("filter: {} bytes of wasm", wasm.len());
    let module = FilterModule::new(&wasm)?;
    println!("  rules      host calls  wasm fuel  callbacks  (request and response, trace continued)");
    for (name, ruleset) in [("none", None), ("1 rule", Some(CANARY)), ("10 rules", Some(TEN_RULES))] {
        let mut instance = module.start()?;
        let configuration = ruleset.map(bundle).transpose()?.unwrap_or_default();
        ensure!(instance.configure(&configuration)?, "the filter refused the bundle");
        // The first request grows memory once.
        instance.request(&headers())?;
        let outcome = instance.request_with_response(&headers(), &[(":status", "200")])?;
        let usage = &outcome.usage;
        println!("  {name:<9}  {:>10}  {:>9}  {:>9}", usage.host_calls(), usage.fuel, usage.callbacks);
    }
    Ok(())
}
