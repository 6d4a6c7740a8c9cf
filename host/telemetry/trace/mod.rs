//! `Tracing`: spans for OpenTelemetry: request → generation → guest calls → fetches.
//!
//! Off unless a collector is named. Spans of a generation are made when it has ended, from what it
//! is known to have cost: while a page is made, nothing is traced, and nothing of a trace reaches it.

mod export;
mod generation;
mod request;

use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use opentelemetry::trace::{TraceContextExt, TracerProvider};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{BatchSpanProcessor, Sampler, SdkTracer, SdkTracerProvider};
use tokio::runtime::Handle;
use tokio::time::Instant;

use super::Clock;
pub use export::ExportError;
pub use generation::Made;
pub use request::{Asked, RequestSpan};

/// How long the last spans may take to be sent when the server stops.
const FAREWELL: Duration = Duration::from_secs(2);

/// Names what is set by the specification's own variable instead.
const SAMPLER: &str = "OTEL_TRACES_SAMPLER";

/// Where spans go, and how many.
#[derive(Debug, Clone, PartialEq)]
pub struct TraceConfig {
    /// The collector's address, without the path of traces.
    pub endpoint: String,
    /// The part of requests that are traced, unless their caller decides: 0 to 1.
    pub sample: f64,
    /// `service.name`.
    pub service: String,
}

impl TraceConfig {
    /// Whether the address can be one; nobody is asked.
    ///
    /// # Errors
    /// When it is none.
    pub fn check(&self) -> Result<(), ExportError> {
        export::address(&self.endpoint).map(drop)
    }
}

/// What makes spans; there is one for the process, since whoever asks for a page and whoever makes
/// it know nothing of each other.
static TRACER: OnceLock<Tracer> = OnceLock::new();

#[derive(Debug)]
struct Tracer {
    tracer: SdkTracer,
    /// Turns moments of the monotonic clock into the time.
    base: (SystemTime, Instant),
}

/// Sends spans until it is closed.
#[derive(Debug)]
pub struct Tracing(SdkTracerProvider);

impl Tracing {
    /// Begins to trace. Spans are sent from `runtime`.
    ///
    /// # Errors
    /// When the address is none.
    pub fn start(
        config: &TraceConfig,
        clock: &Clock,
        runtime: Handle,
    ) -> Result<Self, ExportError> {
        let exporter = export::exporter(&config.endpoint, runtime)?;
        let resource = Resource::builder()
            .with_service_name(config.service.clone())
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .build();
        let mut builder = SdkTracerProvider::builder()
            .with_resource(resource)
            .with_span_processor(BatchSpanProcessor::builder(exporter).build());
        if std::env::var_os(SAMPLER).is_none() {
            let ratio = Sampler::TraceIdRatioBased(config.sample);
            builder = builder.with_sampler(Sampler::ParentBased(Box::new(ratio)));
        }
        let provider = builder.build();
        let base = (clock.now().to_system_time(), Instant::now());
        let tracer = provider.tracer("wisr");
        // A second server of one process, as in tests, traces with the first.
        let _ = TRACER.set(Tracer { tracer, base });
        Ok(Self(provider))
    }

    /// Sends what waits, for a while. Blocks.
    pub fn close(self) {
        // That a collector is gone was told when it went.
        let _ = self.0.shutdown_with_timeout(FAREWELL);
    }
}

impl Tracer {
    fn time(&self, moment: Instant) -> SystemTime {
        let (time, then) = self.base;
        time + moment.saturating_duration_since(then)
    }
}

/// Whoever asked for something that is done elsewhere or later.
#[derive(Debug, Clone, Default)]
pub struct Caller(Option<Context>);

impl Caller {
    /// The one whose request is being answered here; nobody where nothing is traced.
    pub fn here() -> Self {
        Self(is_on().then(Context::current))
    }
}

/// Whether anything is traced.
pub fn is_on() -> bool {
    TRACER.get().is_some()
}

/// Notes the route of the request that is being answered here.
pub fn at_route(route: &str) {
    if is_on() {
        let context = Context::current();
        let span = context.span();
        span.set_attribute(KeyValue::new("http.route", route.to_owned()));
    }
}

/// The name of a span for an HTTP method, and the attributes that tell it (semantic conventions for
/// HTTP spans). What is no standard method is whatever a client or a guest makes up, and no name.
fn method(said: &str) -> (&'static str, Vec<KeyValue>) {
    const KNOWN: [&str; 9] = [
        "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH",
    ];
    let told = |method| KeyValue::new("http.request.method", method);
    match KNOWN.into_iter().find(|known| *known == said) {
        Some(known) => (known, vec![told(known)]),
        None => {
            let original = KeyValue::new("http.request.method_original", said.to_owned());
            ("HTTP", vec![told("_OTHER"), original])
        }
    }
}
