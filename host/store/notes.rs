//! `Note`: a small record that is kept beside pages and is never a page.
//!
//! Notes tell the next run what this one learned: which generations failed, which pages are not
//! to be asked for yet. None is worth a page: they are written behind everything else, and given
//! up when too many wait for the disk.
//!
//! A record is a version, the note as JSON, and a checksum of both.

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::page::PageKey;

/// The name of a note; a later note of the same name takes its place.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Note {
    /// One of the latest incidents, by the slot that it has among them.
    Incident(usize),
    /// A page whose last generation failed.
    Backoff(PageKey),
    /// Which history the invalidations are of that this host shares with others.
    History,
}

/// All notes of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notes {
    /// Each [`Note::Incident`].
    Incidents,
    /// Each [`Note::Backoff`].
    Backoffs,
    /// The [`Note::History`].
    History,
}

/// The version of the record. Readers of a later one keep reading this one.
const VERSION: u8 = 1;

/// Bytes of the checksum. Notes are few and small, and none is shown to readers.
const CHECKSUM: usize = 4;

/// Why bytes are not a note.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoteError {
    /// A later wisr wrote it, or nobody.
    #[error("it has another version than {VERSION}")]
    Version,
    /// They changed since they were written.
    #[error("the checksum does not match: the disk or the file system changed the bytes")]
    Checksum,
    /// They say something else than is expected.
    #[error("its JSON is not what it should be: {0}")]
    Json(#[from] serde_json::Error),
}

/// The record of `note`.
///
/// # Errors
/// When it cannot be said in JSON.
pub(super) fn encode(note: &impl Serialize) -> Result<Bytes, NoteError> {
    let mut record = vec![VERSION];
    serde_json::to_writer(&mut record, note)?;
    let sum = checksum(&record);
    record.extend_from_slice(&sum);
    Ok(record.into())
}

/// Reads a record.
///
/// # Errors
/// Whatever is wrong with it.
pub(super) fn decode<T: DeserializeOwned>(record: &[u8]) -> Result<T, NoteError> {
    let (sealed, sum) = record
        .split_last_chunk::<CHECKSUM>()
        .ok_or(NoteError::Checksum)?;
    match sealed {
        [VERSION, json @ ..] if checksum(sealed) == *sum => Ok(serde_json::from_slice(json)?),
        [VERSION, ..] => Err(NoteError::Checksum),
        _ => Err(NoteError::Version),
    }
}

fn checksum(sealed: &[u8]) -> [u8; CHECKSUM] {
    let hash = blake3::hash(sealed);
    *hash
        .as_bytes()
        .first_chunk()
        .expect("a BLAKE3 hash is longer than its beginning")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What this version writes, and so every later one must read.
    const KEPT: &[u8] = b"\x01[\"a\",1]\xfb\xfc\xd8w";

    #[test]
    fn a_record_of_the_first_version_is_read() {
        let note = ("a".to_owned(), 1);
        assert_eq!(encode(&note).unwrap(), KEPT);
        assert_eq!(decode::<(String, u8)>(KEPT).unwrap(), note);
    }

    #[test]
    fn whatever_is_wrong_with_a_record_is_told() {
        let told = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut record = KEPT.to_vec();
            change(&mut record);
            decode::<(String, u8)>(&record).map_err(|error| error.to_string())
        };
        assert!(
            told(&|record| record[0] = 2)
                .unwrap_err()
                .contains("version")
        );
        for place in 1..KEPT.len() {
            let error = told(&|record| record[place] ^= 1).unwrap_err();
            assert!(error.contains("checksum"), "{place}: {error}");
        }
        for length in 0..KEPT.len() {
            told(&|record| record.truncate(length)).unwrap_err();
        }
        let other = encode(&"a").unwrap();
        assert!(matches!(decode::<u8>(&other), Err(NoteError::Json(_))));
    }
}
