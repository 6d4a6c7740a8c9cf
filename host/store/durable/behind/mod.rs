//! `Behind`: writes what is queued, behind those who put it there.
//!
//! One thread owns all writing. What waits while it writes goes into the next round, so that a
//! burst costs few commits. When the disk fails, everything waits in memory, within its bounds,
//! and is tried again with a back-off; whoever waits for it is told at once.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use tokio::sync::watch;

use super::database::FAREWELL;
use super::health::{Degraded, DiskError, Need, Progress, StoreHealth};
use super::queue::{Change, Queue, Round};
use crate::page::PageKey;
use crate::store::marks::Raised;
use crate::store::notes::Note;
use crate::telemetry::metrics::Metrics;

/// Where rounds are written.
pub(super) trait Sink: Send + 'static {
    /// Writes a round so that it survives the process, though perhaps not the machine.
    fn commit(&mut self, round: &Round) -> Result<(), DiskError>;

    /// Makes all that was committed survive a power cut.
    fn sync(&mut self) -> Result<(), DiskError>;

    /// Prepares another attempt after a failure.
    fn revive(&mut self) -> Result<(), DiskError>;
}

/// The bounds of what waits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Bytes of pages that wait.
    pub(super) bytes: usize,
    /// What a power cut may cost of pages made anew.
    pub(super) sync_every: Duration,
    /// How long no page must have been refused before that is over: a burst is one condition.
    pub(super) calm: Duration,
    /// The first pause after a failure; it doubles.
    pub(super) retry: Duration,
    /// The longest pause.
    pub(super) retry_most: Duration,
    /// How long a disk that hangs is waited for at the end.
    pub(super) farewell: Duration,
}

impl Limits {
    /// 64 MiB are some thousand pages, seconds of work for the slowest disk. A failing disk is
    /// asked again after a second, later once a minute.
    pub(super) const DEFAULT: Self = Self {
        bytes: 64 << 20,
        sync_every: Duration::from_secs(1),
        calm: Duration::from_secs(10),
        retry: Duration::from_secs(1),
        retry_most: Duration::from_secs(60),
        farewell: FAREWELL,
    };
}

/// The queue, and the thread that empties it until this is dropped.
pub(super) struct Behind {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    state: Mutex<State>,
    /// There is something to do.
    work: Condvar,
    /// A round has ended.
    room: Condvar,
    progress: watch::Sender<Progress>,
    limits: Limits,
    metrics: Arc<Metrics>,
}

struct State {
    queue: Queue,
    /// When a page was last refused, until that is over.
    refused: Option<Instant>,
    stop: bool,
    /// The thread has.
    ended: bool,
}

/// What the thread does next.
enum Task {
    Write(Arc<Round>, u64),
    Sync,
    CalmDown,
    Stop,
}

/// The thread's own.
struct Writer<S> {
    shared: Arc<Shared>,
    sink: S,
    /// The latest change that is committed.
    committed: u64,
    /// Since when something is committed and not synced.
    unsynced: Option<Instant>,
    failures: u32,
}

// === impl Behind ===

impl Behind {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the operating system has no thread left.
    pub(super) fn start(
        sink: impl Sink,
        limits: Limits,
        metrics: Arc<Metrics>,
    ) -> std::io::Result<Self> {
        metrics.store_healthy.set(1);
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                queue: Queue::new(limits.bytes),
                refused: None,
                stop: false,
                ended: false,
            }),
            work: Condvar::new(),
            room: Condvar::new(),
            progress: watch::channel(Progress::default()).0,
            limits,
            metrics,
        });
        let writer = Writer {
            shared: shared.clone(),
            sink,
            committed: 0,
            unsynced: None,
            failures: 0,
        };
        let thread = std::thread::Builder::new()
            .name("wisr-store".to_owned())
            .spawn(move || writer.run())?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// Queues a change; false when there is no room for it.
    pub(super) fn change(&self, key: &PageKey, change: Change) -> bool {
        let mut state = self.shared.state.lock();
        let accepted = state.queue.change(key, change);
        if !accepted {
            state.refused = Some(Instant::now());
            self.shared.metrics.store_dropped.inc();
            // Under the lock, so that it does not overtake the writer's calming down.
            self.shared.turn(|progress| progress.full = true);
        }
        self.shared.measure(&state.queue);
        drop(state);
        self.shared.work.notify_one();
        accepted
    }

    /// Queues the removal of pages that were each of this route; how many there are to remove.
    pub(super) fn remove_of<'a>(
        &self,
        pages: impl IntoIterator<Item = &'a (PageKey, Arc<str>)>,
    ) -> usize {
        let mut state = self.shared.state.lock();
        let pages = pages.into_iter();
        let removed = pages.filter(|(key, route)| state.queue.remove_of(key, route));
        let removed = removed.count();
        drop(state);
        self.shared.work.notify_one();
        removed
    }

    /// Queues an invalidation.
    pub(super) fn raise(&self, raised: Raised) {
        self.shared.state.lock().queue.raise(raised);
        self.shared.work.notify_one();
    }

    /// Queues a note, or the removal of one, where there is room for it.
    pub(super) fn note(&self, note: Note, record: Option<Bytes>) {
        let accepted = self.shared.state.lock().queue.note(note, record);
        if accepted {
            self.shared.work.notify_one();
        } else {
            self.shared.metrics.store_notes_dropped.inc();
        }
    }

    /// Looks at the queue.
    pub(super) fn look<T>(&self, at: impl FnOnce(&Queue) -> T) -> T {
        at(&self.shared.state.lock().queue)
    }

    /// Waits until half of the room is free; false when the disk fails or hangs for `patience`.
    pub(super) fn wait_for_room(&self, patience: Duration) -> bool {
        let until = Instant::now() + patience;
        let mut state = self.shared.state.lock();
        while state.queue.is_busy() {
            let failing = self.shared.progress.borrow().failing.is_some();
            if failing || self.shared.room.wait_until(&mut state, until).timed_out() {
                return false;
            }
        }
        true
    }

    /// Waits until half of the room for pages is free, or the disk fails, which frees none.
    pub(super) async fn room(&self) {
        let mut progress = self.shared.progress.subscribe();
        loop {
            // One after the other: who changes the progress may hold the queue.
            let failing = progress.borrow_and_update().failing.is_some();
            if failing || !self.look(Queue::is_busy) || progress.changed().await.is_err() {
                return;
            }
        }
    }

    /// Waits until all that is queued now is as safe as `need` says.
    ///
    /// # Errors
    /// When the disk fails; what waits is not given up.
    pub(super) async fn settled(&self, need: Need) -> Result<(), Degraded> {
        let ticket = {
            let mut state = self.shared.state.lock();
            if need == Need::Synced {
                state.queue.hurry();
            }
            state.queue.ticket()
        };
        self.shared.work.notify_one();
        let mut progress = self.shared.progress.subscribe();
        let over =
            |progress: &Progress| progress.safe(need) >= ticket || progress.failing.is_some();
        match progress.wait_for(over).await.as_deref() {
            Ok(progress) if progress.safe(need) >= ticket => Ok(()),
            Ok(Progress {
                failing: Some(reason),
                ..
            }) => Err(Degraded::Disk(reason.clone())),
            _ => Err(Degraded::Closed),
        }
    }

    /// How the tier is.
    pub(super) fn health(&self) -> StoreHealth {
        self.shared.progress.borrow().health()
    }
}

impl Drop for Behind {
    fn drop(&mut self) {
        let until = Instant::now() + self.shared.limits.farewell;
        let mut state = self.shared.state.lock();
        state.stop = true;
        self.shared.work.notify_one();
        while !state.ended && !self.shared.room.wait_until(&mut state, until).timed_out() {}
        let (ended, lost) = (state.ended, state.queue.changes().count());
        drop(state);
        if lost > 0 {
            tracing::error!("pages and removals of pages that did not reach the disk: {lost}");
        }
        match self.thread.take() {
            // A panic of the thread was logged where it happened.
            Some(thread) if ended => drop(thread.join()),
            // The process ends, and the thread with it.
            _ => tracing::error!("the disk hangs and is not waited for"),
        }
    }
}

impl<S> Drop for Writer<S> {
    fn drop(&mut self) {
        self.shared.state.lock().ended = true;
        self.shared.room.notify_all();
    }
}

// === impl Shared ===

impl Shared {
    /// Tells how much waits.
    fn measure(&self, queue: &Queue) {
        let bytes = i64::try_from(queue.bytes()).unwrap_or(i64::MAX);
        self.metrics.store_waiting_bytes.set(bytes);
    }

    /// Changes the progress; one line in the log for each turn for the worse or the better.
    fn turn(&self, change: impl FnOnce(&mut Progress)) {
        self.progress.send_modify(|progress| {
            let before = progress.health();
            change(progress);
            let after = progress.health();
            if before.as_str() != after.as_str() {
                match &after {
                    StoreHealth::Ok => {
                        self.metrics.store_healthy.set(1);
                        tracing::info!("pages are kept on disk again");
                    }
                    StoreHealth::Degraded(why) => {
                        self.metrics.store_healthy.set(0);
                        tracing::warn!("pages are served but not kept on disk: {why}");
                    }
                }
            }
        });
    }
}

// === impl Writer ===

impl<S: Sink> Writer<S> {
    fn run(mut self) {
        loop {
            let written = match self.next() {
                Task::Write(round, ticket) => self.write(&round, ticket),
                Task::Sync => self.sync(),
                Task::CalmDown => {
                    self.shared.turn(|progress| progress.full = false);
                    continue;
                }
                Task::Stop => return,
            };
            match written {
                Ok(()) => self.failures = 0,
                Err(failed) if !self.recover(&failed) => return,
                Err(_) => {}
            }
        }
    }

    fn next(&self) -> Task {
        let Limits {
            sync_every, calm, ..
        } = self.shared.limits;
        let mut state = self.shared.state.lock();
        loop {
            if state.stop {
                return Task::Stop;
            }
            let now = Instant::now();
            let calm_at = state.refused.map(|refused| refused + calm);
            if calm_at.is_some_and(|at| now >= at) {
                state.refused = None;
                return Task::CalmDown;
            }
            if let Some(round) = state.queue.begin() {
                return Task::Write(round, state.queue.ticket());
            }
            let sync_at = self.unsynced.map(|since| since + sync_every);
            if sync_at.is_some_and(|at| now >= at) {
                return Task::Sync;
            }
            match sync_at.into_iter().chain(calm_at).min() {
                Some(at) => drop(self.shared.work.wait_until(&mut state, at)),
                None => self.shared.work.wait(&mut state),
            }
        }
    }

    fn write(&mut self, round: &Round, ticket: u64) -> Result<(), DiskError> {
        let began = Instant::now();
        guarded(|| self.sink.commit(round))?;
        self.committed = ticket;
        let since = *self.unsynced.get_or_insert_with(Instant::now);
        let due = round.urgent || since.elapsed() >= self.shared.limits.sync_every;
        if due {
            self.sync()?;
        }
        let took = began.elapsed().as_secs_f64();
        self.shared.metrics.store_write_seconds.observe(took);
        {
            let mut state = self.shared.state.lock();
            state.queue.done();
            self.shared.measure(&state.queue);
        }
        self.shared.room.notify_all();
        self.shared.turn(|progress| {
            progress.committed = ticket;
            progress.failing = None;
        });
        Ok(())
    }

    fn sync(&mut self) -> Result<(), DiskError> {
        guarded(|| self.sink.sync())?;
        self.unsynced = None;
        let synced = self.committed;
        self.shared
            .turn(|progress| (progress.synced, progress.failing) = (synced, None));
        Ok(())
    }

    /// Waits and prepares another attempt, until one may succeed; false when told to stop.
    fn recover(&mut self, failed: &DiskError) -> bool {
        let mut reason: Arc<str> = Arc::from(failed.to_string());
        self.shared.state.lock().queue.put_back();
        loop {
            self.failures = self.failures.saturating_add(1);
            self.shared.turn(|progress| progress.failing = Some(reason));
            // Who has just looked and seen no failure waits by now: it holds the queue until then.
            drop(self.shared.state.lock());
            self.shared.room.notify_all();
            let Limits {
                retry, retry_most, ..
            } = self.shared.limits;
            // Past 2^10 the longest pause decides anyway.
            let pause = (retry * (1 << (self.failures - 1).min(10))).min(retry_most);
            if !self.pause(pause) {
                return false;
            }
            match guarded(|| self.sink.revive()) {
                Ok(()) => {
                    // A write tells that it is well again; where nothing waits, this does.
                    self.unsynced.get_or_insert_with(Instant::now);
                    return true;
                }
                Err(still) => reason = Arc::from(still.to_string()),
            }
        }
    }

    fn pause(&self, span: Duration) -> bool {
        let until = Instant::now() + span;
        let mut state = self.shared.state.lock();
        while !state.stop && Instant::now() < until {
            self.shared.work.wait_until(&mut state, until);
        }
        !state.stop
    }
}

/// A panic in the database is a failure of the disk tier, not the end of its thread.
fn guarded(work: impl FnOnce() -> Result<(), DiskError>) -> Result<(), DiskError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or(Err(DiskError::Panicked))
}

#[cfg(test)]
mod tests;
