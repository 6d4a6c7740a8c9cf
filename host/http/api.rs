//! `Apis`: requests that a module of the site answers itself.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Request, Response};
use tokio::runtime::Handle;
use tokio::time::Instant;

use super::address::Client;
use super::body::Body;
use super::errors::{BUSY, Problem, no_store};
use super::places::Places;
use super::revalidate::{Call, Revalidation};
use super::upload;
use crate::guest::Revalidate;
use crate::http::Upload;
use crate::isr::Queue;
use crate::page::{Failure, FailureKind, OWN_COOKIES};
use crate::release::{ApiRouted, Release};
use crate::route::Path;
use crate::telemetry::metrics::{Metrics, RouteOutcome, class};

/// Bytes of a request's body: forms and the calls of other systems fit, files do not.
const MAX_BODY: usize = 1 << 20;

/// Requests that are read, wait for an instance or run at once, so that their bodies have a bound.
const AT_ONCE: usize = 256;

/// Bytes of all of them.
pub(super) const BODY_BYTES: u64 = (MAX_BODY * AT_ONCE) as u64;

/// How long a request waits for a place: as long as a reader waits for a generation to begin.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where API routes run.
pub(super) struct Apis {
    /// The threads of generations: a busy module yields the core to a hit.
    threads: Handle,
    places: Arc<Places>,
    turns: Arc<Queue>,
    /// What modules may call that are granted it.
    revalidate: Revalidate,
    metrics: Arc<Metrics>,
}

/// The API route of a path. Where an endpoint of wisr's `own` is, only a module of exactly that
/// route takes its place.
pub(super) fn route_of(release: &Release, path: &Path, own: bool) -> Option<Arc<ApiRouted>> {
    let found = release.apis.matches(path).next()?;
    let gives_way = own && found.pattern.as_str() != path.as_str();
    (!gives_way).then(|| Arc::clone(found.value))
}

impl Apis {
    /// Modules run on `threads`, each in its turn, and have pages made anew by `revalidation`.
    pub(super) fn new(
        (threads, turns): (Handle, Arc<Queue>),
        revalidation: Revalidation,
        metrics: Arc<Metrics>,
    ) -> Self {
        let revalidate: Revalidate = Arc::new(move |demand| {
            let revalidation = revalidation.clone();
            Box::pin(async move { Ok(revalidation.perform(Call::of(demand)?).await) })
        });
        Self {
            revalidate,
            threads,
            metrics,
            places: Places::new(AT_ONCE),
            turns,
        }
    }

    /// The module's answer to a request of `client`, or why there is none.
    pub(super) async fn answer(
        &self,
        routed: Arc<ApiRouted>,
        request: Request<Upload>,
        client: Client,
        dev: bool,
    ) -> Response<Body> {
        let (route, began) = (routed.pattern.route(), Instant::now());
        let response = match self.run(routed, request, client).await {
            Ok(response) => response,
            // A person reads it in development; else it is a program.
            Err(problem) if dev => problem.page(true),
            Err(problem) => problem.json(),
        };
        let outcome = class(response.status().as_u16());
        let answered = RouteOutcome { route, outcome };
        self.metrics.api_requests.get_or_create(&answered).inc();
        let took = began.elapsed();
        self.metrics.api_seconds.observe(took.as_secs_f64());
        response
    }

    /// Has the route's module answer. It goes on if the caller hangs up, as a generation does: what
    /// it was asked for may be half done.
    async fn run(
        &self,
        routed: Arc<ApiRouted>,
        request: Request<Upload>,
        client: Client,
    ) -> Result<Response<Body>, Problem> {
        let route = routed.pattern.route();
        let place = self.places.take(route.clone(), client);
        let place = place.ok_or(Problem::Overloaded(BUSY))?;
        let (mut head, body) = request.into_parts();
        let body = upload::read(body, MAX_BODY).await;
        let body = body.map_err(Problem::Upload)?;
        clean(&mut head.headers, &body);
        let request = Request::from_parts(head, body);
        let revalidate = Arc::clone(&self.revalidate);
        let turns = Arc::clone(&self.turns);
        let task = self.threads.spawn(async move {
            let _place = place;
            let turn = turns.turn(&route);
            let Ok(Ok(_turn)) = tokio::time::timeout(PATIENCE, turn).await else {
                return Err(Problem::Overloaded(BUSY));
            };
            Ok(routed.answer(request, revalidate).await?)
        });
        match task.await {
            Ok(answered) => Ok(sent(answered?)),
            Err(lost) => {
                let failure = Failure::new(FailureKind::Host, "handle", lost.to_string());
                Err(Problem::Failed(Arc::new(failure)))
            }
        }
    }
}

/// What a module sees of the headers: those of the connection it does not (wasi:http drops them).
fn clean(headers: &mut HeaderMap, body: &Bytes) {
    let own: Vec<_> = headers
        .keys()
        .filter(|name| name.as_str().starts_with("x-wisr-"))
        .cloned()
        .collect();
    for name in own {
        headers.remove(name);
    }
    keep_cookies(headers);
    // HTTP/1.0 has no host, while wasi:http must have one.
    let unnamed = HeaderValue::from_static("localhost");
    headers.entry(header::HOST).or_insert(unnamed);
    // The body is whole, however it came.
    if headers.remove(header::TRANSFER_ENCODING).is_some() {
        headers.insert(header::CONTENT_LENGTH, body.len().into());
    }
}

/// Takes wisr's own cookies off.
fn keep_cookies(headers: &mut HeaderMap) {
    let is_own = |pair: &[u8]| {
        let name = pair.split(|byte| *byte == b'=').next().unwrap_or(pair);
        let name = name.trim_ascii();
        OWN_COOKIES.iter().any(|own| own.as_bytes() == name)
    };
    let lines = headers.get_all(header::COOKIE).iter();
    let pairs = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b';'));
    let (own, others): (Vec<&[u8]>, Vec<&[u8]>) = pairs.partition(|pair| is_own(pair));
    if own.is_empty() {
        return;
    }
    let others: Vec<&[u8]> = others.into_iter().map(<[u8]>::trim_ascii).collect();
    let left = HeaderValue::from_bytes(&others.join(&b"; "[..])).ok();
    headers.remove(header::COOKIE);
    if let Some(left) = left.filter(|left| !left.is_empty()) {
        headers.insert(header::COOKIE, left);
    }
}

/// What is sent: kept by nobody, unless the module says otherwise.
fn sent(response: Response<Bytes>) -> Response<Body> {
    let (mut head, body) = response.into_parts();
    head.headers
        .entry(header::CACHE_CONTROL)
        .or_insert_with(no_store);
    if body.is_empty() {
        return Response::from_parts(head, Body::Empty);
    }
    head.headers
        .insert(header::CONTENT_LENGTH, body.len().into());
    Response::from_parts(head, body.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wisrs_own_or_the_connections_does_not_reach_a_module() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("x-wisr-dev", "1"),
            ("x-wisr-dev", "2"),
            ("x-other", "3"),
            ("transfer-encoding", "chunked"),
        ] {
            headers.append(name, HeaderValue::from_static(value));
        }
        clean(&mut headers, &Bytes::from_static(b"four"));
        let mut told: Vec<_> = headers
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect();
        told.sort();
        assert_eq!(told, ["content-length: 4", "host: localhost", "x-other: 3"]);
    }

    #[test]
    fn what_operators_and_editors_are_known_by_does_not_reach_a_module() {
        for (lines, expected) in [
            (&["a=1; wisr-session=x; b=2"][..], Some("a=1; b=2")),
            (&["wisr-session=x"], None),
            (&["wisr_draft=1.x; a=1", "wisr-session=x"], Some("a=1")),
            (&["a=1", "wisr-session = x", "b=2"], Some("a=1; b=2")),
            (
                &["a=wisr-session=x; wisr-sessions=1"],
                Some("a=wisr-session=x; wisr-sessions=1"),
            ),
        ] {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(header::COOKIE, HeaderValue::from_static(line));
            }
            keep_cookies(&mut headers);
            let left = headers
                .get(header::COOKIE)
                .map(|left| left.to_str().unwrap());
            assert_eq!(left, expected, "{lines:?}");
        }
    }

    #[test]
    fn the_length_is_that_of_the_body() {
        let response = |body: &'static [u8]| Response::new(Bytes::from_static(body));
        let length = |response: &Response<Body>| {
            let value = response.headers().get(header::CONTENT_LENGTH);
            value.map(|value| value.to_str().unwrap().to_owned())
        };
        assert_eq!(length(&sent(response(b"abc"))).as_deref(), Some("3"));
        assert_eq!(length(&sent(response(b""))), None);
    }

    #[test]
    fn a_module_may_say_that_its_answer_can_be_kept() {
        let mut response = Response::new(Bytes::new());
        assert_eq!(
            sent(response.clone()).headers()[header::CACHE_CONTROL],
            "private, no-store"
        );
        let public = HeaderValue::from_static("public, max-age=5");
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, public.clone());
        assert_eq!(sent(response).headers()[header::CACHE_CONTROL], public);
    }
}
