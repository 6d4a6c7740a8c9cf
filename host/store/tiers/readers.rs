//! `Readers`: the threads that read pages from disk.

use std::io;

use tokio::runtime::{Builder, Runtime};

/// Pages that are read from disk at once: enough to keep a disk busy. Each thread that makes
/// entries keeps a few MiB of its own for the next ones, so they are not as many as there are
/// readers.
const THREADS: usize = 8;

/// A runtime whose threads do nothing else, so that a disk that hangs holds nobody else up. Dropping
/// it ends them without waiting: the disk may hang.
pub(super) struct Readers(Option<Runtime>);

impl Readers {
    /// Starts the threads.
    ///
    /// # Errors
    /// When the system has none to give.
    pub(super) fn start() -> io::Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(THREADS)
            .thread_name("wisr-read")
            .build()?;
        Ok(Self(Some(runtime)))
    }

    /// Does `work`, which may wait for the disk, as soon as a thread is free.
    pub(super) fn spawn(&self, work: impl FnOnce() + Send + 'static) {
        if let Some(runtime) = &self.0 {
            runtime.spawn(async { work() });
        }
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
