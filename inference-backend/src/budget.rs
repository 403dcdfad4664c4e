//! How much memory the bodies of requests may take, all together.

use crate::{
    failure::Failure,
    rejections::{Reason, Rejections},
};
use axum::{
    body::{Body, Bytes, HttpBody},
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use http_body::{Frame, SizeHint};
use std::{
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::time::{Sleep, sleep};
use tonic::Status;

/// How much memory the bodies of requests may take, all together.
#[derive(Debug)]
pub struct Budget {
    limit: usize,
    used: AtomicUsize,
}

impl Budget {
    /// So many bytes.
    #[must_use]
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, used: AtomicUsize::new(0) })
    }

    /// How many bytes there are.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// How many of them are taken.
    #[must_use]
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// A part of it, empty at first.
    #[must_use]
    pub fn reserve(self: &Arc<Self>) -> Reservation {
        Reservation { budget: Arc::clone(self), bytes: 0 }
    }

    /// Refuses what could not be kept now.
    ///
    /// # Errors
    /// When less than `bytes` is left.
    pub fn has_room(&self, bytes: usize) -> Result<(), Failure> {
        let left = self.limit.saturating_sub(self.used());
        if bytes > left { Err(self.overloaded()) } else { Ok(()) }
    }

    fn overloaded(&self) -> Failure {
        let limit = self.limit;
        let problem = format!("the bodies of requests take all of the {limit} bytes kept for them");
        Failure::Overloaded { problem, reason: Reason::BodyBudget }
    }
}

/// A part of the budget; given back when dropped.
#[derive(Debug)]
pub struct Reservation {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Reservation {
    /// Takes so many bytes more.
    ///
    /// # Errors
    /// When they are not left.
    pub fn grow(&mut self, bytes: usize) -> Result<(), Failure> {
        let Budget { limit, used } = &*self.budget;
        let more = |used: usize| used.checked_add(bytes).filter(|sum| sum <= limit);
        used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
            .map_err(|_| self.budget.overloaded())?;
        self.bytes += bytes;
        Ok(())
    }

    /// Gives so many bytes back, or all when it has fewer.
    pub fn shrink(&mut self, bytes: usize) {
        let bytes = bytes.min(self.bytes);
        self.budget.used.fetch_sub(bytes, Ordering::Relaxed);
        self.bytes -= bytes;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// What bodies are held to that are read out of our sight.
#[derive(Clone, Debug)]
pub struct Meter {
    /// What they take.
    pub budget: Arc<Budget>,
    /// How long they may send nothing.
    pub silence: Duration,
    /// Counts what is turned away.
    pub rejections: Rejections,
}

/// Lets a request's body pass only as far as the budget reaches, and as long as it keeps coming; what it took is given
/// back with the response. For gRPC, whose bodies are read out of our sight.
pub async fn meter(State(meter): State<Meter>, request: Request, next: Next) -> Response {
    let reservation = Arc::new(Mutex::new(meter.budget.reserve()));
    let metered = Arc::clone(&reservation);
    let request = request.map(|body| Body::new(Metered { body, reservation: metered, meter, waiting: None }));
    let response = next.run(request).await;
    drop(reservation);
    response
}

struct Metered {
    body: Body,
    reservation: Arc<Mutex<Reservation>>,
    meter: Meter,
    /// There only while nothing comes.
    waiting: Option<Pin<Box<Sleep>>>,
}

impl Metered {
    /// The message that names the model is not read yet.
    fn refused(&self, failure: Failure) -> Status {
        self.meter.rejections.count(&"".into(), &failure);
        failure.into()
    }

    /// Fails when nothing has come for too long.
    fn wait(&mut self, context: &mut Context<'_>) -> Poll<Status> {
        let silence = self.meter.silence;
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(sleep(silence)));
        ready!(waiting.as_mut().poll(context));
        Poll::Ready(self.refused(Failure::TooSlow(silence.as_secs())))
    }
}

impl HttpBody for Metered {
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) else {
            return self.wait(context).map(|status| Some(Err(status.into())));
        };
        self.waiting = None;
        let Some(frame) = frame.transpose()? else { return Poll::Ready(None) };
        let length = frame.data_ref().map_or(0, Bytes::len);
        let grown = self.reservation.lock().unwrap_or_else(PoisonError::into_inner).grow(length);
        Poll::Ready(Some(match grown {
            Ok(()) => Ok(frame),
            Err(failure) => Err(self.refused(failure).into()),
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_no_more_than_there_is_and_takes_it_back() {
        let budget = Budget::new(10);
        let (mut first, mut second) = (budget.reserve(), budget.reserve());
        first.grow(4).unwrap();
        first.grow(4).unwrap();
        assert_eq!(
            second.grow(3).unwrap_err().to_string(),
            "the bodies of requests take all of the 10 bytes kept for them; try again later"
        );
        assert!(second.grow(usize::MAX).is_err());
        second.grow(2).unwrap();
        assert!(budget.has_room(1).is_err() && budget.has_room(0).is_ok());
        first.shrink(3);
        budget.has_room(3).unwrap();
        drop(first);
        budget.has_room(8).unwrap();
        second.grow(8).unwrap();
    }
}
