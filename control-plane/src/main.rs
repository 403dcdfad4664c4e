//! The command line of Halftone.

use clap::{Parser, Subcommand};
use halftone_control_plane::{bootstrap, cli, release, serve};
use halftone_telemetry::log::{self, LogArgs};
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};

/// Gray releases of AI models: which version serves a request is decided inside Envoy, by compiled rules.
#[derive(Parser)]
#[command(name = "halftone", version)]
struct Cli {
    #[command(flatten)]
    log: LogArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the control plane: REST for people, xDS for proxies.
    Serve(serve::ServeArgs),
    /// Write the configuration that plain Envoy starts with.
    EnvoyBootstrap(bootstrap::BootstrapArgs),
    /// Check rulesets and releases. Exits with 1 on errors.
    Lint(cli::LintArgs),
    /// Compile rulesets to a bundle.
    Compile(cli::CompileArgs),
    /// Show a bundle as text.
    Disasm(cli::DisasmArgs),
    /// Show rule by rule how a request is decided.
    Explain(cli::ExplainArgs),
    /// Judge a release from its statistics: promote, hold, roll back, and why.
    Judge(cli::JudgeArgs),
    /// Say how many units an effect takes, and how long.
    Plan(cli::PlanArgs),
    /// Give requests a target whatever the rules say, by a signed token: for tests in production.
    Override(cli::OverrideArgs),
    /// Print the JSON Schema of rulesets or releases, for editors.
    Schema(cli::SchemaArgs),
    /// Bring a control plane to what files say: rulesets, then releases.
    Apply(cli::ApplyArgs),
    /// Show releases: where they are, what they wait for, every number.
    Status(cli::StatusArgs),
    /// Keep the shares of a release as they are.
    Pause(cli::CommandArgs),
    /// Let a release go on after a pause.
    Resume(cli::CommandArgs),
    /// Approve the next step of a release, or the promotion that the judge proposes.
    Approve(cli::CommandArgs),
    /// Promote a release whatever the judge says.
    Promote(cli::CommandArgs),
    /// End a release without a change.
    Abort(cli::CommandArgs),
    /// Return a release to stable.
    Rollback(cli::CommandArgs),
    /// Delete a ruleset, or a release with its records.
    Delete(cli::DeleteArgs),
    /// List what was decided about releases.
    Decisions(cli::DecisionsArgs),
    /// Compute the verdict of a decision record again, and say whether it is the same.
    Replay(cli::ReplayArgs),
    /// Show what was decided for the requests of a trace and why, also after rules have changed.
    Trace(cli::TraceArgs),
    /// Replay an access log through old and new rules: shares per target, units that move, unused rules.
    Simulate(cli::SimulateArgs),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let _logging = match log::init(&cli.log) {
        Ok(logging) => logging,
        Err(error) => {
            eprintln!("halftone: {error}");
            return ExitCode::from(2);
        }
    };
    match run(cli.command) {
        Ok(code) => code,
        Err(error) => {
            cli::complain(&error);
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Serve(args) => {
            let runtime = tokio::runtime::Runtime::new()?;
            let served = runtime.block_on(async {
                let mut terminate = signal(SignalKind::terminate())?;
                let mut interrupt = signal(SignalKind::interrupt())?;
                let shutdown = async move {
                    tokio::select! {
                        _ = terminate.recv() => {}
                        _ = interrupt.recv() => {}
                    }
                };
                serve::serve(args, shutdown).await
            });
            // A change that is being kept finishes; nothing else is worth waiting for.
            runtime.shutdown_timeout(std::time::Duration::from_secs(5));
            served?;
        }
        Command::EnvoyBootstrap(args) => {
            let path = bootstrap::write(&args)?;
            cli::print_text(&format!("{}\n", path.display()))?;
        }
        Command::Lint(args) => return args.run(),
        Command::Compile(args) => args.run()?,
        Command::Disasm(args) => args.run()?,
        Command::Explain(args) => args.run()?,
        Command::Judge(args) => return args.run(),
        Command::Plan(args) => args.run()?,
        Command::Override(args) => args.run()?,
        Command::Schema(args) => args.run()?,
        Command::Apply(args) => args.run()?,
        Command::Status(args) => return args.run(),
        Command::Pause(args) => args.run(release::Command::Pause)?,
        Command::Resume(args) => args.run(release::Command::Resume)?,
        Command::Approve(args) => args.run(release::Command::Approve)?,
        Command::Promote(args) => args.run(release::Command::Promote)?,
        Command::Abort(args) => args.run(release::Command::Abort)?,
        Command::Rollback(args) => args.run(release::Command::Rollback)?,
        Command::Delete(args) => args.run()?,
        Command::Decisions(args) => args.run()?,
        Command::Replay(args) => return args.run(),
        Command::Trace(args) => args.run()?,
        Command::Simulate(args) => return args.run(),
    }
    Ok(ExitCode::SUCCESS)
}
