//! `Mended`: journals in which a disk changed bytes, made readable again at the cost of the pages
//! whose records changed.
//!
//! A journal of fjall 3 is a row of batches: a start (tag 1, number of items, sequence number),
//! items (tag 2), an end (tag 3, XXH3 of the items, a magic word). fjall refuses a journal with a
//! wrong checksum, and ends it without a word where a tag or a length is wrong: what was removed
//! after that would come back. So every journal is looked through before fjall sees it.
//!
//! Of a batch that changed, each record tells itself whether it is whole. A page has two items, one
//! after the other and under one name, so that a name that changed is still known from the other;
//! where either changed, the page is removed. Numbers of invalidations tell nothing of the kind:
//! they are left out, and whoever opens the store makes everything stale. Notes are left out too.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::keys::{BACKOFF, BODY, INCIDENT, META, PATH, PURGE, SITE, TAG, text_key};
use crate::store::{codec, notes};

const START: u8 = 1;
const ITEM: u8 = 2;
const END: u8 = 3;
const MAGIC: [u8; 4] = *b"FJL\x03";

/// Bytes of a start, of an item without its key and value, and of an end.
const START_BYTES: usize = 13;
const ITEM_BYTES: usize = 21;
const END_BYTES: usize = 13;

/// What all items begin with, but for the second byte: the tag, whether it is a removal, no
/// compression, the number of the one keyspace.
const ITEM_HEAD: [u8; 11] = [ITEM, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0];

/// So many zeros are the room that fjall sets aside for a journal, and no part that was lost.
const ROOM: usize = 1 << 20;

/// Between two batches their numbers differ by a few: more is a number that changed.
const LEAP: u64 = 1 << 32;

/// One insertion, or removal, where the value is empty.
#[derive(Debug, Clone, Copy)]
struct Item<'a> {
    key: &'a [u8],
    value: &'a [u8],
}

/// What mending has cost.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Mended {
    /// Pages that were removed, for one of their records changed.
    pub(super) pages: BTreeSet<String>,
    /// Whether invalidations, or records of nobody knows what, are lost.
    pub(super) unsure: bool,
}

/// Why a journal cannot be mended.
#[derive(Debug, thiserror::Error)]
pub(super) enum MendError {
    /// The file system refuses.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// More changed than can be told.
    #[error("{} is damaged at byte {at}, and what follows cannot be told apart", file.display())]
    Lost {
        /// The journal.
        file: PathBuf,
        /// Where its records end that can be.
        at: usize,
    },
}

/// Looks through the journals in `pages`, and writes those anew that changed; before one takes the
/// place of another that held more than pages, there is a file at `distrust`.
///
/// # Errors
/// When one cannot be read, written or mended.
pub(super) fn mend(pages: &Path, distrust: &Path) -> Result<Mended, MendError> {
    let mut mended = Mended::default();
    for journal in journals(pages)? {
        if is_whole(&journal)? {
            continue;
        }
        let bytes = std::fs::read(&journal)?;
        let mut repair = Repair::new(&bytes, &mut mended);
        repair.run().map_err(|at| MendError::Lost {
            file: journal.clone(),
            at,
        })?;
        let rest = repair.out;
        if mended.unsure {
            File::create(distrust)?.sync_all()?;
        }
        let anew = journal.with_extension("mended");
        let mut file = File::create(&anew)?;
        file.write_all(&rest)?;
        file.sync_all()?;
        std::fs::rename(&anew, &journal)?;
    }
    Ok(mended)
}

fn journals(pages: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let folder = match std::fs::read_dir(pages) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
        folder => folder?,
    };
    for file in folder {
        let path = file?.path();
        if path.extension().is_some_and(|end| end == "jnl") {
            found.push(path);
        }
    }
    Ok(found)
}

// === looking ===

/// Whether all batches of a journal are as they were written; the last may lack its end, for the
/// process ended in the midst of it. Reads it once, and holds no more than an item of it.
fn is_whole(journal: &Path) -> io::Result<bool> {
    let mut input = BufReader::with_capacity(1 << 16, File::open(journal)?);
    let mut number = None;
    loop {
        match batch(&mut input, &mut number) {
            Ok(true) => {}
            Ok(false) => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(true),
            Err(error) => return Err(error),
        }
    }
}

/// Reads a batch; whether it is one. Where nothing but room follows, the input is at its end.
fn batch(input: &mut impl Read, number: &mut Option<u64>) -> io::Result<bool> {
    let ended = || io::Error::from(io::ErrorKind::UnexpectedEof);
    let mut start = [0; START_BYTES];
    input.read_exact(&mut start)?;
    if start == [0; START_BYTES] {
        return if is_room(input)? {
            Err(ended())
        } else {
            Ok(false)
        };
    }
    let (count, own) = (u32_at(&start, 1), u64_at(&start, 5));
    if start[0] != START || !follows(*number, own) {
        return Ok(false);
    }
    *number = Some(own);
    let mut sum = Xxh3::new();
    let mut value = Vec::new();
    for _ in 0..count {
        let mut head = [0; ITEM_BYTES];
        input.read_exact(&mut head)?;
        if head == [0; ITEM_BYTES] {
            return if is_room(input)? {
                Err(ended())
            } else {
                Ok(false)
            };
        }
        if !is_item(&head) || head[13..17] != head[17..21] {
            return Ok(false);
        }
        let size = u64::from(u16_at(&head, 11)) + u64::from(u32_at(&head, 13));
        sum.update(&head);
        value.clear();
        // Not all at once: a length that changed must not take memory that no byte stands for.
        if input.take(size).read_to_end(&mut value)? as u64 != size {
            // Also where a length changed: whoever mends can tell.
            return Ok(false);
        }
        sum.update(&value);
    }
    let mut end = [0; END_BYTES];
    input.read_exact(&mut end)?;
    if end == [0; END_BYTES] && is_room(input)? {
        return Err(ended());
    }
    Ok(end[0] == END && u64_at(&end, 1) == sum.digest() && end[9..] == MAGIC)
}

/// Whether nothing was written to what follows.
fn is_room(input: &mut impl Read) -> io::Result<bool> {
    let mut room = Vec::new();
    input.take(ROOM as u64).read_to_end(&mut room)?;
    Ok(is_zero(&room))
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().fold(0, |all, byte| all | byte) == 0
}

fn follows(before: Option<u64>, number: u64) -> bool {
    before.is_none_or(|before| number > before && number - before < LEAP)
}

fn is_item(head: &[u8]) -> bool {
    unlike(head) == 0
}

/// In how many bytes the beginning of an item differs from what all items begin with.
fn unlike(head: &[u8]) -> usize {
    let Some(head) = head.get(..ITEM_HEAD.len()) else {
        return ITEM_HEAD.len();
    };
    let fixed = head.iter().zip(ITEM_HEAD).enumerate();
    let differs = |(at, (found, fixed)): &(usize, (&u8, u8))| match at {
        1 => **found > 1,
        _ => **found != *fixed,
    };
    fixed.filter(differs).count()
}

// === mending ===

/// A journal on its way from what there is to what it should be. One byte may have changed in each
/// batch, or many in one value or name.
struct Repair<'a> {
    bytes: &'a [u8],
    /// Where the last byte that was written ends.
    written: usize,
    out: Vec<u8>,
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
    fn new(bytes: &'a [u8], mended: &'a mut Mended) -> Self {
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
    fn run(&mut self) -> Result<(), usize> {
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

fn write_item(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
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

// === bytes ===

fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let field = bytes
        .get(at..at + N)
        .and_then(|field| field.try_into().ok());
    field.unwrap_or([0; N])
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(field(bytes, at))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(field(bytes, at))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(field(bytes, at))
}

fn length(length: u32) -> usize {
    usize::try_from(length).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::store::conformance::{document, entry};

    /// The items of one batch.
    fn sealed(number: u64, items: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
        let mut kept = Vec::new();
        for (key, value) in items {
            write_item(&mut kept, key, value);
        }
        let count = u32::try_from(items.len()).unwrap().to_le_bytes();
        let (number, sum) = (number.to_le_bytes(), xxh3_64(&kept).to_le_bytes());
        [&[START][..], &count, &number, &kept, &[END], &sum, &MAGIC].concat()
    }

    fn page(path: &str, content: Option<&str>) -> [(Vec<u8>, Vec<u8>); 2] {
        let record = match content {
            Some("") => codec::encode(&entry(path, 2, crate::page::Content::NotFound)),
            Some(text) => codec::encode(&document(path, 1, text)),
            None => codec::Record {
                meta: Vec::new(),
                body: None,
            },
        };
        let body = record.body.unwrap_or_default();
        [
            (text_key(META, path), record.meta),
            (text_key(BODY, path), body),
        ]
    }

    /// Pages made, replaced, deleted; an invalidation; a note. A guest has put what ends a batch,
    /// and a page of another's, into its page.
    fn journal() -> Vec<u8> {
        let planted = String::from_utf8_lossy(&sealed(7, &page("/a", Some("evil")))).into_owned();
        let planted = format!("{planted}FJL\u{3}\u{1}\u{1}\0\0\0");
        let note = notes::encode(&"note").unwrap().to_vec();
        [
            sealed(
                4,
                &[page("/a", Some("one")), page("/gone", Some("old"))].concat(),
            ),
            sealed(5, &page("/guest", Some(&planted))),
            sealed(
                6,
                &[page("/moved", Some("old")), page("/b", Some("two"))].concat(),
            ),
            sealed(
                7,
                &[
                    (SITE.to_vec(), vec![1; 16]),
                    (b"tnews".to_vec(), vec![1; 8]),
                ],
            ),
            sealed(9, &[page("/gone", None), page("/moved", Some(""))].concat()),
            sealed(10, &[(vec![INCIDENT, 0, 0, 0, 1], note)]),
            sealed(11, &page("/c", Some("three"))),
        ]
        .concat()
    }

    type State = BTreeMap<Vec<u8>, Vec<u8>>;

    /// What a database has after it has read a journal; none where it refuses.
    fn read(mut journal: &[u8]) -> Option<State> {
        let (mut state, mut number) = (State::new(), None);
        while !journal.is_empty() {
            let whole = journal;
            if !batch(&mut journal, &mut number).ok()? {
                return None;
            }
            let mut rest = &whole[START_BYTES..whole.len() - journal.len() - END_BYTES];
            while !rest.is_empty() {
                let key = ITEM_BYTES + usize::from(u16_at(rest, 11));
                let end = key + length(u32_at(rest, 13));
                state.remove(&rest[ITEM_BYTES..key]);
                if end > key {
                    state.insert(rest[ITEM_BYTES..key].to_vec(), rest[key..end].to_vec());
                }
                rest = &rest[end..];
            }
        }
        Some(state)
    }

    fn mended(bytes: &[u8]) -> Result<(Vec<u8>, Mended), usize> {
        let mut mended = Mended::default();
        let mut repair = Repair::new(bytes, &mut mended);
        repair.run()?;
        Ok((repair.out, mended))
    }

    /// Whichever byte changes, at most one page is lost, none is another, and what was deleted
    /// stays so; where an invalidation may be lost, it is told.
    #[test]
    fn a_changed_byte_costs_one_page() {
        let journal = journal();
        let whole = read(&journal).unwrap();
        let names = |state: &State| -> BTreeSet<Vec<u8>> {
            let keys = state.keys().filter(|key| [META, BODY].contains(&key[0]));
            keys.map(|key| key[1..].to_vec()).collect()
        };
        assert_eq!(names(&whole).len(), 5);
        let (mut lost, mut unsure) = (0, 0);
        for place in 0..journal.len() {
            let mut changed = journal.clone();
            changed[place] ^= 1 << (place % 8);
            let (out, mended) = mended(&changed).unwrap_or_else(|at| panic!("{place}: {at}"));
            let state = read(&out).expect("what was mended is whole");
            for (key, value) in &state {
                assert_eq!(whole.get(key), Some(value), "{place}: {key:?}");
            }
            let missing = names(&whole).difference(&names(&state)).count();
            assert!(missing <= 1, "{place}: {missing} lost");
            let mut invalidations = whole.keys().filter(|key| b"st".contains(&key[0]));
            let are_kept = invalidations.all(|key| state.contains_key(key));
            assert!(are_kept || mended.unsure, "{place}");
            lost += missing;
            unsure += usize::from(mended.unsure);
        }
        assert!(lost > 0 && unsure > 0, "{lost} {unsure}");
    }

    /// A process that ended in the midst of a batch loses that batch; nothing else is touched.
    #[test]
    fn a_journal_that_ends_early_is_cut_where_it_does() {
        let journal = journal();
        let folder = tempfile::tempdir().unwrap();
        let (file, distrust) = (folder.path().join("1.jnl"), folder.path().join("distrust"));
        for end in 0..=journal.len() {
            for room in [0, 100] {
                let mut torn = journal[..end].to_vec();
                torn.resize(end + room, 0);
                std::fs::write(&file, &torn).unwrap();
                let mended = mend(folder.path(), &distrust);
                let mended = mended.unwrap_or_else(|error| panic!("{end} {room}: {error}"));
                assert_eq!(mended, Mended::default(), "{end} {room}");
                let left = std::fs::read(&file).unwrap();
                let written = left.iter().rposition(|byte| *byte != 0);
                let left = &left[..written.map_or(0, |last| last + 1)];
                assert!(journal.starts_with(left), "{end} {room}");
            }
        }
    }

    #[test]
    fn what_cannot_be_told_apart_is_refused() {
        let mut journal = journal();
        journal[20..1_000].fill(0xa5);
        assert_eq!(mended(&journal).err(), Some(0));
    }
}
