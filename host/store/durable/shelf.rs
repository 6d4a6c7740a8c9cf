//! `Database::notes`: how notes are read.

use fjall::Readable;

use super::database::{Database, ReadError};
use super::keys::{BACKOFF, HISTORY, INCIDENT};
use crate::store::notes::Notes;

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
            Notes::History => HISTORY,
        };
        self.snapshot(|snapshot, keyspace| {
            for guard in snapshot.prefix(keyspace, [kind]) {
                visit(&guard.into_inner()?.1);
            }
            Ok(())
        })
    }
}
