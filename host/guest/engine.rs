//! `Engine`: what all sandboxes of the process share: the runtimes, the compiler, and the places in
//! which they run.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wasmtime::component::{HasSelf, Linker};
use wasmtime::{
    Config, Enabled, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig, Strategy,
    WasmBacktraceDetails,
};
use wasmtime_wasi_http::p2::bindings as wasi_http;

use super::artifact::{Artifacts, Fingerprint};
use super::bindings::wisr::page::{host, page_types, revalidate};
use super::compile::{COMPILATIONS, CompileLimits, Compiler, Job, Made, Room, Turn};
use super::held::CountedHttp;
use super::killed::Killed;
use super::limits::{
    BACKTRACE_FRAMES, CORE_INSTANCES, INSTANCE_BYTES, MEMORIES, MEMORY_KEPT, STACK_BYTES,
    STACK_KEPT, TABLE_ELEMENTS, TABLE_KEPT, TABLES,
};
use super::module::LoadError;
use super::repeats::Repeats;
use super::runtime::{Runtime, Tier};
use super::sandbox::State;
use super::symbols::Symbolizer;
use crate::page::Digest;

/// How an engine is set up.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// The folder of compiled modules; none keeps nothing.
    pub cache: Option<PathBuf>,
    /// The folder of the site's state; none remembers nothing of what was killed.
    pub state: Option<PathBuf>,
    /// Generations and shells at once. As many requests to API routes run beside them, and a few
    /// listings and dry runs of new modules.
    pub instances: u32,
    /// The largest memory limit of any route, in bytes.
    pub max_memory: u64,
    /// Where modules are compiled.
    pub compiler: Compiler,
    /// What compiling a module may use.
    pub compile: CompileLimits,
    /// Compile quickly to slower code, for development.
    pub fast_compile: bool,
    /// Modules of more bytes run on code of the baseline compiler until the optimising one, which
    /// takes seconds over them, is done.
    pub quick: u64,
    /// Threads of each compilation.
    pub compile_threads: usize,
}

/// Why there is no engine.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// wasmtime cannot run here.
    #[error("WebAssembly cannot be run on this machine: {0}")]
    Runtime(String),
    /// The thread could not be started.
    #[error("the thread that times pages could not be started: {0}")]
    Thread(String),
}

/// The one engine of the process. Its clones are the same; the last one to go stops its threads.
#[derive(Clone)]
pub struct Engine(Arc<Inner>);

struct Inner {
    optimized: Arc<Runtime>,
    /// Lives as long as a module runs on its code.
    baseline: Mutex<Weak<Runtime>>,
    artifacts: Option<Artifacts>,
    symbolizer: Arc<Symbolizer>,
    compiler: Compiler,
    compile: CompileLimits,
    fast_compile: bool,
    quick: u64,
    compile_threads: usize,
    room: Arc<Room>,
    killed: Killed,
    upgrades: Arc<Semaphore>,
    pages: Arc<Semaphore>,
    apis: Arc<Semaphore>,
    trials: Arc<Semaphore>,
    max_memory: u64,
    generations: AtomicU64,
    repeats: Arc<Repeats>,
}

/// What an instance is for. Each has places of its own: a module that cannot list its paths, or API
/// requests that hang, must not keep pages from being made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A generation or a shell.
    Page,
    /// A request to an API route.
    Api,
    /// A listing, or the dry run of a new module.
    Trial,
}

/// Listings and dry runs at once: as many as modules are loaded at once, or more.
pub(super) const TRIALS: u32 = 4;

/// Modules that run already and get faster code, at once: nobody waits for it.
pub(super) const UPGRADES: usize = 1;

impl Engine {
    /// Sets up the runtime and starts its thread.
    ///
    /// # Errors
    /// When the machine lacks what it takes. A folder for compiled modules that cannot be used is
    /// only logged.
    pub fn new(config: EngineConfig) -> Result<Self, EngineError> {
        let optimized = Runtime::start(Tier::Optimized, pooled(&config)?, linker)?;
        Self::on(optimized, config)
    }

    fn on(optimized: Runtime, config: EngineConfig) -> Result<Self, EngineError> {
        let artifacts = config.cache.and_then(|folder| {
            let shown = folder.display().to_string();
            Artifacts::open(folder)
                .inspect_err(|error| {
                    tracing::warn!("compiled modules are not kept in {shown}: {error}");
                })
                .ok()
        });
        Ok(Self(Arc::new(Inner {
            optimized: Arc::new(optimized),
            baseline: Mutex::default(),
            artifacts,
            symbolizer: Arc::new(Symbolizer::new(config.compiler.clone())),
            compiler: config.compiler,
            compile: config.compile,
            fast_compile: config.fast_compile,
            quick: config.quick,
            compile_threads: config.compile_threads.max(1),
            room: Arc::default(),
            killed: Killed::open(config.state.as_deref()),
            upgrades: Arc::new(Semaphore::new(UPGRADES)),
            pages: Arc::new(Semaphore::new(config.instances.max(1) as usize)),
            apis: Arc::new(Semaphore::new(config.instances.max(1) as usize)),
            trials: Arc::new(Semaphore::new(TRIALS as usize)),
            max_memory: config.max_memory,
            generations: AtomicU64::new(0),
            repeats: Arc::default(),
        })))
    }

    /// An engine for one module, which is only tried: it keeps nothing, and reserves no places for
    /// others.
    ///
    /// # Errors
    /// When the machine lacks what it takes.
    pub(super) fn for_trial(
        tier: Tier,
        fast_compile: bool,
        max_memory: u64,
    ) -> Result<Self, EngineError> {
        let engine = for_compiling(tier, fast_compile)
            .map_err(|error| EngineError::Runtime(format!("{error:#}")))?;
        let settings = EngineConfig {
            cache: None,
            state: None,
            instances: 1,
            max_memory,
            compiler: Compiler::InProcess,
            compile: CompileLimits::default(),
            fast_compile,
            quick: u64::MAX,
            compile_threads: 1,
        };
        Self::on(Runtime::start(tier, engine, linker)?, settings)
    }

    /// What modules run on for good.
    pub(super) fn runtime(&self) -> &Arc<Runtime> {
        &self.0.optimized
    }

    /// What a module of `size` bytes runs on until it has optimised code; none if that is there
    /// soon enough.
    ///
    /// # Errors
    /// When the baseline compiler does not know this machine.
    pub(super) fn baseline(&self, size: u64) -> Result<Option<Arc<Runtime>>, EngineError> {
        if size <= self.0.quick {
            return Ok(None);
        }
        let mut held = self.0.baseline.lock();
        if let Some(runtime) = held.upgrade() {
            return Ok(Some(runtime));
        }
        let engine = for_compiling(Tier::Baseline, self.0.fast_compile)
            .map_err(|error| EngineError::Runtime(format!("{error:#}")))?;
        let runtime = Arc::new(Runtime::start(Tier::Baseline, engine, linker)?);
        *held = Arc::downgrade(&runtime);
        Ok(Some(runtime))
    }

    /// Keeps the folder of compiled modules to its budget, at the cost of those that are not of
    /// `needed` modules. Returns how many went, and their bytes. Blocks on the disk.
    pub fn tidy(&self, needed: &BTreeSet<Digest>) -> (usize, u64) {
        let name = |digest: &Digest| Fingerprint::of_digest(&self.runtime().engine, *digest);
        let tidied = |artifacts: &Artifacts| artifacts.keep_to_budget(needed.iter().map(name));
        self.artifacts().map(tidied).unwrap_or_default()
    }

    /// What is not compiled again for want of memory.
    pub(super) fn killed(&self) -> &Killed {
        &self.0.killed
    }

    /// Where modules are compiled and tried.
    pub(super) fn compiler(&self) -> &Compiler {
        &self.0.compiler
    }

    /// Whether modules are compiled quickly to slower code.
    pub(super) fn is_fast(&self) -> bool {
        self.0.fast_compile
    }

    pub(super) fn artifacts(&self) -> Option<&Artifacts> {
        self.0.artifacts.as_ref()
    }

    /// The code of a module, made for `runtime`.
    ///
    /// # Errors
    /// What is wrong with the module, or what became of the compiler.
    pub(super) async fn compile(
        &self,
        runtime: &Runtime,
        bytes: Bytes,
        turn: &Turn,
    ) -> Result<Made, LoadError> {
        let threads = self.0.compile_threads;
        let job = Job {
            bytes,
            limits: self.0.compile.clone(),
            left: turn.space(),
            fast: self.0.fast_compile,
            tier: runtime.tier,
            threads: match runtime.tier {
                Tier::Optimized => threads,
                // A reader waits for it.
                Tier::Baseline => threads * COMPILATIONS,
            },
            max_memory: self.0.max_memory,
        };
        self.0.compiler.compile(&runtime.engine, job).await
    }

    /// What reads debug information.
    pub(super) fn symbolizer(&self) -> &Arc<Symbolizer> {
        &self.0.symbolizer
    }

    /// A turn to compile a module of `size` bytes, as soon as there is one: for somebody who waits,
    /// or for faster code.
    pub(super) async fn compilation(&self, size: u64, is_upgrade: bool) -> Turn {
        let most = self.0.compile.memory;
        self.0.room.turn(size, most, is_upgrade).await
    }

    /// A turn to make faster code, as soon as there is one.
    pub(super) async fn upgrade_turn(&self) -> OwnedSemaphorePermit {
        permit(&self.0.upgrades).await
    }

    /// The largest memory limit of any route, in bytes.
    pub(super) fn max_memory(&self) -> u64 {
        self.0.max_memory
    }

    /// The next number by which the log tells generations apart.
    pub(super) fn next_generation(&self) -> u64 {
        self.0.generations.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// What was said on stderr lately, by all.
    pub(super) fn repeats(&self) -> Arc<Repeats> {
        Arc::clone(&self.0.repeats)
    }

    /// A place for one instance, as soon as there is one.
    pub(super) async fn place(&self, purpose: Purpose) -> OwnedSemaphorePermit {
        permit(match purpose {
            Purpose::Page => &self.0.pages,
            Purpose::Api => &self.0.apis,
            Purpose::Trial => &self.0.trials,
        })
        .await
    }
}

async fn permit(semaphore: &Arc<Semaphore>) -> OwnedSemaphorePermit {
    let permit = Arc::clone(semaphore).acquire_owned().await;
    permit.expect("the semaphore lives as long as the engine and is never closed")
}

/// wasmtime with a pool of instances; where address space is capped, without one.
fn pooled(settings: &EngineConfig) -> Result<wasmtime::Engine, EngineError> {
    let mut config = config(Tier::Optimized, settings.fast_compile);
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool(settings)));
    // What a deep recursion touched of its stack is given back, too.
    config.async_stack_zeroing(true);
    wasmtime::Engine::new(&config)
        .or_else(|error| {
            tracing::warn!(
                "instances are not pooled, so pages render slower: {error:#} (is address space \
                 limited, as by `ulimit -v`?)"
            );
            config.allocation_strategy(InstanceAllocationStrategy::OnDemand);
            wasmtime::Engine::new(&config)
        })
        .map_err(|error| EngineError::Runtime(format!("{error:#}")))
}

/// wasmtime without a pool: what it compiles is exactly what [`Engine`] takes, since how instances
/// are allocated does not show in the code.
pub(super) fn for_compiling(tier: Tier, fast: bool) -> wasmtime::Result<wasmtime::Engine> {
    let mut config = config(tier, fast);
    config.allocation_strategy(InstanceAllocationStrategy::OnDemand);
    wasmtime::Engine::new(&config)
}

/// All that shows in compiled code, and what else does not depend on the pool.
fn config(tier: Tier, fast_compile: bool) -> Config {
    let stack = STACK_BYTES * tier.factor() as usize;
    let mut config = Config::new();
    config
        .concurrency_support(false)
        .epoch_interruption(true)
        .memory_may_move(false)
        .max_wasm_stack(stack)
        // Host functions run on the same stack, above the guest.
        .async_stack_size(2 * stack)
        .wasm_backtrace_max_frames(NonZeroUsize::new(BACKTRACE_FRAMES))
        // Modules' debug information is read by children alone (`symbols`).
        .wasm_backtrace_details(WasmBacktraceDetails::Disable)
        .native_unwind_info(false);
    match tier {
        Tier::Baseline => config.strategy(Strategy::Winch),
        Tier::Optimized if fast_compile => config.cranelift_opt_level(OptLevel::None),
        Tier::Optimized => config.cranelift_opt_level(OptLevel::Speed),
    };
    config
}

/// Every instance may have all that the limits allow, so that only their number can run out, and
/// that is what [`Engine::place`] guards.
fn pool(settings: &EngineConfig) -> PoolingAllocationConfig {
    let instances = settings.instances.max(1);
    let instances = instances.saturating_mul(2).saturating_add(TRIALS);
    // No 32-bit memory is larger, and the pool refuses to be.
    let memory = settings.max_memory.min(4 << 30);
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(instances)
        .total_stacks(instances)
        .total_core_instances(instances.saturating_mul(CORE_INSTANCES))
        .total_memories(instances.saturating_mul(MEMORIES))
        .total_tables(instances.saturating_mul(TABLES))
        .max_core_instances_per_component(CORE_INSTANCES)
        .max_memories_per_component(MEMORIES)
        .max_tables_per_component(TABLES)
        .max_memories_per_module(MEMORIES)
        .max_tables_per_module(TABLES)
        .table_elements(TABLE_ELEMENTS)
        .max_component_instance_size(INSTANCE_BYTES)
        .max_core_instance_size(INSTANCE_BYTES)
        .max_memory_size(usize::try_from(memory).unwrap_or(usize::MAX))
        // A batch would wait for others to end, and until then hold all that its guests had.
        .decommit_batch_size(1)
        .async_stack_keep_resident(STACK_KEPT)
        // Each keeps some of its memory for the next instance of its module.
        .max_unused_warm_slots(instances)
        .pagemap_scan(Enabled::Auto);
    if PoolingAllocationConfig::is_pagemap_scan_available() {
        // Resetting what a page touched is then cheaper than returning it to the kernel; without
        // the scan all of it would be reset, which is dearer.
        pool.linear_memory_keep_resident(MEMORY_KEPT)
            .table_keep_resident(TABLE_KEPT);
    }
    pool
}

/// All of WASI 0.2 is linked, whatever a toolchain's guests import; almost none of it is granted.
fn linker(runtime: &wasmtime::Engine) -> wasmtime::Result<Linker<State>> {
    let mut linker = Linker::new(runtime);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    let options = wasi_http::LinkOptions::default();
    wasi_http::http::types::add_to_linker::<_, CountedHttp>(
        &mut linker,
        &(&options).into(),
        State::counted,
    )?;
    wasi_http::http::outgoing_handler::add_to_linker::<_, CountedHttp>(
        &mut linker,
        State::counted,
    )?;
    page_types::add_to_linker::<_, HasSelf<State>>(&mut linker, |state| state)?;
    host::add_to_linker::<_, HasSelf<State>>(&mut linker, |state| state)?;
    revalidate::add_to_linker::<_, HasSelf<State>>(&mut linker, |state| state)?;
    Ok(linker)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_limits_still_pool() {
        let settings = EngineConfig {
            cache: None,
            state: None,
            instances: 4,
            max_memory: u64::MAX,
            compiler: Compiler::InProcess,
            compile: CompileLimits::default(),
            fast_compile: true,
            quick: u64::MAX,
            compile_threads: 1,
        };
        let engine = Engine::new(settings).unwrap();
        assert!(
            engine
                .runtime()
                .engine
                .pooling_allocator_metrics()
                .is_some()
        );
    }
}
