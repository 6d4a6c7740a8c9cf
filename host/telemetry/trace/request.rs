//! `RequestSpan`: the span of one request.

use std::pin::Pin;

use http::{HeaderMap, Method, StatusCode, Uri, Version};
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{
    FutureExt, SpanBuilder, SpanKind, Status, TraceContextExt, Tracer as _,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_http::HeaderExtractor;
use opentelemetry_sdk::propagation::TraceContextPropagator;

use super::{TRACER, method};

/// What is known of a request when it comes.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// Its method.
    pub method: &'a Method,
    /// Its target.
    pub uri: &'a Uri,
    /// Its version.
    pub version: Version,
    /// Its headers, of which `traceparent` and `tracestate` are read (W3C Trace Context).
    pub headers: &'a HeaderMap,
}

/// The span of a request, from its head to the head of its answer.
#[derive(Debug, Clone)]
pub struct RequestSpan(Context);

impl RequestSpan {
    /// Begins the span, if requests are traced at all.
    pub fn begin(asked: Asked<'_>) -> Option<Self> {
        let tracer = &TRACER.get()?.tracer;
        let headers = HeaderExtractor(asked.headers);
        let parent = TraceContextPropagator::new().extract_with_context(&Context::new(), &headers);
        // Semantic conventions for HTTP server spans; a query may hold a token.
        let (name, mut attributes) = method(asked.method.as_str());
        attributes.extend([
            KeyValue::new("url.path", asked.uri.path().to_owned()),
            KeyValue::new("url.scheme", "http"),
            KeyValue::new("network.protocol.version", version(asked.version)),
        ]);
        let span = SpanBuilder::from_name(name)
            .with_kind(SpanKind::Server)
            .with_attributes(attributes);
        let span = tracer.build_with_context(span, &parent);
        Some(Self(parent.with_span(span)))
    }

    /// Does something for the request.
    pub fn during<T>(&self, work: impl FnOnce() -> T) -> T {
        let _attached = self.0.clone().attach();
        work()
    }

    /// What is awaited for the request.
    pub fn through<T: 'static>(
        &self,
        work: Pin<Box<dyn Future<Output = T> + Send>>,
    ) -> Pin<Box<dyn Future<Output = T> + Send>> {
        Box::pin(work.with_context(self.0.clone()))
    }

    /// Ends it. `cache` is what `x-wisr-cache` says.
    pub fn end(self, status: StatusCode, cache: Option<&str>) {
        let span = self.0.span();
        let code = i64::from(status.as_u16());
        span.set_attribute(KeyValue::new("http.response.status_code", code));
        if let Some(cache) = cache {
            span.set_attribute(KeyValue::new("wisr.cache", cache.to_ascii_lowercase()));
        }
        if status.is_server_error() {
            span.set_attribute(KeyValue::new("error.type", status.as_str().to_owned()));
            span.set_status(Status::error(""));
        }
        span.end();
    }
}

/// As `network.protocol.version` has it.
fn version(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "1.0",
        Version::HTTP_2 => "2",
        _ => "1.1",
    }
}
