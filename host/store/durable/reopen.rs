//! `Database::reopen`: what becomes of a database that takes nothing any more, for the disk failed
//! or has changed bytes of it.

use std::fs::File;
use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::database::{DISTRUST, Database, Lost, ReadError};
use super::open::{anew, remove, swap, undo_swap};
use super::opened::{self, Opened, describe};
use super::rebuild;

/// How long nobody looks for bytes that changed after somebody did: it means to read everything.
const PAUSE: Duration = Duration::from_mins(10);

/// Bytes of the cache of a database that is only written.
const LITTLE: u64 = 1 << 20;

/// Whether the files are as they were written.
#[derive(Default)]
pub(super) struct Suspicion {
    /// Somebody came upon bytes that are not.
    found: AtomicBool,
    /// When all were looked through.
    looked: Mutex<Option<Instant>>,
    /// What that cost, until it is told.
    lost: Mutex<Lost>,
}

impl Suspicion {
    fn is_due(&self) -> bool {
        self.looked
            .lock()
            .is_none_or(|looked| looked.elapsed() >= PAUSE)
    }
}

impl Database {
    /// Copies what finds the records, where it is new.
    ///
    /// # Errors
    /// When the database must be opened again, for bytes of it changed.
    pub(super) fn tend(&self) -> Result<(), String> {
        if let Err(error) = self.spares.keep() {
            tracing::debug!("what finds the pages on disk is not copied: {error}");
        }
        if self.suspicion.found.load(Ordering::Relaxed) && self.suspicion.is_due() {
            return Err("bytes of the store changed on disk, and it is being mended".to_owned());
        }
        Ok(())
    }

    /// Notes that somebody who goes through the records ended at this; whether any changed is looked
    /// at behind everybody.
    pub(super) fn suspect(&self, ended: &ReadError) {
        if let ReadError::Database(error) = ended
            && rebuild::is_of_the_bytes(error)
        {
            self.suspicion.found.store(true, Ordering::Relaxed);
        }
    }

    /// Closes and opens the database again: after a failed write, or once a compaction came upon
    /// bytes that changed, it takes no other. What cannot be read is left out of it; what that was.
    ///
    /// # Errors
    /// While the disk fails.
    pub(super) fn reopen(&self) -> Result<Lost, String> {
        // While the disk is still full or failing, what is on it can at least be read.
        probe(&self.folder).map_err(|error| error.to_string())?;
        let rebuilt = self.rebuild();
        let mut opened = self.opened.write();
        *opened = None;
        if let Some(lost) = rebuilt {
            self.take_over(&lost).map_err(|error| error.to_string())?;
            *self.suspicion.lost.lock() = lost;
        }
        undo_swap(&self.pages).map_err(|error| error.to_string())?;
        let mut put_back = self.spares.put_back().map_err(|error| error.to_string())?;
        let reopened = opened::open_mended(&self.pages, self.cache, &self.spares, &mut put_back);
        *opened = Some(reopened.map_err(|error| describe(&error))?);
        Ok(Lost {
            put_back,
            ..std::mem::take(&mut *self.suspicion.lost.lock())
        })
    }

    /// Makes a database beside the one that there is, from what can be read of it, where its bytes
    /// changed; what cannot. Readers have the old one meanwhile.
    fn rebuild(&self) -> Option<Lost> {
        if !self.suspicion.is_due() {
            return None;
        }
        let opened = self.opened.read();
        let old = opened.as_ref()?;
        // Where a worker died in a panic, its locks have others panic.
        let made = catch_unwind(AssertUnwindSafe(|| {
            let is_damaged = rebuild::is_damaged(old)?;
            *self.suspicion.looked.lock() = Some(Instant::now());
            self.suspicion.found.store(false, Ordering::Relaxed);
            is_damaged.then(|| self.copy(old)).transpose()
        }));
        let made = made.unwrap_or(Err(fjall::Error::Poisoned));
        made.unwrap_or_else(|error| {
            let reason = describe(&error);
            tracing::error!("the store on disk cannot be mended, if it needs to be: {reason}");
            None
        })
    }

    fn copy(&self, old: &Opened) -> Result<Lost, fjall::Error> {
        let place = anew(&self.pages);
        remove(&place)?;
        let new = opened::open(&place, LITTLE)?;
        let lost = rebuild::copy(old, &new);
        drop(new);
        if lost.is_err() {
            // It may have filled the disk.
            remove(&place)?;
        }
        lost
    }

    /// Puts what was made anew in its place, where nobody reads.
    fn take_over(&self, lost: &Lost) -> io::Result<()> {
        if lost.invalidations {
            // This process knows them; the next one must not trust what it finds.
            File::create(self.folder.join(DISTRUST))?.sync_all()?;
        }
        swap(&self.pages, &self.spares)
    }
}

/// Whether the disk takes anything.
fn probe(folder: &Path) -> io::Result<()> {
    let probe = folder.join("probe");
    let room = vec![0; 1 << 20];
    let written = File::create(&probe)
        .and_then(|mut file| file.write_all(&room).map(|()| file))
        .and_then(|file| file.sync_all());
    let removed = std::fs::remove_file(&probe);
    written.and(removed)
}
