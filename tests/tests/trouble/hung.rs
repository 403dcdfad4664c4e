//! A control plane that accepts connections and never answers.

use crate::{
    Trial, WORKERS,
    impostor::{Conduct, Impostor},
};
use anyhow::{Context, Result};
use halftone_tests::{
    Stack, digits,
    traffic::{Traffic, failures},
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

#[tokio::test]
async fn a_control_plane_that_hangs_and_goes_on_is_only_late() -> Result<()> {
    let mut trial = Trial::start().await?;
    let process = trial.stack.control_plane()?.process();
    process.pause()?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    process.resume()?;
    trial.upload().await?;
    trial.end().await
}

#[tokio::test]
async fn a_control_plane_that_hangs_for_long_is_given_up_and_found_again() -> Result<()> {
    let trial = Trial::start().await?;
    trial.stack.control_plane()?.process().pause()?;
    // Both give the connection up, by the keep-alive in the bootstrap, and get another one, on which nobody answers either.
    let gave_up = "cluster.halftone-control-plane.upstream_cx_destroy_local";
    for envoy in &trial.stack.envoys {
        let start = Instant::now();
        while envoy.stat(gave_up).await? == 0 {
            assert!(start.elapsed() < Duration::from_secs(40), "the hung connection is not given up");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    trial.stack.control_plane()?.process().resume()?;
    trial.end().await
}

#[tokio::test]
async fn an_envoy_that_starts_at_a_silent_control_plane_serves_and_takes_up_rules_later() -> Result<()> {
    let mut stack = Stack::start(0, 0).await?;
    let xds = stack.control_plane()?.xds;
    stack.control_plane()?.put("digits", stack.canary(0.4)).await?;
    let crashed = stack.take_control_plane()?.crash()?;
    let mut impostor = Impostor::start(xds, Conduct::Silent).await?;
    stack.add_envoy_of_each_form(WORKERS, xds).await?;
    assert!(impostor.connections() >= 2, "nobody asked");
    let digits = Arc::new(digits::test_set()?);
    let traffic = Traffic::start(&stack.infer_urls(), &digits, 2, Duration::from_millis(4), 300)?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    // The silent connections stay open: that they lead nowhere Envoy has to find out by itself.
    impostor.close().await;
    stack.set_control_plane(crashed.start_again().await?);
    stack.control_plane()?.wait_for_acks(1, 2).await?;
    let exchanges = traffic.stop().await?;
    assert!(failures(&exchanges).is_empty(), "first {:?}", failures(&exchanges)[0]);
    let first = exchanges.first().context("no load")?;
    assert_eq!((&first.target, first.version.as_deref()), (&None, Some("1")), "the default of the bootstrap");
    Trial::of(stack).await?.end().await
}
