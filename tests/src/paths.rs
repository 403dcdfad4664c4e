//! Where the built binaries and the downloaded parts are.

use anyhow::{Context, Result, bail};
use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

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
    /// The build of the filter module for hosts that are no full proxy.
    pub portable_filter: PathBuf,
    /// The test build of the filter module that traps when a request asks for it.
    pub trapping_filter: PathBuf,
    /// The module that the control plane tells proxies to run, when it is another one.
    pub filter_on_proxy: Option<PathBuf>,
    /// More flags for `halftone serve`.
    pub serve_flags: Vec<OsString>,
    /// More flags for `halftone-inference`; `{version}` stands for the version that it serves, and `{xds}` for the address
    /// of the stack's xDS server.
    pub inference_flags: Vec<String>,
    /// The program, with arguments, that becomes `halftone serve`; empty: it is started directly.
    pub serve_launcher: Vec<OsString>,
    /// The same for Envoy.
    pub envoy_launcher: Vec<OsString>,
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
        let programs = programs()?;
        // Both profiles share a target folder, wherever that is.
        let modules = programs.with_file_name("wasm32-wasip1").join("wasm");
        Ok(Self {
            halftone: present(programs.join("halftone"), BUILD)?,
            inference: present(programs.join("halftone-inference"), BUILD)?,
            filter: present(modules.join("halftone_filter.wasm"), BUILD)?,
            portable_filter: present(modules.join("halftone_filter_portable.wasm"), BUILD)?,
            trapping_filter: present(modules.join("halftone_filter_trap.wasm"), BUILD)?,
            filter_on_proxy: None,
            serve_flags: Vec::new(),
            inference_flags: Vec::new(),
            serve_launcher: Vec::new(),
            envoy_launcher: Vec::new(),
            envoy: fetched("HALFTONE_ENVOY", "envoy/envoy")?,
            onnxruntime: fetched("ORT_DYLIB_PATH", "onnxruntime/libonnxruntime.so")?,
            models: repository().join("models"),
        })
    }
}

/// What to do when something that is built is missing.
const BUILD: &str = "run scripts/build.sh";

/// Where cargo put the programs: beside this one, or above it when this one is a test. Asking for the running
/// program's place rather than for `CARGO_TARGET_DIR` follows every way to move cargo's target folder.
fn programs() -> Result<PathBuf> {
    let this = std::env::current_exe().context("where this program is")?;
    let folder = this.parent().context("this program is in no folder")?;
    let above_test = folder.parent().filter(|_| folder.ends_with("deps"));
    Ok(above_test.unwrap_or(folder).to_owned())
}

/// The file that `variable` names, or else the one that `scripts/setup.sh` fetched. As there, a variable that is
/// set to nothing counts as unset.
pub(crate) fn fetched(variable: &str, file: &str) -> Result<PathBuf> {
    match std::env::var_os(variable).filter(|value| !value.is_empty()) {
        Some(own) => present(own.into(), &format!("{variable} names it")),
        None => present(repository().join(".halftone").join(file), "run scripts/setup.sh"),
    }
}

fn present(path: PathBuf, remedy: &str) -> Result<PathBuf> {
    if !path.is_file() {
        bail!("{} is missing: {remedy}", path.display());
    }
    Ok(path)
}
