//! `Timed`: a socket whose client may dawdle only so long at each stage of the connection.
//!
//! The socket sees bytes and the service sees requests; the [`Pulse`] joins what they see.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::Version;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

/// The end of a connection with bytes of the client on their way: were it closed at once, the
/// kernel would answer them with a reset, and the client might lose our last answer to it (RFC
/// 9112 section 9.6). So much is read and thrown away, for so long at most.
const LINGER_BYTES: usize = 256 * 1024;
const LINGER: Duration = Duration::from_secs(1);

/// How long a client may take.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// From the first byte of a request (or the connection's start) to the end of its head.
    pub head: Duration,
    /// Between two requests.
    pub idle: Duration,
    /// In which a client that lags takes [`Patience::least`] bytes of what is ready for it.
    pub stall: Duration,
    /// Bytes. Whoever takes one now and then keeps a connection and a page for ever.
    pub least: usize,
}

impl Default for Patience {
    /// 10 s for a head: no honest network is slower. 60 s between requests: what browsers keep
    /// open. 32 KiB in 30 s: a phone at the edge of its cell is five times as fast, and one in a
    /// tunnel recovers sooner or not at all.
    fn default() -> Self {
        Self {
            head: Duration::from_secs(10),
            idle: Duration::from_secs(60),
            stall: Duration::from_secs(30),
            least: 32 * 1024,
        }
    }
}

/// Where a connection is in its life.
#[derive(Debug, Clone, Copy)]
enum Stage {
    /// Reading a head since then.
    Head(Instant),
    /// Answering so many requests.
    Busy(usize),
    /// Between requests, or sending what is left of the last response, since then.
    Idle(Instant),
}

/// Shared by the socket, which sees bytes, and the service, which sees requests.
#[derive(Debug)]
pub(super) struct Pulse(Mutex<State>);

#[derive(Debug)]
struct State {
    stage: Stage,
    http2: bool,
    /// Whether the last request had a body, which may not have been read to its end.
    has_body: bool,
    /// Responses that are ready and have no window to be sent in. Only HTTP/2 has such windows;
    /// under HTTP/1 a client that lags shows in the socket.
    untaken: usize,
    /// When one of them was the first, or the client last took enough.
    taken: Instant,
}

impl Pulse {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        Self(Mutex::new(State {
            stage: Stage::Head(now),
            http2: false,
            has_body: false,
            untaken: 0,
            taken: now,
        }))
    }

    /// A request has come; it is over when what is returned is dropped.
    pub(super) fn enter(self: &Arc<Self>, version: Version, has_body: bool) -> Busy {
        let http2 = version == Version::HTTP_2;
        let mut state = self.0.lock();
        state.http2 = http2;
        state.has_body = has_body;
        state.stage = match state.stage {
            Stage::Busy(requests) => Stage::Busy(requests + 1),
            Stage::Head(_) | Stage::Idle(_) => Stage::Busy(1),
        };
        Busy {
            pulse: Arc::clone(self),
            http2,
            untaken: false,
        }
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

    /// The client took [`Patience::least`] bytes: it lags, perhaps, but it is there.
    fn took_enough(&self) {
        let now = Instant::now();
        let mut state = self.0.lock();
        state.taken = now;
        if let Stage::Idle(since) = &mut state.stage {
            *since = now;
        }
    }

    /// When the client has taken too long.
    fn deadline(&self, patience: &Patience) -> Option<Instant> {
        let state = self.0.lock();
        let asking = match state.stage {
            Stage::Head(since) => Some(since + patience.head),
            Stage::Idle(since) => Some(since + patience.idle),
            Stage::Busy(_) => None,
        };
        let taking = (state.untaken > 0).then(|| state.taken + patience.stall);
        asking.into_iter().chain(taking).min()
    }

    /// Whether the client may be sending what nobody will read.
    fn may_send(&self) -> bool {
        let state = self.0.lock();
        state.http2 || state.has_body || matches!(state.stage, Stage::Head(_))
    }
}

/// A request that is being answered; dropped with the last byte of its response, or before.
pub(super) struct Busy {
    pulse: Arc<Pulse>,
    http2: bool,
    untaken: bool,
}

impl Busy {
    /// Whether a part of the response is ready, for the client to take.
    pub(super) fn offer(&mut self, ready: bool) {
        if !self.http2 || self.untaken == ready {
            return;
        }
        self.untaken = ready;
        let mut state = self.pulse.0.lock();
        if !ready {
            state.untaken -= 1;
            return;
        }
        if state.untaken == 0 {
            state.taken = Instant::now();
        }
        state.untaken += 1;
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.offer(false);
        self.pulse.leave();
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

/// What a client that lags has to take, and by when.
struct Window {
    until: Instant,
    bytes: usize,
}

/// How the end goes.
enum End {
    /// Not yet.
    Open,
    /// Nothing more is sent; what still comes is thrown away, so many bytes until then.
    Lingering { until: Instant, bytes: usize },
}

/// A socket whose client is timed.
pub(super) struct Timed {
    stream: TcpStream,
    pulse: Arc<Pulse>,
    patience: Patience,
    reading: Alarm,
    writing: Alarm,
    window: Option<Window>,
    /// Bytes written since they were last [`Patience::least`].
    taken: usize,
    end: End,
}

impl Timed {
    pub(super) fn new(stream: TcpStream, pulse: Arc<Pulse>, patience: Patience) -> Self {
        Self {
            stream,
            pulse,
            patience,
            reading: Alarm::default(),
            writing: Alarm::default(),
            window: None,
            taken: 0,
            end: End::Open,
        }
    }

    fn written(
        &mut self,
        written: Poll<io::Result<usize>>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let Poll::Ready(written) = written else {
            let window = self.window.get_or_insert_with(|| Window {
                until: Instant::now() + self.patience.stall,
                bytes: self.patience.least,
            });
            return self.writing.poll(window.until, cx).map(|()| Err(late()));
        };
        let bytes = *written.as_ref().unwrap_or(&0);
        self.taken += bytes;
        if self.taken >= self.patience.least {
            self.taken = 0;
            self.pulse.took_enough();
        }
        if let Some(window) = &mut self.window {
            window.bytes = window.bytes.saturating_sub(bytes);
            if window.bytes == 0 {
                self.caught_up();
            }
        }
        Poll::Ready(written)
    }

    fn caught_up(&mut self) {
        if self.window.take().is_some() {
            self.writing = Alarm::default();
        }
    }

    /// Reads what the client still sends, to its end or to that of our patience.
    fn linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let End::Lingering { until, bytes } = &mut self.end else {
            return Poll::Ready(());
        };
        let mut room = [std::mem::MaybeUninit::uninit(); 4096];
        loop {
            let mut buffer = ReadBuf::uninit(&mut room);
            let Poll::Ready(read) = Pin::new(&mut self.stream).poll_read(cx, &mut buffer) else {
                return self.reading.poll(*until, cx);
            };
            let length = buffer.filled().len();
            *bytes = bytes.saturating_sub(length);
            if read.is_err() || length == 0 || *bytes == 0 {
                return Poll::Ready(());
            }
        }
    }
}

fn late() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the client took too long")
}

impl AsyncRead for Timed {
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
                let look = Instant::now() + this.patience.idle.min(this.patience.stall);
                this.reading.poll(look, cx).map(|()| Err(late()))
            }
        }
    }
}

impl AsyncWrite for Timed {
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
        // Everything that is ready was written.
        self.caught_up();
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let End::Open = self.end {
            ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
            if !self.pulse.may_send() {
                return Poll::Ready(Ok(()));
            }
            self.end = End::Lingering {
                until: Instant::now() + LINGER,
                bytes: LINGER_BYTES,
            };
        }
        self.linger(cx).map(Ok)
    }
}
