//! `Sent` and `Received`: the bodies of a fetch, with the generation's caps on them.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep_until};
use wasmtime_wasi_http::{Error, WasiBody};

use super::connect::MAX_BUFFER;
use super::log::Record;
use super::pool::Lease;
use super::refusal::Refusal;
use super::session::Companion;

/// Bytes that a generation may still move in one direction, over all its fetches.
pub(super) struct Budget {
    limit: u64,
    used: AtomicU64,
}

impl Budget {
    pub(super) fn new(limit: u64) -> Arc<Self> {
        let used = AtomicU64::new(0);
        Arc::new(Self { limit, used })
    }

    /// Uses up `bytes`, or says what the limit was. Frames are far below 2⁶³ bytes, and the first
    /// that is refused ends its body: the sum cannot wrap.
    fn spend(&self, bytes: u64) -> Result<(), u64> {
        let before = self.used.fetch_add(bytes, Ordering::Relaxed);
        (before.saturating_add(bytes) <= self.limit)
            .then_some(())
            .ok_or(self.limit)
    }
}

fn length(frame: &Frame<Bytes>) -> u64 {
    frame.data_ref().map_or(0, |data| data.len() as u64)
}

/// A request body on its way out; empty where there is none.
pub(super) struct Sent {
    body: Option<WasiBody>,
    budget: Arc<Budget>,
}

impl Sent {
    pub(super) fn new(body: WasiBody, budget: Arc<Budget>) -> Self {
        let body = (!body.is_end_stream()).then_some(body);
        Self { body, budget }
    }

    /// A copy, where there is nothing to copy.
    pub(super) fn duplicate(&self) -> Option<Self> {
        self.body.is_none().then(|| Self {
            body: None,
            budget: Arc::clone(&self.budget),
        })
    }
}

impl Body for Sent {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let Some(body) = self.body.as_mut() else {
            return Poll::Ready(None);
        };
        let Some(frame) = ready!(Pin::new(body).poll_frame(cx)?) else {
            return Poll::Ready(None);
        };
        Poll::Ready(Some(match self.budget.spend(length(&frame)) {
            Ok(()) => Ok(frame),
            Err(limit) => Err(Error::HttpRequestBodySize(Some(limit))),
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let empty = || SizeHint::with_exact(0);
        self.body.as_ref().map_or_else(empty, Body::size_hint)
    }
}

/// When a response body counts as stalled.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// The longest pause between two frames.
    pub(super) between: Duration,
    /// The end of the generation.
    pub(super) deadline: Instant,
}

/// A response body on its way to the guest. Read to its end, it parks its connection; left before,
/// it closes it.
pub(super) struct Received {
    /// Gone after the end or the first error.
    open: Option<(Incoming, Lease, Option<Companion>)>,
    budget: Arc<Budget>,
    patience: Patience,
    timer: Pin<Box<Sleep>>,
    record: Record,
}

impl Received {
    pub(super) fn new(
        incoming: Incoming,
        lease: Lease,
        budget: Arc<Budget>,
        patience: Patience,
        record: Record,
        companion: Option<Companion>,
    ) -> Self {
        Self {
            open: Some((incoming, lease, companion)),
            budget,
            patience,
            timer: Box::pin(sleep_until(patience.next())),
            record,
        }
    }

    fn fail(&mut self, refusal: &Refusal) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        self.open = None;
        self.record.refused(refusal);
        Poll::Ready(Some(Err(refusal.to_guest())))
    }

    fn release(&mut self) {
        if let Some((_, lease, _)) = self.open.take() {
            lease.give_back();
        }
    }
}

impl Patience {
    fn next(&self) -> Instant {
        self.deadline.min(Instant::now() + self.between)
    }
}

impl Body for Received {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = &mut *self;
        let Some((incoming, ..)) = this.open.as_mut() else {
            return Poll::Ready(None);
        };
        match Pin::new(incoming).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                if Instant::now() >= this.patience.deadline {
                    return this.fail(&Refusal::Stalled(this.patience.between));
                }
                if let Err(limit) = this.budget.spend(length(&frame)) {
                    return this.fail(&Refusal::ResponseSize(limit));
                }
                this.record.received(length(&frame));
                this.timer.as_mut().reset(this.patience.next());
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => this.fail(&Refusal::of_hyper(&error, MAX_BUFFER)),
            Poll::Ready(None) => {
                this.release();
                Poll::Ready(None)
            }
            Poll::Pending => {
                ready!(this.timer.as_mut().poll(cx));
                this.fail(&Refusal::Stalled(this.patience.between))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.open
            .as_ref()
            .is_none_or(|(body, ..)| body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let empty = || SizeHint::with_exact(0);
        self.open
            .as_ref()
            .map_or_else(empty, |(body, ..)| body.size_hint())
    }
}

impl Drop for Received {
    fn drop(&mut self) {
        if self.is_end_stream() {
            self.release();
        }
    }
}
