//! `Lease`: the right to make a page on behalf of all hosts, for a while.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::link::Call;
use super::names::PageNames;
use super::record::Packed;
use super::{Core, Lane, Trouble, script};
use crate::page::{Entry, PageKey, Stamp};
use crate::store::Maker;
use crate::store::marks::{count, is_own, numbered};

/// The first look whether another host is done, and the longest pause between two: a render takes
/// from a millisecond to seconds.
const SOON: Duration = Duration::from_millis(5);
const LATE: Duration = Duration::from_millis(100);

/// How long another host's generation is waited for at all: longer than one may take with its
/// turn. Whoever has waited in vain makes the page for itself.
const PATIENCE: Duration = Duration::from_secs(30);

/// Bytes per millisecond that a connection takes at least: large pages may take longer.
const PACE: u64 = 16 << 10;

/// Looks at pages that others made and that do not do.
const LOOKS: usize = 3;

/// More than any page was made after: what is there will not do.
const UNREADABLE: u64 = 1 << 63;

/// A page that is to be made, by whoever comes first.
pub struct Wanted<'a> {
    /// The page.
    pub key: &'a PageKey,
    /// By what it is made.
    pub maker: &'a Maker,
    /// What this host has of it.
    pub have: Option<Stamp>,
    /// The invalidation after which its data must be read.
    pub least: u64,
}

/// Who makes a page.
pub enum Claim {
    /// This host, on behalf of all.
    Lead(Lease),
    /// Another host has made it.
    Made(Arc<Entry>),
    /// This host for itself: nobody can be asked.
    Alone,
}

/// Leave to make a page. Dropped, it is given back.
pub struct Lease {
    core: Arc<Core>,
    names: PageNames,
    maker: Maker,
    owner: String,
    token: u64,
    renewal: JoinHandle<()>,
    is_over: bool,
}

/// What became of a page that was made under a lease.
#[derive(Debug)]
pub enum Committed {
    /// All hosts have it.
    Shared,
    /// Another host has made it since: this one took too long.
    Fenced(Arc<Entry>),
    /// Nobody could be told, or asked what there is instead: this is made up for later.
    Alone,
}

/// What Redis says to who asks to make a page.
pub(super) enum Answer {
    /// There is a newer one.
    Made,
    /// Another host makes it.
    Busy { left: Duration, began: u64 },
    /// Make it.
    Lead { token: u64 },
}

impl Core {
    /// Who makes the page. `is_wanted` tells of one that another host has made whether it will do;
    /// `elsewhere` hears from which invalidation on another host is making it.
    pub(super) async fn claim(
        self: &Arc<Self>,
        wanted: Wanted<'_>,
        is_wanted: impl Fn(&Entry) -> bool,
        elsewhere: impl Fn(u64),
    ) -> Claim {
        let names = self.names.page(wanted.key, wanted.maker);
        let owner = self.owner();
        let (mut have, mut least) = (wanted.have, wanted.least);
        let (mut pause, started) = (SOON, Instant::now());
        let mut looks = 0;
        while started.elapsed() < PATIENCE {
            match self.acquire(&names, &owner, have.as_ref(), least).await {
                Err(_) => return Claim::Alone,
                Ok(Answer::Lead { token }) => {
                    let maker = wanted.maker.clone();
                    return Claim::Lead(self.lease(names, maker, owner, token));
                }
                Ok(Answer::Made) if looks >= LOOKS => return Claim::Alone,
                Ok(Answer::Made) => {
                    looks += 1;
                    match self.get(wanted.key, wanted.maker).await {
                        Some(entry) if is_wanted(&entry) => return Claim::Made(entry),
                        Some(entry) => have = Some(entry.stamp.clone()),
                        None => least = UNREADABLE,
                    }
                }
                Ok(Answer::Busy { left, began }) => {
                    elsewhere(numbered(began));
                    let jitter = 0.5 + fastrand::f64();
                    tokio::time::sleep(pause.mul_f64(jitter).min(left + SOON)).await;
                    pause = (pause * 2).min(LATE);
                }
            }
        }
        Claim::Alone
    }

    /// A name for who asks to make one page, once.
    pub(super) fn owner(&self) -> String {
        format!("{}:{:x}", self.origin, fastrand::u64(..))
    }

    pub(super) async fn acquire(
        self: &Arc<Self>,
        names: &PageNames,
        owner: &str,
        have: Option<&Stamp>,
        least: u64,
    ) -> Result<Answer, Trouble> {
        let links = self.breaker.links()?;
        let made = have.map_or(0, |stamp| links.there(stamp.generated).as_millis());
        // What only this host knows, no other host's page can have been made after.
        let least = count(least) + u64::from(is_own(least));
        let call = Call::of(&script::ACQUIRE, &[&names.page, &names.lease])
            .text(owner)
            .number(self.lease_ms())
            .number(have.map_or(0, |stamp| count(stamp.sequence)))
            .number(made)
            .number(least)
            .number(count(self.ledger.sequence()));
        let (word, number, began): (String, u64, u64) = self
            .call("acquire", Lane::Control, call, self.config.timeout)
            .await?;
        Ok(match &*word {
            "made" => Answer::Made,
            "busy" => Answer::Busy {
                left: Duration::from_millis(number),
                began,
            },
            _ => Answer::Lead { token: number },
        })
    }

    fn lease(self: &Arc<Self>, names: PageNames, maker: Maker, owner: String, token: u64) -> Lease {
        let renewal = self.handle.spawn({
            let (core, names, owner) = (self.clone(), names.clone(), owner.clone());
            async move {
                loop {
                    tokio::time::sleep(core.config.lease / 3).await;
                    let call = Call::of(&script::RENEW, &[&names.lease])
                        .text(&owner)
                        .number(core.lease_ms());
                    let renewed = core.call("renew", Lane::Control, call, core.config.timeout);
                    if let Ok(0u8) = renewed.await {
                        return;
                    }
                }
            }
        });
        self.metrics.shared_leases.inc();
        Lease {
            core: self.clone(),
            names,
            maker,
            owner,
            token,
            renewal,
            is_over: false,
        }
    }

    /// Gives Redis a page; false when another host has made it since.
    pub(super) async fn commit(
        &self,
        names: &PageNames,
        owner: &str,
        token: u64,
        entry: &Entry,
    ) -> Result<bool, Trouble> {
        let links = self.breaker.links()?;
        let packed = Packed::new(entry, &links);
        let size = packed.meta.len() + packed.body.as_ref().map_or(0, Vec::len);
        let patience = Duration::from_millis(size as u64 / PACE) + self.config.timeout;
        let until = packed.until.map(|until| until.as_millis().to_string());
        let call = Call::of(&script::COMMIT, &[&names.page, &names.lease])
            .text(owner)
            .number(token)
            .number(self.keep_ms())
            .number(packed.count)
            .number(packed.made.as_millis())
            .text(&until.unwrap_or_default())
            .bytes(packed.meta)
            .bytes(packed.body.unwrap_or_default());
        let stored: u8 = self.call("commit", Lane::Pages, call, patience).await?;
        Ok(stored == 1)
    }

    fn lease_ms(&self) -> u64 {
        u64::try_from(self.config.lease.as_millis()).unwrap_or(u64::MAX)
    }
}

impl Lease {
    /// Shares what was made.
    pub async fn commit(mut self, entry: &Arc<Entry>) -> Committed {
        let core = self.core.clone();
        let committed = core.commit(&self.names, &self.owner, self.token, entry);
        match committed.await {
            Ok(true) => {
                self.is_over = true;
                return Committed::Shared;
            }
            Ok(false) => {
                core.metrics.shared_fenced.inc();
                if let Some(theirs) = core.get(&entry.key, &self.maker).await {
                    return Committed::Fenced(theirs);
                }
            }
            Err(_) => {}
        }
        core.owe(entry, Some((self.owner.clone(), self.token)));
        Committed::Alone
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.renewal.abort();
        self.core.metrics.shared_leases.dec();
        if !self.is_over {
            let core = self.core.clone();
            let call = Call::of(&script::RELEASE, &[&self.names.lease]).text(&self.owner);
            self.core.handle.spawn(async move {
                let released = core.call("release", Lane::Control, call, core.config.timeout);
                // Otherwise it ends with its time.
                let _: Result<u8, Trouble> = released.await;
            });
        }
    }
}
