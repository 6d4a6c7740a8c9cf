//! `Tiers`: where entries live between generations.
//!
//! Entries are kept apart from the marks, which are the invalidations that they are subject to:
//! an invalidation costs the same whether it concerns ten pages or ten million.
//!
//! | where | what |
//! |---|---|
//! | [`Tiers`] | all of it: memory over disk, with the shared tier beside them |
//! | `memory` | what hits are served from, with `hits`, their count |
//! | `durable` | what survives restarts: entries, marks and [`Note`]s |
//! | `shared` | what several hosts have in common: entries, leases, the log of invalidations |
//! | `marks`, `ledger` | what was invalidated, and the disk that keeps it |
//! | `codec` | an entry as bytes, for disk and for other hosts |
//! | [`Window`], `brief` | which entries a list shows, and what of each |
//!
//! # Memory
//!
//! However many pages there are, the process stays below 1.15 times the sum of
//!
//! | what | bytes |
//! |---|---|
//! | pages in memory, weighed with what an allocator adds | `store.memory` |
//! | the database's cache, which holds twice what it is asked to | 2 × a tenth of that, from 16 to 64 MiB |
//! | pages that wait for the disk | 64 MiB |
//! | pages that wait for their tables | 48 MiB |
//! | marks (20 MiB at most), notes that wait for the disk (8 MiB), the program, its threads | 100 MiB |
//!
//! and, where pages are made, of what their sandboxes take; and a serving thread may hold on to 4 MiB
//! of pages that were replaced. For the default of 256 MiB the table makes 597 MiB; `cargo bench
//! --bench versus -- store` holds it to that.

mod brief;
mod codec;
#[cfg(test)]
mod conformance;
mod durable;
mod hits;
mod ledger;
mod marks;
mod memory;
mod notes;
mod shared;
mod tiers;
mod window;

use std::ops::ControlFlow;
use std::sync::Arc;

use crate::page::{Digest, Entry, PageKey, Summary};

pub use durable::{Degraded, Lock, Most, OpenError, Space, StoreHealth, open_files};
pub use hits::Tally;
pub use marks::Mark;
pub use memory::Kept;
pub use notes::{Note, Notes};
pub use shared::{
    Claim, Committed, Config as SharedConfig, ConfigError, Lease, Peer, SharedHealth, Sharing,
    Trouble, Wanted,
};
pub use tiers::{Census, Config, Tiers};
pub use window::Window;

use brief::Brief;
use memory::Memory;

/// By what a page is made. Hosts that share pages show only those that their own modules make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Maker {
    /// The route.
    pub route: Arc<str>,
    /// The module.
    pub module: Digest,
}

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

    /// Forgets all pages of the routes that are gone; how many there were.
    fn remove_routes(&self, is_gone: &dyn Fn(&str) -> bool) -> usize;

    /// Shows every entry to `visit`, in no order, until it has seen enough.
    fn survey(&self, visit: &mut dyn FnMut(Brief<'_>) -> ControlFlow<()>);

    /// What the window shows, in the order of the keys.
    fn list(&self, window: &Window) -> Vec<Summary>;
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
