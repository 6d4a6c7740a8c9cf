//! `Session`: one generation's outgoing HTTP, plugged into the sandbox as `wasi:http`'s hooks.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use http::header::{CONTENT_LENGTH, HOST, HeaderName, HeaderValue, USER_AGENT};
use http::{Method, Request, Response, Uri};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};
use wasmtime_wasi_http::{
    DEFAULT_FORBIDDEN_HEADERS, Error, ForbiddenHeaderFilter, RequestOptions, WasiBody,
    WasiHttpHooks,
};

use crate::guest::limits::{BODY_CHUNK, BODY_CHUNKS};
use crate::page::Fetch;

use super::body::{Budget, Patience, Received, Sent};
use super::client::Shared;
use super::connect::{Connection, MAX_BUFFER};
use super::log::FetchLog;
use super::policy::Policy;
use super::pool::{Key, Lease};
use super::refusal::Refusal;
use super::target::Target;

/// DNS, TCP and TLS together take a fraction of this where they work at all.
const MAX_CONNECT: Duration = Duration::from_secs(5);

/// A time-out of zero would fail every fetch, and tokio's timers count in milliseconds.
const MIN_CONNECT: Duration = Duration::from_millis(1);

/// Fields by which a guest could pass for a proxy and speak in somebody else's name.
const FORWARDING: [HeaderName; 8] = [
    HeaderName::from_static("forwarded"),
    HeaderName::from_static("x-forwarded-for"),
    HeaderName::from_static("x-forwarded-host"),
    HeaderName::from_static("x-forwarded-port"),
    HeaderName::from_static("x-forwarded-proto"),
    HeaderName::from_static("x-real-ip"),
    HeaderName::from_static("via"),
    HeaderName::from_static("te"),
];

/// What one generation may use.
#[derive(Debug, Clone, Copy)]
pub struct SessionLimits {
    /// Requests, refused ones included.
    pub requests: u32,
    /// Requests that wait for the head of their answer at once; one more waits for its turn. An
    /// answered request gives its turn back though its body is unread: a page that starts many
    /// fetches and then reads them in order would otherwise wait for itself.
    pub in_flight: u32,
    /// Bytes of all bodies together, each way.
    pub bytes: u64,
}

/// One generation's outgoing HTTP. A clone is the same session, so that its fetches can be read
/// after the sandbox is gone.
#[derive(Clone)]
pub struct Session {
    inner: Arc<Inner>,
    /// Taken along by the next request.
    passed: Arc<Mutex<Option<Companion>>>,
}

/// What is dropped when a request is over and the body of its answer is read or left.
pub(in crate::guest) type Companion = Box<dyn Any + Send>;

struct Inner {
    client: Arc<Shared>,
    policy: Arc<Policy>,
    limits: SessionLimits,
    deadline: Instant,
    route: Arc<str>,
    slots: Semaphore,
    sent: Arc<Budget>,
    received: Arc<Budget>,
    log: Arc<FetchLog>,
}

/// A guest's time-outs, clamped.
struct Times {
    connect: Duration,
    first_byte: Duration,
    between: Duration,
}

impl Session {
    pub(super) fn new(
        client: Arc<Shared>,
        policy: Arc<Policy>,
        limits: SessionLimits,
        deadline: Instant,
        route: Arc<str>,
    ) -> Self {
        let permits = usize::try_from(limits.in_flight).unwrap_or(usize::MAX);
        let inner = Inner {
            client,
            policy,
            limits,
            deadline,
            slots: Semaphore::new(permits.min(Semaphore::MAX_PERMITS)),
            sent: Budget::new(limits.bytes),
            received: Budget::new(limits.bytes),
            log: FetchLog::new(Arc::clone(&route)),
            route,
        };
        Self {
            inner: Arc::new(inner),
            passed: Arc::default(),
        }
    }

    /// Where to leave what the next request takes along.
    pub(in crate::guest) fn passed(&self) -> Arc<Mutex<Option<Companion>>> {
        Arc::clone(&self.passed)
    }

    /// The requests so far, in order, refused and unfinished ones included.
    pub fn fetches(&self) -> Vec<Fetch> {
        self.inner.log.rows()
    }
}

impl Inner {
    /// Checks the request, sends it, and returns the head of its answer.
    async fn exchange(
        &self,
        request: Request<WasiBody>,
        options: Option<RequestOptions>,
    ) -> Result<(Response<Incoming>, Lease, Patience), Refusal> {
        let target = self.check(&request)?;
        let _slot = timeout_at(self.deadline, self.slots.acquire())
            .await
            .map_err(|_| Refusal::Slots(self.limits.in_flight))?;
        let times = Times::new(options.unwrap_or_default(), self.deadline);
        let key = Key {
            route: Arc::clone(&self.route),
            target,
        };
        let request = prepare(request, &key.target, Arc::clone(&self.sent));
        let (response, connection) = self.send(request, &key, &times).await?;
        if response.status() == http::StatusCode::SWITCHING_PROTOCOLS {
            return Err(Refusal::Upgrade);
        }
        let lease = Lease {
            pool: Arc::clone(&self.client.pool),
            key,
            connection,
        };
        let patience = Patience {
            between: times.between,
            deadline: self.deadline,
        };
        Ok((response, lease, patience))
    }

    /// The rules that need no network.
    fn check(&self, request: &Request<WasiBody>) -> Result<Target, Refusal> {
        let target = Target::of(request.uri())?;
        let method = request.method();
        if matches!(*method, Method::CONNECT | Method::TRACE) {
            return Err(Refusal::Method(method.clone()));
        }
        if !self.policy.permits(&target) {
            return Err(Refusal::NotAllowed {
                entry: target.to_string(),
                route: Arc::clone(&self.route),
            });
        }
        Ok(target)
    }

    /// Sends over a parked connection where there is one. A server may hang up on it at the very
    /// moment of its use: what was not sent, or can be sent twice, goes over a fresh one.
    async fn send(
        &self,
        mut request: Request<Sent>,
        key: &Key,
        times: &Times,
    ) -> Result<(Response<Incoming>, Connection), Refusal> {
        let until = Instant::now() + times.first_byte;
        let expired = |_| Refusal::FirstByte(times.first_byte);
        if let Some(mut connection) = self.client.pool.take(key, &self.policy).await {
            let spare = duplicate(&request);
            let answer = timeout_at(until, connection.sender.try_send_request(request));
            match answer.await.map_err(expired)? {
                Ok(response) => return Ok((response, connection)),
                Err(mut failed) => match failed.take_message().or(spare) {
                    Some(again) => request = again,
                    None => return Err(Refusal::of_hyper(failed.error(), MAX_BUFFER)),
                },
            }
        }
        let mut connection = self
            .client
            .connector
            .connect(&key.target, &self.policy, &self.route, times.connect)
            .await?;
        let until = self.deadline.min(Instant::now() + times.first_byte);
        let answer = timeout_at(until, connection.sender.send_request(request));
        match answer.await.map_err(expired)? {
            Ok(response) => Ok((response, connection)),
            Err(error) => Err(Refusal::of_hyper(&error, MAX_BUFFER)),
        }
    }
}

impl Times {
    fn new(options: RequestOptions, deadline: Instant) -> Self {
        let left = deadline
            .saturating_duration_since(Instant::now())
            .max(MIN_CONNECT);
        let clamp = |wish: Option<Duration>, most: Duration| {
            wish.unwrap_or(most).clamp(MIN_CONNECT, most.min(left))
        };
        Self {
            connect: clamp(options.connect_timeout, MAX_CONNECT),
            first_byte: clamp(options.first_byte_timeout, left),
            between: clamp(options.between_bytes_timeout, left),
        }
    }
}

/// The request as it goes over the wire: origin form, our `Host`, nothing a guest may not say.
fn prepare(request: Request<WasiBody>, target: &Target, budget: Arc<Budget>) -> Request<Sent> {
    let (mut head, body) = request.into_parts();
    head.version = http::Version::HTTP_11;
    head.uri = request_target(&head.method, &head.uri);
    for name in DEFAULT_FORBIDDEN_HEADERS.iter().chain(&FORWARDING) {
        head.headers.remove(name);
    }
    // hyper believes a length though nothing follows, and what the next request over the connection
    // says would then be taken for this one's body.
    if body.is_end_stream() && head.headers.contains_key(CONTENT_LENGTH) {
        head.headers.insert(CONTENT_LENGTH, HeaderValue::from(0));
    }
    if let Ok(host) = HeaderValue::try_from(target.authority()) {
        head.headers.insert(HOST, host);
    }
    head.headers
        .entry(USER_AGENT)
        .or_insert(HeaderValue::from_static("wisr"));
    Request::from_parts(head, Sent::new(body, budget))
}

/// The path and query as a request line has them: a path is never empty (RFC 9112 section 3.2.1),
/// whatever the guest left out, and `*` is for OPTIONS (section 3.2.4).
fn request_target(method: &Method, uri: &Uri) -> Uri {
    let target = uri.path_and_query().map_or("", |target| target.as_str());
    let target = match target {
        "*" if *method == Method::OPTIONS => Uri::try_from(target),
        target if target.starts_with('/') => Uri::try_from(target),
        target => Uri::try_from(format!("/{target}")),
    };
    target.unwrap_or_default()
}

/// A copy of a request that means the same when it arrives twice (RFC 9110, section 9.2.2).
fn duplicate(request: &Request<Sent>) -> Option<Request<Sent>> {
    if !request.method().is_idempotent() {
        return None;
    }
    let mut copy = Request::new(request.body().duplicate()?);
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    Some(copy)
}

type Answer = (
    Response<WasiBody>,
    Box<dyn Future<Output = Result<(), Error>> + Send>,
);

impl WasiHttpHooks for Session {
    fn forbidden_header_filter(&mut self) -> ForbiddenHeaderFilter {
        Arc::new(|name| DEFAULT_FORBIDDEN_HEADERS.contains(name) || FORWARDING.contains(name))
    }

    fn p2_outgoing_body_buffer_chunks(&mut self) -> usize {
        BODY_CHUNKS
    }

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        BODY_CHUNK
    }

    fn send_request(
        &mut self,
        request: Request<WasiBody>,
        options: Option<RequestOptions>,
        _failed: Box<dyn Future<Output = Result<(), Error>> + Send>,
    ) -> Box<dyn Future<Output = Result<Answer, Error>> + Send> {
        let inner = Arc::clone(&self.inner);
        let companion = self.passed.lock().take();
        let (mut record, within) = inner.log.open(&request, inner.limits.requests);
        Box::new(async move {
            let outcome = match within {
                true => inner.exchange(request, options).await,
                false => Err(Refusal::Requests(inner.limits.requests)),
            };
            match outcome {
                Ok((response, lease, patience)) => {
                    record.answered(response.status());
                    let budget = Arc::clone(&inner.received);
                    let body =
                        |body| Received::new(body, lease, budget, patience, record, companion);
                    let response = response.map(|incoming| body(incoming).boxed_unsync());
                    // The connection drives itself: there is nothing more to wait for.
                    Ok((response, Box::new(async { Ok(()) }) as _))
                }
                Err(refusal) => {
                    record.refused(&refusal);
                    Err(refusal.to_guest())
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_line_has_a_path() {
        let target = |method: Method, path: &str| {
            let whole = Uri::builder().scheme("http").authority("a.example");
            let whole = whole.path_and_query(path).build().unwrap();
            request_target(&method, &whole).to_string()
        };
        for (path, expected) in [("", "/"), ("/", "/"), ("?a=1", "/?a=1"), ("/a?b", "/a?b")] {
            assert_eq!(target(Method::GET, path), expected, "{path:?}");
        }
        assert_eq!(target(Method::OPTIONS, "*"), "*");
        assert_eq!(target(Method::GET, "*"), "/*");
    }
}
