//! The program `halftone-inference`: see the library of the same name.

use clap::CommandFactory;
use halftone_inference::{cli::Args, server, settings_file};
use halftone_telemetry::log;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args = match settings_file::parse(Args::command(), std::env::args_os()) {
        Ok(args) => args,
        Err(error) => return error.tell(),
    };
    let _logging = match log::init(&args.log) {
        Ok(logging) => logging,
        Err(error) => {
            eprintln!("halftone-inference: {error}");
            return ExitCode::FAILURE;
        }
    };
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::say(format_args!("halftone-inference: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    let outcome = runtime.block_on(server::run(args));
    // Does not wait for a run that would not finish: the time for that was given.
    runtime.shutdown_background();
    outcome
}
