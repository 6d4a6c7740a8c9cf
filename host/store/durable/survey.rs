//! `Survey`: a look at every page on disk, at what it is and not at what it says.
//!
//! In pieces, so that it holds nothing for long: between two of them the database may be opened
//! again, and what was deleted meanwhile be reclaimed. It sees each page once, and may miss one
//! that is written while it looks.

use std::ops::{Bound, ControlFlow};

use fjall::Readable;

use super::database::{Database, ReadError};
use super::keys::META;
use crate::store::brief::Brief;
use crate::store::codec;

/// Pages that are looked at in one piece, a few milliseconds.
const PIECE: usize = 1_000;

/// A look that is under way.
pub(super) struct Survey<'a> {
    database: &'a Database,
    /// Behind which key it goes on.
    from: Bound<Vec<u8>>,
}

impl Database {
    /// Begins to look at all pages.
    pub(super) fn survey(&self) -> Survey<'_> {
        Survey {
            database: self,
            from: Bound::Included(vec![META]),
        }
    }
}

impl Survey<'_> {
    /// Shows the next piece of pages to `visit`, with the bytes that each takes; whether there are
    /// more and it has not seen enough. Records that cannot be read are left out.
    pub(super) fn piece(
        &mut self,
        mut visit: impl FnMut(Brief<'_>, u64) -> ControlFlow<()>,
    ) -> Result<bool, ReadError> {
        let range = (self.from.clone(), Bound::Excluded(vec![META + 1]));
        let last = self.database.snapshot(|snapshot, keyspace| {
            let mut last = None;
            for guard in snapshot.range(keyspace, range).take(PIECE) {
                let (key, record) = guard.into_inner()?;
                if let Ok(sketch) = codec::sketch(&record) {
                    let size = (key.len() + record.len()) * 2 + sketch.body_size;
                    let brief = Brief {
                        key: sketch.key,
                        route: sketch.route,
                        stamp: &sketch.stamp,
                        is_document: sketch.is_document,
                    };
                    if visit(brief, u64::try_from(size).unwrap_or(u64::MAX)).is_break() {
                        return Ok(None);
                    }
                }
                last = Some(key.to_vec());
            }
            Ok(last)
        })?;
        let more = last.is_some();
        if let Some(last) = last {
            self.from = Bound::Excluded(last);
        }
        Ok(more)
    }

    /// Shows all pages that are left.
    pub(super) fn rest(
        mut self,
        mut visit: impl FnMut(Brief<'_>, u64) -> ControlFlow<()>,
    ) -> Result<(), ReadError> {
        while self.piece(&mut visit)? {}
        Ok(())
    }
}
