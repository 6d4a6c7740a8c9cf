//! `Readers`: the threads that read pages from disk.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::cores;

/// Pages that are read from disk at once: enough to keep a disk busy. Each thread that makes
/// entries keeps a few MiB of its own for the next ones, so they are not as many as there are
/// readers.
const THREADS: usize = 8;

/// How long a read may wait for others before it: longer than dozens of them take of what the
/// operating system has in memory, shorter than a disk that seeks.
pub(super) const SOON: Duration = Duration::from_millis(4);

type Work = Box<dyn FnOnce() + Send>;

/// Threads that do nothing else, so that a disk that hangs holds nobody else up.
///
/// A page is read on the core of who asks for it: most of a hit's time would else go to carry the
/// page from one core's cache to another's. There one thread reads whatever waits, for to wake
/// another takes as long as most reads. Who has waited for [`SOON`] calls others to help, of any core.
///
/// Dropping it ends the threads without waiting: the disk may hang.
pub(super) struct Readers {
    queues: Arc<[Queue]>,
    /// The queue of each core, by its number.
    by_core: Box<[usize]>,
}

/// What is to be read on some cores.
#[derive(Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    /// Threads that are on these cores.
    threads: usize,
}

#[derive(Default)]
struct Waiting {
    work: VecDeque<(Instant, Work)>,
    asleep: Vec<Thread>,
    is_over: bool,
}

impl Readers {
    /// Starts the threads.
    ///
    /// # Errors
    /// When the system has none to give.
    pub(super) fn start() -> io::Result<Self> {
        let cores = cores::numbers();
        let count = cores.len().clamp(1, THREADS);
        let queue_of = |place: usize| place * count / cores.len();
        let mut by_core = vec![0; cores.last().map_or(0, |last| last + 1)];
        for (place, core) in cores.iter().enumerate() {
            by_core[*core] = queue_of(place);
        }
        let queue = |number| Queue {
            waiting: Mutex::default(),
            threads: (number..THREADS).step_by(count).count(),
        };
        let readers = Self {
            queues: (0..count).map(queue).collect(),
            by_core: by_core.into(),
        };
        for thread in 0..THREADS {
            let (queues, own) = (Arc::clone(&readers.queues), thread % count);
            let of_queue =
                |(place, core): (usize, &usize)| (queue_of(place) == own).then_some(*core);
            let on = cores::set(cores.iter().enumerate().filter_map(of_queue));
            let thread = thread::Builder::new().name("wisr-read".to_owned());
            thread.spawn(move || {
                cores::stay_on(&on);
                while let Some(work) = next(&queues, own) {
                    work();
                }
            })?;
        }
        Ok(readers)
    }

    /// Does `work`, which may wait for the disk and does not panic, soon and near by.
    pub(super) fn spawn(&self, work: impl FnOnce() + Send + 'static) {
        let queue = &self.queues[self.here()];
        let mut waiting = queue.waiting.lock();
        waiting.work.push_back((Instant::now(), Box::new(work)));
        let are_all_asleep = waiting.asleep.len() == queue.threads;
        let reader = waiting.asleep.pop_if(|_| are_all_asleep);
        drop(waiting);
        reader.iter().for_each(Thread::unpark);
    }

    /// Calls another thread to help: to be called by who has waited for [`SOON`].
    pub(super) fn hurry(&self) {
        let is_empty = |queue: &Queue| queue.waiting.lock().work.is_empty();
        if self.queues.iter().all(is_empty) {
            return;
        }
        let mut queues = from(&self.queues, self.here());
        let reader = queues.find_map(|queue| queue.waiting.lock().asleep.pop());
        reader.iter().for_each(Thread::unpark);
    }

    fn here(&self) -> usize {
        self.by_core.get(cores::here()).copied().unwrap_or(0)
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        for queue in self.queues.iter() {
            let mut waiting = queue.waiting.lock();
            waiting.is_over = true;
            waiting.asleep.drain(..).for_each(|reader| reader.unpark());
        }
    }
}

/// All queues, the own one first.
fn from(queues: &[Queue], own: usize) -> impl Iterator<Item = &Queue> {
    let (before, after) = queues.split_at(own);
    after.iter().chain(before)
}

/// What a thread of the queue `own` is to do next, once there is something; none at the end.
fn next(queues: &[Queue], own: usize) -> Option<Work> {
    let this = thread::current();
    loop {
        let mut waiting = queues[own].waiting.lock();
        // Who woke for no reason is still among them, and would be woken while at work.
        waiting.asleep.retain(|reader| reader.id() != this.id());
        if waiting.is_over {
            return None;
        }
        if let Some((_, work)) = waiting.work.pop_front() {
            return Some(work);
        }
        drop(waiting);
        let mut others = from(queues, own).skip(1);
        let stuck = others.find_map(|queue| queue.waiting.lock().stuck());
        if stuck.is_some() {
            return stuck;
        }
        let mut waiting = queues[own].waiting.lock();
        if waiting.work.is_empty() && !waiting.is_over {
            waiting.asleep.push(this.clone());
            drop(waiting);
            thread::park();
        }
    }
}

impl Waiting {
    /// What has waited for too long.
    fn stuck(&mut self) -> Option<Work> {
        let is_stuck = |(since, _): &mut (Instant, Work)| since.elapsed() >= SOON;
        self.work.pop_front_if(is_stuck).map(|(_, work)| work)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
    use std::sync::{Barrier, Weak};

    use super::*;

    /// None of what is waited for here takes long.
    const PATIENCE: Duration = Duration::from_secs(10);

    /// Hurries until something comes.
    fn hurried<T>(readers: &Readers, done: &Receiver<T>) -> T {
        let began = Instant::now();
        loop {
            match done.recv_timeout(SOON) {
                Ok(done) => return done,
                Err(RecvTimeoutError::Timeout) if began.elapsed() < PATIENCE => readers.hurry(),
                Err(error) => panic!("nobody helps: {error}"),
            }
        }
    }

    #[test]
    fn nothing_is_forgotten_however_it_comes() {
        let readers = Readers::start().unwrap();
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for round in 0..5_000 {
                        let (done, all) = channel();
                        // Alone, the reader has just fallen asleep, or is about to.
                        let burst = if round % 10 == 0 { 20 } else { 1 };
                        for _ in 0..burst {
                            let done = done.clone();
                            readers.spawn(move || done.send(()).unwrap());
                        }
                        drop(done);
                        for _ in 0..burst {
                            all.recv_timeout(PATIENCE).expect("it is never done");
                        }
                    }
                });
            }
        });
    }

    #[test]
    fn a_page_is_read_on_the_core_of_who_asks() {
        let readers = Readers::start().unwrap();
        let all = cores::numbers();
        let most = all.len().div_ceil(all.len().min(THREADS));
        for core in all {
            thread::scope(|scope| {
                scope.spawn(|| {
                    cores::stay_on(&cores::set([core]));
                    let (tell, told) = channel();
                    readers.spawn(move || tell.send(cores::numbers()).unwrap());
                    let on = told.recv_timeout(PATIENCE).unwrap();
                    assert!(on.contains(&core) && on.len() <= most, "{core}: {on:?}");
                });
            });
        }
    }

    #[test]
    fn a_read_that_hangs_holds_up_nobody_for_long() {
        let readers = Readers::start().unwrap();
        let (tell, started) = channel();
        let disk = Arc::new(Barrier::new(THREADS));
        for _ in 1..THREADS {
            let (disk, tell) = (Arc::clone(&disk), tell.clone());
            readers.spawn(move || {
                tell.send(()).unwrap();
                disk.wait();
            });
            hurried(&readers, &started);
        }
        // The last of all threads, wherever it is.
        readers.spawn(move || tell.send(()).unwrap());
        hurried(&readers, &started);
        disk.wait();
    }

    #[test]
    fn its_threads_end_with_it() {
        let readers = Readers::start().unwrap();
        let (tell, told) = channel();
        readers.spawn(move || tell.send(()).unwrap());
        told.recv_timeout(PATIENCE).unwrap();
        let queues: Weak<[Queue]> = Arc::downgrade(&readers.queues);
        drop(readers);
        let began = Instant::now();
        while queues.strong_count() > 0 {
            assert!(began.elapsed() < PATIENCE, "a thread goes on");
            thread::yield_now();
        }
    }
}
