//! `Prerender`: makes the pages that a site lists while nobody serves it.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};

use super::pass::Pass;
use super::workshop::Workshop;
use crate::config::Config;
use crate::isr::{Count, Retry};
use crate::page::{Failure, PageKey};
use crate::release::{Refusal, Routed};
use crate::store::OpenError;
use crate::telemetry::Subject;
use crate::telemetry::metrics::Metrics;

/// How long files that are still being written are waited for.
const WRITING: Duration = Duration::from_secs(10);

/// A site whose pages are about to be made, and nobody else's while this lives.
pub struct Prerender {
    workshop: Workshop,
    pass: Arc<Pass>,
}

/// How the making of a site's pages ended.
pub struct Report {
    /// How many pages.
    pub count: Count,
    /// The first pages that could not be made, and why: 1,000 at most.
    pub failures: Vec<(PageKey, Arc<Failure>)>,
    /// Routes whose pages are not known, and why.
    pub unlisted: Vec<(Arc<str>, String)>,
    /// Modules that cannot be served.
    pub refused: Vec<Refusal>,
    /// How long it took; none if it was stopped before its end.
    pub took: Option<Duration>,
}

impl Prerender {
    /// Opens the store of a site and loads its modules.
    ///
    /// # Errors
    /// When the site keeps no pages on disk, a server has it, or its store or its folder of
    /// modules cannot be read.
    pub async fn open(mut config: Config) -> anyhow::Result<Self> {
        // No reader waits, and code made in haste would be gone at the end.
        config.engine.quick = u64::MAX;
        ensure!(
            config.store.folder.is_some(),
            "store.durable = false in wisr.toml: what is made now would be gone when a server \
             starts, so there is nothing to make"
        );
        let workshop = Workshop::open(config, Vec::new(), Arc::new(Metrics::new())).await;
        let workshop = workshop.map_err(|error| match error.downcast_ref() {
            Some(OpenError::InUse { .. }) => error.context(
                "a server on this site makes its pages by itself, and makes the ones that a new \
                 module lists as soon as it sees it",
            ),
            _ => error,
        })?;
        workshop.isr.recall().await;
        let loaded = tokio::time::timeout(WRITING, load(&workshop)).await;
        loaded
            .context("files in `pages/` are still being written: begin again when they are")??;
        let pass = Arc::new(Pass::over(workshop.releases.current()));
        Ok(Self { workshop, pass })
    }

    /// How far it has come.
    pub fn pass(&self) -> Arc<Pass> {
        self.pass.clone()
    }

    /// Makes what is missing or stale, until `stop`: what was made by then stays.
    ///
    /// # Errors
    /// When pages were made but could not be kept.
    pub async fn run(self, stop: impl Future<Output = ()>) -> anyhow::Result<Report> {
        let Self { workshop, pass } = self;
        let late = tokio::select! {
            late = pass.make(&workshop.isr, Retry::AtOnce) => Some(late),
            () = stop => None,
        };
        let took = match late {
            None => None,
            Some(_) => Some(pass.ended().await),
        };
        let late = late.unwrap_or_default();
        let unlisted = late
            .into_iter()
            .map(|routed| why_unlisted(&workshop, routed));
        let report = Report {
            unlisted: unlisted.collect(),
            refused: workshop.releases.current().refused.clone(),
            count: pass.count(),
            failures: pass.failures(),
            took,
        };
        let metrics = workshop.metrics.clone();
        let closed = workshop.close().await;
        closed.context("the latest pages are not on disk")?;
        let dropped = metrics.store_dropped.get();
        ensure!(
            dropped == 0,
            "the disk was too slow to keep all that was made: begin again, and what is missing \
             ({dropped}) is made"
        );
        Ok(report)
    }
}

/// Loads the modules, once all of them are written.
async fn load(workshop: &Workshop) -> anyhow::Result<()> {
    loop {
        let scan = workshop.releases.scan().await;
        match scan.problem {
            Some(problem) => bail!(problem),
            None if scan.waiting == 0 => return Ok(()),
            None => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

fn why_unlisted(workshop: &Workshop, routed: &Routed) -> (Arc<str>, String) {
    let incidents = workshop.incidents.latest(usize::MAX);
    let why = incidents
        .iter()
        .find_map(|incident| match &incident.subject {
            Subject::Listing { route } if *route == routed.page.route => Some(&incident.message),
            _ => None,
        });
    (routed.page.route.clone(), why.cloned().unwrap_or_default())
}
