//! `Backoffs`: pages whose last generation failed, and when to try again.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use lru::LruCache;
use parking_lot::Mutex;

use crate::page::{Digest, Failure, PageKey, Revalidate, Timestamp};

/// Failing pages remembered; a forgotten one is tried again at once, which is harmless. About
/// 200 bytes each.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(100_000).expect("not zero");

/// A page that renews itself often is retried soon, one that does so rarely not for half a
/// minute; an outage that goes on is asked about every five minutes.
const SOONEST: Duration = Duration::from_secs(3);
const LATEST_FIRST: Duration = Duration::from_secs(30);
const LATEST: Duration = Duration::from_secs(300);

/// The failing pages.
pub(super) struct Backoffs {
    failing: Mutex<LruCache<PageKey, Failing>>,
}

struct Failing {
    /// A new module is tried at once.
    module: Digest,
    attempts: u32,
    retry_at: Timestamp,
    failure: Arc<Failure>,
}

impl Backoffs {
    pub(super) fn new() -> Self {
        Self {
            failing: Mutex::new(LruCache::new(REMEMBERED)),
        }
    }

    /// The failure because of which `module` should not be asked for the page yet.
    pub(super) fn holds(
        &self,
        key: &PageKey,
        module: Digest,
        now: Timestamp,
    ) -> Option<Arc<Failure>> {
        let mut failing = self.failing.lock();
        let page = failing.get(key)?;
        (page.module == module && now < page.retry_at).then(|| page.failure.clone())
    }

    /// The page failed once more. `jitter` in 0..1.
    pub(super) fn failed(
        &self,
        key: &PageKey,
        module: Digest,
        revalidate: Revalidate,
        now: Timestamp,
        failure: &Arc<Failure>,
        jitter: f64,
    ) {
        let mut failing = self.failing.lock();
        let before = failing.get(key).filter(|page| page.module == module);
        let attempts = before.map_or(0, |page| page.attempts).saturating_add(1);
        let retry_at = now.plus(delay(revalidate, attempts, jitter));
        failing.put(
            key.clone(),
            Failing {
                module,
                attempts,
                retry_at,
                failure: failure.clone(),
            },
        );
    }

    /// The page was made, or is gone.
    pub(super) fn forget(&self, key: &PageKey) {
        self.failing.lock().pop(key);
    }
}

/// clamp(revalidate, 3 s, 30 s), doubled with each further attempt up to 5 minutes, and up to
/// 10 % more, so that pages that failed together do not return together.
fn delay(revalidate: Revalidate, attempts: u32, jitter: f64) -> Duration {
    let first = match revalidate {
        Revalidate::Never => LATEST_FIRST,
        Revalidate::After(seconds) => {
            Duration::from_secs(u64::from(seconds)).clamp(SOONEST, LATEST_FIRST)
        }
    };
    // Past 2^7 the cap decides anyway.
    let doublings = attempts.saturating_sub(1).min(7);
    (first * (1 << doublings))
        .min(LATEST)
        .mul_f64(1.0 + 0.1 * jitter.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::FailureKind;

    #[test]
    fn delays() {
        let secs = |revalidate, attempts| delay(revalidate, attempts, 0.0).as_secs();
        assert_eq!(secs(Revalidate::After(1), 1), 3);
        assert_eq!(secs(Revalidate::After(5), 1), 5);
        assert_eq!(secs(Revalidate::After(45), 1), 30);
        assert_eq!(secs(Revalidate::Never, 1), 30);
        assert_eq!(
            [2, 3, 4, 5, 6, 7, 8].map(|n| secs(Revalidate::After(5), n)),
            [10, 20, 40, 80, 160, 300, 300]
        );
        assert_eq!(secs(Revalidate::After(5), u32::MAX), 300);
        assert_eq!(
            delay(Revalidate::After(10), 1, 1.0),
            Duration::from_secs(11)
        );
    }

    #[test]
    fn a_new_module_and_a_success_end_the_back_off() {
        let backoffs = Backoffs::new();
        let (old, new) = (Digest::of(b"old"), Digest::of(b"new"));
        let key = PageKey::new("/a", &[]);
        let now = Timestamp::from_millis(1_000);
        let failure = Arc::new(Failure::new(FailureKind::Error, "static-props", "no"));
        backoffs.failed(&key, old, Revalidate::After(1), now, &failure, 0.0);
        assert!(
            backoffs
                .holds(&key, old, Timestamp::from_millis(3_999))
                .is_some()
        );
        assert!(
            backoffs
                .holds(&key, old, Timestamp::from_millis(4_000))
                .is_none()
        );
        assert!(backoffs.holds(&key, new, now).is_none());
        backoffs.forget(&key);
        assert!(backoffs.holds(&key, old, now).is_none());
    }
}
