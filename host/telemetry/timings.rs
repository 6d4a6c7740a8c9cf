//! `Timings`: how long requests took, counted by each thread in a place of its own.
//!
//! A histogram that all threads share costs a hit more than it does altogether; here it costs a
//! look at the clock and two additions to numbers that nobody else writes. Prometheus is shown few
//! of the many buckets, the dashboard quantiles of all.

use std::array;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::StatusCode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use thread_local::ThreadLocal;

use super::latency::{BUCKETS, Counts, bucket};

/// What the cache had for a request, in the words of `x-wisr-cache`; the last for what is not a
/// page.
const CACHE: [&str; 6] = ["hit", "stale", "miss", "shell", "bypass", "none"];

/// Classes of status codes.
const STATUS: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// Upper bounds that Prometheus is shown, in nanoseconds: most hits are in the first, a generation
/// has 10 s by default. Each is one of [`super::latency::BOUNDS`].
const SHOWN: [u64; 15] = [
    100_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
];

/// Histograms of how long requests took, by what the cache had and the class of the status.
#[derive(Debug, Default, Clone)]
pub struct Timings(Arc<ThreadLocal<Part>>);

/// One thread's part, on cache lines of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Part([[Cell; STATUS.len()]; CACHE.len()]);

#[derive(Debug)]
struct Cell {
    counts: [AtomicU64; BUCKETS],
    nanos: AtomicU64,
}

impl Default for Cell {
    fn default() -> Self {
        Self {
            counts: array::from_fn(|_| AtomicU64::new(0)),
            nanos: AtomicU64::new(0),
        }
    }
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
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        add(&cell.counts[bucket(nanos)], 1);
        add(&cell.nanos, nanos);
    }

    /// All requests so far.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        let cells = self.0.iter().flat_map(|Part(cells)| cells.as_flattened());
        cells.for_each(|cell| cell.add_to(&mut counts));
        counts
    }

    /// The counts and the sum in nanoseconds of one histogram, over all threads.
    fn total(&self, cache: usize, status: usize) -> (Counts, u64) {
        let (mut counts, mut nanos) = (Counts::default(), 0_u64);
        for Part(cells) in self.0.iter() {
            let cell = &cells[cache][status];
            cell.add_to(&mut counts);
            nanos = nanos.wrapping_add(cell.nanos.load(Ordering::Relaxed));
        }
        (counts, nanos)
    }
}

impl Cell {
    fn add_to(&self, counts: &mut Counts) {
        for (sum, count) in counts.0.iter_mut().zip(&self.counts) {
            *sum += count.load(Ordering::Relaxed);
        }
    }
}

/// What Prometheus is shown: bounds in seconds, and how many lie between each and the one before.
fn shown(counts: &Counts) -> Vec<(f64, u64)> {
    let mut over = 0;
    let bounded = SHOWN.iter().map(|bound| {
        let many = counts.between(over, *bound);
        over = *bound;
        (seconds(*bound), many)
    });
    let mut buckets: Vec<_> = bounded.collect();
    buckets.push((f64::INFINITY, counts.between(over, u64::MAX)));
    buckets
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
                let (counts, nanos) = self.total(row, column);
                if counts.sum() == 0 {
                    continue;
                }
                encoder
                    .encode_family(&Labels { cache, status })?
                    .encode_histogram::<NoLabelSet>(
                        seconds(nanos),
                        counts.sum(),
                        &shown(&counts),
                        None,
                    )?;
            }
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

fn seconds(nanos: u64) -> f64 {
    Duration::from_nanos(nanos).as_secs_f64()
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
        let of = |cache, status| {
            let (counts, nanos) = timings.total(cache, status);
            let many: Vec<u64> = shown(&counts).into_iter().map(|(_, many)| many).collect();
            assert_eq!(many.iter().sum::<u64>(), counts.sum());
            (many, nanos)
        };
        let hits = of(0, 1);
        assert_eq!((&hits.0[..3], hits.1), (&[1, 1, 0][..], 201_000));
        assert_eq!(of(1, 2).0[SHOWN.len()], 1);
        assert_eq!(of(5, 3).0[0], 1);
        assert_eq!(of(5, 4).0[0], 1);
        assert_eq!(timings.counts().sum(), 5);
    }

    #[test]
    fn a_bound_that_is_shown_is_where_a_bucket_ends() {
        for bound in SHOWN {
            assert_eq!(bucket(bound) + 1, bucket(bound + 1), "{bound}");
        }
    }

    #[test]
    fn quantiles_of_a_stretch_of_time() {
        let timings = Timings::default();
        assert_eq!(timings.counts().quantile(0.5), None);
        let observe = |cache: &str, span, times: u32| {
            let cache = Some(cache.as_bytes());
            (0..times).for_each(|_| timings.observe(cache, StatusCode::OK, span));
        };
        observe("HIT", Duration::from_secs(3_600), 1_000);
        let before = timings.counts();
        std::thread::scope(|scope| {
            scope.spawn(|| observe("HIT", Duration::from_micros(90), 98));
        });
        observe("MISS", Duration::from_millis(45), 2);
        let since = timings.counts().since(&before);
        let told = |quantile| since.quantile(quantile).unwrap().as_micros();
        assert_eq!((told(0.0), told(0.5), told(0.98)), (100, 100, 100));
        assert_eq!((told(0.99), told(1.0)), (50_000, 50_000));
        assert!(before.quantile(1.0).unwrap() > Duration::from_secs(60));
    }
}
