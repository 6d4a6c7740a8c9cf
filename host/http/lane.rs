//! `Lane`: the short way of a hit, between the socket and hyper.
//!
//! Most requests are plain reads of pages that are hits, and most of what they cost above the
//! kernel is to take a request apart and to put a response together in general. While hyper waits
//! for a connection's next request, with nothing in its hands, this answers such a request itself;
//! hyper sees neither. A page that is on disk only is waited for. Everything else is handed on, byte
//! for byte, and whatever leaves it in doubt where a request begins or ends closes the lane for the
//! rest of the connection.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http::{HeaderMap, Response, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::body::Body;
use super::conditional::whole_seconds;
use super::connection::{Coming, MAX_HEAD, Service, Short};
use super::head::{Head, Plain};
use super::in_flight::{Held, InFlight};
use super::timed::{Fetching, Pulse, Timed};
use super::visit::Watch;
use crate::page::{Entry, Timestamp};

/// Bytes of a request that the lane looks at; heads are seldom as long.
const SCRATCH: usize = 8 * 1024;

/// An answer to a plain request, as it is sent.
pub struct Express {
    /// Of the response.
    pub status: StatusCode,
    /// Of the response, up to its `date`.
    pub head: Bytes,
    /// All of it.
    pub body: Bytes,
    /// For the `date`.
    pub now: Timestamp,
}

/// Who answers the next request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Road {
    /// hyper, which finds out the connection's version by it.
    First,
    /// The lane, if it can.
    Short,
    /// hyper has one whole request in its hands, and nothing else.
    Lent,
    /// hyper, for good.
    Long,
}

/// A socket on which plain hits are answered before hyper sees them.
pub(super) struct Lane<S> {
    io: Timed,
    pulse: Arc<Pulse>,
    service: Arc<S>,
    watch: Option<Arc<Watch>>,
    in_flight: Arc<InFlight>,
    road: Road,
    /// Of what is lent to hyper, what it had no room for yet.
    ahead: Bytes,
    /// Bytes of the head that hyper is being lent.
    head: usize,
    /// A request whose page is being fetched.
    fetch: Option<Fetch>,
    /// Of the lane's own answer, what the socket had no room for yet.
    rest: Option<Rest>,
}

/// A request that is looked at again when its page is there.
struct Fetch {
    request: Bytes,
    page: Coming,
    began: Instant,
    _fetching: Fetching,
}

/// What came of it.
struct Fetched {
    entry: Option<Arc<Entry>>,
    began: Instant,
}

/// A part of an answer.
struct Rest {
    head: Bytes,
    body: Bytes,
    _held: Held,
}

/// What the connections of a thread use in turn.
struct Desk {
    scratch: Box<[u8; SCRATCH]>,
    head: Vec<u8>,
    date: Date,
}

/// The `date` of this second.
#[derive(Default)]
struct Date {
    second: Option<u64>,
    text: String,
}

thread_local! {
    static DESK: RefCell<Desk> = RefCell::new(Desk {
        scratch: Box::new([0; SCRATCH]),
        head: Vec::new(),
        date: Date::default(),
    });
}

impl<S: Service> Lane<S> {
    pub(super) fn new(
        io: Timed,
        pulse: Arc<Pulse>,
        (service, watch, in_flight): (Arc<S>, Option<Arc<Watch>>, Arc<InFlight>),
    ) -> Self {
        Self {
            io,
            pulse,
            service,
            watch,
            in_flight,
            road: Road::First,
            ahead: Bytes::new(),
            head: 0,
            fetch: None,
            rest: None,
        }
    }

    /// Answers what it can, until there is nothing to read or something for hyper.
    fn attend(
        &mut self,
        desk: &mut Desk,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let (bytes, fetched) = ready!(self.next(&mut desk.scratch, cx))?;
            if bytes.is_empty() {
                return Poll::Ready(Ok(()));
            }
            let head = Head::of(bytes);
            let short = match (self.road, &head) {
                (Road::Short, Head::Plain(plain)) => self.express(plain, fetched.as_ref()),
                _ => Short::None,
            };
            match short {
                Short::Now(express) => {
                    let Desk { head, date, .. } = desk;
                    head.clear();
                    head.extend_from_slice(&express.head);
                    line(head, "date", date.at(express.now).as_bytes());
                    head.extend_from_slice(b"\r\n\r\n");
                    self.pulse.answered();
                    ready!(self.send(head, express.body, cx))?;
                    continue;
                }
                // Once: what is not there then is for the long way.
                Short::Soon(page) if fetched.is_none() => {
                    if let Some(fetching) = self.pulse.fetch() {
                        self.fetch = Some(Fetch {
                            request: Bytes::copy_from_slice(bytes),
                            page,
                            began: Instant::now(),
                            _fetching: fetching,
                        });
                        continue;
                    }
                }
                Short::Soon(_) | Short::None => {}
            }
            self.road = match head {
                Head::Plain(_) | Head::Other => Road::Lent,
                Head::Unclear => Road::Long,
            };
            self.head = bytes.len();
            self.ahead = lend(bytes, buffer);
            return Poll::Ready(Ok(()));
        }
    }

    /// Reads for hyper, and of a head no more than it may have: hyper looks only between two reads
    /// whether that is exceeded.
    fn read_on(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.pulse.is_in_head() {
            self.head = 0;
        }
        let (before, room) = (buffer.filled().len(), MAX_HEAD.saturating_sub(self.head));
        if room == 0 || room >= buffer.remaining() {
            ready!(Pin::new(&mut self.io).poll_read(cx, buffer))?;
        } else {
            let mut part = ReadBuf::new(buffer.initialize_unfilled_to(room));
            ready!(Pin::new(&mut self.io).poll_read(cx, &mut part))?;
            let length = part.filled().len();
            buffer.advance(length);
        }
        self.head += buffer.filled().len() - before;
        Poll::Ready(Ok(()))
    }

    /// What came in: the request whose page was fetched, or what the socket has.
    fn next<'a>(
        &mut self,
        scratch: &'a mut [u8; SCRATCH],
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<(&'a [u8], Option<Fetched>)>> {
        if let Some(fetch) = &mut self.fetch {
            let page = AssertUnwindSafe(|| fetch.page.as_mut().poll(cx));
            // What panics here is left to hyper's way, too.
            let entry = ready!(catch_unwind(page).unwrap_or(Poll::Ready(None)));
            let bytes = &mut scratch[..fetch.request.len()];
            bytes.copy_from_slice(&fetch.request);
            let began = fetch.began;
            self.fetch = None;
            return Poll::Ready(Ok((bytes, Some(Fetched { entry, began }))));
        }
        let mut read = ReadBuf::new(scratch);
        ready!(Pin::new(&mut self.io).poll_read(cx, &mut read))?;
        let length = read.filled().len();
        Poll::Ready(Ok((&scratch[..length], None)))
    }

    /// What panics here is left to hyper's way, where it is answered.
    fn express(&self, plain: &Plain<'_>, fetched: Option<&Fetched>) -> Short {
        let (entry, began) = match fetched {
            None => (None, None),
            Some(Fetched { entry: None, .. }) => return Short::None,
            Some(Fetched { entry, began }) => (entry.as_ref(), Some(*began)),
        };
        let express = AssertUnwindSafe(|| match &self.watch {
            None => self.service.express(plain, entry),
            Some(watch) => watch.pass(began, || self.service.express(plain, entry)),
        });
        catch_unwind(express).unwrap_or(Short::None)
    }

    /// Sends an answer; what the socket has no room for is kept for later.
    fn send(&mut self, head: &[u8], body: Bytes, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let parts = [IoSlice::new(head), IoSlice::new(&body)];
        let sent = match Pin::new(&mut self.io).poll_write_vectored(cx, &parts) {
            Poll::Ready(sent) => sent?,
            Poll::Pending => 0,
        };
        if sent == head.len() + body.len() {
            return Poll::Ready(Ok(()));
        }
        let of_head = sent.min(head.len());
        let held = self.in_flight.response(&body, self.pulse.cut());
        self.rest = Some(Rest {
            head: Bytes::copy_from_slice(&head[of_head..]),
            body: body.slice(sent - of_head..),
            _held: held,
        });
        self.send_rest(cx)
    }

    fn send_rest(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = &mut self.rest {
            let parts = [IoSlice::new(&rest.head), IoSlice::new(&rest.body)];
            let sent = ready!(Pin::new(&mut self.io).poll_write_vectored(cx, &parts))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let of_head = sent.min(rest.head.len());
            rest.head.advance(of_head);
            rest.body.advance(sent - of_head);
            if rest.head.is_empty() && rest.body.is_empty() {
                self.rest = None;
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// Hands over as much as there is room for; the rest is returned.
fn lend(bytes: &[u8], buffer: &mut ReadBuf<'_>) -> Bytes {
    let room = buffer.remaining().min(bytes.len());
    buffer.put_slice(&bytes[..room]);
    Bytes::copy_from_slice(&bytes[room..])
}

impl Express {
    /// A response whose body is all there.
    pub(super) fn of(response: Response<Body>, now: Timestamp) -> Self {
        Self {
            status: response.status(),
            head: head(response.status(), response.headers()),
            body: match response.into_body() {
                Body::Full(body) => body,
                Body::Empty | Body::Stream(_) => Bytes::new(),
            },
            now,
        }
    }
}

/// The head of a response as HTTP/1.1 writes it (RFC 9112 section 4), up to its `date`.
pub(super) fn head(status: StatusCode, headers: &HeaderMap) -> Bytes {
    let reason = status.canonical_reason().unwrap_or_default();
    let mut head = format!("HTTP/1.1 {} {reason}", status.as_str()).into_bytes();
    for (name, value) in headers {
        line(&mut head, name.as_str(), value.as_bytes());
    }
    head.into()
}

fn line(head: &mut Vec<u8>, name: &str, value: &[u8]) {
    head.extend_from_slice(b"\r\n");
    head.extend_from_slice(name.as_bytes());
    head.extend_from_slice(b": ");
    head.extend_from_slice(value);
}

impl Date {
    fn at(&mut self, now: Timestamp) -> &str {
        let second = now.as_millis() / 1000;
        if self.second != Some(second) {
            self.second = Some(second);
            self.text = httpdate::fmt_http_date(whole_seconds(now));
        }
        &self.text
    }
}

impl<S: Service> AsyncRead for Lane<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        ready!(this.send_rest(cx))?;
        if !this.ahead.is_empty() {
            this.ahead = lend(&this.ahead, buffer);
            return Poll::Ready(Ok(()));
        }
        if matches!(this.road, Road::First | Road::Short) {
            return DESK.with_borrow_mut(|desk| this.attend(desk, cx, buffer));
        }
        let before = buffer.filled().len();
        ready!(this.read_on(cx, buffer))?;
        if buffer.filled().len() > before {
            this.road = Road::Long;
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: Service> AsyncWrite for Lane<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.send_rest(cx))?;
        Pin::new(&mut self.io).poll_write(cx, buffer)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.send_rest(cx))?;
        Pin::new(&mut self.io).poll_write_vectored(cx, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.send_rest(cx))?;
        ready!(Pin::new(&mut self.io).poll_flush(cx))?;
        // hyper flushes the socket when it has written everything that it had to.
        if self.road == Road::Lent && self.ahead.is_empty() && self.pulse.is_at_rest() {
            self.road = Road::Short;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.send_rest(cx))?;
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
#[path = "lane_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "lane_fuzz.rs"]
mod fuzz;
