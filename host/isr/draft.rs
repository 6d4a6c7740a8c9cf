//! Drafts: pages made for one editor, shown to nobody else and kept nowhere.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::generation::Turn;
use super::queue::{Priority, Ticket};
use super::share::Audience;
use super::{Ask, Inner, Refused};
use crate::page::{Cause, Entry, Failure, FailureKind};
use crate::telemetry::trace::Caller;

/// Drafts that wait for their turn: an editor's office, but not a script that keeps reloading.
const WAITING: usize = 32;

/// How many drafts are made, and wait to be made, at once.
pub(super) struct Drafts {
    places: Arc<Semaphore>,
    line: Arc<Semaphore>,
}

impl Drafts {
    /// A quarter of the places: editors who reload and reload leave readers the others.
    pub(super) fn new(concurrency: usize) -> Self {
        let places = (concurrency / 4).max(1);
        Self {
            places: Arc::new(Semaphore::new(places)),
            line: Arc::new(Semaphore::new(places + WAITING)),
        }
    }
}

impl Inner {
    /// Makes a page from what is there now, whatever the cache has and without telling it: no
    /// flight is shared, nothing is stored, no back-off is held or begun.
    pub(super) async fn draft(self: &Arc<Self>, ask: Ask) -> Result<Arc<Entry>, Refused> {
        let Drafts { places, line } = &self.drafts;
        let waiting = line.clone().try_acquire_owned();
        let waiting = waiting.map_err(|_| self.overloaded())?;
        let begin = async {
            // Never closed.
            let place = places.clone().acquire_owned().await;
            let ticket = Arc::new(Ticket::new(Priority::OnDemand));
            let of_route = ask.page.policy.concurrency;
            let slot = self.queue.enter(&ticket, &ask.page.route, of_route).await;
            slot.map(|slot| (place, slot))
        };
        let (queued, caller) = (Instant::now(), Caller::here());
        let begun = tokio::time::timeout(self.config.wait, begin).await;
        let Ok(Ok((place, slot))) = begun else {
            return Err(self.overloaded());
        };
        let turn = Turn {
            slot,
            queued,
            caller,
            audience: Audience::Editor,
        };
        // An editor who reloads leaves a draft that goes on, in its place.
        let (sketch, held) = (self.clone().sketch(ask, turn), (waiting, place));
        let drawing = self.parts.runtime.spawn(async move {
            let _held = held;
            sketch.await
        });
        let made = drawing.await.unwrap_or_else(|lost| {
            let message = format!("wisr lost it (please report it): {lost}");
            let failure = Failure::new(FailureKind::Host, "generation", message);
            Err(Arc::new(failure))
        });
        made.map_err(Refused::Failed)
    }

    async fn sketch(self: Arc<Self>, ask: Ask, turn: Turn) -> Result<Arc<Entry>, Arc<Failure>> {
        let sequence = self.parts.store.sequence();
        let made = self.generate(&ask, Cause::Draft, sequence, None, turn);
        let (made, ending) = made.await;
        self.parts.metrics.generations.get_or_create(&ending).inc();
        made
    }
}
