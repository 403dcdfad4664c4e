//! One set-up of logging for both binaries.

use clap::{Args, ValueEnum};
use tracing_subscriber::EnvFilter;

/// Form of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Human-readable.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// The logging flags that both binaries share.
#[derive(Args, Clone, Debug)]
pub struct LogArgs {
    /// What to log: a level, or `target=level` directives separated by commas.
    #[arg(long, env = "HALFTONE_LOG", default_value = "info", global = true)]
    pub log: String,
    /// Form of a log line.
    #[arg(long, env = "HALFTONE_LOG_FORMAT", value_enum, default_value_t, global = true)]
    pub log_format: LogFormat,
}

/// Starts logging to standard error. To be called once, at the start of `main`.
///
/// # Errors
/// When the directives of `--log` do not parse, or logging was started before.
pub fn init(args: &LogArgs) -> Result<(), String> {
    let filter = EnvFilter::try_new(&args.log).map_err(|e| format!("--log {:?}: {e}", args.log))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match args.log_format {
        LogFormat::Text => builder.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    }
    .map_err(|e| e.to_string())
}
