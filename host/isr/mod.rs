//! `Isr`: incremental static regeneration.
//!
//! Shows what is there, makes what is not, renews what is stale, keeps the last good page when
//! that fails. It has never heard of WebAssembly: pages come from a `page::Render`.
//!
//! Invariants: a page has at most one generation at a time; a generation runs in a task of its
//! own, so that a reader who hangs up neither ends nor repeats it; whoever needs data read after
//! an invalidation never gets the result of a generation that began before it; nothing made from
//! data read before a purge is kept.

mod backoff;
mod flight;
mod generation;
mod make;
mod queue;
mod reader;
mod served;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

pub use served::{Ask, Hit, Patience, Prerendered, Refused, Renewal, Served};

use crate::page::{Cause, Entry, Freshness, Page, PageKey, Tag, Timestamp, Why, judge};
use crate::store::{Kept, Mark, StoreHealth, Tiers};
use crate::telemetry::metrics::{Metrics, Verdict};
use crate::telemetry::{Clock, Incidents};
use backoff::Backoffs;
use flight::Flights;
use queue::{Priority, Queue};

/// How much is made at once.
#[derive(Debug, Clone)]
pub struct Config {
    /// Generations at once.
    pub concurrency: usize,
    /// Generations that wait for a place; beyond it readers without a page get 503.
    pub queue: usize,
    /// How long a reader waits for a generation to begin.
    pub wait: Duration,
    /// Whether readers wait for what a new module makes, rather than see what the old one made:
    /// for authors, who have just saved it.
    pub await_module: bool,
}

impl Config {
    /// Pages made ahead at once. Twice the places: while some are stored, others are ready to
    /// begin.
    fn ahead(&self) -> usize {
        self.concurrency.max(1) * 2
    }
}

/// What the cache stands on.
pub struct Parts {
    /// Where entries live, and what was invalidated.
    pub store: Arc<Tiers>,
    /// The time.
    pub clock: Clock,
    /// Where generations run, apart from the threads that serve.
    pub runtime: Handle,
    /// Where failures are told.
    pub incidents: Arc<Incidents>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}

/// How long a caller of the revalidate endpoint waits for its generation to begin: webhooks of
/// content systems commonly give up after 30 s.
const ON_DEMAND_WAIT: Duration = Duration::from_secs(30);

/// The cache. Cloning costs a reference count.
#[derive(Clone)]
pub struct Isr(Arc<Inner>);

struct Inner {
    parts: Parts,
    flights: Arc<Flights>,
    queue: Arc<Queue>,
    backoffs: Backoffs,
    /// Pages being made ahead, of all routes together: they must not fill the queue.
    ahead: Semaphore,
    config: Config,
}

impl Isr {
    /// A cache over `parts`.
    pub fn new(config: Config, parts: Parts) -> Self {
        let queue = Queue::new(config.concurrency, config.queue, parts.metrics.clone());
        let backoffs = Backoffs::new();
        Self(Arc::new(Inner {
            parts,
            flights: Flights::new(),
            queue,
            backoffs,
            ahead: Semaphore::new(config.ahead()),
            config,
        }))
    }

    /// The time by which entries are judged.
    pub fn now(&self) -> Timestamp {
        self.0.parts.clock.now()
    }

    /// What memory has of a page, which may be kept as long as it says that it is current.
    pub fn kept(&self, key: &PageKey) -> Option<Arc<Kept>> {
        self.0.parts.store.kept(key)
    }

    /// What a reader of a page in memory is told, if it is a fresh one: the fast path, without
    /// waiting.
    pub fn hit(&self, page: &Page, kept: &Kept, now: Timestamp) -> Option<Hit> {
        let Freshness::Fresh(ttl) = self.0.judge(page, kept.entry(), now) else {
            return None;
        };
        self.0.parts.metrics.hits.inc();
        Some(Hit { ttl })
    }

    /// Answers a reader.
    ///
    /// # Errors
    /// When there is no entry and none could be made.
    pub async fn serve(&self, ask: Ask, patience: Patience) -> Result<Served, Refused> {
        let served = self.0.serve(ask, patience).await;
        let verdict = served.as_ref().map_or_else(Refused::as_str, Served::as_str);
        self.0
            .parts
            .metrics
            .served
            .get_or_create(&Verdict { verdict })
            .inc();
        served
    }

    /// Makes the page anew from data read after this call; the very next reader sees it, also
    /// after `kill -9`, unless the disk fails, which the store's health tells.
    ///
    /// # Errors
    /// When the generation fails (the last good page stays), there is no room for it, or only a
    /// generated page was to be renewed and this one never was.
    pub async fn revalidate(&self, ask: Ask, only_generated: bool) -> Result<Arc<Entry>, Refused> {
        let store = &self.0.parts.store;
        if only_generated && store.find(&ask.key).await.is_none() {
            return Err(Refused::NeverGenerated);
        }
        let least = store.mark([Mark::Path(ask.key.clone())]);
        let (wait, _) = self
            .0
            .launch(ask, least, Priority::OnDemand, Cause::OnDemand);
        let landed = self.0.landed(wait, ON_DEMAND_WAIT).await;
        // A failing disk shows in the store's health: the page itself is made and shown.
        let _ = store.persisted().await;
        landed
    }

    /// Marks pages as stale: they are shown once more while they are made anew.
    pub async fn invalidate_paths(&self, keys: &[PageKey]) {
        let marks = keys.iter().cloned().map(Mark::Path);
        self.0.parts.store.raise(marks).await;
    }

    /// Marks all pages with any of these tags as stale.
    pub async fn invalidate_tags(&self, tags: &[Tag]) {
        let marks = tags.iter().cloned().map(Mark::Tag);
        self.0.parts.store.raise(marks).await;
    }

    /// Removes a page, last good included; whether there was one.
    pub async fn purge(&self, key: &PageKey) -> bool {
        let store = &self.0.parts.store;
        let was_there = store.find(key).await.is_some();
        self.0.backoffs.forget(key);
        self.0.flights.exclusively(key, || {
            store.mark([Mark::Purge(key.clone())]);
            store.remove(key);
        });
        // A failing disk shows in the store's health: the page is gone in any case.
        let _ = store.synced().await;
        was_there
    }

    /// Forgets the pages of a route that is gone; how many there were.
    pub async fn remove_route(&self, route: &str) -> usize {
        self.0.parts.store.remove_route(route).await
    }

    /// Up to `limit` entries whose keys begin with `prefix`.
    pub async fn entries(&self, prefix: &str, limit: usize) -> Vec<Arc<Entry>> {
        self.0.parts.store.list(prefix, limit).await
    }

    /// Whether what is made is also kept.
    pub fn store_health(&self) -> StoreHealth {
        self.0.parts.store.health()
    }

    /// What readers of `page` would be told of `entry` now.
    pub fn freshness(&self, page: &Page, entry: &Entry) -> Freshness {
        self.0.judge(page, entry, self.now())
    }

    /// Makes those pages that are missing or stale, behind everybody who waits for one.
    pub async fn prerender(&self, asks: impl IntoIterator<Item = Ask>) -> Prerendered {
        let results = stream::iter(asks).map(|ask| self.0.prerender(ask));
        let mut results = results.buffer_unordered(self.0.config.ahead());
        let mut report = Prerendered::default();
        while let Some((key, result)) = results.next().await {
            match result {
                Ok(true) => report.made += 1,
                Ok(false) => report.fresh += 1,
                Err(refused) => report.failed.push((key, refused)),
            }
        }
        report
    }
}

impl Inner {
    fn judge(&self, page: &Page, entry: &Entry, now: Timestamp) -> Freshness {
        let mark = self.parts.store.why(&entry.key, &entry.stamp);
        let owner = page.renderer.module();
        match judge(&entry.stamp, now, owner, page.policy.max_stale, mark) {
            Freshness::Stale(Why::Module) if self.config.await_module => {
                Freshness::Expired(Why::Module)
            }
            freshness => freshness,
        }
    }

    fn is_fresh(&self, page: &Page, entry: &Entry) -> bool {
        let now = self.parts.clock.now();
        matches!(self.judge(page, entry, now), Freshness::Fresh(_))
    }

    async fn prerender(self: &Arc<Self>, ask: Ask) -> (PageKey, Result<bool, Refused>) {
        let key = ask.key.clone();
        // Never closed, so always held.
        let _place = self.ahead.acquire().await;
        let entry = self.parts.store.find(&key).await;
        if entry.is_some_and(|entry| self.is_fresh(&ask.page, &entry)) {
            return (key, Ok(false));
        }
        let least = self.parts.store.path_mark(&key);
        let (wait, _) = self.launch(ask, least, Priority::Background, Cause::Build);
        (key, self.landed(wait, Duration::MAX).await.map(|_| true))
    }
}
