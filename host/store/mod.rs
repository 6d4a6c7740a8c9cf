//! `Tiers`: where entries live between generations.
//!
//! Entries are kept apart from the marks, which are the invalidations that they are subject to:
//! an invalidation costs the same whether it concerns ten pages or ten million.

mod codec;
#[cfg(test)]
mod conformance;
mod durable;
mod marks;
mod memory;
mod tiers;

use std::sync::Arc;

use crate::page::{Entry, PageKey};

pub use durable::{Degraded, OpenError, StoreHealth};
pub use marks::Mark;
pub use memory::Kept;
pub use tiers::{Config, Tiers};

use memory::Memory;

/// A tier that keeps entries. Each sees its own changes at once.
///
/// A failure to read is a miss, which the tier itself reports: nothing that a caller could do
/// about it would serve readers better than making the page anew. A tier on a disk blocks.
trait Store: Send + Sync {
    /// The entry of a page.
    fn get(&self, key: &PageKey) -> Option<Arc<Entry>>;

    /// Keeps `entry` in place of what was there; other entries may be evicted for it.
    ///
    /// # Errors
    /// When it is not kept; the reason says what became of what was there.
    fn put(&self, entry: Arc<Entry>) -> Result<(), Unkept>;

    /// Forgets a page; whether there was an entry.
    fn remove(&self, key: &PageKey) -> bool;

    /// Forgets all pages of a route; how many there were.
    fn remove_route(&self, route: &str) -> usize;

    /// Up to `limit` entries whose keys begin with `prefix`, in the order of their keys.
    fn list(&self, prefix: &str, limit: usize) -> Vec<Arc<Entry>>;
}

/// Why an entry is not kept.
#[derive(Debug, thiserror::Error)]
enum Unkept {
    /// It is larger than the whole tier. What was there is gone all the same: it is no longer
    /// true.
    #[error("an entry of {weight} bytes does not fit `store.memory` of {budget}: raise it")]
    TooLarge {
        /// The entry's weight in bytes.
        weight: usize,
        /// The budget in bytes.
        budget: usize,
    },
    /// Its key is longer than the database's keys may be.
    #[error("a page key of {0} bytes: on disk it has at most {MAX_KEY}", MAX_KEY = durable::MAX_KEY)]
    LongKey(usize),
    /// Too many entries wait for the disk. What was there stays: an older, honest entry.
    #[error("too many entries wait for the disk")]
    NoRoom,
}
