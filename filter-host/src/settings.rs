//! What a caller can set about the world that the module sees.

use crate::logs::LogLevel;
use std::collections::{BTreeMap, BTreeSet};

/// The world as the module sees it, and the limits it runs under.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The wall clock, in nanoseconds since 1970. It stands still.
    pub now_ns: u64,
    /// Where the randomness starts: the same seed and the same calls give the same values. Read once, at start;
    /// [`FilterInstance::set_seed`](crate::FilterInstance::set_seed) starts it anew.
    pub seed: u64,
    /// The wasmtime fuel that each call into the module may use.
    pub fuel_per_call: u64,
    /// How large the module's linear memory may grow, in bytes.
    pub memory_limit: usize,
    /// The answer to `proxy_get_log_level`. Lines below it are kept all the same.
    pub log_level: LogLevel,
    /// What `proxy_on_vm_start` can read.
    pub vm_configuration: Vec<u8>,
    /// Host functions by name (`proxy_define_metric`) that answer `Unimplemented`, as on a host that lacks them.
    pub unimplemented: BTreeSet<String>,
    /// What `proxy_get_property` answers, by path; the segments of a path are joined by NUL.
    pub properties: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Settings {
    /// Sets a property by the segments of its path, such as `["source", "address"]`.
    pub fn set_property(&mut self, path: &[&str], value: &[u8]) {
        self.properties.insert(path.join("\0").into_bytes(), value.to_vec());
    }

    pub(crate) fn property(&self, path: &[u8]) -> Option<&[u8]> {
        self.properties.get(path).map(Vec::as_slice)
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            now_ns: 1_700_000_000_000_000_000,
            seed: 0,
            fuel_per_call: 50_000_000,
            memory_limit: 64 << 20,
            log_level: LogLevel::Info,
            vm_configuration: Vec::new(),
            unimplemented: BTreeSet::new(),
            properties: BTreeMap::new(),
        }
    }
}
