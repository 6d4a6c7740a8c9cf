//! The engine of the commands that look at modules without serving them.

use std::path::PathBuf;
use std::thread;

use crate::guest::{Engine, EngineConfig, EngineError, Limits};

/// Instances at once: modules are tried one after the other, and one may be starting while one ends.
const INSTANCES: u32 = 4;

/// An engine that compiles as `wisr serve` does by default, so that what it keeps in `cache` is found there.
///
/// # Errors
/// When WebAssembly cannot run on this machine.
pub(super) fn offline(cache: Option<PathBuf>) -> Result<Engine, EngineError> {
    Engine::new(EngineConfig {
        cache,
        instances: INSTANCES,
        max_memory: Limits::default().memory,
        fast_compile: false,
        compile_threads: thread::available_parallelism().map_or(1, usize::from),
    })
}
