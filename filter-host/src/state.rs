//! Everything that the host keeps for one instance.

use crate::headers::HeaderMap;
use crate::logs::Logs;
use crate::memory::{Guest, Limiter};
use crate::metrics::Metrics;
use crate::outcome::{LocalResponse, Usage};
use crate::random::Random;
use crate::settings::Settings;
use crate::shared_data::SharedData;

/// Which callback of a stream is running; it decides which header maps are there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Phase {
    /// None, or one without header maps.
    #[default]
    None,
    Request,
    Response,
    /// Both maps can be read and neither written.
    Log,
}

/// The stream that is being run.
#[derive(Default)]
pub(crate) struct Stream {
    pub(crate) id: u32,
    pub(crate) phase: Phase,
    pub(crate) request: HeaderMap,
    pub(crate) response: Option<HeaderMap>,
    pub(crate) properties: Vec<(Vec<u8>, Vec<u8>)>,
    pub(crate) local_response: Option<LocalResponse>,
}

/// The host's side of an instance; host functions reach it through their `Caller`.
pub(crate) struct HostState {
    pub(crate) settings: Settings,
    pub(crate) limiter: Limiter,
    pub(crate) guest: Guest,
    pub(crate) random: Random,
    pub(crate) logs: Logs,
    pub(crate) usage: Usage,
    pub(crate) metrics: Metrics,
    pub(crate) shared_data: SharedData,
    pub(crate) configuration: Vec<u8>,
    /// Root contexts that exist.
    pub(crate) roots: Vec<u32>,
    pub(crate) stream: Option<Stream>,
    /// The context that the module asked to act for, until the callback returns.
    pub(crate) effective_context: Option<u32>,
    pub(crate) tick_period_ms: u32,
}

impl HostState {
    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            limiter: Limiter::new(settings.memory_limit),
            random: Random::new(settings.seed),
            settings,
            guest: Guest::default(),
            logs: Logs::default(),
            usage: Usage::default(),
            metrics: Metrics::default(),
            shared_data: SharedData::default(),
            configuration: Vec::new(),
            roots: Vec::new(),
            stream: None,
            effective_context: None,
            tick_period_ms: 0,
        }
    }

    /// The stream, unless the module acts for another context.
    pub(crate) fn active_stream(&mut self) -> Option<&mut Stream> {
        let effective = self.effective_context;
        self.stream.as_mut().filter(|stream| effective.is_none_or(|id| id == stream.id))
    }

    /// Opens and shuts the header maps.
    pub(crate) fn set_phase(&mut self, phase: Phase) {
        if let Some(stream) = self.stream.as_mut() {
            stream.phase = phase;
        }
    }

    pub(crate) fn has_context(&self, id: u32) -> bool {
        self.roots.contains(&id) || self.stream.as_ref().is_some_and(|stream| stream.id == id)
    }
}
