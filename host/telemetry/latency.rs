//! `Latency`: how long something took, counted so that quantiles of any stretch of time can be told.

use std::array;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use thread_local::ThreadLocal;

/// Buckets of each power of two of microseconds: a quantile is told a quarter too high at most.
const PER_OCTAVE: u32 = 4;

/// From 1 µs to 67 s; what takes longer counts as that.
const BUCKETS: usize = 26 * PER_OCTAVE as usize;

/// Counts that each thread adds to in a place of its own.
#[derive(Debug, Default, Clone)]
pub struct Latency(Arc<ThreadLocal<Part>>);

/// One thread's part, on cache lines of its own.
#[derive(Debug)]
#[repr(align(128))]
struct Part([AtomicU64; BUCKETS]);

/// All counts at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counts([u64; BUCKETS]);

impl Default for Part {
    fn default() -> Self {
        Self(array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl Latency {
    /// Counts something that took `span`.
    pub fn observe(&self, span: Duration) {
        let Part(part) = self.0.get_or_default();
        let count = &part[bucket(span)];
        // No other thread writes it: no need for a locked instruction.
        count.store(count.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    /// What was counted so far.
    pub fn counts(&self) -> Counts {
        let mut sums = [0; BUCKETS];
        for Part(part) in self.0.iter() {
            for (sum, count) in sums.iter_mut().zip(part) {
                *sum += count.load(Ordering::Relaxed);
            }
        }
        Counts(sums)
    }
}

impl Counts {
    /// What was counted since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let place = |place: usize| self.0[place].saturating_sub(earlier.0[place]);
        Self(array::from_fn(place))
    }

    /// The span that a part of `quantile`, 0 to 1, stayed below; none of nothing.
    pub fn quantile(&self, quantile: f64) -> Option<Duration> {
        let total: u64 = self.0.iter().sum();
        let rank = (total as f64 * quantile).ceil() as u64;
        let mut below = 0;
        let place = self.0.iter().position(|count| {
            below += count;
            below >= rank.max(1)
        })?;
        Some(upper(place))
    }
}

fn bucket(span: Duration) -> usize {
    let micros = u64::try_from(span.as_micros()).unwrap_or(u64::MAX).max(1);
    let octave = micros.ilog2();
    let part = (u128::from(micros) << 2 >> octave) & 3;
    let place = octave * PER_OCTAVE + part as u32;
    usize::try_from(place).unwrap_or(BUCKETS).min(BUCKETS - 1)
}

/// Where a bucket ends.
fn upper(place: usize) -> Duration {
    let (octave, part) = (place / PER_OCTAVE as usize, place % PER_OCTAVE as usize);
    Duration::from_micros(((5 + part as u64) << octave).div_ceil(4))
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
        fn a_bucket_holds_what_is_up_to_a_quarter_below_its_end(micros in 4u64..60_000_000) {
            let end = upper(bucket(Duration::from_micros(micros))).as_micros() as u64;
            prop_assert!(end > micros && end <= micros + micros / 4 + 1, "{micros}: {end}");
        }
    }

    #[test]
    fn quantiles_of_a_stretch_of_time() {
        let latency = Latency::default();
        assert_eq!(latency.counts().quantile(0.5), None);
        let observe = |span, times: u32| (0..times).for_each(|_| latency.observe(span));
        observe(Duration::from_secs(3_600), 1_000);
        let before = latency.counts();
        std::thread::scope(|scope| {
            scope.spawn(|| observe(Duration::from_micros(100), 98));
        });
        observe(Duration::from_millis(50), 2);
        let since = latency.counts().since(&before);
        let told = |quantile| since.quantile(quantile).unwrap().as_micros();
        assert_eq!((told(0.0), told(0.5), told(0.98)), (112, 112, 112));
        assert_eq!((told(0.99), told(1.0)), (57_344, 57_344));
        assert!(before.quantile(1.0).unwrap() > Duration::from_secs(60));
    }
}
