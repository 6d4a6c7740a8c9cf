//! `Upload`: the body of a request, read whole within bounds of size and time, or left unread.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, Version};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use parking_lot::Mutex;
use serde::de::DeserializeOwned;

/// How long a body may take: what is within its bounds comes over a poor network in that time.
const TIME: Duration = Duration::from_secs(10);

/// Of a body that nobody wanted, how much is read and thrown away for the connection's sake, and how
/// long that may take: what came along with its request is there by then.
const UNWANTED: u64 = 64 * 1024;
const UNWANTED_TIME: Duration = Duration::from_millis(100);

/// The body of a request. What is not read of it is told to whoever has its `Left`.
#[derive(Debug)]
pub struct Upload {
    body: Option<Incoming>,
    left: Option<Arc<Mutex<State>>>,
}

/// What is left of a body once its request is answered.
#[derive(Debug)]
pub(super) struct Left(Arc<Mutex<State>>);

#[derive(Debug)]
enum State {
    /// Somebody has it.
    Taken,
    /// Nobody read it to its end.
    Unread(Incoming),
    /// It was no body to its end.
    Broken,
    /// It was read to its end.
    Read,
}

/// Why a body was not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadUpload {
    /// It is larger than this many KiB.
    #[error("The body is larger than {0} KiB")]
    TooLarge(u64),
    /// The connection was lost, or what came was no body.
    #[error("The body broke off")]
    BrokeOff,
    /// It took too long.
    #[error("The body took longer than {} s", TIME.as_secs())]
    TooSlow,
}

impl BadUpload {
    /// What it is answered with.
    pub fn status(self) -> StatusCode {
        match self {
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::BrokeOff => StatusCode::BAD_REQUEST,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
        }
    }
}

/// Reads a body that is one JSON object. Of a structure serde would take its fields in a list, too,
/// by their order: what nobody means, and no document could tell of.
///
/// # Errors
/// What is wrong with it, for whoever wrote it to read.
pub fn object<T: DeserializeOwned>(body: &[u8]) -> Result<T, String> {
    match body.trim_ascii_start().first() {
        Some(b'[') => Err("a list, where an object is expected".to_owned()),
        _ => serde_json::from_slice(body).map_err(|error| error.to_string()),
    }
}

/// Reads a body of at most `limit` bytes. One that says that it is larger is not read at all.
///
/// # Errors
/// [`BadUpload`].
pub async fn read(body: Upload, limit: usize) -> Result<Bytes, BadUpload> {
    let too_large = BadUpload::TooLarge(limit as u64 / 1024);
    if body.size_hint().lower() > limit as u64 {
        return Err(too_large);
    }
    let whole = Limited::new(body, limit).collect();
    match tokio::time::timeout(TIME, whole).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large),
        Ok(Err(_)) => Err(BadUpload::BrokeOff),
        Err(_) => Err(BadUpload::TooSlow),
    }
}

impl Upload {
    /// The request, and what will be left of its body: under HTTP/1, where the connection ends with a
    /// body that was not read.
    pub(super) fn of(request: Request<Incoming>) -> (Request<Self>, Option<Left>) {
        let is_watched = request.version() != Version::HTTP_2 && !request.body().is_end_stream();
        let state = is_watched.then(|| Arc::new(Mutex::new(State::Taken)));
        let left = state.clone();
        let request = request.map(|body| Self {
            body: Some(body),
            left,
        });
        (request, state.map(Left))
    }

    fn settle(&mut self, state: impl FnOnce(Incoming) -> State) {
        let body = self.body.take();
        if let (Some(left), Some(body)) = (&self.left, body) {
            *left.lock() = state(body);
        }
    }
}

impl Left {
    /// Whether the body was read to its end, or is now that it is there: the next request follows it.
    /// A client that waits to be asked for the body (RFC 9110 section 10.1.1) is not.
    pub(super) async fn finish(self, is_waited_for: bool) -> bool {
        let state = std::mem::replace(&mut *self.0.lock(), State::Taken);
        match state {
            State::Read => true,
            State::Unread(body) if !is_waited_for && body.size_hint().lower() <= UNWANTED => {
                let body = Limited::new(body, UNWANTED as usize);
                let read = tokio::time::timeout(UNWANTED_TIME, drain(body));
                Box::pin(read).await.unwrap_or(false)
            }
            State::Unread(_) | State::Broken | State::Taken => false,
        }
    }
}

/// Reads to the end and keeps nothing.
async fn drain(mut body: Limited<Incoming>) -> bool {
    while let Some(frame) = body.frame().await {
        if frame.is_err() {
            return false;
        }
    }
    true
}

impl Body for Upload {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(body) = &mut self.body else {
            return Poll::Ready(None);
        };
        let frame = Pin::new(body).poll_frame(cx);
        match &frame {
            Poll::Ready(None) => self.settle(|_| State::Read),
            Poll::Ready(Some(Err(_))) => self.settle(|_| State::Broken),
            Poll::Ready(Some(Ok(_))) | Poll::Pending => {}
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let none = SizeHint::with_exact(0);
        self.body.as_ref().map_or(none, Body::size_hint)
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        self.settle(|body| match body.is_end_stream() {
            true => State::Read,
            false => State::Unread(body),
        });
    }
}
