//! `Parts`: which of a Cluster's keys are asked for at all.
//!
//! A Cluster that has lost a node has all others. So it is not the breaker that opens for what fails
//! there: its slots are counted in parts, and a part that only fails rests. Now and then one command
//! tries it.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use super::Lane;
use super::breaker::PATIENCE;
use crate::page::Timestamp;

/// Slots of a Cluster (Redis Cluster specification, "Key distribution model").
const SLOTS: usize = 16_384;

/// How many parts: few, so that a lost node is soon known for lost; many enough that some of them
/// have no slot of it.
const PARTS: usize = 16;

/// How long a part rests before it is tried again: one of its readers waits for that.
const REST: Duration = Duration::from_secs(1);

/// All parts, for both lanes.
#[derive(Default)]
pub(super) struct Parts([[Part; PARTS]; 2]);

/// Slots next to each other.
#[derive(Default)]
pub(super) struct Part {
    /// In a row.
    failures: AtomicU32,
    /// Until when it is not asked, in milliseconds since the Unix epoch; 0 while it is.
    rests_until: AtomicU64,
}

impl Parts {
    /// The part that a key with this tag is in.
    pub(super) fn of(&self, lane: Lane, tag: &[u8]) -> &Part {
        let slot = usize::from(crc16::State::<crc16::XMODEM>::calculate(tag)) % SLOTS;
        &self.0[lane as usize][slot * PARTS / SLOTS]
    }

    /// The share of the Cluster that rests, in percent.
    pub(super) fn resting(&self) -> usize {
        let [control, pages] = &self.0;
        let both = control.iter().zip(pages);
        let resting = both.filter(|(control, pages)| control.rests() || pages.rests());
        resting.count() * 100 / PARTS
    }
}

impl Part {
    fn rests(&self) -> bool {
        self.rests_until.load(Ordering::Relaxed) > 0
    }

    /// Whether it may be asked; after each rest, by one.
    pub(super) fn may_be_asked(&self, now: Timestamp) -> bool {
        let until = self.rests_until.load(Ordering::Relaxed);
        if until == 0 {
            return true;
        }
        let next = now.plus(REST).as_millis();
        let swap = |until| {
            let order = Ordering::Relaxed;
            self.rests_until
                .compare_exchange(until, next, order, order)
                .is_ok()
        };
        until <= now.as_millis() && swap(until)
    }

    /// It answered; whether it had not for long.
    pub(super) fn succeeded(&self) -> bool {
        self.failures.store(0, Ordering::Relaxed);
        self.rests_until.swap(0, Ordering::Relaxed) > 0
    }

    /// It did not; whether it rests from here on.
    pub(super) fn failed(&self, now: Timestamp) -> bool {
        let failures = self.failures.fetch_add(1, Ordering::Relaxed) + 1;
        let next = now.plus(REST).as_millis();
        failures >= PATIENCE && self.rests_until.swap(next, Ordering::Relaxed) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_that_only_fails_rests_and_is_tried_by_one() {
        let parts = Parts::default();
        let part = parts.of(Lane::Pages, b"one");
        let at = Timestamp::from_millis;
        for _ in 1..PATIENCE {
            assert!(!part.failed(at(1)) && part.may_be_asked(at(1)));
        }
        assert!(part.failed(at(1)));
        assert_eq!(parts.resting(), 100 / PARTS);
        assert!(!part.may_be_asked(at(1_000)));
        assert!(part.may_be_asked(at(1_001)) && !part.may_be_asked(at(1_001)));
        assert!(!part.failed(at(1_100)) && !part.may_be_asked(at(2_000)));
        assert!(part.may_be_asked(at(2_100)));
        assert!(part.succeeded() && part.may_be_asked(at(2_100)));
        assert_eq!(parts.resting(), 0);
    }

    #[test]
    fn keys_are_in_the_part_that_has_their_slot() {
        let parts = Parts::default();
        // CLUSTER KEYSLOT says 12739 of this tag, and 0 of the empty one.
        let number = |tag: &[u8]| {
            let part = parts.of(Lane::Control, tag);
            let is_it = |other: &&Part| std::ptr::eq(*other, part);
            parts.0[0].iter().position(|other| is_it(&other))
        };
        assert_eq!(number(b"123456789"), Some(12_739 * PARTS / SLOTS));
        assert_eq!(number(b""), Some(0));
    }
}
