//! `Timestamp`: wall-clock time in milliseconds, passed in wherever a rule needs it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Milliseconds since the Unix epoch. Absolute, so that age survives eviction, restart and sharing.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(transparent)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The time `millis` milliseconds after the Unix epoch.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the Unix epoch.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// How long ago `earlier` was; zero when it lies in the future, as after a clock set back.
    pub fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// This time plus `span`, at most the end of time.
    pub fn plus(self, span: Duration) -> Self {
        Self(
            self.0
                .saturating_add(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)),
        )
    }

    /// This time as the standard library's, for HTTP dates.
    pub fn to_system_time(self) -> SystemTime {
        // HTTP dates end with the year 9999; a later time has no representation anyway.
        const YEAR_9999: u64 = 253_402_300_799_000;
        UNIX_EPOCH + Duration::from_millis(self.0.min(YEAR_9999))
    }
}
