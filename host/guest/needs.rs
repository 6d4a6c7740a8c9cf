//! `Needs`: the memory that sandboxes may take at worst, for who sizes a machine.

use super::compile::COMPILATIONS;
use super::engine::{EngineConfig, TRIALS, UPGRADES};
use super::limits::{
    CALL_BYTES, INSTANCE_BYTES, LISTING_BYTES, MEMORY_KEPT, RESOURCE_BYTES, RESOURCES, STACK_BYTES,
    TABLE_KEPT,
};
use super::runtime::Tier;
use super::symbols;

/// What sandboxes may take, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Needs {
    /// Sandboxes at once: generations, as many requests to API routes, dry runs and listings.
    pub places: u64,
    /// Each one's limit of memory, what the host holds for it included.
    pub memory: u64,
    /// What each takes beside that.
    pub beside: u64,
    /// What compilations and readers of debug information may take at once, in processes of their own.
    pub children: u64,
    /// The copies of the lists of paths that modules hand over.
    pub listings: u64,
}

impl Needs {
    /// Those of an engine whose pages and props have at most `returned` bytes.
    pub fn of(engine: &EngineConfig, returned: u64) -> Self {
        let trials = u64::from(TRIALS);
        Self {
            places: 2 * u64::from(engine.instances.max(1)) + trials,
            memory: engine.max_memory,
            beside: beside(returned),
            children: engine.compile.memory * (COMPILATIONS + UPGRADES) as u64
                + symbols::MEMORY * symbols::CHILDREN as u64,
            listings: trials * LISTING_BYTES,
        }
    }
}

/// What one sandbox takes beside its memory: its stack, the host's records of its instance, what an
/// earlier instance left in place for the next, its resources' own records, and what one call hands
/// over, twice: while it is taken apart, it is there as it came and as what it becomes.
fn beside(returned: u64) -> u64 {
    let stack = 2 * STACK_BYTES as u64 * u64::from(Tier::Baseline.factor());
    let kept = (INSTANCE_BYTES + MEMORY_KEPT + TABLE_KEPT) as u64;
    let resources = RESOURCES as u64 * RESOURCE_BYTES;
    stack + kept + resources + 2 * (returned + CALL_BYTES)
}
