//! `Durable`: the tier that survives restarts, `kill -9` and, for invalidations, power cuts.
//!
//! What is put is queued and readable at once; a thread writes it behind the response. A page is
//! with the operating system within a moment and synced within a second; invalidations and
//! removals are synced before their callers are told. A record that cannot be read is a miss, a
//! disk that fails is a condition that shows and heals: neither is ever an error page. Nothing but the
//! database writes below its folder; one that cannot be opened is set `aside`.

mod aside;
mod back;
mod behind;
mod commits;
mod database;
mod health;
mod journals;
mod keeper;
mod keys;
mod leftovers;
mod lock;
mod open;
mod opened;
mod queue;
mod quota;
mod salvage;
mod shelf;
mod space;
mod survey;
mod troubles;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub use health::{Degraded, StoreHealth};
pub use lock::Lock;
pub use open::OpenError;
pub use opened::open_files;
pub(super) use salvage::Old;
pub use space::{Most, Space};

use super::marks::{Raised, Saved};
use super::notes::{self, Note, Notes};
use super::{Brief, Store, Unkept, Window};
use crate::page::{Content, Entry, PageKey, Stamped, Summary};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::{Clock, Incidents};
use behind::{Behind, Limits};
use database::{Database, ReadError};
use health::Need;
use keeper::{Keeper, tell};
pub(super) use keys::MAX_KEY;
use queue::Change;
use quota::{Quota, Worth};
use troubles::Troubles;

#[cfg(not(test))]
const LIMITS: Limits = Limits::DEFAULT;
/// A queue that a test can fill, and a disk that it need not wait for.
#[cfg(test)]
const LIMITS: Limits = Limits {
    bytes: 4 << 20,
    ..Limits::DEFAULT
};

/// Pages that are remembered for nobody knows what the disk has of them, a megabyte.
const UNKNOWN: usize = 10_000;

/// How long a look through all pages waits for a disk that takes nothing.
const PATIENCE: Duration = Duration::from_secs(10);

/// The durable tier of one folder. Its calls read the disk: keep them off threads that serve.
pub(super) struct Durable {
    // Dropped first, so that the thread has ended before the database closes.
    behind: Behind,
    database: Arc<Database>,
    /// The latest number that the site has given.
    sequence: AtomicU64,
    /// Until when nobody waits for a disk that has not answered.
    hung_until: Mutex<Option<Instant>>,
    /// Held while pages of routes that are gone are looked for.
    removing: Mutex<()>,
    /// Pages that were asked for and could not be read.
    unknown: Mutex<HashSet<PageKey>>,
    troubles: Arc<Troubles>,
    /// Why the store of earlier runs is not used, if so.
    set_aside: Option<Arc<str>>,
    /// Stores whose pages come back, until somebody takes them.
    olds: Mutex<Vec<Old>>,
    worth: Arc<Worth>,
    metrics: Arc<Metrics>,
}

impl Durable {
    /// Opens the tier in `folder`, beside `memory` bytes of pages in memory; and the invalidations of
    /// earlier runs.
    ///
    /// # Errors
    /// When the folder is in use, or not writable.
    pub(super) fn open(
        folder: &Path,
        memory: usize,
        disk: Space,
        metrics: Arc<Metrics>,
    ) -> Result<(Self, Saved), OpenError> {
        let (database, saved, found) = Database::open(folder, memory, disk.memtable)?;
        let most = disk.most.bytes(folder);
        let most = most.map_err(|source| OpenError::io(folder, source))?;
        let database = Arc::new(database);
        let worth = Arc::new(Worth::default());
        let troubles = Arc::new(Troubles::default());
        tell(&found, &troubles, &metrics);
        let keeper = Keeper {
            database: database.clone(),
            quota: most.map(|most| Quota::new(most, worth.clone())),
            metrics: metrics.clone(),
        };
        let behind = Behind::start(keeper, LIMITS, metrics.clone())
            .map_err(|source| OpenError::io(folder, source))?;
        let durable = Self {
            behind,
            database,
            sequence: AtomicU64::new(saved.site.sequence),
            hung_until: Mutex::default(),
            removing: Mutex::default(),
            unknown: Mutex::default(),
            troubles,
            set_aside: found.set_aside,
            olds: Mutex::new(found.olds),
            worth,
            metrics,
        };
        Ok((durable, saved))
    }

    /// Notes an invalidation; [`Durable::synced`] tells when it is on disk.
    pub(super) fn raise(&self, raised: Raised) {
        self.sequence
            .fetch_max(raised.site.sequence, Ordering::AcqRel);
        self.behind.raise(raised);
    }

    /// As [`Store::put`], where there was an entry before: what says that there is no page any more
    /// is not forgotten for want of room.
    pub(super) fn replace(&self, entry: Arc<Entry>) -> Result<(), Unkept> {
        let is_document = matches!(entry.content, Content::Document { .. });
        self.keep(entry, !is_document)
    }

    /// Queues an entry; where it is refused, and `or_remove`, the removal of what there was.
    fn keep(&self, entry: Arc<Entry>, or_remove: bool) -> Result<(), Unkept> {
        let key = entry.key.clone();
        if key.as_str().len() > MAX_KEY {
            return Err(Unkept::LongKey(key.as_str().len()));
        }
        if self.behind.change(&key, Change::Put(entry)) {
            return Ok(());
        }
        if or_remove {
            self.forget(&key);
        }
        Err(Unkept::NoRoom)
    }

    /// Queues the removal of a page; [`Durable::synced`] tells when it is done.
    pub(super) fn forget(&self, key: &PageKey) {
        self.behind.change(key, Change::Remove);
    }

    /// Queues a note in place of the one of its name; without a value, its removal.
    pub(super) fn note(&self, note: Note, value: Option<&impl Serialize>) {
        let fits = match &note {
            Note::Incident(_) | Note::History => true,
            Note::Backoff(key) => key.as_str().len() <= MAX_KEY,
        };
        match value.map(notes::encode).transpose() {
            Ok(record) if fits => self.behind.note(note, record),
            _ => drop(self.metrics.store_notes_dropped.inc()),
        }
    }

    /// All notes of a kind that can be read.
    pub(super) fn notes<T: DeserializeOwned>(&self, kind: Notes) -> Vec<T> {
        let (mut found, mut broken) = (Vec::new(), 0);
        let read = self
            .database
            .notes(kind, |record| match notes::decode(record) {
                Ok(note) => found.push(note),
                Err(error) => {
                    broken += 1;
                    tracing::debug!("a note on disk counts as missing: {error}");
                }
            });
        if broken > 0 {
            self.metrics.store_unreadable.inc_by(broken);
            tracing::error!("{broken} notes on disk count as missing: {kind:?}");
        }
        if let Err(error) = read {
            tracing::error!("notes on disk count as missing: {kind:?}: {error}");
        }
        found
    }

    /// Waits until everything so far survives `kill -9`.
    ///
    /// # Errors
    /// When the disk fails.
    pub(super) async fn committed(&self) -> Result<(), Degraded> {
        self.behind.settled(Need::Committed).await
    }

    /// Waits until everything so far survives a power cut.
    ///
    /// # Errors
    /// When the disk fails.
    pub(super) async fn synced(&self) -> Result<(), Degraded> {
        self.behind.settled(Need::Synced).await
    }

    /// Waits until there is room for many pages, unless the disk fails.
    pub(super) async fn room(&self) {
        self.behind.room().await;
    }

    /// How the tier is.
    pub(super) fn health(&self) -> StoreHealth {
        match (self.behind.health(), &self.set_aside) {
            (StoreHealth::Ok, Some(told)) => {
                StoreHealth::Degraded(Degraded::SetAside(told.clone()))
            }
            (health, _) => health,
        }
    }

    /// The route and the stamp of a page's entry.
    pub(super) fn stamp(&self, key: &PageKey) -> Option<Stamped> {
        match self.behind.look(|queue| queue.get(key).cloned()) {
            None => self.stored_stamp(key),
            Some(Change::Put(entry)) => Some(entry.stamped()),
            Some(Change::Remove) => None,
            Some(Change::RemoveOf(gone)) => {
                self.stored_stamp(key).filter(|(route, _)| *route != gone)
            }
        }
    }

    fn stored_stamp(&self, key: &PageKey) -> Option<Stamped> {
        self.answered(key, self.database.stamp(key, self.sequence()))
    }

    /// What the disk has of a page.
    fn stored(&self, key: &PageKey) -> Option<Arc<Entry>> {
        self.answered(key, self.database.get(key, self.sequence()))
            .map(Arc::new)
    }

    /// What the disk has said of a page; what cannot be read is a miss.
    fn answered<T>(&self, key: &PageKey, said: Result<Option<T>, ReadError>) -> Option<T> {
        *self.hung_until.lock() = None;
        said.unwrap_or_else(|error| {
            self.unreadable(key.as_str(), &error);
            self.gave_up(key);
            None
        })
    }

    /// Says that a page counts as missing though it may be there: what says that there is none
    /// comes in place of one.
    pub(super) fn gave_up(&self, key: &PageKey) {
        let mut unknown = self.unknown.lock();
        if unknown.len() < UNKNOWN {
            unknown.insert(key.clone());
        }
    }

    /// Whether a read took longer than its reader of late, and the disk has answered none since:
    /// then nobody else need wait.
    pub(super) fn hangs(&self) -> bool {
        let until = *self.hung_until.lock();
        until.is_some_and(|until| Instant::now() < until)
    }

    /// Says that nobody could wait for a page any longer; the next to wait does so after a `pause`.
    pub(super) fn too_slow(&self, key: &PageKey, pause: Duration) {
        *self.hung_until.lock() = Some(Instant::now() + pause);
        self.gave_up(key);
        self.unreadable(key.as_str(), &ReadError::Slow);
    }

    fn unreadable(&self, page: &str, error: &ReadError) {
        self.metrics.store_unreadable.inc();
        self.troubles.tell(page, error);
    }

    /// Where records that cannot be read are told from here on, beside the metrics.
    pub(super) fn report_to(&self, incidents: Arc<Incidents>, clock: Clock) {
        self.troubles.report_to(incidents, clock);
    }

    /// What pages are worth, for when there is no room for all.
    pub(super) fn worth(&self) -> &Worth {
        &self.worth
    }

    fn sequence(&self) -> u64 {
        self.sequence.load(Ordering::Acquire)
    }
}

impl Store for Durable {
    fn get(&self, key: &PageKey) -> Option<Arc<Entry>> {
        let pending = self.behind.look(|queue| queue.get(key).cloned());
        match pending {
            None => self.stored(key),
            Some(change) => change.entry(|| self.stored(key)),
        }
    }

    fn put(&self, entry: Arc<Entry>) -> Result<(), Unkept> {
        if self.unknown.lock().remove(&entry.key) {
            return self.replace(entry);
        }
        self.keep(entry, false)
    }

    fn remove(&self, key: &PageKey) -> bool {
        let was_there = self.get(key).is_some();
        self.forget(key);
        was_there
    }

    fn remove_routes(&self, is_gone: &dyn Fn(&str) -> bool) -> usize {
        // One at a time: a later look sees what an earlier one has queued.
        let _alone = self.removing.lock();
        let mut found: Vec<(PageKey, Arc<str>)> = Vec::new();
        // What the disk has of these is not what there is, also if they reach it meanwhile.
        let mut overtaken = HashSet::new();
        self.behind.look(|queue| {
            for (key, change) in queue.changes() {
                match change {
                    Change::RemoveOf(route) if !is_gone(route) => {
                        overtaken.remove(key);
                        continue;
                    }
                    Change::Put(entry) if is_gone(&entry.route) => {
                        found.push((key.clone(), entry.route.clone()));
                    }
                    Change::Put(_) | Change::Remove | Change::RemoveOf(_) => {}
                }
                overtaken.insert(key.clone());
            }
        });
        let mut removed = self.behind.remove_of(&found);
        let mut survey = self.database.survey();
        loop {
            found.clear();
            let more = survey.piece(|brief, _| {
                let key = brief.page_key();
                if is_gone(brief.route) && !overtaken.contains(&key) {
                    found.push((key, Arc::from(brief.route)));
                }
                ControlFlow::Continue(())
            });
            if !found.is_empty() && !self.behind.wait_for_room(PATIENCE) {
                tracing::warn!(
                    removed,
                    "pages of routes that are gone stay on disk: it fails"
                );
                return removed;
            }
            removed += self.behind.remove_of(&found);
            match more {
                Ok(true) => {}
                Ok(false) => return removed,
                Err(error) => {
                    tracing::warn!(
                        removed,
                        "pages of routes that are gone stay on disk: {error}"
                    );
                    return removed;
                }
            }
        }
    }

    fn survey(&self, visit: &mut dyn FnMut(Brief<'_>) -> ControlFlow<()>) {
        let pending: HashMap<PageKey, Change> = self.behind.look(|queue| {
            let changes = queue.changes();
            changes.map(|(key, c)| (key.clone(), c.clone())).collect()
        });
        for change in pending.values() {
            if let Change::Put(entry) = change
                && visit(Brief::of(entry)).is_break()
            {
                return;
            }
        }
        let surveyed = self.database.survey().rest(|brief, _| {
            let is_shown = match pending.get(&brief.page_key()) {
                None => true,
                Some(Change::RemoveOf(route)) => brief.route != &**route,
                Some(Change::Put(_) | Change::Remove) => false,
            };
            if is_shown {
                visit(brief)
            } else {
                ControlFlow::Continue(())
            }
        });
        if let Err(error) = surveyed {
            self.unreadable("(all pages)", &error);
        }
    }

    fn list(&self, window: &Window) -> Vec<Summary> {
        let mut pending = BTreeMap::new();
        self.behind.look(|queue| {
            for (key, change) in queue.changes() {
                if window.covers(key.as_str()) {
                    pending.insert(key.clone(), change.clone());
                }
            }
        });
        // As many more as pending removals may take away.
        let enough = Window {
            limit: window.limit.saturating_add(pending.len()),
            ..window.clone()
        };
        let stored = self.database.list(&enough, self.sequence(), |key, error| {
            self.unreadable(key, error);
        });
        let stored = stored.unwrap_or_else(|error| {
            self.unreadable(&window.prefix, &error);
            Vec::new()
        });
        let mut entries: BTreeMap<PageKey, Summary> = stored
            .into_iter()
            .map(|entry| (entry.key.clone(), entry))
            .collect();
        for (key, change) in pending {
            let stored = entries.remove(&key);
            let entry = match change {
                Change::Put(entry) => Some(entry.summary()),
                Change::Remove => None,
                Change::RemoveOf(route) => stored.filter(|entry| entry.route != route),
            };
            entries.extend(entry.map(|entry| (key, entry)));
        }
        entries.into_values().take(window.limit).collect()
    }
}

#[cfg(test)]
impl Durable {
    /// Hangs the disk until the guard is dropped.
    pub(super) fn hang(&self) -> impl Drop + '_ {
        self.database.hang()
    }
}

#[cfg(test)]
mod tests;
