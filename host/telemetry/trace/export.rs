//! `exporter`: sends spans to a collector: OTLP over HTTP, in protobuf.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use opentelemetry_http::hyper::HyperClient;
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use tokio::runtime::Handle;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// How long a collector may take to accept spans.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where a collector takes traces, below its address (OTLP specification, "OTLP/HTTP Request").
const TRACES: &str = "/v1/traces";

/// Why there is no exporter.
#[derive(Debug, thiserror::Error)]
#[error(
    "telemetry.otlp = {endpoint:?}: {reason}; write the address of a collector, as in \"http://127.0.0.1:4318\""
)]
pub struct ExportError {
    endpoint: String,
    reason: String,
}

impl ExportError {
    fn of(endpoint: &str, reason: impl ToString) -> Self {
        Self {
            endpoint: without_userinfo(endpoint),
            reason: reason.to_string(),
        }
    }
}

/// An address without what stands before its `@`, which may be a password.
fn without_userinfo(endpoint: &str) -> String {
    match (endpoint.split_once("://"), endpoint.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://…@{host}"),
        _ => endpoint.to_owned(),
    }
}

/// Where the collector at `endpoint` takes traces.
pub(super) fn address(endpoint: &str) -> Result<String, ExportError> {
    let address = format!("{}{TRACES}", endpoint.trim_end_matches('/'));
    let uri: http::Uri = address
        .parse()
        .map_err(|error: http::uri::InvalidUri| ExportError::of(endpoint, error))?;
    match uri.scheme_str() {
        Some("http" | "https") => Ok(address),
        _ => Err(ExportError::of(endpoint, "it is no http or https address")),
    }
}

/// The exporter to the collector at `endpoint`.
pub(super) fn exporter(endpoint: &str, runtime: Handle) -> Result<SpanExporter, ExportError> {
    let address = address(endpoint)?;
    let client = Sender {
        client: HyperClient::new(
            connector().map_err(|error| ExportError::of(endpoint, error))?,
            PATIENCE,
            None,
        ),
        runtime,
        endpoint: without_userinfo(endpoint),
        failing: Arc::default(),
    };
    SpanExporter::builder()
        .with_http()
        .with_http_client(client)
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(address)
        .with_timeout(PATIENCE)
        .build()
        .map_err(|error| ExportError::of(endpoint, error))
}

fn connector() -> Result<HttpsConnector<HttpConnector>, tokio_rustls::rustls::Error> {
    let mut roots = RootCertStore::empty();
    // A collector that is spoken to without TLS needs none.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(HttpsConnectorBuilder::new()
        .with_tls_config(tls)
        .https_or_http()
        .enable_http1()
        .build())
}

/// Sends from the server's runtime: the thread that collects spans has none.
#[derive(Debug)]
struct Sender {
    client: HyperClient<HttpsConnector<HttpConnector>>,
    runtime: Handle,
    /// For the log.
    endpoint: String,
    /// Whether the collector was gone when last heard of.
    failing: Arc<AtomicBool>,
}

impl Sender {
    /// One line when the collector goes, and one when it comes back.
    fn told(&self, answer: &Result<Response<Bytes>, HttpError>) {
        let trouble = match answer {
            Ok(answer) if answer.status().is_success() => None,
            Ok(answer) => Some(format!("it answers {}", answer.status())),
            Err(error) => Some(error.to_string()),
        };
        let was_failing = self.failing.swap(trouble.is_some(), Ordering::Relaxed);
        let endpoint = &self.endpoint;
        match trouble {
            Some(trouble) if !was_failing => {
                tracing::warn!("traces do not reach {endpoint} and are dropped: {trouble}");
            }
            None if was_failing => tracing::info!("traces reach {endpoint} again"),
            _ => {}
        }
    }
}

impl HttpClient for Sender {
    fn send_bytes<'life0, 'async_trait>(
        &'life0 self,
        request: Request<Bytes>,
    ) -> BoxFuture<'async_trait, Result<Response<Bytes>, HttpError>>
    where
        'life0: 'async_trait,
        Self: 'async_trait,
    {
        Box::pin(async move {
            let client = self.client.clone();
            let sent = self
                .runtime
                .spawn(async move { client.send_bytes(request).await });
            let answer = sent.await.unwrap_or_else(|lost| Err(lost.into()));
            self.told(&answer);
            answer
        })
    }
}
