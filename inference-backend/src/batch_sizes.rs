//! How much is run together, for the metrics.

use crate::job::Job;
use prometheus_client::metrics::histogram::Histogram;

/// Upper edges of the buckets: no batch is larger than `--max-batch`, which is seldom beyond the last one.
const BUCKETS: [f64; 11] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0];

/// Of the runs of one model, since it was loaded.
#[derive(Debug)]
pub struct BatchSizes {
    /// Requests that were run together.
    pub requests: Histogram,
    /// Rows that were run together; a request to a model without a batch dimension counts as one.
    pub rows: Histogram,
}

impl Default for BatchSizes {
    fn default() -> Self {
        Self { requests: Histogram::new(BUCKETS), rows: Histogram::new(BUCKETS) }
    }
}

impl BatchSizes {
    /// Notes a run of these.
    pub fn observe(&self, jobs: &[Job]) {
        let rows: usize = jobs.iter().map(Job::rows).sum();
        self.requests.observe(jobs.len() as f64);
        self.rows.observe(rows as f64);
    }
}
