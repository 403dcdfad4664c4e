//! A bounded pool: a few things that each do one piece of work at a time, and a queue that refuses when full.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Why work was not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PoolError {
    /// Everything is busy and as many wait as may.
    #[error("the queue is full")]
    Full,
    /// The work panicked.
    #[error("the work panicked")]
    Panicked,
}

/// Things (sessions of a model) that each do one piece of work at a time, on blocking threads.
#[derive(Debug)]
pub struct Pool<T> {
    idle: Mutex<Vec<T>>,
    /// One permit per idle thing.
    permits: Arc<Semaphore>,
    waiting: AtomicUsize,
    queue: usize,
}

impl<T: Send + 'static> Pool<T> {
    /// A pool of these things, for which at most `queue` callers may wait.
    #[must_use]
    pub fn new(things: Vec<T>, queue: usize) -> Arc<Self> {
        let permits = Arc::new(Semaphore::new(things.len()));
        Arc::new(Self { idle: Mutex::new(things), permits, waiting: AtomicUsize::new(0), queue })
    }

    /// Runs `work` with one of the things on a blocking thread, in the order of the calls.
    ///
    /// A caller that goes away while it waits gives up its place; once begun, the work is finished.
    ///
    /// # Errors
    /// When the queue is full, or the work panicked.
    pub async fn run<R: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&mut T) -> R + Send + 'static,
    ) -> Result<R, PoolError> {
        let permit = self.permit().await?;
        let pool = Arc::clone(self);
        let begun = tokio::task::spawn_blocking(move || {
            // A permit stands for an idle thing, so there is one.
            let mut thing = pool.lock().pop().ok_or(PoolError::Full)?;
            let outcome = catch_unwind(AssertUnwindSafe(|| work(&mut thing)));
            pool.lock().push(thing);
            drop(permit);
            outcome.map_err(|_| PoolError::Panicked)
        });
        begun.await.unwrap_or(Err(PoolError::Panicked))
    }

    async fn permit(&self) -> Result<OwnedSemaphorePermit, PoolError> {
        if let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() {
            return Ok(permit);
        }
        let _place = Place::take(&self.waiting, self.queue).ok_or(PoolError::Full)?;
        // The semaphore serves in the order of arrival. It is never closed.
        Arc::clone(&self.permits).acquire_owned().await.map_err(|_| PoolError::Full)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<T>> {
        // Nothing that can panic is done under the lock.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place in the queue, given up when dropped.
struct Place<'a>(&'a AtomicUsize);

impl<'a> Place<'a> {
    fn take(waiting: &'a AtomicUsize, limit: usize) -> Option<Self> {
        waiting
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| (n < limit).then_some(n + 1))
            .ok()
            .map(|_| Self(waiting))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    /// Occupies one thing of the pool until the sender is dropped.
    async fn occupy(
        pool: &Arc<Pool<u8>>,
    ) -> (mpsc::Sender<()>, tokio::task::JoinHandle<Result<u8, PoolError>>) {
        let (release, released) = mpsc::channel::<()>();
        let (begin, begun) = tokio::sync::oneshot::channel();
        let pool = Arc::clone(pool);
        let work = tokio::spawn(async move {
            pool.run(move |thing| {
                begin.send(()).expect("the test waits");
                let _ = released.recv();
                *thing
            })
            .await
        });
        begun.await.expect("the work begins");
        (release, work)
    }

    async fn wait_for_waiting(pool: &Pool<u8>, count: usize) {
        while pool.waiting.load(Ordering::Relaxed) != count {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn refuses_what_the_queue_cannot_hold() {
        let pool = Pool::new(vec![7], 1);
        let (release, first) = occupy(&pool).await;
        let second = tokio::spawn({
            let pool = Arc::clone(&pool);
            async move { pool.run(|thing| *thing).await }
        });
        wait_for_waiting(&pool, 1).await;
        assert_eq!(pool.run(|thing| *thing).await, Err(PoolError::Full));
        drop(release);
        assert_eq!(first.await.unwrap(), Ok(7));
        assert_eq!(second.await.unwrap(), Ok(7));
        assert_eq!(pool.run(|thing| *thing).await, Ok(7));
    }

    #[tokio::test]
    async fn a_caller_that_leaves_gives_up_its_place() {
        let pool = Pool::new(vec![7], 1);
        let (release, first) = occupy(&pool).await;
        let leaver = tokio::spawn({
            let pool = Arc::clone(&pool);
            async move { pool.run(|_| panic!("must not run")).await }
        });
        wait_for_waiting(&pool, 1).await;
        leaver.abort();
        wait_for_waiting(&pool, 0).await;
        drop(release);
        assert_eq!(first.await.unwrap(), Ok(7));
        assert_eq!(pool.run(|thing| *thing).await, Ok(7));
    }

    #[tokio::test]
    async fn a_panic_costs_nothing_but_its_own_answer() {
        let pool = Pool::new(vec![7], 0);
        assert_eq!(pool.run(|_| panic!("on purpose")).await, Err::<(), _>(PoolError::Panicked));
        assert_eq!(pool.run(|thing| *thing).await, Ok(7));
    }

    #[tokio::test]
    async fn without_a_queue_every_thing_still_works() {
        let pool = Pool::new(vec![1, 2], 0);
        let (release_one, one) = occupy(&pool).await;
        let (release_two, two) = occupy(&pool).await;
        assert_eq!(pool.run(|thing| *thing).await, Err(PoolError::Full));
        drop((release_one, release_two));
        let mut both = [one.await.unwrap().unwrap(), two.await.unwrap().unwrap()];
        both.sort_unstable();
        assert_eq!(both, [1, 2]);
    }
}
