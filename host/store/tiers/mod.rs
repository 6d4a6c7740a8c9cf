//! `Tiers`: memory over disk, and the invalidations that both are subject to.
//!
//! Hits come from memory alone. What memory has given up is found on disk and comes back into
//! memory, unless the page was changed meanwhile: a slow reader never brings back what has been
//! replaced or removed.

mod carry;
mod census;
mod readers;
mod reading;
mod sharing;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::durable::{Degraded, Durable, OpenError, Space, StoreHealth};
use super::ledger::Ledger;
use super::marks::{Mark, Marks};
use super::notes::{Note, Notes};
use super::shared::Shared;
use super::{Brief, Kept, Memory, Store, Unkept, Window};
use crate::page::{Entry, PageKey, Stamp, Stamped, Summary, Tag, Why};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::{Clock, Incidents};
pub use census::Census;
use readers::Readers;
use reading::{Read, Reading};

/// How much is kept, and where.
#[derive(Debug, Clone)]
pub struct Config {
    /// Bytes of pages in memory.
    pub memory: usize,
    /// The folder of what survives a restart; none keeps pages in memory only.
    pub folder: Option<PathBuf>,
    /// How much of it, and how.
    pub disk: Space,
}

/// How long anybody waits for the disk before going on without it: a disk that hangs must not
/// hold up a webhook for longer than its sender waits.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a reader waits for the disk before the page counts as missing: it is made anew sooner.
const READ_PATIENCE: Duration = Duration::from_secs(3);

/// All tiers.
pub struct Tiers {
    memory: Arc<Memory>,
    durable: Option<Arc<Durable>>,
    readers: Readers,
    ledger: Arc<Ledger>,
    /// What hosts have in common, once they do.
    shared: OnceLock<Shared>,
    /// Pages being read from disk. Who changes a page takes it off, so that what was read is not
    /// brought into memory.
    reading: Mutex<HashMap<PageKey, Arc<Reading>>>,
    /// Which routes went while pages of an earlier store come back; none when none do.
    gone: Mutex<Option<Vec<Arc<IsGone>>>>,
    /// Who counts pages: one at a time.
    counting: tokio::sync::Mutex<()>,
}

/// Whether a route is gone.
type IsGone = dyn Fn(&str) -> bool + Send + Sync;

impl Tiers {
    /// Opens what `config` says. A store that cannot be opened is set aside and begun afresh: its
    /// pages can be made anew, while a site that does not start shows none.
    ///
    /// # Errors
    /// When the folder is in use, or not writable.
    pub fn open(config: Config, metrics: Arc<Metrics>) -> Result<Arc<Self>, OpenError> {
        let (durable, marks) = match &config.folder {
            None => (None, Marks::default()),
            Some(folder) => {
                let (durable, saved) =
                    Durable::open(folder, config.memory, config.disk, metrics.clone())?;
                (Some(Arc::new(durable)), Marks::load(saved))
            }
        };
        if let Some(folder) = config.folder {
            let clear = thread::Builder::new().name("wisr-clear".to_owned());
            // Otherwise it is done at the next start.
            let _ = clear.spawn(move || Durable::clear(&folder));
        }
        let readers = Readers::start().map_err(OpenError::NoThreads)?;
        let tiers = Arc::new(Self {
            memory: Arc::new(Memory::new(config.memory, metrics.clone())),
            ledger: Arc::new(Ledger::new(marks, durable.clone())),
            durable,
            readers,
            shared: OnceLock::new(),
            reading: Mutex::default(),
            gone: Mutex::default(),
            counting: tokio::sync::Mutex::default(),
        });
        if let Some(durable) = &tiers.durable {
            let memory = tiers.memory.clone();
            durable.worth().ask(move |key| memory.holds(key));
            carry::start(&tiers, durable.olds());
        }
        Ok(tiers)
    }

    /// Where records that cannot be read are told from here on, beside the metrics.
    pub fn report_to(&self, incidents: Arc<Incidents>, clock: Clock) {
        if let Some(durable) = &self.durable {
            durable.report_to(incidents, clock);
        }
    }

    /// Says which routes show pages: pages of others are the first to go when there is no room
    /// for all.
    pub fn serve_routes(&self, routes: BTreeSet<Arc<str>>) {
        if let Some(durable) = &self.durable {
            durable.worth().serve_routes(routes);
        }
    }

    // === entries ===

    /// The entry of a page, if it is in memory: no waiting, no I/O.
    pub fn get_hot(&self, key: &PageKey) -> Option<Arc<Entry>> {
        self.memory.get(key).filter(|entry| self.is_shown(entry))
    }

    /// Another host may have purged it a moment ago.
    fn is_shown(&self, entry: &Entry) -> bool {
        !self.ledger.is_purged(&entry.key, entry.stamp.sequence)
    }

    /// As [`Tiers::get_hot`], for who wants to keep it: it says itself when it is replaced.
    pub fn kept(&self, key: &PageKey) -> Option<Arc<Kept>> {
        self.memory.kept(key)
    }

    /// How often a page was sent since it came into memory; none if it is not there.
    pub fn hits(&self, key: &PageKey) -> Option<u64> {
        self.memory.peek(key).map(|kept| kept.hits())
    }

    /// The entry of a page, wherever it is. Those who ask for one page at once share one read.
    pub async fn find(self: &Arc<Self>, key: &PageKey) -> Option<Arc<Entry>> {
        loop {
            if let Some(entry) = self.get_hot(key) {
                return Some(entry);
            }
            let durable = self.durable.as_ref()?;
            if durable.hangs() {
                durable.gave_up(key);
                return None;
            }
            let reading = self.read(durable, key);
            let mut read = timeout(readers::SOON, reading.wait()).await;
            if read.is_err() {
                self.readers.hurry();
                read = timeout(READ_PATIENCE, reading.wait()).await;
            }
            match read {
                Ok(Read::Done(found)) => return found.filter(|entry| self.is_shown(entry)),
                Ok(Read::Overtaken) => {}
                Err(_) => {
                    durable.too_slow(key, READ_PATIENCE);
                    return None;
                }
            }
        }
    }

    /// Reads a page from disk into memory; none if it is there, or there is no disk.
    pub fn warm(
        self: &Arc<Self>,
        key: &PageKey,
    ) -> Option<impl Future<Output = Option<Arc<Entry>>> + Send + use<>> {
        let is_cold = self.durable.is_some() && !self.memory.holds(key);
        is_cold.then(|| {
            let (tiers, key) = (self.clone(), key.clone());
            async move { tiers.find(&key).await }
        })
    }

    /// The routes and stamps of pages' entries, in the order of `keys`: for who looks at many pages
    /// and shows none. What is on disk only stays there.
    pub async fn stamps(self: &Arc<Self>, keys: Vec<PageKey>) -> Vec<Option<Stamped>> {
        let (tiers, asked) = (self.clone(), keys.clone());
        let read = self.blocking(move |durable| {
            let hot = |key| tiers.memory.peek(key).map(|kept| kept.entry().stamped());
            let stamp = |key| hot(key).or_else(|| durable?.stamp(key));
            keys.iter().map(stamp).collect()
        });
        read.await.unwrap_or_else(|| {
            let durable = self.durable.iter();
            durable.for_each(|durable| asked.iter().for_each(|key| durable.gave_up(key)));
            Vec::new()
        })
    }

    /// Joins or starts the read of a page.
    fn read(self: &Arc<Self>, durable: &Arc<Durable>, key: &PageKey) -> Arc<Reading> {
        let mut readings = self.reading.lock();
        if let Some(reading) = readings.get(key) {
            return reading.clone();
        }
        let reading = Arc::new(Reading::default());
        readings.insert(key.clone(), reading.clone());
        let (tiers, durable, key, begun) =
            (self.clone(), durable.clone(), key.clone(), reading.clone());
        self.readers.spawn(move || {
            let read = catch_unwind(AssertUnwindSafe(|| durable.get(&key)));
            let found = read.unwrap_or_else(|_| {
                tracing::error!(path = %key, "the database panicked (please report it)");
                None
            });
            begun.tell(tiers.arrived(&key, found, &begun));
        });
        reading
    }

    /// Takes what was read into memory, unless the page was changed meanwhile.
    fn arrived(&self, key: &PageKey, found: Option<Arc<Entry>>, reading: &Arc<Reading>) -> Read {
        let mut readings = self.reading.lock();
        if !readings
            .get(key)
            .is_some_and(|its| Arc::ptr_eq(its, reading))
        {
            return Read::Overtaken;
        }
        readings.remove(key);
        if let Some(entry) = found.clone() {
            // What is too large for memory is read from disk each time.
            let _ = self.memory.put(entry);
        }
        Read::Done(found)
    }

    /// Keeps `entry`, unless its page was purged since its data was read. It is seen at once;
    /// [`Tiers::persisted`] tells when it survives the process.
    pub fn put(&self, entry: Arc<Entry>) {
        self.keep(entry, Store::put);
    }

    /// Keeps `entry` in place of another. A document that was there before never comes back, also
    /// where the disk takes nothing new.
    pub fn replace(&self, entry: Arc<Entry>) {
        self.keep(entry, Durable::replace);
    }

    fn keep(
        &self,
        entry: Arc<Entry>,
        put: impl FnOnce(&Durable, Arc<Entry>) -> Result<(), Unkept>,
    ) {
        let mut readings = self.reading.lock();
        self.keep_in(&mut readings, entry, put);
    }

    fn keep_in(
        &self,
        readings: &mut HashMap<PageKey, Arc<Reading>>,
        entry: Arc<Entry>,
        put: impl FnOnce(&Durable, Arc<Entry>) -> Result<(), Unkept>,
    ) {
        readings.remove(&entry.key);
        // Under the lock: whoever purges the page from here on finds what is kept, and removes it.
        if self.ledger.purged_since(&entry.key, entry.stamp.sequence) {
            return;
        }
        if let Some(durable) = &self.durable
            && let Err(unkept) = put(durable, entry.clone())
        {
            tracing::debug!(path = %entry.key, "not kept on disk: {unkept}");
        }
        if let Err(unkept) = self.memory.put(entry.clone()) {
            tracing::warn!(path = %entry.key, "not kept in memory: {unkept}");
        }
    }

    /// Forgets a page at once; [`Tiers::synced`] tells when it cannot come back.
    pub fn remove(&self, key: &PageKey) {
        let mut readings = self.reading.lock();
        readings.remove(key);
        self.memory.remove(key);
        if let Some(durable) = &self.durable {
            durable.forget(key);
        }
    }

    /// Forgets all pages of the routes that are gone; how many there were. Looks at every page
    /// there is, behind everybody else: an index by route would cost each page another record, for
    /// what happens when somebody deletes a file. A disk that fails keeps what it has.
    pub async fn remove_routes(
        self: &Arc<Self>,
        is_gone: impl Fn(&str) -> bool + Send + Sync + 'static,
    ) -> usize {
        let tiers = self.clone();
        let is_gone: Arc<IsGone> = Arc::new(is_gone);
        if let Some(gone) = &mut *self.gone.lock() {
            gone.push(is_gone.clone());
        }
        let in_memory = move |is_gone: &dyn Fn(&str) -> bool| {
            let mut readings = tiers.reading.lock();
            readings.clear();
            tiers.memory.remove_routes(is_gone)
        };
        // First, for a disk may take long; and again, for a read may have brought some back.
        let at_once = in_memory(&*is_gone);
        let removed = self.blocking(move |durable| {
            let on_disk = durable.map_or(0, |durable| durable.remove_routes(&*is_gone));
            (at_once + in_memory(&*is_gone)).max(on_disk)
        });
        let removed = removed.await.unwrap_or(at_once);
        let _ = self.synced().await;
        removed
    }

    /// What the window shows, in the order of the keys.
    pub async fn list(self: &Arc<Self>, window: Window) -> Vec<Summary> {
        let (tiers, hot) = (self.clone(), window.clone());
        let listed = self.blocking(move |durable| {
            let on_disk = durable.map_or(Vec::new(), |durable| durable.list(&window));
            // What is in memory is as new as what is on disk, or newer.
            let all = on_disk.into_iter().chain(tiers.memory.list(&window));
            let all: BTreeMap<PageKey, Summary> =
                all.map(|entry| (entry.key.clone(), entry)).collect();
            all.into_values().take(window.limit).collect()
        });
        let in_memory = || self.memory.list(&hot);
        listed.await.unwrap_or_else(in_memory)
    }

    /// Up to `limit` pages with any of these tags. Looks at every page there is, but at no more of
    /// it than its tags.
    pub async fn tagged(self: &Arc<Self>, tags: &[Tag], limit: usize) -> BTreeSet<PageKey> {
        let (tiers, tags) = (self.clone(), tags.to_vec());
        let found = self.blocking(move |durable| {
            let mut found = BTreeSet::new();
            let mut look = |brief: Brief<'_>| {
                if found.len() >= limit {
                    return ControlFlow::Break(());
                }
                if brief.stamp.tags.iter().any(|tag| tags.contains(tag)) {
                    found.insert(brief.page_key());
                }
                ControlFlow::Continue(())
            };
            tiers.memory.survey(&mut look);
            if let Some(durable) = durable {
                durable.survey(&mut look);
            }
            found
        });
        found.await.unwrap_or_default()
    }

    /// Does work that reads the disk; none where that takes longer than anybody waits: then it goes
    /// on by itself.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(Option<&Durable>) -> T + Send + 'static,
    ) -> Option<T> {
        let durable = self.durable.clone();
        let done = tokio::task::spawn_blocking(move || work(durable.as_deref()));
        match timeout(PATIENCE, done).await {
            Ok(done) => done
                .inspect_err(|error| tracing::error!("the store failed: {error}"))
                .ok(),
            Err(_) => {
                tracing::warn!("a look at all pages goes on behind who asked: the disk takes long");
                None
            }
        }
    }

    // === invalidations ===

    /// The number of the latest invalidation. Read it before a generation reads its data.
    pub fn sequence(&self) -> u64 {
        self.ledger.sequence()
    }

    /// Why the entry is invalid, if it is.
    pub fn why(&self, key: &PageKey, stamp: &Stamp) -> Option<Why> {
        self.ledger.why(key, stamp)
    }

    /// The number of the latest invalidation of this very page.
    pub fn path_mark(&self, key: &PageKey) -> u64 {
        self.ledger.path(key)
    }

    /// The number of the latest invalidation of any of these tags.
    pub fn tag_mark(&self, tags: &[Tag]) -> u64 {
        self.ledger.tags(tags)
    }

    /// Invalidates at once; returns the number that the invalidation got. [`Tiers::synced`] tells
    /// when it survives a power cut.
    pub fn mark(&self, marks: impl IntoIterator<Item = Mark>) -> u64 {
        self.ledger.raise(marks)
    }

    // === notes ===

    /// Keeps a note in place of the one of its name; without a value, forgets that. It reaches
    /// the disk behind everything else, and not at all while too many wait.
    pub fn note(&self, note: Note, value: Option<&impl Serialize>) {
        if let Some(durable) = &self.durable {
            durable.note(note, value);
        }
    }

    /// All notes of a kind that earlier runs left and that can be read as `T`. Reads the disk:
    /// not for threads that serve.
    pub fn notes<T: DeserializeOwned>(&self, kind: Notes) -> Vec<T> {
        let read = |durable: &Arc<Durable>| durable.notes(kind);
        self.durable.as_ref().map_or_else(Vec::new, read)
    }

    // === the disk ===

    /// Waits until the disk has taken most of what was put, or fails. Who makes many pages that
    /// nobody waits for asks before each: the disk may be slower than they are made, and what
    /// does not fit the queue is not kept.
    pub async fn room(&self) {
        if let Some(durable) = &self.durable {
            // Longer than this nobody waits: what is made is shown in any case.
            let _ = timeout(PATIENCE, durable.room()).await;
        }
    }

    /// Waits until all that was put so far survives `kill -9`.
    ///
    /// # Errors
    /// When the disk fails or hangs.
    pub async fn persisted(&self) -> Result<(), Degraded> {
        match &self.durable {
            None => Ok(()),
            Some(durable) => patiently(durable.committed()).await,
        }
    }

    /// Waits until all changes and invalidations so far survive a power cut. Call it before the
    /// process ends.
    ///
    /// # Errors
    /// When the disk fails or hangs.
    pub async fn synced(&self) -> Result<(), Degraded> {
        match &self.durable {
            None => Ok(()),
            Some(durable) => patiently(durable.synced()).await,
        }
    }

    /// Whether what is made is also kept.
    pub fn health(&self) -> StoreHealth {
        let health = |durable: &Arc<Durable>| durable.health();
        self.durable.as_ref().map_or(StoreHealth::Ok, health)
    }
}

#[cfg(test)]
impl Tiers {
    /// Hangs the disk until the guard is dropped.
    pub(crate) fn hang(&self) -> impl Drop + '_ {
        self.durable.as_ref().unwrap().hang()
    }
}

async fn patiently(settled: impl Future<Output = Result<(), Degraded>>) -> Result<(), Degraded> {
    let over = timeout(PATIENCE, settled).await;
    over.unwrap_or(Err(Degraded::Slow))
}

#[cfg(test)]
mod tests;
