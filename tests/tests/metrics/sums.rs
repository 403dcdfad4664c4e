//! The sums in Prometheus are the numbers that were sent: exactly, in total and by variant, over REST and gRPC, also when
//! the backend of a variant and the control plane begin to count anew.

use crate::{RELEASE, Watched};
use anyhow::{Context, Result, ensure};
use halftone_proto::inference::{
    InferTensorContents, ModelInferRequest,
    grpc_inference_service_client::GrpcInferenceServiceClient,
    model_infer_request::{InferInputTensor, InferRequestedOutputTensor},
};
use halftone_tests::{
    digits::{self, Digit},
    traffic::{failures, replay},
};
use std::{
    collections::BTreeMap,
    ops::{AddAssign, RangeInclusive},
    sync::Arc,
    time::Duration,
};
use tonic::{Request, transport::Endpoint};

const REST: &str = "/v2/models/{model}/infer";
const GRPC: &str = "/inference.GRPCInferenceService/ModelInfer";

/// Requests of one variant, as the responses say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sent {
    rest: u64,
    grpc: u64,
}

impl AddAssign for Sent {
    fn add_assign(&mut self, other: Self) {
        self.rest += other.rest;
        self.grpc += other.grpc;
    }
}

/// By target.
type ByVariant = BTreeMap<&'static str, Sent>;

fn variant(target: &str) -> Result<&'static str> {
    ["v1", "v2"].into_iter().find(|of| *of == target).with_context(|| format!("target {target:?}"))
}

/// Sends one request for each of these users, and says which variant answered how many.
async fn send(
    watched: &Watched,
    digits: &Arc<Vec<Digit>>,
    rest: RangeInclusive<u64>,
    grpc: RangeInclusive<u64>,
) -> Result<ByVariant> {
    let mut sent = ByVariant::new();
    let exchanges = replay(&watched.stack.infer_urls(), digits, rest, 4).await?;
    ensure!(failures(&exchanges).is_empty(), "{:?}", failures(&exchanges));
    for exchange in exchanges {
        sent.entry(variant(&exchange.target.unwrap_or_default())?).or_default().rest += 1;
    }
    let envoy = watched.stack.envoys.first().context("no envoy")?.address;
    let channel = Endpoint::new(format!("http://{envoy}"))?.connect().await?;
    let mut client = GrpcInferenceServiceClient::new(channel);
    for user in grpc {
        let digit = &digits[usize::try_from(user)? % digits.len()];
        let mut request = Request::new(message(digit));
        request.metadata_mut().insert("x-user-id", user.into());
        let answer = client.model_infer(request).await?;
        let target = answer.metadata().get("x-halftone-target").context("no target")?.to_str()?.to_owned();
        ensure!(format!("v{}", answer.get_ref().model_version) == target, "{answer:?}");
        sent.entry(variant(&target)?).or_default().grpc += 1;
    }
    Ok(sent)
}

fn message(digit: &Digit) -> ModelInferRequest {
    let pixels = digit.pixels();
    ModelInferRequest {
        model_name: "digits".to_owned(),
        inputs: vec![InferInputTensor {
            name: "pixels".to_owned(),
            datatype: "FP32".to_owned(),
            shape: vec![1, i64::try_from(pixels.len()).unwrap_or_default()],
            contents: Some(InferTensorContents {
                fp32_contents: pixels.iter().map(|pixel| f32::from(*pixel)).collect(),
                ..Default::default()
            }),
            ..Default::default()
        }],
        outputs: vec![InferRequestedOutputTensor { name: "label".to_owned(), ..Default::default() }],
        ..Default::default()
    }
}

impl Watched {
    /// What the backend of a variant has counted since its start.
    async fn backend_counted(&self, variant: &str, sent: Sent) -> Result<()> {
        let of = format!("job=\"halftone-inference\", instance=\"backend-{variant}\", model_name=\"digits\"");
        for (endpoint, count) in [(REST, sent.rest), (GRPC, sent.grpc)] {
            let query =
                format!("model_request_total{{{of}, api_endpoint=\"{endpoint}\", http_status=\"200\"}}");
            self.prometheus.wait_for(&query, count).await?;
        }
        let all = sent.rest + sent.grpc;
        for query in [
            format!("sum(model_request_total{{{of}}})"),
            format!("model_inference_duration_seconds_count{{{of}, status=\"ok\"}}"),
            format!("sum(model_inference_duration_seconds_count{{{of}}})"),
            // Whatever was run together, each request was a row of its own.
            format!("halftone_model_batch_rows_sum{{{of}}}"),
        ] {
            self.prometheus.wait_for(&query, all).await?;
        }
        Ok(())
    }

    /// What Envoy and the filter have counted of a variant since the start.
    async fn proxy_counted(&self, variant: &str, sent: Sent) -> Result<()> {
        let cluster = format!("envoy_cluster_name=\"halftone/digits/{variant}\"");
        for query in [
            format!("sum(halftone_decisions_total{{ruleset=\"digits\", target=\"{variant}\"}})"),
            format!("envoy_cluster_upstream_rq_completed{{{cluster}}}"),
            format!("envoy_cluster_upstream_rq_xx{{{cluster}, envoy_response_code_class=\"2\"}}"),
        ] {
            self.prometheus.wait_for(&query, sent.rest + sent.grpc).await?;
        }
        Ok(())
    }

    /// What the control plane has seen of a release's arms; no user came twice.
    async fn units_are(&self, sent: &ByVariant) -> Result<()> {
        let all = |variant: &str| sent.get(variant).map_or(0, |sent| sent.rest + sent.grpc);
        for (arms, variant) in [("v2", "v2"), ("control|rest", "v1")] {
            let query = format!("sum(halftone_release_units{{release=\"canary\", arm=~\"{arms}\"}})");
            self.prometheus.wait_for(&query, all(variant)).await?;
        }
        Ok(())
    }
}

#[tokio::test]
async fn sums_in_prometheus_are_what_was_sent_also_after_restarts() -> Result<()> {
    let mut watched = Watched::start().await?;
    let control_plane = watched.stack.control_plane()?;
    control_plane.apply("digits", watched.ruleset()?, 1, 1).await?;
    control_plane.put_release("canary", RELEASE).await?;
    let running = control_plane
        .wait_for_release("canary", Duration::from_secs(60), |release| release["phase"] == "running")
        .await?;
    let epoch = running["epochs"][0]["epoch"].as_u64().context("no epoch")?;
    control_plane.wait_until_applied(epoch, 1, 1).await?;

    let digits = Arc::new(digits::test_set()?);
    let before = send(&watched, &digits, 1..=200, 201..=280).await?;
    ensure!(before.len() == 2 && before.values().all(|sent| sent.rest > 10 && sent.grpc > 5), "{before:?}");
    for (variant, sent) in &before {
        watched.backend_counted(variant, *sent).await?;
        watched.proxy_counted(variant, *sent).await?;
    }
    watched.units_are(&before).await?;

    // The last values before: those that were just read. After it, both begin at 0.
    watched.stack.restart_backend(2).await?;
    let crashed = watched.stack.take_control_plane()?.crash()?;
    let after = send(&watched, &digits, 281..=400, 401..=440).await?;
    // Nobody takes what is observed meanwhile, and that is seen.
    watched
        .prometheus
        .wait_for_some("halftone_observation_lag_seconds{instance=\"backend-v1\"} > 1.5")
        .await?;
    watched.stack.set_control_plane(crashed.start_again().await?);
    watched.stack.control_plane()?.wait_until_applied(epoch, 1, 1).await?;
    watched.scrape()?;
    watched.prometheus.wait_for_some("max(halftone_observation_lag_seconds) == 0").await?;
    let mut all = before.clone();
    for (variant, sent) in &after {
        *all.entry(variant).or_default() += *sent;
    }
    let of = |counted: &ByVariant, variant| counted.get(variant).copied().unwrap_or_default();
    // What it counted before and what it counts since are all that was sent.
    watched.backend_counted("v2", of(&after, "v2")).await?;
    watched.backend_counted("v1", of(&all, "v1")).await?;
    for variant in ["v1", "v2"] {
        watched.proxy_counted(variant, of(&all, variant)).await?;
    }
    let total: u64 = all.values().map(|sent| sent.rest + sent.grpc).sum();
    ensure!(total == 440, "{all:?}");
    watched.prometheus.wait_for("sum(halftone_decisions_total)", total).await?;
    let since = of(&before, "v2").rest + of(&before, "v2").grpc;
    watched.prometheus.wait_for("sum(model_request_total{model_name=\"digits\"})", total - since).await?;
    // Prometheus knows that the counters began anew: its own functions add up as was done here.
    let of_rest = format!("model_request_total{{instance=\"backend-v2\", api_endpoint=\"{REST}\"}}");
    watched.prometheus.wait_for(&format!("resets({of_rest}[10m])"), 1).await?;
    // The ledger is durable: after its restart the control plane has seen everybody.
    watched.units_are(&all).await
}
