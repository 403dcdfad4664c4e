//! Something else answers on the control plane's port.

use crate::{
    Trial,
    impostor::{Conduct, Impostor},
    nonsense::Nonsense,
};
use anyhow::Result;
use std::time::Duration;

/// How long.
const WHILE: Duration = Duration::from_secs(4);

#[tokio::test]
async fn bytes_that_mean_nothing_change_nothing() -> Result<()> {
    let mut trial = Trial::start().await?;
    let control_plane = trial.stack.take_control_plane()?;
    let xds = control_plane.xds;
    let crashed = control_plane.crash()?;
    let mut impostor = Impostor::start(xds, Conduct::Noisy).await?;
    tokio::time::sleep(WHILE).await;
    assert!(impostor.connections() >= 4, "only {} connections", impostor.connections());
    impostor.close().await;
    trial.stack.set_control_plane(crashed.start_again().await?);
    trial.end().await
}

#[tokio::test]
async fn answers_that_mean_nothing_change_nothing() -> Result<()> {
    let mut trial = Trial::start().await?;
    let control_plane = trial.stack.take_control_plane()?;
    let xds = control_plane.xds;
    let crashed = control_plane.crash()?;
    let nonsense = Nonsense::start(xds)?;
    tokio::time::sleep(WHILE).await;
    let said = nonsense.stop().await?;
    assert!(said > 100, "only {said} answers were sent");
    trial.stack.set_control_plane(crashed.start_again().await?);
    trial.end().await
}
