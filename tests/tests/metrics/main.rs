//! What a real Prometheus, as `deploy/prometheus` configures it, sees of both programs and of real Envoy.

mod queries;
mod sums;

use anyhow::{Context, Result};
use halftone_tests::{Paths, Prometheus, Stack, collector::Receiver};

/// A control plane, two backends, an Envoy, and the Prometheus that scrapes them.
struct Watched {
    /// Ended first.
    prometheus: Prometheus,
    stack: Stack,
    /// What spans are sent to.
    _receiver: Receiver,
}

impl Watched {
    async fn start() -> Result<Self> {
        let mut paths = Paths::find()?;
        paths.serve_flags.extend(["--admin", "127.0.0.1:0"].map(Into::into));
        paths.inference_flags.push("--admin=127.0.0.1:0".to_owned());
        let receiver = Receiver::start().await?;
        for flag in [
            format!("--otlp-endpoint=http://{}", receiver.address),
            "--otlp-protocol=http/protobuf".to_owned(),
        ] {
            paths.serve_flags.push(flag.clone().into());
            paths.inference_flags.push(flag);
        }
        let stack = Stack::start_observed(paths, 2, 1, 1).await?;
        let prometheus = Prometheus::start_deployed(stack.folder()).await?;
        let watched = Self { prometheus, stack, _receiver: receiver };
        watched.scrape()?;
        watched.prometheus.wait_for("sum(up)", 4).await?;
        Ok(watched)
    }

    /// Tells Prometheus where everybody is, also after restarts.
    fn scrape(&self) -> Result<()> {
        let control_plane = self.stack.control_plane()?.admin.context("no admin address")?;
        self.prometheus.scrape("control-plane.yml", &[("control-plane".to_owned(), control_plane)])?;
        let mut backends = Vec::new();
        for version in 1..=2 {
            let admin = self.stack.backend(version)?.admin.context("no admin address")?;
            backends.push((format!("backend-v{version}"), admin));
        }
        self.prometheus.scrape("inference.yml", &backends)?;
        let envoys = self.stack.envoys.iter().map(|envoy| ("envoy".to_owned(), envoy.admin));
        self.prometheus.scrape("envoy.yml", &envoys.collect::<Vec<_>>())
    }

    /// The targets, by the protocol of the client: REST and gRPC reach both. One rule asks for a header that nobody sends.
    fn ruleset(&self) -> Result<String> {
        let target = |version| -> Result<String> {
            let address = self.stack.backend(version)?.address;
            Ok(format!("  v{version}: {{endpoints: [\"{address}\"], protocol: same-as-client}}\n"))
        };
        Ok(format!(
            "version: v1\ntargets:\n{}{}default: v1\nrules:\n\
             - {{name: gold, condition: 'user.tier == \"gold\"', target: v2}}\n",
            target(1)?,
            target(2)?
        ))
    }
}

/// A release of the second version that stays at its first step.
const RELEASE: &str = "version: v1\nruleset: digits\nstable: v1\ncandidates: [v2]\n\
     steps: [{share: 0.3, hold: {for: 1h}}, {share: 0.5}]\n";
