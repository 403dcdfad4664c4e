//! Warnings that would come again and again.

use std::time::{Duration, Instant};

/// Nobody is warned of the same more often.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// Tells whether it is time to warn again.
#[derive(Debug, Default)]
pub struct Throttle {
    warned: Option<Instant>,
}

impl Throttle {
    /// Whether it is; then it counts as done.
    pub fn is_due(&mut self) -> bool {
        let due = self.warned.is_none_or(|warned| warned.elapsed() >= WARN_EVERY);
        if due {
            self.warned = Some(Instant::now());
        }
        due
    }
}
