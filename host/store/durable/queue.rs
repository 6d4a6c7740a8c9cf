//! `Queue`: what is to be written, newest for each page, bounded in bytes.
//!
//! The queue is also read: until a change is on disk, it is the truth about its page.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::page::{Content, Entry, PageKey};
use crate::store::marks::{MAX_MARKS, Mark, Raised, Site};
use crate::store::notes::Note;

/// What becomes of a page's records.
#[derive(Debug, Clone)]
pub(super) enum Change {
    /// They are replaced.
    Put(Arc<Entry>),
    /// They are removed.
    Remove,
    /// They are removed if they are of this route, which is gone: another route may have made the
    /// page anew since somebody looked.
    RemoveOf(Arc<str>),
}

/// Changes that are written together.
#[derive(Debug, Default)]
pub(super) struct Round {
    /// How far the invalidations have come, if they have.
    pub(super) site: Option<Site>,
    /// The number of each mark; none for one that is forgotten.
    pub(super) marks: HashMap<Mark, Option<u64>>,
    /// Pages.
    pub(super) changes: HashMap<PageKey, Change>,
    /// The record of each note; none for one that is forgotten.
    pub(super) notes: HashMap<Note, Option<Bytes>>,
    /// Whether somebody waits for it to be on disk, not only with the operating system.
    pub(super) urgent: bool,
}

/// What waits, and what is being written.
#[derive(Debug)]
pub(super) struct Queue {
    waiting: Round,
    writing: Option<Arc<Round>>,
    /// Of both.
    bytes: usize,
    /// Bytes of notes, of both.
    note_bytes: usize,
    limit: usize,
    ticket: u64,
}

/// Bytes of notes that wait: the thousand incidents that are kept, and as much again.
const NOTES: usize = 8 << 20;

/// Bytes of a removal beside its key: the table's slot and the reference count.
const REMOVAL: usize = 128;

/// How many times the limit may wait of what says that there is no page: a crawler finds missing
/// pages without end, and a process that dies for want of memory forgets everything.
const UNFORGETTABLE: usize = 4;

impl Change {
    /// The entry that there will be, for `stored`, which is read if that depends on it.
    pub(super) fn entry(&self, stored: impl FnOnce() -> Option<Arc<Entry>>) -> Option<Arc<Entry>> {
        match self {
            Change::Put(entry) => Some(entry.clone()),
            Change::Remove => None,
            Change::RemoveOf(route) => stored().filter(|entry| entry.route != *route),
        }
    }

    fn weight(&self, key: &PageKey) -> usize {
        match self {
            Change::Put(entry) => entry.weight(),
            Change::Remove | Change::RemoveOf(_) => REMOVAL + key.as_str().len(),
        }
    }

    /// How much may wait, with this change, for it to be accepted; `limit` is that of pages.
    fn limit(&self, limit: usize) -> usize {
        match self {
            // A page can be made again; that there is none must not be forgotten.
            Change::Put(entry) => match entry.content {
                Content::Document { .. } => limit,
                Content::NotFound | Content::Redirect { .. } => limit.saturating_mul(UNFORGETTABLE),
            },
            Change::Remove | Change::RemoveOf(_) => usize::MAX,
        }
    }
}

impl Round {
    fn is_empty(&self) -> bool {
        self.site.is_none() && self.changes.is_empty() && self.notes.is_empty() && !self.urgent
    }
}

impl Queue {
    /// Bytes of pages that wait or are being written.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// An empty queue for at most `limit` bytes of pages.
    pub(super) fn new(limit: usize) -> Self {
        Self {
            waiting: Round::default(),
            writing: None,
            bytes: 0,
            note_bytes: 0,
            limit,
            ticket: 0,
        }
    }

    /// The number of the latest change.
    pub(super) fn ticket(&self) -> u64 {
        self.ticket
    }

    /// Whether a large batch of changes should wait.
    pub(super) fn is_busy(&self) -> bool {
        self.bytes > self.limit / 2
    }

    /// Adds a change; false when a page is refused for want of room.
    pub(super) fn change(&mut self, key: &PageKey, change: Change) -> bool {
        let weight = change.weight(key);
        let before = self.waiting.changes.get(key);
        let freed = before.map_or(0, |before| before.weight(key));
        if self.bytes - freed + weight > change.limit(self.limit) {
            return false;
        }
        self.waiting.urgent |= matches!(change, Change::Remove);
        self.bytes = self.bytes - freed + weight;
        self.waiting.changes.insert(key.clone(), change);
        self.ticket += 1;
        true
    }

    /// Adds a note, or the removal of one; false when it is refused for want of room.
    pub(super) fn note(&mut self, note: Note, record: Option<Bytes>) -> bool {
        let weight = note_weight(&note, record.as_ref());
        let before = self.waiting.notes.get(&note);
        let freed = before.map_or(0, |before| note_weight(&note, before.as_ref()));
        if self.note_bytes - freed + weight > NOTES {
            return false;
        }
        self.note_bytes = self.note_bytes - freed + weight;
        self.waiting.notes.insert(note, record);
        self.ticket += 1;
        true
    }

    /// Adds the removal of a page that was of `route` when somebody looked; whether there is
    /// something to remove.
    pub(super) fn remove_of(&mut self, key: &PageKey, route: &Arc<str>) -> bool {
        let change = match self.get(key) {
            Some(Change::Put(entry)) if entry.route == *route => Change::Remove,
            Some(Change::Put(_) | Change::Remove) => return false,
            Some(Change::RemoveOf(gone)) if gone == route => return false,
            // Who looks does so after earlier removals were queued: this one is the later truth.
            Some(Change::RemoveOf(_)) | None => Change::RemoveOf(route.clone()),
        };
        self.change(key, change)
    }

    /// Adds an invalidation.
    pub(super) fn raise(&mut self, raised: Raised) {
        let Raised {
            mut site,
            marks,
            folded,
            urgent,
        } = raised;
        let waiting = &mut self.waiting;
        let raised = marks.into_iter().map(|(mark, number)| (mark, Some(number)));
        waiting.marks.extend(raised);
        waiting
            .marks
            .extend(folded.into_iter().map(|mark| (mark, None)));
        if waiting.marks.len() > MAX_MARKS {
            // The disk has been failing for long. After a restart all is stale: never too little.
            waiting.marks.clear();
            site.floor = site.sequence;
        }
        let floor = waiting.site.map_or(0, |earlier| earlier.floor);
        site.floor = site.floor.max(floor);
        waiting.site = Some(site);
        waiting.urgent |= urgent;
        self.ticket += 1;
    }

    /// Asks that everything so far be on disk.
    pub(super) fn hurry(&mut self) {
        self.waiting.urgent = true;
    }

    /// What is known of a page that is not on disk yet.
    pub(super) fn get(&self, key: &PageKey) -> Option<&Change> {
        let writing = || self.writing.as_ref()?.changes.get(key);
        self.waiting.changes.get(key).or_else(writing)
    }

    /// All that is known of pages, the newer last.
    pub(super) fn changes(&self) -> impl Iterator<Item = (&PageKey, &Change)> {
        let writing = self.writing.iter().flat_map(|round| &round.changes);
        writing.chain(&self.waiting.changes)
    }

    /// Begins to write what waits, if anything does.
    pub(super) fn begin(&mut self) -> Option<Arc<Round>> {
        if self.waiting.is_empty() {
            return None;
        }
        let round = Arc::new(std::mem::take(&mut self.waiting));
        self.writing = Some(round.clone());
        Some(round)
    }

    /// What was being written is on disk.
    pub(super) fn done(&mut self) {
        if let Some(round) = self.writing.take() {
            let weights = round.changes.iter();
            self.bytes -= weights.map(|(key, c)| c.weight(key)).sum::<usize>();
            self.note_bytes -= weight_of_notes(&round);
        }
    }

    /// What was being written is not on disk: it waits again, unless it has been overtaken.
    pub(super) fn put_back(&mut self) {
        let Some(round) = self.writing.take() else {
            return;
        };
        for (key, change) in &round.changes {
            if self.waiting.changes.contains_key(key) {
                self.bytes -= change.weight(key);
            } else {
                self.waiting.changes.insert(key.clone(), change.clone());
            }
        }
        self.note_bytes -= weight_of_notes(&round);
        for (note, record) in &round.notes {
            if !self.waiting.notes.contains_key(note) {
                self.note_bytes += note_weight(note, record.as_ref());
                self.waiting.notes.insert(note.clone(), record.clone());
            }
        }
        for (mark, sequence) in &round.marks {
            self.waiting.marks.entry(mark.clone()).or_insert(*sequence);
        }
        self.waiting.site = match (self.waiting.site, round.site) {
            (Some(newer), Some(older)) => Some(Site {
                floor: newer.floor.max(older.floor),
                ..newer
            }),
            (newer, older) => newer.or(older),
        };
        self.waiting.urgent |= round.urgent;
    }
}

fn note_weight(note: &Note, record: Option<&Bytes>) -> usize {
    let name = match note {
        Note::Incident(_) | Note::History => 0,
        Note::Backoff(key) => key.as_str().len(),
    };
    REMOVAL + name + record.map_or(0, Bytes::len)
}

fn weight_of_notes(round: &Round) -> usize {
    let notes = round.notes.iter();
    notes
        .map(|(note, record)| note_weight(note, record.as_ref()))
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::conformance::{document, entry};

    #[test]
    fn what_could_not_be_written_does_not_overtake_what_came_since() {
        let mut queue = Queue::new(1 << 20);
        let key = PageKey::new("/a", &[]);
        let put = |generated| Change::Put(Arc::new(document("/a", generated, "text")));
        let raised = |sequence, floor| Raised {
            site: Site { sequence, floor },
            marks: vec![(Mark::Path(key.clone()), sequence)],
            folded: Vec::new(),
            urgent: true,
        };
        queue.change(&key, put(1));
        queue.raise(raised(1, 1));
        assert!(queue.begin().is_some());
        queue.change(&key, put(2));
        queue.raise(raised(2, 0));
        queue.put_back();
        let entry = queue
            .get(&key)
            .and_then(|change| change.entry(|| None))
            .unwrap();
        assert_eq!(entry.stamp.generated.as_millis(), 2);
        let round = queue.begin().unwrap();
        let site = Site {
            sequence: 2,
            floor: 1,
        };
        assert_eq!(round.site, Some(site));
        assert_eq!(round.marks[&Mark::Path(key.clone())], Some(2));
        assert_eq!(round.changes.len(), 1);
        queue.done();
        assert!(queue.begin().is_none());
        assert_eq!(queue.bytes, 0);
    }

    #[test]
    fn a_crawler_of_missing_pages_does_not_fill_the_memory_while_the_disk_fails() {
        let mut queue = Queue::new(10_000);
        let refused = (0..100_000).find(|number| {
            let missing = entry(&format!("/{number}"), 1, Content::NotFound);
            !queue.change(&missing.key.clone(), Change::Put(Arc::new(missing)))
        });
        assert!(refused.is_some());
        assert!(queue.bytes <= 10_000 * UNFORGETTABLE);
        assert!(queue.change(&PageKey::new("/a", &[]), Change::Remove));
    }

    #[test]
    fn notes_are_bounded_and_the_latest_of_each_counts() {
        let mut queue = Queue::new(0);
        let record = |byte: u8| Some(Bytes::from(vec![byte; 1 << 20]));
        let refused = (0..9).filter(|slot| !queue.note(Note::Incident(*slot), record(1)));
        assert_eq!(refused.collect::<Vec<_>>(), [7, 8]);
        let round = queue.begin().unwrap();
        assert_eq!(round.notes.len(), 7);
        // What is being written counts as well.
        assert!(!queue.note(Note::Incident(1), record(2)));
        assert!(queue.note(Note::Incident(0), None));
        queue.put_back();
        assert!(queue.note(Note::Incident(1), record(3)));
        let round = queue.begin().unwrap();
        assert_eq!(round.notes.len(), 7);
        assert_eq!(round.notes[&Note::Incident(0)], None);
        assert_eq!(round.notes[&Note::Incident(1)], record(3));
        queue.done();
        assert_eq!((queue.note_bytes, queue.bytes), (0, 0));
        assert!(queue.begin().is_none());
    }
}
