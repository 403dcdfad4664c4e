//! What a request costs Envoy: CPU time with nothing, with an empty wasm filter, with ours, and with what one could
//! take instead of ours.
//!
//! All Envoys run at the same time with one worker each, and take their turns in short runs: the machine's noise falls
//! on all of them, and the smallest of many runs is what it costs. Counted is the CPU time of the whole process, by the
//! kernel's scheduler, in nanoseconds.

mod bootstrap;
mod client;

use crate::rulesets::{CANARY, TEN_RULES, bundle, tenants};
use anyhow::{Context, Result};
use bootstrap::{Filter, Routes};
use client::Connection;
use halftone_tests::{Envoy, Paths};
use std::{net::SocketAddr, path::Path, time::Duration};

/// Runs of each Envoy.
const RUNS: usize = 60;
/// Requests in a run.
const REQUESTS: u32 = 400;
/// Rules of the large rulesets, and routes of the Envoy that has them instead.
const MANY: usize = 10_000;

/// Who answers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// Envoy itself, which is the least that a request can cost.
    Envoy,
    /// A server behind it.
    Upstream(SocketAddr),
}

/// An Envoy that takes part.
struct Candidate {
    name: &'static str,
    envoy: Envoy,
    connection: Connection,
    /// CPU time per request of the cheapest run.
    best: Duration,
}

pub(super) async fn run() -> Result<()> {
    let upstream = client::serve()?;
    println!("envoy: CPU per request, the smallest of {RUNS} interleaved runs of {REQUESTS} requests");
    for (title, answer) in [
        ("a server answers, and Envoy passes it on", Answer::Upstream(upstream)),
        ("Envoy answers by itself", Answer::Envoy),
    ] {
        println!("  {title}");
        report(&measure(answer).await?)?;
    }
    Ok(())
}

/// An Envoy with one worker and no filter that answers by itself: what a machine's noise does to the least that a request
/// can be.
pub(crate) async fn static_answer(paths: &Paths, folder: &Path) -> Result<Envoy> {
    let text = bootstrap::text(paths, folder, &Filter::None, Routes::One, Answer::Envoy)?;
    let file = folder.join("static.yaml");
    std::fs::write(&file, text)?;
    Envoy::start_from(paths, folder, "static", 1, &file).await
}

async fn measure(answer: Answer) -> Result<Vec<Candidate>> {
    let paths = Paths::find()?;
    let folder = tempfile::tempdir()?;
    let ours = |ruleset: &str| -> Result<Filter> { Ok(Filter::Ours(bundle(ruleset)?)) };
    let parts = [
        ("no filter", Filter::None, Routes::One),
        (EMPTY, Filter::EmptyWasm, Routes::One),
        ("1 rule", ours(CANARY)?, Routes::One),
        (TEN, ours(TEN_RULES)?, Routes::One),
        ("1,000 rules", ours(&tenants(1_000))?, Routes::One),
        (LARGE, ours(&tenants(MANY))?, Routes::One),
        (LUA, Filter::Lua, Routes::One),
        (NATIVE, Filter::None, Routes::PerTenant(MANY)),
    ];
    let mut candidates = Vec::new();
    for (index, (name, filter, routes)) in parts.into_iter().enumerate() {
        let text = bootstrap::text(&paths, folder.path(), &filter, routes, answer)?;
        let file = folder.path().join(format!("{index}")).join("bootstrap.yaml");
        std::fs::create_dir_all(file.parent().context("no folder")?)?;
        std::fs::write(&file, text)?;
        let envoy = Envoy::start_from(&paths, folder.path(), &format!("candidate-{index}"), 1, &file).await?;
        let mut connection = Connection::open(envoy.address)?;
        let expected = match filter {
            Filter::None | Filter::EmptyWasm => None,
            Filter::Ours(_) | Filter::Lua => Some("x-halftone-target"),
        };
        connection.check(expected)?;
        connection.send(REQUESTS * 4)?;
        candidates.push(Candidate { name, envoy, connection, best: Duration::MAX });
    }
    for _ in 0..RUNS {
        for candidate in &mut candidates {
            let before = candidate.envoy.cpu_time()?;
            candidate.connection.send(REQUESTS)?;
            let cost = (candidate.envoy.cpu_time()?.saturating_sub(before)) / REQUESTS;
            candidate.best = candidate.best.min(cost);
        }
    }
    Ok(candidates)
}

const EMPTY: &str = "an empty wasm filter";
const TEN: &str = "10 rules";
const LARGE: &str = "10,000 rules";
const LUA: &str = "Lua with the same 10 rules";
const NATIVE: &str = "10,000 routes by header, no filter";

fn report(candidates: &[Candidate]) -> Result<()> {
    let of = |name: &str| -> Result<f64> {
        let found = candidates.iter().find(|candidate| candidate.name == name);
        Ok(found.context("not measured")?.best.as_secs_f64())
    };
    let empty = of(EMPTY)?;
    for Candidate { name, best, .. } in candidates {
        let best = best.as_secs_f64();
        println!("    {name:<36} {:>6.1} us   {:.2} times the empty one", best * 1e6, best / empty);
    }
    println!("    Lua / ours, 10 rules: {:.2}", of(LUA)? / of(TEN)?);
    println!("    routes / ours, 10,000: {:.1}", of(NATIVE)? / of(LARGE)?);
    Ok(())
}
