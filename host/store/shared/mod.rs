//! `Shared`: the tier that several hosts have in common, in Redis or Valkey, alone or as a Cluster.
//!
//! Pages that one host has made are pages of all; each is made by one host at a time, which has a
//! lease on it; invalidations are counted and told to all through a log, of which each host keeps
//! a copy, so that a hit never asks Redis. Nothing of a page's readers waits for Redis longer than
//! `store.timeout`, and while it fails nobody asks it: each host goes on alone, remembers what it has
//! to tell, and tells it when Redis is back.

mod breaker;
mod config;
mod lease;
mod link;
mod log;
mod names;
mod owed;
mod record;
mod script;
mod session;
mod shards;
mod sharing;
mod sync;
mod trouble;

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use redis::FromRedisValue;
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, timeout};

use super::ledger::Ledger;
use super::marks::count;
use super::{Maker, Tiers};
use crate::page::{Entry, PageKey};
use crate::telemetry::Clock;
use crate::telemetry::metrics::{Metrics, Operation};
use breaker::Breaker;
pub use breaker::SharedHealth;
pub use config::{Config, ConfigError};
pub use lease::{Claim, Committed, Lease, Wanted};
use link::{Call, Link, Server};
use names::Names;
use owed::Owed;
use shards::{Shard, Shards};
use sharing::Noted;
pub use sharing::{Peer, Sharing};
pub use trouble::Trouble;

/// Marks in one event of the log: Redis does nothing else while it takes them.
const TOLD_AT_ONCE: usize = 500;

/// Marks that Redis keeps, as each host does: beyond it the oldest fold into the floor.
const MAX_MARKS: usize = super::marks::MAX_MARKS;

/// Pages that were replaced that Redis keeps.
const MAX_REPLACED: usize = super::marks::MAX_REPLACED;

/// Events that the log keeps: hosts that were away for more of them read the marks instead.
const LOG: usize = 10_000;

/// The shared tier. Dropping it ends its thread.
pub(super) struct Shared {
    core: Arc<Core>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Tells those who wait what Redis has of a page.
type Fetching = watch::Receiver<Option<Option<Arc<Entry>>>>;

struct Core {
    config: Config,
    server: Server,
    names: Names,
    /// This process, among all that use the site.
    origin: String,
    ledger: Arc<Ledger>,
    clock: Clock,
    breaker: Breaker,
    /// Of a Cluster.
    shards: Shards,
    /// The count of the latest invalidation that this host has entered.
    applied: watch::Sender<u64>,
    /// Who tells the others: one at a time, for all that wait.
    telling: tokio::sync::Mutex<()>,
    /// Pages that are being asked for, by their names.
    fetching: Mutex<HashMap<String, Fetching>>,
    /// Pages that could not be shared.
    owed: Mutex<Owed>,
    settling: tokio::sync::Mutex<()>,
    /// What operators are told.
    noted: Mutex<Noted>,
    /// What this host has.
    tiers: Weak<Tiers>,
    handle: Handle,
    metrics: Arc<Metrics>,
}

/// Which connection a command takes.
#[derive(Clone, Copy)]
enum Lane {
    Control,
    Pages,
}

impl Shared {
    /// Starts to share what is in `tiers`. Redis need not be there.
    ///
    /// # Errors
    /// When the settings are wrong, or there is no thread for it.
    pub(super) fn start(
        config: Config,
        ledger: Arc<Ledger>,
        clock: Clock,
        metrics: Arc<Metrics>,
        tiers: Weak<Tiers>,
    ) -> Result<Self, ConfigError> {
        let server = Server::new(&config)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        ledger.share();
        let core = Arc::new(Core {
            server,
            names: Names::new(&config.site),
            origin: format!("{:016x}", fastrand::u64(..)),
            ledger,
            clock,
            breaker: Breaker::new(clock, metrics.clone()),
            shards: Shards::default(),
            applied: watch::channel(0).0,
            telling: tokio::sync::Mutex::default(),
            fetching: Mutex::default(),
            owed: Mutex::default(),
            settling: tokio::sync::Mutex::default(),
            noted: Mutex::default(),
            tiers,
            handle: runtime.handle().clone(),
            metrics,
            config,
        });
        let (stop, stopped) = oneshot::channel();
        let keeping = core.clone().keep();
        let thread = std::thread::Builder::new()
            .name("wisr-shared".to_owned())
            .spawn(move || {
                runtime.block_on(async {
                    tokio::select! {
                        () = keeping => {}
                        _ = stopped => {}
                    }
                });
                runtime.shutdown_background();
            })?;
        Ok(Self {
            core,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// What other hosts have made of a page. Those who ask for one at once share one answer.
    pub(super) async fn fetch(&self, key: &PageKey, maker: &Maker) -> Option<Arc<Entry>> {
        self.core.breaker.links().ok()?;
        let mut fetching = self.core.fetching(key, maker);
        let fetched = fetching.wait_for(Option::is_some).await;
        fetched.ok()?.clone()?
    }

    /// Who makes a page: see [`Core::claim`].
    pub(super) async fn claim(
        &self,
        wanted: Wanted<'_>,
        is_wanted: impl Fn(&Entry) -> bool,
        elsewhere: impl Fn(u64),
    ) -> Claim {
        self.core.claim(wanted, is_wanted, elsewhere).await
    }

    /// Remembers a page that was made without a lease, to offer it when Redis is back.
    pub(super) fn owe(&self, entry: &Arc<Entry>) {
        self.core.owe(entry, None);
    }

    /// Tells the other hosts all that they have not been told.
    ///
    /// # Errors
    /// When they cannot be told now; they are told later.
    pub(super) async fn publish(&self) -> Result<(), Trouble> {
        let told = self.core.handle.spawn(self.core.clone().publish());
        told.await.unwrap_or(Err(Trouble::Open))
    }

    /// Waits until the other hosts know of all that this one knows.
    ///
    /// # Errors
    /// When one that is in touch does not follow, or nobody can be asked.
    pub(super) async fn followed(&self) -> Result<(), Trouble> {
        self.core.followed().await
    }

    /// Waits until there has been an attempt to connect, and what it found is made up for.
    pub(super) async fn joined(&self) {
        self.core.breaker.settled().await;
    }

    /// How long a reader waits for what the others have, while they can be asked.
    pub(super) fn patience(&self) -> Option<Duration> {
        let links = self.core.breaker.links();
        links.is_ok().then_some(self.core.config.timeout)
    }

    /// Removes what Redis has of a page. Nobody would show it any more: this only frees memory.
    pub(super) fn discard(&self, key: &PageKey, maker: &Maker) {
        let (core, names) = (self.core.clone(), self.core.names.page(key, maker));
        self.core.handle.spawn(async move {
            let call = Call::of(&script::DISCARD, &[&names.page]);
            let discarded = core.call("discard", Lane::Control, call, core.config.timeout);
            let _: Result<u8, Trouble> = discarded.await;
        });
    }

    /// How many invalidations the other hosts are to be told.
    pub(super) fn untold(&self) -> usize {
        self.core.ledger.untold_count()
    }

    /// How it is.
    pub(super) fn health(&self) -> SharedHealth {
        self.core.breaker.health()
    }

    /// Says that this host goes: nobody has to wait until it is missed.
    pub(super) async fn leave(&self) {
        let core = self.core.clone();
        // Otherwise it is missed a little later.
        let _ = self
            .core
            .handle
            .spawn(async move { core.leave().await })
            .await;
    }

    /// How it goes, at length.
    pub(super) fn sharing(&self) -> Sharing {
        self.core.sharing()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was logged where it happened.
            let _ = thread.join();
        }
    }
}

impl Core {
    /// Runs a script within `patience`.
    async fn call<T: FromRedisValue + Send + 'static>(
        &self,
        operation: &'static str,
        lane: Lane,
        call: Call,
        patience: Duration,
    ) -> Result<T, Trouble> {
        let links = self.breaker.links()?;
        let mut link: Link = match lane {
            Lane::Control => links.control.clone(),
            Lane::Pages => links.pages.clone(),
        };
        let shard = link.is_cluster().then(|| self.shards.of(call.tag()));
        let may_be_asked = |shard: &Arc<Shard>| shard.may_be_asked(lane, self.clock.now());
        if !shard.as_ref().is_none_or(may_be_asked) {
            return Err(Trouble::Open);
        }
        let operations = &self.metrics.shared_operations;
        operations.get_or_create(&Operation { operation }).inc();
        let begun = Instant::now();
        // On the tier's own thread: those that make pages may be busy for longer than this may take.
        let asked = self
            .handle
            .spawn(async move { timeout(patience, link.run(&call)).await });
        let answer = match asked.await {
            Ok(Ok(answer)) => answer.map_err(Trouble::from),
            Ok(Err(_)) => Err(Trouble::Slow),
            Err(_) => Err(Trouble::Open),
        };
        let seconds = begun.elapsed().as_secs_f64();
        self.metrics.shared_seconds.observe(seconds);
        match shard {
            Some(shard) => self.learn(&shard, lane, answer.as_ref().err()),
            None => match &answer {
                Ok(_) => self.breaker.succeeded(lane),
                Err(why) => self.breaker.failed(lane, why),
            },
        }
        answer
    }

    /// Learns whether a shard of a Cluster is to be asked on.
    fn learn(&self, shard: &Shard, lane: Lane, failed: Option<&Trouble>) {
        let primary = &shard.primary;
        let Some(why) = failed else {
            if shard.succeeded(lane) {
                tracing::info!(%primary, "a shard of the Cluster is asked again");
            }
            return;
        };
        self.metrics.shared_failures.inc();
        self.breaker.note(why);
        if shard.failed(lane, self.clock.now()) {
            tracing::warn!(%primary, "a shard of the Cluster is not asked for a while: {why}");
        }
    }

    /// Joins or starts the fetch of a page.
    fn fetching(self: &Arc<Self>, key: &PageKey, maker: &Maker) -> Fetching {
        let name = self.names.page(key, maker).page;
        let mut all = self.fetching.lock();
        if let Some(fetching) = all.get(&name) {
            return fetching.clone();
        }
        let (tell, fetching) = watch::channel(None);
        all.insert(name.clone(), fetching.clone());
        let (core, key, maker) = (self.clone(), key.clone(), maker.clone());
        self.handle.spawn(async move {
            let got = core.get(&key, &maker).await;
            core.fetching.lock().remove(&name);
            tell.send_replace(Some(got));
        });
        fetching
    }

    /// What Redis has of a page, if it may be shown.
    async fn get(&self, key: &PageKey, maker: &Maker) -> Option<Arc<Entry>> {
        let names = self.names.page(key, maker);
        let call = Call::of(&script::GET, &[&names.page]).number(self.keep_ms());
        let got = self.call("get", Lane::Pages, call, self.config.timeout);
        let (meta, body): (Option<Vec<u8>>, Option<Vec<u8>>) = got.await.ok()?;
        let links = self.breaker.links().ok()?;
        let body = body.map(Bytes::from);
        let mut entry = match record::unpack(&meta?, body.as_ref(), &links) {
            Ok(entry) => entry,
            Err(error) => {
                self.metrics.store_unreadable.inc();
                tracing::warn!(path = %key, "a page in Redis counts as missing: {error}");
                return None;
            }
        };
        let is_it =
            entry.key == *key && entry.route == maker.route && entry.stamp.module == maker.module;
        // What was invalidated after it, this host may have to say yet.
        entry.stamp.sequence = entry.stamp.sequence.min(self.ledger.sequence());
        if !is_it || self.ledger.purged_since(key, entry.stamp.sequence) {
            return None;
        }
        self.metrics.shared_hits.inc();
        Some(Arc::new(entry))
    }

    /// Tells the others, and waits until this host has heard itself.
    async fn publish(self: Arc<Self>) -> Result<(), Trouble> {
        let telling = async {
            let _turn = self.telling.lock().await;
            let links = self.breaker.links()?;
            let mut last = None;
            let mut control = links.control.clone();
            while let Some(told) = self.tell(&mut control).await? {
                let mut applied = self.applied.subscribe();
                let heard = applied.wait_for(|applied| *applied >= told).await;
                heard.map_err(|_| Trouble::Open)?;
                last = Some(told);
            }
            Ok(last)
        };
        let patience = self.config.timeout * 2;
        let told = timeout(patience, telling)
            .await
            .unwrap_or(Err(Trouble::Slow));
        self.count_waiting();
        match told {
            Ok(last) => {
                if last.is_some() {
                    self.breaker.succeeded(Lane::Control);
                }
                Ok(())
            }
            Err(why) => {
                self.breaker.failed(Lane::Control, &why);
                Err(why)
            }
        }
    }

    /// How long Redis keeps a page, in milliseconds.
    fn keep_ms(&self) -> u64 {
        u64::try_from(self.config.keep.as_millis()).unwrap_or(u64::MAX)
    }

    fn count_waiting(&self) {
        let count = |waiting| i64::try_from(waiting).unwrap_or(i64::MAX);
        let untold = self.ledger.untold_count();
        self.metrics.shared_untold.set(count(untold));
        self.metrics.shared_owed.set(count(self.owed.lock().len()));
    }

    /// Tells the others some of what they have not been told; the count that it got.
    async fn tell(&self, link: &mut Link) -> Result<Option<u64>, Trouble> {
        let Some(untold) = self.ledger.untold(TOLD_AT_ONCE) else {
            return Ok(None);
        };
        let operation = "raise";
        let operations = &self.metrics.shared_operations;
        operations.get_or_create(&Operation { operation }).inc();
        let [site, marks, log] = self.names.control();
        let mut call = Call::of(&script::RAISE, &[site, marks, log, &self.names.replaced])
            .text(&self.ledger.history().unwrap_or_default())
            .text(&self.origin)
            .number(untold.latest)
            .number(u64::from(untold.all))
            .number(MAX_MARKS as u64)
            .number(LOG as u64)
            .number(MAX_REPLACED as u64);
        for (mark, number) in &untold.marks {
            call = call.bytes(names::encode(mark, count(*number)));
        }
        let heard = *self.applied.borrow();
        let told: i64 = link.run(&call).await?;
        // A count that this host has seen already is one of a node that has not.
        let told = u64::try_from(told).ok().filter(|told| *told > heard);
        told.map(Some).ok_or(Trouble::History)
    }
}
