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

mod repair;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::Xxh3;

use repair::Repair;

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
mod tests;
