//! A running filter: contexts are created, configured, asked and deleted as Envoy does it.

use crate::callbacks::Callbacks;
use crate::error::HostError;
use crate::headers::HeaderMap;
use crate::logs::LogLine;
use crate::outcome::{Action, Outcome, Usage};
use crate::random::Random;
use crate::settings::Settings;
use crate::state::{Phase, Stream};
use crate::vm::Vm;
use std::fmt;

/// One virtual machine with the filter in it. After a trap every call answers [`HostError::Failed`].
pub struct FilterInstance {
    vm: Vm,
    callbacks: Callbacks,
    next_context: u32,
    /// A root context that was started and not configured yet.
    fresh_root: Option<u32>,
    /// The root context whose configuration was accepted last.
    root: Option<u32>,
}

impl FilterInstance {
    pub(crate) fn start(vm: Vm, callbacks: Callbacks) -> Result<Self, HostError> {
        let mut instance = Self { vm, callbacks, next_context: 1, fresh_root: None, root: None };
        let (vm, callbacks) = (&mut instance.vm, &instance.callbacks);
        if let Some(initialize) = &callbacks.initialize {
            vm.call("_initialize", initialize, ())?;
            // Envoy calls `main` of a reactor too.
            if let Some(main) = &callbacks.main {
                vm.call("main", main, (0, 0))?;
            }
        } else if let Some(start) = &callbacks.start {
            vm.call("_start", start, ())?;
        }
        instance.fresh_root = Some(instance.start_root()?);
        Ok(instance)
    }

    /// Gives the filter a configuration and tells whether it accepted it; if not, [`take_logs`](Self::take_logs) may
    /// say why, and the configuration before stays in force.
    ///
    /// As in Envoy, a second configuration gets a root context of its own beside the first in the same virtual
    /// machine, and the first is deleted after the second was accepted.
    pub fn configure(&mut self, configuration: &[u8]) -> Result<bool, HostError> {
        self.vm.state().usage = Usage::default();
        let before = std::mem::replace(&mut self.vm.state().configuration, configuration.to_vec());
        let result = self.configure_root(length(configuration.len()));
        if !matches!(result, Ok(true)) {
            self.vm.state().configuration = before;
        }
        result
    }

    /// Runs a stream that ends before a response arrives.
    pub fn request<N, V>(&mut self, headers: &[(N, V)]) -> Result<Outcome, HostError>
    where
        N: AsRef<[u8]>,
        V: AsRef<[u8]>,
    {
        self.stream(HeaderMap::from_pairs(headers), None)
    }

    /// Runs a stream with a response. If the module holds the request or answers it itself, the response's headers
    /// are not shown to it.
    pub fn request_with_response<N, V, M, W>(
        &mut self,
        headers: &[(N, V)],
        response_headers: &[(M, W)],
    ) -> Result<Outcome, HostError>
    where
        N: AsRef<[u8]>,
        V: AsRef<[u8]>,
        M: AsRef<[u8]>,
        W: AsRef<[u8]>,
    {
        self.stream(HeaderMap::from_pairs(headers), Some(HeaderMap::from_pairs(response_headers)))
    }

    /// Wakes the configuration in force, as the host does when the period is over that the module asked for.
    pub fn tick(&mut self) -> Result<(), HostError> {
        let root = self.root.ok_or(HostError::NotConfigured)?;
        self.vm.state().usage = Usage::default();
        match &self.callbacks.tick {
            Some(tick) => self.vm.call("proxy_on_tick", tick, root),
            None => Ok(()),
        }
    }

    /// What the module logged since the last time, on standard output and error too.
    pub fn take_logs(&mut self) -> Vec<LogLine> {
        self.vm.state().logs.take()
    }

    /// What the last operation (start, configuration, request) cost.
    pub fn usage(&self) -> &Usage {
        &self.vm.store.data().usage
    }

    /// The value of a metric that the module defined; of a histogram, how many values it recorded.
    pub fn metric(&self, name: &str) -> Option<u64> {
        self.vm.store.data().metrics.by_name(name.as_bytes())
    }

    /// The period that the module asked to be woken in, in milliseconds; 0 for never.
    pub fn tick_period_ms(&self) -> u32 {
        self.vm.store.data().tick_period_ms
    }

    /// What the module sees, from the next call on.
    pub fn settings_mut(&mut self) -> &mut Settings {
        &mut self.vm.state().settings
    }

    /// Starts the randomness anew.
    pub fn set_seed(&mut self, seed: u64) {
        let state = self.vm.state();
        state.settings.seed = seed;
        state.random = Random::new(seed);
    }

    fn stream(&mut self, request: HeaderMap, response: Option<HeaderMap>) -> Result<Outcome, HostError> {
        let root = self.root.ok_or(HostError::NotConfigured)?;
        let id = self.next_id();
        let state = self.vm.state();
        state.usage = Usage::default();
        state.stream = Some(Stream { id, request, ..Stream::default() });
        let result = self.callbacks_of_stream(root, id, response);
        let stream = self.vm.state().stream.take().unwrap_or_default();
        let (action, response_action) = result?;
        Ok(Outcome {
            request_headers: stream.request.into_pairs(),
            response_headers: stream.response.map(HeaderMap::into_pairs),
            action,
            response_action,
            local_response: stream.local_response,
            properties: stream.properties,
            usage: std::mem::take(&mut self.vm.state().usage),
        })
    }

    fn callbacks_of_stream(
        &mut self,
        root: u32,
        id: u32,
        response: Option<HeaderMap>,
    ) -> Result<(Action, Action), HostError> {
        let (vm, callbacks) = (&mut self.vm, &self.callbacks);
        vm.call("proxy_on_context_create", &callbacks.context_create, (id, root))?;

        vm.state().set_phase(Phase::Request);
        let count = vm.state().stream.as_ref().map_or(0, |stream| length(stream.request.len()));
        let answer = vm.call("proxy_on_request_headers", &callbacks.request_headers, (id, count, 1))?;
        let action = Action::from_abi(answer);
        let answered = vm.state().stream.as_ref().is_some_and(|stream| stream.local_response.is_some());

        let mut response_action = Action::Continue;
        if let Some(response) = response
            && action == Action::Continue
            && !answered
        {
            let count = length(response.len());
            vm.state().set_phase(Phase::Response);
            if let Some(stream) = vm.state().stream.as_mut() {
                stream.response = Some(response);
            }
            if let Some(response_headers) = &callbacks.response_headers {
                let answer = vm.call("proxy_on_response_headers", response_headers, (id, count, 1))?;
                response_action = Action::from_abi(answer);
            }
        }

        // Envoy logs a stream before it destroys the filters.
        if let Some(log) = &callbacks.log {
            vm.state().set_phase(Phase::Log);
            vm.call("proxy_on_log", log, id)?;
        }
        vm.state().set_phase(Phase::None);
        self.delete(id)?;
        Ok((action, response_action))
    }

    /// Creates and starts a root context.
    fn start_root(&mut self) -> Result<u32, HostError> {
        let root = self.next_id();
        self.vm.state().roots.push(root);
        self.vm.call("proxy_on_context_create", &self.callbacks.context_create, (root, 0))?;
        if let Some(vm_start) = &self.callbacks.vm_start {
            let size = length(self.vm.state().settings.vm_configuration.len());
            if self.vm.call("proxy_on_vm_start", vm_start, (root, size))? == 0 {
                return Err(HostError::StartRefused { last_log: self.vm.state().logs.last() });
            }
        }
        Ok(root)
    }

    fn configure_root(&mut self, size: u32) -> Result<bool, HostError> {
        let root = match self.fresh_root.take() {
            Some(root) => root,
            None => self.start_root()?,
        };
        let accepted = self.vm.call("proxy_on_configure", &self.callbacks.configure, (root, size))? != 0;
        let obsolete = if accepted { self.root.replace(root) } else { Some(root) };
        if let Some(obsolete) = obsolete {
            self.delete_root(obsolete)?;
        }
        Ok(accepted)
    }

    fn delete_root(&mut self, root: u32) -> Result<(), HostError> {
        self.delete(root)?;
        self.vm.state().roots.retain(|known| *known != root);
        Ok(())
    }

    /// A module may answer `proxy_on_done` with "not yet" and wait for a callout. There are none here, so nothing is
    /// gained by waiting.
    fn delete(&mut self, id: u32) -> Result<(), HostError> {
        if let Some(done) = &self.callbacks.done {
            self.vm.call("proxy_on_done", done, id)?;
        }
        if let Some(delete) = &self.callbacks.delete {
            self.vm.call("proxy_on_delete", delete, id)?;
        }
        Ok(())
    }

    fn next_id(&mut self) -> u32 {
        let id = self.next_context;
        // Zero means "no root context". A live root could only be met again after four billion streams.
        self.next_context = self.next_context.checked_add(1).unwrap_or(1);
        id
    }
}

impl fmt::Debug for FilterInstance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FilterInstance").field("root", &self.root).finish_non_exhaustive()
    }
}

/// Lengths that the module hears of fit its 32-bit memory.
fn length(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}
