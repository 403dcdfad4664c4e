//! A metric's mergeable statistics, and what a batch may say in them.

use super::Refusal;
use halftone_judge::stats::{BUCKETS, Grid, Histogram, Mean, Merge, UnitBuckets};
use halftone_proto::v1;
use prost::Message;

/// More values of a metric than this have no batch. So many batches can be added up before a count is too large.
const MOST: u64 = 1 << 40;

/// What each edge of a bucket may be off by: it is computed on the other side, too.
const SLACK: f64 = 1e-6;

/// A metric of the requests of a series.
#[derive(Clone, Debug, PartialEq)]
pub struct Statistics {
    /// Moments of the values that were finite numbers.
    pub moments: Mean,
    /// Counts of all values.
    pub histogram: Histogram,
    /// Sums by units; `None` where no request had a unit, and for metrics that are no mean per request.
    pub units: Option<UnitBuckets>,
}

/// What is known of a metric's values by its name.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Values {
    /// Whether something happened: 0 or 1.
    Event,
    /// Seconds: not negative.
    Seconds,
    /// Any number.
    Any,
}

impl Values {
    fn of(metric: &str) -> Self {
        match metric {
            "error" | "refused" | "nan" | "range" => Self::Event,
            "latency" | "latency_failed" => Self::Seconds,
            _ => Self::Any,
        }
    }
}

impl Statistics {
    /// Takes a metric's statistics over, when they can be of any values at all.
    ///
    /// # Errors
    /// What is wrong with them.
    pub(super) fn checked(statistics: &v1::Statistics) -> Result<Self, Refusal> {
        let moments =
            moments(statistics.moments.as_ref().ok_or_else(|| Refusal::new("it has no `moments`"))?)?;
        let histogram =
            histogram(statistics.histogram.as_ref().ok_or_else(|| Refusal::new("it has no `histogram`"))?)?;
        let units = statistics.units.as_ref().map(unit_buckets).transpose()?;
        let checked = Self { moments, histogram, units };
        checked.agree()?;
        checked.suit(Values::of(&statistics.metric))?;
        Ok(checked)
    }

    /// Whether the histogram and the sums can be of the values of the moments.
    fn agree(&self) -> Result<(), Refusal> {
        let Self { moments, histogram, units } = self;
        let finite = moments.n;
        let all = histogram.total()?.checked_add(histogram.negative + histogram.nan);
        if all != finite.checked_add(moments.rejected) {
            return Err(Refusal::new(format!(
                "its histogram counts {} values, its moments {finite} and {} that are no finite numbers",
                all.unwrap_or(u64::MAX),
                moments.rejected
            )));
        }
        if histogram.nan + histogram.infinite > moments.rejected {
            return Err(Refusal::new("its histogram has more NaN and infinite values than were `rejected`"));
        }
        let grid = histogram.grid;
        let (first, last) = (histogram.counts.keys().next(), histogram.counts.keys().next_back());
        if let (Some(first), Some(last)) = (first, last) {
            let (least, most) = (grid.upper_edge(*first - 1), grid.upper_edge(*last));
            let below = histogram.negative == 0 && histogram.zero == 0 && moments.min < least * (1.0 - SLACK);
            if below
                || moments.max > most * (1.0 + SLACK)
                || moments.max < grid.upper_edge(*last - 1) * (1.0 - SLACK)
            {
                return Err(Refusal::new(format!(
                    "its values are from {} to {}, and its buckets from {least} to {most}",
                    moments.min, moments.max
                )));
            }
        }
        // −∞ counts as negative, and is none of the finite values.
        let negative = finite > 0 && moments.min < 0.0;
        if negative && histogram.negative == 0 || !negative && histogram.negative > moments.rejected {
            return Err(Refusal::new("its histogram and its minimum do not agree on negative values"));
        }
        let Some(units) = units else { return Ok(()) };
        let (sum, of) = units.totals();
        if of > finite as f64 {
            return Err(Refusal::new(format!("its unit sums are of {of} values, and there are {finite}")));
        }
        let scale = moments.min.abs().max(moments.max.abs()) * finite as f64;
        if of == finite as f64 && (sum - moments.mean * finite as f64).abs() > SLACK * scale {
            return Err(Refusal::new(format!(
                "its unit sums are {sum} together, and its mean is {}",
                moments.mean
            )));
        }
        Ok(())
    }

    /// Whether the values can be a metric's of this name.
    fn suit(&self, values: Values) -> Result<(), Refusal> {
        let Self { moments, histogram, units } = self;
        if values == Values::Any {
            return Ok(());
        }
        if moments.min < 0.0 || histogram.negative > 0 {
            return Err(Refusal::new("it has negative values"));
        }
        let sums = || units.iter().flat_map(|units| &units.sums);
        if sums().any(|(sum, _)| *sum < 0.0) {
            return Err(Refusal::new("a unit sum is negative"));
        }
        if values == Values::Seconds {
            return Ok(());
        }
        let n = moments.n;
        let k = histogram.counts.get(&0).copied().unwrap_or_default();
        let only_events =
            histogram.zero.checked_add(k) == Some(n) && moments.rejected == 0 && moments.max <= 1.0;
        if !only_events {
            return Err(Refusal::new("it has values besides 0 and 1: `zero` and bucket 0 have to hold all"));
        }
        if (moments.mean * n as f64 - k as f64).abs() > SLACK * n as f64 {
            return Err(Refusal::new(format!(
                "its mean is {}, and its histogram has {k} events of {n}",
                moments.mean
            )));
        }
        match sums().find(|(sum, of)| sum > of) {
            Some((sum, of)) => Err(Refusal::new(format!("a unit bucket has {sum} events of {of} requests"))),
            None => Ok(()),
        }
    }

    /// As it is kept: in the form in which it came.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let Self { moments, histogram, units } = self;
        let units = units.as_ref().map(|units| {
            let filled = || (0..).zip(&units.sums).filter(|(_, (_, of))| *of > 0.0);
            v1::UnitSums {
                buckets: filled().map(|(bucket, _)| bucket).collect(),
                numerators: filled().map(|(_, (sum, _))| *sum).collect(),
                denominators: filled().map(|(_, (_, of))| whole(*of)).collect(),
            }
        });
        let statistics = v1::Statistics {
            metric: String::new(),
            moments: Some(v1::Moments {
                count: moments.n,
                mean: moments.mean,
                m2: moments.m2,
                min: moments.min,
                max: moments.max,
                rejected: moments.rejected,
            }),
            histogram: Some(v1::LogHistogram {
                error_ppm: histogram.grid.into(),
                buckets: histogram.counts.keys().copied().collect(),
                counts: histogram.counts.values().copied().collect(),
                zero: histogram.zero,
                infinite: histogram.infinite,
                negative: histogram.negative,
                nan: histogram.nan,
            }),
            units,
        };
        statistics.encode_to_vec()
    }

    /// From what was kept; `None` when it is damaged.
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let v1::Statistics { moments, histogram, units, .. } = v1::Statistics::decode(bytes).ok()?;
        let (moments, histogram) = (moments?, histogram?);
        let units = units.map(|units| {
            let mut buckets = UnitBuckets::default();
            let filled = units.buckets.iter().zip(units.numerators.iter().zip(&units.denominators));
            for (bucket, (sum, of)) in filled {
                buckets.push(usize::try_from(*bucket).unwrap_or_default(), *sum, *of as f64);
            }
            buckets
        });
        Some(Self {
            moments: Mean {
                n: moments.count,
                mean: moments.mean,
                m2: moments.m2,
                min: moments.min,
                max: moments.max,
                rejected: moments.rejected,
            },
            histogram: Histogram {
                grid: Grid::try_from(histogram.error_ppm).ok()?,
                counts: histogram.buckets.into_iter().zip(histogram.counts).collect(),
                zero: histogram.zero,
                infinite: histogram.infinite,
                negative: histogram.negative,
                nan: histogram.nan,
            },
            units,
        })
    }
}

impl Merge for Statistics {
    /// What is too large for a number stays the largest one: values beyond 1e150 are a model's trouble, and no reason to
    /// lose what else is known of it.
    fn merge(&self, other: &Self) -> halftone_judge::Result<Self> {
        let mut units = match (&self.units, &other.units) {
            (Some(one), Some(other)) => Some(one.merge(other)?),
            (one, other) => one.as_ref().or(other.as_ref()).cloned(),
        };
        for (sum, _) in units.iter_mut().flat_map(|units| &mut units.sums) {
            *sum = sum.clamp(f64::MIN, f64::MAX);
        }
        let moments = self.moments.merge(&other.moments)?;
        Ok(Self {
            moments: Mean { m2: moments.m2.min(f64::MAX), ..moments },
            histogram: self.histogram.merge(&other.histogram)?,
            units,
        })
    }
}

/// A number of values, which is whole and not negative.
fn whole(count: f64) -> u64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it was a u64 below 2^53")]
    let whole = count as u64;
    whole
}

impl From<halftone_judge::Error> for Refusal {
    fn from(error: halftone_judge::Error) -> Self {
        Self::new(error.to_string())
    }
}

fn moments(moments: &v1::Moments) -> Result<Mean, Refusal> {
    let v1::Moments { count, mean, m2, min, max, rejected } = *moments;
    if count > MOST || rejected > MOST {
        return Err(Refusal::new(format!("its moments count {} values", count.max(rejected))));
    }
    let new = Mean { n: count, mean, m2, min, max, rejected };
    new.check()?;
    if count > 0 && min > max {
        return Err(Refusal::new(format!("its minimum {min} is above its maximum {max}")));
    }
    if count > 0 && (mean < min - SLACK * min.abs() || mean > max + SLACK * max.abs()) {
        return Err(Refusal::new(format!("its mean {mean} is not from {min} to {max}")));
    }
    // No values of that range are farther apart.
    let spread = (max - min) * (max - min) * count as f64;
    if m2 > spread * (0.25 + SLACK) + f64::MIN_POSITIVE && m2 > SLACK * mean * mean * count as f64 {
        return Err(Refusal::new(format!("its m2 {m2} is more than values from {min} to {max} can have")));
    }
    Ok(new)
}

fn histogram(histogram: &v1::LogHistogram) -> Result<Histogram, Refusal> {
    let v1::LogHistogram { error_ppm, buckets, counts, zero, infinite, negative, nan } = histogram;
    // All of them are added up.
    let grid = Grid::default();
    if *error_ppm != u32::from(grid) {
        return Err(Refusal::new(format!(
            "its histogram has an `error_ppm` of {error_ppm}, and has to have {}",
            u32::from(grid)
        )));
    }
    if buckets.len() != counts.len() {
        return Err(Refusal::new(format!(
            "its histogram has {} buckets and {} counts",
            buckets.len(),
            counts.len()
        )));
    }
    if !buckets.is_sorted_by(|one, next| one < next) {
        return Err(Refusal::new("its histogram's buckets do not ascend"));
    }
    let (least, most) = (grid.index(f64::from_bits(1)), grid.index(f64::MAX));
    if let Some(bucket) = buckets.iter().find(|bucket| !(least..=most).contains(bucket)) {
        return Err(Refusal::new(format!(
            "its histogram has bucket {bucket}, and there are {least} to {most}"
        )));
    }
    let all = || counts.iter().chain([zero, infinite, negative, nan]);
    if counts.contains(&0) || all().any(|count| *count > MOST) {
        return Err(Refusal::new(
            "its histogram has a bucket with no values, or more than a bucket can have",
        ));
    }
    Ok(Histogram {
        grid,
        counts: buckets.iter().copied().zip(counts.iter().copied()).collect(),
        zero: *zero,
        infinite: *infinite,
        negative: *negative,
        nan: *nan,
    })
}

fn unit_buckets(sums: &v1::UnitSums) -> Result<UnitBuckets, Refusal> {
    let v1::UnitSums { buckets, numerators, denominators } = sums;
    if buckets.len() != numerators.len() || buckets.len() != denominators.len() {
        return Err(Refusal::new(format!(
            "its unit sums have {} buckets, {} numerators and {} denominators",
            buckets.len(),
            numerators.len(),
            denominators.len()
        )));
    }
    if !buckets.is_sorted_by(|one, next| one < next) {
        return Err(Refusal::new("its unit sums' buckets do not ascend"));
    }
    let mut units = UnitBuckets::default();
    for ((bucket, sum), of) in buckets.iter().zip(numerators).zip(denominators) {
        let at = usize::try_from(*bucket).ok().and_then(|bucket| units.sums.get_mut(bucket));
        let at =
            at.ok_or_else(|| Refusal::new(format!("its unit sums have bucket {bucket} of {BUCKETS}")))?;
        if !sum.is_finite() || *of == 0 || *of > MOST {
            return Err(Refusal::new(format!("its unit sums have {sum} of {of} values in bucket {bucket}")));
        }
        *at = (*sum, *of as f64);
    }
    Ok(units)
}
