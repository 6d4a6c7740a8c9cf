//! The HTTP side of the content API: one request, one look at the disk, one JSON answer.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::Library;
use crate::http::hosts::{Hosts, stranger};
use crate::page::Digest;

/// How long a client may take to send its request head: it is on the same machine.
const HEAD_TIME: Duration = Duration::from_secs(10);

/// Connections at once: what the host's outgoing pool opens, with room for a person and their tools.
const MAX_CONNECTIONS: usize = 256;

/// Pause after a failed `accept`, which means that the process is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves until `stop` resolves; then lets the requests that are being answered finish.
pub async fn serve(
    library: Library,
    listener: TcpListener,
    hosts: Hosts,
    stop: impl Future<Output = ()>,
) {
    let hosts = Arc::new(hosts);
    let (stopping, stopped) = watch::channel(());
    let mut connections = JoinSet::new();
    tokio::pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => match accepted {
                Ok((stream, _)) => {
                    let served = (library.clone(), Arc::clone(&hosts));
                    connections.spawn(connection(served, TokioIo::new(stream), stopped.clone()));
                }
                Err(error) => {
                    tracing::warn!("content API: accept failed: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(stopping);
    while connections.join_next().await.is_some() {}
}

async fn connection(
    (library, hosts): (Library, Arc<Hosts>),
    io: TokioIo<tokio::net::TcpStream>,
    mut stopped: watch::Receiver<()>,
) {
    let service = service_fn(|request| {
        let (library, hosts) = (library.clone(), Arc::clone(&hosts));
        async move { Ok::<_, Infallible>(respond(library, &hosts, request).await) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .serve_connection(io, service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        // An error, too, means that the server is stopping: its side of the channel is gone.
        _ = stopped.changed() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!("content API: connection ended: {error}");
    }
}

async fn respond(
    library: Library,
    hosts: &Hosts,
    request: Request<Incoming>,
) -> Response<Full<Bytes>> {
    if let Err(name) = hosts.admit(request.uri(), request.headers()) {
        let message = stranger(
            &name,
            "start it with `--host`, or add it to `hosts` of `[dev]`",
        );
        return answer(
            StatusCode::MISDIRECTED_REQUEST,
            &json!({ "message": message }),
        );
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = answer(
            StatusCode::METHOD_NOT_ALLOWED,
            &json!({"message": "the content API only reads: use GET"}),
        );
        let allow = HeaderValue::from_static("GET, HEAD");
        response.headers_mut().insert(header::ALLOW, allow);
        return response;
    }
    let path = request.uri().path().to_owned();
    let response = match segments(&path) {
        None => not_found(&path),
        // Disk reads can take long, and others wait on this thread.
        Some(segments) => {
            match tokio::task::spawn_blocking(move || library.answer(&segments)).await {
                Ok(Ok(Some(value))) => answer(StatusCode::OK, &value),
                Ok(Ok(None)) => not_found(&path),
                Ok(Err(error)) => failed(&error.to_string()),
                Err(error) => failed(&error.to_string()),
            }
        }
    };
    unless_known(response, &request)
}

/// The decoded segments of a path; `None` for what decodes to no text.
fn segments(path: &str) -> Option<Vec<String>> {
    let path = path.strip_prefix('/')?;
    let path = path.strip_suffix('/').unwrap_or(path);
    if path.is_empty() {
        return Some(Vec::new());
    }
    let decode = |segment: &str| {
        let text = percent_decode_str(segment).decode_utf8().ok()?;
        Some(text.into_owned())
    };
    path.split('/').map(decode).collect()
}

fn not_found(path: &str) -> Response<Full<Bytes>> {
    let message = format!("nothing at `{path}`: `/` lists the collections");
    answer(StatusCode::NOT_FOUND, &json!({"message": message}))
}

fn failed(message: &str) -> Response<Full<Bytes>> {
    tracing::warn!("content API: {message}");
    answer(
        StatusCode::INTERNAL_SERVER_ERROR,
        &json!({"message": message}),
    )
}

fn answer(status: StatusCode, value: &Value) -> Response<Full<Bytes>> {
    let body = Bytes::from(value.to_string());
    let tag = format!("\"{}\"", Digest::of(&body).short());
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        headers.insert(header::ETAG, tag);
    }
    response
}

/// 304 when the client has this very answer (RFC 9110 section 13.1.2).
fn unless_known(
    response: Response<Full<Bytes>>,
    request: &Request<Incoming>,
) -> Response<Full<Bytes>> {
    let known = request
        .headers()
        .get(header::IF_NONE_MATCH)
        .and_then(|known| known.to_str().ok());
    let tag = response
        .headers()
        .get(header::ETAG)
        .and_then(|tag| tag.to_str().ok());
    let (Some(known), Some(tag)) = (known, tag) else {
        return response;
    };
    let same = |candidate: &str| {
        let candidate = candidate.trim();
        candidate == "*" || candidate.strip_prefix("W/").unwrap_or(candidate) == tag
    };
    if response.status() != StatusCode::OK || !known.split(',').any(same) {
        return response;
    }
    let (mut parts, _) = response.into_parts();
    parts.status = StatusCode::NOT_MODIFIED;
    parts.headers.remove(header::CONTENT_TYPE);
    Response::from_parts(parts, Full::default())
}
