//! `Commits`: one round on its way into the database.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use fjall::{OwnedWriteBatch, PersistMode};

use super::keys::{BODY, META, SITE, mark_key, note_key, text_key};
use super::opened::{MEMTABLE, Opened};
use super::queue::{Change, Round};
use crate::page::PageKey;
use crate::store::codec;
use crate::store::marks::Site;

/// Operations and bytes in one commit: few enough that nothing is held for long.
const COMMIT: usize = 128;
const COMMIT_BYTES: usize = 4 << 20;
/// Bytes that wait in memory for their tables. The database itself would let them grow while its
/// workers compact.
const UNFLUSHED: u64 = 3 * MEMTABLE;
/// Full tables that wait. From four on the database stops its writers, for ever if its workers
/// have died of a full disk.
const SEALED: usize = 3;
/// A look at how far the workers are, and how long they are waited for if none is sealed.
const GLANCE: Duration = Duration::from_millis(2);
const GLANCES: usize = 500;
/// How long they may take for one table: the slowest disk writes 16 MiB in this time. Workers that
/// died in a panic tell nobody.
const STUCK: Duration = Duration::from_mins(5);

/// A round as a sequence of atomic batches.
pub(super) struct Commits<'a> {
    opened: &'a Opened,
    batch: OwnedWriteBatch,
    /// Bytes in the batch.
    unwritten: usize,
    /// Bytes in all.
    bytes: u64,
    /// Bytes after which a table is begun.
    memtable: u64,
}

impl<'a> Commits<'a> {
    pub(super) fn into(opened: &'a Opened, memtable: u64) -> Self {
        Self {
            batch: opened.database.batch(),
            opened,
            unwritten: 0,
            bytes: 0,
            memtable,
        }
    }

    /// Commits all of it; how many bytes of pages that were. Invalidations first: no page may be
    /// on disk whose number the site has not reached there.
    pub(super) fn round(mut self, round: &Round) -> Result<u64, fjall::Error> {
        let keyspace = &self.opened.keyspace;
        if let Some(Site { sequence, floor }) = round.site {
            let value = [sequence.to_le_bytes(), floor.to_le_bytes()].concat();
            self.batch.insert(keyspace, SITE, value);
        }
        for (mark, sequence) in &round.marks {
            let key = mark_key(mark);
            match sequence {
                Some(sequence) => self.batch.insert(keyspace, key, sequence.to_le_bytes()),
                None => self.batch.remove(keyspace, key),
            }
        }
        for (key, change) in &round.changes {
            self.change(key, change)?;
            self.commit_if_full()?;
        }
        for (note, record) in &round.notes {
            let key = note_key(note);
            match record {
                Some(record) => {
                    self.unwritten += record.len();
                    self.batch.insert(keyspace, key, record.as_ref());
                }
                None => self.batch.remove(keyspace, key),
            }
            self.commit_if_full()?;
        }
        self.commit()?;
        Ok(self.bytes)
    }

    fn change(&mut self, key: &PageKey, change: &Change) -> Result<(), fjall::Error> {
        let keyspace = &self.opened.keyspace;
        let (meta, body) = (text_key(META, key.as_str()), text_key(BODY, key.as_str()));
        let record = match change {
            Change::Remove => None,
            // No one else writes: what is found here is what is removed.
            Change::RemoveOf(route) => match keyspace.get(&meta)? {
                Some(found) if !is_of(&found, route) => return Ok(()),
                _ => None,
            },
            Change::Put(entry) => Some(codec::encode(entry)),
        };
        let Some(record) = record else {
            self.batch.remove(keyspace, meta);
            self.batch.remove(keyspace, body);
            return Ok(());
        };
        let size = record.meta.len() + record.body.as_ref().map_or(0, Vec::len);
        self.unwritten += size;
        self.batch.insert(keyspace, meta, record.meta);
        match record.body {
            Some(bytes) => self.batch.insert(keyspace, body, bytes),
            // A page that was and is not any more: its document must never come back.
            None => self.batch.remove(keyspace, body),
        }
        Ok(())
    }

    fn commit_if_full(&mut self) -> Result<(), fjall::Error> {
        if self.batch.len() >= COMMIT || self.unwritten >= COMMIT_BYTES {
            self.commit()?;
        }
        Ok(())
    }

    fn commit(&mut self) -> Result<(), fjall::Error> {
        self.wait_for_workers()?;
        let next = self.opened.database.batch();
        let full = std::mem::replace(&mut self.batch, next);
        let written = u64::try_from(std::mem::take(&mut self.unwritten)).unwrap_or(0);
        self.bytes += written;
        full.durability(Some(PersistMode::Buffer)).commit()?;
        // What fjall was told when the database was made holds for good: this can be changed.
        let Opened {
            unflushed,
            keyspace,
            ..
        } = self.opened;
        if unflushed.fetch_add(written, Ordering::Relaxed) + written >= self.memtable {
            unflushed.store(0, Ordering::Relaxed);
            keyspace.rotate_memtable()?;
        }
        Ok(())
    }

    /// Lets the database's workers catch up; fails if they have died.
    fn wait_for_workers(&self) -> Result<(), fjall::Error> {
        let Opened {
            database, keyspace, ..
        } = self.opened;
        let (began, mut glances) = (Instant::now(), 0);
        loop {
            let sealed = keyspace.sealed_memtable_count() >= SEALED;
            let large = database.write_buffer_size() > UNFLUSHED && glances < GLANCES;
            if !sealed && !large {
                return Ok(());
            }
            // Costs nothing, and tells whether an earlier write failed.
            database.persist(PersistMode::Buffer)?;
            if began.elapsed() > STUCK {
                return Err(fjall::Error::Poisoned);
            }
            std::thread::sleep(GLANCE);
            glances += 1;
        }
    }
}

/// Whether a record is of `route`; one that cannot be read is nobody's, and may go.
fn is_of(meta: &[u8], route: &str) -> bool {
    codec::sketch(meta).map_or(true, |sketch| sketch.route == route)
}
