//! `Metrics`: the counters that rooms raise and `/metrics` shows.

use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::{Atomic, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use thread_local::ThreadLocal;

/// How a page was answered: one of the few words of `Served::as_str`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Verdict {
    /// `hit`, `stale`, `miss`, `last-good`, `shell`, `error`, `overloaded`.
    pub verdict: &'static str,
}

/// A sum to which each thread adds in a place of its own: a single number would go from core to
/// core with every hit.
#[derive(Debug, Default)]
pub struct Sum(ThreadLocal<Part>);

/// One thread's part, on cache lines of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Part(AtomicU64);

impl Atomic<u64> for Sum {
    fn inc(&self) -> u64 {
        self.inc_by(1)
    }

    fn inc_by(&self, more: u64) -> u64 {
        let Part(part) = self.0.get_or_default();
        part.fetch_add(more, Ordering::Relaxed)
    }

    fn get(&self) -> u64 {
        let parts = self.0.iter();
        parts.map(|Part(part)| part.load(Ordering::Relaxed)).sum()
    }
}

/// Why a generation ran and how it ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Ending {
    /// A `Cause`.
    pub cause: &'static str,
    /// `page`, `unchanged`, `not-found`, `redirect` or a `FailureKind`.
    pub outcome: &'static str,
}

/// A state of the breaker before the shared tier.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct BreakerState {
    /// `closed`, `half-open` or `open`.
    pub state: &'static str,
}

/// What the shared tier was asked.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Operation {
    /// `get`, `acquire`, `renew`, `commit`, `release`, `raise` or `discard`.
    pub operation: &'static str,
}

/// What is counted of the tier that hosts share. All of it stays zero without one.
#[derive(Debug, Default)]
pub struct SharedMetrics {
    /// 1 for the state that the breaker is in.
    pub breaker: Family<BreakerState, Gauge>,
    /// Commands.
    pub operations: Family<Operation, Counter>,
    /// Commands that failed or took too long.
    pub failures: Counter,
    /// Pages had from other hosts.
    pub hits: Counter,
    /// Pages made in vain: another host had made them since.
    pub fenced: Counter,
    /// Times that Redis came back with less than this host had seen.
    pub repairs: Counter,
    /// Invalidations that the other hosts are to be told.
    pub untold: Gauge,
}

/// All metrics. Label values come from enums, so that their number is bounded.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Answers from the cache, by verdict.
    pub served: Family<Verdict, Counter<u64, Sum>>,
    /// `served{verdict="hit"}`, looked up once: it is raised on the hot path.
    pub hits: Counter<u64, Sum>,
    /// Generations, by cause and outcome.
    pub generations: Family<Ending, Counter>,
    /// Wall time of generations, in seconds.
    pub generation_seconds: Histogram,
    /// Generations running now.
    pub generations_running: Gauge,
    /// Generations waiting for a place.
    pub generations_waiting: Gauge,
    /// Entries in memory.
    pub memory_entries: Gauge,
    /// Bytes in memory.
    pub memory_bytes: Gauge,
    /// Entries dropped to stay within the memory budget.
    pub evictions: Counter,
    /// 1 while what is made is also kept on disk, 0 while it is not.
    pub store_healthy: Gauge,
    /// Entries that were not kept on disk because it was full, failing or too slow.
    pub store_dropped: Counter,
    /// Notes (incidents, back-offs) that were not kept on disk because too many waited.
    pub store_notes_dropped: Counter,
    /// Records on disk that could not be read: each was a miss.
    pub store_unreadable: Counter,
    /// Entries given up to stay within the disk budget.
    pub store_evictions: Counter,
    /// The tier that hosts share.
    pub shared: SharedMetrics,
    /// Open connections of the public listener.
    pub connections: Gauge,
    /// Connections closed at once, because their address had too many.
    pub connections_refused: Counter,
    /// Releases since the start.
    pub releases: Counter,
    /// Incidents since the start.
    pub incidents: Counter,
}

impl Metrics {
    /// Zeroes.
    pub fn new() -> Self {
        let served = Family::<Verdict, Counter<u64, Sum>>::default();
        let hits = served.get_or_create(&Verdict { verdict: "hit" }).clone();
        // 250 microseconds to 16 seconds: a generation's wall limit is 10 s by default.
        let generation_seconds = Histogram::new(exponential_buckets(0.000_25, 2.0, 17));
        let mut metrics = Self {
            registry: Registry::with_prefix("wisr"),
            served,
            hits,
            generations: Family::default(),
            generation_seconds,
            generations_running: Gauge::default(),
            generations_waiting: Gauge::default(),
            memory_entries: Gauge::default(),
            memory_bytes: Gauge::default(),
            evictions: Counter::default(),
            store_healthy: Gauge::default(),
            store_dropped: Counter::default(),
            store_notes_dropped: Counter::default(),
            store_unreadable: Counter::default(),
            store_evictions: Counter::default(),
            shared: SharedMetrics::default(),
            connections: Gauge::default(),
            connections_refused: Counter::default(),
            releases: Counter::default(),
            incidents: Counter::default(),
        };
        metrics.register();
        metrics.register_store();
        metrics.shared.register(&mut metrics.registry);
        metrics
    }

    fn register(&mut self) {
        let Self { registry, .. } = self;
        registry.register("served", "Page requests by verdict", self.served.clone());
        registry.register(
            "generations",
            "Generations by cause and outcome",
            self.generations.clone(),
        );
        registry.register(
            "generation_seconds",
            "Wall time of generations in seconds",
            self.generation_seconds.clone(),
        );
        registry.register(
            "generations_running",
            "Generations running",
            self.generations_running.clone(),
        );
        registry.register(
            "generations_waiting",
            "Generations waiting",
            self.generations_waiting.clone(),
        );
        registry.register(
            "memory_entries",
            "Entries in memory",
            self.memory_entries.clone(),
        );
        registry.register(
            "memory_bytes",
            "Bytes of entries in memory",
            self.memory_bytes.clone(),
        );
        registry.register(
            "evictions",
            "Entries evicted from memory",
            self.evictions.clone(),
        );
        registry.register(
            "connections",
            "Open public connections",
            self.connections.clone(),
        );
        registry.register(
            "connections_refused",
            "Public connections closed because their address had too many",
            self.connections_refused.clone(),
        );
        registry.register(
            "releases",
            "Releases since the start",
            self.releases.clone(),
        );
        registry.register(
            "incidents",
            "Incidents since the start",
            self.incidents.clone(),
        );
    }

    fn register_store(&mut self) {
        let Self { registry, .. } = self;
        registry.register(
            "store_healthy",
            "Whether pages are kept on disk",
            self.store_healthy.clone(),
        );
        registry.register(
            "store_dropped",
            "Entries not kept on disk",
            self.store_dropped.clone(),
        );
        registry.register(
            "store_notes_dropped",
            "Incidents and back-offs not kept on disk",
            self.store_notes_dropped.clone(),
        );
        registry.register(
            "store_unreadable",
            "Records on disk that could not be read",
            self.store_unreadable.clone(),
        );
        registry.register(
            "store_evictions",
            "Entries evicted from disk",
            self.store_evictions.clone(),
        );
    }

    /// The Prometheus text format (OpenMetrics 1.0).
    pub fn encode(&self) -> String {
        let mut text = String::new();
        // Writing to a `String` cannot fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &self.registry);
        text
    }
}

impl SharedMetrics {
    fn register(&self, registry: &mut Registry) {
        registry.register(
            "shared_breaker",
            "1 for the state of the breaker before the shared tier",
            self.breaker.clone(),
        );
        registry.register(
            "shared_operations",
            "Commands to the shared tier",
            self.operations.clone(),
        );
        registry.register(
            "shared_failures",
            "Commands to the shared tier that failed or took too long",
            self.failures.clone(),
        );
        registry.register(
            "shared_hits",
            "Pages had from other hosts",
            self.hits.clone(),
        );
        registry.register(
            "shared_fenced",
            "Pages made in vain because another host had made them since",
            self.fenced.clone(),
        );
        registry.register(
            "shared_repairs",
            "Times that the shared tier came back with less than it had",
            self.repairs.clone(),
        );
        registry.register(
            "shared_untold",
            "Invalidations that the other hosts are to be told",
            self.untold.clone(),
        );
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_threads_add_is_summed_up_also_when_they_are_gone() {
        let metrics = Metrics::new();
        for _ in 0..3 {
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| metrics.hits.inc());
                }
            });
        }
        let text = metrics.encode();
        let line = "wisr_served_total{verdict=\"hit\"} 12";
        assert!(text.lines().any(|told| told == line), "{text}");
    }
}
