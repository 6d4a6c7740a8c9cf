//! `Quota`: keeps the pages on disk within `store.disk`.
//!
//! The least valuable go first, see [`Rank`]. Counting happens behind all responses, on the thread
//! that writes, and only after enough was written to matter: one pass over what pages there are
//! and, where these are too many, a second one that chooses. What the database has not reclaimed
//! yet does not count, so pages may fill [`LIVE_PERCENT`] of the budget: the rest is for garbage.

use std::collections::{BTreeSet, BinaryHeap};
use std::ops::ControlFlow;
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwapOption;

use super::database::Database;
use super::health::DiskError;
use crate::page::{PageKey, Timestamp};
use crate::store::brief::Brief;

/// The part of the budget that pages may fill. Body files are rewritten when 30 % is garbage.
const LIVE_PERCENT: u64 = 70;

/// Above the first part of what pages may fill they are evicted, down to the second. The gap
/// spaces the countings out.
const HIGH_PERCENT: u64 = 90;
const LOW_PERCENT: u64 = 80;

/// Pages that are chosen in one pass, 10 MB of them in memory. What is still too much goes with the
/// next round.
const AT_ONCE: usize = 50_000;

/// The budget of the pages on disk.
pub(super) struct Quota {
    /// Bytes that pages may fill.
    live: u64,
    /// Bytes to be written before the next counting.
    until_census: u64,
    worth: Arc<Worth>,
}

/// How much a page on disk is worth; what is worth least goes first, of equals what was made
/// longest ago. A page that goes is made anew for its next reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// No route shows it.
    Unrouted,
    /// It says that there is no page, or that it is elsewhere.
    NoPage,
    /// A last good page that memory does not hold: nobody asked for it of late.
    Idle,
    /// A last good page that is in use.
    InUse,
}

/// What is known of pages beside their records.
#[derive(Default)]
pub(in crate::store) struct Worth {
    /// The routes that show pages; all of them until somebody says so.
    routes: ArcSwapOption<BTreeSet<Arc<str>>>,
    /// Whether memory holds a page.
    in_use: OnceLock<Box<InUse>>,
}

type InUse = dyn Fn(&PageKey) -> bool + Send + Sync;

/// The pages worth least, just enough of them to free `need` bytes.
#[derive(Debug)]
struct Least {
    need: u64,
    found: u64,
    /// The one worth most of them on top.
    pages: BinaryHeap<(Rank, Timestamp, u64, PageKey)>,
}

impl Worth {
    /// Says which routes show pages.
    pub(in crate::store) fn serve_routes(&self, routes: BTreeSet<Arc<str>>) {
        self.routes.store(Some(Arc::new(routes)));
    }

    /// Says how to tell whether memory holds a page.
    pub(in crate::store) fn ask(&self, in_use: impl Fn(&PageKey) -> bool + Send + Sync + 'static) {
        // There is one memory.
        let _ = self.in_use.set(Box::new(in_use));
    }

    fn rank(&self, brief: &Brief<'_>, key: &PageKey) -> Rank {
        let routes = self.routes.load();
        if routes
            .as_ref()
            .is_some_and(|routes| !routes.contains(brief.route))
        {
            Rank::Unrouted
        } else if !brief.is_document {
            Rank::NoPage
        } else if self.in_use.get().is_some_and(|in_use| in_use(key)) {
            Rank::InUse
        } else {
            Rank::Idle
        }
    }
}

impl Quota {
    /// A quota of `disk` bytes; the first write counts what is there.
    pub(super) fn new(disk: u64, worth: Arc<Worth>) -> Self {
        Self {
            live: disk / 100 * LIVE_PERCENT,
            until_census: 0,
            worth,
        }
    }

    /// Evicts pages after `written` bytes were written, if it is time; how many.
    pub(super) fn enforce(&mut self, database: &Database, written: u64) -> Result<u64, DiskError> {
        self.until_census = self.until_census.saturating_sub(written);
        if self.until_census > 0 {
            return Ok(0);
        }
        let (high, low) = (self.part(HIGH_PERCENT), self.part(LOW_PERCENT));
        self.until_census = (self.live / 10).max(1);
        let mut total = 0;
        let count = database.survey().rest(|_, size| {
            total += size;
            ControlFlow::Continue(())
        });
        count?;
        let mut evicted = 0;
        if total > high {
            let mut least = Least::new(total - low);
            let found = database.survey().rest(|brief, size| {
                let key = brief.page_key();
                let rank = self.worth.rank(&brief, &key);
                least.offer(rank, brief.stamp.generated, size, key);
                ControlFlow::Continue(())
            });
            found?;
            evicted = u64::try_from(least.pages.len()).unwrap_or(u64::MAX);
            total = total.saturating_sub(least.found);
            database.remove(least.pages.into_iter().map(|(.., key)| key))?;
        }
        // Still too much, if more was to go than is chosen at once.
        let spare = high.saturating_sub(total);
        self.until_census = if total > high {
            0
        } else {
            self.until_census.max(spare)
        };
        Ok(evicted)
    }

    fn part(&self, percent: u64) -> u64 {
        self.live / 100 * percent
    }
}

impl Least {
    fn new(need: u64) -> Self {
        Self {
            need,
            found: 0,
            pages: BinaryHeap::new(),
        }
    }

    fn offer(&mut self, rank: Rank, generated: Timestamp, size: u64, key: PageKey) {
        let most = self.pages.peek().map(|(rank, made, ..)| (*rank, *made));
        let is_enough = self.found >= self.need || self.pages.len() >= AT_ONCE;
        if is_enough && most.is_some_and(|most| most <= (rank, generated)) {
            return;
        }
        self.pages.push((rank, generated, size, key));
        self.found += size;
        while let Some((_, _, size, _)) = self.pages.peek()
            && (self.found - size >= self.need || self.pages.len() > AT_ONCE)
        {
            self.found -= size;
            self.pages.pop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::Content;
    use crate::store::conformance::{document, entry};

    #[test]
    fn just_enough_of_the_oldest_are_found_in_any_order() {
        let mut ages: Vec<u64> = (0..1_000).collect();
        for _ in 0..20 {
            fastrand::shuffle(&mut ages);
            let mut least = Least::new(95);
            for age in &ages {
                let key = PageKey::new(&format!("/{age}"), &[]);
                least.offer(Rank::Idle, Timestamp::from_millis(*age), 10, key);
            }
            let mut found: Vec<u64> = least
                .pages
                .iter()
                .map(|(_, generated, ..)| generated.as_millis())
                .collect();
            found.sort_unstable();
            assert_eq!(found, (0..10).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_quota_made_much_smaller_is_reached_in_steps_of_bounded_memory() {
        let mut least = Least::new(u64::MAX / 2);
        for age in (0..2 * AT_ONCE as u64).rev() {
            let key = PageKey::new("/", &[]);
            least.offer(Rank::Idle, Timestamp::from_millis(age), 10, key);
            assert!(least.pages.len() <= AT_ONCE);
        }
        let newest = least.pages.peek().map(|(_, made, ..)| made.as_millis());
        assert_eq!(newest, Some(AT_ONCE as u64 - 1));
    }

    #[test]
    fn what_readers_need_least_goes_first() {
        let worth = Worth::default();
        let rank = |entry: crate::page::Entry| worth.rank(&Brief::of(&entry), &entry.key);
        let mut unrouted = document("/gone", 9, "text");
        unrouted.route = Arc::from("/gone");
        assert_eq!(
            rank(unrouted),
            Rank::Idle,
            "nobody said which routes there are"
        );
        worth.serve_routes([Arc::from("/posts/[id]")].into());
        worth.ask(|key| key.as_str() == "/liked");
        let mut unrouted = document("/liked", 9, "text");
        unrouted.route = Arc::from("/gone");
        let mut ranks = vec![
            rank(document("/liked", 1, "text")),
            rank(document("/a", 1, "text")),
            rank(entry("/b", 9, Content::NotFound)),
            rank(unrouted),
        ];
        ranks.sort();
        let order = [Rank::Unrouted, Rank::NoPage, Rank::Idle, Rank::InUse];
        assert_eq!(ranks, order);
        assert!(Rank::Unrouted < Rank::NoPage && Rank::Idle < Rank::InUse);
    }
}
