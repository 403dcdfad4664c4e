//! What is known of a metric of many requests, and how it is written.

use halftone_judge::{
    Error,
    stats::{BUCKETS, Grid, Histogram, Mean, Merge, UnitBuckets},
};
use halftone_proto::v1;

/// Values beyond it count as it: their squares, summed, would be no numbers, and nobody would take the batch.
const LARGEST: f64 = 1e140;

/// What is known of a metric of many requests.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Statistics {
    /// Count, mean and spread.
    pub mean: Mean,
    /// How many values are how large.
    pub histogram: Histogram,
    /// Sums by buckets of units; none when no value was of a unit.
    pub units: Option<UnitBuckets>,
}

impl Statistics {
    /// Takes one value more, in the unit of the metric, of this unit.
    pub fn push(&mut self, value: f64, unit: Option<u64>) {
        let value = if value.is_finite() { value.clamp(-LARGEST, LARGEST) } else { value };
        self.mean.push(value);
        self.histogram.push(value);
        if let Some(unit) = unit {
            self.units.get_or_insert_default().push(bucket(unit), value, 1.0);
        }
    }

    /// As it is sent.
    #[must_use]
    pub fn encode(&self, metric: &str) -> v1::Statistics {
        let Mean { n, mean, m2, min, max, rejected } = self.mean;
        let Histogram { grid, counts, zero, infinite, negative, nan } = &self.histogram;
        v1::Statistics {
            metric: metric.to_owned(),
            moments: Some(v1::Moments { count: n, mean, m2, min, max, rejected }),
            histogram: Some(v1::LogHistogram {
                error_ppm: (*grid).into(),
                buckets: counts.keys().copied().collect(),
                counts: counts.values().copied().collect(),
                zero: *zero,
                infinite: *infinite,
                negative: *negative,
                nan: *nan,
            }),
            units: self.units.as_ref().map(encode_units),
        }
    }

    /// From what was sent.
    ///
    /// # Errors
    /// What of it cannot be.
    pub fn decode(message: &v1::Statistics) -> Result<Self, String> {
        let v1::Moments { count: n, mean, m2, min, max, rejected } = message.moments.unwrap_or_default();
        let mean = Mean { n, mean, m2, min, max, rejected };
        mean.check().map_err(|e| e.to_string())?;
        let histogram = message.histogram.clone().unwrap_or_default();
        if histogram.buckets.len() != histogram.counts.len() {
            return Err("a histogram with more buckets than counts, or fewer".into());
        }
        let histogram = Histogram {
            grid: Grid::try_from(histogram.error_ppm).map_err(|e| e.to_string())?,
            counts: histogram.buckets.into_iter().zip(histogram.counts).collect(),
            zero: histogram.zero,
            infinite: histogram.infinite,
            negative: histogram.negative,
            nan: histogram.nan,
        };
        let units = message.units.as_ref().map(decode_units).transpose()?;
        Ok(Self { mean, histogram, units })
    }
}

impl Merge for Statistics {
    fn merge(&self, other: &Self) -> Result<Self, Error> {
        let units = match (&self.units, &other.units) {
            (Some(ours), Some(theirs)) => Some(ours.merge(theirs)?),
            (one, another) => one.as_ref().or(another.as_ref()).cloned(),
        };
        let (mean, histogram) = (self.mean.merge(&other.mean)?, self.histogram.merge(&other.histogram)?);
        Ok(Self { mean, histogram, units })
    }
}

/// The bucket of a unit. The hash is xxh3 of the unit's name; units are assigned by murmur3 of a seed and the name.
#[must_use]
pub fn bucket(unit: u64) -> usize {
    // The first ten bits: fewer than 1,024.
    #[expect(clippy::cast_possible_truncation, reason = "ten bits")]
    let bucket = (unit >> (u64::BITS - BUCKETS.ilog2())) as usize;
    bucket
}

fn encode_units(units: &UnitBuckets) -> v1::UnitSums {
    let mut message = v1::UnitSums::default();
    let sums = (0..).zip(&units.sums).filter(|(_, (_, denominator))| *denominator > 0.0);
    for (bucket, (numerator, denominator)) in sums {
        message.buckets.push(bucket);
        message.numerators.push(*numerator);
        // A number of values, as no request has more than one denominator of 1.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
        message.denominators.push(*denominator as u64);
    }
    message
}

fn decode_units(message: &v1::UnitSums) -> Result<UnitBuckets, String> {
    let (buckets, sums) = (message.buckets.len(), message.numerators.len());
    if buckets != sums || buckets != message.denominators.len() {
        return Err("sums of units with more buckets than sums, or fewer".into());
    }
    let mut units = UnitBuckets::default();
    let rows = message.buckets.iter().zip(&message.numerators).zip(&message.denominators);
    for ((&bucket, &numerator), &denominator) in rows {
        let place = usize::try_from(bucket).ok().and_then(|bucket| units.sums.get_mut(bucket));
        *place.ok_or_else(|| format!("there is no bucket {bucket} of units"))? =
            (numerator, denominator as f64);
    }
    Ok(units)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn however_large_values_are_what_is_sent_is_taken() {
        let mut statistics = Statistics::default();
        for value in [f64::MAX, f64::MIN, 1.0, f64::NAN, f64::INFINITY, f64::MAX] {
            statistics.push(value, Some(7));
        }
        assert_eq!(Statistics::decode(&statistics.encode("output:y")).unwrap(), statistics);
        assert_eq!((statistics.mean.n, statistics.mean.rejected), (4, 2));
        assert!(statistics.mean.m2.is_finite());
    }
}
