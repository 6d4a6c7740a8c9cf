//! `Store`: where entries live between generations.
//!
//! Entries are kept apart from [`Marks`], the invalidations that they are subject to: an
//! invalidation costs the same whether it concerns ten pages or ten million.

mod marks;
mod memory;

use std::sync::Arc;

use crate::page::{Entry, PageKey};

pub use marks::{Mark, Marks};
pub use memory::Memory;

/// A tier that keeps entries.
pub trait Store: Send + Sync {
    /// The entry of a page.
    fn get(&self, key: &PageKey) -> Option<Arc<Entry>>;

    /// Keeps `entry` in place of what was there; other entries may be evicted for it.
    ///
    /// # Errors
    /// [`TooLarge`] when it alone exceeds the budget; what was there is gone all the same, since
    /// it is no longer true.
    fn put(&self, entry: Arc<Entry>) -> Result<(), TooLarge>;

    /// Forgets a page; whether there was an entry.
    fn remove(&self, key: &PageKey) -> bool;

    /// Forgets all pages of a route; how many there were.
    fn remove_route(&self, route: &str) -> usize;

    /// Up to `limit` entries whose keys begin with `prefix`, in the order of their keys.
    fn list(&self, prefix: &str, limit: usize) -> Vec<Arc<Entry>>;
}

/// An entry larger than the whole budget.
#[derive(Debug, thiserror::Error)]
#[error("an entry of {weight} bytes does not fit `store.memory` of {budget}: raise it")]
pub struct TooLarge {
    /// The entry's weight in bytes.
    pub weight: usize,
    /// The budget in bytes.
    pub budget: usize,
}
