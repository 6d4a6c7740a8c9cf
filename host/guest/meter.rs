//! `Meter`: how long a generation may run, measured where it runs.

use std::any::Any;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// The CPU time of one generation: that of its thread, summed over the polls of its future, which
/// is where a guest runs. Ticks of a timer would charge a guest for time that others had.
#[derive(Debug, Clone, Default)]
pub(super) struct Meter(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    spent: AtomicU64,
    /// The thread's CPU time when the running poll began.
    since: AtomicU64,
}

/// How a generation was cut short, apart from what the guest itself did.
#[derive(Debug)]
pub(super) enum Cut {
    /// Its wall time was over.
    Wall,
    /// The host panicked; the message.
    Panic(String),
}

impl Meter {
    /// The CPU time spent, when no poll is running.
    pub(super) fn spent(&self) -> Duration {
        Duration::from_nanos(self.0.spent.load(Ordering::Relaxed))
    }

    /// The CPU time spent, asked from within a poll.
    pub(super) fn spent_now(&self) -> Duration {
        let poll = thread_nanos().saturating_sub(self.0.since.load(Ordering::Relaxed));
        self.spent() + Duration::from_nanos(poll)
    }

    /// Runs `work` for at most `wall`, adding up its CPU time. A panic ends this work alone.
    pub(super) async fn run<F: Future>(&self, wall: Duration, work: F) -> Result<F::Output, Cut> {
        let mut work = pin!(work);
        let metered = poll_fn(|cx| {
            let start = thread_nanos();
            self.0.since.store(start, Ordering::Relaxed);
            let polled = catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(cx)));
            let spent = thread_nanos().saturating_sub(start);
            self.0.spent.fetch_add(spent, Ordering::Relaxed);
            match polled {
                Ok(poll) => poll.map(Ok),
                Err(panic) => Err(Cut::Panic(words(&*panic))).into(),
            }
        });
        tokio::time::timeout(wall, metered)
            .await
            .unwrap_or(Err(Cut::Wall))
    }
}

/// What a panic said.
pub(super) fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("a panic without words")
        .to_owned()
}

fn thread_nanos() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let nanos = i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec);
    u64::try_from(nanos).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn a_panic_ends_the_work_alone() {
        let cut = Meter::default()
            .run(MINUTE, async { panic!("oh {}", "no") })
            .await;
        assert!(matches!(cut, Err(Cut::Panic(words)) if words == "oh no"));
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_costs_wall_time_and_no_cpu() {
        let meter = Meter::default();
        let cut = meter.run(MINUTE, tokio::time::sleep(2 * MINUTE)).await;
        assert!(matches!(cut, Err(Cut::Wall)));
        assert!(meter.spent() < Duration::from_millis(100));
    }

    #[tokio::test]
    async fn cpu_time_is_summed_over_polls() {
        let meter = Meter::default();
        let burn = async {
            for _ in 0..3 {
                let before = meter.spent_now();
                while meter.spent_now() < before + Duration::from_millis(5) {}
                tokio::task::yield_now().await;
            }
        };
        meter.run(MINUTE, burn).await.unwrap();
        assert!(meter.spent() >= Duration::from_millis(15));
    }
}
