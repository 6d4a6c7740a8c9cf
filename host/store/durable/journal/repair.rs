//! `Repair`: one journal on its way from what there is to what it should be.

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;

use super::{
    END, END_BYTES, ITEM_BYTES, ITEM_HEAD, MAGIC, Mended, START, START_BYTES, batch, follows,
    is_item, is_zero, length, u16_at, u32_at, u64_at, unlike,
};
use crate::store::durable::keys::{
    BACKOFF, BODY, INCIDENT, META, PATH, PURGE, SITE, TAG, text_key,
};
use crate::store::{codec, notes};

/// One insertion, or removal, where the value is empty.
#[derive(Debug, Clone, Copy)]
struct Item<'a> {
    key: &'a [u8],
    value: &'a [u8],
}

/// A journal that is mended. One byte may have changed in each batch, or many in one value or name.
pub(super) struct Repair<'a> {
    bytes: &'a [u8],
    /// Where the last byte that was written ends.
    written: usize,
    /// What it should be.
    pub(super) out: Vec<u8>,
    number: Option<u64>,
    mended: &'a mut Mended,
}

/// What is at some place of a journal.
enum Found<'a> {
    /// A batch, as far as here.
    Batch(Vec<Item<'a>>, usize),
    /// The beginning of what was never written to its end.
    Torn,
    /// Nothing that can be told.
    Lost,
}

impl<'a> Repair<'a> {
    pub(super) fn new(bytes: &'a [u8], mended: &'a mut Mended) -> Self {
        let last = bytes.iter().rposition(|byte| *byte != 0);
        Self {
            bytes,
            written: last.map_or(0, |last| last + 1),
            out: Vec::new(),
            number: None,
            mended,
        }
    }

    /// # Errors
    /// From which byte on nothing can be told.
    pub(super) fn run(&mut self) -> Result<(), usize> {
        let mut at = 0;
        while at < self.written {
            match self.walk(at) {
                Found::Torn => break,
                Found::Lost => return Err(at),
                Found::Batch(items, end) => {
                    self.copy(at, end, &items);
                    at = end;
                }
            }
        }
        Ok(())
    }

    fn walk(&mut self, at: usize) -> Found<'a> {
        let mut items = Vec::new();
        let mut place = at + START_BYTES;
        loop {
            let left = self.bytes.get(place..).unwrap_or_default();
            if is_zero(&left[..left.len().min(ITEM_BYTES)]) {
                // A machine that loses its power leaves holes in what was not synced.
                self.mended.unsure |= place < self.written;
                return Found::Torn;
            }
            if is_like_end(left) && !is_item(left) {
                let end = place + END_BYTES;
                return if end > self.written {
                    Found::Torn
                } else {
                    Found::Batch(items, end)
                };
            }
            match self.item(place) {
                Some((item, next)) => {
                    items.push(item);
                    place = next;
                }
                None if self.reaches_out(left) => return Found::Torn,
                None => return Found::Lost,
            }
        }
    }

    /// The item at a place, and where it ends: as its lengths say, of which one may have changed.
    fn item(&self, at: usize) -> Option<(Item<'a>, usize)> {
        let head = self.bytes.get(at..at + ITEM_BYTES)?;
        if unlike(head) > 1 {
            return None;
        }
        let begin = at + ITEM_BYTES;
        let of = |name: u16, value: u32, is_end: &dyn Fn(usize) -> bool| {
            let key = begin + usize::from(name);
            let end = key.saturating_add(length(value));
            (end <= self.written && is_end(end)).then(|| {
                let (key, value) = (&self.bytes[begin..key], &self.bytes[key..end]);
                (Item { key, value }, end)
            })
        };
        let name = u16_at(head, 11);
        let values = [u32_at(head, 13), u32_at(head, 17)];
        let goes_on = |end: usize| is_like_next(&self.bytes[end..]);
        // The process ended behind this item, and in the midst of the next.
        let is_last = |end: usize| is_item(head) && self.written - end < ITEM_BYTES;
        let mut as_told = values.into_iter();
        let as_told = as_told.find_map(|value| of(name, value, &goes_on));
        let mended = || {
            let [low, high] = name.to_le_bytes();
            let names = (0..=u8::MAX).flat_map(|byte| [[byte, high], [low, byte]]);
            let items = names.filter_map(|name| of(u16::from_le_bytes(name), values[0], &goes_on));
            // Where several fit, the later ones have the next item in their name.
            let fitting = items.filter(|(item, _)| item.is_shaped());
            fitting.min_by_key(|(_, end)| *end)
        };
        let last = || of(name, values[0], &is_last);
        as_told.or_else(mended).or_else(last)
    }

    /// Whether what begins here goes on where nothing was written.
    fn reaches_out(&self, left: &[u8]) -> bool {
        let room = self.bytes.len() - self.written;
        let written = left.len().saturating_sub(room);
        let size = usize::from(u16_at(left, 11)).saturating_add(length(u32_at(left, 13)));
        // Zeros at its end may have been written.
        let is_cut = is_item(left) && ITEM_BYTES.saturating_add(size) >= written;
        is_cut || written < ITEM_BYTES
    }

    /// Takes over a batch: as it is, or what can be trusted of it.
    fn copy(&mut self, at: usize, end: usize, items: &[Item<'_>]) {
        let own = u64_at(self.bytes, at + 5);
        let next = self.bytes.get(end..end + START_BYTES);
        let next = next
            .filter(|next| next[0] == START)
            .map(|next| u64_at(next, 5));
        // A number that the next does not follow, though that follows the one before, changed.
        let leaps = next.is_some_and(|next| {
            !follows(Some(own), next) && self.number.is_some() && follows(self.number, next)
        });
        let is_good =
            !leaps && batch(&mut &self.bytes[at..end], &mut self.number.clone()).unwrap_or(false);
        if is_good {
            self.out.extend_from_slice(&self.bytes[at..end]);
            self.number = Some(own);
            return;
        }
        let (count, kept) = self.trusted(items);
        if count > 0 {
            let number = match self.number {
                Some(before) if leaps || !follows(Some(before), own) => before + 1,
                _ => own,
            };
            self.number = Some(number);
            self.out.push(START);
            self.out.extend(count.to_le_bytes());
            self.out.extend(number.to_le_bytes());
            self.out.extend(&kept);
            self.out.push(END);
            self.out.extend(xxh3_64(&kept).to_le_bytes());
            self.out.extend(MAGIC);
        }
    }

    /// The items of a batch that changed which tell themselves that they did not, in bytes, and
    /// removals of the pages whose items did; how many these are.
    fn trusted(&mut self, items: &[Item<'_>]) -> (u32, Vec<u8>) {
        let mut kept = Vec::new();
        let mut count = 0;
        let mut keep = |key: &[u8], value: &[u8]| {
            write_item(&mut kept, key, value);
            count += 1;
        };
        let mut rest = items;
        while let [first, behind @ ..] = rest {
            rest = behind;
            if let Some(second) = behind.first().filter(|second| are_pair(first, second)) {
                rest = &behind[1..];
                if let Some(name) = page(first, second) {
                    keep(&text_key(META, &name), first.value);
                    keep(&text_key(BODY, &name), second.value);
                    continue;
                }
                for name in [first, second].into_iter().filter_map(Item::page) {
                    keep(&text_key(META, name), &[]);
                    keep(&text_key(BODY, name), &[]);
                    self.mended.pages.insert(name.to_owned());
                }
            } else if !first.is_note() {
                self.mended.unsure = true;
            }
        }
        (count, kept)
    }
}

/// What keys begin with.
const KINDS: [u8; 8] = [META, BODY, PATH, PURGE, TAG, SITE[0], INCIDENT, BACKOFF];

fn is_like_end(bytes: &[u8]) -> bool {
    let Some(end) = bytes.get(..END_BYTES) else {
        return false;
    };
    let magic = end[9..]
        .iter()
        .zip(MAGIC)
        .filter(|(found, fixed)| **found != *fixed);
    usize::from(end[0] != END) + magic.count() <= 1
}

/// Whether an end or an item begins here, of whose beginning one byte may have changed.
fn is_like_next(bytes: &[u8]) -> bool {
    let is_told = || {
        let kind = bytes.get(ITEM_BYTES);
        bytes[13..17] == bytes[17..21] && kind.is_some_and(|kind| KINDS.contains(kind))
    };
    is_like_end(bytes) || is_item(bytes) || (unlike(bytes) == 1 && is_told())
}

impl Item<'_> {
    /// Whether the value is what stands under such a key.
    fn is_shaped(&self) -> bool {
        self.value.is_empty()
            || match self.kind() {
                Some(META | BODY) => self.value.starts_with(b"WIS"),
                Some(INCIDENT | BACKOFF) => self.is_note(),
                Some(PATH | PURGE | TAG) => self.value.len() == 8,
                kind => kind == Some(SITE[0]) && self.value.len() == 16,
            }
    }

    fn kind(&self) -> Option<u8> {
        self.key.first().copied()
    }

    /// The page that it is of.
    fn page(&self) -> Option<&str> {
        match self.key.split_first() {
            Some((&(META | BODY), name)) => std::str::from_utf8(name).ok(),
            _ => None,
        }
    }

    fn is_note(&self) -> bool {
        let is_whole = || notes::decode::<serde_json::Value>(self.value).is_ok();
        matches!(self.kind(), Some(INCIDENT | BACKOFF)) && (self.value.is_empty() || is_whole())
    }
}

/// Whether two neighbours are of one page: the kind of one of them at least is what it should be.
fn are_pair(first: &Item<'_>, second: &Item<'_>) -> bool {
    first.kind() == Some(META) || second.kind() == Some(BODY)
}

/// The page of which two items are what becomes, if they say so themselves.
fn page(meta: &Item<'_>, body: &Item<'_>) -> Option<String> {
    if meta.value.is_empty() {
        let (name, other) = (meta.page()?, body.page()?);
        return (name == other && body.value.is_empty()).then(|| name.to_owned());
    }
    let record = Bytes::copy_from_slice(body.value);
    let record = (!record.is_empty()).then_some(&record);
    let meta = codec::decode_meta(meta.value).ok()?;
    if meta.has_body() != record.is_some() {
        return None;
    }
    let entry = meta.into_entry(record).ok()?;
    Some(entry.key.as_str().to_owned())
}

pub(super) fn write_item(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let mut head = ITEM_HEAD;
    head[1] = u8::from(value.is_empty());
    out.extend(head);
    // They were read from fields of these sizes.
    out.extend(u16::try_from(key.len()).unwrap_or(0).to_le_bytes());
    let size = u32::try_from(value.len()).unwrap_or(0).to_le_bytes();
    out.extend(size);
    out.extend(size);
    out.extend(key);
    out.extend(value);
}
