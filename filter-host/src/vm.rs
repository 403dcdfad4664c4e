//! One call into the module: fuel before, bookkeeping after, and every failure named.

use crate::error::HostError;
use crate::imports::ProcExit;
use crate::memory::Limiter;
use crate::state::HostState;
use wasmtime::{Store, Trap, TypedFunc, WasmParams, WasmResults};

/// A store that is never used again after a failure, like Envoy's virtual machine after a trap: the module's own
/// state may be half changed.
pub(crate) struct Vm {
    pub(crate) store: Store<HostState>,
    failed: bool,
}

impl Vm {
    pub(crate) fn new(store: Store<HostState>) -> Self {
        Self { store, failed: false }
    }

    pub(crate) fn state(&mut self) -> &mut HostState {
        self.store.data_mut()
    }

    /// Calls a callback under a full fuel budget.
    pub(crate) fn call<P, R>(
        &mut self,
        callback: &'static str,
        function: &TypedFunc<P, R>,
        params: P,
    ) -> Result<R, HostError>
    where
        P: WasmParams,
        R: WasmResults,
    {
        self.run(callback, |store| function.call(store, params))
    }

    /// Runs module code under a full fuel budget.
    pub(crate) fn run<R>(
        &mut self,
        callback: &'static str,
        code: impl FnOnce(&mut Store<HostState>) -> wasmtime::Result<R>,
    ) -> Result<R, HostError> {
        if self.failed {
            return Err(HostError::Failed);
        }
        let budget = self.store.data().settings.fuel_per_call;
        self.store.set_fuel(budget).map_err(engine)?;
        let limit = self.store.data().settings.memory_limit;
        self.state().limiter = Limiter::new(limit);

        let result = code(&mut self.store);

        let rest = self.store.get_fuel().map_err(engine)?;
        let state = self.state();
        state.effective_context = None;
        state.usage.fuel += budget.saturating_sub(rest);
        state.usage.callbacks += 1;
        result.map_err(|error| {
            self.failed = true;
            self.name(callback, budget, &error)
        })
    }

    fn name(&self, callback: &'static str, budget: u64, error: &wasmtime::Error) -> HostError {
        let state = self.store.data();
        let last_log = state.logs.last();
        if let Some(Trap::OutOfFuel) = error.downcast_ref() {
            return HostError::OutOfFuel { callback, budget, last_log };
        }
        if let Some(requested) = state.limiter.refused {
            let limit = state.settings.memory_limit;
            return HostError::MemoryLimit { callback, requested, limit, last_log };
        }
        let reason = if let Some(trap) = error.downcast_ref::<Trap>() {
            trap.to_string()
        } else if let Some(exit) = error.downcast_ref::<ProcExit>() {
            exit.to_string()
        } else {
            error.root_cause().to_string()
        };
        HostError::Trap { callback, reason, last_log }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it is what `map_err` hands over")]
pub(crate) fn engine(error: wasmtime::Error) -> HostError {
    HostError::Engine(error.root_cause().to_string())
}
