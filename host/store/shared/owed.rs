//! `Owed`: pages that this host has made while it could not share them.
//!
//! When Redis is back they are offered: those that no other host has made meanwhile become pages of
//! all; in place of the others this host takes what there is.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use super::lease::Answer;
use super::{Core, Trouble};
use crate::page::{Entry, PageKey};
use crate::store::Maker;

/// Pages remembered: others stay this host's own until they are made anew.
const MOST: usize = 10_000;

/// The pages, as long as they are in memory.
#[derive(Default)]
pub(super) struct Owed(HashMap<PageKey, Debt>);

struct Debt {
    entry: Weak<Entry>,
    /// The lease under which it was made, if there was one.
    lease: Option<(String, u64)>,
}

impl Core {
    /// Remembers a page that was not shared.
    pub(super) fn owe(&self, entry: &Arc<Entry>, lease: Option<(String, u64)>) {
        let mut owed = self.owed.lock();
        if owed.0.len() < MOST {
            let entry_there = Arc::downgrade(entry);
            let debt = Debt {
                entry: entry_there,
                lease,
            };
            owed.0.insert(entry.key.clone(), debt);
        }
    }

    /// Offers all pages that were not shared, one after the other: readers come first.
    pub(super) async fn settle(self: Arc<Self>) {
        let owed = std::mem::take(&mut *self.owed.lock());
        for debt in owed.0.into_values() {
            let Some(entry) = debt.entry.upgrade() else {
                continue;
            };
            if self.offer(&entry, debt.lease.clone()).await.is_err() {
                self.owe(&entry, debt.lease);
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
            self.metrics.shared.fenced.inc();
            self.take(entry, &maker).await
        }
    }

    /// Takes what other hosts have in place of `entry`, if this host still shows that.
    async fn take(&self, entry: &Arc<Entry>, maker: &Maker) -> Result<(), Trouble> {
        let theirs = self.get(&entry.key, maker).await;
        if let (Some(theirs), Some(tiers)) = (theirs, self.tiers.upgrade()) {
            tiers.exchange(entry, theirs);
        }
        Ok(())
    }
}
