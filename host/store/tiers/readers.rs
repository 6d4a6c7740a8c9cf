//! `Readers`: the threads that read pages from disk.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::thread::{self, Thread};

use parking_lot::Mutex;

/// Pages that are read from disk at once: enough to keep a disk busy. Each thread that makes
/// entries keeps a few MiB of its own for the next ones, so they are not as many as there are
/// readers.
const THREADS: usize = 8;

type Work = Box<dyn FnOnce() + Send>;

/// Threads that do nothing else, so that a disk that hangs holds nobody else up. A read takes less
/// time than a pool of threads that look for work takes to find none: here one thread wakes for each,
/// the one that slept last, so that as few are in use as are needed. Dropping it ends them without
/// waiting: the disk may hang.
pub(super) struct Readers(Arc<Queue>);

#[derive(Default)]
struct Queue(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    work: VecDeque<Work>,
    asleep: Vec<Thread>,
    is_over: bool,
}

impl Readers {
    /// Starts the threads.
    ///
    /// # Errors
    /// When the system has none to give.
    pub(super) fn start() -> io::Result<Self> {
        let readers = Self(Arc::default());
        for _ in 0..THREADS {
            let queue = Arc::clone(&readers.0);
            let thread = thread::Builder::new().name("wisr-read".to_owned());
            thread.spawn(move || {
                while let Some(work) = queue.next() {
                    work();
                }
            })?;
        }
        Ok(readers)
    }

    /// Does `work`, which may wait for the disk and does not panic, as soon as a thread is free.
    pub(super) fn spawn(&self, work: impl FnOnce() + Send + 'static) {
        let mut waiting = self.0.0.lock();
        waiting.work.push_back(Box::new(work));
        let reader = waiting.asleep.pop();
        drop(waiting);
        reader.iter().for_each(Thread::unpark);
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        let mut waiting = self.0.0.lock();
        waiting.is_over = true;
        waiting.asleep.drain(..).for_each(|reader| reader.unpark());
    }
}

impl Queue {
    /// What is to be done next, once there is some; none at the end.
    fn next(&self) -> Option<Work> {
        let this = thread::current();
        loop {
            let mut waiting = self.0.lock();
            // Who woke for no reason is still among them, and would be woken while at work.
            waiting.asleep.retain(|reader| reader.id() != this.id());
            if waiting.is_over {
                return None;
            }
            if let Some(work) = waiting.work.pop_front() {
                return Some(work);
            }
            waiting.asleep.push(this.clone());
            drop(waiting);
            thread::park();
        }
    }
}
