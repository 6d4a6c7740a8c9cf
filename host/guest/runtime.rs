//! `Runtime`: what runs the code of one compiler: wasmtime's engine, what its guests are linked to,
//! and the ticks that interrupt them.
//!
//! There are two of them, since an engine runs the code of one compiler only. The optimising one
//! has the pool and lives as long as the process. The baseline one exists while a module runs on
//! its code, for seconds as a rule, and so allocates on demand: it costs nothing at rest.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::{self, JoinHandle};

use serde::{Deserialize, Serialize};
use wasmtime::component::Linker;

use super::engine::EngineError;
use super::limits::TICK;
use super::sandbox::State;

/// Which compiler made a module's code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tier {
    /// Winch: quickly, to slower code.
    Baseline,
    /// Cranelift: the code that a module runs on for good.
    Optimized,
}

/// How many times the CPU time and stack code of the baseline compiler may take: of pages that were
/// measured, one in JavaScript took 1.7 times as much, one in Rust 2.4 times.
const BASELINE_FACTOR: u32 = 3;

impl Tier {
    /// The word for tables and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Tier::Baseline => "baseline",
            Tier::Optimized => "optimized",
        }
    }

    /// How many times what optimised code may take its code may take, of CPU time and stack.
    pub(super) fn factor(self) -> u32 {
        match self {
            Tier::Baseline => BASELINE_FACTOR,
            Tier::Optimized => 1,
        }
    }
}

/// What runs the code of one compiler.
pub(super) struct Runtime {
    pub(super) tier: Tier,
    pub(super) engine: wasmtime::Engine,
    pub(super) linker: Linker<State>,
    _ticker: Ticker,
}

impl Runtime {
    /// Links what guests import to `engine`, which runs code of `tier`, and starts its ticks.
    pub(super) fn start(
        tier: Tier,
        engine: wasmtime::Engine,
        linker: impl FnOnce(&wasmtime::Engine) -> wasmtime::Result<Linker<State>>,
    ) -> Result<Self, EngineError> {
        let linker = linker(&engine).map_err(|error| EngineError::Runtime(format!("{error:#}")))?;
        let ticker =
            Ticker::start(&engine).map_err(|error| EngineError::Thread(error.to_string()))?;
        Ok(Self {
            tier,
            engine,
            linker,
            _ticker: ticker,
        })
    }
}

/// The thread that advances the epoch, which is how running guests are interrupted.
struct Ticker {
    /// Dropped to stop the thread.
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Ticker {
    fn start(engine: &wasmtime::Engine) -> std::io::Result<Self> {
        let engine = engine.clone();
        let (stop, stopped) = mpsc::channel::<()>();
        let thread = thread::Builder::new()
            .name("ticker".to_owned())
            .spawn(move || {
                while stopped.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
                    engine.increment_epoch();
                }
            })?;
        Ok(Self {
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            // It only ends in panic if wasmtime does; there is nothing left to save.
            let _ = thread.join();
        }
    }
}
