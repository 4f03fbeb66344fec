//! How long things took: a histogram of fixed size that any thread may record into.

use core::{array, fmt, time::Duration};

use crate::sync::{AtomicU64, Ordering};

/// Counts of durations, by powers of two and their halves: 432 bytes, whatever is recorded.
///
/// The buckets end at 1, 2, 3, 5, 7, 11, 15, 23 … µs: two for each octave, so that the bound of a
/// bucket is less than half above anything in it. Recording is two relaxed additions.
pub(crate) struct Histogram {
    buckets: [AtomicU64; BUCKETS],
    /// Of all durations, in microseconds.
    sum: AtomicU64,
}

/// How long things took: counts of durations in buckets, of one lane or of several added up.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct HistogramSnapshot {
    buckets: [u64; BUCKETS],
    sum: u64,
}

/// Powers of two above 1 µs that are told apart.
const OCTAVES: usize = 26;
const BUCKETS: usize = 1 + 2 * OCTAVES;

impl Histogram {
    /// Nothing recorded.
    pub(crate) fn new() -> Self {
        Self { buckets: array::from_fn(|_| AtomicU64::new(0)), sum: AtomicU64::new(0) }
    }

    /// Counts a duration, in microseconds.
    #[inline]
    pub(crate) fn record(&self, micros: u64) {
        // Relaxed, both: statistics.
        self.buckets[bucket(micros)].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(micros, Ordering::Relaxed);
    }

    /// The counts at about this moment: what is recorded meanwhile may be in or not, and in the
    /// mean before it is in the count.
    pub(crate) fn snapshot(&self) -> HistogramSnapshot {
        // Relaxed, both: statistics.
        HistogramSnapshot {
            buckets: array::from_fn(|at| self.buckets[at].load(Ordering::Relaxed)),
            sum: self.sum.load(Ordering::Relaxed),
        }
    }
}

impl HistogramSnapshot {
    /// The longest duration that is told from longer ones: 2^27 - 1 µs, two minutes and 14 s.
    /// Longer ones count as this long, but for the mean.
    pub const LONGEST: Duration = Duration::from_micros(upper_bound(BUCKETS - 1));

    /// What was recorded since an earlier snapshot of the same.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let buckets = array::from_fn(|at| self.buckets[at].saturating_sub(earlier.buckets[at]));
        Self { buckets, sum: self.sum.saturating_sub(earlier.sum) }
    }

    /// Nothing recorded.
    pub const EMPTY: Self = Self { buckets: [0; BUCKETS], sum: 0 };

    /// Adds the counts of another: of other lanes, or of other pools.
    pub fn add(&mut self, other: &Self) {
        for (ours, theirs) in self.buckets.iter_mut().zip(&other.buckets) {
            *ours += theirs;
        }
        // It wraps as the histogram's own does, after 584,000 years of waiting.
        self.sum = self.sum.wrapping_add(other.sum);
    }

    /// How many durations were recorded.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// The sum of all durations.
    pub fn sum(&self) -> Duration {
        Duration::from_micros(self.sum)
    }

    /// The mean, to the microsecond; `None` when nothing was recorded.
    pub fn mean(&self) -> Option<Duration> {
        self.sum.checked_div(self.count()).map(Duration::from_micros)
    }

    /// The duration within which the share `q` of all ended: 0.5 for the median, 0.99 for the
    /// 99th percentile. `None` when nothing was recorded, or `q` is not in 0 to 1.
    ///
    /// It is the upper bound of the bucket with the exact quantile `e` (the ⌈q·count⌉-th
    /// shortest): never less than `e`, and less than 1.5 `e`. Two exceptions: what took less than
    /// 1 µs reads as 1 µs, and what took more than [`Self::LONGEST`] as that.
    pub fn quantile(&self, q: f64) -> Option<Duration> {
        let count = self.count();
        if count == 0 || !(0.0..=1.0).contains(&q) {
            return None;
        }
        let rank = ((count as f64 * q).ceil() as u64).clamp(1, count);
        let mut seen = 0;
        self.buckets().find_map(|(bound, count)| {
            seen += count;
            (seen >= rank).then_some(bound)
        })
    }

    /// The buckets, the shortest first: the longest duration that belongs in each, and how many
    /// it has. The last one has the longer ones too.
    pub fn buckets(&self) -> impl Iterator<Item = (Duration, u64)> {
        let bounds = (0..BUCKETS).map(|at| Duration::from_micros(upper_bound(at)));
        bounds.zip(self.buckets)
    }
}

/// The bucket of a duration: 0 for up to 1 µs, then two for each octave.
#[inline]
const fn bucket(micros: u64) -> usize {
    if micros < 2 {
        return 0;
    }
    let octave = micros.ilog2();
    let upper_half = (micros >> (octave - 1) & 1) as usize;
    let at = 2 * octave as usize - 1 + upper_half;
    if at < BUCKETS { at } else { BUCKETS - 1 }
}

/// The longest duration of a bucket, in microseconds.
const fn upper_bound(at: usize) -> u64 {
    if at == 0 {
        return 1;
    }
    let octave = at.div_ceil(2) as u32;
    if at % 2 == 1 { (3 << (octave - 1)) - 1 } else { (2 << octave) - 1 }
}

impl Default for Histogram {
    fn default() -> Self {
        Self::new()
    }
}

impl Default for HistogramSnapshot {
    fn default() -> Self {
        Self::EMPTY
    }
}

impl fmt::Debug for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.snapshot().fmt(f)
    }
}

impl fmt::Debug for HistogramSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Histogram")
            .field("count", &self.count())
            .field("mean", &self.mean())
            .field("median", &self.quantile(0.5))
            .field("p99", &self.quantile(0.99))
            .finish_non_exhaustive()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const QUANTILES: [f64; 8] = [0.0, 0.001, 0.1, 0.5, 0.9, 0.99, 0.999, 1.0];

    /// xorshift64*.
    fn random(state: &mut u64) -> u64 {
        *state ^= *state >> 12;
        *state ^= *state << 25;
        *state ^= *state >> 27;
        state.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn of(values: &[u64]) -> HistogramSnapshot {
        let histogram = Histogram::new();
        values.iter().for_each(|micros| histogram.record(*micros));
        histogram.snapshot()
    }

    fn exact(sorted: &[u64], q: f64) -> u64 {
        sorted[((sorted.len() as f64 * q).ceil() as usize).max(1) - 1]
    }

    #[test]
    fn buckets_meet_without_gap_or_overlap() {
        for at in 0..BUCKETS {
            let bound = upper_bound(at);
            assert_eq!(bucket(bound), at, "the bound {bound} of bucket {at}");
            assert_eq!(bucket(bound + 1), (at + 1).min(BUCKETS - 1), "{bound} + 1");
        }
        assert_eq!(bucket(0), 0);
        assert_eq!(HistogramSnapshot::LONGEST.as_micros(), (1 << 27) - 1);
        let bounds: Vec<u64> = (0..8).map(upper_bound).collect();
        assert_eq!(bounds, [1, 2, 3, 5, 7, 11, 15, 23]);
    }

    #[test]
    fn quantiles_of_random_data_are_within_the_bound() {
        let mut state = 0x9E37_79B9_7F4A_7C15;
        for round in 0..200 {
            let most = 1_u64 << (1 + round % 27);
            let skew = round % 3;
            let mut values: Vec<u64> = (0..1 + random(&mut state) % 3_000)
                .map(|_| {
                    let uniform = 1 + random(&mut state) % (most - 1);
                    (0..skew).fold(uniform, |value, _| 1 + value * (random(&mut state) % 64) / 64)
                })
                .collect();
            let counts = of(&values);
            assert_eq!(counts.count(), values.len() as u64);
            assert_eq!(
                counts.mean().unwrap().as_micros(),
                u128::from(values.iter().sum::<u64>() / values.len() as u64)
            );
            values.sort_unstable();
            for q in QUANTILES {
                let exact = exact(&values, q);
                let told = counts.quantile(q).unwrap().as_micros() as u64;
                assert!(told >= exact, "round {round}, q {q}: {told} < {exact}");
                assert!(2 * told < 3 * exact, "round {round}, q {q}: {told} for {exact}");
            }
        }
    }

    #[test]
    fn what_is_shorter_or_longer_than_all_buckets_is_counted() {
        let counts = of(&[0, u64::from(u32::MAX)]);
        assert_eq!(counts.quantile(0.5), Some(Duration::from_micros(1)));
        assert_eq!(counts.quantile(1.0), Some(HistogramSnapshot::LONGEST));
        assert_eq!(counts.sum(), Duration::from_micros(u64::from(u32::MAX)), "not cut off");
    }

    #[test]
    fn there_is_no_quantile_of_nothing_or_out_of_range() {
        assert_eq!(HistogramSnapshot::EMPTY.quantile(0.5), None);
        assert_eq!(HistogramSnapshot::EMPTY.mean(), None);
        for q in [-0.1, 1.1, f64::NAN, f64::INFINITY] {
            assert_eq!(of(&[1]).quantile(q), None, "{q}");
        }
    }

    #[test]
    fn the_sum_of_two_is_the_histogram_of_both() {
        let (one, two) = ([1, 5, 900], [5, 70_000]);
        let mut sum = of(&one);
        sum.add(&of(&two));
        assert_eq!(sum, of(&[one.as_slice(), &two].concat()));
        let mut same = sum;
        same.add(&HistogramSnapshot::EMPTY);
        assert_eq!(same, sum);
    }
    #[test]
    fn what_came_since_is_what_was_recorded_between() {
        let histogram = Histogram::new();
        histogram.record(5);
        let earlier = histogram.snapshot();
        histogram.record(5);
        histogram.record(70_000);
        let since = histogram.snapshot().since(&earlier);
        assert_eq!(since, of(&[5, 70_000]));
        assert_eq!(earlier.since(&histogram.snapshot()), HistogramSnapshot::EMPTY);
    }
}
