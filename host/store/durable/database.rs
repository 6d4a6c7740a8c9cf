//! `Database`: the records on disk, in fjall.
//!
//! One keyspace: an idle one would pin the journal for ever.

use std::fs::File;
use std::io::{self, Write};
use std::ops::Bound;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use fjall::{PersistMode, Readable, Slice, Snapshot};
use parking_lot::{Mutex, RwLock};

use super::aside;
use super::commits::Commits;
use super::health::DiskError;
use super::keys::{BODY, META, PATH, PURGE, REPLACED, SITE, TAG, decode_mark, text_key};
use super::lock::Lock;
use super::open::{CHANGED, Damage, OpenError, Prepared, begin, is_of_the_bytes, prepare};
use super::opened::{self, MEMTABLE, Opened, SEPARATE, cache_beside};
use super::queue::{Change, Round};
use super::salvage::{Old, take_back};
use crate::page::{Entry, PageKey, Stamped, Summary};
use crate::store::Window;
use crate::store::codec::{self, DecodeError, Meta};
use crate::store::marks::{Saved, Site, numbered};

/// The file that says that invalidations may be lost.
const DISTRUST: &str = "distrust";
/// Invalidations that a site may have had of which nothing can be read: one a second for 34 years.
const UNSEEN: u64 = 1 << 30;
/// A database that takes nothing again so soon after it was opened again may have more than a disk that
/// fails: then all of it is read once.
const SOON: Duration = Duration::from_mins(10);
/// How long a disk that hangs is waited for at the end.
pub(super) const FAREWELL: Duration = Duration::from_secs(5);

/// The database of one folder.
pub(super) struct Database {
    /// None while it is being opened again after a failure.
    opened: RwLock<Option<Opened>>,
    folder: PathBuf,
    pages: PathBuf,
    cache: u64,
    /// Bytes after which a table is begun.
    memtable: u64,
    /// When it was opened again last.
    reopened: Mutex<Option<Instant>>,
    _lock: Lock,
}

/// What there is to tell of a start.
#[derive(Default)]
pub(super) struct Found {
    /// Why the store of earlier runs is not used, and where it is.
    pub(super) set_aside: Option<Arc<str>>,
    /// Whether invalidations may be lost: then all pages count as stale.
    pub(super) invalidations: bool,
    /// What lay among the database's files, and was moved away.
    pub(super) strays: Vec<String>,
    /// Stores that were set aside, whose pages come back.
    pub(super) olds: Vec<Old>,
}

fn told(folder: &Path, aside: &Path, damage: &Damage) -> String {
    format!(
        "the store in {} is not used: {damage}. It was moved to {}; what can be read of it is taken back, and other pages are made anew",
        folder.display(),
        aside.display()
    )
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
    /// memory may take `memory` bytes; the invalidations it holds, and what there is to tell. One
    /// that cannot be opened is set aside: a site that does not start shows no page at all.
    ///
    /// # Errors
    /// When the folder is in use, or not writable.
    pub(super) fn open(
        folder: &Path,
        memory: usize,
        memtable: u64,
    ) -> Result<(Self, Saved, Found), OpenError> {
        let cache = cache_beside(memory);
        let failed = |source| OpenError::io(folder, source);
        let mut prepared = prepare(folder)?;
        let mut found = Found {
            strays: std::mem::take(&mut prepared.strays),
            ..Found::default()
        };
        let distrust = folder.join(DISTRUST);
        let opened = match begin(folder, &prepared.pages, cache)? {
            Ok(opened) => opened,
            Err(damage) => {
                let aside = aside::set(folder, &damage).map_err(failed)?;
                found.set_aside = Some(told(folder, &aside, &damage).into());
                prepared = prepare(folder)?;
                File::create(&distrust).map_err(failed)?;
                begin(folder, &prepared.pages, cache)?
                    .map_err(|damage| failed(io::Error::other(damage)))?
            }
        };
        let Prepared { pages, lock, .. } = prepared;
        let database = Self {
            opened: RwLock::new(Some(opened)),
            folder: folder.to_owned(),
            pages,
            cache,
            memtable,
            reopened: Mutex::default(),
            _lock: lock,
        };
        let unusable = |error: DiskError| failed(io::Error::other(error));
        let (mut saved, is_whole) = database.saved().map_err(|error| unusable(error.into()))?;
        found.olds = take_back(folder, saved.site.floor, &distrust).map_err(failed)?;
        found.invalidations = !is_whole || distrust.exists();
        if found.invalidations {
            saved.site = database.distrust_all(saved.site).map_err(unusable)?;
            match std::fs::remove_file(&distrust) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(failed(error));
                }
                _ => {}
            }
        }
        Ok((database, saved, found))
    }

    /// The database of a store that was set aside.
    pub(super) fn aside(place: &Path, opened: Opened, lock: Lock) -> Self {
        Self {
            opened: RwLock::new(Some(opened)),
            folder: place.to_owned(),
            pages: place.join("pages"),
            cache: 0,
            memtable: MEMTABLE,
            reopened: Mutex::default(),
            _lock: lock,
        }
    }

    /// Whether a record cannot be read any more: compaction stumbles over it, and with it all writing.
    /// Reads everything.
    fn is_damaged(&self) -> bool {
        let read = self.snapshot(|snapshot, keyspace| {
            for guard in snapshot.iter(keyspace) {
                guard.into_inner()?;
            }
            Ok(())
        });
        match read {
            Err(ReadError::Database(fjall::Error::Storage(fjall::LsmError::Io(error)))) => {
                is_of_the_bytes(&error)
            }
            Err(ReadError::Database(fjall::Error::Storage(_))) => true,
            _ => false,
        }
    }

    /// Closes and opens the database again: after a failed write it takes no other.
    ///
    /// # Errors
    /// While the disk fails.
    pub(super) fn reopen(&self) -> Result<(), DiskError> {
        // While the disk is still full or failing, what is on it can at least be read.
        probe(&self.folder)?;
        if self.folder.join(CHANGED).exists() {
            return Err(DiskError::Damaged);
        }
        let before = self.reopened.lock().replace(Instant::now());
        if before.is_some_and(|before| before.elapsed() < SOON) && self.is_damaged() {
            File::create(self.folder.join(CHANGED))?.sync_all()?;
            return Err(DiskError::Damaged);
        }
        let mut opened = self.opened.write();
        *opened = None;
        *opened = Some(opened::open(&self.pages, self.cache)?);
        Ok(())
    }

    /// Makes all that there is count as made before an invalidation, and what was given a number
    /// that the site no longer knows of, too.
    fn distrust_all(&self, site: Site) -> Result<Site, DiskError> {
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
        let (closing, closed) = std::sync::mpsc::channel::<()>();
        let close = move || {
            drop(opened);
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
            for kind in [PATH, PURGE, REPLACED, TAG] {
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
    pub(super) fn commit(&self, round: &Round) -> Result<u64, DiskError> {
        let opened = self.opened.read();
        let opened = opened.as_ref().ok_or(DiskError::Closed)?;
        Ok(Commits::into(opened, self.memtable).round(round)?)
    }

    /// Makes what was committed survive a power cut.
    pub(super) fn sync(&self) -> Result<(), DiskError> {
        let opened = self.opened.read();
        let opened = opened.as_ref().ok_or(DiskError::Closed)?;
        Ok(opened.database.persist(PersistMode::SyncData)?)
    }

    /// Removes pages.
    pub(super) fn remove(&self, keys: impl IntoIterator<Item = PageKey>) -> Result<(), DiskError> {
        let changes = keys.into_iter().map(|key| (key, Change::Remove)).collect();
        self.commit(&Round {
            changes,
            ..Round::default()
        })
        .map(drop)
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

    /// Moves what is in the journal into tables and body files.
    pub(super) fn flush_tables(&self) {
        let opened = self.opened.read();
        let keyspace = &opened.as_ref().unwrap().keyspace;
        keyspace.rotate_memtable_and_wait().unwrap();
    }
}
