//! Releases for a goal that applications report later.

use crate::{SOON, stable};
use anyhow::Result;
use halftone_tests::{Paths, Stack, digits, outcomes::Labels, traffic::Load};
use std::{sync::Arc, time::Duration};

fn text(candidate: &str) -> String {
    format!(
        "version: v1\nruleset: digits\nstable: v1\ncandidates: [{candidate}]\napproval: auto\n\
         steps:\n- {{share: 0.1, hold: {{for: 1s, units: 20}}}}\n- {{share: 0.5, hold: {{for: 1s, units: 20}}}}\n\
         watch: {{for: 1s, control: 0.05}}\n\
         metrics:\n  right: {{kind: proportion, role: goal, mde: {{absolute: 0.05}}}}\n\
         \x20 error: {{kind: event, role: guardrail, ceiling: 0.05}}\n\
         policy: {{cycle_s: 2, look_every_s: 2}}\n"
    )
}

/// A copy of stable has nothing that could be better: at the default level, fewer than one in two hundred is taken for
/// better, and which units it gets and which digits they send is the same in each run.
#[tokio::test]
async fn labels_promote_a_better_version_and_no_copy() -> Result<()> {
    let stack = Stack::start_observed(Paths::find()?, 2, 1, 2).await?;
    let copy = format!("  v1-copy: {{endpoints: [\"{}\"]}}\ndefault:", stack.backend(1)?.address);
    stack.publish("digits", &stable(&stack).replace("default:", &copy)).await?;
    let control_plane = stack.control_plane()?;
    let (urls, digits) = (stack.infer_urls(), Arc::new(digits::test_set()?));
    for (candidate, promoted) in [("v1-copy", false), ("v2", true)] {
        let name = format!("digits-{candidate}");
        // Before its first label: what was reported of an earlier release of a name would count for this one.
        control_plane.put_release(&name, text(candidate)).await?;
        let (tell, labels) = Labels::start(control_plane.rest, "digits", &name)?;
        let load = Load {
            urls: &urls,
            digits: &digits,
            connections: 6,
            pause: Duration::from_millis(1),
            users: u64::MAX,
            tell: Some(tell),
        };
        let traffic = load.start()?;
        let ended = control_plane
            .wait_for_release(&name, 2 * SOON, |release| {
                release["phase"] == "promoted"
                    || release["phase"] == "aborted"
                    || release["phase"] == "rolled_back"
            })
            .await?;
        traffic.stop().await?;
        let reported = labels.finish().await?;
        println!("{name} is {} after {reported} labels: {}", ended["phase"], ended["why"]);
        assert_eq!(ended["phase"], if promoted { "promoted" } else { "aborted" }, "{ended:#}");
    }
    Ok(())
}
