//! Where the built binaries and the downloaded parts are.

use anyhow::{Result, bail};
use std::path::{Path, PathBuf};

/// The repository's root.
#[must_use]
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

/// Everything that a stack runs.
#[derive(Clone, Debug)]
pub struct Paths {
    /// `halftone`
    pub halftone: PathBuf,
    /// `halftone-inference`
    pub inference: PathBuf,
    /// The filter module.
    pub filter: PathBuf,
    /// Envoy.
    pub envoy: PathBuf,
    /// ONNX Runtime's library.
    pub onnxruntime: PathBuf,
    /// The model repository.
    pub models: PathBuf,
}

impl Paths {
    /// Finds all of it.
    ///
    /// # Errors
    /// When something is missing; the message says how to get it.
    pub fn find() -> Result<Self> {
        let root = repository();
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
        let downloaded = |variable: &str, file: &str| {
            std::env::var_os(variable).map_or_else(|| root.join(".halftone").join(file), PathBuf::from)
        };
        let paths = Self {
            halftone: target.join("release/halftone"),
            inference: target.join("release/halftone-inference"),
            filter: target.join("wasm32-wasip1/wasm/halftone_filter.wasm"),
            envoy: downloaded("HALFTONE_ENVOY", "envoy/envoy"),
            onnxruntime: downloaded("ORT_DYLIB_PATH", "onnxruntime/libonnxruntime.so"),
            models: root.join("models"),
        };
        for (path, remedy) in [
            (&paths.halftone, "run scripts/build.sh"),
            (&paths.inference, "run scripts/build.sh"),
            (&paths.filter, "run scripts/build.sh"),
            (&paths.envoy, "run scripts/setup.sh"),
            (&paths.onnxruntime, "run scripts/setup.sh"),
        ] {
            if !path.exists() {
                bail!("{} is missing: {remedy}", path.display());
            }
        }
        Ok(paths)
    }
}
