//! `Hits`: how often an entry was sent from memory.
//!
//! Threads that each send a page often would contend for one number, so each may have a [`Tally`]
//! of its own; only who asks for the sum looks at all of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

/// The count of one entry.
#[derive(Debug, Default)]
pub(super) struct Hits {
    rest: AtomicU64,
    tallies: Mutex<Vec<Arc<AtomicU64>>>,
}

/// A part of a count that one thread adds to. When it is dropped, the count keeps what it has.
#[derive(Debug)]
pub struct Tally(Arc<AtomicU64>);

impl Tally {
    /// One more. Not for several threads at once.
    pub fn count(&self) {
        let counted = self.0.load(Ordering::Relaxed);
        self.0.store(counted + 1, Ordering::Relaxed);
    }
}

impl Hits {
    /// So many more.
    pub(super) fn add(&self, more: u64) {
        self.rest.fetch_add(more, Ordering::Relaxed);
    }

    /// A part for the thread that asks for it.
    pub(super) fn tally(&self) -> Tally {
        let mut tallies = self.tallies.lock();
        // Those that were dropped: a page that loses its place on a thread and gets it back would
        // otherwise leave one more each time.
        tallies.retain(|tally| {
            let is_used = Arc::strong_count(tally) > 1;
            if !is_used {
                self.add(tally.load(Ordering::Relaxed));
            }
            is_used
        });
        let tally = Arc::new(AtomicU64::new(0));
        tallies.push(tally.clone());
        Tally(tally)
    }

    /// All of it.
    pub(super) fn sum(&self) -> u64 {
        let tallies = self.tallies.lock();
        let counted = tallies.iter().map(|tally| tally.load(Ordering::Relaxed));
        counted.sum::<u64>() + self.rest.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_threads_count_is_summed_up_and_outlives_their_tallies() {
        let hits = Hits::default();
        hits.add(5);
        for _ in 0..100 {
            let (one, other) = (hits.tally(), hits.tally());
            one.count();
            other.count();
            other.count();
        }
        assert_eq!(hits.sum(), 305);
        let _kept = hits.tally();
        assert_eq!(hits.tallies.lock().len(), 1);
        assert_eq!(hits.sum(), 305);
    }
}
