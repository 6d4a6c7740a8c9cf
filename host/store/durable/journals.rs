//! [`ends`] of the journals: whether the database left out more of one than a crash leaves.
//!
//! What a process that was killed leaves is half a batch, and the database cuts that off. It cuts in the
//! same way, and says nothing, where the disk changed a byte between two values: then whole batches
//! go, and with them invalidations that were acknowledged.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::leftovers::{entries, journal_number};

/// What each batch ends with, in fjall 3.
const MARK: &[u8; 4] = b"FJL\x03";

/// Bytes that are looked through at a time.
const PIECE: usize = 64 << 10;

/// Where a journal ends that the database has not opened yet. It may remove it then.
pub(super) struct End {
    journal: File,
    /// Behind the last byte that was written: what follows is room.
    at: u64,
    /// Whether that is the end of a batch, or was before the disk changed a byte of it.
    is_whole: bool,
}

/// The ends of all journals.
///
/// # Errors
/// When the file system refuses.
pub(super) fn ends(pages: &Path) -> io::Result<Vec<End>> {
    let mut files = entries(pages)?;
    files.retain(|file| journal_number(file).is_some());
    let ends = files.iter().map(|file| end(File::open(file)?));
    ends.collect()
}

fn end(journal: File) -> io::Result<End> {
    let mut at = journal.metadata()?.len();
    let mut bytes = vec![0; PIECE];
    while at > 0 {
        let from = at.saturating_sub(PIECE as u64);
        let piece = &mut bytes[..usize::try_from(at - from).unwrap_or(PIECE)];
        journal.read_exact_at(piece, from)?;
        if let Some(last) = piece.iter().rposition(|byte| *byte != 0) {
            at = from + last as u64 + 1;
            break;
        }
        at = from;
    }
    let mut last = [0; MARK.len()];
    let is_whole = match at.checked_sub(last.len() as u64) {
        Some(from) => {
            journal.read_exact_at(&mut last, from)?;
            let same = last.iter().zip(MARK).filter(|(byte, mark)| byte == mark);
            same.count() + 1 >= MARK.len()
        }
        None => false,
    };
    Ok(End {
        journal,
        at,
        is_whole,
    })
}

/// Whether the database has cut off whole batches.
///
/// # Errors
/// When the file system refuses.
pub(super) fn is_any_cut(ends: &[End]) -> io::Result<bool> {
    for end in ends {
        if end.is_whole && end.journal.metadata()?.len() < end.at {
            return Ok(true);
        }
    }
    Ok(false)
}
