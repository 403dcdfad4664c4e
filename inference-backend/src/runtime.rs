//! Finds and loads ONNX Runtime.

use anyhow::Context;
use ort::{
    LoadDynamicError,
    environment::{Environment, GlobalThreadPoolOptions},
    logging::LogLevel,
};
use std::{
    env,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Where `scripts/setup.sh` puts the library, below the repository.
const FETCHED: &str = ".halftone/onnxruntime/libonnxruntime.so";

/// ONNX Runtime's library: the given one, or the one fetched by `scripts/setup.sh` into a folder above this program
/// or the working directory.
///
/// # Errors
/// When it is not there.
pub fn find(given: Option<&Path>) -> anyhow::Result<PathBuf> {
    if let Some(path) = given {
        // Asked before loading: ort resolves a relative path against the program's folder first.
        return path.canonicalize().with_context(|| format!("ONNX Runtime is not at {}", path.display()));
    }
    let starts = [env::current_exe().ok(), env::current_dir().ok()];
    starts
        .iter()
        .flatten()
        .flat_map(|start| start.ancestors())
        .map(|folder| folder.join(FETCHED))
        .find(|library| library.is_file())
        .with_context(|| {
            format!(
                "no ONNX Runtime: neither above this program nor above the working directory is {FETCHED}; \
                 run scripts/setup.sh, or give the path by --ort or ORT_DYLIB_PATH"
            )
        })
}

/// Loads the library. A process can do this once; later calls fail.
///
/// All models share its threads: `intra_threads` per run, the calling one included.
///
/// # Errors
/// When the file is not a library of ONNX Runtime, or too old.
pub fn load(library: &Path, intra_threads: NonZeroUsize) -> anyhow::Result<Environment> {
    let context = || format!("cannot load ONNX Runtime from {}", library.display());
    let builder = ort::init_from(library).map_err(reason).with_context(context)?;
    let start = || -> ort::Result<Environment> {
        let threads = GlobalThreadPoolOptions::default()
            .with_intra_threads(intra_threads.get())?
            .with_inter_threads(1)?
            // Threads that spin while they wait take the cores from those that work.
            .with_spin_control(false)?;
        let environment = builder
            .with_name("halftone")
            .with_telemetry(false)
            .with_global_thread_pool(threads)
            .with_logger(Arc::new(log))
            .build()?;
        environment.set_log_level(LogLevel::Warning);
        Ok(environment)
    };
    start().with_context(context)
}

/// The error without ort's own mention of the path, and with the dynamic linker's words, which ort leaves out.
fn reason(error: LoadDynamicError) -> anyhow::Error {
    match error {
        LoadDynamicError::Dlopen { error, .. } => error.into(),
        other => other.into(),
    }
}

fn log(level: LogLevel, _category: &str, _id: &str, location: &str, message: &str) {
    match level {
        LogLevel::Verbose | LogLevel::Info => tracing::debug!(target: "onnxruntime", location, "{message}"),
        LogLevel::Warning => tracing::warn!(target: "onnxruntime", location, "{message}"),
        LogLevel::Error | LogLevel::Fatal => tracing::error!(target: "onnxruntime", location, "{message}"),
    }
}
