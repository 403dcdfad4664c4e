//! What an application reports later: whether the answer was right.

use crate::traffic::{self, Exchange};
use anyhow::{Context, Result, ensure};
use serde_json::json;
use std::{net::SocketAddr, time::Duration};
use tokio::{
    sync::mpsc::{self, UnboundedSender},
    task::JoinHandle,
};

/// Between two bodies of many.
const EVERY: Duration = Duration::from_millis(200);
/// Outcomes in a body at most.
const MOST: usize = 20_000;

/// Reports whether each answer was right as the metric `right`, in bulk, until nobody tells of further answers.
pub struct Labels(JoinHandle<Result<usize>>);

impl Labels {
    /// Begins, for a release. What is sent there is reported.
    ///
    /// # Errors
    /// When there can be no client.
    pub fn start(
        rest: SocketAddr,
        ruleset: &str,
        release: &str,
    ) -> Result<(UnboundedSender<Exchange>, Self)> {
        let (tell, mut told) = mpsc::unbounded_channel::<Exchange>();
        let (client, ruleset, release) = (traffic::client()?, ruleset.to_owned(), release.to_owned());
        let reporting = async move {
            let (mut reported, mut exchanges) = (0, Vec::new());
            while told.recv_many(&mut exchanges, MOST).await > 0 {
                let lines = exchanges.drain(..).filter_map(|exchange| {
                    let value = exchange.correct?;
                    reported += 1;
                    let outcome = json!({
                        "id": reported.to_string(), "ruleset": ruleset, "release": release,
                        "unit": exchange.user.to_string(), "metric": "right", "value": value,
                    });
                    Some(format!("{outcome}\n"))
                });
                let lines: String = lines.collect();
                if lines.is_empty() {
                    continue;
                }
                let request = client.post(format!("http://{rest}/v1/outcomes"));
                let request = request.header("content-type", "application/x-ndjson").body(lines);
                let answer = request.send().await.context("outcomes were not answered")?;
                ensure!(answer.status() == 200, "{}: {}", answer.status(), answer.text().await?);
                tokio::time::sleep(EVERY).await;
            }
            Ok(reported)
        };
        Ok((tell, Self(tokio::spawn(reporting))))
    }

    /// Waits until everything is reported: how many outcomes there were.
    ///
    /// # Errors
    /// When the control plane did not take one.
    pub async fn finish(self) -> Result<usize> {
        self.0.await?
    }
}
