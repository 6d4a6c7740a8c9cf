//! What a reader gets: an entry in whichever state it is, the shell, or the first page.

use std::sync::Arc;

use super::generation::Before;
use super::queue::{Priority, Slot};
use super::{Ask, Inner, Patience, Refused, Renewal, Served, make};
use crate::page::{Cause, Document, Entry, Failure, FailureKind, Freshness, Why};

impl Inner {
    pub(super) async fn serve(
        self: &Arc<Self>,
        ask: Ask,
        patience: Patience,
    ) -> Result<Served, Refused> {
        let Some(entry) = self.find(&ask).await else {
            self.pay(&ask)?;
            return match patience {
                Patience::Wait => self.first(ask).await,
                Patience::Shell => self.shell(ask).await,
            };
        };
        let entry = self.instead(&ask, entry).await;
        match self.judge(&ask.page, &entry, self.parts.clock.now()) {
            Freshness::Fresh(ttl) => Ok(Served::Hit { entry, ttl }),
            Freshness::Stale(why) => Ok(self.stale(ask, entry, why).await),
            Freshness::Expired(why) => Ok(self.expired(ask, entry, why).await),
        }
    }

    /// Whoever has a page made that nobody has asked for before pays for it; who waits with others
    /// does not.
    fn pay(&self, ask: &Ask) -> Result<(), Refused> {
        match &ask.toll {
            Some(toll) if !self.flights.is_under_way(&ask.key) => {
                let paid = toll.pay();
                paid.map_err(|retry_after| Refused::Throttled { retry_after })
            }
            _ => Ok(()),
        }
    }

    /// What is there in place of an entry that was replaced on another host: what that has made, if it
    /// can be had and nobody has said since that it is stale, who may have been answered here while
    /// the others could not be told.
    async fn instead(&self, ask: &Ask, entry: Arc<Entry>) -> Arc<Entry> {
        let judged = |entry: &Entry| self.judge(&ask.page, entry, self.now());
        if judged(&entry) != Freshness::Expired(Why::Replaced) {
            return entry;
        }
        let theirs = self.parts.store.look(&ask.key, &ask.maker()).await;
        match theirs.filter(|theirs| !self.is_withdrawn(ask, theirs)) {
            Some(theirs) => match judged(&theirs) {
                Freshness::Stale(Why::Path) | Freshness::Expired(_) => entry,
                Freshness::Fresh(_) | Freshness::Stale(_) => self.parts.store.adopt(theirs),
            },
            None => entry,
        }
    }

    /// What is shown when nothing newer could be made: of a page that was replaced on another host what
    /// that has made, whatever was said of it since.
    async fn last_good(&self, ask: &Ask, entry: Arc<Entry>, why: &Why) -> Arc<Entry> {
        if *why != Why::Replaced {
            return entry;
        }
        let theirs = self.parts.store.look(&ask.key, &ask.maker()).await;
        let is_newer = |theirs: &Arc<Entry>| {
            let judged = self.judge(&ask.page, theirs, self.now());
            judged != Freshness::Expired(Why::Replaced) && !self.is_withdrawn(ask, theirs)
        };
        let theirs = theirs.filter(is_newer);
        theirs.map_or(entry, |theirs| self.parts.store.adopt(theirs))
    }

    /// There is no entry: the reader waits for one.
    async fn first(self: &Arc<Self>, ask: Ask) -> Result<Served, Refused> {
        let least = self.parts.store.path_mark(&ask.key);
        let whom = (Priority::Reader, Cause::FirstRequest);
        let made = self.make(Before::Nothing, &ask, least, whom, self.config.wait);
        let (entry, led) = made.await?;
        Ok(self.rendered(ask, entry, None, !led).await)
    }

    /// There is no entry: the reader gets the shell, and a reload finds the page.
    async fn shell(self: &Arc<Self>, ask: Ask) -> Result<Served, Refused> {
        let module = ask.page.renderer.module();
        if let Some(failure) = self
            .backoffs
            .holds(&ask.key, module, self.parts.clock.now())
        {
            // Another shell would only have the reader reload for ever.
            return Err(Refused::Failed(failure));
        }
        let least = self.parts.store.path_mark(&ask.key);
        self.launch(ask.clone(), least, Priority::OnDemand, Cause::FirstRequest);
        let slot = self.place_for_shell(&ask).await?;
        match self.draw(ask.clone(), slot).await {
            Ok(shell) => Ok(Served::Shell(Arc::new(shell))),
            Err(failure) => {
                self.report(&ask, Cause::FirstRequest, &Arc::new(failure));
                self.first(ask).await
            }
        }
    }

    /// Draws a shell where pages are made: on the threads that serve, a slow one would slow hits
    /// down. A bug of wisr costs this shell.
    async fn draw(&self, ask: Ask, slot: Slot) -> Result<Document, Failure> {
        let drawing = self.parts.runtime.spawn(async move {
            let _slot = slot;
            let context = make::context(&ask, Cause::FirstRequest);
            ask.page.renderer.shell(&context).await
        });
        drawing.await.unwrap_or_else(|lost| {
            let message = format!("wisr lost it (please report it): {lost}");
            Err(Failure::new(FailureKind::Host, "shell", message))
        })
    }

    /// A place to draw a shell, for which a reader waits no longer than for that of a page.
    async fn place_for_shell(&self, ask: &Ask) -> Result<Slot, Refused> {
        let entered = self.queue.turn(&ask.page.route);
        match tokio::time::timeout(self.config.wait, entered).await {
            Ok(Ok(slot)) => Ok(slot),
            Ok(Err(_)) | Err(_) => Err(self.overloaded()),
        }
    }

    /// The entry is shown at once; it is made anew unless it failed a moment ago. Where another host
    /// has made it already, that is shown: no reader gets an older page on one host than on another
    /// that was asked before.
    async fn stale(self: &Arc<Self>, ask: Ask, entry: Arc<Entry>, why: Why) -> Served {
        let (module, now) = (ask.page.renderer.module(), self.parts.clock.now());
        let renewal = if self.backoffs.holds(&ask.key, module, now).is_some() {
            Renewal::BackOff
        } else {
            let store = &self.parts.store;
            let least = store.path_mark(&ask.key);
            let page = ask.page.clone();
            let (mut wait, led) = self.launch(ask, least, Priority::Background, Cause::Stale);
            if let Some(patience) = store.patience()
                && let Ok(Some(theirs)) = tokio::time::timeout(patience, wait.asked()).await
                && let Freshness::Fresh(ttl) = self.judge(&page, &theirs, self.now())
            {
                return Served::Hit { entry: theirs, ttl };
            }
            match led {
                true => Renewal::Started,
                false => Renewal::Collapsed,
            }
        };
        Served::Stale {
            entry,
            why,
            renewal,
        }
    }

    /// The entry is too old to show, unless the attempt to make it anew fails.
    async fn expired(self: &Arc<Self>, ask: Ask, entry: Arc<Entry>, why: Why) -> Served {
        let (module, now) = (ask.page.renderer.module(), self.parts.clock.now());
        if self.backoffs.holds(&ask.key, module, now).is_some() {
            let entry = self.last_good(&ask, entry, &why).await;
            return Served::Stale {
                entry,
                why,
                renewal: Renewal::BackOff,
            };
        }
        let least = self.parts.store.path_mark(&ask.key);
        let whom = (Priority::Reader, Cause::Stale);
        let made = self.make(Before::Unknown, &ask, least, whom, self.config.wait);
        let failed = match made.await {
            Ok((made, led)) => return self.rendered(ask, made, Some(why), !led).await,
            Err(failed) => failed,
        };
        let entry = self.last_good(&ask, entry, &why).await;
        match failed {
            Refused::Failed(failure) => Served::LastGood { entry, failure },
            _ => Served::Stale {
                entry,
                why,
                renewal: Renewal::Collapsed,
            },
        }
    }

    /// What was waited for, unless it was invalidated or overtaken by another module meanwhile.
    async fn rendered(
        self: &Arc<Self>,
        ask: Ask,
        entry: Arc<Entry>,
        why: Option<Why>,
        collapsed: bool,
    ) -> Served {
        match self.judge(&ask.page, &entry, self.parts.clock.now()) {
            Freshness::Fresh(_) => Served::Rendered {
                entry,
                why,
                collapsed,
            },
            Freshness::Stale(why) | Freshness::Expired(why) => self.stale(ask, entry, why).await,
        }
    }
}
