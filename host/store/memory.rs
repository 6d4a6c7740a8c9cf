//! `Memory`: the tier that hits are served from.
//!
//! Bounded by bytes, split into shards so that cores seldom meet at a lock, and in two segments
//! so that a crawler cannot flush it: an entry starts on probation and is protected from its
//! second hit on; what was seen once goes first.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use lru::LruCache;
use parking_lot::Mutex;

use super::hits::{Hits, Tally};
use super::{Brief, Store, Unkept, Window};
use crate::page::{Entry, PageKey, Summary};
use crate::telemetry::metrics::Metrics;

/// Enough that a few dozen cores rarely meet; a power of two.
const SHARDS: usize = 64;

/// The part of the budget that protected entries may fill: the rest is where new pages prove
/// themselves.
const PROTECTED_PERCENT: usize = 80;

/// The memory tier.
pub(super) struct Memory {
    shards: Box<[Mutex<Shard>]>,
    hasher: RandomState,
    budget: usize,
    bytes: AtomicUsize,
    /// The shard that gives up an entry next: in turn, so that the oldest go first everywhere.
    hand: AtomicUsize,
    metrics: Arc<Metrics>,
}

struct Shard {
    probation: LruCache<PageKey, Arc<Kept>>,
    protected: LruCache<PageKey, Arc<Kept>>,
    protected_bytes: usize,
}

#[derive(Clone, Copy)]
enum Segment {
    Probation,
    Protected,
}

/// An entry in memory, which says itself when it no longer is: who keeps one needs no look into
/// the tier to know that it is still what the tier has.
pub struct Kept {
    entry: Arc<Entry>,
    weight: usize,
    let_go: AtomicBool,
    hits: Hits,
}

impl Kept {
    fn new(entry: Arc<Entry>, weight: usize) -> Arc<Self> {
        Arc::new(Self {
            entry,
            weight,
            let_go: AtomicBool::new(false),
            hits: Hits::default(),
        })
    }

    /// The entry.
    pub fn entry(&self) -> &Arc<Entry> {
        &self.entry
    }

    /// What the entry takes of the budget, in bytes.
    pub fn weight(&self) -> usize {
        self.weight
    }

    /// Counts that it was sent.
    pub fn count_hit(&self) {
        self.hits.add(1);
    }

    /// Counts how often one thread sends it, which others then do not notice.
    pub fn tally(&self) -> Tally {
        self.hits.tally()
    }

    /// How often the page was sent from memory since it came there.
    pub fn hits(&self) -> u64 {
        self.hits.sum()
    }

    /// Whether the tier would still answer with it. Once it is replaced, removed or evicted it
    /// never is again.
    pub fn is_current(&self) -> bool {
        !self.let_go.load(Ordering::Acquire)
    }

    /// To be called under the shard's lock: what comes in its place may be acknowledged as soon as
    /// the lock is free.
    fn let_go(&self) {
        self.let_go.store(true, Ordering::Release);
    }
}

impl Memory {
    /// An empty tier of at most `budget` bytes.
    pub(super) fn new(budget: usize, metrics: Arc<Metrics>) -> Self {
        let shard = || {
            Mutex::new(Shard {
                probation: LruCache::unbounded(),
                protected: LruCache::unbounded(),
                protected_bytes: 0,
            })
        };
        Self {
            shards: (0..SHARDS).map(|_| shard()).collect(),
            hasher: RandomState::new(),
            budget,
            bytes: AtomicUsize::new(0),
            hand: AtomicUsize::new(0),
            metrics,
        }
    }

    /// Whether the page is in memory: used of late, or just made.
    pub(super) fn holds(&self, key: &PageKey) -> bool {
        let shard = self.shard(key).lock();
        shard.protected.contains(key) || shard.probation.contains(key)
    }

    fn shard(&self, key: &PageKey) -> &Mutex<Shard> {
        // The upper bits: the lower ones choose the bucket inside the shard's own table.
        let hash = self.hasher.hash_one(key) >> 32;
        &self.shards[usize::try_from(hash).unwrap_or(0) % SHARDS]
    }

    fn protected_budget(&self) -> usize {
        self.budget / SHARDS * PROTECTED_PERCENT / 100
    }

    /// The same of who only looks: the page does not count as used for it.
    pub(super) fn peek(&self, key: &PageKey) -> Option<Arc<Kept>> {
        let shard = self.shard(key).lock();
        let kept = shard.protected.peek(key);
        kept.or_else(|| shard.probation.peek(key)).cloned()
    }

    /// What the tier has of a page.
    pub(super) fn kept(&self, key: &PageKey) -> Option<Arc<Kept>> {
        self.shard(key).lock().get(key, self.protected_budget())
    }

    fn account(&self, added: usize, removed: usize, entries: i64) {
        self.bytes.fetch_add(added, Ordering::Relaxed);
        let before = self.bytes.fetch_sub(removed, Ordering::Relaxed);
        let bytes = i64::try_from(before.saturating_sub(removed)).unwrap_or(i64::MAX);
        self.metrics.memory_bytes.set(bytes);
        self.metrics.memory_entries.inc_by(entries);
    }

    /// Gives up entries, a shard at a time, until the budget holds: protected ones only when
    /// none is on probation anywhere. `newest` just came in.
    fn evict(&self, newest: &PageKey) {
        for segment in [Segment::Probation, Segment::Protected] {
            let mut idle_shards = 0;
            while self.bytes.load(Ordering::Relaxed) > self.budget && idle_shards < SHARDS {
                let hand = self.hand.fetch_add(1, Ordering::Relaxed) % SHARDS;
                match self.shards[hand].lock().pop_least(segment, newest) {
                    Some(kept) => {
                        self.account(0, kept.weight, -1);
                        self.metrics.evictions.inc();
                        idle_shards = 0;
                    }
                    None => idle_shards += 1,
                }
            }
        }
    }
}

impl Store for Memory {
    fn get(&self, key: &PageKey) -> Option<Arc<Entry>> {
        self.kept(key).map(|kept| Arc::clone(&kept.entry))
    }

    fn put(&self, entry: Arc<Entry>) -> Result<(), Unkept> {
        let weight = entry.weight();
        if weight > self.budget {
            self.remove(&entry.key);
            return Err(Unkept::TooLarge {
                weight,
                budget: self.budget,
            });
        }
        let key = entry.key.clone();
        let replaced = self.shard(&key).lock().put(Kept::new(entry, weight));
        self.account(weight, replaced.unwrap_or(0), i64::from(replaced.is_none()));
        self.evict(&key);
        Ok(())
    }

    fn remove(&self, key: &PageKey) -> bool {
        let removed = self.shard(key).lock().remove(key);
        if let Some(kept) = &removed {
            self.account(0, kept.weight, -1);
        }
        removed.is_some()
    }

    fn remove_routes(&self, is_gone: &dyn Fn(&str) -> bool) -> usize {
        let mut removed = 0;
        for shard in &self.shards {
            let keys: Vec<PageKey> = {
                let shard = shard.lock();
                let of_route = |(key, kept): (&PageKey, &Arc<Kept>)| {
                    is_gone(&kept.entry.route).then(|| key.clone())
                };
                shard
                    .probation
                    .iter()
                    .chain(shard.protected.iter())
                    .filter_map(of_route)
                    .collect()
            };
            removed += keys.iter().filter(|key| self.remove(key)).count();
        }
        removed
    }

    fn survey(&self, visit: &mut dyn FnMut(Brief<'_>) -> ControlFlow<()>) {
        for shard in &self.shards {
            let shard = shard.lock();
            let mut all = shard.probation.iter().chain(shard.protected.iter());
            if all.any(|(_, kept)| visit(Brief::of(&kept.entry)).is_break()) {
                return;
            }
        }
    }

    fn list(&self, window: &Window) -> Vec<Summary> {
        let mut found = BTreeMap::new();
        for shard in &self.shards {
            let shard = shard.lock();
            let all = shard.probation.iter().chain(shard.protected.iter());
            for (key, kept) in all.filter(|(key, _)| window.covers(key.as_str())) {
                window.collect(&mut found, key, || kept.clone());
            }
        }
        let found = found.into_values();
        found.map(|kept| kept.entry.summary()).collect()
    }
}

impl Shard {
    fn get(&mut self, key: &PageKey, protected_budget: usize) -> Option<Arc<Kept>> {
        if let Some(kept) = self.protected.get(key) {
            return Some(Arc::clone(kept));
        }
        let (key, kept) = self.probation.pop_entry(key)?;
        self.protected_bytes += kept.weight;
        self.protected.put(key, Arc::clone(&kept));
        while self.protected_bytes > protected_budget && self.protected.len() > 1 {
            let Some((key, demoted)) = self.protected.pop_lru() else {
                break;
            };
            self.protected_bytes -= demoted.weight;
            self.probation.put(key, demoted);
        }
        Some(kept)
    }

    /// Returns the weight of what was replaced. A page regenerated keeps its segment.
    fn put(&mut self, kept: Arc<Kept>) -> Option<usize> {
        let (key, renewed) = (kept.entry.key.clone(), kept.clone());
        let replaced = if let Some(current) = self.protected.peek_mut(&key) {
            self.protected_bytes = self.protected_bytes - current.weight + kept.weight;
            Some(std::mem::replace(current, kept))
        } else {
            self.probation.put(key, kept)
        }?;
        replaced.let_go();
        renewed.hits.add(replaced.hits());
        Some(replaced.weight)
    }

    fn remove(&mut self, key: &PageKey) -> Option<Arc<Kept>> {
        let removed = self.probation.pop(key).or_else(|| {
            let kept = self.protected.pop(key)?;
            self.protected_bytes -= kept.weight;
            Some(kept)
        })?;
        removed.let_go();
        Some(removed)
    }

    fn pop_least(&mut self, segment: Segment, spared: &PageKey) -> Option<Arc<Kept>> {
        let entries = match segment {
            Segment::Probation => &self.probation,
            Segment::Protected => &self.protected,
        };
        let least = entries
            .iter()
            .rev()
            .map(|(key, _)| key)
            .find(|key| *key != spared)
            .cloned()?;
        self.remove(&least)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::{Content, Cost, Digest, Revalidate, Stamp, Timestamp};

    fn entry(path: &str) -> Arc<Entry> {
        Arc::new(Entry {
            key: PageKey::new(path, &[]),
            route: Arc::from("/[id]"),
            stamp: Stamp {
                generated: Timestamp::from_millis(0),
                revalidate: Revalidate::Never,
                fresh_until: None,
                module: Digest::of(b""),
                sequence: 0,
                tags: Box::default(),
            },
            content: Content::NotFound,
            cause: None,
            cost: Cost::default(),
        })
    }

    fn memory(entries: usize) -> Memory {
        Memory::new(entries * entry("/00000").weight(), Arc::new(Metrics::new()))
    }

    #[test]
    fn the_budget_holds_in_bytes() {
        let memory = memory(100);
        for number in 0..10_000 {
            memory.put(entry(&format!("/{number:05}"))).unwrap();
            assert!(memory.bytes.load(Ordering::Relaxed) <= memory.budget);
        }
        assert_eq!(memory.list(&Window::new("/", usize::MAX)).len(), 100);
    }

    #[test]
    fn who_looks_and_does_not_read_protects_no_page() {
        let memory = memory(2);
        memory.put(entry("/00001")).unwrap();
        let key = PageKey::new("/00001", &[]);
        let is_protected = || memory.shard(&key).lock().protected.contains(&key);
        assert!(memory.peek(&key).is_some() && !is_protected());
        assert!(memory.get(&key).is_some() && is_protected());
    }

    #[test]
    fn a_crawler_does_not_flush_the_hot_pages() {
        let memory = memory(1_000);
        let hot: Vec<PageKey> = (0..200)
            .map(|n| PageKey::new(&format!("/h{n:04}"), &[]))
            .collect();
        for key in &hot {
            memory.put(entry(key.as_str())).unwrap();
            memory.get(key).unwrap();
        }
        for number in 0..50_000 {
            memory.put(entry(&format!("/{number:05}"))).unwrap();
        }
        let still = hot.iter().filter(|key| memory.get(key).is_some()).count();
        assert!(still >= 190, "{still} of 200");
    }

    #[test]
    fn removal_and_replacement_are_accounted() {
        let memory = memory(100);
        memory.put(entry("/00001")).unwrap();
        memory.get(&PageKey::new("/00001", &[])).unwrap();
        memory.put(entry("/00001")).unwrap();
        memory.put(entry("/00002")).unwrap();
        assert_eq!(memory.remove_routes(&|route| route == "/[id]"), 2);
        assert_eq!(memory.bytes.load(Ordering::Relaxed), 0);
        assert!(!memory.remove(&PageKey::new("/00001", &[])));
        assert_eq!(memory.metrics.memory_entries.get(), 0);
        assert_eq!(
            memory
                .shards
                .iter()
                .map(|s| s.lock().protected_bytes)
                .sum::<usize>(),
            0
        );
    }

    #[test]
    fn what_the_tier_lets_go_of_says_so_at_once_whatever_the_reason() {
        let memory = memory(2);
        let kept = |path| memory.kept(&PageKey::new(path, &[])).unwrap();
        for path in ["/00001", "/00002"] {
            memory.put(entry(path)).unwrap();
        }
        let first = kept("/00001");
        assert!(first.is_current());
        // The same entry again is another one to the tier.
        memory.put(Arc::clone(first.entry())).unwrap();
        assert!(!first.is_current());

        let (again, second) = (kept("/00001"), kept("/00002"));
        assert!(again.is_current() && second.is_current());
        memory.remove(&PageKey::new("/00001", &[]));
        assert!(!again.is_current() && second.is_current());

        memory.put(entry("/00003")).unwrap();
        let third = kept("/00003");
        memory.put(entry("/00004")).unwrap();
        assert_ne!(second.is_current(), third.is_current(), "one is evicted");
        memory.remove_routes(&|route| route == "/[id]");
        assert!(![second, third].iter().any(|kept| kept.is_current()));
        assert!(memory.list(&Window::new("/", usize::MAX)).is_empty());
    }

    #[test]
    fn a_page_put_and_acknowledged_is_what_other_threads_then_see() {
        let memory = memory(100);
        let key = PageKey::new("/00001", &[]);
        memory.put(entry("/00001")).unwrap();
        // How often the page was put, told after each time, as an acknowledgement is.
        let told = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let (mut view, mut seen) = (memory.kept(&key).unwrap(), 0);
                    while seen < 2_000 {
                        let acknowledged = told.load(Ordering::Acquire);
                        if acknowledged > seen {
                            seen = acknowledged;
                            if !view.is_current() {
                                view = memory.kept(&key).unwrap();
                            }
                            let put = view.entry().stamp.sequence;
                            assert!(put >= acknowledged as u64, "{put} after {acknowledged}");
                        }
                    }
                });
            }
            for number in 1..=2_000 {
                let mut renewed = Arc::into_inner(entry("/00001")).unwrap();
                renewed.stamp.sequence = number as u64;
                memory.put(Arc::new(renewed)).unwrap();
                told.store(number, Ordering::Release);
            }
        });
    }

    #[test]
    fn what_is_larger_than_the_budget_is_refused() {
        let memory = Memory::new(10, Arc::new(Metrics::new()));
        assert!(memory.put(entry("/00001")).is_err());
        assert!(memory.get(&PageKey::new("/00001", &[])).is_none());
    }
}
