//! `Strands`: what runs the streams of an HTTP/2 connection, and breaks off those whose readers lag.
//!
//! One slow reader behind a proxy costs that reader its stream (RFC 9113 section 5.4.2: CANCEL), and
//! the proxy's other readers nothing.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper::rt::Executor;
use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;

use super::delivery::Delivery;
use super::timed::Alarm;

/// The streams of one connection.
#[derive(Clone)]
pub(super) struct Strands {
    /// Of the request that came last: hyper asks for its answer and at once for this to run it.
    next: Arc<Mutex<Option<Arc<Delivery>>>>,
    /// Streams broken off because their readers lag.
    slow: Counter,
}

/// A stream whose answer is being made or sent.
struct Strand<F> {
    future: Option<Pin<Box<F>>>,
    delivery: Arc<Delivery>,
    alarm: Alarm,
    slow: Counter,
}

impl Strands {
    pub(super) fn new(slow: Counter) -> Self {
        Self {
            next: Arc::default(),
            slow,
        }
    }

    /// The stream that is run next.
    pub(super) fn expect(&self, delivery: &Arc<Delivery>) {
        *self.next.lock() = Some(Arc::clone(delivery));
    }
}

impl<F> Executor<F> for Strands
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, future: F) {
        match self.next.lock().take() {
            Some(delivery) => {
                tokio::spawn(Strand {
                    future: Some(Box::pin(future)),
                    delivery,
                    alarm: Alarm::default(),
                    slow: self.slow.clone(),
                });
            }
            None => {
                tokio::spawn(future);
            }
        }
    }
}

impl<F: Future> Future for Strand<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let Some(future) = &mut this.future else {
            return Poll::Ready(());
        };
        if future.as_mut().poll(cx).is_ready() {
            this.future = None;
            return Poll::Ready(());
        }
        let deadline = this.delivery.deadline();
        let is_late = deadline.is_some_and(|deadline| this.alarm.poll(deadline, cx).is_ready());
        if !is_late && this.delivery.cut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        if is_late {
            this.slow.inc();
        }
        // Its last handle of the stream: HTTP/2 resets it.
        this.future = None;
        Poll::Ready(())
    }
}

impl<F> Drop for Strand<F> {
    fn drop(&mut self) {
        self.delivery.cut().orphan();
    }
}
