//! Which connections have nothing to do: they give way when there is no place for others.

use axum::{
    Router,
    body::{Body, Bytes, HttpBody},
    http::{Request, Response},
};
use http_body::{Frame, SizeHint};
use std::{
    collections::BTreeMap,
    convert::Infallible,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::{Duration, Instant},
};
use tokio::sync::Notify;
use tower_service::Service;

/// The connections that have nothing to do.
#[derive(Debug, Default)]
pub struct Roll(Mutex<Idle>);

#[derive(Debug, Default)]
struct Idle {
    /// In the order in which they have become so: since when, and how to tell them to go.
    connections: BTreeMap<u64, (Instant, Arc<Notify>)>,
    next: u64,
}

impl Roll {
    /// Tells the one to go that has had nothing to do for the longest time, at least this. Whether there was one.
    pub fn dismiss(&self, at_least: Duration) -> bool {
        let mut idle = self.lock();
        let oldest = idle.connections.first_entry().filter(|oldest| oldest.get().0.elapsed() >= at_least);
        let dismissed = oldest.map(|oldest| oldest.remove().1);
        dismissed.inspect(|dismissed| dismissed.notify_one()).is_some()
    }

    fn enter(&self, leave: Arc<Notify>) -> u64 {
        let mut idle = self.lock();
        let number = idle.next;
        idle.next += 1;
        idle.connections.insert(number, (Instant::now(), leave));
        number
    }

    fn strike(&self, number: u64) {
        self.lock().connections.remove(&number);
    }

    fn lock(&self) -> MutexGuard<'_, Idle> {
        // Nothing that can panic is done under the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection.
#[derive(Debug)]
pub struct Seat {
    roll: Arc<Roll>,
    leave: Arc<Notify>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Requests that are under way.
    requests: usize,
    /// Its number in the roll, while there are none.
    idle: Option<u64>,
}

impl Seat {
    /// One that has just come, and has nothing to do yet.
    #[must_use]
    pub fn new(roll: &Arc<Roll>) -> Arc<Self> {
        let leave = Arc::new(Notify::new());
        let state = State { requests: 0, idle: Some(roll.enter(Arc::clone(&leave))) };
        Arc::new(Self { roll: Arc::clone(roll), leave, state: Mutex::new(state) })
    }

    /// Waits until it is to go, and still has nothing to do.
    pub async fn dismissed(&self) {
        loop {
            self.leave.notified().await;
            if self.lock().requests == 0 {
                return;
            }
        }
    }

    fn begin(self: Arc<Self>) -> Busy {
        let mut state = self.lock();
        state.requests += 1;
        if let Some(number) = state.idle.take() {
            self.roll.strike(number);
        }
        drop(state);
        Busy(self)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(number) = self.lock().idle.take() {
            self.roll.strike(number);
        }
    }
}

/// A request that is under way.
#[derive(Debug)]
struct Busy(Arc<Seat>);

impl Drop for Busy {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.requests -= 1;
        if state.requests == 0 {
            state.idle = Some(self.0.roll.enter(Arc::clone(&self.0.leave)));
        }
    }
}

/// Answers the requests of a connection, which has something to do while there are some.
#[derive(Clone, Debug)]
pub struct Attended {
    /// Answers them.
    pub router: Router,
    /// The connection.
    pub seat: Arc<Seat>,
}

impl<B> Service<Request<B>> for Attended
where
    Router: Service<Request<B>, Response = Response<Body>, Error = Infallible>,
    <Router as Service<Request<B>>>::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Service::<Request<B>>::poll_ready(&mut self.router, context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let busy = Arc::clone(&self.seat).begin();
        let answer = self.router.call(request);
        Box::pin(async move { Ok(answer.await?.map(|body| Body::new(Held { body, _busy: busy }))) })
    }
}

/// The body of an answer. The request is under way until it is sent.
struct Held {
    body: Body,
    _busy: Busy,
}

impl HttpBody for Held {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
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
    use std::time::Duration;

    #[tokio::test]
    async fn who_has_had_nothing_to_do_for_longest_goes_first() {
        let roll = Arc::new(Roll::default());
        let (first, second) = (Seat::new(&roll), Seat::new(&roll));
        assert!(!roll.dismiss(Duration::from_secs(3600)), "nobody for so long");
        let busy = Arc::clone(&first).begin();
        let again = Arc::clone(&first).begin();
        drop(busy);
        assert!(roll.dismiss(Duration::ZERO), "the second");
        second.dismissed().await;
        assert!(!roll.dismiss(Duration::ZERO), "the first has something to do");
        drop(again);
        assert!(roll.dismiss(Duration::ZERO));
        first.dismissed().await;
        drop((first, Seat::new(&roll)));
        assert!(!roll.dismiss(Duration::ZERO), "who is gone is not told");
    }

    #[tokio::test]
    async fn who_has_something_to_do_by_now_stays() {
        let roll = Arc::new(Roll::default());
        let seat = Seat::new(&roll);
        assert!(roll.dismiss(Duration::ZERO));
        let busy = Arc::clone(&seat).begin();
        let waiting = tokio::time::timeout(Duration::from_millis(1), seat.dismissed());
        assert!(waiting.await.is_err());
        drop(busy);
        assert!(roll.dismiss(Duration::ZERO), "it can be told again");
        seat.dismissed().await;
    }
}
