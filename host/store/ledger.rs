//! `Ledger`: the marks, and the disk that keeps them.

use std::sync::Arc;

use parking_lot::Mutex;

use super::durable::Durable;
use super::marks::{Mark, Marks, Raised, Told, Untold};
use super::notes::{Note, Notes};
use crate::page::{PageKey, Stamp, Tag, Why};

/// The invalidations of this host: in memory, and on disk where there is one.
pub(super) struct Ledger {
    marks: Marks,
    durable: Option<Arc<Durable>>,
    /// The history that the counts of the marks are of, once it is shared.
    history: Mutex<Option<String>>,
}

impl Ledger {
    pub(super) fn new(marks: Marks, durable: Option<Arc<Durable>>) -> Self {
        Self {
            marks,
            durable,
            history: Mutex::default(),
        }
    }

    pub(super) fn sequence(&self) -> u64 {
        self.marks.sequence()
    }

    pub(super) fn why(&self, key: &PageKey, stamp: &Stamp) -> Option<Why> {
        self.marks.why(key, stamp)
    }

    pub(super) fn path(&self, key: &PageKey) -> u64 {
        self.marks.path(key)
    }

    pub(super) fn tags(&self, tags: &[Tag]) -> u64 {
        self.marks.tags(tags)
    }

    pub(super) fn is_purged(&self, key: &PageKey, sequence: u64) -> bool {
        self.marks.is_purged(key, sequence)
    }

    pub(super) fn purged_since(&self, key: &PageKey, sequence: u64) -> bool {
        self.marks.purged_since(key, sequence)
    }

    pub(super) fn raise(&self, marks: impl IntoIterator<Item = Mark>) -> u64 {
        self.marks.raise(marks, |raised| self.note(raised))
    }

    pub(super) fn replace(&self, key: &PageKey, number: u64) {
        self.marks.replace(key, number, |raised| self.note(raised));
    }

    // === what hosts tell each other ===

    /// From here on others are told. Reads the disk.
    pub(super) fn share(&self) {
        self.marks.share();
        let durable = self.durable.as_ref();
        let kept = durable.and_then(|durable| durable.notes(Notes::History).pop());
        *self.history.lock() = kept;
    }

    pub(super) fn history(&self) -> Option<String> {
        self.history.lock().clone()
    }

    /// From here on the counts are of `history`.
    pub(super) fn belong_to(&self, history: &str) {
        *self.history.lock() = Some(history.to_owned());
        if let Some(durable) = &self.durable {
            durable.note(Note::History, Some(&history));
        }
    }

    pub(super) fn untold(&self, limit: usize) -> Option<Untold> {
        self.marks.untold(limit)
    }

    pub(super) fn untold_count(&self) -> usize {
        self.marks.untold_count()
    }

    pub(super) fn adopt(&self, told: Told) {
        self.marks.adopt(told, |raised| self.note(raised));
    }

    pub(super) fn disown(&self, after: u64) {
        self.marks.disown(after, |raised| self.note(raised));
    }

    pub(super) fn counted(&self) -> Vec<(Mark, u64)> {
        self.marks.counted().into_iter().collect()
    }

    pub(super) fn knows(&self, mark: &Mark, at: u64) -> bool {
        self.marks.knows(mark, at)
    }

    pub(super) fn len(&self) -> usize {
        self.marks.len()
    }

    pub(super) fn floor(&self) -> u64 {
        self.marks.floor()
    }

    fn note(&self, raised: Raised) {
        if let Some(durable) = &self.durable {
            durable.raise(raised);
        }
    }
}
