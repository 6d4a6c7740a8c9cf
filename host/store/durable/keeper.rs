//! `Keeper`: the database as the thread that writes sees it; and what is told of its start.

use std::sync::Arc;

use super::behind::Sink;
use super::database::{Database, Found};
use super::health::DiskError;
use super::queue::Round;
use super::quota::Quota;
use super::troubles::Troubles;
use crate::telemetry::metrics::Metrics;

/// The database as the thread that writes sees it.
pub(super) struct Keeper {
    pub(super) database: Arc<Database>,
    pub(super) quota: Option<Quota>,
    pub(super) metrics: Arc<Metrics>,
}

impl Sink for Keeper {
    fn commit(&mut self, round: &Round) -> Result<(), DiskError> {
        let written = self.database.commit(round)?;
        if let Some(quota) = &mut self.quota {
            match quota.enforce(&self.database, written) {
                Ok(evicted) => {
                    self.metrics.store_evictions.inc_by(evicted);
                }
                // The round is written; a disk that fails shows in the next one.
                Err(error) => tracing::warn!("`store.disk` is not kept to: {error}"),
            }
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<(), DiskError> {
        self.database.sync()
    }

    fn revive(&mut self) -> Result<(), DiskError> {
        self.database.reopen()
    }
}

/// Tells what was found at the start.
pub(super) fn tell(found: &Found, troubles: &Troubles, metrics: &Metrics) {
    if let Some(told) = &found.set_aside {
        metrics.store_set_aside.inc();
        troubles.found(told.to_string());
    } else if found.invalidations {
        let message = "invalidations may be lost: all pages on disk count as stale";
        troubles.found(message.to_owned());
    }
    if !found.strays.is_empty() {
        let files = found.strays.join(", ");
        troubles.found(format!(
            "files that are not the database's lay among its own, and were moved to `stray` in the folder of the store: {files}"
        ));
    }
}
