//! `Pool`: idle connections, kept across generations. A connection serves only the route that
//! opened it, and only while that route's policy still opens its address.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep_until, timeout};

use super::connect::Connection;
use super::policy::Policy;
use super::resolve::is_open;
use super::target::Target;

/// Idle connections of one route to one target: as many as a generation has requests in flight.
const MAX_PER_KEY: usize = 6;

/// Idle connections in all: file descriptors are shared with the readers' connections.
const MAX_IDLE: usize = 64;

/// How long a connection waits for its next use; most servers hang up after five to sixty seconds.
const IDLE: Duration = Duration::from_secs(30);

/// How long a connection is used at all, so that a changed DNS answer is seen.
const MAX_AGE: Duration = Duration::from_secs(300);

/// How long a connection may take to be ready again after its last answer.
const READY: Duration = Duration::from_millis(50);

/// Whom a connection serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) target: Target,
    pub(super) route: Arc<str>,
}

/// The idle connections, the longest idle first.
#[derive(Default)]
pub(super) struct Pool {
    idle: Mutex<Idle>,
}

#[derive(Default)]
struct Idle {
    parked: VecDeque<Parked>,
    /// Whether a task is closing what has been idle for too long.
    sweeping: bool,
}

struct Parked {
    key: Key,
    connection: Connection,
    since: Instant,
}

/// A connection in use, on its way back to its pool.
pub(super) struct Lease {
    pub(super) pool: Arc<Pool>,
    pub(super) key: Key,
    pub(super) connection: Connection,
}

impl Lease {
    /// Parks the connection, whose answer has been read to its end.
    pub(super) fn give_back(self) {
        self.pool.put(self.key, self.connection);
    }
}

impl Pool {
    /// A live connection for `key`, the latest used first.
    pub(super) async fn take(&self, key: &Key, policy: &Policy) -> Option<Connection> {
        while let Some(mut connection) = self.pop(key) {
            let usable = is_open(connection.address.ip(), &key.target, policy);
            let ready = timeout(READY, connection.sender.ready());
            if usable && matches!(ready.await, Ok(Ok(()))) {
                return Some(connection);
            }
        }
        None
    }

    fn pop(&self, key: &Key) -> Option<Connection> {
        let parked = &mut self.idle.lock().parked;
        let at = parked.iter().rposition(|parked| parked.key == *key)?;
        Some(parked.remove(at)?.connection)
    }

    fn put(self: &Arc<Self>, key: Key, connection: Connection) {
        // Outside of the runtime, as while it shuts down, nobody could close it again.
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        if connection.sender.is_closed() || connection.born.elapsed() > MAX_AGE {
            return;
        }
        let mut idle = self.idle.lock();
        let siblings = idle.parked.iter().filter(|parked| parked.key == key);
        if siblings.count() >= MAX_PER_KEY {
            return;
        }
        if idle.parked.len() >= MAX_IDLE {
            idle.parked.pop_front();
        }
        idle.parked.push_back(Parked {
            key,
            connection,
            since: Instant::now(),
        });
        if !std::mem::replace(&mut idle.sweeping, true) {
            runtime.spawn(sweep(Arc::downgrade(self)));
        }
    }

    /// Closes what has been idle for too long; when to look again, if anything is left.
    fn close_old(&self) -> Option<Instant> {
        let mut idle = self.idle.lock();
        let now = Instant::now();
        while idle.parked.front().is_some_and(|p| p.since + IDLE <= now) {
            idle.parked.pop_front();
        }
        let next = idle.parked.front().map(|parked| parked.since + IDLE);
        idle.sweeping = next.is_some();
        next
    }
}

/// Runs while connections are parked, and at most [`IDLE`] longer than the pool.
async fn sweep(pool: Weak<Pool>) {
    while let Some(next) = pool.upgrade().and_then(|pool| pool.close_old()) {
        sleep_until(next).await;
    }
}
