//! `Timings`: how long requests took, counted by each thread in a place of its own.
//!
//! A histogram that all threads share costs a hit more than it does altogether; here it costs a
//! look at the clock and two additions to numbers that nobody else writes.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::StatusCode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use thread_local::ThreadLocal;

/// What the cache had for a request, in the words of `x-wisr-cache`; the last for what is not a
/// page.
const CACHE: [&str; 6] = ["hit", "stale", "miss", "shell", "bypass", "none"];

/// Classes of status codes.
const STATUS: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// Upper bounds in microseconds: most hits are in the first, a generation has 10 s by default.
const BOUNDS: [u64; 15] = [
    100, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 5_000_000, 10_000_000,
];

/// Histograms of how long requests took, by what the cache had and the class of the status.
#[derive(Debug, Default, Clone)]
pub struct Timings(Arc<ThreadLocal<Part>>);

/// One thread's part, on cache lines of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Part([[Cell; STATUS.len()]; CACHE.len()]);

#[derive(Debug, Default)]
struct Cell {
    /// One for each of [`BOUNDS`], and one for what is longer.
    counts: [AtomicU64; BOUNDS.len() + 1],
    micros: AtomicU64,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    cache: &'static str,
    status: &'static str,
}

impl Timings {
    /// Counts a request. `cache` is what `x-wisr-cache` says, if anything.
    pub fn observe(&self, cache: Option<&[u8]>, status: StatusCode, took: Duration) {
        let is =
            |word: &&str| cache.is_some_and(|cache| word.as_bytes().eq_ignore_ascii_case(cache));
        let cache = CACHE.iter().position(is).unwrap_or(CACHE.len() - 1);
        let class = usize::from(status.as_u16() / 100).clamp(1, STATUS.len()) - 1;
        let Part(cells) = self.0.get_or_default();
        let cell = &cells[cache][class];
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS.iter().position(|bound| micros <= *bound);
        add(&cell.counts[bucket.unwrap_or(BOUNDS.len())], 1);
        add(&cell.micros, micros);
    }

    /// The counts and the sum in microseconds of one histogram, over all threads.
    fn total(&self, cache: usize, status: usize) -> ([u64; BOUNDS.len() + 1], u64) {
        let (mut counts, mut micros) = ([0; BOUNDS.len() + 1], 0);
        for Part(cells) in self.0.iter() {
            let cell = &cells[cache][status];
            for (count, more) in counts.iter_mut().zip(&cell.counts) {
                *count += more.load(Ordering::Relaxed);
            }
            micros += cell.micros.load(Ordering::Relaxed);
        }
        (counts, micros)
    }
}

/// Adds to a number that no other thread writes: no need for a locked instruction.
fn add(number: &AtomicU64, more: u64) {
    let sum = number.load(Ordering::Relaxed).wrapping_add(more);
    number.store(sum, Ordering::Relaxed);
}

impl EncodeMetric for Timings {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        for (row, cache) in CACHE.into_iter().enumerate() {
            for (column, status) in STATUS.into_iter().enumerate() {
                let (counts, micros) = self.total(row, column);
                let count: u64 = counts.iter().sum();
                if count == 0 {
                    continue;
                }
                let bounds = BOUNDS.iter().map(|bound| seconds(*bound));
                let bounds = bounds.chain([f64::INFINITY]);
                let buckets: Vec<(f64, u64)> = bounds.zip(counts).collect();
                encoder
                    .encode_family(&Labels { cache, status })?
                    .encode_histogram::<NoLabelSet>(seconds(micros), count, &buckets, None)?;
            }
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

fn seconds(micros: u64) -> f64 {
    Duration::from_micros(micros).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_what_became_of_them() {
        let timings = Timings::default();
        let observe = |cache: Option<&str>, status: u16, micros: u64| {
            let status = StatusCode::from_u16(status).unwrap();
            let took = Duration::from_micros(micros);
            timings.observe(cache.map(str::as_bytes), status, took);
        };
        std::thread::scope(|scope| {
            scope.spawn(|| observe(Some("HIT"), 200, 100));
            scope.spawn(|| observe(Some("HIT"), 204, 101));
        });
        observe(Some("STALE"), 304, 60_000_000);
        observe(None, 404, 1);
        observe(Some("other"), 999, 1);
        let hits = timings.total(0, 1);
        assert_eq!((&hits.0[..3], hits.1), (&[1, 1, 0][..], 201));
        assert_eq!(timings.total(1, 2).0[BOUNDS.len()], 1);
        assert_eq!(timings.total(5, 3).0[0], 1);
        assert_eq!(timings.total(5, 4).0[0], 1);
    }
}
