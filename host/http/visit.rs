//! `Visit`: one request as operators see it: counted, traced, written to the access log.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::header::{CONTENT_LENGTH, HeaderMap, HeaderName, REFERER, USER_AGENT};
use http::{Method, Request, Response, Version};
use http_body::Body as _;
use tokio::time::Instant;

use super::body::Body;
use super::connection::{Answer, Short};
use super::proxies::Proxies;
use super::showing::{FRESH, X_WISR_CACHE};
use crate::telemetry::Clock;
use crate::telemetry::access::{AccessLog, Line};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::timings::Timings;
use crate::telemetry::trace::{self, Asked, RequestSpan};

/// What is done with the requests of a door.
#[derive(Debug, Clone)]
pub struct Watch {
    timings: Timings,
    access: Option<Arc<AccessLog>>,
    clock: Clock,
    proxies: Arc<Proxies>,
}

/// A request that is being answered.
pub(super) struct Visit {
    watch: Arc<Watch>,
    began: Instant,
    span: Option<RequestSpan>,
    /// What its line in the access log needs of it.
    line: Option<Box<Visitor>>,
}

struct Visitor {
    peer: IpAddr,
    method: Method,
    path: String,
    version: Version,
    referrer: String,
    agent: String,
}

impl Watch {
    /// Counts requests in `metrics`, and writes them to the access log, if there is one, with whom
    /// the `proxies` name.
    pub fn new(
        metrics: &Metrics,
        access: Option<AccessLog>,
        clock: Clock,
        proxies: Arc<Proxies>,
    ) -> Self {
        Self {
            timings: metrics.request_seconds.clone(),
            access: access.map(Arc::new),
            clock,
            proxies,
        }
    }

    /// Has a hit answered the short way, where nobody wants to know more of it than that it was one.
    /// `began` is when it was first asked for, unless that is now.
    pub(super) fn pass(&self, began: Option<Instant>, answer: impl FnOnce() -> Short) -> Short {
        if self.access.is_some() || trace::is_on() {
            return Short::None;
        }
        let began = began.unwrap_or_else(Instant::now);
        let short = answer();
        if let Short::Now(express) = &short {
            let hit = Some(FRESH.as_bytes());
            self.timings.observe(hit, express.status, began.elapsed());
        }
        short
    }

    /// Begins to watch a request. To be called on a copy that the connection has to itself: what
    /// all threads share costs a hit dearly, even if it is only counted who holds it.
    pub(super) fn begin<B>(self: &Arc<Self>, request: &Request<B>, peer: SocketAddr) -> Visit {
        let (method, uri, headers) = (request.method(), request.uri(), request.headers());
        let version = request.version();
        let line = self.access.as_ref().map(|_| {
            Box::new(Visitor {
                peer: self.proxies.client(peer.ip(), headers).address,
                method: method.clone(),
                path: uri.path().to_owned(),
                version,
                referrer: text(headers, &REFERER),
                agent: text(headers, &USER_AGENT),
            })
        });
        let asked = Asked {
            method,
            uri,
            version,
            headers,
        };
        Visit {
            watch: Arc::clone(self),
            began: Instant::now(),
            span: RequestSpan::begin(asked),
            line,
        }
    }
}

impl Visit {
    /// The head of the response is ready.
    pub(super) fn end(self, response: &Response<Body>) {
        let took = self.began.elapsed();
        let (status, cache) = (response.status(), response.headers().get(X_WISR_CACHE));
        let word = cache.map(|cache| cache.as_bytes());
        self.watch.timings.observe(word, status, took);
        let cache = || cache.and_then(|cache| cache.to_str().ok());
        if let Some(span) = self.span {
            span.end(status, cache());
        }
        if let (Some(log), Some(line)) = (&self.watch.access, self.line) {
            log.log(&Line {
                at: self.watch.clock.now(),
                peer: line.peer,
                method: line.method.as_str(),
                path: &line.path,
                version: said(line.version),
                status: status.as_u16(),
                bytes: bytes(&line.method, response),
                took,
                cache: cache(),
                referrer: &line.referrer,
                agent: &line.agent,
            });
        }
    }

    /// Has the request answered, as a part of its trace.
    pub(super) fn answer(&self, answer: impl FnOnce() -> Answer) -> Answer {
        let Some(span) = &self.span else {
            return answer();
        };
        match span.during(answer) {
            Answer::Now(response) => Answer::Now(response),
            Answer::Later(response) => Answer::Later(span.through(response)),
        }
    }
}

/// Bytes of the body, as far as that is known before it is sent.
fn bytes(method: &Method, response: &Response<Body>) -> Option<u64> {
    let told = || {
        response
            .headers()
            .get(CONTENT_LENGTH)?
            .to_str()
            .ok()?
            .parse()
            .ok()
    };
    let exact = response.body().size_hint().exact();
    exact.or_else(|| told().filter(|_| method != Method::HEAD))
}

fn text(headers: &HeaderMap, name: &HeaderName) -> String {
    let value = headers
        .get(name)
        .map(|value| String::from_utf8_lossy(value.as_bytes()));
    value.unwrap_or_default().into_owned()
}

/// As a request line has it.
fn said(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2.0",
        _ => "HTTP/1.1",
    }
}
