//! `Durable`: the tier that survives restarts, `kill -9` and, for invalidations, power cuts.
//!
//! What is put is queued and readable at once; a thread writes it behind the response. A page is
//! with the operating system within a moment and synced within a second; invalidations and
//! removals are synced before their callers are told. A record that cannot be read is a miss, a
//! disk that fails is a condition that shows and heals: neither is ever an error page.

mod behind;
mod database;
mod health;
mod lock;
mod open;
mod queue;
mod quota;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub use health::{Degraded, StoreHealth};
pub use open::OpenError;

use super::marks::{Raised, Saved};
use super::{Store, Unkept};
use crate::page::{Entry, PageKey};
use crate::telemetry::metrics::Metrics;
use behind::{Behind, Limits, Sink};
pub(super) use database::MAX_KEY;
use database::{Database, ReadError};
use health::Need;
use queue::{Change, Round};
use quota::Quota;

/// Pages of a route that are removed before looking whether others wait to be written.
const REMOVED_AT_ONCE: usize = 1_000;

/// The durable tier of one folder. Its calls read the disk: keep them off threads that serve.
pub(super) struct Durable {
    // Dropped first, so that the thread has ended before the database closes.
    behind: Behind,
    database: Arc<Database>,
    /// The latest number that the site has given.
    sequence: AtomicU64,
    metrics: Arc<Metrics>,
}

/// The database as the thread that writes sees it.
struct Keeper {
    database: Arc<Database>,
    quota: Option<Quota>,
    metrics: Arc<Metrics>,
}

impl Durable {
    /// Opens the tier in `folder`, beside `memory` bytes of pages in memory, for at most `disk`
    /// bytes; and the invalidations of earlier runs.
    ///
    /// # Errors
    /// When the folder is in use, of another format, unreadable, or not writable.
    pub(super) fn open(
        folder: &Path,
        memory: usize,
        disk: Option<u64>,
        metrics: Arc<Metrics>,
    ) -> Result<(Self, Saved), OpenError> {
        let (database, saved) = Database::open(folder, memory)?;
        let database = Arc::new(database);
        let keeper = Keeper {
            database: database.clone(),
            quota: disk.map(Quota::new),
            metrics: metrics.clone(),
        };
        let behind = Behind::start(keeper, Limits::DEFAULT, metrics.clone())
            .map_err(|source| OpenError::io(folder, source))?;
        let durable = Self {
            behind,
            database,
            sequence: AtomicU64::new(saved.site.sequence),
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

    /// Queues the removal of a page; [`Durable::synced`] tells when it is done.
    pub(super) fn forget(&self, key: &PageKey) {
        self.behind.change(key, Change::Remove);
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
        self.behind.health()
    }

    /// The latest word on a page that is not on disk yet: an entry, or that there is none.
    fn pending(&self, key: &PageKey) -> Option<Option<Arc<Entry>>> {
        self.behind.look(|queue| queue.get(key).map(Change::entry))
    }

    fn unreadable(&self, key: &str, error: &ReadError) {
        self.metrics.store_unreadable.inc();
        tracing::error!(path = key, "a page on disk counts as missing: {error}");
    }

    fn sequence(&self) -> u64 {
        self.sequence.load(Ordering::Acquire)
    }
}

impl Store for Durable {
    fn get(&self, key: &PageKey) -> Option<Arc<Entry>> {
        if let Some(pending) = self.pending(key) {
            return pending;
        }
        match self.database.get(key, self.sequence()) {
            Ok(entry) => entry.map(Arc::new),
            Err(error) => {
                self.unreadable(key.as_str(), &error);
                None
            }
        }
    }

    fn put(&self, entry: Arc<Entry>) -> Result<(), Unkept> {
        let key = entry.key.clone();
        if key.as_str().len() > MAX_KEY {
            return Err(Unkept::LongKey(key.as_str().len()));
        }
        if self.behind.change(&key, Change::Put(entry)) {
            Ok(())
        } else {
            Err(Unkept::NoRoom)
        }
    }

    fn remove(&self, key: &PageKey) -> bool {
        let was_there = self.get(key).is_some();
        self.forget(key);
        was_there
    }

    fn remove_route(&self, route: &str) -> usize {
        let mut keys = Vec::new();
        let of_route = |entry: &Entry| &*entry.route == route;
        self.behind.look(|queue| {
            let pending = queue.changes().filter_map(|(key, change)| {
                change.entry().filter(|entry| of_route(entry)).map(|_| key)
            });
            keys.extend(pending.cloned());
        });
        let stored = self.database.census(|meta, _| {
            if &*meta.route == route {
                keys.push(meta.key);
            }
        });
        if let Err(error) = stored {
            self.unreadable(route, &error);
        }
        keys.sort_unstable();
        keys.dedup();
        let mut removed = 0;
        for chunk in keys.chunks(REMOVED_AT_ONCE) {
            if !self.behind.wait_for_room() {
                break;
            }
            for key in chunk {
                // Another route may have made the page anew meanwhile, or it is being removed.
                let is_of_route = match self.pending(key) {
                    None => true,
                    Some(pending) => pending.is_some_and(|entry| of_route(&entry)),
                };
                if is_of_route {
                    self.forget(key);
                    removed += 1;
                }
            }
        }
        removed
    }

    fn list(&self, prefix: &str, limit: usize) -> Vec<Arc<Entry>> {
        let mut pending = BTreeMap::new();
        self.behind.look(|queue| {
            for (key, change) in queue.changes() {
                if key.as_str().starts_with(prefix) {
                    pending.insert(key.clone(), change.entry());
                }
            }
        });
        // As many more as pending removals may take away.
        let enough = limit.saturating_add(pending.len());
        let stored = self
            .database
            .list(prefix, enough, self.sequence(), |key, error| {
                self.unreadable(key, error);
            });
        let stored = stored.unwrap_or_else(|error| {
            self.unreadable(prefix, &error);
            Vec::new()
        });
        let mut entries: BTreeMap<PageKey, Option<Arc<Entry>>> = stored
            .into_iter()
            .map(|entry| (entry.key.clone(), Some(Arc::new(entry))))
            .collect();
        entries.extend(pending);
        entries.into_values().flatten().take(limit).collect()
    }
}

impl Sink for Keeper {
    fn commit(&mut self, round: &Round) -> Result<(), String> {
        let written = self.database.commit(round)?;
        if let Some(quota) = &mut self.quota {
            match quota.enforce(&self.database, written) {
                Ok(evicted) => {
                    self.metrics.store_evictions.inc_by(evicted);
                }
                // The round is written; a disk that fails shows in the next one.
                Err(error) => tracing::warn!("`store.disk` is not kept to: {error}"),
            }
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<(), String> {
        self.database.sync()
    }

    fn revive(&mut self) -> Result<(), String> {
        self.database.reopen()
    }
}

#[cfg(test)]
mod tests;
