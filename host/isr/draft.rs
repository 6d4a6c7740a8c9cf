//! Drafts: pages made for one editor, shown to nobody else and kept nowhere.

use std::sync::Arc;

use tokio::time::Instant;

use super::generation::Turn;
use super::queue::{Priority, Ticket};
use super::share::Audience;
use super::{Ask, Inner, Refused};
use crate::page::{Cause, Entry, Failure, FailureKind};
use crate::telemetry::trace::Caller;

impl Inner {
    /// Makes a page from what is there now, whatever the cache has and without telling it: no
    /// flight is shared, nothing is stored, no back-off is held or begun.
    pub(super) async fn draft(self: &Arc<Self>, ask: Ask) -> Result<Arc<Entry>, Refused> {
        let ticket = Arc::new(Ticket::new(Priority::Draft));
        let begin = self.queue.enter(&ticket, &ask.page.route);
        let (queued, caller) = (Instant::now(), Caller::here());
        let begun = tokio::time::timeout(self.config.wait, begin).await;
        let Ok(Ok(slot)) = begun else {
            return Err(self.overloaded());
        };
        let turn = Turn {
            slot,
            queued,
            caller,
            audience: Audience::Editor,
        };
        // An editor who reloads leaves a draft that goes on, in its place.
        let drawing = self.parts.runtime.spawn(self.clone().sketch(ask, turn));
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
