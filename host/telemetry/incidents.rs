//! `Incidents`: what failed lately, each thing once, such that a flood of one leaves the others in place.

use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::incident::{Incident, Subject, log};
use super::metrics::IncidentKind;
use crate::page::{Failure, Timestamp};

/// How many different incidents are remembered. Of the kind that has the most, the oldest makes room.
const REMEMBERED: usize = 1_000;

/// How many of one kind a route, or a file, has at most: a message that differs each time is a flood too.
const OF_ONE: usize = 20;

/// How many of the latest failures are known by their page and number, though others like them came since.
const LATEST: usize = 100;

/// The incidents.
#[derive(Default)]
pub struct Incidents {
    state: Mutex<State>,
    total: Family<IncidentKind, Counter>,
    count: AtomicU64,
    latest: watch::Sender<u64>,
    keeper: Option<Box<Keeper>>,
}

/// Keeps an incident beyond the life of the process, in place of what it kept in that slot; none clears it.
type Keeper = dyn Fn(usize, Option<&Kept<'_>>) + Send + Sync;

/// An incident as it is kept. 0.1.0 had no slot in it: the incident's number said it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Kept<'a> {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    slot: Option<usize>,
    #[serde(flatten)]
    incident: Cow<'a, Incident>,
}

#[derive(Default)]
struct State {
    last_id: u64,
    /// By slot.
    kept: HashMap<usize, Alike>,
    /// The latest failures one by one, newest last.
    latest: VecDeque<Arc<Incident>>,
}

/// Incidents that are alike.
struct Alike {
    gist: String,
    last: Arc<Incident>,
}

impl Alike {
    fn new(incident: Incident) -> Self {
        Self {
            gist: incident.gist(),
            last: Arc::new(incident),
        }
    }

    fn is_of_one_with(&self, incident: &Incident) -> bool {
        self.last.kind == incident.kind && self.last.subject.place() == incident.subject.place()
    }
}

impl State {
    /// Where the incident belongs, together with what is like it, if that is remembered.
    fn like(&self, incident: &Incident, gist: &str) -> Option<usize> {
        let mut kept = self.kept.iter();
        let found = kept.find(|(_, alike)| alike.gist == gist && alike.is_of_one_with(incident));
        found.map(|(slot, _)| *slot)
    }

    /// The oldest of those that `is_one` chooses.
    fn oldest(&self, is_one: impl Fn(&Alike) -> bool) -> Option<usize> {
        let chosen = self.kept.iter().filter(|(_, alike)| is_one(alike));
        chosen
            .min_by_key(|(_, alike)| alike.last.id)
            .map(|(slot, _)| *slot)
    }

    /// A slot for an incident that is like none: a free one, or that of one which is forgotten for it.
    fn room(&self, incident: &Incident) -> usize {
        let of_one = |alike: &Alike| alike.is_of_one_with(incident);
        if self.kept.values().filter(|alike| of_one(alike)).count() >= OF_ONE
            && let Some(slot) = self.oldest(of_one)
        {
            return slot;
        }
        if self.kept.len() < REMEMBERED {
            let free = (0..REMEMBERED).find(|slot| !self.kept.contains_key(slot));
            return free.unwrap_or(0);
        }
        let mut kinds: HashMap<&str, usize> = HashMap::new();
        for alike in self.kept.values() {
            *kinds.entry(&alike.last.kind).or_default() += 1;
        }
        let most = kinds.into_iter().max_by_key(|(_, count)| *count);
        let of_the_most = |alike: &Alike| most.is_some_and(|(kind, _)| alike.last.kind == kind);
        self.oldest(of_the_most).unwrap_or(0)
    }
}

impl Incidents {
    /// No incidents yet; `total` counts them by kind.
    pub fn new(total: Family<IncidentKind, Counter>) -> Self {
        Self {
            total,
            ..Self::default()
        }
    }

    /// Goes on from the incidents of `earlier` runs; `keeper` is told of each further one, and of the slot that it
    /// takes over from the one that is forgotten for it.
    #[must_use]
    pub fn kept_by(
        self,
        mut earlier: Vec<Kept<'_>>,
        keeper: impl Fn(usize, Option<&Kept<'_>>) + Send + Sync + 'static,
    ) -> Self {
        earlier.sort_unstable_by_key(|kept| kept.incident.id);
        let mut state = State::default();
        for kept in earlier {
            let incident = kept.incident.into_owned();
            let was = kept.slot.unwrap_or_else(|| slot_of(incident.id)) % REMEMBERED;
            state.last_id = incident.id;
            let alike = Alike::new(incident);
            match state.like(&alike.last, &alike.gist) {
                // Those of 0.1.0 stand one by one.
                Some(slot) => {
                    keeper(was, None);
                    let Some(known) = state.kept.get_mut(&slot) else {
                        continue;
                    };
                    known.last = Arc::new(known.last.again(Incident::clone(&alike.last)));
                    keep(&keeper, slot, &known.last);
                }
                None => drop(state.kept.insert(was, alike)),
            }
        }
        Self {
            state: Mutex::new(state),
            keeper: Some(Box::new(keeper)),
            ..self
        }
    }

    /// Remembers an incident, counts it, and logs it unless the log has many like it; returns its id.
    pub fn record(
        &self,
        at: Timestamp,
        subject: Subject,
        kind: impl Into<Cow<'static, str>>,
        message: impl Into<String>,
        failure: Option<Arc<Failure>>,
    ) -> u64 {
        let mut state = self.state.lock();
        state.last_id += 1;
        let id = state.last_id;
        let incident = Incident {
            id,
            at,
            count: 1,
            first: Some(at),
            subject,
            kind: kind.into(),
            message: message.into(),
            failure,
        };
        let kind = incident.kind.clone();
        self.total.get_or_create(&IncidentKind { kind }).inc();
        self.count.fetch_add(1, Ordering::Relaxed);
        let alike = Alike::new(incident);
        let (slot, last, is_told) = match state.like(&alike.last, &alike.gist) {
            Some(slot) => {
                let before = state.kept.get(&slot).map(|known| Arc::clone(&known.last));
                let last = before.as_ref().map_or_else(
                    || Incident::clone(&alike.last),
                    |before| before.again(Incident::clone(&alike.last)),
                );
                let is_told = last.is_told(before.as_deref());
                (slot, Arc::new(last), is_told)
            }
            None => (state.room(&alike.last), alike.last, true),
        };
        let gist = alike.gist;
        state.kept.insert(
            slot,
            Alike {
                gist,
                last: Arc::clone(&last),
            },
        );
        state.latest.push_back(Arc::clone(&last));
        if state.latest.len() > LATEST {
            state.latest.pop_front();
        }
        drop(state);
        if is_told {
            log(&last);
        }
        if let Some(keeper) = &self.keeper {
            keep(keeper, slot, &last);
        }
        self.latest.send_replace(id);
        id
    }

    /// The latest `limit` incidents, newest first, each with how often it happened.
    pub fn latest(&self, limit: usize) -> Vec<Arc<Incident>> {
        let state = self.state.lock();
        let mut all: Vec<_> = state
            .kept
            .values()
            .map(|alike| Arc::clone(&alike.last))
            .collect();
        drop(state);
        all.sort_unstable_by_key(|incident| std::cmp::Reverse(incident.id));
        all.truncate(limit);
        all
    }

    /// One that is remembered.
    pub fn find(&self, id: u64) -> Option<Arc<Incident>> {
        let state = self.state.lock();
        let kept = state.kept.values().map(|alike| &alike.last);
        let mut all = kept.chain(&state.latest);
        all.find(|incident| incident.id == id).cloned()
    }

    /// The id of the latest one, and of each that follows.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.latest.subscribe()
    }

    /// The latest failure to make the page with this key by this module, if it is remembered.
    pub fn of_page(&self, key: &str, by: &str) -> Option<Arc<Incident>> {
        let is_it = |incident: &&Arc<Incident>| match &incident.subject {
            Subject::Generation { path, module, .. } => path == key && module == by,
            _ => false,
        };
        let state = self.state.lock();
        let kept = state.kept.values().map(|alike| &alike.last);
        let all = kept.chain(&state.latest).filter(is_it);
        all.max_by_key(|incident| incident.id).cloned()
    }

    /// How many there have been since the start.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }
}

fn slot_of(id: u64) -> usize {
    usize::try_from(id % REMEMBERED as u64).unwrap_or(0)
}

fn keep(keeper: &Keeper, slot: usize, incident: &Incident) {
    let kept = Kept {
        slot: Some(slot),
        incident: incident.brief(),
    };
    keeper(slot, Some(&kept));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(incidents: &Incidents, route: &str, kind: &'static str, message: &str) -> u64 {
        let subject = Subject::Listing {
            route: route.into(),
        };
        incidents.record(Timestamp::from_millis(7), subject, kind, message, None)
    }

    fn told(incidents: &Incidents) -> Vec<(u64, u64)> {
        let all = incidents.latest(usize::MAX);
        all.iter()
            .map(|incident| (incident.id, incident.count))
            .collect()
    }

    #[test]
    fn what_is_alike_is_one_and_each_counts() {
        let incidents = Incidents::default();
        record(&incidents, "/a", "trap", "it failed");
        for row in 0..1_100 {
            record(&incidents, "/b", "trap", &format!("row {row} is broken"));
        }
        assert_eq!(told(&incidents), [(1_101, 1_100), (1, 1)]);
        assert_eq!(incidents.count(), 1_101);
        // The number that somebody was told leads to it still.
        assert_eq!(incidents.find(1_050).unwrap().message, "row 1048 is broken");
    }

    #[test]
    fn a_flood_of_one_leaves_the_others_in_place() {
        let incidents = Incidents::default();
        record(&incidents, "/a", "trap", "it failed");
        record(&incidents, "/b", "listing", "it failed");
        let word = |number: usize| {
            let letters = "abcdefghij".as_bytes();
            let digits = number.to_string();
            let spelt = digits
                .bytes()
                .map(|digit| char::from(letters[usize::from(digit - b'0')]));
            spelt.collect::<String>()
        };
        for number in 0..2_000 {
            record(&incidents, "/c", "cpu", &word(number));
        }
        assert_eq!(told(&incidents).len(), 2 + OF_ONE);
        for number in 0..2_000 {
            record(&incidents, &word(number), "memory", "too much");
        }
        let all = incidents.latest(usize::MAX);
        assert_eq!(all.len(), REMEMBERED);
        for (route, kind) in [
            ("/a", "trap"),
            ("/b", "listing"),
            ("/c", "cpu"),
            (&*word(1_999), "memory"),
        ] {
            let found = |it: &&Arc<Incident>| it.subject.place().1 == route && it.kind == kind;
            assert!(all.iter().any(|incident| found(&incident)), "{route}");
        }
    }

    type Shelf = Arc<Mutex<HashMap<usize, String>>>;

    fn open(shelf: &Shelf) -> Incidents {
        let texts: Vec<String> = shelf.lock().values().cloned().collect();
        let earlier = texts
            .iter()
            .map(|text| serde_json::from_str(text).unwrap())
            .collect();
        let shelf = shelf.clone();
        Incidents::default().kept_by(earlier, move |slot, kept| {
            match kept {
                Some(kept) => shelf
                    .lock()
                    .insert(slot, serde_json::to_string(kept).unwrap()),
                None => shelf.lock().remove(&slot),
            };
        })
    }

    #[test]
    fn what_was_kept_comes_back_with_its_count() {
        let shelf = Shelf::default();
        let first = open(&shelf);
        for row in 0..50 {
            record(&first, "/a", "trap", &format!("row {row}"));
            record(&first, &"x".repeat(row + 1), "trap", "it failed");
        }
        let second = open(&shelf);
        assert_eq!((second.count(), told(&second)), (0, told(&first)));
        assert_eq!(record(&second, "/a", "trap", "row 50"), 101);
        assert_eq!(told(&open(&shelf))[0], (101, 51));
    }

    #[test]
    fn those_of_an_earlier_version_are_read_and_grouped() {
        let shelf = Shelf::default();
        for id in [998_u64, 999, 1_000, 1_001] {
            let message = if id == 999 { "another" } else { "row" };
            let old = format!(
                r#"{{"id":{id},"at":{id},"subject":"listing","route":"/a","kind":"listing","message":"{message} {id}"}}"#
            );
            shelf.lock().insert(slot_of(id), old);
        }
        let incidents = open(&shelf);
        assert_eq!(told(&incidents), [(1_001, 3), (999, 1)]);
        let oldest = incidents.latest(1)[0].first;
        assert_eq!(oldest, Some(Timestamp::from_millis(998)));
        let mut slots: Vec<usize> = shelf.lock().keys().copied().collect();
        slots.sort_unstable();
        assert_eq!(slots, [998, 999]);
        assert_eq!(told(&open(&shelf)), told(&incidents));
    }
}
