//! `Pulse`: one connection's life, and how long its client may dawdle at each stage.

use std::convert::Infallible;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, Version};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

use super::body::{Body, BodyError};
use super::listen::{Stop, told};

/// Bytes of a request head, in either version: cookies and long query strings fit, a flood does
/// not. More is answered 431. (The number of headers is limited to 100 by hyper.)
const MAX_HEAD: usize = 32 * 1024;

/// Streams of one HTTP/2 connection at once; the figure that RFC 9113 section 6.5.2 advises not to
/// go below is 100.
const MAX_STREAMS: u32 = 128;

/// How long a client may take.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// From the first byte of a request (or the connection's start) to the end of its head.
    pub head: Duration,
    /// Between two requests.
    pub idle: Duration,
    /// Without taking a single byte of a response.
    pub stall: Duration,
}

impl Default for Patience {
    /// 10 s for a head: no honest network is slower. 60 s between requests: what browsers keep
    /// open. 30 s for a stalled response: a phone in a tunnel recovers sooner or not at all.
    fn default() -> Self {
        Self {
            head: Duration::from_secs(10),
            idle: Duration::from_secs(60),
            stall: Duration::from_secs(30),
        }
    }
}

/// An answer, at once where it can be: a hit is never boxed.
pub enum Answer {
    /// It is here.
    Now(Response<Body>),
    /// It must be waited for.
    Later(Pin<Box<dyn Future<Output = Response<Body>> + Send>>),
}

/// What answers the requests of a door.
pub trait Service: Send + Sync + 'static {
    /// Answers one request.
    fn answer(self: &Arc<Self>, request: Request<Incoming>, peer: SocketAddr) -> Answer;
}

/// Serves one connection until either side ends it. After the stop signal, requests in flight are
/// finished and no more are taken.
pub(super) async fn serve<S: Service>(
    stream: TcpStream,
    peer: SocketAddr,
    service: Arc<S>,
    mut stop: Stop,
    patience: Patience,
) {
    // A response is one write; holding back its last segment would only delay it.
    let _ = stream.set_nodelay(true);
    let pulse = Arc::new(Pulse::new());
    let io = Watched {
        stream,
        pulse: Arc::clone(&pulse),
        patience,
        reading: Alarm::default(),
        writing: Alarm::default(),
    };
    let answer = service_fn(move |request: Request<Incoming>| {
        let busy = pulse.enter(request.version());
        let answer = service.answer(request, peer);
        async move {
            let response = match answer {
                Answer::Now(response) => response,
                Answer::Later(response) => response.await,
            };
            Ok::<_, Infallible>(response.map(|body| Sent { body, _busy: busy }))
        }
    });
    let builder = builder();
    let mut connection = pin!(builder.serve_connection(TokioIo::new(io), answer));
    let ended = tokio::select! {
        biased;
        ended = connection.as_mut() => ended,
        () = told(&mut stop) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, error, "connection ended early");
    }
}

fn builder() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    // `Watched` times heads: hyper's own timer would count the time between requests as well.
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .max_buf_size(MAX_HEAD);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEAD as u32);
    builder
}

/// Where a connection is in its life.
#[derive(Debug, Clone, Copy)]
enum Stage {
    /// Reading a head since then.
    Head(Instant),
    /// Answering so many requests.
    Busy(usize),
    /// Between requests since then.
    Idle(Instant),
}

/// Shared by the socket, which sees bytes, and the service, which sees requests.
#[derive(Debug)]
struct Pulse(Mutex<State>);

#[derive(Debug)]
struct State {
    stage: Stage,
    http2: bool,
}

impl Pulse {
    fn new() -> Self {
        Self(Mutex::new(State {
            stage: Stage::Head(Instant::now()),
            http2: false,
        }))
    }

    fn enter(self: &Arc<Self>, version: Version) -> Busy {
        let mut state = self.0.lock();
        state.http2 = version == Version::HTTP_2;
        state.stage = match state.stage {
            Stage::Busy(requests) => Stage::Busy(requests + 1),
            Stage::Head(_) | Stage::Idle(_) => Stage::Busy(1),
        };
        Busy(Arc::clone(self))
    }

    fn leave(&self) {
        let mut state = self.0.lock();
        state.stage = match state.stage {
            Stage::Busy(requests) if requests > 1 => Stage::Busy(requests - 1),
            _ => Stage::Idle(Instant::now()),
        };
    }

    /// Bytes came in. Under HTTP/2 they need not be a request's: a ping does not start one.
    fn received(&self) {
        let mut state = self.0.lock();
        if let (Stage::Idle(_), false) = (state.stage, state.http2) {
            state.stage = Stage::Head(Instant::now());
        }
    }

    /// When the client has taken too long.
    fn deadline(&self, patience: &Patience) -> Option<Instant> {
        match self.0.lock().stage {
            Stage::Head(since) => Some(since + patience.head),
            Stage::Idle(since) => Some(since + patience.idle),
            Stage::Busy(_) => None,
        }
    }
}

/// A request that is being answered; dropped with the last byte of its response, or before.
struct Busy(Arc<Pulse>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.leave();
    }
}

/// A body that ends its request's [`Busy`].
struct Sent {
    body: Body,
    _busy: Busy,
}

impl http_body::Body for Sent {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A timer that is set anew only when it would ring too late: most requests never touch it.
#[derive(Default)]
struct Alarm(Option<Pin<Box<Sleep>>>);

impl Alarm {
    /// Ready once `deadline` has passed.
    fn poll(&mut self, deadline: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let sleep = self
            .0
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if sleep.deadline() > deadline {
            sleep.as_mut().reset(deadline);
        }
        loop {
            ready!(sleep.as_mut().poll(cx));
            if sleep.deadline() >= deadline {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(deadline);
        }
    }
}

/// A socket whose client is timed.
struct Watched {
    stream: TcpStream,
    pulse: Arc<Pulse>,
    patience: Patience,
    reading: Alarm,
    writing: Alarm,
}

impl Watched {
    fn written(
        &mut self,
        written: Poll<io::Result<usize>>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            self.writing = Alarm::default();
            return written;
        }
        let deadline = match &self.writing.0 {
            Some(sleep) => sleep.deadline(),
            None => Instant::now() + self.patience.stall,
        };
        self.writing.poll(deadline, cx).map(|()| Err(late()))
    }
}

fn late() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the client took too long")
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buffer.filled().len();
        if let Poll::Ready(read) = Pin::new(&mut this.stream).poll_read(cx, buffer) {
            if buffer.filled().len() > before {
                this.pulse.received();
            }
            return Poll::Ready(read);
        }
        match this.pulse.deadline(&this.patience) {
            Some(deadline) => this.reading.poll(deadline, cx).map(|()| Err(late())),
            None => {
                // Once hyper knows that there is nothing to read, it does not ask again when the
                // response is out: the alarm makes it look.
                let look = Instant::now() + this.patience.idle;
                this.reading.poll(look, cx).map(|()| Err(late()))
            }
        }
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buffer);
        self.written(written, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, buffers);
        self.written(written, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
