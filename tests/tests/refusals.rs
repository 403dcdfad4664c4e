//! Proxies that refuse what the gate let pass: real Envoys, with a filter module that takes no large bundle.

use anyhow::{Context, Result};
use halftone_tests::{ControlPlane, Envoy, EnvoyOptions, Paths, cluster_by_name};
use reqwest::{Method, StatusCode};
use serde_json::Value;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Answers `proxy_on_configure` with no when the bundle has 2000 bytes or more.
const PICKY: &str = r#"
(module
  (memory (export "memory") 1)
  (func (export "proxy_abi_version_0_2_1"))
  (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 1024))
  (func (export "proxy_on_context_create") (param i32 i32))
  (func (export "proxy_on_configure") (param $context i32) (param $size i32) (result i32)
    (i32.lt_u (local.get $size) (i32.const 2000))))
"#;

struct Fleet {
    control_plane: ControlPlane,
    envoys: Vec<Envoy>,
    _folder: TempDir,
}

impl Fleet {
    async fn start(nodes: &[(&str, &str)]) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let module = folder.path().join("picky.wasm");
        std::fs::write(&module, wat::parse_str(PICKY)?)?;
        let paths = Paths { filter_on_proxy: Some(module), ..Paths::find()? };
        let control_plane = ControlPlane::start(&paths, folder.path(), 0, 0).await?;
        let mut envoys = Vec::new();
        for (name, xds_form) in nodes {
            let options = EnvoyOptions {
                name,
                workers: 1,
                xds: control_plane.xds,
                xds_form,
                default_endpoint: "127.0.0.1:9".parse()?,
                port: 0,
                admin: 0,
                edit_bootstrap: cluster_by_name,
            };
            envoys.push(Envoy::start(&paths, folder.path(), &options).await?);
        }
        control_plane.wait_for_acks(0, nodes.len()).await?;
        Ok(Self { control_plane, envoys, _folder: folder })
    }

    async fn put(&self, ruleset: String) -> Result<Value> {
        self.put_as("digits", ruleset).await
    }

    async fn put_as(&self, name: &str, ruleset: String) -> Result<Value> {
        let path = &format!("/v1/rulesets/{name}?wait=acked&timeout=30s");
        let answer = self.control_plane.request(Method::PUT, path, ruleset).await?;
        assert!(matches!(answer.status(), StatusCode::OK | StatusCode::CREATED), "{}", answer.status());
        Ok(answer.json().await?)
    }

    async fn node(&self, id: &str) -> Result<Value> {
        let nodes = self.control_plane.get("/v1/nodes").await?;
        let node = nodes.as_array().into_iter().flatten().find(|node| node["id"] == id);
        node.cloned().with_context(|| format!("no node {id} in {nodes}"))
    }

    /// Waits for the revision and answers with the newest entry of the history.
    async fn revision(&self, revision: u64) -> Result<Value> {
        let start = Instant::now();
        loop {
            let mut revisions = self.control_plane.get("/v1/revisions").await?;
            if revisions["current"].as_u64() >= Some(revision) {
                return Ok(revisions["revisions"][0].take());
            }
            anyhow::ensure!(start.elapsed() < Duration::from_secs(30), "{revisions}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Rules whose bundle grows with their number.
fn ruleset(rules: usize) -> String {
    let rule =
        |rule: usize| format!("  - {{name: a-rule-with-a-name-that-is-rather-long-{rule}, target: v1}}\n");
    format!(
        "version: v1\ntargets: {{v1: {{endpoints: [\"127.0.0.1:9\"]}}}}\ndefault: v1\nrules:\n{}",
        (0..rules).map(rule).collect::<String>()
    )
}

#[tokio::test]
async fn what_every_proxy_refuses_is_taken_back() -> Result<()> {
    let fleet = Fleet::start(&[("by-sotw", "sotw"), ("by-delta", "delta")]).await?;
    let good = fleet.put(ruleset(1)).await?;
    assert_eq!((&good["fleet"]["acked"], &good["fleet"]["nacked"]), (&2.into(), &0.into()), "{good}");
    let bad = fleet.put(ruleset(200)).await?;
    assert_eq!(bad["revision"], 2);
    assert_eq!((&bad["fleet"]["acked"], &bad["fleet"]["nacked"]), (&0.into(), &2.into()), "{bad}");
    let refused = &bad["fleet"]["behind"][0]["refused"];
    assert_eq!((&refused["revision"], &refused["kind"]), (&2.into(), &"ecds".into()), "{bad}");
    assert!(refused["message"].as_str().is_some_and(|message| message.contains("halftone")), "{bad}");

    let rollback = fleet.revision(3).await?;
    assert_eq!((&rollback["action"], &rollback["undoes"]), (&"rollback".into(), &2.into()), "{rollback}");
    fleet.control_plane.wait_for_acks(3, 2).await?;
    let text = fleet.control_plane.request(Method::GET, "/v1/rulesets/digits", "").await?;
    assert_eq!(text.headers()["etag"], "\"3\"");
    assert_eq!(text.text().await?, ruleset(1));
    for id in ["by-sotw", "by-delta"] {
        assert_eq!(fleet.node(id).await?["refused"], Value::Null, "it has something newer");
    }
    // And the next change goes its way.
    let next = fleet.put(ruleset(2)).await?;
    assert_eq!((&next["revision"], &next["fleet"]["acked"]), (&4.into(), &2.into()), "{next}");
    Ok(())
}

#[tokio::test]
async fn what_every_proxy_of_a_cluster_refuses_is_taken_back_there_alone() -> Result<()> {
    let fleet = Fleet::start(&[("eu-1", "sotw"), ("us-1", "delta")]).await?;
    let scoped = |rules, cluster| format!("{}match: {{node_clusters: [{cluster}]}}\n", ruleset(rules));
    fleet.put_as("european", scoped(1, "eu")).await?;
    fleet.put_as("american", scoped(2, "us")).await?;
    // The Americans take the number of the revision; of the rules that are refused they know nothing.
    let bad = fleet.put_as("european", scoped(200, "eu")).await?;
    assert_eq!((&bad["fleet"]["acked"], &bad["fleet"]["nacked"]), (&1.into(), &1.into()), "{bad}");
    assert_eq!(bad["fleet"]["behind"][0]["id"], "eu-1", "{bad}");

    let rollback = fleet.revision(4).await?;
    assert_eq!((&rollback["action"], &rollback["undoes"]), (&"rollback".into(), &3.into()), "{rollback}");
    fleet.control_plane.wait_for_acks(4, 2).await?;
    for (name, rules, cluster) in [("european", 1, "eu"), ("american", 2, "us")] {
        let path = format!("/v1/rulesets/{name}");
        let text = fleet.control_plane.request(Method::GET, &path, "").await?.text().await?;
        assert_eq!(text, scoped(rules, cluster), "{name}");
    }
    Ok(())
}

#[tokio::test]
async fn what_a_cluster_refuses_is_taken_back_although_others_have_got_something_new() -> Result<()> {
    let fleet = Fleet::start(&[("eu-1", "sotw"), ("us-1", "delta")]).await?;
    let scoped = |rules, cluster| format!("{}match: {{node_clusters: [{cluster}]}}\n", ruleset(rules));
    fleet.put_as("european", scoped(1, "eu")).await?;
    fleet.put_as("american", scoped(2, "us")).await?;
    // The Europeans answer only when there is a newer revision, which is none of their business.
    let european = fleet.envoys.first().context("no Envoy")?.process();
    european.pause()?;
    let control_plane = &fleet.control_plane;
    assert_eq!(control_plane.put("european", scoped(200, "eu")).await?, 3);
    assert_eq!(control_plane.put("american", scoped(3, "us")).await?, 4);
    european.resume()?;

    let rollback = fleet.revision(5).await?;
    assert_eq!((&rollback["action"], &rollback["undoes"]), (&"rollback".into(), &3.into()), "{rollback}");
    control_plane.wait_for_acks(5, 2).await?;
    for (name, rules, cluster) in [("european", 1, "eu"), ("american", 3, "us")] {
        let path = format!("/v1/rulesets/{name}");
        let text = control_plane.request(Method::GET, &path, "").await?.text().await?;
        assert_eq!(text, scoped(rules, cluster), "{name}");
    }
    Ok(())
}
