//! `Tally`: pages made ahead of their readers, behind everybody who waits for one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::{StreamExt, stream};
use parking_lot::Mutex;

use super::generation::Before;
use super::queue::Priority;
use super::{Ask, Inner, Isr, Refused};
use crate::page::{Cause, Failure, Freshness, PageKey, Stamped};

/// Failures that a tally keeps: as many as there are incidents that tell more of them.
const FAILURES: usize = 1_000;

/// The pause after a page was pushed out of the queue by readers: their generations are over
/// within moments, or they are so many that a page more or less at once does not matter.
const PUSHED_OUT: Duration = Duration::from_millis(100);

/// Pages that are looked up at once: reading a record costs less than asking for it.
const LOOKED_UP: usize = 64;

/// When a page is asked for again that failed a moment ago.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// After its back-off, as for readers.
    WhenDue,
    /// At once: a person asks, who may have mended it.
    AtOnce,
}

/// How far the making of listed pages has come. Bounded, however many pages there are.
#[derive(Debug, Default)]
pub struct Tally {
    listed: AtomicU64,
    made: AtomicU64,
    fresh: AtomicU64,
    failed: AtomicU64,
    failures: Mutex<Vec<(PageKey, Arc<Failure>)>>,
}

/// A tally at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    /// Pages listed so far.
    pub listed: u64,
    /// Pages made.
    pub made: u64,
    /// Pages that were fresh already.
    pub fresh: u64,
    /// Pages that could not be made.
    pub failed: u64,
}

/// What became of one page.
enum Ahead {
    Made,
    Fresh,
    Failed(Arc<Failure>),
}

// === impl Tally ===

impl Tally {
    /// So many more pages are listed.
    pub fn list(&self, pages: u64) {
        self.listed.fetch_add(pages, Ordering::Relaxed);
    }

    /// One page less is listed: it is another route's.
    pub fn strike(&self) {
        self.listed.fetch_sub(1, Ordering::Relaxed);
    }

    /// The numbers.
    pub fn count(&self) -> Count {
        let read = |number: &AtomicU64| number.load(Ordering::Relaxed);
        Count {
            made: read(&self.made),
            fresh: read(&self.fresh),
            failed: read(&self.failed),
            listed: read(&self.listed),
        }
    }

    /// The first pages that could not be made, and why: 1,000 at most.
    pub fn failures(&self) -> Vec<(PageKey, Arc<Failure>)> {
        self.failures.lock().clone()
    }

    fn note(&self, key: PageKey, ahead: Ahead) {
        let number = match &ahead {
            Ahead::Made => &self.made,
            Ahead::Fresh => &self.fresh,
            Ahead::Failed(_) => &self.failed,
        };
        if let Ahead::Failed(failure) = ahead {
            let mut failures = self.failures.lock();
            if failures.len() < FAILURES {
                failures.push((key, failure));
            }
        }
        number.fetch_add(1, Ordering::Relaxed);
    }
}

impl Count {
    /// Pages of which it is known what became of them.
    pub fn done(&self) -> u64 {
        self.made + self.fresh + self.failed
    }
}

// === making ===

impl Isr {
    /// Makes those pages that are missing or stale, behind everybody who waits for one. What was
    /// made before this is dropped stays.
    pub async fn prerender(
        &self,
        asks: impl IntoIterator<Item = Ask>,
        retry: Retry,
        tally: &Tally,
    ) {
        let known = stream::iter(asks)
            .chunks(LOOKED_UP)
            .then(|asks| self.0.clone().look_up(asks))
            .map(stream::iter)
            .flatten();
        let make = async |(ask, stamp): (Ask, Option<Stamped>)| {
            let key = ask.key.clone();
            let ahead = self.0.prerender(ask, stamp, retry).await;
            tally.note(key, ahead);
        };
        let places = self.0.config.ahead();
        known.for_each_concurrent(places, make).await;
    }
}

impl Inner {
    async fn look_up(self: Arc<Self>, asks: Vec<Ask>) -> Vec<(Ask, Option<Stamped>)> {
        let keys = asks.iter().map(|ask| ask.key.clone()).collect();
        let stamps = self.parts.store.stamps(keys).await;
        // Of a store that fails, nothing is known.
        let stamps = stamps.into_iter().chain(std::iter::repeat(None));
        asks.into_iter().zip(stamps).collect()
    }

    async fn prerender(self: &Arc<Self>, ask: Ask, stamp: Option<Stamped>, retry: Retry) -> Ahead {
        let store = &self.parts.store;
        // Never closed, so always held.
        let _place = self.ahead.acquire().await;
        let judged = stamp.as_ref().map(|(route, stamp)| {
            self.judge_stamp(&ask.page, &ask.key, (route, stamp), self.now())
        });
        if matches!(judged, Some(Freshness::Fresh(_))) {
            return Ahead::Fresh;
        }
        let before = match stamp {
            Some(_) => Before::Unknown,
            None => Before::Nothing,
        };
        let module = ask.page.renderer.module();
        let held = || self.backoffs.holds(&ask.key, module, self.now());
        if retry == Retry::WhenDue
            && let Some(failure) = held()
        {
            return Ahead::Failed(failure);
        }
        // Pages are made faster than some disks take them, and nobody waits for these.
        store.room().await;
        loop {
            let least = store.path_mark(&ask.key);
            let (priority, cause) = (Priority::Background, Cause::Build);
            let (wait, _) = self.launch_after(before, ask.clone(), least, priority, cause);
            match self.landed(wait, Duration::MAX).await {
                Ok(_) => return Ahead::Made,
                Err(Refused::Failed(failure)) => return Ahead::Failed(failure),
                Err(
                    Refused::Overloaded { .. }
                    | Refused::Throttled { .. }
                    | Refused::NeverGenerated,
                ) => {
                    tokio::time::sleep(PUSHED_OUT).await;
                }
            }
        }
    }
}
