//! Backends that report at moments of their own.

use crate::{SOON, stable};
use anyhow::Result;
use halftone_tests::{Paths, Stack, digits, observed, traffic::Load};
use std::{sync::Arc, time::Duration};

/// So long a release is looked at: some reports.
const LOOKED_AT: Duration = Duration::from_secs(7);

/// Each request is of a new user, so a report that is a second late is of hundreds of units.
#[tokio::test]
async fn reports_that_come_apart_are_no_wrong_share() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut paths = Paths::find()?;
    // Not the controller's second, so that all phases come by.
    paths.inference_flags.extend(observed(folder.path(), Duration::from_millis(1_130)));
    let stack = Stack::start_with(paths, 1, 2).await?;
    stack.publish("digits", &stable(&stack)).await?;
    let (urls, digits) = (stack.infer_urls(), Arc::new(digits::test_set()?));
    let load = Load {
        urls: &urls,
        digits: &digits,
        connections: 6,
        pause: Duration::from_millis(2),
        users: u64::MAX,
        tell: None,
    };
    let traffic = load.start()?;
    let control_plane = stack.control_plane()?;
    for (name, share) in [("half", 0.5), ("half-again", 0.5), ("a-twentieth", 0.05)] {
        let text = format!(
            "version: v1\nruleset: digits\nstable: v1\ncandidates: [v2]\nsteps: [{{share: {share}, hold: {{for: 1h}}}}]\n\
             metrics: {{nan: {{kind: event, role: guardrail, ceiling: 0.2}}}}\n"
        );
        control_plane.put_release(name, text).await?;
        tokio::time::sleep(LOOKED_AT).await;
        let now = control_plane.release(name).await?;
        assert_eq!(now["phase"], "running", "{now:#}");
        control_plane.command(name, "abort").await?;
        control_plane.wait_for_release(name, SOON, |release| release["waits_for"].is_null()).await?;
    }
    traffic.stop().await?;
    Ok(())
}
