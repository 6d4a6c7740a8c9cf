//! `Sent`: a response's body on its way to its reader, piece by piece; and `Delivery`, which tells how
//! much of it HTTP/2 has taken and the client has not.
//!
//! HTTP/2 takes a body into its own hands and sends it as the client's windows allow. What was handed
//! over is no measure of what the client took: each piece says itself what of it was written.

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, Bytes};
use http_body::{Body as _, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::body::{Body, BodyError};
use super::in_flight::{Cut, Held, InFlight};
use super::timed::{Busy, Patience};

/// Bytes of a body that HTTP/2 is handed at once: two of its usual frames.
const PIECE: usize = 32 * 1024;

/// Bytes of one response that are handed to HTTP/2 ahead of their being written: while one piece is
/// being sent, the next is there.
pub(super) const AHEAD: usize = 2 * PIECE;

/// A response that HTTP/2 sends.
#[derive(Debug)]
pub(super) struct Delivery {
    patience: Patience,
    cut: Arc<Cut>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Bytes that HTTP/2 has and did not write.
    ahead: usize,
    /// As long as there is something for the client to take.
    window: Option<Window>,
    /// Whom to wake when no more than so much is ahead.
    waker: Option<(usize, Waker)>,
}

/// What the client has to take, and by when.
#[derive(Debug, Clone, Copy)]
struct Window {
    until: Instant,
    bytes: usize,
}

/// A piece of a body, which knows what was written of it.
pub(super) struct Piece {
    bytes: Bytes,
    delivery: Option<Arc<Delivery>>,
    _held: Arc<Held>,
}

/// A body that ends its request's [`Busy`]. One that fails or panics breaks off its response, which
/// the client can tell: under HTTP/1 the connection ends before the message does, as there is no
/// other way to say it (RFC 9112 section 8); under HTTP/2 the stream is reset, and the others go on.
pub(super) struct Sent {
    body: Body,
    way: Way,
    held: Option<Arc<Held>>,
    _busy: Busy,
}

/// How a body leaves.
pub(super) struct Way {
    /// The account that it is in.
    pub(super) in_flight: Arc<InFlight>,
    /// What breaks it off.
    pub(super) cut: Arc<Cut>,
    /// Under HTTP/2.
    pub(super) delivery: Option<Arc<Delivery>>,
}

// === impl Delivery ===

impl Window {
    fn new(patience: &Patience) -> Self {
        Self {
            until: Instant::now() + patience.stall,
            bytes: patience.least,
        }
    }
}

impl Delivery {
    pub(super) fn new(patience: Patience, cut: Arc<Cut>) -> Arc<Self> {
        Arc::new(Self {
            patience,
            cut,
            state: Mutex::default(),
        })
    }

    /// What breaks it off.
    pub(super) fn cut(&self) -> &Arc<Cut> {
        &self.cut
    }

    /// When the client has taken too long: of what is ready it takes [`Patience::least`] bytes, or
    /// all, in each [`Patience::stall`], however it opens its windows and whatever else it asks.
    pub(super) fn deadline(&self) -> Option<Instant> {
        Some(self.state.lock().window?.until)
    }

    /// Something is ready for the client.
    fn offer(&self, bytes: usize) {
        let mut state = self.state.lock();
        state.ahead += bytes;
        let window = Window::new(&self.patience);
        state.window.get_or_insert(window);
    }

    /// So much of it was written.
    fn written(&self, bytes: usize) {
        let mut state = self.state.lock();
        if let Some(window) = &mut state.window {
            window.bytes = window.bytes.saturating_sub(bytes);
            if window.bytes == 0 {
                *window = Window::new(&self.patience);
            }
        }
        state.shrink(bytes);
    }

    /// So much of it never will be.
    fn dropped(&self, bytes: usize) {
        self.state.lock().shrink(bytes);
    }

    /// The server has nothing ready; once the client has all there was, it owes nothing.
    fn starved(&self) {
        let mut state = self.state.lock();
        if state.ahead == 0 {
            state.window = None;
        }
    }

    /// Ready once no more than `most` bytes are ahead.
    fn poll_ahead(&self, most: usize, cx: &Context<'_>) -> Poll<()> {
        let mut state = self.state.lock();
        if state.ahead <= most {
            return Poll::Ready(());
        }
        state.waker = Some((most, cx.waker().clone()));
        Poll::Pending
    }
}

impl State {
    fn shrink(&mut self, bytes: usize) {
        self.ahead -= bytes;
        let ahead = self.ahead;
        if let Some((_, waker)) = self.waker.take_if(|(most, _)| ahead <= *most) {
            waker.wake();
        }
    }
}

// === impl Piece ===

impl Buf for Piece {
    fn remaining(&self) -> usize {
        self.bytes.len()
    }

    fn chunk(&self) -> &[u8] {
        &self.bytes
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
        if let Some(delivery) = &self.delivery {
            delivery.written(count);
        }
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        if let Some(delivery) = &self.delivery
            && !self.bytes.is_empty()
        {
            delivery.dropped(self.bytes.len());
        }
    }
}

// === impl Sent ===

impl Sent {
    pub(super) fn new(body: Body, busy: Busy, way: Way) -> Self {
        Self {
            body,
            way,
            held: None,
            _busy: busy,
        }
    }

    /// The next piece of what there is.
    fn next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Piece, BodyError>>> {
        if let Body::Full(bytes) = &mut self.body
            && !bytes.is_empty()
        {
            let Way { in_flight, cut, .. } = &self.way;
            let held = self
                .held
                .get_or_insert_with(|| Arc::new(in_flight.response(bytes, cut)));
            let (held, most) = (Arc::clone(held), self.most());
            let piece = match &mut self.body {
                Body::Full(bytes) => bytes.split_to(bytes.len().min(most)),
                Body::Empty | Body::Stream(_) => Bytes::new(),
            };
            return Poll::Ready(Some(Ok(self.piece(piece, held))));
        }
        let polled = AssertUnwindSafe(|| Pin::new(&mut self.body).poll_frame(cx));
        let frame = std::panic::catch_unwind(polled)
            .unwrap_or_else(|_| Poll::Ready(Some(Err("wisr panicked while it sent it".into()))));
        Poll::Ready(match ready!(frame) {
            // None of our bodies has trailers.
            Some(Ok(frame)) => frame.into_data().ok().map(|bytes| {
                let held = self.way.in_flight.response(&bytes, &self.way.cut);
                Ok(self.piece(bytes, Arc::new(held)))
            }),
            Some(Err(error)) => Some(Err(error)),
            None => None,
        })
    }

    /// Bytes of a piece.
    fn most(&self) -> usize {
        match self.way.delivery {
            Some(_) => PIECE,
            None => usize::MAX,
        }
    }

    fn piece(&self, bytes: Bytes, held: Arc<Held>) -> Piece {
        let delivery = self.way.delivery.clone();
        if let Some(delivery) = &delivery {
            delivery.offer(bytes.len());
        }
        Piece {
            bytes,
            delivery,
            _held: held,
        }
    }
}

impl http_body::Body for Sent {
    type Data = Piece;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Piece>, BodyError>>> {
        if let Some(delivery) = &self.way.delivery {
            ready!(delivery.poll_ahead(AHEAD - PIECE, cx));
        }
        let Poll::Ready(next) = self.next(cx) else {
            if let Some(delivery) = &self.way.delivery {
                delivery.starved();
            }
            return Poll::Pending;
        };
        match next {
            Some(Ok(piece)) => Poll::Ready(Some(Ok(Frame::data(piece)))),
            Some(Err(error)) => {
                // It is never polled again.
                self.body = Body::Empty;
                tracing::error!(error, "a response broke off");
                Poll::Ready(Some(Err(error)))
            }
            None => {
                // The end is told when the client has what is before it: until then the stream can
                // be broken off.
                if let Some(delivery) = &self.way.delivery {
                    ready!(delivery.poll_ahead(0, cx));
                }
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        let is_taken = |delivery: &Arc<Delivery>| delivery.state.lock().ahead == 0;
        self.body.is_end_stream() && self.way.delivery.as_ref().is_none_or(is_taken)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn delivery() -> (Patience, Arc<Delivery>) {
        let patience = Patience::default();
        (patience, Delivery::new(patience, Arc::default()))
    }

    #[tokio::test(start_paused = true)]
    async fn so_much_is_taken_in_so_long_or_the_stream_is_late() {
        let (patience, delivery) = delivery();
        assert_eq!(delivery.deadline(), None, "nothing is ready");
        let began = Instant::now();
        delivery.offer(AHEAD);
        // A byte now and then buys nothing, and neither does more that is ready.
        for _ in 0..29 {
            tokio::time::advance(SECOND).await;
            delivery.written(1);
            delivery.offer(1);
            delivery.starved();
            assert_eq!(delivery.deadline(), Some(began + patience.stall));
        }
        delivery.written(patience.least - 29);
        assert_eq!(
            delivery.deadline(),
            Some(began + 29 * SECOND + patience.stall)
        );
        // What is left is less than that, and is owed all the same.
        tokio::time::advance(29 * SECOND).await;
        delivery.starved();
        assert_eq!(
            delivery.deadline(),
            Some(began + 29 * SECOND + patience.stall)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn who_took_all_there_was_owes_nothing() {
        let (patience, delivery) = delivery();
        delivery.offer(10);
        delivery.written(10);
        // A body in small pieces that are all there is one body.
        delivery.offer(10);
        assert!(delivery.deadline().is_some());
        delivery.written(10);
        delivery.starved();
        assert_eq!(delivery.deadline(), None);
        tokio::time::advance(60 * SECOND).await;
        delivery.offer(10);
        assert_eq!(delivery.deadline(), Some(Instant::now() + patience.stall));
    }

    #[tokio::test]
    async fn what_is_not_written_any_more_is_not_waited_for() {
        let (_, delivery) = delivery();
        let in_flight = super::super::connection::Manner::some().in_flight;
        let bytes = Bytes::from_static(b"page");
        let held = Arc::new(in_flight.response(&bytes, delivery.cut()));
        delivery.offer(4);
        let mut piece = Piece {
            bytes,
            delivery: Some(Arc::clone(&delivery)),
            _held: held,
        };
        piece.advance(1);
        let cx = Context::from_waker(Waker::noop());
        assert!(delivery.poll_ahead(0, &cx).is_pending());
        drop(piece);
        assert!(delivery.poll_ahead(0, &cx).is_ready());
    }
}
