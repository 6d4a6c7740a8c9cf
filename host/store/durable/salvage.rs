//! `Old`: a store that was set aside, as far as the database itself can still read it.
//!
//! Nothing is repaired: fjall opens it, or does not. Where it stumbles over a journal, the part of that
//! journal is looked for that it still reads, by trying. All this happens in the folder that was set
//! aside, never in the store.

use std::fs::{self, File};
use std::io::{self, Read};
use std::ops::{Bound, ControlFlow};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use fjall::Readable;

use super::aside::{self, Trust};
use super::database::{Database, ReadError};
use super::keys::META;
use super::leftovers::{self, journal_number};
use super::open::{check_files, is_newer};
use super::opened::{self, Opened};
use crate::page::{Entry, PageKey, Timestamp};

/// Bytes of the cache of a database that is read once, from one end to the other.
const LITTLE: u64 = 1 << 20;

/// Pages that are looked for in one piece.
const PIECE: usize = 1_000;

/// Bytes below which nothing is to be gained from a journal: each batch begins with more.
const STEP: u64 = 8;

/// A store that was set aside.
pub(in crate::store) struct Old {
    database: Database,
    place: PathBuf,
    /// Whether nothing of it is known to be missing.
    pub(super) is_whole: bool,
    pub(super) trust: Trust,
}

/// How far a look came.
enum Reach {
    /// There is more.
    More,
    /// Through all of it.
    End,
    /// To bytes that cannot be read.
    Damage,
}

type Range = (Bound<Vec<u8>>, Bound<Vec<u8>>);

/// Opens what was set aside and whose pages have not come back yet, beside a store with this floor.
///
/// # Errors
/// When the file system refuses.
pub(super) fn take_back(folder: &Path, floor: u64, distrust: &Path) -> io::Result<Vec<Old>> {
    let mut olds = Vec::new();
    for place in aside::pending(folder)? {
        let mut old = match Old::open(&place) {
            Ok(Some(old)) => old,
            Ok(None) => continue,
            Err(error) => {
                tracing::warn!("{} is not taken back: {error}", place.display());
                continue;
            }
        };
        old.trust = match aside::trust(&place) {
            Some(trust) => trust,
            None => {
                // Behind the floor purges are forgotten.
                let is_known = old.is_whole && floor == 0;
                let trust = if is_known {
                    Trust::Stale
                } else {
                    Trust::Doubted
                };
                // First: what comes back must count as older than an invalidation.
                File::create(distrust)?.sync_all()?;
                aside::begin(&place, trust)?;
                trust
            }
        };
        olds.push(old);
    }
    Ok(olds)
}

impl Old {
    /// Opens what was set aside at `place`; none where nothing of it can be read, or a later wisr is
    /// to do that. What 0.1.0 set aside is opened only if nothing but leftovers was wrong with it.
    pub(super) fn open(place: &Path) -> io::Result<Option<Self>> {
        if is_newer(&place.join("format")) {
            return Ok(None);
        }
        let lock = super::lock::Lock::acquire(place).map_err(io::Error::other)?;
        leftovers::remove(place)?;
        let pages = place.join("pages");
        let opened = match check_files(&pages)? {
            Ok(()) => opened::open(&pages, LITTLE)
                .ok()
                .map(|opened| (opened, true)),
            Err(_) => None,
        };
        let opened = match opened {
            None if aside::is_ours(place) => salvage(place, &pages)?.map(|opened| (opened, false)),
            opened => opened,
        };
        let Some((opened, is_whole)) = opened else {
            aside::close(place, "nothing of it can be read")?;
            return Ok(None);
        };
        Ok(Some(Self {
            database: Database::aside(place, opened, lock),
            place: place.to_owned(),
            is_whole,
            trust: Trust::Doubted,
        }))
    }

    /// Where it is.
    pub(in crate::store) fn place(&self) -> &Path {
        &self.place
    }

    /// Shows every page that can be read to `visit`, as it may be shown again; how many could not be,
    /// as far as can be told, unless `visit` has had enough.
    pub(in crate::store) fn walk(
        &self,
        mut visit: impl FnMut(Entry) -> ControlFlow<()>,
    ) -> ControlFlow<(), usize> {
        let mut range = (Bound::Included(vec![META]), Bound::Excluded(vec![META + 1]));
        let (mut lost, mut backwards) = (0, false);
        loop {
            let (names, reach) = self.names(range.clone(), backwards);
            for name in &names {
                let key = PageKey::new(&String::from_utf8_lossy(&name[1..]), &[]);
                match self.database.get(&key, u64::MAX) {
                    Ok(Some(entry)) => visit(self.judged(entry))?,
                    Ok(None) => {}
                    Err(_) => lost += 1,
                }
            }
            if let Some(last) = names.into_iter().next_back() {
                match backwards {
                    true => range.1 = Bound::Excluded(last),
                    false => range.0 = Bound::Excluded(last),
                }
            }
            match reach {
                Reach::More => {}
                // What lies behind a block that cannot be read is found from the other end.
                Reach::Damage if !backwards => (lost, backwards) = (lost + 1, true),
                Reach::End | Reach::Damage => return ControlFlow::Continue(lost),
            }
        }
    }

    /// The next pages, from either end.
    fn names(&self, range: Range, backwards: bool) -> (Vec<Vec<u8>>, Reach) {
        let mut names = Vec::new();
        let reach = self.database.snapshot(|snapshot, keyspace| {
            let mut all = snapshot.range(keyspace, range);
            while names.len() < PIECE {
                let next = if backwards {
                    all.next_back()
                } else {
                    all.next()
                };
                match next.map(fjall::Guard::key) {
                    None => return Ok(Reach::End),
                    Some(Ok(name)) => names.push(name.to_vec()),
                    Some(Err(_)) => return Ok(Reach::Damage),
                }
            }
            Ok::<_, ReadError>(Reach::More)
        });
        (names, reach.unwrap_or(Reach::Damage))
    }

    /// A page as it comes back: invalidations of it may be lost.
    fn judged(&self, mut entry: Entry) -> Entry {
        // Before every invalidation, that of all pages at this start among them.
        entry.stamp.sequence = 0;
        if self.trust == Trust::Doubted {
            // Older than any `max-stale`: it is made anew before anybody sees it, if it can be.
            entry.stamp.generated = Timestamp::from_millis(0);
            entry.stamp.fresh_until = Some(Timestamp::from_millis(0));
        }
        entry
    }

    /// Notes that all that can be read is in the store, and removes it where that is all there was.
    ///
    /// # Errors
    /// When the file system refuses.
    pub(in crate::store) fn close(self, lost: usize) -> io::Result<()> {
        let Self {
            database,
            place,
            is_whole,
            ..
        } = self;
        drop(database);
        aside::close(&place, "what can be read of it is in the store")?;
        if is_whole && lost == 0 {
            fs::remove_dir_all(place)?;
        }
        Ok(())
    }
}

/// Opens what the database opens of a store: without the end of a journal, or without all of them.
fn salvage(place: &Path, pages: &Path) -> io::Result<Option<Opened>> {
    if !pages.join("version").exists() {
        // fjall would make a new one here.
        return Ok(None);
    }
    File::options()
        .create(true)
        .append(true)
        .open(pages.join("lock"))?;
    if let Ok(opened) = opened::open(pages, LITTLE) {
        return Ok(Some(opened));
    }
    let mut journals = leftovers::entries(pages)?;
    journals.retain(|file| journal_number(file).is_some());
    let trial = place.join("trial");
    for journal in &journals {
        let (mut reads, mut fails) = (0, fs::metadata(journal)?.len());
        if is_read(&trial, pages, journal, fails)? {
            continue;
        }
        // For who wants to look at it.
        fs::copy(journal, place.join(journal.file_name().unwrap_or_default()))?;
        while fails - reads > STEP {
            let middle = reads + (fails - reads) / 2;
            match is_read(&trial, pages, journal, middle)? {
                true => reads = middle,
                false => fails = middle,
            }
        }
        File::options().write(true).open(journal)?.set_len(reads)?;
    }
    leftovers::remove_any(&trial)?;
    if let Ok(opened) = opened::open(pages, LITTLE) {
        return Ok(Some(opened));
    }
    for journal in &journals {
        fs::remove_file(journal)?;
    }
    Ok(opened::open(pages, LITTLE).ok())
}

/// Whether fjall reads a journal up to `length`: it does, if that is before what it stumbles over.
fn is_read(trial: &Path, pages: &Path, journal: &Path, length: u64) -> io::Result<bool> {
    leftovers::remove_any(trial)?;
    fs::create_dir_all(trial.join("keyspaces"))?;
    fs::copy(pages.join("version"), trial.join("version"))?;
    File::create(trial.join("lock"))?;
    let mut copy = File::create(trial.join("0.jnl"))?;
    io::copy(&mut File::open(journal)?.take(length), &mut copy)?;
    let open = || {
        let trial = fjall::Database::builder(trial).worker_threads(1);
        trial.cache_size(LITTLE).open()
    };
    Ok(catch_unwind(AssertUnwindSafe(open)).is_ok_and(|opened| opened.is_ok()))
}
