//! Benchmarks. Times depend on the machine and its noise: each is the best or the median of many short
//! runs. Counts (host calls, fuel, bytes) do not.

mod envoy;
mod filter;
mod rules;
mod rulesets;

use clap::{Parser, ValueEnum};
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "bench", bin_name = "scripts/bench.sh", about = "Halftone's benchmarks")]
struct Args {
    /// What to measure; everything when left out.
    #[arg(value_enum)]
    what: Vec<What>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum What {
    /// The evaluator, native: decisions per second.
    Rules,
    /// The filter module: size, host calls, fuel.
    Filter,
    /// Real Envoy: time until a change is in force everywhere, memory.
    Envoy,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let all = What::value_variants();
    for what in if args.what.is_empty() { all } else { &args.what } {
        let measured = match what {
            What::Rules => rules::run(),
            What::Filter => filter::run(),
            What::Envoy => envoy::run(),
        };
        if let Err(error) = measured {
            eprintln!("bench: {error:#}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
