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
pub(super) struct Pulse(Mutex<State>);

#[derive(Debug)]
struct State {
    stage: Stage,
    http2: bool,
}

impl Pulse {
    pub(super) fn new() -> Self {
        Self(Mutex::new(State {
            stage: Stage::Head(Instant::now()),
            http2: false,
        }))
    }

    /// A request has come; it is over when what is returned is dropped.
    pub(super) fn enter(self: &Arc<Self>, version: Version) -> Busy {
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
pub(super) struct Busy(Arc<Pulse>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.leave();
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
pub(super) struct Timed {
    stream: TcpStream,
    pulse: Arc<Pulse>,
    patience: Patience,
    reading: Alarm,
    writing: Alarm,
}

impl Timed {
    pub(super) fn new(stream: TcpStream, pulse: Arc<Pulse>, patience: Patience) -> Self {
        Self {
            stream,
            pulse,
            patience,
            reading: Alarm::default(),
            writing: Alarm::default(),
        }
    }

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
                let look = Instant::now() + this.patience.idle;
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
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
