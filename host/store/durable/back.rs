//! `Durable`, as whoever brings pages back from a store that was set aside sees it.

use std::path::Path;
use std::time::Duration;

use super::salvage::Old;
use super::{Degraded, Durable, aside};
use crate::page::PageKey;

impl Durable {
    /// The stores that were set aside, whose pages come back; once.
    pub(in crate::store) fn olds(&self) -> Vec<Old> {
        std::mem::take(&mut self.olds.lock())
    }

    /// Whether anything is known of a page, if only that it is being removed. Where the disk does not
    /// tell, something is.
    pub(in crate::store) fn knows(&self, key: &PageKey) -> bool {
        let is_pending = self.behind.look(|queue| queue.get(key).is_some());
        is_pending || !matches!(self.database.stamp(key, self.sequence()), Ok(None))
    }

    /// Waits until half of the room is free; false when the disk fails or hangs for `patience`.
    pub(in crate::store) fn wait_for_room(&self, patience: Duration) -> bool {
        self.behind.wait_for_room(patience)
    }

    /// As [`Durable::synced`], for a thread of its own.
    ///
    /// # Errors
    /// When the disk fails.
    pub(in crate::store) fn synced_blocking(&self) -> Result<(), Degraded> {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let runtime = runtime.map_err(|error| Degraded::Disk(error.to_string().into()))?;
        runtime.block_on(self.synced())
    }

    /// Tells operators something about the store.
    pub(in crate::store) fn tell(&self, message: String) {
        self.troubles.word(message);
    }

    /// Removes what was set aside long ago.
    pub(in crate::store) fn clear(folder: &Path) {
        aside::clear(folder);
    }
}
