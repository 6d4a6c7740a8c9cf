//! `Database`: the records on disk, in fjall.
//!
//! One keyspace: an idle one would pin the journal for ever.

use std::collections::BTreeSet;
use std::io;
use std::ops::Bound;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fjall::{PersistMode, Readable, Slice, Snapshot};
use parking_lot::RwLock;

use super::commits::Commits;
use super::journal::{self, MendError};
use super::keys::{BODY, META, PATH, PURGE, SITE, TAG, decode_mark, text_key};
use super::lock::Lock;
use super::open::{OpenError, Prepared, anew, prepare, swap};
use super::opened::{self, Opened, SEPARATE, cache_beside, describe};
use super::queue::{Change, Round};
use super::reopen::Suspicion;
use super::spare::Spares;
use crate::page::{Entry, PageKey, Stamped, Summary};
use crate::store::Window;
use crate::store::codec::{self, DecodeError, Meta};
use crate::store::marks::{Saved, Site, numbered};

/// The file that says that invalidations may be lost.
pub(super) const DISTRUST: &str = "distrust";
/// Invalidations that a site may have had of which nothing can be read: one a second for 34 years.
const UNSEEN: u64 = 1 << 30;
/// How long a disk that hangs is waited for at the end.
pub(super) const FAREWELL: Duration = Duration::from_secs(5);

/// The database of one folder.
pub(super) struct Database {
    /// None while it is being opened again after a failure.
    pub(super) opened: RwLock<Option<Opened>>,
    pub(super) folder: PathBuf,
    pub(super) pages: PathBuf,
    pub(super) cache: u64,
    pub(super) spares: Arc<Spares>,
    pub(super) suspicion: Suspicion,
    _lock: Lock,
}

/// What a disk that changed bytes has cost.
#[derive(Debug, Default)]
pub(super) struct Lost {
    /// Pages that are to be made anew.
    pub(super) pages: BTreeSet<String>,
    /// Whether invalidations may be lost: then all pages count as stale.
    pub(super) invalidations: bool,
    /// Places where nobody knows what there was.
    pub(super) blocks: usize,
    /// Files that were put back from their copies, which costs nothing.
    pub(super) put_back: Vec<String>,
}

/// Why something could not be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    /// The bytes are not what was written.
    #[error("{0}")]
    Record(#[from] DecodeError),
    /// The database says so.
    #[error("the database failed: {0}")]
    Database(#[from] fjall::Error),
    /// It is being opened again.
    #[error("the database is closed after a failure")]
    Closed,
    /// It did not answer.
    #[error("the disk takes long")]
    Slow,
}

// === opening ===

impl Database {
    /// Opens the database in `folder`, made if it is not there, for a process whose pages in
    /// memory may take `memory` bytes; the invalidations it holds, and what was lost of it.
    ///
    /// # Errors
    /// When the folder is in use, of another format, unreadable, or not writable.
    pub(super) fn open(folder: &Path, memory: usize) -> Result<(Self, Saved, Lost), OpenError> {
        let Prepared {
            pages,
            lock,
            spares,
            mut put_back,
        } = prepare(folder)?;
        let distrust = folder.join(DISTRUST);
        let mended = journal::mend(&pages, &distrust).map_err(|error| match error {
            MendError::Io(source) => OpenError::io(folder, source),
            lost @ MendError::Lost { .. } => OpenError::unreadable(folder, lost.to_string()),
        })?;
        let cache = cache_beside(memory);
        let refused = |error| match error {
            fjall::Error::Io(source) => OpenError::io(folder, source),
            other => OpenError::unreadable(folder, describe(&other)),
        };
        if !pages.exists() {
            // In one step: one that has no keyspace yet would give it another number.
            drop(opened::open(&anew(&pages), cache).map_err(refused)?);
            swap(&pages, &spares).map_err(|source| OpenError::io(folder, source))?;
        }
        let opened = opened::open_mended(&pages, cache, &spares, &mut put_back).map_err(refused)?;
        let database = Self {
            opened: RwLock::new(Some(opened)),
            folder: folder.to_owned(),
            pages,
            cache,
            spares: Arc::new(spares),
            suspicion: Suspicion::default(),
            _lock: lock,
        };
        let failed = |reason: String| OpenError::unreadable(folder, reason);
        let (mut saved, is_whole) = database.saved().map_err(|e| failed(e.to_string()))?;
        let lost = Lost {
            pages: mended.pages,
            invalidations: !is_whole || mended.unsure || distrust.exists(),
            put_back,
            ..Lost::default()
        };
        if lost.invalidations {
            saved.site = database.distrust_all(saved.site).map_err(failed)?;
            match std::fs::remove_file(&distrust) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(OpenError::io(folder, error));
                }
                _ => {}
            }
        }
        Ok((database, saved, lost))
    }

    /// Makes all that there is count as made before an invalidation, and what was given a number
    /// that the site no longer knows of, too.
    fn distrust_all(&self, site: Site) -> Result<Site, String> {
        let mut sequence = site.sequence;
        let surveyed = self.survey().rest(|brief, _| {
            sequence = sequence.max(brief.stamp.sequence);
            ControlFlow::Continue(())
        });
        if let Err(error) = surveyed {
            tracing::warn!("not all pages on disk can be looked at: {error}");
            // One of them may have a later number than any that was seen.
            sequence = sequence.saturating_add(numbered(UNSEEN));
        }
        let sequence = sequence.saturating_add(1);
        let site = Site {
            sequence,
            floor: sequence,
        };
        self.commit(&Round {
            site: Some(site),
            ..Round::default()
        })?;
        self.sync().map(|()| site)
    }
}

impl Drop for Database {
    /// Closes it, or leaves it to the end of the process where the disk hangs: the database waits
    /// for its workers, however long they take.
    fn drop(&mut self) {
        let opened = self.opened.get_mut().take();
        let spares = self.spares.clone();
        let (closing, closed) = std::sync::mpsc::channel::<()>();
        let close = move || {
            drop(opened);
            // What there is on disk is a copy of the state before, if this fails.
            let _ = spares.keep();
            drop(closing);
        };
        // Where there is no thread, it is closed here.
        let _ = std::thread::Builder::new()
            .name("wisr-close".to_owned())
            .spawn(close);
        let _ = closed.recv_timeout(FAREWELL);
    }
}

// === reading ===

impl Database {
    /// The entry of a page. `sequence` is the latest number that the site has given.
    pub(super) fn get(&self, key: &PageKey, sequence: u64) -> Result<Option<Entry>, ReadError> {
        let whole = self.opened(|opened| {
            let body = opened.keyspace.get(text_key(BODY, key.as_str()))?;
            let whole = body.map(|body| codec::decode_checked(&own(body)));
            Ok(whole.transpose()?.flatten())
        })?;
        if let Some(mut whole) = whole {
            if whole.key != *key {
                return Err(DecodeError::Malformed("key").into());
            }
            whole.distrust_after(sequence);
            return Ok(Some(whole.into_entry(None)?));
        }
        // A snapshot: both records of one and the same entry.
        self.snapshot(|snapshot, keyspace| {
            let Some(meta) = snapshot.get(keyspace, text_key(META, key.as_str()))? else {
                return Ok(None);
            };
            let meta = codec::decode_meta(&meta)?;
            if meta.key != *key {
                return Err(DecodeError::Malformed("key").into());
            }
            complete(snapshot, keyspace, meta, sequence).map(Some)
        })
    }

    /// The route and the stamp of a page's entry; its bodies are not looked at.
    pub(super) fn stamp(&self, key: &PageKey, sequence: u64) -> Result<Option<Stamped>, ReadError> {
        self.snapshot(|snapshot, keyspace| {
            let meta = snapshot.get(keyspace, text_key(META, key.as_str()))?;
            let meta = meta.map(|meta| codec::decode_meta(&meta)).transpose()?;
            Ok(meta.filter(|meta| meta.key == *key).map(|mut meta| {
                meta.distrust_after(sequence);
                (meta.route, meta.stamp)
            }))
        })
    }

    /// What the window shows. What cannot be read is passed to `unreadable`.
    pub(super) fn list(
        &self,
        window: &Window,
        sequence: u64,
        unreadable: impl Fn(&str, &ReadError),
    ) -> Result<Vec<Summary>, ReadError> {
        let first = match &window.after {
            Some(after) if *after >= window.prefix => Bound::Excluded(text_key(META, after)),
            _ => Bound::Included(text_key(META, &window.prefix)),
        };
        let range = (first, Bound::Excluded(vec![META + 1]));
        self.snapshot(|snapshot, keyspace| {
            let mut entries = Vec::new();
            for guard in snapshot.range(keyspace, range) {
                if entries.len() >= window.limit {
                    break;
                }
                let (key, meta) = guard.into_inner()?;
                if !key[1..].starts_with(window.prefix.as_bytes()) {
                    break;
                }
                match codec::decode_meta(&meta) {
                    Ok(mut meta) => {
                        meta.distrust_after(sequence);
                        entries.push(meta.summary());
                    }
                    Err(error) => {
                        unreadable(&String::from_utf8_lossy(&key[1..]), &error.into());
                    }
                }
            }
            Ok(entries)
        })
    }

    /// The invalidations, as far as they can be read; whether that is all of them.
    fn saved(&self) -> Result<(Saved, bool), ReadError> {
        self.snapshot(|snapshot, keyspace| {
            let mut saved = Saved::default();
            let site = snapshot.get(keyspace, SITE).map_err(ReadError::from);
            let site = site.and_then(|site| site.as_deref().map(decode_site).transpose());
            let mut is_whole = site.is_ok();
            saved.site = site.ok().flatten().unwrap_or_default();
            for kind in [PATH, PURGE, TAG] {
                let marks = snapshot.prefix(keyspace, [kind]).map(|guard| {
                    let (key, value) = guard.into_inner()?;
                    Ok::<_, ReadError>((decode_mark(kind, &key[1..])?, number(&value)?))
                });
                for mark in marks {
                    let Ok((mark, sequence)) = mark else {
                        // What is behind a block that cannot be read cannot be found either.
                        is_whole = false;
                        break;
                    };
                    is_whole &= sequence <= saved.site.sequence;
                    saved.marks.push((mark, sequence));
                }
            }
            if !is_whole {
                // The floor stands for them, and one that changed may be a number yet to come.
                saved.marks.clear();
            }
            Ok((saved, is_whole))
        })
    }

    pub(super) fn snapshot<T>(
        &self,
        read: impl FnOnce(&Snapshot, &fjall::Keyspace) -> Result<T, ReadError>,
    ) -> Result<T, ReadError> {
        self.opened(|opened| read(&opened.database.snapshot(), &opened.keyspace))
    }

    fn opened<T>(
        &self,
        read: impl FnOnce(&Opened) -> Result<T, ReadError>,
    ) -> Result<T, ReadError> {
        read(self.opened.read().as_ref().ok_or(ReadError::Closed)?)
    }
}

fn complete(
    snapshot: &Snapshot,
    keyspace: &fjall::Keyspace,
    mut meta: Meta,
    sequence: u64,
) -> Result<Entry, ReadError> {
    let body = if meta.has_body() {
        snapshot.get(keyspace, text_key(BODY, meta.key.as_str()))?
    } else {
        None
    };
    meta.distrust_after(sequence);
    Ok(meta.into_entry(body.map(own).as_ref())?)
}

/// A record that keeps nothing but itself in memory: a small one lies in a block among others.
fn own(record: Slice) -> Bytes {
    match record.len() {
        small if small < SEPARATE as usize => Bytes::copy_from_slice(&record),
        _ => Bytes::from(record),
    }
}

fn decode_site(bytes: &[u8]) -> Result<Site, ReadError> {
    let (sequence, floor) = bytes.split_at_checked(8).unwrap_or_default();
    Ok(Site {
        sequence: number(sequence)?,
        floor: number(floor)?,
    })
}

pub(super) fn number(bytes: &[u8]) -> Result<u64, ReadError> {
    let bytes = bytes
        .try_into()
        .map_err(|_| DecodeError::Malformed("number"))?;
    Ok(u64::from_le_bytes(bytes))
}

// === writing ===

impl Database {
    /// Commits a round to the operating system; how many bytes of pages that were.
    pub(super) fn commit(&self, round: &Round) -> Result<u64, String> {
        let opened = self.opened.read();
        let opened = opened
            .as_ref()
            .ok_or_else(|| ReadError::Closed.to_string())?;
        let committed = Commits::into(opened).round(round);
        committed.map_err(|error| describe(&error))
    }

    /// Makes what was committed survive a power cut.
    pub(super) fn sync(&self) -> Result<(), String> {
        let opened = self.opened.read();
        let opened = opened
            .as_ref()
            .ok_or_else(|| ReadError::Closed.to_string())?;
        let synced = opened.database.persist(PersistMode::SyncData);
        synced.map_err(|error| describe(&error))
    }

    /// Removes pages.
    pub(super) fn remove(&self, keys: impl IntoIterator<Item = PageKey>) -> Result<(), String> {
        let changes = keys.into_iter().map(|key| (key, Change::Remove)).collect();
        self.commit(&Round {
            changes,
            ..Round::default()
        })
        .map(drop)
    }
}

#[cfg(test)]
impl Database {
    /// Changes a record as a broken disk does.
    pub(super) fn tamper(&self, kind: u8, key: &PageKey, change: impl Fn(&mut Vec<u8>)) {
        let opened = self.opened.read();
        let keyspace = &opened.as_ref().unwrap().keyspace;
        let key = text_key(kind, key.as_str());
        let mut record = keyspace.get(&key).unwrap().unwrap().to_vec();
        change(&mut record);
        keyspace.insert(key, record).unwrap();
    }

    /// Keeps everybody waiting, as a disk that hangs does.
    pub(super) fn hang(&self) -> impl Drop + '_ {
        self.opened.write()
    }

    /// How many body records there are.
    pub(super) fn bodies(&self) -> usize {
        let opened = self.opened.read();
        opened.as_ref().unwrap().keyspace.prefix([BODY]).count()
    }

    /// As [`Database::flush_tables`], unless it is just being opened again or has failed.
    pub(super) fn flush_if_open(&self) -> bool {
        let opened = self.opened.read();
        let keyspace = opened.as_ref().map(|opened| &opened.keyspace);
        keyspace.is_some_and(|keyspace| keyspace.rotate_memtable_and_wait().is_ok())
    }

    /// Whether few tables wait for a compaction.
    pub(super) fn is_compacted(&self) -> bool {
        let opened = self.opened.read();
        opened
            .as_ref()
            .is_some_and(|opened| opened.keyspace.l0_table_count() < 4)
    }

    /// Moves what is in the journal into tables and body files.
    pub(super) fn flush_tables(&self) {
        let opened = self.opened.read();
        let keyspace = &opened.as_ref().unwrap().keyspace;
        keyspace.rotate_memtable_and_wait().unwrap();
    }
}
