//! `Flights`: at most one generation of a page at a time, and those who wait for it.
//!
//! A caller who needs data read after a certain invalidation never joins a generation that began
//! before it: it shares the next one, which begins when the current one has landed. Exactly one
//! permit exists for each flight; dropping it frees the followers.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

use super::queue::{Priority, Reading, Ticket};
use crate::page::{Entry, Failure, FailureKind, PageKey};

/// Enough that a few dozen cores rarely meet.
const SHARDS: usize = 64;

/// The flights of all pages.
pub(super) struct Flights {
    shards: Box<[Mutex<HashMap<PageKey, Lane>>]>,
    hasher: RandomState,
}

/// The flights of one page.
struct Lane {
    current: Flight,
    /// The invalidation sequence read when the current flight began; none before.
    began: Option<u64>,
    next: Option<Flight>,
}

#[derive(Clone)]
struct Flight {
    phase: Arc<watch::Sender<Phase>>,
    ticket: Arc<Ticket>,
}

#[derive(Clone)]
enum Phase {
    Waiting,
    /// No other host has made it.
    Asked,
    Running,
    Landed(Landing),
}

/// How a flight ended.
#[derive(Clone)]
pub(super) enum Landing {
    /// A new entry, which is what readers get from now on.
    Stored(Arc<Entry>),
    /// The generation failed.
    Failed(Arc<Failure>),
    /// There was no room for it.
    Overloaded,
}

/// What a caller does about a page that must be made.
pub(super) enum Claim {
    /// Make it.
    Lead(Permit),
    /// Somebody does.
    Follow(Wait),
}

/// The right and the duty to make a page.
pub(super) struct Permit {
    flights: Arc<Flights>,
    key: PageKey,
    flight: Flight,
    priority: Priority,
    predecessor: Option<Wait>,
}

/// A flight that will land.
pub(super) struct Wait {
    phase: watch::Receiver<Phase>,
    _reading: Option<Reading>,
}

// === impl Flights ===

impl Flights {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
        })
    }

    /// Joins or opens a flight whose data is read after the invalidation `least`.
    pub(super) fn claim(self: &Arc<Self>, key: &PageKey, least: u64, priority: Priority) -> Claim {
        let mut shard = self.shard(key).lock();
        let Some(lane) = shard.get_mut(key) else {
            let flight = Flight::new(priority, Phase::Waiting);
            let lane = Lane {
                current: flight.clone(),
                began: None,
                next: None,
            };
            shard.insert(key.clone(), lane);
            return Claim::Lead(self.permit(key, flight, priority, None));
        };
        let flight = match (lane.began, &lane.next) {
            (Some(began), None) if began < least => {
                let flight = Flight::new(priority, Phase::Asked);
                lane.next = Some(flight.clone());
                let predecessor = Some(lane.current.wait(Priority::Background));
                return Claim::Lead(self.permit(key, flight, priority, predecessor));
            }
            (Some(began), Some(next)) if began < least => next,
            _ => &lane.current,
        };
        flight.ticket.raise(lasting(priority));
        Claim::Follow(flight.wait(priority))
    }

    /// Whether the page is being made.
    pub(super) fn is_under_way(&self, key: &PageKey) -> bool {
        self.shard(key).lock().contains_key(key)
    }

    /// Runs `change` while no flight of the page can begin or land.
    pub(super) fn exclusively<T>(&self, key: &PageKey, change: impl FnOnce() -> T) -> T {
        let _held = self.shard(key).lock();
        change()
    }

    fn permit(
        self: &Arc<Self>,
        key: &PageKey,
        flight: Flight,
        priority: Priority,
        predecessor: Option<Wait>,
    ) -> Permit {
        Permit {
            flights: self.clone(),
            key: key.clone(),
            flight,
            priority,
            predecessor,
        }
    }

    fn shard(&self, key: &PageKey) -> &Mutex<HashMap<PageKey, Lane>> {
        let hash = self.hasher.hash_one(key);
        &self.shards[usize::try_from(hash % SHARDS as u64).unwrap_or(0)]
    }
}

// === impl Flight ===

impl Flight {
    /// A flight after another begins with [`Phase::Asked`]: who waits only for what other hosts have
    /// is not to wait for the one before.
    fn new(priority: Priority, phase: Phase) -> Self {
        let (phase, _) = watch::channel(phase);
        Self {
            phase: Arc::new(phase),
            ticket: Arc::new(Ticket::new(lasting(priority))),
        }
    }

    fn wait(&self, priority: Priority) -> Wait {
        Wait {
            phase: self.phase.subscribe(),
            _reading: (priority == Priority::Reader).then(|| self.ticket.read()),
        }
    }
}

/// What is left of a claim's priority once whoever made it has gone.
fn lasting(priority: Priority) -> Priority {
    match priority {
        Priority::Reader => Priority::Left,
        lasting => lasting,
    }
}

// === impl Permit ===

impl Permit {
    /// A wait for this very flight.
    pub(super) fn wait(&self) -> Wait {
        self.flight.wait(self.priority)
    }

    /// The flight's place in the queue.
    pub(super) fn ticket(&self) -> &Arc<Ticket> {
        &self.flight.ticket
    }

    /// Waits until the page's earlier flight has landed.
    pub(super) async fn turn(&mut self) {
        if let Some(predecessor) = self.predecessor.take() {
            predecessor.landed().await;
        }
    }

    /// Says that no other host has made the page.
    pub(super) fn asked(&self) {
        self.flight.phase.send_if_modified(|phase| {
            let is_first = matches!(phase, Phase::Waiting);
            if is_first {
                *phase = Phase::Asked;
            }
            is_first
        });
    }

    /// Closes the flight to those who need data read after `sequence`, which is read while nobody
    /// can judge whether to join. It has not begun yet.
    pub(super) fn close(&self, sequence: impl FnOnce() -> u64) {
        let mut shard = self.flights.shard(&self.key).lock();
        if let Some(lane) = shard.get_mut(&self.key) {
            lane.began = Some(sequence());
        }
    }

    /// Begins: `sequence` is read while nobody can judge whether to join.
    pub(super) fn begin(&self, sequence: impl FnOnce() -> u64) -> u64 {
        let mut shard = self.flights.shard(&self.key).lock();
        let sequence = sequence();
        if let Some(lane) = shard.get_mut(&self.key) {
            lane.began = Some(sequence);
        }
        drop(shard);
        self.flight.phase.send_replace(Phase::Running);
        sequence
    }

    /// Gives the flight up, unless somebody waits for it. Whether it did: then nobody can join it.
    pub(super) fn leave(&self) -> bool {
        let ticket = &self.flight.ticket;
        self.finish(|| ticket.is_left().then_some(Landing::Overloaded))
    }

    /// Lands: `settle` stores what came out before anybody can claim the page again.
    pub(super) fn land(self, settle: impl FnOnce() -> Landing) {
        self.finish(|| Some(settle()));
    }

    /// Ends the flight as `settle` says, if it says so, while nobody can claim the page.
    fn finish(&self, settle: impl FnOnce() -> Option<Landing>) -> bool {
        let mut shard = self.flights.shard(&self.key).lock();
        let Some(landing) = settle() else {
            return false;
        };
        if let Some(lane) = shard.get_mut(&self.key) {
            if Arc::ptr_eq(&lane.current.phase, &self.flight.phase) {
                match lane.next.take() {
                    Some(next) => (lane.current, lane.began) = (next, None),
                    None => drop(shard.remove(&self.key)),
                }
            } else {
                lane.next = None;
            }
        }
        drop(shard);
        self.flight.phase.send_replace(Phase::Landed(landing));
        true
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let landed = matches!(*self.flight.phase.borrow(), Phase::Landed(_));
        if !landed {
            self.finish(|| {
                let message = "wisr abandoned the generation: this is a bug, please report it";
                let failure = Failure::new(FailureKind::Host, "generation", message);
                Some(Landing::Failed(Arc::new(failure)))
            });
        }
    }
}

// === impl Wait ===

impl Wait {
    /// Waits until the generation runs.
    pub(super) async fn begun(&mut self) {
        // An error means that the flight is gone, which `landed` reports.
        let _ = self
            .phase
            .wait_for(|phase| !matches!(phase, Phase::Waiting | Phase::Asked))
            .await;
    }

    /// Waits until it is known whether another host has made the page; the page, if one has.
    pub(super) async fn asked(&mut self) -> Option<Arc<Entry>> {
        let asked = self
            .phase
            .wait_for(|phase| !matches!(phase, Phase::Waiting));
        match asked.await.as_deref() {
            Ok(Phase::Landed(Landing::Stored(entry))) => Some(entry.clone()),
            _ => None,
        }
    }

    /// Waits until the flight lands.
    pub(super) async fn landed(mut self) -> Landing {
        match self
            .phase
            .wait_for(|phase| matches!(phase, Phase::Landed(_)))
            .await
            .as_deref()
        {
            Ok(Phase::Landed(landing)) => landing.clone(),
            _ => Landing::Overloaded,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lead(claim: Claim) -> Permit {
        match claim {
            Claim::Lead(permit) => permit,
            Claim::Follow(_) => panic!("expected to lead"),
        }
    }

    fn follow(claim: Claim) -> Wait {
        match claim {
            Claim::Follow(wait) => wait,
            Claim::Lead(_) => panic!("expected to follow"),
        }
    }

    #[tokio::test]
    async fn those_who_need_newer_data_share_the_next_flight() {
        let flights = Flights::new();
        let key = PageKey::new("/a", &[]);
        let first = lead(flights.claim(&key, 0, Priority::Reader));
        follow(flights.claim(&key, 7, Priority::OnDemand));
        first.begin(|| 7);
        follow(flights.claim(&key, 7, Priority::Reader));
        let mut second = lead(flights.claim(&key, 8, Priority::OnDemand));
        let waiting = follow(flights.claim(&key, 9, Priority::OnDemand));
        follow(flights.claim(&key, 7, Priority::Reader));
        first.land(|| Landing::Overloaded);
        second.turn().await;
        second.begin(|| 9);
        follow(flights.claim(&key, 9, Priority::Reader));
        second.land(|| Landing::Overloaded);
        assert!(matches!(waiting.landed().await, Landing::Overloaded));
        lead(flights.claim(&key, 0, Priority::Reader));
    }

    #[tokio::test]
    async fn dropping_a_permit_frees_the_followers() {
        let flights = Flights::new();
        let key = PageKey::new("/a", &[]);
        let permit = lead(flights.claim(&key, 0, Priority::Reader));
        let wait = follow(flights.claim(&key, 0, Priority::Reader));
        drop(permit);
        assert!(matches!(wait.landed().await, Landing::Failed(_)));
        let current = lead(flights.claim(&key, 0, Priority::Reader));
        current.begin(|| 0);
        drop(lead(flights.claim(&key, 1, Priority::Reader)));
        lead(flights.claim(&key, 1, Priority::Reader));
    }
}
