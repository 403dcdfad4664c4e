//! The control plane in trouble: hung, replaced by something that talks nonsense, without room on its disk; and clocks
//! that jump. Requests notice nothing, users stay where they were, and all is well again without a person. (That it is
//! absent, or dies, is in `updates.rs`.)

mod clock;
mod disk;
mod garbage;
mod hung;
mod impostor;
mod nonsense;

use anyhow::{Context, Result, ensure};
use halftone_tests::{
    Paths, Stack,
    digits::{self, Digit},
    traffic::{Traffic, assignment, failures, replay},
};
use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

/// Workers of each Envoy.
const WORKERS: usize = 2;
const USERS: u64 = 300;
/// Requests that a trial has at least.
const LOAD: u64 = 500;

/// Two Envoys, one of each form, under load by users of whom it is known where they belong.
struct Trial {
    stack: Stack,
    digits: Arc<Vec<Digit>>,
    assigned: HashMap<u64, String>,
    traffic: Traffic,
    uploads: u64,
}

impl Trial {
    async fn start() -> Result<Self> {
        Self::start_with(Paths::find()?).await
    }

    async fn start_with(paths: Paths) -> Result<Self> {
        let mut stack = Stack::start_with(paths, 0, 0).await?;
        stack.add_envoy_of_each_form(WORKERS, stack.control_plane()?.xds).await?;
        Self::of(stack).await
    }

    /// With Envoys that are there already.
    async fn of(stack: Stack) -> Result<Self> {
        let digits = Arc::new(digits::test_set()?);
        stack.control_plane()?.apply("digits", stack.canary(0.4), stack.envoys.len(), WORKERS).await?;
        let before = replay(&stack.infer_urls(), &digits, 1..=USERS, 4).await?;
        let assigned = assignment(&before).context("a user without a target")?;
        let traffic = Traffic::start(&stack.infer_urls(), &digits, 2, Duration::from_millis(4), USERS)?;
        Ok(Self { stack, digits, assigned, traffic, uploads: 0 })
    }

    /// Uploads rules that are new and send everybody where they are, and waits until every worker has them.
    async fn upload(&mut self) -> Result<u64> {
        self.uploads += 1;
        let control_plane = self.stack.control_plane()?;
        control_plane.apply("digits", self.ruleset(), self.stack.envoys.len(), WORKERS).await
    }

    /// The rules that are to be in force after so many uploads.
    fn ruleset(&self) -> String {
        format!("# Upload {}\n{}", self.uploads, self.stack.canary(0.4))
    }

    /// Ends the load: no request may have failed, and no user may have been anywhere else.
    async fn end(mut self) -> Result<()> {
        let start = Instant::now();
        self.upload().await.context("no recovery")?;
        println!("every worker has new rules again after {:?}", start.elapsed());
        while self.traffic.sent() < LOAD {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let exchanges = self.traffic.stop().await?;
        let failed = failures(&exchanges);
        ensure!(failed.is_empty(), "{} of {} failed, first {:?}", failed.len(), exchanges.len(), failed[0]);
        let after = replay(&self.stack.infer_urls(), &self.digits, 1..=USERS, 4).await?;
        for exchange in exchanges.iter().chain(&after) {
            ensure!(exchange.target.as_ref() == self.assigned.get(&exchange.user), "moved: {exchange:?}");
        }
        Ok(())
    }
}
