//! What can go wrong when a module is loaded or run.

use std::fmt;

/// Why the module could not be loaded, or why it failed while it ran.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HostError {
    /// Not a WebAssembly module, or one that uses features this host does not have.
    #[error("the filter module does not compile: {0}")]
    Compile(String),
    /// The module imports something that no proxy-wasm host offers.
    #[error("the filter module imports `{module}.{name}`, which this host does not have")]
    UnknownImport {
        /// The import's module.
        module: String,
        /// The import's name in that module.
        name: String,
    },
    /// The module imports a known function under another signature.
    #[error("the filter module imports a host function with another signature: {0}")]
    WrongImport(String),
    /// The module lacks something that every proxy-wasm HTTP filter exports.
    #[error("the filter module does not export `{0}`")]
    MissingExport(&'static str),
    /// The module exports a callback under another signature.
    #[error("the filter module exports `{name}` with another signature than `{expected}`")]
    WrongExport {
        /// The export's name.
        name: &'static str,
        /// What proxy-wasm 0.2.1 prescribes.
        expected: String,
    },
    /// The module trapped (a Rust panic ends in a trap too).
    #[error("the filter module trapped in {callback}: {reason}{}", LastLog(last_log.as_deref()))]
    Trap {
        /// The callback that did not return.
        callback: &'static str,
        /// What the trap was.
        reason: String,
        /// The module's last log line, where a panic hook leaves its message.
        last_log: Option<String>,
    },
    /// A callback used up its fuel: it loops, or the budget is too small.
    #[error(
        "the filter module used more than {budget} units of fuel in {callback}{}",
        LastLog(last_log.as_deref())
    )]
    OutOfFuel {
        /// The callback that did not return.
        callback: &'static str,
        /// [`Settings::fuel_per_call`](crate::Settings::fuel_per_call).
        budget: u64,
        /// The module's last log line.
        last_log: Option<String>,
    },
    /// The module asked for more memory than it may have, and did not survive the refusal.
    #[error(
        "the filter module asked for {requested} bytes of memory in {callback}; it may have {limit}{}",
        LastLog(last_log.as_deref())
    )]
    MemoryLimit {
        /// The callback in which it happened.
        callback: &'static str,
        /// The size that was refused.
        requested: usize,
        /// [`Settings::memory_limit`](crate::Settings::memory_limit).
        limit: usize,
        /// The module's last log line.
        last_log: Option<String>,
    },
    /// `proxy_on_vm_start` returned false.
    #[error("the filter module refused to start{}", LastLog(last_log.as_deref()))]
    StartRefused {
        /// The module's last log line.
        last_log: Option<String>,
    },
    /// `proxy_on_configure` returned false (only [`FilterModule::check`](crate::FilterModule::check) makes an error
    /// of that).
    #[error("the filter refused the configuration{}", LastLog(last_log.as_deref()))]
    Refused {
        /// The module's last log line.
        last_log: Option<String>,
    },
    /// A request was made before a configuration was accepted.
    #[error("the filter has no configuration yet: call `configure` first")]
    NotConfigured,
    /// The instance trapped before; like Envoy's, this virtual machine stays down.
    #[error("this filter instance failed before and cannot be used again: start a new one")]
    Failed,
    /// The WebAssembly engine itself failed.
    #[error("the WebAssembly engine failed: {0}")]
    Engine(String),
}

/// Appends the last log line to a message if there is one. A panic logs its place and its message in two lines; an error
/// is one.
struct LastLog<'a>(Option<&'a str>);

impl fmt::Display for LastLog<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(line) => write!(f, "; its last log line: {}", line.replace('\n', " ")),
            None => Ok(()),
        }
    }
}
