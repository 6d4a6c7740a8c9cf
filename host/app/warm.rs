//! `Warmer`: after each new release, makes the pages that it lists.

use std::sync::Arc;

use tokio::sync::watch;

use super::pass::Pass;
use crate::isr::{Isr, Retry};
use crate::release::{Release, Releases};
use crate::telemetry::metrics::Metrics;

/// Keeps the pages of the current release made.
pub(super) struct Warmer {
    pub(super) releases: Arc<Releases>,
    pub(super) isr: Isr,
    pub(super) metrics: Arc<Metrics>,
    /// Becomes true once the first release's pages were made, as far as modules could list them.
    pub(super) ready: watch::Sender<bool>,
    /// What is being made, or was made last.
    pub(super) passes: watch::Sender<Option<Arc<Pass>>>,
}

impl Warmer {
    /// Runs until dropped.
    pub(super) async fn keep_warm(&self) {
        // Readers do not wait for it, but what is made ahead would otherwise be asked for early.
        self.isr.recall().await;
        let mut changes = self.releases.subscribe();
        loop {
            changes.borrow_and_update();
            self.metrics.releases.inc();
            let release = self.releases.current();
            tell(&self.metrics, &release);
            let pass = Arc::new(Pass::over(release));
            self.passes.send_replace(Some(pass.clone()));
            // A newer release overtakes the pass: what it still had to make may be gone by now.
            tokio::select! {
                () = self.make(&pass) => {}
                changed = changes.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Makes what the release lists; never ends.
    async fn make(&self, pass: &Pass) {
        let late = pass.make(&self.isr, Retry::WhenDue).await;
        self.ready.send_replace(true);
        pass.make_late(late, &self.isr).await;
        std::future::pending().await
    }
}

fn tell(metrics: &Metrics, release: &Release) {
    let count = release.table.iter().count() + release.apis.iter().count();
    metrics.routes.set(i64::try_from(count).unwrap_or(i64::MAX));
    metrics
        .release
        .set(i64::try_from(release.id).unwrap_or(i64::MAX));
}
