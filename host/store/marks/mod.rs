//! `Marks`: the invalidations, by a site-wide sequence number.
//!
//! The number goes up with each invalidation; each tag and path remembers the number of its last
//! one. An entry remembers the number read before its generation began, and is stale when a tag
//! of its or its path has a higher one. So an invalidation never visits an entry, and "purged
//! while rendering" is caught: the entry that comes too late carries the older number.
//!
//! A mark of a path concerns the page of that path and all its query variants; one of a variant only
//! that.
//!
//! Several hosts that share invalidations count them together; a number is then the count of those
//! that all hosts know, and below it the count of those that only this host knows as yet. Once one
//! is told to the others it gets a number of theirs, which is higher than any that an entry made
//! before has. So what is not told yet is what has a number of this host's own, also after a
//! restart.

mod told;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;

use crate::page::{PageKey, Stamp, Tag, Why};
pub(super) use told::{Told, Untold};

/// Marks remembered one by one; beyond it the oldest fold into the floor, which makes everything
/// older stale: too much is regenerated, never too little. 200 bytes each: 20 MB at most.
pub(super) const MAX_MARKS: usize = 100_000;

/// Pages remembered that were replaced; beyond twice as many the oldest are forgotten, and may be shown
/// once more while they are made anew, as all that is stale. 200 bytes each: 4 MB at most.
pub(super) const MAX_REPLACED: usize = 10_000;

/// Bits of a number that count what only this host knows: 16 million invalidations while the others
/// cannot be told. The 40 bits above it outlast a thousand shared ones a second for 34 years.
const OWN_BITS: u32 = 24;
const OWN: u64 = (1 << OWN_BITS) - 1;

/// The number of the `count`th invalidation that all hosts know.
pub(super) fn numbered(count: u64) -> u64 {
    count << OWN_BITS
}

/// How many invalidations that all hosts know a number stands for.
pub(super) fn count(number: u64) -> u64 {
    number >> OWN_BITS
}

/// Whether only this host knows the invalidation of this number.
pub(super) fn is_own(number: u64) -> bool {
    number & OWN != 0
}

/// What an invalidation is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Mark {
    /// A page is stale.
    Path(PageKey),
    /// A page is gone: what was read before must never be shown again.
    Purge(PageKey),
    /// A page was made anew before its call was answered. Its number is that of the invalidation
    /// after which the new one was read: what is older is not shown while anything else can be had.
    Replaced(PageKey),
    /// All pages with this tag are stale.
    Tag(Tag),
}

/// All invalidations.
#[derive(Debug, Default)]
pub(super) struct Marks {
    sequence: AtomicU64,
    table: RwLock<Table>,
}

#[derive(Debug, Default)]
struct Table {
    floor: u64,
    paths: HashMap<PageKey, u64>,
    purges: HashMap<PageKey, u64>,
    replaced: HashMap<PageKey, u64>,
    tags: HashMap<Tag, u64>,
    order: VecDeque<(u64, Mark)>,
    /// Marks that only this host knows; none while no others are to know them.
    untold: Option<HashSet<Mark>>,
}

/// How far the site's invalidations have come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Site {
    /// The number of the latest invalidation.
    pub(super) sequence: u64,
    /// Entries with a lower number are stale, whatever they are about.
    pub(super) floor: u64,
}

/// All marks as a store kept them.
#[derive(Debug, Default)]
pub(super) struct Saved {
    pub(super) site: Site,
    pub(super) marks: Vec<(Mark, u64)>,
}

/// What one invalidation changed, for the store that keeps it.
#[derive(Debug)]
pub(super) struct Raised {
    pub(super) site: Site,
    pub(super) marks: Vec<(Mark, u64)>,
    /// Marks that the floor now stands for.
    pub(super) folded: Vec<Mark>,
    /// Whether somebody may wait for it to be on disk: what others have said is had from them again.
    pub(super) urgent: bool,
}

impl Marks {
    /// The number of the latest invalidation. Read it before a generation reads its data.
    pub(super) fn sequence(&self) -> u64 {
        self.sequence.load(Ordering::Acquire)
    }

    /// The invalidations of an earlier run.
    pub(super) fn load(saved: Saved) -> Self {
        let mut marks = saved.marks;
        marks.sort_by_key(|(_, sequence)| *sequence);
        let mut table = Table {
            floor: saved.site.floor,
            ..Table::default()
        };
        for (mark, sequence) in marks {
            table.raise(mark, sequence);
        }
        Self {
            sequence: AtomicU64::new(saved.site.sequence),
            table: RwLock::new(table),
        }
    }

    /// Invalidates; returns the number that the invalidation got. `note` is told what changed
    /// before anybody can read the number: whoever has it can be sure that it was noted.
    pub(super) fn raise(
        &self,
        marks: impl IntoIterator<Item = Mark>,
        note: impl FnOnce(Raised),
    ) -> u64 {
        let mut table = self.table.write();
        let sequence = self.next();
        let marks = marks.into_iter().map(|mark| (mark, sequence)).collect();
        self.settle(&mut table, sequence, marks, true, note);
        sequence
    }

    /// Up to which count everything is stale.
    pub(super) fn floor(&self) -> u64 {
        count(self.table.read().floor)
    }

    /// The next number of this host's own.
    fn next(&self) -> u64 {
        let next = self.sequence() + 1;
        if is_own(next) { next } else { next + 1 }
    }

    /// Enters marks that have their numbers, and tells `note` what changed.
    fn settle(
        &self,
        table: &mut Table,
        sequence: u64,
        marks: Vec<(Mark, u64)>,
        urgent: bool,
        note: impl FnOnce(Raised),
    ) {
        for (mark, number) in &marks {
            table.raise(mark.clone(), *number);
        }
        let folded = table.fold();
        let site = Site {
            sequence,
            floor: table.floor,
        };
        note(Raised {
            site,
            marks,
            folded,
            urgent,
        });
        // Last: who reads this number finds the marks that it stands for.
        self.sequence.store(sequence, Ordering::Release);
    }

    /// Why the entry is invalid, if it is.
    pub(super) fn why(&self, key: &PageKey, stamp: &Stamp) -> Option<Why> {
        // The common case takes no lock: nothing was invalidated since the entry was made.
        if stamp.sequence >= self.sequence() {
            return None;
        }
        let table = self.table.read();
        let is_newer = |mark: u64| mark > stamp.sequence;
        if table.replaced.get(key).copied().is_some_and(is_newer) {
            return Some(Why::Replaced);
        }
        if is_newer(table.floor)
            || is_newer(covering(&table.paths, key))
            || is_newer(covering(&table.purges, key))
        {
            return Some(Why::Path);
        }
        let is_newer = |tag: &&Tag| table.tags.get(*tag).copied().is_some_and(is_newer);
        stamp.tags.iter().find(is_newer).cloned().map(Why::Tag)
    }

    /// The number of the latest invalidation of this very path: a generation that began before
    /// it cannot answer for it.
    pub(super) fn path(&self, key: &PageKey) -> u64 {
        let table = self.table.read();
        let path = covering(&table.paths, key).max(covering(&table.purges, key));
        let replaced = table.replaced.get(key).copied().unwrap_or(0);
        path.max(replaced).max(table.floor)
    }

    /// The number of the latest invalidation of any of these tags.
    pub(super) fn tags(&self, tags: &[Tag]) -> u64 {
        let table = self.table.read();
        let at = |tag: &Tag| table.tags.get(tag).copied().unwrap_or(0);
        tags.iter().map(at).max().unwrap_or(0).max(table.floor)
    }

    /// Remembers that what was read of a page before the invalidation `number` has been replaced.
    /// Others are told, if there are any, and know of that invalidation; otherwise nobody needs it:
    /// this host has the new page in place of the old one.
    pub(super) fn replace(&self, key: &PageKey, number: u64, note: impl FnOnce(Raised)) {
        let mut table = self.table.write();
        let before = table.replaced.get(key).copied().unwrap_or(0);
        if table.untold.is_none() || is_own(number) || number <= before {
            return;
        }
        let mark = Mark::Replaced(key.clone());
        let sequence = self.sequence();
        self.settle(
            &mut table,
            sequence,
            vec![(mark.clone(), number)],
            true,
            note,
        );
        table.untold.iter_mut().for_each(|untold| {
            untold.insert(mark.clone());
        });
    }

    /// Whether there is a purge of this very page after `sequence`: then what was made from it must
    /// not be shown, not even as the last good page.
    pub(super) fn is_purged(&self, key: &PageKey, sequence: u64) -> bool {
        if sequence >= self.sequence() {
            return false;
        }
        covering(&self.table.read().purges, key) > sequence
    }

    /// Whether the page was purged after `sequence`: then what was made from it must not be kept.
    pub(super) fn purged_since(&self, key: &PageKey, sequence: u64) -> bool {
        if sequence >= self.sequence() {
            return false;
        }
        let table = self.table.read();
        // What folded into the floor may have been a purge of this page.
        sequence < table.floor || covering(&table.purges, key) > sequence
    }
}

impl Table {
    fn raise(&mut self, mark: Mark, sequence: u64) {
        match &mark {
            Mark::Path(key) => self.paths.insert(key.clone(), sequence),
            Mark::Purge(key) => self.purges.insert(key.clone(), sequence),
            Mark::Replaced(key) => self.replaced.insert(key.clone(), sequence),
            Mark::Tag(tag) => self.tags.insert(tag.clone(), sequence),
        };
        if let Some(untold) = &mut self.untold {
            if is_own(sequence) {
                untold.insert(mark.clone());
            } else {
                untold.remove(&mark);
            }
        }
        if !matches!(mark, Mark::Replaced(_)) {
            self.order.push_back((sequence, mark));
        }
    }

    fn len(&self) -> usize {
        self.paths.len() + self.purges.len() + self.tags.len()
    }

    fn number(&self, mark: &Mark) -> Option<u64> {
        match mark {
            Mark::Path(key) => self.paths.get(key),
            Mark::Purge(key) => self.purges.get(key),
            Mark::Replaced(key) => self.replaced.get(key),
            Mark::Tag(tag) => self.tags.get(tag),
        }
        .copied()
    }

    /// Forgets the oldest half of too many pages that were replaced.
    fn forget_replaced(&mut self) -> Vec<Mark> {
        if self.replaced.len() <= 2 * MAX_REPLACED {
            return Vec::new();
        }
        let mut numbers: Vec<u64> = self.replaced.values().copied().collect();
        let (_, middle, _) = numbers.select_nth_unstable(self.replaced.len() - MAX_REPLACED);
        let middle = *middle;
        let oldest = self.replaced.extract_if(|_, number| *number < middle);
        oldest.map(|(key, _)| Mark::Replaced(key)).collect()
    }

    fn fold(&mut self) -> Vec<Mark> {
        let mut folded = self.forget_replaced();
        if self.order.len() > 2 * MAX_MARKS {
            // What was invalidated again stands in the order again: only the later place counts.
            let order = std::mem::take(&mut self.order);
            let is_last = |(sequence, mark): &(u64, Mark)| self.number(mark) == Some(*sequence);
            self.order = order.into_iter().filter(is_last).collect();
        }
        while self.len() > MAX_MARKS {
            let Some((sequence, mark)) = self.order.pop_front() else {
                break;
            };
            // A mark raised again since then lives on under its later number.
            let gone = match &mark {
                Mark::Path(key) => remove_if(&mut self.paths, key, sequence),
                Mark::Purge(key) => remove_if(&mut self.purges, key, sequence),
                Mark::Replaced(_) => false,
                Mark::Tag(tag) => remove_if(&mut self.tags, tag, sequence),
            };
            if gone {
                self.floor = self.floor.max(sequence);
                if let Some(untold) = &mut self.untold {
                    untold.remove(&mark);
                }
                folded.push(mark);
            }
        }
        folded
    }
}

/// The number of the latest mark that concerns a page: its own, or that of its path.
fn covering(marks: &HashMap<PageKey, u64>, key: &PageKey) -> u64 {
    let own = marks.get(key).copied().unwrap_or(0);
    let path = key.path();
    if path.len() == key.as_str().len() {
        return own;
    }
    own.max(marks.get(path).copied().unwrap_or(0))
}

fn remove_if<K: std::hash::Hash + Eq>(marks: &mut HashMap<K, u64>, key: &K, sequence: u64) -> bool {
    let is_it = marks.get(key) == Some(&sequence);
    if is_it {
        marks.remove(key);
    }
    is_it
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::{Digest, Revalidate, Timestamp};

    fn stamp(sequence: u64, tags: &[&str]) -> Stamp {
        Stamp {
            generated: Timestamp::from_millis(0),
            revalidate: Revalidate::Never,
            fresh_until: None,
            module: Digest::of(b""),
            sequence,
            tags: tags.iter().map(|tag| Tag::new(tag).unwrap()).collect(),
        }
    }

    #[test]
    fn a_mark_of_a_path_concerns_its_variants_and_one_of_a_variant_does_not() {
        let pair = |value: &str| [("q".to_owned(), value.to_owned())];
        let plain = PageKey::new("/a", &[]);
        let (one, other) = (
            PageKey::new("/a", &pair("1")),
            PageKey::new("/a", &pair("2")),
        );
        let neighbour = PageKey::new("/ab", &pair("1"));
        for mark in [Mark::Path, Mark::Purge] {
            let marks = Marks::default();
            let stale = |key: &PageKey, sequence| marks.why(key, &stamp(sequence, &[])).is_some();
            marks.raise([mark(one.clone())], drop);
            assert!(stale(&one, 0) && !stale(&other, 0) && !stale(&plain, 0));
            let between = marks.sequence();
            marks.raise([mark(plain.clone())], drop);
            for key in [&plain, &one, &other] {
                assert!(stale(key, between), "{key}");
                assert_eq!(marks.path(key), marks.sequence());
                assert_eq!(
                    marks.is_purged(key, between),
                    mark(plain.clone()) == Mark::Purge(plain.clone())
                );
            }
            assert!(!stale(&neighbour, 0));
        }
    }

    #[test]
    fn what_was_replaced_is_worse_than_stale_up_to_where_it_was() {
        let (marks, key) = (Marks::default(), PageKey::new("/a", &[]));
        marks.share();
        let heard = |at, mark: Mark| Told {
            marks: vec![(mark, at)],
            head: at,
            ..Told::default()
        };
        marks.adopt(heard(1, Mark::Path(key.clone())), drop);
        marks.replace(&key, numbered(1), drop);
        marks.adopt(heard(2, Mark::Path(key.clone())), drop);
        assert_eq!(marks.why(&key, &stamp(0, &[])), Some(Why::Replaced));
        assert_eq!(marks.why(&key, &stamp(numbered(1), &[])), Some(Why::Path));
        assert_eq!(marks.why(&key, &stamp(numbered(2), &[])), None);
        let mut forgotten = 0;
        for number in 3..3 + 3 * MAX_REPLACED as u64 {
            let key = PageKey::new(&format!("/{number}"), &[]);
            marks.replace(&key, numbered(number), |raised| {
                forgotten += raised.folded.len()
            });
        }
        let kept = marks.table.read().replaced.len();
        assert!(kept <= 2 * MAX_REPLACED && kept + forgotten > 3 * MAX_REPLACED);
        assert_eq!(marks.floor(), 0);
    }

    #[test]
    fn a_mark_concerns_only_what_was_read_before_it() {
        let marks = Marks::default();
        let (key, other) = (PageKey::new("/a", &[]), PageKey::new("/b", &[]));
        let news = Tag::new("news").unwrap();
        let before = marks.sequence();
        marks.raise([Mark::Tag(news.clone())], drop);
        let between = marks.sequence();
        marks.raise([Mark::Path(key.clone())], drop);
        assert_eq!(marks.why(&key, &stamp(before, &[])), Some(Why::Path));
        assert_eq!(
            marks.why(&other, &stamp(before, &["x", "news"])),
            Some(Why::Tag(news))
        );
        assert_eq!(marks.why(&other, &stamp(between, &["news"])), None);
        assert_eq!(marks.why(&key, &stamp(marks.sequence(), &["news"])), None);
        assert_eq!(marks.path(&key), marks.sequence());
    }

    #[test]
    fn forgotten_marks_make_too_much_stale_never_too_little() {
        let marks = Marks::default();
        let early = PageKey::new("/early", &[]);
        let made = marks.sequence();
        marks.raise([Mark::Path(early.clone())], drop);
        for number in 0..MAX_MARKS {
            marks.raise([Mark::Tag(Tag::new(&number.to_string()).unwrap())], drop);
        }
        assert_eq!(marks.why(&early, &stamp(made, &[])), Some(Why::Path));
        assert_eq!(
            marks.why(
                &PageKey::new("/late", &[]),
                &stamp(marks.sequence() - 1, &[])
            ),
            None
        );
        assert!(marks.table.read().len() <= MAX_MARKS);
    }

    #[test]
    fn a_purge_forbids_what_was_read_before_it() {
        let marks = Marks::default();
        let key = PageKey::new("/a", &[]);
        let began = marks.sequence();
        assert!(!marks.purged_since(&key, began));
        marks.raise([Mark::Purge(key.clone())], drop);
        assert!(marks.purged_since(&key, began));
        assert!(!marks.purged_since(&key, marks.sequence()));
    }

    #[test]
    fn loading_what_was_noted_restores_every_verdict() {
        let marks = Marks::default();
        let (key, news) = (PageKey::new("/a", &[]), Tag::new("news").unwrap());
        let mut saved = Saved::default();
        for mark in [
            Mark::Tag(news),
            Mark::Path(key.clone()),
            Mark::Purge(key.clone()),
        ] {
            marks.raise([mark], |raised| {
                saved.site = raised.site;
                saved.marks.extend(raised.marks);
            });
        }
        saved.marks.reverse();
        let loaded = Marks::load(saved);
        assert_eq!(loaded.sequence(), 3);
        let other = PageKey::new("/b", &[]);
        for sequence in 0..4 {
            let stamp = stamp(sequence, &["news"]);
            assert_eq!(loaded.why(&key, &stamp), marks.why(&key, &stamp));
            assert_eq!(loaded.why(&other, &stamp), marks.why(&other, &stamp));
            assert_eq!(
                loaded.purged_since(&key, sequence),
                marks.purged_since(&key, sequence)
            );
        }
    }

    #[test]
    fn one_page_invalidated_again_and_again_does_not_make_the_others_stale() {
        let marks = Marks::default();
        let made = marks.sequence();
        marks.raise([Mark::Tag(Tag::new("news").unwrap())], drop);
        for _ in 0..=MAX_MARKS {
            marks.raise([Mark::Path(PageKey::new("/often", &[]))], drop);
        }
        assert_eq!(marks.why(&PageKey::new("/a", &[]), &stamp(made, &[])), None);
        for _ in 0..=MAX_MARKS {
            marks.raise([Mark::Path(PageKey::new("/often", &[]))], drop);
        }
        assert!(marks.table.read().order.len() <= 2 * MAX_MARKS);
    }

    #[test]
    fn a_forgotten_purge_still_forbids_what_was_read_before_it() {
        let marks = Marks::default();
        let key = PageKey::new("/a", &[]);
        let began = marks.sequence();
        marks.raise([Mark::Purge(key.clone())], drop);
        let tags = (0..MAX_MARKS).map(|number| Tag::new(&number.to_string()).unwrap());
        marks.raise(tags.map(Mark::Tag), drop);
        assert!(marks.purged_since(&key, began));
        assert!(!marks.purged_since(&key, marks.sequence()));
    }
}
