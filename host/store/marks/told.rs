//! `Told` and `Untold`: what hosts tell each other of their marks.

use std::collections::{HashMap, HashSet};

use super::{Mark, Marks, OWN, Raised, Table, count, is_own, numbered};

/// Invalidations that the other hosts are to be told.
#[derive(Debug)]
pub(in crate::store) struct Untold {
    /// What they are about, and the numbers that they have on this host.
    pub(in crate::store) marks: Vec<(Mark, u64)>,
    /// Whether everything older is stale: marks that were untold have folded into the floor.
    pub(in crate::store) all: bool,
    /// The number of the latest of them.
    pub(in crate::store) latest: u64,
}

/// Invalidations as all hosts count them.
#[derive(Debug, Default)]
pub(in crate::store) struct Told {
    /// What they are about, and their counts.
    pub(in crate::store) marks: Vec<(Mark, u64)>,
    /// How many there have been.
    pub(in crate::store) head: u64,
    /// Up to which everything is stale.
    pub(in crate::store) floor: u64,
    /// The number that the latest of them had on this host, if it comes from here.
    pub(in crate::store) latest: Option<u64>,
}

impl Marks {
    /// From here on others are to be told. What has a number of this host's own is untold.
    pub(in crate::store) fn share(&self) {
        let mut table = self.table.write();
        let own = table.all().filter(|(_, number)| is_own(*number));
        let own: HashSet<Mark> = own.map(|(mark, _)| mark).collect();
        table.untold = Some(own);
    }

    /// What is to be told, up to `limit` marks of it.
    pub(in crate::store) fn untold(&self, limit: usize) -> Option<Untold> {
        let table = self.table.read();
        let marks = table.untold.iter().flatten().take(limit);
        let untold = Untold {
            marks: marks
                .map(|mark| (mark.clone(), table.number(mark).unwrap_or(0)))
                .collect(),
            all: is_own(table.floor),
            latest: self.sequence(),
        };
        (untold.all || !untold.marks.is_empty()).then_some(untold)
    }

    /// How many marks are to be told.
    pub(in crate::store) fn untold_count(&self) -> usize {
        let table = self.table.read();
        let marks = table.untold.as_ref();
        marks.map_or(0, |marks| marks.len() + usize::from(is_own(table.floor)))
    }

    /// Enters what all hosts are told. What this host has invalidated once more since, and has not
    /// told, stays to be told.
    pub(in crate::store) fn adopt(&self, told: Told, note: impl FnOnce(Raised)) {
        let mut table = self.table.write();
        let is_told = |number: u64| told.latest.is_some_and(|latest| number <= latest);
        let mut sequence = self.sequence().max(numbered(told.head));
        let mut marks = Vec::new();
        for (mark, at) in told.marks {
            let before = table.number(&mark).unwrap_or(0);
            if matches!(mark, Mark::Replaced(_)) {
                // Not a number that was given to it: others have it as this host has.
                if told.latest.is_some() && numbered(at) >= before {
                    table.untold.iter_mut().for_each(|untold| {
                        untold.remove(&mark);
                    });
                }
                if numbered(at) > before {
                    marks.push((mark, numbered(at)));
                }
                continue;
            }
            let still_own = if is_own(before) && !is_told(before) {
                before & OWN
            } else {
                0
            };
            let number = numbered(at) | still_own;
            if number > before {
                sequence = sequence.max(number);
                marks.push((mark, number));
            }
        }
        let floor = table.floor;
        let floored = numbered(told.floor.max(count(floor)));
        table.floor = if is_own(floor) && !is_told(floor) {
            floored | (floor & OWN)
        } else {
            floored.max(if is_own(floor) { 0 } else { floor })
        };
        sequence = sequence.max(table.floor);
        self.settle(&mut table, sequence, marks, false, note);
    }

    /// Doubts that the others know what was counted after `after`: it is to be told again.
    pub(in crate::store) fn disown(&self, after: u64, note: impl FnOnce(Raised)) {
        let mut table = self.table.write();
        let sequence = self.next();
        let is_doubtful = |number: u64| !is_own(number) && count(number) > after;
        if is_doubtful(table.floor) {
            table.floor = sequence;
        }
        let doubtful = table.all().filter(|(_, number)| is_doubtful(*number));
        let doubtful = doubtful.map(|(mark, _)| (mark, sequence)).collect();
        self.settle(&mut table, sequence, doubtful, true, note);
    }

    /// Whether this host knows of an invalidation: of this one, of a later one of the same, or that
    /// everything up to it is stale.
    pub(in crate::store) fn knows(&self, mark: &Mark, at: u64) -> bool {
        let table = self.table.read();
        let known = table.number(mark).unwrap_or(0).max(table.floor);
        count(known) >= at
    }

    /// How many tags and paths are remembered.
    pub(in crate::store) fn len(&self) -> usize {
        self.table.read().len()
    }

    /// All marks, by the count that all hosts have of them; without those that only this one knows.
    pub(in crate::store) fn counted(&self) -> HashMap<Mark, u64> {
        let table = self.table.read();
        let known = table.all().filter(|(_, number)| !is_own(*number));
        known.map(|(mark, number)| (mark, count(number))).collect()
    }
}

impl Table {
    /// All marks that have numbers of their own.
    fn all(&self) -> impl Iterator<Item = (Mark, u64)> {
        let paths = self.paths.iter();
        let paths = paths.map(|(key, number)| (Mark::Path(key.clone()), *number));
        let purges = self.purges.iter();
        let purges = purges.map(|(key, number)| (Mark::Purge(key.clone()), *number));
        let tags = self.tags.iter();
        let tags = tags.map(|(tag, number)| (Mark::Tag(tag.clone()), *number));
        paths.chain(purges).chain(tags)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::{PageKey, Tag};

    fn news() -> Mark {
        Mark::Tag(Tag::new("news").unwrap())
    }

    fn named(untold: &Untold) -> Vec<Mark> {
        untold.marks.iter().map(|(mark, _)| mark.clone()).collect()
    }

    fn told(marks: &[(Mark, u64)], latest: Option<u64>) -> Told {
        Told {
            head: marks.iter().map(|(_, at)| *at).max().unwrap(),
            marks: marks.to_vec(),
            floor: 0,
            latest,
        }
    }

    #[test]
    fn what_is_raised_is_told_once_and_gets_the_number_that_all_have() {
        let marks = Marks::default();
        marks.share();
        marks.raise([news()], drop);
        let untold = marks.untold(9).unwrap();
        assert_eq!(named(&untold), [news()]);
        marks.adopt(told(&[(news(), 7)], Some(untold.latest)), drop);
        assert!(marks.untold(9).is_none());
        assert_eq!(marks.sequence(), numbered(7));
        assert_eq!(marks.counted()[&news()], 7);
    }

    #[test]
    fn what_is_raised_again_before_it_was_told_is_told_again() {
        let marks = Marks::default();
        marks.share();
        marks.raise([news()], drop);
        let untold = marks.untold(9).unwrap();
        let again = marks.raise([news()], drop);
        assert!(again > untold.latest);
        marks.adopt(told(&[(news(), 7)], Some(untold.latest)), drop);
        assert_eq!(named(&marks.untold(9).unwrap()), [news()]);
        // Nothing made before counts as made after it.
        assert!(marks.sequence() > numbered(7));
    }

    #[test]
    fn what_is_raised_again_is_known_as_before() {
        let marks = Marks::default();
        marks.share();
        marks.adopt(told(&[(news(), 7)], None), drop);
        let path = Mark::Path(PageKey::new("/a", &[]));
        assert!(marks.knows(&news(), 7));
        assert!(!marks.knows(&news(), 8) && !marks.knows(&path, 7));
        marks.raise([news()], drop);
        assert!(marks.knows(&news(), 7) && marks.counted().is_empty());
        let everything = Told {
            head: 9,
            floor: 9,
            ..Told::default()
        };
        marks.adopt(everything, drop);
        assert!(marks.knows(&path, 9));
    }

    #[test]
    fn what_another_host_says_does_not_tell_what_this_one_said() {
        let marks = Marks::default();
        marks.share();
        marks.raise([news()], drop);
        marks.adopt(told(&[(news(), 7)], None), drop);
        assert!(marks.untold(9).is_some());
    }

    #[test]
    fn what_was_not_told_is_told_after_a_restart() {
        let marks = Marks::default();
        marks.share();
        let mut saved = super::super::Saved::default();
        let path = Mark::Path(PageKey::new("/a", &[]));
        let mut save = |raised: Raised| {
            saved.site = raised.site;
            saved
                .marks
                .retain(|(mark, _)| !raised.marks.iter().any(|(new, _)| new == mark));
            saved.marks.extend(raised.marks);
        };
        marks.raise([path.clone()], &mut save);
        marks.raise([news()], &mut save);
        marks.adopt(told(&[(news(), 7)], Some(u64::MAX)), &mut save);
        let again = Marks::load(saved);
        again.share();
        assert_eq!(named(&again.untold(9).unwrap()), [path]);
        assert_eq!(again.sequence(), numbered(7));
    }

    #[test]
    fn what_was_replaced_is_told_as_it_is() {
        let (marks, key) = (Marks::default(), PageKey::new("/a", &[]));
        // Nobody else is to know.
        marks.replace(&key, numbered(1), drop);
        assert!(marks.table.read().replaced.is_empty());
        marks.share();
        let path = Mark::Path(key.clone());
        marks.raise([path.clone()], drop);
        let own = marks.path(&key);
        // Others do not know yet of what it was replaced after.
        marks.replace(&key, own, drop);
        assert_eq!(
            named(&marks.untold(9).unwrap()),
            std::slice::from_ref(&path)
        );
        marks.adopt(told(&[(path, 7)], Some(own)), drop);
        marks.replace(&key, marks.path(&key), drop);
        let replaced = Mark::Replaced(key.clone());
        let untold = marks.untold(9).unwrap();
        assert_eq!(untold.marks, [(replaced.clone(), numbered(7))]);
        // Another has replaced what is older still; then this host hears itself.
        for (at, latest, left) in [(5, None, 1), (7, Some(untold.latest), 0)] {
            let heard = Told {
                marks: vec![(replaced.clone(), at)],
                head: 8,
                floor: 0,
                latest,
            };
            marks.adopt(heard, drop);
            assert_eq!(marks.untold_count(), left);
            assert_eq!(marks.path(&key), numbered(7));
        }
        marks.disown(3, drop);
        assert!(!named(&marks.untold(9).unwrap()).contains(&replaced));
    }

    #[test]
    fn what_is_doubtful_is_told_again_and_only_that() {
        let marks = Marks::default();
        marks.share();
        let path = Mark::Path(PageKey::new("/a", &[]));
        marks.adopt(told(&[(path.clone(), 3), (news(), 7)], None), drop);
        marks.disown(3, drop);
        assert_eq!(named(&marks.untold(9).unwrap()), [news()]);
        assert_eq!(marks.counted()[&path], 3);
    }

    #[test]
    fn a_floor_that_others_do_not_know_is_told_as_a_whole() {
        let marks = Marks::default();
        marks.share();
        let tags = (0..=super::super::MAX_MARKS).map(|n| Tag::new(&n.to_string()).unwrap());
        for tag in tags {
            marks.raise([Mark::Tag(tag)], drop);
        }
        let untold = marks.untold(1).unwrap();
        assert!(untold.all && untold.marks.len() == 1);
        let floored = Told {
            head: 5,
            floor: 5,
            latest: Some(untold.latest),
            ..Told::default()
        };
        marks.adopt(floored, drop);
        assert!(!marks.untold(1).unwrap().all);
    }
}
