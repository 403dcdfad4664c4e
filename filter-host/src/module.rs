//! A filter module, compiled once and started often.

use crate::callbacks::{self, Callbacks};
use crate::error::HostError;
use crate::imports::Registry;
use crate::instance::FilterInstance;
use crate::settings::Settings;
use crate::state::HostState;
use crate::vm::{Vm, engine};
use std::fmt;
use std::sync::Arc;
use wasmtime::{Config, Engine, InstancePre, Module, Store};

/// A compiled filter module. Clones are cheap and share the code; threads may start instances at the same time.
#[derive(Clone)]
pub struct FilterModule {
    inner: Arc<Inner>,
}

struct Inner {
    engine: Engine,
    linked: InstancePre<HostState>,
    imports: Vec<(String, String)>,
}

impl FilterModule {
    /// Compiles a module and checks that this host has all it imports and that it exports all a filter must.
    pub fn new(wasm: &[u8]) -> Result<Self, HostError> {
        let mut config = Config::new();
        config.consume_fuel(true);
        // Frames of a stripped module say nothing, and the reason of a trap must stay one line.
        config.wasm_backtrace_max_frames(None);
        let engine = Engine::new(&config).map_err(engine)?;
        let module = Module::from_binary(&engine, wasm).map_err(|error| {
            // The lines after the first one show the bytes of a file that may be anything.
            let cause = error.root_cause().to_string();
            HostError::Compile(cause.lines().next().unwrap_or_default().to_owned())
        })?;
        callbacks::check(&module)?;

        let registry = Registry::of_all_functions(&engine).map_err(crate::vm::engine)?;
        let imports: Vec<_> =
            module.imports().map(|import| (import.module().to_owned(), import.name().to_owned())).collect();
        if let Some((module, name)) = imports.iter().find(|(module, name)| !registry.has(module, name)) {
            return Err(HostError::UnknownImport { module: module.clone(), name: name.clone() });
        }
        let linked = registry
            .linker
            .instantiate_pre(&module)
            .map_err(|error| HostError::WrongImport(format!("{error:#}")))?;
        Ok(Self { inner: Arc::new(Inner { engine, linked, imports }) })
    }

    /// What the module imports: (module, name) in the module's order. All of it is known to this host; whether a given
    /// proxy has it too is for an allow-list to say.
    pub fn imports(&self) -> &[(String, String)] {
        &self.inner.imports
    }

    /// Starts an instance with the default [`Settings`].
    pub fn start(&self) -> Result<FilterInstance, HostError> {
        self.start_with(Settings::default())
    }

    /// Starts an instance: initialises it, creates the root context and runs `proxy_on_vm_start`.
    pub fn start_with(&self, settings: Settings) -> Result<FilterInstance, HostError> {
        let mut store = Store::new(&self.inner.engine, HostState::new(settings));
        store.limiter(|state| &mut state.limiter);
        let mut vm = Vm::new(store);
        let instance = vm.run("its instantiation", |store| self.inner.linked.instantiate(store))?;
        let callbacks = Callbacks::of(&instance, &mut vm.store)?;
        let guest = &mut vm.state().guest;
        guest.memory = Some(callbacks.memory);
        guest.allocate = Some(callbacks.allocate.clone());
        FilterInstance::start(vm, callbacks)
    }

    /// The gate: would the filter accept this configuration? A fresh instance with the default [`Settings`] decides, so
    /// nothing is left over. [`HostError::Refused`] is the filter's own answer; every other error means that it could
    /// not give one, which is no reason to publish.
    pub fn check(&self, configuration: &[u8]) -> Result<(), HostError> {
        let mut instance = self.start()?;
        if instance.configure(configuration)? {
            return Ok(());
        }
        let last_log = instance.take_logs().pop().map(|line| line.message);
        Err(HostError::Refused { last_log })
    }
}

impl fmt::Debug for FilterModule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FilterModule").field("imports", &self.inner.imports.len()).finish_non_exhaustive()
    }
}
