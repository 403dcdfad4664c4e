//! Which program of which version runs, for Prometheus.

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, gauge::ConstGauge},
};
use std::fmt;

/// The metric `halftone_build_info`: always 1, its labels say what runs. A gauge, as other programs' metrics of that name
/// are, so that it can be joined with any other.
#[must_use]
pub fn collector(program: &'static str, version: &'static str) -> Box<dyn Collector> {
    Box::new(BuildInfo { program, version })
}

#[derive(Debug)]
struct BuildInfo {
    program: &'static str,
    version: &'static str,
}

impl Collector for BuildInfo {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let help = "1, with the program and its version as labels";
        let mut metric = encoder.encode_descriptor("halftone_build_info", help, None, MetricType::Gauge)?;
        let labels = [("program", self.program), ("version", self.version)];
        ConstGauge::new(1_i64).encode(metric.encode_family(&labels)?)
    }
}
