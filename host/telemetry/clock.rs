//! `Clock`: the one place where wisr learns what time it is.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use crate::page::Timestamp;

/// Steps of the system's clock that are worth a line: smaller ones are how time servers correct it.
const STEP: Duration = Duration::from_secs(60);

/// The time by which pages age, signatures are checked and dates are told: the system's own at each look, so that
/// it follows a suspended machine and a clock that was set, either way. What waits for a span of time goes by the
/// monotonic clock, not by this one.
#[derive(Debug, Clone, Copy)]
pub struct Clock(Source);

#[derive(Debug, Clone, Copy)]
enum Source {
    System,
    /// What somebody else says that it is, in milliseconds.
    Told(&'static AtomicU64),
    /// Goes on by tokio's clock: under a paused one it stands still until the test advances it.
    Steady {
        base: Timestamp,
        started: Instant,
    },
}

impl Clock {
    /// The system's time.
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that starts at `base`, and knows nothing of the system's.
    pub fn starting_at(base: Timestamp) -> Self {
        Self(Source::Steady {
            base,
            started: Instant::now(),
        })
    }

    /// A clock that is set to `time`, in milliseconds since the Unix epoch, and then to whatever that becomes.
    pub fn told_by(time: &'static AtomicU64) -> Self {
        Self(Source::Told(time))
    }

    /// The time now.
    pub fn now(&self) -> Timestamp {
        match self.0 {
            Source::System => SEEN.look(wall()),
            Source::Told(time) => Timestamp::from_millis(time.load(Ordering::Relaxed)),
            Source::Steady { base, started } => base.plus(started.elapsed()),
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "this is the clock that others are passed"
)]
fn wall() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let millis = since.map_or(0, |span| span.as_millis());
    Timestamp::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
}

/// A machine has one such clock, and so has the process.
static SEEN: Seen = Seen::new();

/// The latest time that was seen, to tell when the clock was set back.
struct Seen {
    latest: AtomicU64,
    steps: AtomicU64,
}

impl Seen {
    const fn new() -> Self {
        Self {
            latest: AtomicU64::new(0),
            steps: AtomicU64::new(0),
        }
    }

    /// The same time. That it is far from the latest that was seen is told once for each step.
    fn look(&self, now: Timestamp) -> Timestamp {
        let latest = Timestamp::from_millis(self.latest.load(Ordering::Relaxed));
        if now >= latest {
            // One store for each millisecond, not for each look: all threads share the line.
            if now > latest {
                self.latest.fetch_max(now.as_millis(), Ordering::Relaxed);
            }
        } else if latest.since(now) > STEP {
            let swapped = self.latest.compare_exchange(
                latest.as_millis(),
                now.as_millis(),
                Ordering::Relaxed,
                Ordering::Relaxed,
            );
            if swapped.is_ok() {
                let steps = self.steps.fetch_add(1, Ordering::Relaxed) + 1;
                let seconds = latest.since(now).as_secs();
                tracing::warn!(
                    seconds,
                    steps,
                    "the system's clock was set back: pages that it says are of the future are made anew"
                );
            }
        }
        now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(seconds * 1_000)
    }

    #[test]
    fn the_clock_is_followed_in_steps_both_ways() {
        let seen = Seen::new();
        // From the last one on it goes by the new time.
        for (now, steps) in [
            (1_000, 0),
            (90_000, 0),
            (89_950, 0),
            (90_001, 0),
            (1_000, 1),
            (1_001, 1),
        ] {
            assert_eq!(seen.look(at(now)), at(now));
            assert_eq!(seen.steps.load(Ordering::Relaxed), steps, "{now}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_steady_clock_goes_by_tokios() {
        let clock = Clock::starting_at(at(7));
        tokio::time::advance(Duration::from_secs(3)).await;
        assert_eq!(clock.now(), at(10));
    }
}
