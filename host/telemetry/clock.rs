//! `Clock`: the one place where wisr learns what time it is.

use std::time::UNIX_EPOCH;

use tokio::time::Instant;

use crate::page::Timestamp;

/// Wall-clock time that only moves forward: read once from the system, then advanced by the
/// monotonic clock, so that a system clock set back cannot make a running server's pages young
/// again. Under a paused tokio clock it stands still until the test advances it.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    base: Timestamp,
    started: Instant,
}

impl Clock {
    /// A clock that starts at the system's time.
    pub fn system() -> Self {
        #[expect(
            clippy::disallowed_methods,
            reason = "this is the clock that others are passed"
        )]
        let now = std::time::SystemTime::now();
        let millis = now
            .duration_since(UNIX_EPOCH)
            .map_or(0, |span| span.as_millis());
        Self::starting_at(Timestamp::from_millis(
            u64::try_from(millis).unwrap_or(u64::MAX),
        ))
    }

    /// A clock that starts at `base`.
    pub fn starting_at(base: Timestamp) -> Self {
        Self {
            base,
            started: Instant::now(),
        }
    }

    /// The time now.
    pub fn now(&self) -> Timestamp {
        self.base.plus(self.started.elapsed())
    }
}
