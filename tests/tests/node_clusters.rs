//! Rulesets that are for some clusters of proxies only: two real Envoys of different clusters on one control plane.

use anyhow::Result;
use halftone_rules::codec;
use halftone_tests::{Answering, Envoy, EnvoyOptions, Paths, Ports, Stack, cluster_by_name, traffic::client};
use reqwest::{Method, StatusCode};

/// Sends all that it governs to one backend.
fn ruleset(scope: &str, backend: &Answering) -> String {
    let address = backend.address;
    format!(
        "version: v1\nmatch: {{{scope}}}\ntargets: {{t: {{endpoints: [\"{address}\"]}}}}\ndefault: t\nrules: []\n"
    )
}

/// The names of the rulesets in a bundle, and its revision.
async fn bundle(stack: &Stack, node_cluster: &str) -> Result<(Vec<String>, u64)> {
    let path = format!("/v1/bundle{node_cluster}");
    let answer = stack.control_plane()?.request(Method::GET, &path, "").await?.error_for_status()?;
    let verified = codec::decode(&answer.bytes().await?)?;
    let bundle = verified.bundle();
    Ok((bundle.rulesets.iter().map(|ruleset| ruleset.name.clone()).collect(), bundle.revision))
}

#[tokio::test]
async fn each_cluster_of_proxies_gets_its_own_rules() -> Result<()> {
    let folder = tempfile::Builder::new().prefix("halftone-").tempdir()?;
    let mut stack = Stack::start_in(Paths::find()?, folder.path(), Ports::default(), 0, 0, 0).await?;
    let (elsewhere, shared) = (Answering::start().await?, Answering::start().await?);
    let (europe, america) = (Answering::start().await?, Answering::start().await?);
    for (name, xds_form) in [("eu-1", "sotw"), ("us-1", "delta")] {
        let options = EnvoyOptions {
            name,
            workers: 1,
            xds: stack.control_plane()?.xds,
            xds_form,
            default_endpoint: elsewhere.address,
            port: 0,
            admin: 0,
            edit_bootstrap: cluster_by_name,
        };
        stack.envoys.push(Envoy::start(&Paths::find()?, stack.folder(), &options).await?);
    }
    let client = client()?;
    let get = async |envoy: usize, path: &str| -> Result<()> {
        let url = format!("http://{}{path}", stack.envoys[envoy].address);
        assert_eq!(client.get(url).send().await?.status(), 200, "{envoy} {path}");
        Ok(())
    };
    // How many requests each backend got since it was asked last.
    let seen = std::cell::Cell::new([0; 4]);
    let news = || {
        let now = [&elsewhere, &shared, &europe, &america].map(Answering::requests);
        let before = seen.replace(now);
        [0, 1, 2, 3].map(|at| now[at] - before[at])
    };

    // The same host and paths, on different proxies; and one for all.
    stack.publish("shared", &ruleset("path_prefixes: [/shared]", &shared)).await?;
    stack.publish("european", &ruleset("node_clusters: [eu]", &europe)).await?;
    get(0, "/").await?;
    get(1, "/").await?;
    assert_eq!(news(), [1, 0, 1, 0], "America has no rules for it yet");
    let revision = stack.publish("american", &ruleset("node_clusters: [us, ca]", &america)).await?;
    for envoy in [0, 1] {
        get(envoy, "/").await?;
        get(envoy, "/shared").await?;
    }
    assert_eq!(news(), [0, 2, 1, 1]);

    let nodes = stack.control_plane()?.get("/v1/nodes").await?;
    let clusters: Vec<_> = nodes.as_array().into_iter().flatten().map(|node| &node["cluster"]).collect();
    assert_eq!(clusters, ["eu", "us"], "{nodes}");
    for (node_cluster, expected) in [
        ("?node_cluster=eu", vec!["european", "shared"]),
        ("?node_cluster=us", vec!["american", "shared"]),
        ("?node_cluster=ca", vec!["american", "shared"]),
        ("?node_cluster=asia", vec!["shared"]),
        ("", vec!["shared"]),
    ] {
        let (mut names, of) = bundle(&stack, node_cluster).await?;
        names.sort();
        assert_eq!((names.iter().map(String::as_str).collect(), of), (expected, revision), "{node_cluster}");
    }
    for (envoy, known, unknown) in [(0, "european", "american"), (1, "american", "european")] {
        let requests = |name: &str| format!("cluster.halftone/{name}/t.upstream_rq_total");
        stack.envoys[envoy].stat(&requests(known)).await?;
        assert!(stack.envoys[envoy].stat(&requests(unknown)).await.is_err(), "{envoy} knows {unknown}");
    }

    // What would meet on a proxy is refused, and so is what would need too many bundles.
    let put = async |name: &str, text: String| -> Result<(StatusCode, String)> {
        let path = format!("/v1/rulesets/{name}");
        let answer = stack.control_plane()?.request(Method::PUT, &path, text).await?;
        Ok((answer.status(), answer.text().await?))
    };
    for scope in ["node_clusters: [asia, ca]", "path_prefixes: ['/shared'], node_clusters: [eu]"] {
        assert_eq!(put("other", ruleset(scope, &shared)).await?.0, StatusCode::CONFLICT, "{scope}");
    }
    let many: Vec<String> = (0..30).map(|number| format!("c{number}")).collect();
    let (status, body) =
        put("other", ruleset(&format!("node_clusters: [{}]", many.join(", ")), &shared)).await?;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(body.contains("33 clusters of proxies") && body.contains("at most 32"), "{body}");

    // A ruleset that moves to other proxies is gone from those it was on, and nobody else notices.
    stack.publish("american", &ruleset("node_clusters: [ca]", &america)).await?;
    stack.publish("european", &ruleset("node_clusters: [us]", &europe)).await?;
    get(0, "/").await?;
    get(1, "/").await?;
    assert_eq!(news(), [1, 0, 1, 0]);
    Ok(())
}
