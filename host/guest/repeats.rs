//! `Repeats`: what a route writes to stderr over and over, which the log has once in a while.
//!
//! A page that fails at each request says why at each: without this, the flood in the log is as long as that of
//! requests. Its incident has how often it failed; what a page says by `host.log` and on stdout is untouched.

use std::hash::{BuildHasher, RandomState};
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use lru::LruCache;
use parking_lot::Mutex;

/// Lines that are remembered, of all routes. A forgotten one is told again, which is harmless.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(1_000).expect("not zero");

/// What was not said for so long is news.
const QUIET: Duration = Duration::from_secs(3_600);

/// The lines said lately.
#[derive(Debug)]
pub(super) struct Repeats {
    said: Mutex<LruCache<u64, Said>>,
    hasher: RandomState,
}

#[derive(Debug)]
struct Said {
    times: u64,
    last: Instant,
}

impl Default for Repeats {
    fn default() -> Self {
        Self {
            said: Mutex::new(LruCache::new(REMEMBERED)),
            hasher: RandomState::default(),
        }
    }
}

impl Repeats {
    /// How often `route` has said this, if the log is to have it now: the first time, the tenth, the hundredth
    /// and so on.
    pub(super) fn told(&self, route: &str, line: &[u8], now: Instant) -> Option<u64> {
        let key = self.hasher.hash_one((route, line));
        let mut all = self.said.lock();
        let said = all.get_or_insert_mut(key, || Said {
            times: 0,
            last: now,
        });
        if now.saturating_duration_since(said.last) > QUIET {
            said.times = 0;
        }
        said.last = now;
        said.times += 1;
        let times = said.times;
        times
            .checked_ilog10()
            .is_some_and(|log| times == 10_u64.pow(log))
            .then_some(times)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_told_at_growing_intervals() {
        let (repeats, start) = (Repeats::default(), Instant::now());
        let told = (1..=1_100).filter_map(|_| repeats.told("/a", b"no water", start));
        assert_eq!(told.collect::<Vec<_>>(), [1, 10, 100, 1_000]);
        assert_eq!(repeats.told("/a", b"no fire", start), Some(1));
        assert_eq!(repeats.told("/b", b"no water", start), Some(1));
        assert_eq!(repeats.told("/a", b"no water", start + QUIET), None);
        assert_eq!(repeats.told("/a", b"no water", start + 3 * QUIET), Some(1));
    }
}
