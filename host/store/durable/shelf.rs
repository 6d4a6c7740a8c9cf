//! `Database::notes`: where notes lie among the records, and how they are read.

use fjall::Readable;

use super::database::{Database, ReadError};
use super::keys::text_key;
use crate::store::notes::{Note, Notes};

const INCIDENT: u8 = b'i';
const BACKOFF: u8 = b'f';

impl Database {
    /// Shows the record of every note of a kind to `visit`.
    pub(super) fn notes(
        &self,
        notes: Notes,
        mut visit: impl FnMut(&[u8]),
    ) -> Result<(), ReadError> {
        let kind = match notes {
            Notes::Incidents => INCIDENT,
            Notes::Backoffs => BACKOFF,
        };
        self.snapshot(|snapshot, keyspace| {
            for guard in snapshot.prefix(keyspace, [kind]) {
                visit(&guard.into_inner()?.1);
            }
            Ok(())
        })
    }
}

/// The key of a note.
pub(super) fn key(note: &Note) -> Vec<u8> {
    match note {
        // Big-endian, so that they are listed in their order.
        Note::Incident(slot) => [&[INCIDENT][..], &(*slot as u64).to_be_bytes()].concat(),
        Note::Backoff(key) => text_key(BACKOFF, key.as_str()),
    }
}
