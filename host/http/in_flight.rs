//! `InFlight`: what requests and responses hold of the memory while they are under way, over all
//! connections of a door, and its limit.
//!
//! A page that the cache has let go of stays as long as somebody is being sent it, and a client
//! decides how long that takes. A page that many are being sent counts once.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;

/// Bytes of a response beside its body: HTTP/2's stream, the task, the timer, the headers.
const RESPONSE: usize = 4 * 1024;

/// Bytes of a request that waits, beside its head: the task, the parsed lines, the stream.
const REQUEST: usize = 4 * 1024;

/// Of the limit, what requests may take that wait for their answers: there is always room to send
/// some.
const REQUESTS_SHARE: usize = 2;

/// Breaks off what it is given to, from wherever it is held.
#[derive(Debug, Default)]
pub(super) struct Cut {
    off: AtomicBool,
    waker: AtomicWaker,
    /// Whoever breaks off a stream is gone, and the stream is not: then its connection goes.
    is_orphan: AtomicBool,
    connection: Option<Arc<Cut>>,
}

impl Cut {
    /// Of a stream of this connection.
    pub(super) fn of_stream(connection: &Arc<Cut>) -> Arc<Self> {
        Arc::new(Self {
            connection: Some(Arc::clone(connection)),
            ..Self::default()
        })
    }

    /// Breaks it off.
    pub(super) fn off(&self) {
        self.off.store(true, Relaxed);
        self.waker.wake();
        if self.is_orphan.load(Relaxed)
            && let Some(connection) = &self.connection
        {
            connection.off();
        }
    }

    /// Nobody will ask any more.
    pub(super) fn orphan(&self) {
        self.is_orphan.store(true, Relaxed);
    }

    /// Ready once it is broken off.
    pub(super) fn poll(&self, cx: &Context<'_>) -> Poll<()> {
        self.waker.register(cx.waker());
        match self.off.load(Relaxed) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }
}

/// The account of a door.
#[derive(Debug)]
pub(super) struct InFlight {
    limit: usize,
    account: Mutex<Account>,
    /// Bytes that are held.
    bytes: Gauge,
    /// Responses that were broken off for want of room.
    displaced: Counter,
}

#[derive(Debug, Default)]
struct Account {
    bytes: usize,
    /// Of these, what requests hold that wait.
    requests: usize,
    /// How often each body is being sent, by where it lies.
    bodies: HashMap<Place, usize>,
    /// In the order in which they began.
    responses: BTreeMap<u64, Response>,
    begun: u64,
}

/// Where a body lies, and how long it is: as long as it is held, no other lies there.
type Place = (usize, usize);

#[derive(Debug)]
struct Response {
    body: Place,
    cut: Arc<Cut>,
}

/// A part of the account, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Held {
    of: Arc<InFlight>,
    what: What,
}

#[derive(Debug)]
enum What {
    Response(u64),
    Request(usize),
}

// === impl InFlight ===

impl InFlight {
    /// Holds `limit` bytes at most.
    pub(super) fn new(limit: usize, bytes: Gauge, displaced: Counter) -> Arc<Self> {
        Arc::new(Self {
            limit,
            account: Mutex::default(),
            bytes,
            displaced,
        })
    }

    /// A body begins to be sent. Where there is no room, the responses that have taken longest are
    /// broken off: who reads at an honest pace is seldom among them.
    pub(super) fn response(self: &Arc<Self>, body: &[u8], cut: &Arc<Cut>) -> Held {
        let place = (body.as_ptr().addr(), body.len());
        let mut account = self.account.lock();
        let number = account.begun;
        account.begun += 1;
        let response = Response {
            body: place,
            cut: Arc::clone(cut),
        };
        account.enter(number, response);
        let displaced = account.make_room(self.limit, Some(number));
        self.settle(&account);
        drop(account);
        self.displace(displaced);
        self.held(What::Response(number))
    }

    /// A request of so many bytes is to wait for its answer; none if too many do.
    pub(super) fn request(self: &Arc<Self>, bytes: usize) -> Option<Held> {
        let bytes = bytes + REQUEST;
        let mut account = self.account.lock();
        if account.requests + bytes > self.limit / REQUESTS_SHARE {
            return None;
        }
        account.requests += bytes;
        account.bytes += bytes;
        let displaced = account.make_room(self.limit, None);
        self.settle(&account);
        drop(account);
        self.displace(displaced);
        Some(self.held(What::Request(bytes)))
    }

    fn held(self: &Arc<Self>, what: What) -> Held {
        Held {
            of: Arc::clone(self),
            what,
        }
    }

    fn settle(&self, account: &Account) {
        self.bytes
            .set(i64::try_from(account.bytes).unwrap_or(i64::MAX));
    }

    fn displace(&self, displaced: Vec<Arc<Cut>>) {
        for cut in displaced {
            cut.off();
            self.displaced.inc();
        }
    }
}

impl Account {
    fn enter(&mut self, number: u64, response: Response) {
        self.bytes += RESPONSE;
        let readers = self.bodies.entry(response.body).or_default();
        if *readers == 0 {
            self.bytes += response.body.1;
        }
        *readers += 1;
        self.responses.insert(number, response);
    }

    /// Gives back what a response holds, unless that was done when it was broken off.
    fn leave(&mut self, number: u64) -> Option<Arc<Cut>> {
        let Response { body, cut } = self.responses.remove(&number)?;
        self.bytes -= RESPONSE;
        if let Some(readers) = self.bodies.get_mut(&body) {
            *readers -= 1;
            if *readers == 0 {
                self.bodies.remove(&body);
                self.bytes -= body.1;
            }
        }
        Some(cut)
    }

    /// Those who are to be broken off, oldest first. `newest` is not.
    fn make_room(&mut self, limit: usize, newest: Option<u64>) -> Vec<Arc<Cut>> {
        let mut displaced = Vec::new();
        while self.bytes > limit {
            let Some(oldest) = self.responses.keys().next().copied() else {
                break;
            };
            if Some(oldest) == newest {
                break;
            }
            displaced.extend(self.leave(oldest));
        }
        displaced
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut account = self.of.account.lock();
        let left = match self.what {
            What::Response(number) => account.leave(number),
            What::Request(bytes) => {
                account.requests -= bytes;
                account.bytes -= bytes;
                None
            }
        };
        self.of.settle(&account);
        drop(account);
        // Whatever its waker was the last to hold may be in the account, too.
        drop(left);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: usize = 1 << 20;

    fn in_flight() -> Arc<InFlight> {
        InFlight::new(LIMIT, Gauge::default(), Counter::default())
    }

    fn is_off(cut: &Cut) -> bool {
        let cx = Context::from_waker(std::task::Waker::noop());
        cut.poll(&cx).is_ready()
    }

    #[test]
    fn a_page_counts_once_however_many_are_being_sent_it() {
        let (in_flight, page) = (in_flight(), vec![0; 100_000]);
        let cut = Arc::default();
        let readers: Vec<_> = (0..50).map(|_| in_flight.response(&page, &cut)).collect();
        let expected = 100_000 + 50 * RESPONSE;
        assert_eq!(in_flight.bytes.get(), i64::try_from(expected).unwrap());
        assert!(!is_off(&cut));
        drop(readers);
        assert_eq!(in_flight.bytes.get(), 0);
        assert!(in_flight.account.lock().bodies.is_empty());
    }

    #[test]
    fn who_takes_longest_is_broken_off_first() {
        let in_flight = in_flight();
        let page = |number: u8| vec![number; 300_000];
        let pages: Vec<_> = (0..4).map(page).collect();
        let cuts: Vec<Arc<Cut>> = (0..4).map(|_| Arc::default()).collect();
        let mut held: Vec<_> = pages
            .iter()
            .zip(&cuts)
            .map(|(page, cut)| in_flight.response(page, cut))
            .collect();
        assert_eq!(in_flight.displaced.get(), 1);
        assert_eq!(
            cuts.iter().map(|cut| is_off(cut)).collect::<Vec<_>>(),
            [true, false, false, false]
        );
        assert!(in_flight.bytes.get() <= i64::try_from(LIMIT).unwrap());
        // What was broken off gives nothing back twice.
        held.remove(0);
        let left = in_flight.bytes.get();
        assert_eq!(left, i64::try_from(3 * (300_000 + RESPONSE)).unwrap());
        drop(held);
        assert_eq!(in_flight.bytes.get(), 0);
    }

    #[test]
    fn one_page_beyond_the_limit_is_sent_all_the_same() {
        let (in_flight, page, cut) = (in_flight(), vec![0; 2 * LIMIT], Arc::default());
        let _held = in_flight.response(&page, &cut);
        assert!(!is_off(&cut));
    }

    #[test]
    fn requests_that_wait_leave_half_for_responses() {
        let in_flight = in_flight();
        let waiting: Vec<_> = (0..1_000)
            .map_while(|_| in_flight.request(16 * 1024))
            .collect();
        assert_eq!(waiting.len(), LIMIT / 2 / (16 * 1024 + REQUEST));
        drop(waiting);
        assert!(in_flight.request(16 * 1024).is_some());
        assert_eq!(in_flight.bytes.get(), 0);
    }

    #[test]
    fn a_stream_that_nobody_breaks_off_any_more_takes_its_connection_along() {
        let connection = Arc::default();
        let stream = Cut::of_stream(&connection);
        stream.off();
        assert!(is_off(&stream) && !is_off(&connection));
        stream.orphan();
        stream.off();
        assert!(is_off(&connection));
    }
}
