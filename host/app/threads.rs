//! `GenerationThreads`: where pages are made, apart from the threads that serve.

use std::time::Duration;

use anyhow::Context;
use tokio::runtime::{Builder, Handle, Runtime};

/// How much lower than the serving threads' priority: a busy guest yields the core to a hit. Pages
/// must be made all the same while hits take all cores: at 10 a generation then still has a tenth
/// of a core, and at 19 a seventieth, with which 0.2 s of work outlast the wall limit of 10 s. As
/// idle work (SCHED_IDLE) it would have nothing to count on.
const NICE: i32 = 10;

/// How long a thread for blocking work is kept, once it was needed: as long as the server. One that
/// could not be started again, for want of threads in its cgroup, would fail whoever needs it.
pub(crate) const THREADS_STAY: Duration = Duration::from_secs(u32::MAX as u64);

/// Compressions at once, beside the threads that run guests.
const BLOCKING_THREADS: usize = 4;

/// How long a thread that compresses waits for more: the allocator keeps what a thread freed, tens
/// of megabytes after a large page, until the thread asks for more or ends.
const IDLE: Duration = Duration::from_millis(500);

/// A runtime of its own for generations, at low priority. Dropping it ends them without waiting:
/// what is half made is worth nothing.
pub(super) struct GenerationThreads {
    handle: Handle,
    runtime: Option<Runtime>,
}

impl GenerationThreads {
    /// Starts `count` threads.
    pub(super) fn start(count: usize) -> anyhow::Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(count.max(1))
            .max_blocking_threads(BLOCKING_THREADS)
            .thread_keep_alive(IDLE)
            .thread_name("generate")
            .on_thread_start(lower_priority)
            .enable_all()
            .build()
            .context("cannot start the threads that make pages")?;
        Ok(Self {
            handle: runtime.handle().clone(),
            runtime: Some(runtime),
        })
    }

    /// Where to spawn.
    pub(super) fn handle(&self) -> Handle {
        self.handle.clone()
    }
}

impl Drop for GenerationThreads {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Lowers the priority of the thread that calls it.
pub(crate) fn lower_priority() {
    let thread = rustix::thread::gettid();
    // Not being allowed to is no reason not to serve.
    if let Err(error) = rustix::process::setpriority_process(Some(thread), NICE) {
        tracing::debug!("generations run at normal priority: {error}");
    }
}
