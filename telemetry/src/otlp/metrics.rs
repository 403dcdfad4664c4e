//! Metrics as messages of OTLP: made of the text that Prometheus reads, so that both say the same under the same names.

use super::origin::{Origin, attribute};
use crate::span_message::nanos;
use opentelemetry_proto::tonic::{
    collector::metrics::v1::ExportMetricsServiceRequest,
    common::v1::{KeyValue, any_value},
    metrics::v1::{
        AggregationTemporality, Exemplar, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint,
        ResourceMetrics, ScopeMetrics, Sum, exemplar, metric, number_data_point,
    },
};
use std::time::SystemTime;

/// The message with all that an OpenMetrics text says, as [`ModelMetrics::render`](crate::metrics::ModelMetrics::render) writes it. Counters
/// count from `begun` on.
#[must_use]
pub(super) fn request(
    text: &str,
    origin: &Origin,
    begun: SystemTime,
    now: SystemTime,
) -> ExportMetricsServiceRequest {
    let mut families = Families { begun: nanos(begun), now: nanos(now), metrics: Vec::new(), help: "" };
    text.lines().for_each(|line| families.line(line));
    let scope_metrics = ScopeMetrics {
        scope: Some(origin.scope.clone()),
        metrics: families.metrics,
        schema_url: String::new(),
    };
    ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            resource: Some(origin.resource.clone()),
            scope_metrics: vec![scope_metrics],
            schema_url: String::new(),
        }],
    }
}

/// The families read so far; lines are about the last one.
struct Families<'a> {
    begun: u64,
    now: u64,
    metrics: Vec<Metric>,
    help: &'a str,
}

impl<'a> Families<'a> {
    fn line(&mut self, line: &'a str) {
        if let Some(help) = line.strip_prefix("# HELP ") {
            self.help = help.split_once(' ').map_or("", |(_, help)| help);
        } else if let Some((name, kind)) =
            line.strip_prefix("# TYPE ").and_then(|family| family.split_once(' '))
        {
            self.family(name, kind);
        } else if !line.starts_with('#')
            && let Some(sample) = Sample::parse(line)
        {
            self.sample(sample);
        }
    }

    fn family(&mut self, name: &str, kind: &str) {
        let cumulative = AggregationTemporality::Cumulative as i32;
        let (suffix, data) = match kind {
            "counter" => (
                "_total",
                metric::Data::Sum(Sum {
                    aggregation_temporality: cumulative,
                    is_monotonic: true,
                    ..Sum::default()
                }),
            ),
            "histogram" => (
                "",
                metric::Data::Histogram(Histogram {
                    aggregation_temporality: cumulative,
                    ..Histogram::default()
                }),
            ),
            _ => ("", metric::Data::Gauge(Gauge::default())),
        };
        let unit = if name.ends_with("_seconds") {
            "s"
        } else if name.ends_with("_bytes") {
            "By"
        } else {
            ""
        };
        self.metrics.push(Metric {
            name: format!("{name}{suffix}"),
            description: self.help.trim_end_matches('.').to_owned(),
            unit: unit.into(),
            data: Some(data),
            ..Metric::default()
        });
    }

    fn sample(&mut self, sample: Sample<'_>) {
        let (begun, now) = (self.begun, self.now);
        let Some(metric) = self.metrics.last_mut() else { return };
        match &mut metric.data {
            Some(metric::Data::Sum(sum)) => sum.data_points.push(sample.number(begun, now)),
            Some(metric::Data::Gauge(gauge)) => gauge.data_points.push(sample.number(0, now)),
            Some(metric::Data::Histogram(histogram)) => {
                sample.part_of(&metric.name, &mut histogram.data_points, begun, now);
            }
            _ => {}
        }
    }
}

/// One line: `name{label="value",…} value`, perhaps with an exemplar.
struct Sample<'a> {
    name: &'a str,
    labels: Vec<(&'a str, String)>,
    value: f64,
    exemplar: Option<(Vec<(&'a str, String)>, f64)>,
}

impl<'a> Sample<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let name = line.split(['{', ' ']).next()?;
        let (labels, rest) = labels(line.get(name.len()..)?)?;
        let (value, rest) = number(rest)?;
        let exemplar = rest.trim_start().strip_prefix("# ").and_then(|rest| {
            let (labels, rest) = self::labels(rest)?;
            Some((labels, number(rest)?.0))
        });
        Some(Self { name, labels, value, exemplar })
    }

    fn number(self, begun: u64, now: u64) -> NumberDataPoint {
        NumberDataPoint {
            attributes: attributes(self.labels),
            start_time_unix_nano: begun,
            time_unix_nano: now,
            value: Some(number_data_point::Value::AsDouble(self.value)),
            ..NumberDataPoint::default()
        }
    }

    /// Adds it to the histogram of its labels: the series of one follow each other, and their buckets ascend.
    fn part_of(mut self, name: &str, points: &mut Vec<HistogramDataPoint>, begun: u64, now: u64) {
        let edge = self.labels.iter().position(|(label, _)| *label == "le");
        let edge = edge.map(|at| self.labels.remove(at).1);
        let attributes = attributes(std::mem::take(&mut self.labels));
        if points.last().is_none_or(|last| last.attributes != attributes) {
            points.push(HistogramDataPoint {
                attributes,
                start_time_unix_nano: begun,
                time_unix_nano: now,
                ..HistogramDataPoint::default()
            });
        }
        let Some(point) = points.last_mut() else { return };
        match self.name.strip_prefix(name) {
            Some("_sum") => point.sum = Some(self.value),
            Some("_count") => point.count = count(self.value),
            Some("_bucket") => {
                let below: u64 = point.bucket_counts.iter().sum();
                point.bucket_counts.push(count(self.value).saturating_sub(below));
                if let Some(edge) = edge.and_then(|edge| edge.parse::<f64>().ok()).filter(|e| e.is_finite()) {
                    point.explicit_bounds.push(edge);
                }
                point.exemplars.extend(self.exemplar.map(|(labels, value)| exemplar(labels, value, now)));
            }
            _ => {}
        }
    }
}

/// The ids of an exemplar have fields of their own.
fn exemplar(labels: Vec<(&str, String)>, value: f64, now: u64) -> Exemplar {
    let (trace, rest): (Vec<_>, Vec<_>) = labels.into_iter().partition(|(name, _)| *name == "trace_id");
    let id = trace.first().and_then(|(_, id)| opentelemetry::TraceId::from_hex(id).ok());
    Exemplar {
        filtered_attributes: attributes(rest),
        time_unix_nano: now,
        span_id: Vec::new(),
        trace_id: id.map_or_else(Vec::new, |id| id.to_bytes().to_vec()),
        value: Some(exemplar::Value::AsDouble(value)),
    }
}

/// A count is a whole number that a double holds.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counts are far below 2^53")]
fn count(value: f64) -> u64 {
    value as u64
}

fn number(text: &str) -> Option<(f64, &str)> {
    let text = text.trim_start();
    let end = text.find(' ').unwrap_or(text.len());
    let (number, rest) = text.split_at_checked(end)?;
    Some((number.parse().ok()?, rest))
}

/// Labels between braces, if there are any, and what follows them.
fn labels(text: &str) -> Option<(Vec<(&str, String)>, &str)> {
    let mut labels = Vec::new();
    let Some(mut rest) = text.strip_prefix('{') else { return Some((labels, text)) };
    loop {
        rest = rest.trim_start_matches(',');
        if let Some(rest) = rest.strip_prefix('}') {
            return Some((labels, rest));
        }
        let (name, value) = rest.split_once("=\"")?;
        let mut text = String::new();
        let mut characters = value.char_indices();
        let end = loop {
            match characters.next()? {
                (end, '"') => break end,
                (_, '\\') => match characters.next()?.1 {
                    'n' => text.push('\n'),
                    other => text.push(other),
                },
                (_, other) => text.push(other),
            }
        };
        labels.push((name, text));
        rest = value.get(end + 1..)?;
    }
}

fn attributes(labels: Vec<(&str, String)>) -> Vec<KeyValue> {
    labels.into_iter().map(|(key, value)| attribute(key, any_value::Value::StringValue(value))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        context::{RequestContext, Served},
        metrics::ModelMetrics,
    };
    use std::time::UNIX_EPOCH;

    const TEXT: &str = concat!(
        "# HELP model_request Requests.\n# TYPE model_request counter\n",
        "model_request_total{model_name=\"a \\\"b\\\\\\n,}=\",http_status=\"200\"} 3\n",
        "model_request_total{model_name=\"\"} 4\n",
        "# HELP queue_depth Jobs.\n# TYPE queue_depth gauge\nqueue_depth 1.5\n",
        "# HELP wait_seconds Wait.\n# TYPE wait_seconds histogram\n",
        "wait_seconds_sum{m=\"x\"} 0.75\nwait_seconds_count{m=\"x\"} 3\n",
        "wait_seconds_bucket{le=\"0.1\",m=\"x\"} 1 # {trace_id=\"0af7651916cd43dd8448eb211c80319c\"} 0.05\n",
        "wait_seconds_bucket{le=\"0.5\",m=\"x\"} 3\nwait_seconds_bucket{le=\"+Inf\",m=\"x\"} 3\n",
        "wait_seconds_sum{m=\"y\"} 9\nwait_seconds_count{m=\"y\"} 1\n",
        "wait_seconds_bucket{le=\"0.1\",m=\"y\"} 0\nwait_seconds_bucket{le=\"0.5\",m=\"y\"} 0\n",
        "wait_seconds_bucket{le=\"+Inf\",m=\"y\"} 1\n# EOF\n",
    );

    fn read(text: &str) -> Vec<Metric> {
        let origin = Origin::new("test", Vec::new());
        let mut request = request(text, &origin, UNIX_EPOCH, SystemTime::now());
        let mut resource = request.resource_metrics.remove(0);
        assert_eq!(resource.resource, Some(origin.resource));
        resource.scope_metrics.remove(0).metrics
    }

    fn labels(attributes: &[KeyValue]) -> Vec<(&str, &str)> {
        let text = |value: &KeyValue| match value.value.as_ref().unwrap().value.as_ref().unwrap() {
            any_value::Value::StringValue(_) => (),
            other => panic!("{other:?}"),
        };
        attributes.iter().for_each(text);
        attributes
            .iter()
            .map(|label| match label.value.as_ref().and_then(|value| value.value.as_ref()) {
                Some(any_value::Value::StringValue(value)) => (label.key.as_str(), value.as_str()),
                _ => ("", ""),
            })
            .collect()
    }

    #[test]
    fn families_keep_their_names_and_numbers() {
        let [counter, gauge, histogram] = read(TEXT).try_into().unwrap();
        assert_eq!(
            (counter.name.as_str(), counter.description.as_str()),
            ("model_request_total", "Requests")
        );
        let Some(metric::Data::Sum(sum)) = counter.data else { panic!() };
        assert!(sum.is_monotonic && sum.aggregation_temporality == AggregationTemporality::Cumulative as i32);
        assert_eq!(
            labels(&sum.data_points[0].attributes),
            [("model_name", "a \"b\\\n,}="), ("http_status", "200")]
        );
        let values: Vec<_> = sum.data_points.iter().map(|point| point.value).collect();
        assert_eq!(values, [3.0, 4.0].map(|n| Some(number_data_point::Value::AsDouble(n))));
        let Some(metric::Data::Gauge(gauge)) = gauge.data else { panic!() };
        assert_eq!(gauge.data_points[0].value, Some(number_data_point::Value::AsDouble(1.5)));
        assert_eq!((histogram.name.as_str(), histogram.unit.as_str()), ("wait_seconds", "s"));
        let Some(metric::Data::Histogram(histogram)) = histogram.data else { panic!() };
        let [x, y] = histogram.data_points.try_into().unwrap();
        assert_eq!((labels(&x.attributes), x.count, x.sum), (vec![("m", "x")], 3, Some(0.75)));
        assert_eq!((x.explicit_bounds, x.bucket_counts), (vec![0.1, 0.5], vec![1, 2, 0]));
        assert_eq!((y.explicit_bounds, y.bucket_counts), (vec![0.1, 0.5], vec![0, 0, 1]));
        let [exemplar] = x.exemplars.try_into().unwrap();
        assert_eq!(exemplar.trace_id[..2], [0x0a, 0xf7]);
        assert_eq!(exemplar.value, Some(exemplar::Value::AsDouble(0.05)));
    }

    /// What is really rendered is read whole: no line of it is passed over.
    #[test]
    fn all_that_is_rendered_is_read() {
        let metrics = ModelMetrics::default();
        let context = RequestContext::read(&http::HeaderMap::new());
        context.serve(Served { model: "digits".into(), version: "2".into(), hardware: "cpu" });
        let text = metrics.render();
        let samples = text.lines().filter(|line| !line.starts_with('#')).count();
        let families = text.lines().filter(|line| line.starts_with("# TYPE")).count();
        let parsed = text.lines().filter(|line| !line.starts_with('#')).filter_map(Sample::parse).count();
        assert_eq!((samples, families), (parsed, read(&text).len()));
    }
}
