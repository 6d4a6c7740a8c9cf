//! `Replays`: deliveries that were taken, so that nobody who has seen one sends it again.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::page::{Digest, Timestamp};

/// Deliveries that are remembered, of all webhooks together: 30 a second for five minutes, in
/// less than 1 MiB. Beyond it those go that would soonest be too old anyway.
const MAX: usize = 10_000;

/// What tells one delivery from every other: its signature, and the webhook that it came to. A
/// sender may tell two of them the same, under one secret.
type Delivery = Digest;

/// The deliveries of the last minutes. In memory: after a restart, one that was seen can be sent
/// again until it is too old, and has pages made anew from what their sources say by then.
#[derive(Debug, Clone, Default)]
pub(super) struct Replays(Arc<Mutex<HashMap<Delivery, Timestamp>>>);

/// A delivery that is being worked on. Dropped, it may be sent again: it came to nothing.
#[derive(Debug)]
pub(super) struct Taken {
    replays: Replays,
    delivery: Option<Delivery>,
}

impl Replays {
    /// Takes a delivery to `webhook` that would be valid `until` then; none if it was taken already.
    pub(super) fn take(
        &self,
        (webhook, signature): (&str, [u8; 32]),
        until: Timestamp,
        now: Timestamp,
    ) -> Option<Taken> {
        let delivery = Digest::of(&[webhook.as_bytes(), &signature].concat());
        let mut all = self.0.lock();
        if all.contains_key(&delivery) {
            return None;
        }
        if all.len() >= MAX {
            all.retain(|_, until| *until >= now);
            let oldest = all.iter().min_by_key(|(_, until)| **until);
            if let Some(oldest) = oldest.map(|(delivery, _)| *delivery)
                && all.len() >= MAX
            {
                all.remove(&oldest);
            }
        }
        all.insert(delivery, until);
        Some(Taken {
            replays: self.clone(),
            delivery: Some(delivery),
        })
    }
}

impl Taken {
    /// It is done, and not to be taken again.
    pub(super) fn done(mut self) {
        self.delivery = None;
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        if let Some(delivery) = self.delivery {
            self.replays.0.lock().remove(&delivery);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    #[test]
    fn a_delivery_is_taken_once_unless_it_came_to_nothing() {
        let replays = Replays::default();
        let taken = replays.take(("a", [1; 32]), at(9), at(0)).unwrap();
        assert!(replays.take(("a", [1; 32]), at(9), at(0)).is_none());
        drop(taken);
        replays.take(("a", [1; 32]), at(9), at(0)).unwrap().done();
        assert!(replays.take(("a", [1; 32]), at(9), at(0)).is_none());
        assert!(replays.take(("a", [2; 32]), at(9), at(0)).is_some());
        let other = ("b", [1; 32]);
        assert!(replays.take(other, at(9), at(0)).is_some());
    }

    #[test]
    fn what_is_remembered_is_bounded_and_the_latest_are() {
        let replays = Replays::default();
        let signature = |number: usize| {
            let mut bytes = [0; 32];
            bytes[..8].copy_from_slice(&number.to_le_bytes());
            bytes
        };
        for number in 0..MAX + 100 {
            let until = at(number as u64);
            replays
                .take(("a", signature(number)), until, at(0))
                .unwrap()
                .done();
        }
        assert_eq!(replays.0.lock().len(), MAX);
        let again = |number| {
            replays
                .take(("a", signature(number)), at(1 << 40), at(0))
                .is_some()
        };
        assert!(again(99) && !again(MAX + 99));
        replays
            .take(("a", [6; 32]), at(1 << 40), at(0))
            .unwrap()
            .done();
        // Those that are too old make room.
        let now = at(MAX as u64 + 200);
        replays
            .take(("a", [7; 32]), at(1 << 40), now)
            .unwrap()
            .done();
        assert!(replays.0.lock().len() < 5);
    }
}
