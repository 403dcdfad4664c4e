//! Benchmarks. Times depend on the machine and its noise: each is the best or the median of many short
//! runs. Counts (host calls, fuel, bytes) do not.

mod envoy;
mod filter;
mod fleet;
mod inference;
mod judge;
mod ledger;
mod release;
mod rules;
mod rulesets;
mod telemetry;

use clap::{Parser, ValueEnum};
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "bench", bin_name = "scripts/bench.sh", about = "Halftone's benchmarks")]
struct Args {
    /// What to measure; everything when left out.
    #[arg(value_enum)]
    what: Vec<What>,
    /// Only decide, by this ruleset; for counting instructions.
    #[arg(long, hide = true, conflicts_with = "what")]
    probe: Option<String>,
    /// With `--probe`: decide from values that are ready, not from headers.
    #[arg(long, hide = true)]
    ready: bool,
    /// Number of decisions for `--probe`.
    #[arg(long, hide = true, default_value_t = 0)]
    decisions: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum What {
    /// The evaluator, native: decisions per second, instructions, and its peers.
    Rules,
    /// The filter module: size, host calls, fuel.
    Filter,
    /// Real Envoy: time until a change is in force everywhere, memory, CPU time per request.
    Envoy,
    /// A thousand proxies on one control plane: time until all have ACKed a change, memory per proxy.
    Fleet,
    /// The inference service: batching, throughput, overload, fixed rates through Envoy.
    Inference,
    /// The judge: cost per metric and tick, of a new look, releases per second.
    Judge,
    /// The ledger: records per second, memory, time to read the statistics of a release.
    Ledger,
    /// Releases on real Envoy: time from a fault of the candidate to its last answer.
    Release,
    /// Traces, metrics and logs: what they cost the inference service, also when the collector is in trouble.
    Telemetry,
}

fn main() -> ExitCode {
    let args = Args::parse();
    if let Some(ruleset) = &args.probe {
        return finish(rules::probe(ruleset, args.ready, args.decisions));
    }
    let all = What::value_variants();
    for what in if args.what.is_empty() { all } else { &args.what } {
        let measured = match what {
            What::Rules => rules::run(),
            What::Filter => filter::run(),
            What::Envoy => envoy::run(),
            What::Fleet => fleet::run(),
            What::Inference => inference::run(),
            What::Judge => judge::run(),
            What::Ledger => ledger::run(),
            What::Release => release::run(),
            What::Telemetry => telemetry::run(),
        };
        if measured.is_err() {
            return finish(measured);
        }
    }
    ExitCode::SUCCESS
}

fn finish(measured: anyhow::Result<()>) -> ExitCode {
    match measured {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}
