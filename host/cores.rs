//! The cores that threads run on.
//!
//! The kernel spreads threads by how much each would like to run. Hits take so little that two
//! threads that answer them weigh less than guests of low priority on another core, and it puts both
//! on one: then each reader waits for the other's, for milliseconds. A thread that may not leave its
//! core is found there at once, whatever else runs on it, and so is what it had in that core's cache.

use rustix::thread::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity};

/// The cores of `threads` threads, one for each; empty where there are not as many of them as cores
/// that the process may use. Who asked for fewer threads shares the machine, and the kernel knows
/// better where there is room.
pub fn each_its_own(threads: usize) -> Vec<CpuSet> {
    let cores: Vec<CpuSet> = numbers().into_iter().map(|core| set([core])).collect();
    if cores.len() == threads {
        cores
    } else {
        Vec::new()
    }
}

/// The cores that the calling thread may use; none where the kernel does not tell.
pub fn all() -> CpuSet {
    sched_getaffinity(None).unwrap_or_default()
}

/// Their numbers, in order.
pub fn numbers() -> Vec<usize> {
    let all = all();
    (0..CpuSet::MAX_CPU)
        .filter(|core| all.is_set(*core))
        .collect()
}

/// The number of the core that the calling thread is on.
pub fn here() -> usize {
    sched_getcpu()
}

/// These cores.
pub fn set(cores: impl IntoIterator<Item = usize>) -> CpuSet {
    let mut set = CpuSet::new();
    cores.into_iter().for_each(|core| set.set(core));
    set
}

/// Keeps the calling thread, and those that it starts, on `cores`.
pub fn stay_on(cores: &CpuSet) {
    // Not being allowed to is no reason not to run.
    if let Err(error) = sched_setaffinity(None, cores) {
        tracing::debug!("a thread runs on any core: {error}");
    }
}
