//! What `Tiers` do where several hosts share pages.

use std::sync::Arc;
use std::time::Duration;

use super::super::durable::Durable;
use super::super::marks::count;
use super::super::shared::{
    Claim, Config, ConfigError, Shared, SharedHealth, Sharing, Trouble, Wanted,
};
use super::super::{Maker, Store};
use super::Tiers;
use crate::page::{Entry, PageKey, Stamp};
use crate::telemetry::Clock;
use crate::telemetry::metrics::Metrics;

impl Tiers {
    /// Shares pages and invalidations with other hosts from here on. Reads the disk.
    ///
    /// # Errors
    /// When the settings are wrong. That Redis cannot be reached is none: it is looked for again.
    pub fn share(
        self: &Arc<Self>,
        config: Config,
        clock: Clock,
        metrics: Arc<Metrics>,
    ) -> Result<(), ConfigError> {
        let ledger = self.ledger.clone();
        let shared = Shared::start(config, ledger, clock, metrics, Arc::downgrade(self))?;
        // Called once: a second tier ends here.
        let _ = self.shared.set(shared);
        Ok(())
    }

    /// Whether pages are shared at all.
    pub fn is_shared(&self) -> bool {
        self.shared.get().is_some()
    }

    /// What another host has made of a page that this one has nothing of.
    pub async fn fetch(&self, key: &PageKey, maker: &Maker) -> Option<Arc<Entry>> {
        let fetched = self.look(key, maker).await?;
        Some(self.adopt(fetched))
    }

    /// The same, without keeping it.
    pub async fn look(&self, key: &PageKey, maker: &Maker) -> Option<Arc<Entry>> {
        self.shared.get()?.fetch(key, maker).await
    }

    /// Who makes a page; `is_wanted` judges what another host has made of it, and `elsewhere` hears
    /// from which invalidation on another host is making it. Waits while another host does.
    pub async fn claim(
        &self,
        wanted: Wanted<'_>,
        is_wanted: impl Fn(&Entry) -> bool,
        elsewhere: impl Fn(u64),
    ) -> Claim {
        match self.shared.get() {
            Some(shared) => shared.claim(wanted, is_wanted, elsewhere).await,
            None => Claim::Alone,
        }
    }

    /// Keeps what another host has made, unless there is something newer; what there is then.
    pub fn adopt(&self, entry: Arc<Entry>) -> Arc<Entry> {
        let mut readings = self.reading.lock();
        if let Some(have) = self.memory.get(&entry.key)
            && have.route == entry.route
            && is_newer(&have.stamp, &entry.stamp)
        {
            return have;
        }
        self.keep_in(&mut readings, entry.clone(), Durable::replace);
        entry
    }

    /// Whether this very entry is what there is of its page.
    pub(in crate::store) fn shows(&self, entry: &Arc<Entry>) -> bool {
        let have = self.memory.get(&entry.key);
        have.is_some_and(|have| Arc::ptr_eq(&have, entry))
    }

    /// Keeps `theirs` in place of `ours`, if that is what there is.
    pub(in crate::store) fn exchange(&self, ours: &Arc<Entry>, theirs: Arc<Entry>) {
        let mut readings = self.reading.lock();
        if self.shows(ours) {
            self.keep_in(&mut readings, theirs, Durable::replace);
        }
    }

    /// Remembers a page that was made while nobody could be asked: it is offered to the others
    /// later.
    pub fn owe(&self, entry: &Arc<Entry>) {
        if let Some(shared) = self.shared.get() {
            shared.owe(entry);
        }
    }

    /// Tells the other hosts what was invalidated; true when they know, or there are none.
    ///
    /// # Errors
    /// When they cannot be told now: they are as soon as Redis is back, also after a restart.
    pub async fn publish(&self) -> Result<(), Trouble> {
        match self.shared.get() {
            Some(shared) => shared.publish().await,
            None => Ok(()),
        }
    }

    /// Tells the other hosts as [`Tiers::publish`] does, and waits until those that are in touch have
    /// taken it in.
    ///
    /// # Errors
    /// When they cannot be told now, or one of them does not follow.
    pub async fn told(&self) -> Result<(), Trouble> {
        self.publish().await?;
        match self.shared.get() {
            Some(shared) => shared.followed().await,
            None => Ok(()),
        }
    }

    /// Waits until it is known whether Redis can be asked, and what it had to tell is known.
    pub async fn joined(&self) {
        if let Some(shared) = self.shared.get() {
            shared.joined().await;
        }
    }

    /// How long a reader waits for what the other hosts have, while they can be asked.
    pub fn patience(&self) -> Option<Duration> {
        self.shared.get()?.patience()
    }

    /// Remembers that a page was made anew after the invalidation `number`, for whoever is to be told
    /// so: no host shows what is older while it can have anything else.
    pub fn mark_replaced(&self, key: &PageKey, number: u64) {
        self.ledger.replace(key, number);
    }

    /// Forgets what Redis has of a page that was purged.
    pub fn discard(&self, key: &PageKey, maker: &Maker) {
        if let Some(shared) = self.shared.get() {
            shared.discard(key, maker);
        }
    }

    /// How many invalidations the other hosts are to be told.
    pub fn untold(&self) -> usize {
        self.shared.get().map_or(0, Shared::untold)
    }

    /// Tells the other hosts that this one goes.
    pub async fn leave(&self) {
        if let Some(shared) = self.shared.get() {
            shared.leave().await;
        }
    }

    /// How sharing goes, if there is any.
    pub fn sharing(&self) -> Option<Sharing> {
        self.shared.get().map(Shared::sharing)
    }

    /// Whether pages and invalidations are shared.
    pub fn shared_health(&self) -> SharedHealth {
        let shared = self.shared.get();
        shared.map_or(SharedHealth::Off, Shared::health)
    }
}

/// Whether one entry of a page was made from newer data than another of the same module.
fn is_newer(one: &Stamp, other: &Stamp) -> bool {
    let order = |stamp: &Stamp| (count(stamp.sequence), stamp.generated);
    one.module == other.module && order(one) > order(other)
}
