//! [`each_its_own`]: a core for each thread that serves.
//!
//! The kernel spreads threads by how much each would like to run. Hits take so little that two
//! threads that answer them weigh less than guests of low priority on another core, and it puts both
//! on one: then each reader waits for the other's, for milliseconds. A thread that may not leave its
//! core is found there at once, whatever else runs on it.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The cores of `threads` threads, one for each; empty where there are not as many of them as cores
/// that the process may use. Who asked for fewer threads shares the machine, and the kernel knows
/// better where there is room.
pub(super) fn each_its_own(threads: usize) -> Vec<CpuSet> {
    let all = all();
    let cores = (0..CpuSet::MAX_CPU).filter(|core| all.is_set(*core));
    let cores: Vec<CpuSet> = cores.map(only).collect();
    if cores.len() == threads {
        cores
    } else {
        Vec::new()
    }
}

/// The cores that the calling thread may use; none where the kernel does not tell.
pub(super) fn all() -> CpuSet {
    sched_getaffinity(None).unwrap_or_default()
}

/// Keeps the calling thread, and those that it starts, on `cores`.
pub(super) fn stay_on(cores: &CpuSet) {
    // Not being allowed to is no reason not to serve.
    if let Err(error) = sched_setaffinity(None, cores) {
        tracing::debug!("a thread runs on any core: {error}");
    }
}

fn only(core: usize) -> CpuSet {
    let mut set = CpuSet::new();
    set.set(core);
    set
}
