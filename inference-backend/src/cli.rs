//! The command line.

use crate::{provider::ProviderChoice, repository::Selection};
use clap::{
    Parser,
    builder::{OsStringValueParser, TypedValueParser},
};
use std::{net::SocketAddr, num::NonZeroUsize, path::PathBuf};

/// Serves ONNX models by the Open Inference Protocol (version 2, REST and gRPC on one port).
///
/// A model repository is a folder of NAME/VERSION/model.onnx, with perhaps a NAME/config.json; what changes in it is
/// taken up. Of versions that are numbers the largest is the latest; requests that name no version get the latest that
/// is served.
#[derive(Clone, Debug, Parser)]
#[command(version)]
pub struct Args {
    /// A TOML file of settings: the long names of these flags without `--`, as in `max-body = 1048576`. What stands in it
    /// counts less than the environment, which counts less than the command line.
    #[arg(long, env = "HALFTONE_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Check the settings, load all that would be served, say what that is, and end.
    #[arg(long)]
    pub check_config: bool,

    /// The model repository.
    #[arg(long, env = "HALFTONE_MODELS", value_name = "DIR", default_value = "models")]
    pub models: PathBuf,

    /// A model to serve; may be given several times. Without a version: those that the model's config.json says, or the
    /// latest. Default: all models so.
    #[arg(long, env = "HALFTONE_SERVE", value_name = "NAME[:VERSION]", value_delimiter = ',')]
    pub serve: Vec<Selection>,

    /// How often to look for what has changed in the model repository; 0: never.
    #[arg(long, env = "HALFTONE_POLL_MS", value_name = "MILLISECONDS", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(..=3_600_000))]
    pub poll_ms: u64,

    /// Let clients load and unload models: whoever can send requests can then end a model for all.
    #[arg(long, env = "HALFTONE_MODEL_CONTROL")]
    pub model_control: bool,

    /// Address to listen on; port 0 takes a free one.
    #[arg(long, env = "HALFTONE_LISTEN", value_name = "ADDRESS", default_value = "127.0.0.1:8000")]
    pub listen: SocketAddr,

    /// Address for operators: metrics for Prometheus, CPU profiles, the state of the heap. Not for clients. None when it
    /// is not given.
    #[arg(long, env = "HALFTONE_ADMIN", value_name = "ADDRESS")]
    pub admin: Option<SocketAddr>,

    /// A file that gets the bound address once requests are answered, and in a second line that of --admin.
    #[arg(long, env = "HALFTONE_READY_FILE", value_name = "PATH")]
    pub ready_file: Option<PathBuf>,

    /// ONNX Runtime's library [default: .halftone/onnxruntime/libonnxruntime.so in a folder above this program or
    /// the working directory]
    // Taken when it is empty too: a variable that is set to nothing counts as unset.
    #[arg(long, env = "ORT_DYLIB_PATH", value_name = "PATH", hide_env_values = true, value_parser = OsStringValueParser::new().map(PathBuf::from))]
    pub ort: Option<PathBuf>,

    /// What models run on.
    #[arg(long, env = "HALFTONE_PROVIDER", value_enum, default_value_t)]
    pub provider: ProviderChoice,

    /// Fewest requests that each model runs at once; each takes a session of ONNX Runtime.
    #[arg(long, env = "HALFTONE_MIN_WORKERS", value_name = "N", default_value = "2")]
    pub min_workers: NonZeroUsize,

    /// Most requests that each model runs at once, when many wait [default: number of cores, but 2 to 32]
    #[arg(long, env = "HALFTONE_MAX_WORKERS", value_name = "N")]
    pub max_workers: Option<NonZeroUsize>,

    /// How many more requests may wait for each model; beyond it they are refused with status 429.
    #[arg(long, env = "HALFTONE_QUEUE", value_name = "N", default_value_t = 1024)]
    pub queue: usize,

    /// Most rows that are run together, of requests that wait for a model whose first dimension is its batch; 1 runs
    /// each by itself.
    #[arg(long, env = "HALFTONE_MAX_BATCH", value_name = "ROWS", default_value = "32")]
    pub max_batch: NonZeroUsize,

    /// How long rows that are not as many wait for requests that are still being read.
    #[arg(long, env = "HALFTONE_BATCH_DELAY_US", value_name = "MICROSECONDS", default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=1_000_000))]
    pub batch_delay_us: u64,

    /// Threads that one run of a model may use.
    #[arg(long, env = "HALFTONE_INTRA_THREADS", value_name = "N", default_value = "1")]
    pub intra_threads: NonZeroUsize,

    /// Most connections at once; when there are more, those give way that have nothing to do, or else they wait. Each takes up to 64 KiB for what was sent and not yet read.
    #[arg(long, env = "HALFTONE_MAX_CONNECTIONS", value_name = "N", default_value = "1000")]
    pub max_connections: NonZeroUsize,

    /// Largest request body; a larger one is refused with status 413.
    #[arg(long, env = "HALFTONE_MAX_BODY", value_name = "BYTES", default_value_t = 8 << 20)]
    pub max_body: usize,

    /// Memory for the bodies of all requests that are there at once; what is beyond it is refused with status 429.
    #[arg(long, env = "HALFTONE_MAX_BODIES", value_name = "BYTES", default_value_t = 64 << 20)]
    pub max_bodies: usize,

    /// How long a client may send nothing in the middle of a body.
    #[arg(long, env = "HALFTONE_BODY_TIMEOUT", value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    pub body_timeout: u64,

    /// After a signal to stop: how long to go on serving while not ready, so that proxies notice.
    #[arg(long, env = "HALFTONE_DRAIN", value_name = "SECONDS", default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=3_600))]
    pub drain: u64,

    /// The control plane that gets what is observed of inferences, http://HOST:PORT; without it nothing is gathered.
    #[arg(long, env = "HALFTONE_OBSERVATIONS_TO", value_name = "URL")]
    pub observations_to: Option<String>,

    /// A file with the token that the control plane asks for.
    #[arg(long, env = "HALFTONE_OBSERVATIONS_TOKEN_FILE", value_name = "FILE")]
    pub observations_token_file: Option<PathBuf>,

    /// A folder, of this process alone, that keeps what was observed until it is sent.
    #[arg(long, env = "HALFTONE_OBSERVATIONS_DIR", value_name = "DIR")]
    pub observations_dir: Option<PathBuf>,

    /// How often what was observed is written down and sent. With more than 10000 releases may take a sound candidate back,
    /// because it is not heard of for half a minute.
    #[arg(long, env = "HALFTONE_OBSERVATIONS_INTERVAL_MS", value_name = "MILLISECONDS", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(10..=600_000))]
    pub observations_interval_ms: u64,

    /// How much of it is kept while the control plane is away; beyond it the oldest is merged.
    #[arg(long, env = "HALFTONE_OBSERVATIONS_SPOOL_BYTES", value_name = "BYTES", default_value_t = 64 << 20, value_parser = clap::value_parser!(u64).range(64 << 10..))]
    pub observations_spool_bytes: u64,

    #[command(flatten)]
    #[allow(missing_docs, reason = "documented where it is defined")]
    pub otlp: halftone_telemetry::otlp::OtlpArgs,

    #[command(flatten)]
    #[allow(missing_docs, reason = "documented where it is defined")]
    pub sampling: halftone_telemetry::sampling::SamplingArgs,

    #[command(flatten)]
    #[allow(missing_docs, reason = "documented where it is defined")]
    pub log: halftone_telemetry::log::LogArgs,
}
