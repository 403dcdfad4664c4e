//! How much may be tried again: a share of the requests, so that a server that is in trouble is not asked many times
//! over because of that.

use super::config::RetryConfig;
use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// What one retry costs, so that a request pays in its percents.
const COST: u64 = 100;

/// A bucket of retries. Every request pays its share in, time pays a little, and it holds no more than a hundred
/// requests, or a second, bring.
#[derive(Debug)]
pub struct RetryBudget {
    config: RetryConfig,
    bucket: Mutex<Bucket>,
}

#[derive(Debug)]
struct Bucket {
    content: u64,
    /// Up to here time has paid.
    paid: Instant,
}

impl RetryBudget {
    /// With what a second brings.
    #[must_use]
    pub fn new(config: RetryConfig) -> Self {
        let content = u64::from(config.min_per_second) * COST;
        Self { config, bucket: Mutex::new(Bucket { content, paid: Instant::now() }) }
    }

    /// To be called for each request.
    pub fn pay_in(&self) {
        self.with(|bucket| bucket.content += u64::from(self.config.budget_percent));
    }

    /// Whether there may be one more retry; if so, takes it out.
    #[must_use]
    pub fn take(&self) -> bool {
        self.with(|bucket| {
            let left = bucket.content.checked_sub(COST);
            bucket.content = left.unwrap_or(bucket.content);
            left.is_some()
        })
    }

    fn with<T>(&self, work: impl FnOnce(&mut Bucket) -> T) -> T {
        let per_second = u64::from(self.config.min_per_second) * COST;
        let most = per_second.max(u64::from(self.config.budget_percent) * 100);
        // Nothing that can panic is done under the lock.
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        let millis = u64::try_from(bucket.paid.elapsed().as_millis()).unwrap_or(u64::MAX);
        // Whole parts only; the rest of the time is for the next one.
        let paid = millis.min(1000) * per_second / 1000;
        if paid > 0 || millis >= 1000 {
            bucket.paid += Duration::from_millis(millis);
            bucket.content += paid;
        }
        let result = work(&mut bucket);
        bucket.content = bucket.content.min(most);
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(budget_percent: u32, min_per_second: u32) -> RetryBudget {
        RetryBudget::new(RetryConfig { budget_percent, min_per_second })
    }

    #[test]
    fn gives_a_share_of_the_requests() {
        let budget = budget(10, 0);
        assert!(!budget.take(), "empty at first");
        let retries = (0..1000).filter(|_| {
            budget.pay_in();
            budget.take()
        });
        assert_eq!(retries.count(), 100);
        // What was not used in good times is no licence in bad ones.
        (0..10_000).for_each(|_| budget.pay_in());
        assert_eq!((0..1000).filter(|_| budget.take()).count(), 10);
    }

    #[test]
    fn begins_with_what_a_second_brings() {
        let budget = budget(0, 3);
        // On a slow machine more of it may have passed.
        assert!((3..=6).contains(&(0..6).filter(|_| budget.take()).count()));
    }
}
