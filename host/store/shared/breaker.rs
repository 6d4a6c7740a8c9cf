//! `Breaker`: whether Redis is asked at all.
//!
//! Closed, it is asked. After a few failures in a row it opens, and nobody asks or waits; then one
//! task alone tries, and closes it once what was missed is made up for.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use super::link::Link;
use super::{Lane, Trouble};
use crate::page::Timestamp;
use crate::telemetry::Clock;
use crate::telemetry::metrics::{BreakerState, Metrics};

/// Failures in a row after which nobody asks any more: more than one slow answer, and fewer than
/// readers would notice.
pub(super) const PATIENCE: u32 = 5;

/// The connections of one session: what is large must not hold up what is small.
pub(super) struct Links {
    /// For invalidations and leases.
    pub(super) control: Link,
    /// For pages.
    pub(super) pages: Link,
    /// Redis's clock less this host's, in milliseconds.
    pub(super) offset: AtomicI64,
}

/// The breaker.
pub(super) struct Breaker {
    links: ArcSwapOption<Links>,
    /// In a row, on each lane: a server without memory may still answer who only reads.
    failures: [AtomicU32; 2],
    state: Mutex<State>,
    tripped: Notify,
    /// Whether an attempt has succeeded or failed.
    settled: watch::Sender<bool>,
    clock: Clock,
    metrics: Arc<Metrics>,
}

/// How it is.
struct State {
    health: SharedHealth,
    /// Since when it is closed, or is not.
    since: Timestamp,
    failed: Option<Failed>,
}

/// What failed, and when.
type Failed = (Timestamp, Arc<str>);

/// Whether pages and invalidations are shared with other hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SharedHealth {
    /// There is no shared tier.
    Off,
    /// They are.
    Closed,
    /// They are not, and one attempt is being made.
    HalfOpen(Arc<str>),
    /// They are not, for this reason.
    Open(Arc<str>),
}

impl SharedHealth {
    /// The word for JSON and metrics: the state of the breaker.
    pub fn as_str(&self) -> &'static str {
        match self {
            SharedHealth::Off => "off",
            SharedHealth::Closed => "closed",
            SharedHealth::HalfOpen(_) => "half-open",
            SharedHealth::Open(_) => "open",
        }
    }

    /// Why it is not closed.
    pub fn reason(&self) -> Option<&str> {
        match self {
            SharedHealth::Off | SharedHealth::Closed => None,
            SharedHealth::HalfOpen(reason) | SharedHealth::Open(reason) => Some(reason),
        }
    }
}

impl Links {
    /// This host's time `local` on Redis's clock.
    pub(super) fn there(&self, local: Timestamp) -> Timestamp {
        shifted(local, self.offset.load(Ordering::Relaxed))
    }

    /// Redis's time `remote` on this host's clock.
    pub(super) fn here(&self, remote: Timestamp) -> Timestamp {
        shifted(remote, -self.offset.load(Ordering::Relaxed))
    }
}

fn shifted(at: Timestamp, offset: i64) -> Timestamp {
    Timestamp::from_millis(at.as_millis().saturating_add_signed(offset))
}

impl Breaker {
    pub(super) fn new(clock: Clock, metrics: Arc<Metrics>) -> Self {
        let health = SharedHealth::HalfOpen("it was not asked yet".into());
        let state = State {
            health: health.clone(),
            since: clock.now(),
            failed: None,
        };
        let breaker = Self {
            links: ArcSwapOption::empty(),
            failures: [const { AtomicU32::new(0) }; 2],
            state: Mutex::new(state),
            tripped: Notify::new(),
            settled: watch::Sender::new(false),
            clock,
            metrics,
        };
        breaker.turn(health);
        breaker
    }

    /// The connections, while they may be used.
    ///
    /// # Errors
    /// When the breaker is open.
    pub(super) fn links(&self) -> Result<Arc<Links>, Trouble> {
        self.links.load_full().ok_or(Trouble::Open)
    }

    /// From here on everybody may ask.
    pub(super) fn close(&self, links: Arc<Links>) {
        for lane in [Lane::Control, Lane::Pages] {
            self.succeeded(lane);
        }
        self.links.store(Some(links));
        self.turn(SharedHealth::Closed);
        self.settled.send_replace(true);
    }

    /// From here on nobody asks.
    pub(super) fn open(&self, why: &Trouble) {
        self.links.store(None);
        self.note(why);
        self.turn(SharedHealth::Open(why.to_string().into()));
        self.settled.send_replace(true);
    }

    /// Waits until it is known whether Redis can be asked.
    pub(super) async fn settled(&self) {
        // It lives as long as this.
        let _ = self.settled.subscribe().wait_for(|settled| *settled).await;
    }

    /// An attempt is made.
    pub(super) fn try_again(&self) {
        if let SharedHealth::Open(reason) = self.health() {
            self.turn(SharedHealth::HalfOpen(reason));
        }
    }

    /// Remembers what failed.
    pub(super) fn note(&self, why: &Trouble) {
        self.state.lock().failed = Some((self.clock.now(), why.to_string().into()));
    }

    /// Redis answered.
    pub(super) fn succeeded(&self, lane: Lane) {
        self.failures[lane as usize].store(0, Ordering::Relaxed);
    }

    /// Redis did not answer, or refused.
    pub(super) fn failed(&self, lane: Lane, why: &Trouble) {
        if *why == Trouble::Open {
            return;
        }
        self.metrics.shared_failures.inc();
        self.note(why);
        let failures = self.failures[lane as usize].fetch_add(1, Ordering::Relaxed) + 1;
        let is_over = failures >= PATIENCE || *why == Trouble::History;
        if is_over && self.links.load().is_some() {
            self.open(why);
            self.tripped.notify_one();
        }
    }

    /// Waits until too much has failed.
    pub(super) async fn tripped(&self) {
        self.tripped.notified().await;
    }

    /// How it is.
    pub(super) fn health(&self) -> SharedHealth {
        self.state.lock().health.clone()
    }

    /// How it is, since when, and what failed last.
    pub(super) fn state(&self) -> (SharedHealth, Timestamp, Option<Failed>) {
        let state = self.state.lock();
        (state.health.clone(), state.since, state.failed.clone())
    }

    fn turn(&self, to: SharedHealth) {
        for state in ["closed", "half-open", "open"] {
            let gauge = self
                .metrics
                .shared_breaker
                .get_or_create(&BreakerState { state });
            gauge.set(i64::from(state == to.as_str()));
        }
        let mut state = self.state.lock();
        match (&state.health, &to) {
            (SharedHealth::Closed, SharedHealth::Open(why)) => {
                tracing::warn!("pages and invalidations are not shared with other hosts: {why}");
            }
            (SharedHealth::HalfOpen(before), SharedHealth::Open(why)) if before != why => {
                tracing::warn!("pages and invalidations are not shared with other hosts: {why}");
            }
            (SharedHealth::HalfOpen(_), SharedHealth::Closed) => {
                tracing::info!("pages and invalidations are shared with other hosts");
            }
            _ => {}
        }
        if (state.health == SharedHealth::Closed) != (to == SharedHealth::Closed) {
            state.since = self.clock.now();
        }
        state.health = to;
    }
}
