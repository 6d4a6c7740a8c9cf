//! `Owed`: pages that this host has made while it could not share them.
//!
//! When Redis is back they are offered: those that no other host has made meanwhile become pages of
//! all; in place of the others this host takes what there is.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use super::lease::Answer;
use super::{Core, Trouble};
use crate::page::{Entry, PageKey};
use crate::store::{Maker, Tiers};

/// Pages remembered: others stay this host's own until they are made anew.
const MOST: usize = 10_000;

/// Times that a page is offered: at first it may not be shown yet, later another may be.
const ATTEMPTS: u8 = 10;

/// The pages, as long as they are in memory.
#[derive(Default)]
pub(super) struct Owed(HashMap<PageKey, Debt>);

struct Debt {
    entry: Weak<Entry>,
    /// The lease under which it was made, if there was one.
    lease: Option<(String, u64)>,
    attempts: u8,
}

impl Owed {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

impl Core {
    /// Remembers a page that was not shared.
    pub(super) fn owe(&self, entry: &Arc<Entry>, lease: Option<(String, u64)>) {
        let mut owed = self.owed.lock();
        if owed.0.len() < MOST {
            let debt = Debt {
                entry: Arc::downgrade(entry),
                lease,
                attempts: 0,
            };
            owed.0.insert(entry.key.clone(), debt);
        }
    }

    /// Whether there are pages to offer.
    pub(super) fn owes(&self) -> bool {
        self.owed.lock().len() > 0
    }

    /// Offers all pages that were not shared, one after the other: readers come first.
    pub(super) async fn settle(self: Arc<Self>) {
        let Ok(_alone) = self.settling.try_lock() else {
            return;
        };
        let owed = std::mem::take(&mut *self.owed.lock());
        for mut debt in owed.0.into_values() {
            let Some(entry) = debt.entry.upgrade() else {
                continue;
            };
            let is_shown = |tiers: Arc<Tiers>| tiers.shows(&entry);
            let offered = match self.tiers.upgrade().is_some_and(is_shown) {
                true => Some(self.offer(&entry, debt.lease.clone()).await),
                false => None,
            };
            match offered {
                Some(Ok(())) => continue,
                // Nobody was asked, which says nothing of the page.
                Some(Err(Trouble::Open)) => {}
                Some(Err(_)) | None => debt.attempts += 1,
            }
            if debt.attempts < ATTEMPTS {
                let mut owed = self.owed.lock();
                // One that was made since counts more.
                owed.0.entry(entry.key.clone()).or_insert(debt);
            }
        }
    }

    async fn offer(
        self: &Arc<Self>,
        entry: &Arc<Entry>,
        lease: Option<(String, u64)>,
    ) -> Result<(), Trouble> {
        let maker = Maker {
            route: entry.route.clone(),
            module: entry.stamp.module,
        };
        let names = self.names.page(&entry.key, &maker);
        let (owner, token) = match lease {
            Some(lease) => lease,
            None => {
                let owner = self.owner();
                let have = Some(entry.stamp.clone());
                match self.acquire(&names, &owner, have.as_ref(), 0).await? {
                    Answer::Lead { token } => (owner, token),
                    Answer::Busy { .. } => return Ok(()),
                    Answer::Made => return self.take(entry, &maker).await,
                }
            }
        };
        if self.commit(&names, &owner, token, entry).await? {
            Ok(())
        } else {
            self.metrics.shared_fenced.inc();
            self.take(entry, &maker).await
        }
    }

    /// Takes what other hosts have in place of `entry`, if this host still shows that. What was said
    /// to be stale since stays theirs: here somebody may have been told that there is a newer one.
    async fn take(&self, entry: &Arc<Entry>, maker: &Maker) -> Result<(), Trouble> {
        let theirs = self.get(&entry.key, maker).await;
        let is_valid = |theirs: &Arc<Entry>| self.ledger.why(&theirs.key, &theirs.stamp).is_none();
        let theirs = theirs.filter(is_valid);
        if let (Some(theirs), Some(tiers)) = (theirs, self.tiers.upgrade()) {
            tiers.exchange(entry, theirs);
        }
        Ok(())
    }
}
