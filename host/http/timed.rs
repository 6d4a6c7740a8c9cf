//! `Timed`: a socket whose client may dawdle only so long at each stage of the connection.
//!
//! The socket sees bytes and the service sees requests; the [`Pulse`] joins what they see.

use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use http::Version;
use prometheus_client::metrics::counter::Counter;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::coop::unconstrained;
use tokio::time::{Instant, Sleep};

use super::in_flight::Cut;

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

/// Shared by the socket, which sees bytes, and the service, which sees requests. Both run on the
/// connection's one thread; atomics cost what plain fields would, and a lock does not.
#[derive(Debug)]
pub(super) struct Pulse {
    began: Instant,
    /// Requests that are being answered.
    requests: AtomicUsize,
    /// With no request: whether a head is being read; if not, the connection is between requests, or
    /// sends what is left of the last response.
    in_head: AtomicBool,
    /// Since when, with no request.
    since: Moment,
    http2: AtomicBool,
    /// Whether the short way has a request in hand.
    fetching: AtomicBool,
    /// Whether no more requests are to be taken.
    stopping: AtomicBool,
    /// Whether the last request had a body, which may not have been read to its end.
    has_body: AtomicBool,
    /// Breaks off the connection.
    cut: Arc<Cut>,
}

/// A moment of a connection, in nanoseconds from its beginning.
#[derive(Debug, Default)]
struct Moment(AtomicU64);

impl Moment {
    /// Stands for the next time that somebody asks.
    const OPEN: u64 = u64::MAX;

    fn set(&self, began: Instant) {
        let nanos = u64::try_from(began.elapsed().as_nanos());
        self.0.store(nanos.unwrap_or(Self::OPEN), Relaxed);
    }

    /// Sets it when it is first asked for: what is over by then need not read the clock.
    fn open(&self) {
        self.0.store(Self::OPEN, Relaxed);
    }

    fn get(&self, began: Instant) -> Instant {
        if self.0.load(Relaxed) == Self::OPEN {
            self.set(began);
        }
        began + Duration::from_nanos(self.0.load(Relaxed))
    }
}

impl Pulse {
    pub(super) fn new() -> Self {
        Self {
            began: Instant::now(),
            requests: AtomicUsize::new(0),
            in_head: AtomicBool::new(true),
            since: Moment::default(),
            http2: AtomicBool::new(false),
            fetching: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            has_body: AtomicBool::new(false),
            cut: Arc::default(),
        }
    }

    /// A request has come; it is over when what is returned is dropped.
    pub(super) fn enter(self: &Arc<Self>, version: Version, has_body: bool) -> Busy {
        let http2 = version == Version::HTTP_2;
        self.http2.store(http2, Relaxed);
        self.has_body.store(has_body, Relaxed);
        self.in_head.store(false, Relaxed);
        self.requests.fetch_add(1, Relaxed);
        Busy(Arc::clone(self))
    }

    /// The short way waits for a request's page, until what is returned is dropped; none once the
    /// connection is to end.
    pub(super) fn fetch(self: &Arc<Self>) -> Option<Fetching> {
        if self.stopping.load(Relaxed) {
            return None;
        }
        self.fetching.store(true, Relaxed);
        Some(Fetching(self.enter(Version::HTTP_11, false)))
    }

    /// Whether the short way has a request in hand.
    pub(super) fn is_fetching(&self) -> bool {
        self.fetching.load(Relaxed)
    }

    /// The connection is to end with what it has in hand.
    pub(super) fn stop(&self) {
        self.stopping.store(true, Relaxed);
    }

    /// A request has come and been answered at once.
    pub(super) fn answered(&self) {
        self.has_body.store(false, Relaxed);
        self.in_head.store(false, Relaxed);
        self.since.open();
    }

    /// Whether the client is in the midst of a request's head.
    pub(super) fn is_in_head(&self) -> bool {
        !self.is_busy() && self.in_head.load(Relaxed)
    }

    /// Whether the client has its answers, and has begun no other request.
    pub(super) fn is_at_rest(&self) -> bool {
        !self.is_busy() && !self.in_head.load(Relaxed)
    }

    fn leave(&self) {
        if self.requests.fetch_sub(1, Relaxed) == 1 {
            self.since.set(self.began);
        }
    }

    fn is_busy(&self) -> bool {
        self.requests.load(Relaxed) > 0
    }

    /// Bytes came in. Under HTTP/2 they need not be a request's: a ping does not start one.
    fn received(&self) {
        if self.is_busy() || self.in_head.load(Relaxed) || self.http2.load(Relaxed) {
            return;
        }
        self.in_head.store(true, Relaxed);
        // Most heads come whole; the others are timed from the first wait for more.
        self.since.open();
    }

    /// What breaks off the connection.
    pub(super) fn cut(&self) -> &Arc<Cut> {
        &self.cut
    }

    /// The client took [`Patience::least`] bytes: it lags, perhaps, but it is there.
    fn took_enough(&self) {
        if !self.is_busy() && !self.in_head.load(Relaxed) {
            self.since.set(self.began);
        }
    }

    /// When the client has taken too long to ask for something.
    fn deadline(&self, patience: &Patience) -> Option<Instant> {
        (!self.is_busy()).then(|| {
            let in_head = self.in_head.load(Relaxed);
            self.since.get(self.began)
                + if in_head {
                    patience.head
                } else {
                    patience.idle
                }
        })
    }

    /// Whether the client may be sending what nobody will read.
    fn may_send(&self) -> bool {
        let in_head = !self.is_busy() && self.in_head.load(Relaxed);
        self.http2.load(Relaxed) || self.has_body.load(Relaxed) || in_head
    }
}

/// A request that is being answered; dropped with the last byte of its response, or before.
pub(super) struct Busy(Arc<Pulse>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.leave();
    }
}

/// A request whose page the short way waits for.
pub(super) struct Fetching(Busy);

impl Drop for Fetching {
    fn drop(&mut self) {
        self.0.0.fetching.store(false, Relaxed);
    }
}

/// A timer that is set anew only when it would ring too late, and asked only when it has rung or
/// somebody else asks: most requests never touch it.
#[derive(Default)]
pub(super) struct Alarm(Option<Set>);

struct Set {
    sleep: Pin<Box<Sleep>>,
    /// Whom it will wake.
    waker: Waker,
}

impl Alarm {
    /// Ready once `deadline` has passed.
    pub(super) fn poll(&mut self, deadline: Instant, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(set) = &self.0
            && set.sleep.deadline() <= deadline
            && !set.sleep.is_elapsed()
            && set.waker.will_wake(cx.waker())
        {
            return Poll::Pending;
        }
        let Set { sleep, waker } = self.0.get_or_insert_with(|| Set {
            sleep: Box::pin(tokio::time::sleep_until(deadline)),
            waker: cx.waker().clone(),
        });
        waker.clone_from(cx.waker());
        if sleep.deadline() > deadline {
            sleep.as_mut().reset(deadline);
        }
        loop {
            // A task that has used up its budget would be sent away without being noted.
            ready!(pin!(unconstrained(sleep.as_mut())).poll(cx));
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
    /// Nothing more is sent; what still comes is thrown away, so many bytes until then. Where nothing
    /// is to come, and nothing has, there is no such moment.
    Lingering {
        until: Option<Instant>,
        bytes: usize,
    },
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
    /// Connections broken off because their clients lag.
    slow: Counter,
}

impl Timed {
    pub(super) fn new(
        stream: TcpStream,
        pulse: Arc<Pulse>,
        patience: Patience,
        slow: Counter,
    ) -> Self {
        Self {
            stream,
            pulse,
            patience,
            reading: Alarm::default(),
            writing: Alarm::default(),
            window: None,
            taken: 0,
            end: End::Open,
            slow,
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
            if self.writing.poll(window.until, cx).is_ready() {
                self.slow.inc();
                return Poll::Ready(Err(late()));
            }
            return self.pulse.cut.poll(cx).map(|()| Err(late()));
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
                return until.map_or(Poll::Ready(()), |until| self.reading.poll(until, cx));
            };
            // Who has sent more than was asked for, in a pipeline, may be at it still.
            until.get_or_insert_with(|| Instant::now() + LINGER);
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
            self.end = End::Lingering {
                until: self.pulse.may_send().then(|| Instant::now() + LINGER),
                bytes: LINGER_BYTES,
            };
        }
        self.linger(cx).map(Ok)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn the_alarm_wakes_who_asked_last() {
        let began = Instant::now();
        let mut alarm = Alarm::default();
        // The first asks for a later moment, and with its budget used up.
        poll_fn(|cx| {
            while let Poll::Ready(progress) = tokio::task::coop::poll_proceed(cx) {
                progress.made_progress();
            }
            assert!(alarm.poll(began + 9 * SECOND, cx).is_pending());
            Poll::Ready(())
        })
        .await;
        // Who asks again, for later or for sooner, is woken at that moment.
        for seconds in [9, 30, 20, 40] {
            let until = began + seconds * SECOND;
            let mut rung = Box::pin(poll_fn(|cx| alarm.poll(until.max(Instant::now()), cx)));
            let mut idle = Context::from_waker(Waker::noop());
            let _ = rung.as_mut().poll(&mut idle);
            tokio::time::timeout(60 * SECOND, rung).await.unwrap();
            assert!(Instant::now() >= until);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_page_is_waited_for_without_a_deadline_and_none_at_the_end() {
        let (patience, pulse) = (Patience::default(), Arc::new(Pulse::new()));
        let fetching = pulse.fetch().unwrap();
        pulse.stop();
        assert!(pulse.is_fetching() && pulse.deadline(&patience).is_none());
        drop(fetching);
        assert!(!pulse.is_fetching() && pulse.deadline(&patience).is_some());
        assert!(pulse.fetch().is_none() && !pulse.is_fetching());
    }

    #[tokio::test(start_paused = true)]
    async fn each_stage_has_its_own_deadline() {
        let (patience, pulse) = (Patience::default(), Arc::new(Pulse::new()));
        let began = Instant::now();
        let deadline = || pulse.deadline(&patience);
        assert_eq!(deadline(), Some(began + patience.head));
        tokio::time::advance(SECOND).await;
        // More of the same head buys no time.
        pulse.received();
        assert_eq!(deadline(), Some(began + patience.head));
        let mut busy = [Version::HTTP_11; 2].map(|version| Some(pulse.enter(version, false)));
        assert_eq!(deadline(), None);
        busy[0] = None;
        assert_eq!(deadline(), None);
        tokio::time::advance(SECOND).await;
        busy[1] = None;
        // Idle since the last one, whenever that is asked.
        tokio::time::advance(SECOND).await;
        assert_eq!(deadline(), Some(began + 2 * SECOND + patience.idle));
        pulse.received();
        assert_eq!(deadline(), Some(began + 3 * SECOND + patience.head));
        tokio::time::advance(SECOND).await;
        assert_eq!(deadline(), Some(began + 3 * SECOND + patience.head));
        // What a stream is late with is the stream's own matter.
        let waiting = pulse.enter(Version::HTTP_2, false);
        assert_eq!(deadline(), None);
        drop(waiting);
    }
}
