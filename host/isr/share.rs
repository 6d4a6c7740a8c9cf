//! What a generation has to do with other hosts that make the same pages.
//!
//! Before it, they are asked whether one of them has made the page or is making it; after it, they
//! are given what came out. All of it happens in the generation's own task: a hit asks nobody.

use std::sync::Arc;

use super::flight::{Landing, Permit};
use super::generation::Before;
use super::{Ask, Inner};
use crate::page::{Entry, Failure};
pub(super) use crate::store::Claim as Claimed;
use crate::store::{Committed, Lease, Maker, Wanted};

/// Who is to see what is made.
pub(super) enum Audience {
    /// Who asked for a draft.
    Editor,
    /// All readers of all hosts; with the lease to make it for them, where they could be asked.
    Everybody(Option<Lease>),
}

impl Ask {
    /// By what its page is made.
    pub(super) fn maker(&self) -> Maker {
        Maker {
            route: self.page.route.clone(),
            module: self.page.renderer.module(),
        }
    }
}

impl Inner {
    /// Asks all hosts who makes the page. From here on nobody joins the flight who needs newer data.
    pub(super) async fn claim_of_all(&self, permit: &Permit, ask: &Ask, before: Before) -> Claimed {
        let store = &self.parts.store;
        if !store.is_shared() {
            return Claimed::Alone;
        }
        permit.close(|| store.sequence());
        let have = match before {
            Before::Unknown => store.find(&ask.key).await,
            Before::Nothing => store.get_hot(&ask.key),
        };
        let maker = ask.maker();
        let have = have.filter(|entry| entry.route == maker.route);
        let have = have.filter(|entry| entry.stamp.module == maker.module);
        let wanted = Wanted {
            key: &ask.key,
            maker: &maker,
            have: have.map(|entry| entry.stamp.clone()),
            least: store.path_mark(&ask.key),
        };
        let is_wanted = |entry: &Entry| self.is_fresh(&ask.page, entry);
        let elsewhere = |sequence| {
            permit.begin(|| sequence);
        };
        store.claim(wanted, is_wanted, elsewhere).await
    }

    /// Shows what another host has made, and keeps it unless its route was forgotten after `began`.
    pub(super) fn land_made(&self, permit: Permit, ask: &Ask, began: u64, entry: Arc<Entry>) {
        permit.land(|| {
            self.backoffs.forget(&ask.key);
            let mut shown = entry.clone();
            let by = (&*ask.page.route, entry.stamp.module);
            self.routes.unless_forgotten(by, began, || {
                shown = self.parts.store.adopt(entry);
            });
            Landing::Stored(shown)
        });
    }

    /// Gives the other hosts what was made; what is shown here: theirs, where this host took so
    /// long that another has made the page since.
    pub(super) async fn shared(
        &self,
        audience: Audience,
        made: Result<Entry, Failure>,
    ) -> Result<Arc<Entry>, Failure> {
        let made = Arc::new(made?);
        let lease = match audience {
            Audience::Editor => return Ok(made),
            Audience::Everybody(lease) => lease,
        };
        let Some(lease) = lease else {
            self.parts.store.owe(&made);
            return Ok(made);
        };
        Ok(match lease.commit(&made).await {
            Committed::Shared | Committed::Alone => made,
            Committed::Fenced(theirs) => theirs,
        })
    }
}
