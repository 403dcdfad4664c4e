//! The module's metrics, with Envoy's semantics.

use crate::imports::Status;

/// How many metric ids a module may define.
const MAX_METRICS: usize = 4096;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
}

struct Metric {
    kind: Kind,
    name: Vec<u8>,
    value: u64,
}

/// Metrics by id. As in Envoy each definition gives a new id, and equal definitions share one value.
#[derive(Default)]
pub(crate) struct Metrics {
    metrics: Vec<Metric>,
    /// Indices into `metrics`; an id is a position here plus one.
    ids: Vec<usize>,
}

impl Metrics {
    pub(crate) fn define(&mut self, kind: u32, name: &[u8]) -> Result<u32, Status> {
        let kind = match kind {
            0 => Kind::Counter,
            1 => Kind::Gauge,
            2 => Kind::Histogram,
            _ => return Err(Status::BadArgument),
        };
        if self.ids.len() >= MAX_METRICS {
            return Err(Status::InternalFailure);
        }
        let known = self.metrics.iter().position(|metric| metric.kind == kind && metric.name == name);
        let index = known.unwrap_or_else(|| {
            self.metrics.push(Metric { kind, name: name.to_vec(), value: 0 });
            self.metrics.len() - 1
        });
        self.ids.push(index);
        u32::try_from(self.ids.len()).map_err(|_| Status::InternalFailure)
    }

    pub(crate) fn increment(&mut self, id: u32, offset: i64) -> Result<(), Status> {
        let metric = self.metric(id)?;
        metric.value = match metric.kind {
            Kind::Counter if offset > 0 => metric.value.wrapping_add_signed(offset),
            Kind::Gauge => metric.value.wrapping_add_signed(offset),
            Kind::Counter | Kind::Histogram => return Err(Status::BadArgument),
        };
        Ok(())
    }

    pub(crate) fn record(&mut self, id: u32, value: u64) -> Result<(), Status> {
        let metric = self.metric(id)?;
        metric.value = match metric.kind {
            Kind::Counter => metric.value.wrapping_add(value),
            Kind::Gauge => value,
            Kind::Histogram => metric.value.wrapping_add(1),
        };
        Ok(())
    }

    pub(crate) fn get(&mut self, id: u32) -> Result<u64, Status> {
        let metric = self.metric(id)?;
        if metric.kind == Kind::Histogram {
            return Err(Status::BadArgument);
        }
        Ok(metric.value)
    }

    /// The value of the first metric of that name.
    pub(crate) fn by_name(&self, name: &[u8]) -> Option<u64> {
        self.metrics.iter().find(|metric| metric.name == name).map(|metric| metric.value)
    }

    fn metric(&mut self, id: u32) -> Result<&mut Metric, Status> {
        let position = usize::try_from(id).ok().and_then(|id| id.checked_sub(1)).ok_or(Status::NotFound)?;
        let index = *self.ids.get(position).ok_or(Status::NotFound)?;
        self.metrics.get_mut(index).ok_or(Status::NotFound)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_only_grow_and_gauges_are_set() {
        let mut metrics = Metrics::default();
        let counter = metrics.define(0, b"c").unwrap();
        let gauge = metrics.define(1, b"g").unwrap();
        metrics.increment(counter, 2).unwrap();
        assert_eq!(metrics.increment(counter, 0), Err(Status::BadArgument));
        metrics.record(gauge, 7).unwrap();
        metrics.increment(gauge, -3).unwrap();
        assert_eq!((metrics.get(counter), metrics.get(gauge)), (Ok(2), Ok(4)));
        assert_eq!(metrics.by_name(b"g"), Some(4));
    }

    #[test]
    fn equal_definitions_share_a_value_under_new_ids() {
        let mut metrics = Metrics::default();
        let (first, second) = (metrics.define(0, b"c").unwrap(), metrics.define(0, b"c").unwrap());
        assert_ne!(first, second);
        metrics.increment(first, 1).unwrap();
        assert_eq!(metrics.get(second), Ok(1));
    }

    #[test]
    fn unknown_ids_and_kinds_are_refused() {
        let mut metrics = Metrics::default();
        assert_eq!(metrics.define(3, b"x"), Err(Status::BadArgument));
        for id in [0, 1, u32::MAX] {
            assert_eq!(metrics.record(id, 1), Err(Status::NotFound));
        }
    }
}
