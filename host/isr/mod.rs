//! `Isr`: incremental static regeneration.
//!
//! Shows what is there, makes what is not, renews what is stale, keeps the last good page when
//! that fails. It has never heard of WebAssembly: pages come from a `page::Render`.
//!
//! | where | what |
//! |---|---|
//! | `reader`, [`Served`] | what a reader gets, and why |
//! | `flight`, `queue` | one generation of a page at a time, so many at once, the urgent ones first |
//! | `generation`, `make` | one generation, from its begin to the entry that is stored |
//! | `share` | what it has to do with other hosts: a lease before, the page for all after |
//! | `draft` | the same for one editor, kept nowhere |
//! | `ahead` | pages made before anybody asks |
//! | `backoff`, `account` | what failed: when to try again, and who is told |
//! | `routes` | which routes have pages |
//!
//! Invariants: a page has at most one generation at a time, drafts aside; a generation runs in a
//! task of its own, so that a reader who hangs up neither ends nor repeats it; whoever needs data
//! read after an invalidation never gets the result of a generation that began before it; nothing
//! made from data read before a purge is kept; a page is shown only while the route that made it
//! has pages.

mod account;
mod ahead;
mod backoff;
mod draft;
mod flight;
mod generation;
mod make;
mod queue;
mod reader;
mod routes;
mod served;
mod share;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::Semaphore;

pub use ahead::{Count, Retry, Tally};
pub use queue::{NoSlot, Queue, Slot, share};
pub use served::{Ask, Hit, Patience, Refused, Renewal, Served, Toll};

use crate::page::{
    Cause, Digest, Entry, Failure, Freshness, Page, PageKey, Stamp, Summary, Tag, Timestamp, Why,
    judge,
};
use crate::store::{
    Census, Degraded, Kept, Mark, SharedHealth, Sharing, StoreHealth, Tiers, Trouble, Window,
};
use crate::telemetry::metrics::{Metrics, Verdict};
use crate::telemetry::{Clock, Incidents};
use backoff::Backoffs;
use flight::Flights;
use generation::Before;
use queue::Priority;
use routes::Routes;

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

/// How long readers wait at the start for what other hosts have to tell: longer than it takes to find
/// out that nobody can be asked.
const JOINING: Duration = Duration::from_secs(5);

/// The cache. Cloning costs a reference count.
#[derive(Clone)]
pub struct Isr(Arc<Inner>);

struct Inner {
    parts: Parts,
    flights: Arc<Flights>,
    queue: Arc<Queue>,
    backoffs: Backoffs,
    routes: Routes,
    /// Pages being made ahead, of all routes together: they must not fill the queue.
    ahead: Semaphore,
    config: Config,
}

impl Isr {
    /// A cache over `parts`. [`Isr::recall`] tells it what failed earlier.
    pub fn new(config: Config, parts: Parts) -> Self {
        let queue = Queue::new(
            config.concurrency,
            config.queue,
            Some(parts.metrics.clone()),
        );
        let backoffs = Backoffs::new(parts.store.clone());
        Self(Arc::new(Inner {
            parts,
            flights: Flights::new(),
            queue,
            backoffs,
            routes: Routes::default(),
            ahead: Semaphore::new(config.ahead()),
            config,
        }))
    }

    /// Recalls the pages that failed in earlier runs and must not be asked for yet.
    pub async fn recall(&self) {
        let inner = self.0.clone();
        let recalled = move || inner.backoffs.recall(inner.parts.clock.now());
        if let Err(error) = tokio::task::spawn_blocking(recalled).await {
            tracing::error!("pages that failed earlier are tried again: {error}");
        }
    }

    /// The time by which entries are judged.
    pub fn now(&self) -> Timestamp {
        self.0.parts.clock.now()
    }

    /// What is counted.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.0.parts.metrics
    }

    /// What memory has of a page, which may be kept as long as it says that it is current.
    pub fn kept(&self, key: &PageKey) -> Option<Arc<Kept>> {
        self.0.parts.store.kept(key)
    }

    /// Reads a page from disk, to be judged by [`Isr::hit`]; none if it is in memory, or nothing is on
    /// disk.
    pub fn warm(
        &self,
        key: &PageKey,
    ) -> Option<impl Future<Output = Option<Arc<Entry>>> + Send + use<>> {
        self.0.parts.store.warm(key)
    }

    /// What a reader of an entry of the page is told, if it is a fresh one: the fast path, without
    /// waiting.
    pub fn hit(&self, page: &Page, entry: &Entry, now: Timestamp) -> Option<Hit> {
        // One of another route is not fresh, and may not be shown at all.
        let Freshness::Fresh(ttl) = self.0.judge(page, entry, now) else {
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
        self.0
            .count(served.as_ref().map_or_else(Refused::as_str, Served::as_str));
        served
    }

    /// Makes a page for an editor alone, from what is there now: nothing is stored, and no other
    /// generation is waited for. Drafts have a share of the places, so that readers keep theirs.
    ///
    /// # Errors
    /// When the generation fails (the last good page stays), or there is no room for it.
    pub async fn draft(&self, ask: Ask) -> Result<Arc<Entry>, Refused> {
        let made = self.0.draft(ask).await;
        self.0
            .count(made.as_ref().map_or_else(Refused::as_str, |_| "draft"));
        made
    }

    /// Says that pages are to be made anew: what began before this is no answer to whoever said so.
    /// First: a page that the disk cannot show at the moment counts as never generated, and must not
    /// be taken for fresh when it can. And before the data is read: hosts that are told later would
    /// make the page once more.
    pub async fn announce(&self, keys: impl IntoIterator<Item = PageKey>) {
        let store = &self.0.parts.store;
        self.invalidate_paths(keys);
        // That they cannot be told is for [`Isr::told`] to say.
        let _ = store.publish().await;
    }

    /// Makes the page anew from data read after what was said of it, by [`Isr::announce`] or by any of
    /// `tags`; the very next reader sees it. [`Isr::persisted`] tells when it survives `kill -9`, and
    /// [`Isr::told`] when other hosts show nothing older.
    ///
    /// # Errors
    /// When the generation fails (the last good page stays), there is no room for it, or only a
    /// generated page was to be renewed and this one never was.
    pub async fn renew(
        &self,
        ask: Ask,
        tags: &[Tag],
        only_generated: bool,
    ) -> Result<Arc<Entry>, Refused> {
        let store = &self.0.parts.store;
        let least = store.path_mark(&ask.key).max(store.tag_mark(tags));
        if only_generated && self.0.known(&ask).await.is_none() {
            return Err(Refused::NeverGenerated);
        }
        let whom = (Priority::OnDemand, Cause::OnDemand);
        let made = self
            .0
            .make(Before::Unknown, &ask, least, whom, ON_DEMAND_WAIT);
        let (made, _) = made.await?;
        store.mark_replaced(&ask.key, least);
        Ok(made)
    }

    /// How many pages this host knows that have each of `tags`, and how many variants of each of
    /// `paths` beside the page itself; none where others have so much counted that it would take too
    /// long.
    pub async fn count(&self, paths: Vec<PageKey>, tags: Vec<Tag>) -> Option<Census> {
        self.0.parts.store.census(paths, tags).await
    }

    /// Marks pages as stale: they are shown once more while they are made anew. [`Isr::synced`]
    /// tells when this survives a power cut.
    pub fn invalidate_paths(&self, keys: impl IntoIterator<Item = PageKey>) {
        let marks: Vec<Mark> = keys.into_iter().map(Mark::Path).collect();
        if !marks.is_empty() {
            self.0.parts.store.mark(marks);
        }
    }

    /// Marks all pages with any of these tags as stale. [`Isr::synced`] tells when this survives a
    /// power cut.
    pub fn invalidate_tags(&self, tags: &[Tag]) {
        let marks = tags.iter().cloned().map(Mark::Tag);
        self.0.parts.store.mark(marks);
    }

    /// Removes a page, last good included; whether there was one. Variants of it are not shown any
    /// more, and removed by [`Isr::forget_variants`]. [`Isr::synced`] tells when it cannot come back.
    pub async fn purge(&self, ask: &Ask) -> bool {
        let (store, key) = (&self.0.parts.store, &ask.key);
        let was_there = self.0.known(ask).await.is_some();
        self.0.backoffs.forget(key);
        self.0.flights.exclusively(key, || {
            store.mark([Mark::Purge(key.clone())]);
            store.remove(key);
        });
        store.discard(key, &ask.maker());
        was_there
    }

    /// Removes the variants of pages that were purged.
    pub async fn forget_variants(&self, paths: Vec<PageKey>) {
        self.0.parts.store.forget_variants(paths).await;
    }

    /// Waits until all pages made so far survive `kill -9`.
    ///
    /// # Errors
    /// When the disk fails or hangs: they are shown all the same, and kept as soon as it recovers.
    pub async fn persisted(&self) -> Result<(), Degraded> {
        self.0.parts.store.persisted().await
    }

    /// Waits until all that was done so far survives a power cut.
    ///
    /// # Errors
    /// When the disk fails or hangs: it holds all the same, and is kept as soon as it recovers.
    pub async fn synced(&self) -> Result<(), Degraded> {
        self.0.parts.store.synced().await
    }

    /// Waits until the other hosts know of all that was invalidated and replaced so far.
    ///
    /// # Errors
    /// When they cannot be told now: it holds here all the same, and they are told later.
    pub async fn told(&self) -> Result<(), Trouble> {
        self.0.parts.store.told().await
    }

    /// Waits until what the other hosts know is known here, if they can be asked: to be called before
    /// readers are answered.
    pub async fn joined(&self) {
        let joined = self.0.parts.store.joined();
        if tokio::time::timeout(JOINING, joined).await.is_err() {
            tracing::warn!("pages are shown before it is known what other hosts have to tell");
        }
    }

    /// Up to `limit` known pages with any of these tags.
    pub async fn tagged(&self, tags: &[Tag], limit: usize) -> BTreeSet<PageKey> {
        self.0.parts.store.tagged(tags, limit).await
    }

    /// Says which routes have pages from here on. Pages of others are not shown, though they are
    /// kept while there is room for all: their routes may come back.
    pub fn serve_routes(&self, routes: BTreeSet<Arc<str>>) {
        self.0.parts.store.serve_routes(routes.clone());
        self.0.routes.serve(routes);
    }

    /// Says which modules, by route, have made pages that are not shown again: a rollback took them
    /// back. They are kept, since it may be taken back itself.
    pub fn withdraw(&self, modules: BTreeMap<Arc<str>, Vec<Digest>>) {
        self.0.routes.withdraw(modules);
    }

    /// Says how many generations of each of these routes run at once from here on. A route that is
    /// not named has its [`share`].
    pub fn share_out(&self, routes: &BTreeMap<Arc<str>, usize>) {
        self.0.queue.share_out(routes);
    }

    /// Forgets the pages of these routes; how many there were.
    pub async fn forget_routes(&self, routes: BTreeSet<Arc<str>>) -> usize {
        self.0.routes.forget(&routes);
        let is_gone = move |route: &str| routes.contains(route);
        self.0.parts.store.remove_routes(is_gone).await
    }

    /// The known pages that the window shows.
    pub async fn list(&self, window: Window) -> Vec<Summary> {
        self.0.parts.store.list(window).await
    }

    /// What is known of a page, shown or not.
    pub async fn entry(&self, key: &PageKey) -> Option<Arc<Entry>> {
        self.0.parts.store.find(key).await
    }

    /// How often a page was sent since it came into memory; none if it is not there.
    pub fn hits(&self, key: &PageKey) -> Option<u64> {
        self.0.parts.store.hits(key)
    }

    /// The failure because of which nobody tries to make the page at the moment.
    pub fn held_back(&self, page: &Page, key: &PageKey) -> Option<Arc<Failure>> {
        let module = page.renderer.module();
        self.0.backoffs.holds(key, module, self.now())
    }

    /// Whether what is made is also kept.
    pub fn store_health(&self) -> StoreHealth {
        self.0.parts.store.health()
    }

    /// Whether what is made is shared with other hosts.
    pub fn shared_health(&self) -> SharedHealth {
        self.0.parts.store.shared_health()
    }

    /// How it goes with the other hosts, if there are any.
    pub fn sharing(&self) -> Option<Sharing> {
        self.0.parts.store.sharing()
    }

    /// How many invalidations the other hosts are to be told.
    pub fn untold(&self) -> usize {
        self.0.parts.store.untold()
    }

    /// What readers of `page` would be told of an entry now.
    pub fn freshness(&self, page: &Page, entry: &Summary) -> Freshness {
        let stamped = (&*entry.route, &entry.stamp);
        self.0.judge_stamp(page, &entry.key, stamped, self.now())
    }
}

impl Inner {
    fn now(&self) -> Timestamp {
        self.parts.clock.now()
    }

    fn judge(&self, page: &Page, entry: &Entry, now: Timestamp) -> Freshness {
        self.judge_stamp(page, &entry.key, (&entry.route, &entry.stamp), now)
    }

    fn judge_stamp(
        &self,
        page: &Page,
        key: &PageKey,
        (route, stamp): (&str, &Stamp),
        now: Timestamp,
    ) -> Freshness {
        let mark = self.parts.store.why(key, stamp);
        // The same module may serve both routes, and make another page for each.
        let mark = mark.or_else(|| (*route != *page.route).then_some(Why::Module));
        let owner = page.renderer.module();
        match judge(stamp, now, owner, page.policy.max_stale, mark) {
            Freshness::Stale(Why::Module) if self.config.await_module => {
                Freshness::Expired(Why::Module)
            }
            freshness => freshness,
        }
    }

    /// Counts what somebody was answered.
    fn count(&self, verdict: &'static str) {
        let served = &self.parts.metrics.served;
        served.get_or_create(&Verdict { verdict }).inc();
    }

    /// The entry that may be shown to who asks.
    async fn find(&self, ask: &Ask) -> Option<Arc<Entry>> {
        let entry = self.known(ask).await?;
        (!self.is_withdrawn(ask, &entry)).then_some(entry)
    }

    /// Whether a rollback took back the module that made the entry, of which who asks knows.
    fn is_withdrawn(&self, ask: &Ask, entry: &Entry) -> bool {
        let module = entry.stamp.module;
        module != ask.page.renderer.module() && self.routes.is_withdrawn(&entry.route, module)
    }

    /// The entry that there is.
    async fn known(&self, ask: &Ask) -> Option<Arc<Entry>> {
        let entry = match self.parts.store.find(&ask.key).await {
            Some(entry) => entry,
            None => self.parts.store.fetch(&ask.key, &ask.maker()).await?,
        };
        let is_shown = entry.route == ask.page.route || self.routes.has(&entry.route);
        is_shown.then_some(entry)
    }

    fn is_fresh(&self, page: &Page, entry: &Entry) -> bool {
        matches!(self.judge(page, entry, self.now()), Freshness::Fresh(_))
    }
}
