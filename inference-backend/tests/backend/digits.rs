//! The committed models answer as they were measured when they were trained.

use crate::support::{Server, committed_models, held_out, request};
use serde_json::Value;
use std::{fs, sync::Arc};

#[tokio::test]
async fn accuracy_is_as_committed() {
    let accuracies = fs::read_to_string(committed_models().join("digits/accuracy.json")).unwrap();
    let accuracies: Value = serde_json::from_str(&accuracies).unwrap();
    let (server, digits) = (Server::digits().await, held_out());
    for (version, committed) in accuracies.as_object().unwrap() {
        let answer =
            server.post(&format!("/v2/models/digits/versions/{version}/infer"), request(&digits)).await;
        let right = answer.output("label").iter().zip(&digits).filter(|(l, d)| l.as_i64() == Some(d.label));
        #[allow(clippy::cast_precision_loss, reason = "hundreds")]
        let accuracy = right.count() as f64 / digits.len() as f64;
        let difference = accuracy - committed.as_f64().unwrap();
        assert!(difference.abs() <= 0.005, "version {version}: {accuracy}, committed {committed}");
    }
}

#[tokio::test]
async fn probabilities_are_probabilities_and_the_label_is_the_largest() {
    let (server, digits) = (Server::digits().await, held_out());
    let answer = server.post("/v2/models/digits/infer", request(&digits)).await;
    let labels = answer.output("label");
    for (row, label) in answer.output("probabilities").chunks(10).zip(labels) {
        let row: Vec<f64> = row.iter().map(|p| p.as_f64().unwrap()).collect();
        assert!((row.iter().sum::<f64>() - 1.0).abs() < 1e-5, "{row:?}");
        let largest = row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).unwrap().0;
        assert_eq!(label.as_u64(), Some(largest as u64));
    }
}

#[tokio::test]
async fn many_at_once_all_get_their_own_answer() {
    let (server, digits) = (Arc::new(Server::digits().await), held_out());
    let expected = server.post("/v2/models/digits/versions/2/infer", request(&digits)).await;
    let expected: Vec<Value> = expected.output("label").clone();
    let tasks: Vec<_> = digits
        .into_iter()
        .enumerate()
        .map(|(index, digit)| {
            let server = Arc::clone(&server);
            tokio::spawn(async move {
                let mut body: Value = serde_json::from_str(&request(&[digit])).unwrap();
                body["id"] = index.to_string().into();
                server.post("/v2/models/digits/versions/2/infer", body.to_string()).await
            })
        })
        .collect();
    for (index, task) in tasks.into_iter().enumerate() {
        let answer = task.await.unwrap();
        assert_eq!(answer.body["id"], index.to_string());
        assert_eq!(answer.output("label"), &expected[index..=index]);
    }
}
