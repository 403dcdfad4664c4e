//! What the judge says of the candidates that are tried.

use super::{Shown, labels};
use crate::release::{controller::Controller, controller::now_ms, status::Phase};
use halftone_judge::{
    Verdict,
    policy::{Method, Purpose},
};
use prometheus_client::{
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric},
    metrics::{MetricType, gauge::ConstGauge},
};
use std::{collections::BTreeMap, fmt};

/// Tests of one candidate that have metrics of their own, at most: the first ones of the verdict.
const MOST_TESTS: usize = 200;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfCandidate {
    release: String,
    ruleset: String,
    candidate: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfVerdict {
    release: String,
    ruleset: String,
    candidate: String,
    decision: String,
    reason: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfTest {
    release: String,
    ruleset: String,
    candidate: String,
    metric: String,
    purpose: String,
    method: String,
    quantile: String,
}

/// A candidate that the judge is asked about, and what it said last.
struct Asked<'a> {
    of: OfCandidate,
    verdict: Option<&'a Verdict>,
    judged_at_ms: Option<u64>,
}

pub(super) fn encode(
    encoder: &mut DescriptorEncoder<'_>,
    shown: &[Shown<'_>],
    controller: &Controller,
) -> Result<(), fmt::Error> {
    let asked = asked(shown);
    let (now_ms, started_ms) = (now_ms(), controller.started_ms());
    let help = "Since the judge last said something of a candidate that is tried; since the start when it has not yet";
    let name = "halftone_release_verdict_age_seconds";
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for Asked { of, judged_at_ms, .. } in &asked {
        let age = now_ms.saturating_sub(judged_at_ms.unwrap_or(started_ms)) as f64 / 1e3;
        ConstGauge::new(age).encode(family.encode_family(of)?)?;
    }
    let help = "1 for the last verdict about a candidate that is tried";
    let mut family = encoder.encode_descriptor("halftone_release_verdict", help, None, MetricType::Gauge)?;
    for Asked { of, verdict, .. } in &asked {
        let Some(verdict) = verdict else { continue };
        let OfCandidate { release, ruleset, candidate } = of.clone();
        let (decision, reason) = (word(&verdict.decision), word(&verdict.reason));
        let labels = OfVerdict { release, ruleset, candidate, decision, reason };
        ConstGauge::new(1).encode(family.encode_family(&labels)?)?;
    }
    let tests: Vec<_> = asked.iter().flat_map(tests).collect();
    let help = "Natural logarithm of the judge's e-value; it decides once it reaches the threshold";
    let mut family =
        encoder.encode_descriptor("halftone_release_log_e_value", help, None, MetricType::Gauge)?;
    for (labels, [value, _]) in &tests {
        ConstGauge::new(*value).encode(family.encode_family(labels)?)?;
    }
    let help = "What the logarithm of the e-value has to reach";
    let mut family =
        encoder.encode_descriptor("halftone_release_log_e_threshold", help, None, MetricType::Gauge)?;
    for (labels, [_, threshold]) in &tests {
        ConstGauge::new(*threshold).encode(family.encode_family(labels)?)?;
    }
    Ok(())
}

fn asked<'a>(shown: &[Shown<'a>]) -> Vec<Asked<'a>> {
    let mut asked = Vec::new();
    for shown @ (_, looked) in shown {
        let status = &looked.status;
        let phase = status.paused_in.unwrap_or(status.phase);
        if status.settled || !matches!(phase, Phase::Running | Phase::Candidate | Phase::Promoted) {
            continue;
        }
        let [(_, release), (_, ruleset)] = labels(shown);
        for name in status.tried() {
            let known = status.candidates.get(name);
            asked.push(Asked {
                of: OfCandidate {
                    release: release.to_owned(),
                    ruleset: ruleset.to_owned(),
                    candidate: name.to_owned(),
                },
                verdict: known.and_then(|known| known.verdict.as_ref()),
                judged_at_ms: known.and_then(|known| known.judged_at_ms),
            });
        }
    }
    asked
}

/// Logarithm of the e-value and threshold by test. Of those that differ only by epoch, the one that is closest to its
/// threshold: epochs are without end.
fn tests(asked: &Asked<'_>) -> Vec<(OfTest, [f64; 2])> {
    let tests = asked.verdict.into_iter().flat_map(|verdict| &verdict.tests);
    let mut found: BTreeMap<(String, String, String, String), [f64; 2]> = BTreeMap::new();
    for test in tests {
        let Some(ln_e) = test.ln_e.filter(|ln_e| ln_e.is_finite()) else { continue };
        let quantile = test.quantile.map(|quantile| quantile.to_string()).unwrap_or_default();
        let key =
            (test.metric.clone(), word::<Purpose>(&test.purpose), word::<Method>(&test.method), quantile);
        let numbers = [ln_e, test.threshold];
        if found.len() >= MOST_TESTS && !found.contains_key(&key) {
            continue;
        }
        let known = found.entry(key).or_insert(numbers);
        if ln_e - test.threshold > known[0] - known[1] {
            *known = numbers;
        }
    }
    let OfCandidate { release, ruleset, candidate } = &asked.of;
    let labelled = found.into_iter().map(|((metric, purpose, method, quantile), numbers)| {
        let [release, ruleset, candidate] = [release, ruleset, candidate].map(Clone::clone);
        (OfTest { release, ruleset, candidate, metric, purpose, method, quantile }, numbers)
    });
    labelled.collect()
}

/// As it is written in records and answers, in small letters.
fn word<T: serde::Serialize>(of: &T) -> String {
    let written = serde_json::to_value(of).ok();
    written.and_then(|value| value.as_str().map(str::to_lowercase)).unwrap_or_default()
}
