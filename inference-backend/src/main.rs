//! The program `halftone-inference`: see the library of the same name.

use clap::CommandFactory;
use halftone_inference::{cli::Args, server, settings_file};
use std::process::ExitCode;

fn main() -> ExitCode {
    let args = match settings_file::parse(Args::command(), std::env::args_os()) {
        Ok(args) => args,
        Err(error) => return error.tell(),
    };
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("halftone-inference: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> anyhow::Result<()> {
    halftone_telemetry::log::init(&args.log).map_err(anyhow::Error::msg)?;
    let runtime = tokio::runtime::Runtime::new()?;
    let outcome = runtime.block_on(server::run(args));
    // Does not wait for a run that would not finish: the time for that was given.
    runtime.shutdown_background();
    outcome
}
