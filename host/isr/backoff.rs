//! `Backoffs`: pages whose last generation failed, and when to try again.
//!
//! They are remembered across restarts: a server that is started again and again, because what it
//! reads from is down, must not be what keeps that down.

use std::borrow::Cow;
use std::collections::HashSet;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use lru::LruCache;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::page::{Digest, Failure, FailureKind, PageKey, Revalidate, Timestamp};
use crate::store::{Note, Notes, Tiers};

/// Failing pages remembered; a forgotten one is tried again at once, which is harmless. About
/// 500 bytes each.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(100_000).expect("not zero");

/// A page that renews itself often is retried soon, one that does so rarely not for half a
/// minute; an outage that goes on is asked about every five minutes.
const SOONEST: Duration = Duration::from_secs(3);
const LATEST_FIRST: Duration = Duration::from_secs(30);
const LATEST: Duration = Duration::from_secs(300);

/// The most that is added to a delay, as a part of it.
const JITTER: f64 = 0.1;

/// Bytes of a failure's message that are remembered; the incident has all of it.
const MESSAGE: usize = 200;

/// How long after its time a page that nobody asked for is remembered over a restart: many are of
/// routes that are gone.
const OVERDUE: Duration = Duration::from_secs(3_600);

/// The failing pages.
pub(super) struct Backoffs {
    state: Mutex<State>,
    store: Arc<Tiers>,
}

struct State {
    failing: LruCache<PageKey, Failing>,
    /// Pages made or removed before those of earlier runs are recalled; none from then on.
    overtaken: Option<HashSet<PageKey>>,
}

struct Failing {
    /// A new module is tried at once.
    module: Digest,
    attempts: u32,
    retry_at: Timestamp,
    failure: Arc<Failure>,
}

/// A failing page as it is kept on disk.
#[derive(Serialize, Deserialize)]
struct Kept {
    key: String,
    module: Digest,
    attempts: u32,
    retry_at: Timestamp,
    kind: FailureKind,
    call: Cow<'static, str>,
    message: String,
}

impl Backoffs {
    /// None are known yet; those of earlier runs come with [`Backoffs::recall`].
    pub(super) fn new(store: Arc<Tiers>) -> Self {
        Self {
            state: Mutex::new(State {
                failing: LruCache::new(REMEMBERED),
                overtaken: Some(HashSet::new()),
            }),
            store,
        }
    }

    /// Takes over what earlier runs left, where nothing newer is known. Reads the disk.
    pub(super) fn recall(&self, now: Timestamp) {
        let mut kept: Vec<Kept> = self.store.notes(Notes::Backoffs);
        kept.sort_unstable_by_key(|kept| kept.retry_at);
        for kept in kept {
            let key = PageKey::new(&kept.key, &[]);
            if now.since(kept.retry_at) > OVERDUE {
                self.store.note(Note::Backoff(key), None::<&Kept>);
                continue;
            }
            let failing = Failing {
                module: kept.module,
                attempts: kept.attempts,
                // However far the clock was set back, or what the bytes say.
                retry_at: kept.retry_at.min(now.plus(LATEST.mul_f64(1.0 + JITTER))),
                failure: Arc::new(Failure::new(kept.kind, kept.call, kept.message)),
            };
            let state = &mut *self.state.lock();
            let overtaken = state.overtaken.as_ref();
            if overtaken.is_some_and(|overtaken| overtaken.contains(&key)) {
                self.store.note(Note::Backoff(key), None::<&Kept>);
            } else if !state.failing.contains(&key) {
                self.remember(&mut state.failing, key, failing);
            }
        }
        self.state.lock().overtaken = None;
    }

    /// The failure because of which `module` should not be asked for the page yet.
    pub(super) fn holds(
        &self,
        key: &PageKey,
        module: Digest,
        now: Timestamp,
    ) -> Option<Arc<Failure>> {
        let mut state = self.state.lock();
        let page = state.failing.get(key)?;
        // A clock that was set back must not make the wait longer than any wait is.
        let wait = page.retry_at.since(now);
        let holds = !wait.is_zero() && wait <= LATEST.mul_f64(1.0 + JITTER);
        (page.module == module && holds).then(|| page.failure.clone())
    }

    /// The page failed once more. `jitter` in 0..1.
    pub(super) fn failed(
        &self,
        key: &PageKey,
        module: Digest,
        revalidate: Revalidate,
        now: Timestamp,
        failure: &Failure,
        jitter: f64,
    ) {
        let state = &mut *self.state.lock();
        if let Some(overtaken) = &mut state.overtaken {
            overtaken.remove(key);
        }
        let failing = &mut state.failing;
        let before = failing.get(key).filter(|page| page.module == module);
        let attempts = before.map_or(0, |page| page.attempts).saturating_add(1);
        let retry_at = now.plus(delay(revalidate, attempts, jitter));
        let message = &failure.message[..failure.message.floor_char_boundary(MESSAGE)];
        let kept = Kept {
            key: key.to_string(),
            module,
            attempts,
            retry_at,
            kind: failure.kind,
            call: failure.call.clone(),
            message: message.to_owned(),
        };
        // Under the lock, so that what is kept last is what is known last.
        self.store.note(Note::Backoff(key.clone()), Some(&kept));
        let page = Failing {
            module,
            attempts,
            retry_at,
            // Without what only its incident needs.
            failure: Arc::new(Failure::new(failure.kind, failure.call.clone(), message)),
        };
        self.remember(failing, key.clone(), page);
    }

    /// The page was made, or is gone.
    pub(super) fn forget(&self, key: &PageKey) {
        let mut state = self.state.lock();
        if let Some(overtaken) = &mut state.overtaken {
            overtaken.insert(key.clone());
        }
        if state.failing.pop(key).is_some() {
            self.store.note(Note::Backoff(key.clone()), None::<&Kept>);
        }
    }

    fn remember(&self, known: &mut LruCache<PageKey, Failing>, key: PageKey, page: Failing) {
        let name = key.clone();
        if let Some((out, _)) = known.push(key, page)
            && out != name
        {
            self.store.note(Note::Backoff(out), None::<&Kept>);
        }
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
        .mul_f64(1.0 + JITTER * jitter.clamp(0.0, 1.0))
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

    fn store(folder: Option<&std::path::Path>) -> Arc<Tiers> {
        let config = crate::store::Config {
            memory: 1 << 20,
            folder: folder.map(ToOwned::to_owned),
            disk: crate::store::Space::default(),
        };
        Tiers::open(config, Arc::default()).unwrap()
    }

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn failure() -> Failure {
        Failure::new(FailureKind::Error, "static-props", "no")
    }

    #[test]
    fn a_new_module_and_a_success_end_the_back_off() {
        let backoffs = Backoffs::new(store(None));
        let (old, new) = (Digest::of(b"old"), Digest::of(b"new"));
        let key = PageKey::new("/a", &[]);
        backoffs.failed(&key, old, Revalidate::After(1), at(1_000), &failure(), 0.0);
        assert!(backoffs.holds(&key, old, at(3_999)).is_some());
        assert!(backoffs.holds(&key, old, at(4_000)).is_none());
        assert!(backoffs.holds(&key, new, at(1_000)).is_none());
        backoffs.forget(&key);
        assert!(backoffs.holds(&key, old, at(1_000)).is_none());
    }

    #[tokio::test]
    async fn a_restart_does_not_end_the_back_off_and_neither_does_the_clock_prolong_it() {
        let folder = tempfile::tempdir().unwrap();
        let module = Digest::of(b"module");
        let key = |path| PageKey::new(path, &[]);
        let now = at(10_000_000);
        {
            let store = store(Some(folder.path()));
            let backoffs = Backoffs::new(store.clone());
            for path in ["/a", "/made"] {
                backoffs.failed(&key(path), module, Revalidate::Never, now, &failure(), 0.0);
            }
            backoffs.forget(&key("/made"));
            store.persisted().await.unwrap();
        }
        let store = store(Some(folder.path()));
        let recalled = |now| {
            let backoffs = Backoffs::new(store.clone());
            backoffs.recall(now);
            backoffs
        };
        let again = recalled(at(10_001_000));
        let held = again.holds(&key("/a"), module, at(10_029_999)).unwrap();
        assert_eq!(held.message, "no");
        assert!(again.holds(&key("/a"), module, at(10_030_000)).is_none());
        assert!(again.holds(&key("/made"), module, now).is_none());
        let hour_back = at(10_000_000 - 3_600_000);
        let longest = hour_back.plus(Duration::from_secs(330));
        let set_back = recalled(hour_back);
        assert!(set_back.holds(&key("/a"), module, hour_back).is_some());
        assert!(set_back.holds(&key("/a"), module, longest).is_none());
        // The next failure counts on.
        again.failed(&key("/a"), module, Revalidate::Never, now, &failure(), 0.0);
        assert!(again.holds(&key("/a"), module, at(10_059_999)).is_some());
    }

    #[tokio::test]
    async fn what_was_made_before_the_recall_is_not_held() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(Some(folder.path()));
        let (key, module) = (PageKey::new("/a", &[]), Digest::of(b"module"));
        let earlier = Backoffs::new(store.clone());
        earlier.failed(&key, module, Revalidate::Never, at(0), &failure(), 0.0);
        store.persisted().await.unwrap();
        let backoffs = Backoffs::new(store.clone());
        backoffs.forget(&key);
        backoffs.recall(at(1));
        assert!(backoffs.holds(&key, module, at(1)).is_none());
        store.persisted().await.unwrap();
        assert!(store.notes::<Kept>(Notes::Backoffs).is_empty());
    }

    #[tokio::test]
    async fn what_is_long_overdue_is_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(Some(folder.path()));
        let backoffs = Backoffs::new(store.clone());
        let (key, module) = (PageKey::new("/a", &[]), Digest::of(b"module"));
        backoffs.failed(&key, module, Revalidate::Never, at(0), &failure(), 0.0);
        store.persisted().await.unwrap();
        Backoffs::new(store.clone()).recall(at(30_000 + 3_600_001));
        store.persisted().await.unwrap();
        assert!(store.notes::<Kept>(Notes::Backoffs).is_empty());
    }

    #[test]
    fn kept_back_offs_are_read() {
        let kept: Kept = serde_json::from_str(concat!(
            r#"{"key":"/a?q=1","module":""#,
            "0101010101010101010101010101010101010101010101010101010101010101",
            r#"","attempts":2,"retry_at":7,"kind":"error","call":"render","message":"no"}"#
        ))
        .unwrap();
        assert_eq!((kept.attempts, kept.retry_at), (2, at(7)));
        assert_eq!(kept.module, Digest::from([1; 32]));
    }
}
