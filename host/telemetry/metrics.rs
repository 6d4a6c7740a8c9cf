//! `Metrics`: the counters that rooms raise and `/metrics` shows.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Metric, Registry, Unit};

use super::process::Process;
use super::sum::Sum;
use super::timings::Timings;
use crate::page::{Cost, Fetch};

/// Seconds that are summed up.
pub type Seconds = Counter<f64, AtomicU64>;

/// A family of histograms.
pub type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;

/// How a page was answered: one of the few words of `Served::as_str`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Verdict {
    /// `hit`, `stale`, `miss`, `last-good`, `shell`, `error`, `overloaded`, `throttled`.
    pub verdict: &'static str,
}

/// Why a generation ran and how it ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Ending {
    /// A `Cause`.
    pub cause: &'static str,
    /// `page`, `unchanged`, `not-found`, `redirect` or a `FailureKind`.
    pub outcome: &'static str,
}

/// A part of a generation.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Phase {
    /// `queue`, `instantiate`, `static-props`, `render`, `encode`.
    pub phase: &'static str,
}

/// A route: there are as many as modules.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OfRoute {
    /// The pattern, `/posts/[id]`; never a path.
    pub route: Arc<str>,
}

/// What became of something that a route did.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RouteOutcome {
    /// The pattern, `/posts/[id]`; never a path.
    pub route: Arc<str>,
    /// `ok` or `failed`; of HTTP the class of the status, or `failed` where there was none.
    pub outcome: &'static str,
}

/// What became of something.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Outcome {
    /// `ok` or `failed`.
    pub outcome: &'static str,
}

/// What an incident is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct IncidentKind {
    /// A `FailureKind`, or `module`, `conflict`, `listing` and the like.
    pub kind: Cow<'static, str>,
}

/// Why a caller was not let in.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Denial {
    /// `site` or `admin`.
    pub door: &'static str,
    /// `wrong-token`, or `throttled` after too many of them.
    pub reason: &'static str,
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

/// Declares the metrics: each one's name, kind and words stand in one place. A name that ends with
/// a unit has that unit.
macro_rules! metrics {
    ($($name:ident: $kind:ty = $new:expr, $help:literal;)*) => {
        /// All metrics. Label values come from enums and from the names of routes, so that their
        /// number is bounded.
        #[derive(Debug)]
        pub struct Metrics {
            registry: Registry,
            /// `served{verdict="hit"}`, looked up once: it is raised on the hot path.
            pub hits: Counter<u64, Sum>,
            $(#[doc = $help] pub $name: $kind,)*
        }

        impl Metrics {
            /// Zeroes.
            pub fn new() -> Self {
                let mut registry = Registry::default();
                let wisr = registry.sub_registry_with_prefix("wisr");
                $(let $name: $kind = $new; register(wisr, stringify!($name), $help, &$name);)*
                let version = [("version", env!("CARGO_PKG_VERSION"))];
                wisr.register("build", "The version that runs", Info::new(version));
                registry.register_collector(Box::new(Process));
                let hits = Counter::default();
                let mut metrics = Self { registry, hits, $($name,)* };
                metrics.hits = metrics.served.get_or_create_owned(&Verdict { verdict: "hit" });
                metrics
            }
        }
    };
}

metrics! {
    request_seconds: Timings = Timings::default(),
        "Time from the head of a request to the head of its response, by what the cache had and the class of the status";
    served: Family<Verdict, Counter<u64, Sum>> = Family::default(),
        "Page requests by verdict";
    connections: Gauge = Gauge::default(),
        "Open public connections";
    connections_refused: Counter = Counter::default(),
        "Public connections closed at once: too many of one address, or not opened by a trusted proxy as they must be";
    in_flight_bytes: Gauge = Gauge::default(),
        "Bytes that requests and responses hold while they are under way, each page once";
    readers_too_slow: Counter = Counter::default(),
        "Connections and streams broken off because their readers took too little";
    readers_displaced: Counter = Counter::default(),
        "Responses broken off, the oldest first, because too much was under way";
    callers_denied: Family<Denial, Counter> = Family::default(),
        "Callers without the right token, by door and reason";
    access_lines_dropped: Counter = Counter::default(),
        "Lines of the access log that were not written";

    generations: Family<Ending, Counter> = Family::default(),
        "Generations by cause and outcome";
    generation_seconds: Histogram = spans(),
        "Wall time of generations, without waiting for their turn";
    generation_phase_seconds: Histograms<Phase> = Family::new_with_constructor(spans),
        "Wall time of the parts of generations";
    generation_cpu_seconds: Seconds = Counter::default(),
        "CPU time of pages";
    generations_running: Gauge = Gauge::default(),
        "Generations running";
    generations_waiting: Gauge = Gauge::default(),
        "Generations waiting for their turn";
    generations_refused: Counter = Counter::default(),
        "Generations that never began because too many waited";
    route_generations: Family<RouteOutcome, Counter> = Family::default(),
        "Generations by route and outcome";
    route_generation_seconds: Family<OfRoute, Seconds> = Family::default(),
        "Wall time of generations by route";

    fetches: Family<RouteOutcome, Counter> = Family::default(),
        "Requests of pages by route and class of status";
    fetch_seconds: Histogram = spans(),
        "Time until the head of the answer to requests of pages";
    fetch_received_bytes: Counter = Counter::default(),
        "Bytes of answers that pages read";

    api_requests: Family<RouteOutcome, Counter> = Family::default(),
        "Requests that API routes answered, by route and class of status";
    api_seconds: Histogram = spans(),
        "Wall time of API routes";

    memory_entries: Gauge = Gauge::default(),
        "Entries in memory";
    memory_bytes: Gauge = Gauge::default(),
        "Bytes of entries in memory";
    evictions: Counter = Counter::default(),
        "Entries evicted from memory";

    store_healthy: Gauge = Gauge::default(),
        "Whether pages are kept on disk";
    store_waiting_bytes: Gauge = Gauge::default(),
        "Bytes of pages that wait for the disk";
    store_write_seconds: Histogram = spans(),
        "Time to hand what waited to the disk";
    store_dropped: Counter = Counter::default(),
        "Entries not kept on disk because it was full, failing or too slow";
    store_notes_dropped: Counter = Counter::default(),
        "Incidents and back-offs not kept on disk";
    store_unreadable: Counter = Counter::default(),
        "Records on disk that could not be read, each of which was a miss";
    store_set_aside: Counter = Counter::default(),
        "Stores that could not be opened, and were set aside";
    store_evictions: Counter = Counter::default(),
        "Entries evicted from disk";

    shared_breaker: Family<BreakerState, Gauge> = Family::default(),
        "1 for the state of the breaker before the shared tier";
    shared_operations: Family<Operation, Counter> = Family::default(),
        "Commands to the shared tier";
    shared_failures: Counter = Counter::default(),
        "Commands to the shared tier that failed or took too long";
    shared_seconds: Histogram = spans(),
        "Time that commands to the shared tier took";
    shared_hits: Counter = Counter::default(),
        "Pages had from other hosts";
    shared_fenced: Counter = Counter::default(),
        "Pages made in vain because another host had made them since";
    shared_repairs: Counter = Counter::default(),
        "Times that the shared tier came back with less than it had";
    shared_untold: Gauge = Gauge::default(),
        "Invalidations that the other hosts are to be told";
    shared_owed: Gauge = Gauge::default(),
        "Pages made alone that are to be offered to the other hosts";
    shared_leases: Gauge = Gauge::default(),
        "Pages being made on behalf of all hosts";
    shared_hosts: Gauge = Gauge::default(),
        "Hosts that share, this one among them, when Redis was last asked";

    releases: Counter = Counter::default(),
        "Releases since the start";
    release: Gauge = Gauge::default(),
        "The number of the release that serves";
    routes: Gauge = Gauge::default(),
        "Routes that are served";
    module_load_seconds: Histograms<Outcome> = Family::new_with_constructor(spans),
        "Time to read, check, compile and try modules";
    incidents: Family<IncidentKind, Counter> = Family::default(),
        "Incidents since the start, by kind";
}

impl Metrics {
    /// Counts what a generation cost, and the requests that it made.
    pub fn spent(&self, route: &Arc<str>, cost: &Cost) {
        let phases = [
            ("instantiate", cost.instantiate),
            ("static-props", cost.static_props),
            ("render", cost.render),
            ("encode", cost.encode),
        ];
        for (phase, span) in phases.into_iter().filter(|(_, span)| !span.is_zero()) {
            let phase = self
                .generation_phase_seconds
                .get_or_create_owned(&Phase { phase });
            phase.observe(span.as_secs_f64());
        }
        self.generation_cpu_seconds.inc_by(cost.cpu.as_secs_f64());
        self.fetched(route, &cost.fetches);
    }

    /// Counts requests of a route's module.
    pub fn fetched(&self, route: &Arc<str>, fetches: &[Fetch]) {
        for fetch in fetches {
            let outcome = fetch
                .result
                .as_ref()
                .map_or("failed", |status| class(*status));
            let route = route.clone();
            self.fetches
                .get_or_create(&RouteOutcome { route, outcome })
                .inc();
            self.fetch_seconds.observe(fetch.duration.as_secs_f64());
            self.fetch_received_bytes.inc_by(fetch.bytes);
        }
    }

    /// The Prometheus text format (OpenMetrics 1.0).
    pub fn encode(&self) -> String {
        let mut text = String::new();
        // Writing to a `String` cannot fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &self.registry);
        text
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// The class of a status code.
pub fn class(status: u16) -> &'static str {
    match status / 100 {
        1 => "1xx",
        2 => "2xx",
        3 => "3xx",
        4 => "4xx",
        _ => "5xx",
    }
}

/// 250 microseconds to 16 seconds: a generation's wall limit is 10 s by default.
fn spans() -> Histogram {
    Histogram::new(exponential_buckets(0.000_25, 2.0, 17))
}

fn register<M: Metric + Clone>(registry: &mut Registry, name: &str, help: &str, metric: &M) {
    let units = [("_seconds", Unit::Seconds), ("_bytes", Unit::Bytes)];
    let unit = units
        .into_iter()
        .find_map(|(suffix, unit)| Some((name.strip_suffix(suffix)?, unit)));
    match unit {
        Some((name, unit)) => registry.register_with_unit(name, help, unit, metric.clone()),
        None => registry.register(name, help, metric.clone()),
    }
}
