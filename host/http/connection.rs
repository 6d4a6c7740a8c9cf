//! `serve`: one connection, from its first request to the last byte of its last response.

use std::convert::Infallible;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use http::header::{CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, HeaderMap, HeaderValue};
use http::{Method, Request, Response, StatusCode, Uri, Version};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use prometheus_client::metrics::counter::Counter;
use tokio::net::TcpStream;

use super::body::Body;
use super::delivery::{AHEAD, Delivery, Sent, Way};
use super::errors::{BUSY, Problem};
use super::head::Plain;
use super::in_flight::{Cut, InFlight};
use super::lane::{Express, Lane};
use super::listen::{Stop, told};
use super::respond::Reader;
use super::sound::sound;
use super::strand::Strands;
use super::timed::{Patience, Pulse, Timed};
use super::trailers::Trailers;
use super::upload::{Left, Upload};
use super::visit::Watch;
use crate::page::Entry;

/// Bytes of a request head, in either version: cookies and long query strings fit, a flood does
/// not. More is answered 431. In HTTP/2 it bounds what CONTINUATION frames and compressed headers
/// become, too.
pub(super) const MAX_HEAD: usize = 32 * 1024;

/// Lines of a request head, which are answered 431 as well: those of HTTP/1 are counted by hyper,
/// which has the same limit.
const MAX_LINES: usize = 100;

/// Streams of one HTTP/2 connection at once; the figure that RFC 9113 section 6.5.2 advises not to
/// go below is 100.
const MAX_STREAMS: u32 = 128;

/// Streams that a client opened and reset before they were looked at. A browser that moves on
/// cancels a handful; a client that goes on so (rapid reset) is told to calm down.
const MAX_RESETS: usize = 20;

/// Streams that were reset because the client broke a rule on them: by then it is no accident.
const MAX_MISTAKES: usize = 64;

/// Bytes of bodies that a client may send ahead of their being read, on one stream and on all of a
/// connection: few requests have one, and what nobody reads must not add up.
const UPLOAD_WINDOW: u32 = 64 * 1024;

/// How often an HTTP/2 client is asked whether it is there, and how long it may take to say so: a
/// phone that went away says nothing, and its streams would stay open.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(15);

/// An answer, at once where it can be: a hit is never boxed.
pub enum Answer {
    /// It is here.
    Now(Response<Body>),
    /// It must be waited for.
    Later(Pin<Box<dyn Future<Output = Response<Body>> + Send>>),
}

/// An entry that is on its way, if there is one.
pub type Coming = Pin<Box<dyn Future<Output = Option<Arc<Entry>>> + Send>>;

/// What the short way has for a plain request.
pub enum Short {
    /// The answer, if it is a hit.
    Now(Express),
    /// To be asked again with what comes of this.
    Soon(Coming),
    /// The long way has it.
    None,
}

/// What answers the requests of a door.
pub trait Service: Send + Sync + 'static {
    /// Answers one request.
    fn answer(self: &Arc<Self>, request: Request<Upload>, peer: SocketAddr) -> Answer;

    /// The short way: what [`Service::answer`] would say to a plain request, if it is a hit. `fetched`
    /// is what it has been waited for.
    fn express(&self, _plain: &Plain<'_>, _fetched: Option<&Arc<Entry>>) -> Short {
        Short::None
    }
}

/// How connections are served.
#[derive(Clone)]
pub(super) struct Manner {
    /// How long a client may dawdle.
    pub(super) patience: Patience,
    /// What is done with requests besides answering them.
    pub(super) watch: Option<Arc<Watch>>,
    /// The account that what is under way is in.
    pub(super) in_flight: Arc<InFlight>,
    /// Counts readers who were broken off because they lagged.
    pub(super) slow: Counter,
}

#[cfg(test)]
impl Manner {
    /// As connections usually are, and nobody watches.
    pub(super) fn some() -> Self {
        Self {
            patience: Patience::default(),
            watch: None,
            in_flight: InFlight::new(64 << 20, Default::default(), Counter::default()),
            slow: Counter::default(),
        }
    }
}

/// Serves one connection until either side ends it. After the stop signal, requests in flight are
/// finished and no more are taken.
pub(super) async fn serve<S: Service>(
    stream: TcpStream,
    peer: SocketAddr,
    service: Arc<S>,
    mut stop: Stop,
    manner: Manner,
) {
    // A response is one write; holding back its last segment would only delay it.
    let _ = stream.set_nodelay(true);
    let pulse = Arc::new(Pulse::new());
    let slow = manner.slow.clone();
    let io = Timed::new(stream, Arc::clone(&pulse), manner.patience, slow.clone());
    let to_lane = (
        Arc::clone(&service),
        manner.watch.clone(),
        Arc::clone(&manner.in_flight),
    );
    let io = Trailers::new(Lane::new(io, Arc::clone(&pulse), to_lane));
    let strands = Strands::new(slow);
    let builder = builder(strands.clone());
    let lane = Arc::clone(&pulse);
    let talk = Talk {
        service,
        peer,
        manner,
        pulse,
        strands,
    };
    let answer = service_fn(move |request| talk.answer(request));
    let mut connection = pin!(builder.serve_connection(TokioIo::new(io), answer));
    // Asked only when it has something to say: asking the signal itself takes a lock that all
    // connections of all threads share.
    let mut stopping: FuturesUnordered<_> = std::iter::once(told(&mut stop)).collect();
    let ended = tokio::select! {
        // The signal first: a response that is ready at the same moment then tells the client
        // that it is the last one.
        biased;
        _ = stopping.next() => {
            match emptied(connection.as_mut(), &lane).await {
                Some(ended) => ended,
                None => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            }
        }
        ended = connection.as_mut() => ended,
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, error, "connection ended early");
    }
}

/// The requests and answers of one connection.
struct Talk<S> {
    service: Arc<S>,
    peer: SocketAddr,
    manner: Manner,
    pulse: Arc<Pulse>,
    strands: Strands,
}

impl<S: Service> Talk<S> {
    /// The answer to a request, as it is sent.
    fn answer(
        &self,
        request: Request<Incoming>,
    ) -> impl Future<Output = Result<Response<Sent>, Infallible>> + Send + use<S> {
        let (is_head, version) = (request.method() == Method::HEAD, request.version());
        let busy = self.pulse.enter(version, !request.body().is_end_stream());
        let way = self.way(version);
        let size = head_size(request.uri(), request.headers());
        let is_waited_for = request.headers().contains_key(EXPECT);
        let (request, left) = Upload::of(request);
        let watch = self.manner.watch.as_ref();
        let visit = watch.map(|watch| watch.begin(&request, self.peer));
        let answer = || admit(&self.service, request, size, self.peer);
        let answer = match &visit {
            Some(visit) => visit.answer(answer),
            None => answer(),
        };
        async move {
            let mut response = match answer {
                Answer::Now(response) => response,
                Answer::Later(response) => match way.in_flight.request(size) {
                    Some(_held) => {
                        let response = AssertUnwindSafe(response).catch_unwind().await;
                        response.unwrap_or_else(|_| Problem::Panicked.page(false))
                    }
                    None => Problem::Overloaded(BUSY).page(false),
                },
            };
            if is_head {
                take_body(&mut response);
            }
            if is_unread(response.status(), left, is_waited_for).await {
                close(version, &mut response);
            }
            if let Some(visit) = visit {
                visit.end(&response);
            }
            Ok(response.map(|body| Sent::new(body, busy, way)))
        }
    }

    /// How the answer to a request of this version leaves.
    fn way(&self, version: Version) -> Way {
        let in_flight = Arc::clone(&self.manner.in_flight);
        if version != Version::HTTP_2 {
            // A client that lags shows in the socket.
            let cut = Arc::clone(self.pulse.cut());
            return Way {
                in_flight,
                cut,
                delivery: None,
            };
        }
        let cut = Cut::of_stream(self.pulse.cut());
        let delivery = Delivery::new(self.manner.patience, Arc::clone(&cut));
        self.strands.expect(&delivery);
        Way {
            in_flight,
            cut,
            delivery: Some(delivery),
        }
    }
}

/// Bytes of a head, roughly as HTTP/1.1 writes it.
fn head_size(uri: &Uri, headers: &HeaderMap) -> usize {
    let target = uri
        .path_and_query()
        .map_or(1, |target| target.as_str().len());
    let lines = headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + 4);
    target + lines.sum::<usize>()
}

/// Goes on until the lane has nothing in hand: hyper has not seen what it has, and would close the
/// connection on it. How the connection ended, if it did.
async fn emptied<C: Future>(mut connection: Pin<&mut C>, lane: &Pulse) -> Option<C::Output> {
    lane.stop();
    poll_fn(|cx| {
        if !lane.is_fetching() {
            return Poll::Ready(None);
        }
        match connection.as_mut().poll(cx) {
            Poll::Pending if !lane.is_fetching() => Poll::Ready(None),
            ended => ended.map(Some),
        }
    })
    .await
}

/// The service's answer to a request that is one. A panic is answered too, and costs nobody else:
/// other requests of an HTTP/2 connection would end with it.
fn admit<S: Service>(
    service: &Arc<S>,
    mut request: Request<Upload>,
    size: usize,
    peer: SocketAddr,
) -> Answer {
    let sound = match size > MAX_HEAD || lines(&request) > MAX_LINES {
        true => Err(Problem::HeadTooLarge),
        false => sound(&mut request),
    };
    if let Err(problem) = sound {
        let (method, headers) = (request.method(), request.headers());
        let mut response = Reader { headers, method }.sized(problem.page(false));
        close(request.version(), &mut response);
        return Answer::Now(response);
    }
    let answer = AssertUnwindSafe(|| service.answer(request, peer));
    std::panic::catch_unwind(answer).unwrap_or_else(|_| Answer::Now(Problem::Panicked.page(false)))
}

/// Whether the request's body was not read to its end, with which hyper ends a connection of HTTP/1.
async fn is_unread(status: StatusCode, left: Option<Left>, is_waited_for: bool) -> bool {
    match (status, left) {
        (StatusCode::REQUEST_TIMEOUT | StatusCode::PAYLOAD_TOO_LARGE, _) => true,
        (_, Some(left)) => !left.finish(is_waited_for).await,
        (_, None) => false,
    }
}

/// Lines of a head. Cookies count as one: HTTP/2 has them in pieces (RFC 9113 section 8.2.3).
fn lines<B>(request: &Request<B>) -> usize {
    let headers = request.headers();
    let mut cookies = 0;
    if request.version() == Version::HTTP_2 {
        cookies = headers.get_all(COOKIE).iter().skip(1).count();
    }
    headers.len() - cookies
}

/// Tells the client that the connection ends with this answer (RFC 9112 section 9.6).
fn close(version: Version, response: &mut Response<Body>) {
    if version != Version::HTTP_2 {
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(CONNECTION, close);
    }
}

/// RFC 9110 section 9.3.2: HEAD has the headers of GET, its length among them, and no body. hyper
/// sees to that under HTTP/1 only.
fn take_body(response: &mut Response<Body>) {
    let body = std::mem::take(response.body_mut());
    if !body.is_end_stream()
        && let Some(length) = body.size_hint().exact()
    {
        let told = response.headers_mut().entry(CONTENT_LENGTH);
        told.or_insert(length.into());
    }
}

fn builder(strands: Strands) -> auto::Builder<Strands> {
    let mut builder = auto::Builder::new(strands);
    // `Timed` times heads: hyper's own timer would count the time between requests as well.
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        // A client that has said all it had to say may wait for the answer (RFC 9112 section 9.6).
        .half_close(true)
        .max_buf_size(MAX_HEAD);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEAD as u32)
        .max_pending_accept_reset_streams(MAX_RESETS)
        .max_local_error_reset_streams(MAX_MISTAKES)
        .initial_stream_window_size(UPLOAD_WINDOW)
        .initial_connection_window_size(UPLOAD_WINDOW)
        .max_send_buf_size(AHEAD)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
    builder
}
