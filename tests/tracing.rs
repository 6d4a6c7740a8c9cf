//! Section 9: traces, as a collector of OpenTelemetry gets them.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use parking_lot::Mutex;
use prost::Message;
use serde_json::json;
use tokio::net::TcpListener;

use crate::site::{Running, Site, wait_for};

/// The one trace that the tests' clients are part of.
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

/// The span of the client that asks.
const CLIENT: &str = "b7ad6b7169203331";

/// A collector in the test's own process.
struct Collector {
    address: SocketAddr,
    exports: Arc<Mutex<Vec<ExportTraceServiceRequest>>>,
}

impl Collector {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let exports: Arc<Mutex<Vec<_>>> = Arc::default();
        let taken = Arc::clone(&exports);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let taken = Arc::clone(&taken);
                let service = service_fn(move |request| take(Arc::clone(&taken), request));
                let connection = hyper::server::conn::http1::Builder::new();
                tokio::spawn(connection.serve_connection(TokioIo::new(stream), service));
            }
        });
        Self { address, exports }
    }

    fn spans(&self) -> Vec<Span> {
        let exports = self.exports.lock();
        let resources = exports.iter().flat_map(|export| &export.resource_spans);
        let scopes = resources.flat_map(|resource| &resource.scope_spans);
        scopes.flat_map(|scope| scope.spans.clone()).collect()
    }

    /// The first span that `is` what is looked for.
    async fn span(&self, what: &str, is: impl Fn(&Span) -> bool) -> Span {
        wait_for(what, async || {
            let spans = self.spans();
            let found = spans.iter().find(|span| is(span)).cloned();
            found.ok_or_else(|| format!("{spans:#?}"))
        })
        .await
    }

    /// The spans directly below one.
    fn below(&self, parent: &Span) -> Vec<Span> {
        let spans = self.spans().into_iter();
        spans
            .filter(|span| span.parent_span_id == parent.span_id)
            .collect()
    }

    async fn serve(&self, site: Site, sample: &str) -> Running {
        let otlp = format!(
            "[telemetry]\notlp = \"http://{}\"\nsample = {sample}",
            self.address
        );
        site.config(&otlp)
            .env("OTEL_BSP_SCHEDULE_DELAY", "50")
            .env("OTEL_SERVICE_NAME", "the-site")
            .start()
            .await
    }
}

async fn take(
    exports: Arc<Mutex<Vec<ExportTraceServiceRequest>>>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    assert_eq!(request.uri().path(), "/v1/traces");
    assert_eq!(request.headers()["content-type"], "application/x-protobuf");
    let body = request.into_body().collect().await.unwrap().to_bytes();
    exports
        .lock()
        .push(ExportTraceServiceRequest::decode(body).unwrap());
    Ok(Response::new(Full::default()))
}

fn attribute<'a>(attributes: &'a [KeyValue], key: &str) -> Option<&'a Value> {
    let found = attributes.iter().find(|attribute| attribute.key == key)?;
    found.value.as_ref()?.value.as_ref()
}

#[track_caller]
fn tells(span: &Span, key: &str, wanted: impl Into<String>) {
    let wanted = Value::StringValue(wanted.into());
    assert_eq!(
        attribute(&span.attributes, key),
        Some(&wanted),
        "{key} of {span:#?}"
    );
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What a client of the trace sends.
fn parent(flags: &str) -> String {
    format!("00-{TRACE}-{CLIENT}-{flags}")
}

fn is_generation(span: &Span, path: &str) -> bool {
    let path = Value::StringValue(path.to_owned());
    attribute(&span.attributes, "wisr.path") == Some(&path)
}

/// The calls of a generation, which follow each other within it.
fn calls(collector: &Collector, generation: &Span) -> Vec<Span> {
    let mut calls = collector.below(generation);
    calls.sort_by_key(|span| span.start_time_unix_nano);
    let names: Vec<&str> = calls.iter().map(|span| span.name.as_str()).collect();
    assert_eq!(
        names,
        ["queue", "instantiate", "static-props", "render", "encode"]
    );
    for pair in calls.windows(2) {
        assert!(
            pair[0].end_time_unix_nano <= pair[1].start_time_unix_nano,
            "{pair:#?}"
        );
    }
    for call in &calls {
        assert!(
            call.start_time_unix_nano >= generation.start_time_unix_nano,
            "{call:#?}"
        );
        assert!(
            call.end_time_unix_nano <= generation.end_time_unix_nano,
            "{call:#?}"
        );
    }
    calls
}

/// Request → generation → calls → fetches, in one trace with the client's.
#[tokio::test]
async fn a_request_is_traced_to_its_fetches() {
    let collector = Collector::start().await;
    let site = collector
        .serve(Site::new().pages(&["posts/[id]"]), "0")
        .await;
    let traced = [("traceparent", parent("01"))];
    let traced = traced
        .each_ref()
        .map(|(name, value)| (*name, value.as_str()));
    let first = site.get_with("/posts/1?x=geheim", &traced).await;
    assert_eq!(first.verdict(), "MISS");

    let generation = collector
        .span("the generation", |span| is_generation(span, "/posts/1"))
        .await;
    assert_eq!(hex(&generation.trace_id), TRACE);
    assert_eq!(generation.name, "generate /posts/[id]");
    tells(&generation, "wisr.cause", "first-request");
    tells(&generation, "wisr.outcome", "document");
    let request = collector
        .span("its request", |span| {
            span.span_id == generation.parent_span_id
        })
        .await;
    assert_eq!(hex(&request.parent_span_id), CLIENT);
    assert_eq!(request.kind(), SpanKind::Server);
    tells(&request, "http.request.method", "GET");
    tells(&request, "http.route", "/posts/[id]");
    tells(&request, "url.path", "/posts/1");
    tells(&request, "wisr.cache", "miss");
    let status = attribute(&request.attributes, "http.response.status_code");
    assert_eq!(status, Some(&Value::IntValue(200)));

    let calls = calls(&collector, &generation);
    let fetches = collector.below(&calls[2]);
    assert_eq!(fetches.len(), site.origin.count("/posts/1"), "{fetches:#?}");
    let fetch = &fetches[0];
    assert_eq!(fetch.kind(), SpanKind::Client);
    tells(fetch, "http.request.method", "GET");
    tells(fetch, "server.address", "127.0.0.1");
    let everything = format!("{:?}", collector.spans());
    assert!(!everything.contains("geheim"), "{everything}");
    let resource = collector.exports.lock()[0].resource_spans[0]
        .resource
        .clone()
        .unwrap();
    let service = attribute(&resource.attributes, "service.name");
    assert_eq!(service, Some(&Value::StringValue("the-site".to_owned())));
}

/// A method that a client makes up is no name of a span.
#[tokio::test]
async fn a_method_of_no_standard_names_nothing() {
    let collector = Collector::start().await;
    let site = collector.serve(Site::new().pages(&["index"]), "0").await;
    let parent = parent("01");
    let traced = [("traceparent", parent.as_str())];
    assert_eq!(site.send("MADE-UP", "/", &traced, "").await.status, 405);
    let asked = collector
        .span("the request", |span| span.kind() == SpanKind::Server)
        .await;
    assert_eq!(asked.name, "HTTP");
    tells(&asked, "http.request.method", "_OTHER");
    tells(&asked, "http.request.method_original", "MADE-UP");
}

/// Another trace gets the same page: nothing of a trace is part of it.
#[tokio::test]
async fn nothing_of_a_trace_is_part_of_a_page() {
    let collector = Collector::start().await;
    let site = collector
        .serve(Site::new().pages(&["posts/[id]"]), "0")
        .await;
    let traced = [("traceparent", parent("01"))];
    let traced = traced
        .each_ref()
        .map(|(name, value)| (*name, value.as_str()));
    let first = site.get_with("/posts/1", &traced).await;
    let other = parent("01").replace('a', "c");
    let second = site.get_with("/posts/1", &[("traceparent", &other)]).await;
    assert_eq!(
        (second.verdict(), second.header("etag")),
        ("HIT", first.header("etag"))
    );
    let other = other[3..35].to_owned();
    let hit = collector
        .span("the hit", |span| hex(&span.trace_id) == other)
        .await;
    tells(&hit, "wisr.cache", "hit");
    assert!(collector.below(&hit).is_empty());
}

/// A generation that fails says why, and one behind a reader belongs to that reader's trace.
#[tokio::test]
async fn what_happens_behind_a_reader_is_traced_as_well() {
    let collector = Collector::start().await;
    let page = Site::new()
        .pages(&["[id]"])
        .script("/a", json!({"revalidate": 1}));
    let site = collector.serve(page, "0").await;
    site.get("/a").await;
    site.origin.script("/a", json!({"outcome": "panic"}));
    let traced = parent("01");
    wait_for("a stale page", async || {
        let page = site.get_with("/a", &[("traceparent", &traced)]).await;
        if page.verdict() == "STALE" {
            Ok(())
        } else {
            Err(page.verdict().to_owned())
        }
    })
    .await;
    let generation = collector
        .span("the generation", |span| is_generation(span, "/a"))
        .await;
    tells(&generation, "wisr.cause", "stale");
    tells(&generation, "wisr.outcome", "trap");
    tells(&generation, "error.type", "trap");
    assert_eq!(
        generation.status.as_ref().unwrap().code,
        2,
        "{generation:#?}"
    );
    let request = collector
        .span("its request", |span| {
            span.span_id == generation.parent_span_id
        })
        .await;
    tells(&request, "wisr.cache", "stale");
    assert_eq!(hex(&request.parent_span_id), CLIENT);
}

/// Whoever is not sampled is not sent; the ratio says how many.
#[tokio::test]
async fn only_what_is_sampled_is_sent() {
    let collector = Collector::start().await;
    let site = collector.serve(Site::new().pages(&["[id]"]), "0").await;
    site.get("/a").await;
    site.get_with("/b", &[("traceparent", &parent("00"))]).await;
    site.get_with("/c", &[("traceparent", "nonsense")]).await;
    site.get_with("/d", &[("traceparent", &parent("01"))]).await;
    collector
        .span("the sampled one", |span| is_generation(span, "/d"))
        .await;
    let others = collector
        .spans()
        .into_iter()
        .filter(|span| hex(&span.trace_id) != TRACE);
    assert_eq!(others.count(), 0);
    assert!(
        !collector
            .spans()
            .iter()
            .any(|span| is_generation(span, "/b"))
    );

    let all = collector.serve(Site::new().pages(&["[id]"]), "1").await;
    all.get("/e").await;
    collector
        .span("without a caller's", |span| is_generation(span, "/e"))
        .await;
}

/// A collector that is not there costs a line in the log.
#[tokio::test]
async fn a_collector_that_is_gone_costs_one_line() {
    let gone = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let mut site = Site::new()
        .pages(&["[id]"])
        .config("[telemetry]\nsample = 1")
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", &format!("http://{gone}"))
        .env("OTEL_BSP_SCHEDULE_DELAY", "20")
        .start()
        .await;
    site.get("/a").await;
    site.until_log("traces do not reach").await;
    for page in 0..50 {
        assert_eq!(site.get(&format!("/{page}")).await.status, 200);
        tokio::task::yield_now().await;
    }
    site.terminate();
    assert!(site.ended().await.success());
    assert_eq!(
        site.log().matches("traces do not reach").count(),
        1,
        "{}",
        site.log()
    );
}

/// An address that is none is refused at the start.
#[tokio::test]
async fn an_address_that_is_none_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join("wisr.toml"),
        "[telemetry]\notlp = \"collector:4317\"",
    )
    .unwrap();
    let arguments = [
        "serve",
        ".",
        "--listen",
        "127.0.0.1:0",
        "--admin",
        "127.0.0.1:0",
    ];
    let ended = crate::site::wisr(folder.path(), &arguments).await;
    assert_eq!(ended.code, Some(1));
    assert!(
        ended.stderr.contains("telemetry.otlp") && ended.stderr.contains("4318"),
        "{}",
        ended.stderr
    );
}
