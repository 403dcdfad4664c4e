//! The way to the control plane.

use anyhow::{Context, bail};
use halftone_proto::v1::{ObservationBatch, ObservationSource, observations_client::ObservationsClient};
use halftone_telemetry::throttle::Throttle;
use std::{error::Error, fs, path::Path, time::Duration};
use tonic::{
    Request, Status,
    metadata::AsciiMetadataValue,
    transport::{Channel, Endpoint, Uri},
};

/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(3);
/// How long a call may take: the control plane writes to a disk before it answers.
const ANSWER: Duration = Duration::from_secs(5);

/// The first wait after a failure; it doubles with each further one.
const FIRST_WAIT: Duration = Duration::from_millis(100);
/// The longest.
const LONGEST_WAIT: Duration = Duration::from_secs(15);

/// Where observations are sent.
///
/// # Errors
/// When the address is none.
pub fn endpoint(url: &str) -> anyhow::Result<Endpoint> {
    let place = || format!("--observations-to {url:?}");
    let uri: Uri = url.parse().with_context(place)?;
    if uri.scheme_str() != Some("http") || uri.authority().is_none() {
        bail!("{}: http://HOST:PORT is expected", place());
    }
    Ok(Endpoint::from(uri).connect_timeout(CONNECT).timeout(ANSWER).tcp_nodelay(true))
}

/// The token in this file, as the metadata that the control plane asks for.
///
/// # Errors
/// When the file cannot be read, or holds what no metadata can.
pub fn token(file: &Path) -> anyhow::Result<AsciiMetadataValue> {
    let place = || format!("--observations-token-file {}", file.display());
    let text = fs::read_to_string(file).with_context(place)?;
    let value = AsciiMetadataValue::try_from(format!("Bearer {}", text.trim()));
    let Some(mut value) = value.ok().filter(|_| !text.trim().is_empty()) else {
        bail!("{}: one line of visible characters is expected", place());
    };
    // Never in a log.
    value.set_sensitive(true);
    Ok(value)
}

/// The way to the control plane.
#[derive(Debug)]
pub struct Uplink {
    client: ObservationsClient<Channel>,
    /// Where it leads.
    to: Uri,
    token: Option<AsciiMetadataValue>,
    /// The source of which it is known what the control plane has.
    resumed: Option<Vec<u8>>,
    failures: u32,
    warning: Throttle,
}

impl Uplink {
    /// One that connects when it is needed. To be called in a runtime of tokio.
    #[must_use]
    pub fn new(endpoint: &Endpoint, token: Option<AsciiMetadataValue>) -> Self {
        let client = ObservationsClient::new(endpoint.connect_lazy());
        let to = endpoint.uri().clone();
        Self { client, to, token, resumed: None, failures: 0, warning: Throttle::default() }
    }

    /// Sends a batch; gives the last sequence of its source that is kept. Asks first what is kept already, when that is not
    /// certain: at the start, for another source, and after a failure, which may have been that of the answer.
    ///
    /// # Errors
    /// When it is not certain that the batch is kept.
    pub async fn send(&mut self, batch: ObservationBatch) -> Result<u64, Status> {
        let known = self.resumed.take_if(|source| *source == batch.source).is_some();
        let (source, sequence) = (batch.source.clone(), batch.sequence);
        if !known {
            let asked = ObservationSource { source: source.clone() };
            let kept = self.client.resume(self.with_token(asked)).await?.into_inner().sequence;
            if kept >= sequence {
                self.resumed = Some(source);
                return Ok(kept);
            }
        }
        let kept = self.client.report(self.with_token(batch)).await?.into_inner().sequence;
        if kept < sequence {
            return Err(Status::internal(format!("it took batch {sequence} and says that it has {kept}")));
        }
        self.resumed = Some(source);
        Ok(sequence)
    }

    fn with_token<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(token) = &self.token {
            request.metadata_mut().insert("authorization", token.clone());
        }
        request
    }

    /// It went well.
    pub fn succeeded(&mut self) {
        if self.failures > 0 {
            tracing::info!(failures = self.failures, "observations are sent again");
        }
        self.failures = 0;
    }

    /// It failed; gives how long to wait before it is tried again.
    pub fn failed(&mut self, status: &Status, waiting: usize) -> Duration {
        let (to, code, reason) = (&self.to, status.code(), reason(status));
        if self.warning.is_due() {
            tracing::warn!(%to, %code, reason, batches = waiting, "cannot send observations; they are kept");
        } else {
            tracing::debug!(%to, %code, reason, batches = waiting, "cannot send observations");
        }
        let wait = FIRST_WAIT.saturating_mul(1 << self.failures.min(16)).min(LONGEST_WAIT);
        self.failures = self.failures.saturating_add(1);
        // Between half of it and all of it, so that a fleet does not come at once.
        let random = getrandom::u32().unwrap_or_default();
        wait.mul_f64(0.5 + 0.5 * f64::from(random) / f64::from(u32::MAX))
    }
}

/// What a call failed for: what the other side says or, where it was not reached, why.
fn reason(status: &Status) -> String {
    let mut text = status.message().to_owned();
    let mut cause = status.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.ends_with(&said) {
            text = format!("{text}: {said}");
        }
        cause = error.source();
    }
    text
}
