//! The last check before a bundle leaves: the real filter module, run outside Envoy, has to take it.

use halftone_filter_host::{FilterModule, HostError, Settings};
use halftone_rules::headers::{ROUTE, SCOPE_BOOTSTRAP, TARGET};

/// The filter module that the proxies run.
#[derive(Clone)]
pub struct Gate(FilterModule);

/// What taking a bundle may cost, in units of wasmtime's fuel, about one per instruction. A worker of Envoy
/// answers nobody meanwhile, so there has to be a bound; 20,000 rules with conditions need about a tenth.
const FUEL: u64 = 2_000_000_000;

/// Why the filter would refuse a bundle, or fail on it.
#[derive(Debug, thiserror::Error)]
pub enum GateError {
    /// It needs more time for the bundle than a worker of Envoy may be held up for.
    #[error("the rulesets are together too large: the filter would hold up Envoy while it reads them")]
    TooLarge,
    /// It trapped.
    #[error("the filter failed on the bundle: {0}")]
    Failed(HostError),
    /// It answered no.
    #[error("the filter refused the bundle: {0}")]
    Refused(String),
    /// It took the bundle, but did not answer a request.
    #[error("the filter took the bundle, but did not let the smoke request pass")]
    Stopped,
}

impl Gate {
    /// Compiles the module.
    ///
    /// # Errors
    /// When the bytes are no filter module.
    pub fn new(wasm: &[u8]) -> Result<Self, HostError> {
        FilterModule::new(wasm).map(Self)
    }

    /// Loads the configuration in a fresh instance and sends it a request. Takes milliseconds: not for an
    /// asynchronous thread.
    ///
    /// # Errors
    /// When a proxy would not take it.
    pub fn check(&self, configuration: &[u8]) -> Result<(), GateError> {
        let mut instance = self
            .0
            .start_with(Settings { fuel_per_call: FUEL, ..Settings::default() })
            .map_err(GateError::Failed)?;
        let taken = instance.configure(configuration).map_err(|error| match error {
            HostError::OutOfFuel { .. } | HostError::MemoryLimit { .. } => GateError::TooLarge,
            other => GateError::Failed(other),
        })?;
        if !taken {
            let logs = instance.take_logs();
            let reason = logs.last().map_or("without a reason".into(), |line| line.message.clone());
            return Err(GateError::Refused(reason));
        }
        let request = [
            (":method", "POST"),
            (":scheme", "http"),
            (":authority", "smoke.test"),
            (":path", "/v2/models/smoke/infer"),
            ("x-user-id", "42"),
            (ROUTE, SCOPE_BOOTSTRAP),
            (TARGET, "spoofed"),
        ];
        let outcome = instance.request(&request).map_err(GateError::Failed)?;
        let spoofed = outcome.request_header(TARGET) == Some(b"spoofed");
        let routed = outcome.request_header(ROUTE).is_some();
        if outcome.action != halftone_filter_host::Action::Continue || spoofed || !routed {
            return Err(GateError::Stopped);
        }
        Ok(())
    }
}
