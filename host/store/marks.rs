//! `Marks`: the invalidations, by a site-wide sequence number.
//!
//! The number goes up with each invalidation; each tag and path remembers the number of its last
//! one. An entry remembers the number read before its generation began, and is stale when a tag
//! of its or its path has a higher one. So an invalidation never visits an entry, and "purged
//! while rendering" is caught: the entry that comes too late carries the older number.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;

use crate::page::{PageKey, Stamp, Tag, Why};

/// Marks remembered one by one; beyond it the oldest fold into the floor, which makes everything
/// older stale: too much is regenerated, never too little. 200 bytes each: 20 MB at most.
const MAX_MARKS: usize = 100_000;

/// What an invalidation is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mark {
    /// A page is stale.
    Path(PageKey),
    /// A page is gone: what was read before must never be shown again.
    Purge(PageKey),
    /// All pages with this tag are stale.
    Tag(Tag),
}

/// All invalidations.
#[derive(Debug, Default)]
pub struct Marks {
    sequence: AtomicU64,
    table: RwLock<Table>,
}

#[derive(Debug, Default)]
struct Table {
    floor: u64,
    paths: HashMap<PageKey, u64>,
    purges: HashMap<PageKey, u64>,
    tags: HashMap<Tag, u64>,
    order: VecDeque<(u64, Mark)>,
}

impl Marks {
    /// The number of the latest invalidation. Read it before a generation reads its data.
    pub fn sequence(&self) -> u64 {
        self.sequence.load(Ordering::Acquire)
    }

    /// Invalidates; returns the number that the invalidation got.
    pub fn raise(&self, marks: impl IntoIterator<Item = Mark>) -> u64 {
        let mut table = self.table.write();
        let sequence = self.sequence() + 1;
        for mark in marks {
            table.raise(mark, sequence);
        }
        table.fold();
        // Last: who reads this number finds the marks that it stands for.
        self.sequence.store(sequence, Ordering::Release);
        sequence
    }

    /// Why the entry is invalid, if it is.
    pub fn why(&self, key: &PageKey, stamp: &Stamp) -> Option<Why> {
        // The common case takes no lock: nothing was invalidated since the entry was made.
        if stamp.sequence >= self.sequence() {
            return None;
        }
        let table = self.table.read();
        let newer = |mark: Option<&u64>| mark.is_some_and(|mark| *mark > stamp.sequence);
        if stamp.sequence < table.floor
            || newer(table.paths.get(key))
            || newer(table.purges.get(key))
        {
            return Some(Why::Path);
        }
        stamp
            .tags
            .iter()
            .find(|tag| newer(table.tags.get(*tag)))
            .cloned()
            .map(Why::Tag)
    }

    /// The number of the latest invalidation of this very path: a generation that began before
    /// it cannot answer for it.
    pub fn path(&self, key: &PageKey) -> u64 {
        let table = self.table.read();
        let at = |marks: &HashMap<PageKey, u64>| marks.get(key).copied().unwrap_or(0);
        at(&table.paths).max(at(&table.purges)).max(table.floor)
    }

    /// Whether the page was purged after `sequence`: then what was made from it must not be kept.
    pub fn purged_since(&self, key: &PageKey, sequence: u64) -> bool {
        sequence < self.sequence()
            && self
                .table
                .read()
                .purges
                .get(key)
                .is_some_and(|purge| *purge > sequence)
    }
}

impl Table {
    fn raise(&mut self, mark: Mark, sequence: u64) {
        match &mark {
            Mark::Path(key) => self.paths.insert(key.clone(), sequence),
            Mark::Purge(key) => self.purges.insert(key.clone(), sequence),
            Mark::Tag(tag) => self.tags.insert(tag.clone(), sequence),
        };
        self.order.push_back((sequence, mark));
    }

    fn fold(&mut self) {
        while self.order.len() > MAX_MARKS {
            let Some((sequence, mark)) = self.order.pop_front() else {
                return;
            };
            // A mark raised again since then lives on under its later number.
            let folded = match &mark {
                Mark::Path(key) => remove_if(&mut self.paths, key, sequence),
                Mark::Purge(key) => remove_if(&mut self.purges, key, sequence),
                Mark::Tag(tag) => remove_if(&mut self.tags, tag, sequence),
            };
            if folded {
                self.floor = self.floor.max(sequence);
            }
        }
    }
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
    fn a_mark_concerns_only_what_was_read_before_it() {
        let marks = Marks::default();
        let (key, other) = (PageKey::new("/a", &[]), PageKey::new("/b", &[]));
        let news = Tag::new("news").unwrap();
        let before = marks.sequence();
        marks.raise([Mark::Tag(news.clone())]);
        let between = marks.sequence();
        marks.raise([Mark::Path(key.clone())]);
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
        marks.raise([Mark::Path(early.clone())]);
        for number in 0..MAX_MARKS {
            marks.raise([Mark::Tag(Tag::new(&number.to_string()).unwrap())]);
        }
        assert_eq!(marks.why(&early, &stamp(made, &[])), Some(Why::Path));
        assert_eq!(
            marks.why(
                &PageKey::new("/late", &[]),
                &stamp(marks.sequence() - 1, &[])
            ),
            None
        );
        assert!(marks.table.read().order.len() <= MAX_MARKS);
    }

    #[test]
    fn a_purge_forbids_what_was_read_before_it() {
        let marks = Marks::default();
        let key = PageKey::new("/a", &[]);
        let began = marks.sequence();
        assert!(!marks.purged_since(&key, began));
        marks.raise([Mark::Purge(key.clone())]);
        assert!(marks.purged_since(&key, began));
        assert!(!marks.purged_since(&key, marks.sequence()));
    }
}
