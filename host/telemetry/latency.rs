//! `Counts`: how long things took, counted finely enough to tell quantiles of any stretch of time.

use std::array;
use std::time::Duration;

/// Upper bounds of the buckets in nanoseconds, from 1 µs to 100 s in steps of ISO 3's series R10: a
/// quantile is told 28 % too high at most, and round bounds are among them.
pub(super) const BOUNDS: [u64; 81] = {
    const SERIES: [u64; 10] = [100, 125, 160, 200, 250, 315, 400, 500, 630, 800];
    let mut bounds = [0; 81];
    let mut place = 0;
    while place < bounds.len() {
        bounds[place] = SERIES[place % 10] * 10_u64.pow(place as u32 / 10 + 1);
        place += 1;
    }
    bounds
};

/// One bucket for each of [`BOUNDS`], and one for what takes longer.
pub(super) const BUCKETS: usize = BOUNDS.len() + 1;

/// All counts at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counts(pub(super) [u64; BUCKETS]);

impl Counts {
    /// What was counted since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let place = |place: usize| self.0[place].saturating_sub(earlier.0[place]);
        Self(array::from_fn(place))
    }

    /// The span that a part of `quantile`, 0 to 1, did not exceed, 100 s at most; none of nothing.
    pub fn quantile(&self, quantile: f64) -> Option<Duration> {
        let rank = (self.sum() as f64 * quantile).ceil() as u64;
        let mut below = 0;
        let place = self.0.iter().position(|count| {
            below += count;
            below >= rank.max(1)
        })?;
        let last = BOUNDS.len() - 1;
        Some(Duration::from_nanos(BOUNDS[place.min(last)]))
    }

    /// How many were counted.
    pub(super) fn sum(&self) -> u64 {
        self.0.iter().sum()
    }

    /// How many took longer than `over` and no longer than `up_to`, in nanoseconds. Both are among
    /// [`BOUNDS`], or 0, or [`u64::MAX`] for no end.
    pub(super) fn between(&self, over: u64, up_to: u64) -> u64 {
        self.0[bucket(over + 1)..=bucket(up_to)].iter().sum()
    }
}

/// The bucket of what took `nanos`.
pub(super) fn bucket(nanos: u64) -> usize {
    BOUNDS.partition_point(|bound| *bound < nanos)
}

impl Default for Counts {
    fn default() -> Self {
        Self([0; BUCKETS])
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_bucket_holds_what_is_little_below_its_end(nanos in 1_001u64..100_000_000_000) {
            let end = BOUNDS[bucket(nanos)];
            prop_assert!(end >= nanos && end * 100 < nanos * 128, "{nanos}: {end}");
        }
    }

    #[test]
    fn buckets_reach_from_a_microsecond_to_a_hundred_seconds() {
        assert_eq!((BOUNDS[0], BOUNDS[80]), (1_000, 100_000_000_000));
        assert!(BOUNDS.is_sorted());
        assert_eq!((bucket(0), bucket(1_000), bucket(1_001)), (0, 0, 1));
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }
}
