//! `Opened`: the database of fjall as it is set up here, and how it is opened.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::AtomicU64;

use fjall::{KeyspaceCreateOptions, KvSeparationOptions};
use rustix::process::{Resource, getrlimit};

/// Blocks and bodies read lately. Measured: the process holds about twice as much for it.
const MAX_CACHE: usize = 64 << 20;
/// The part of the memory budget that it may take where that is less.
const CACHE_PART: usize = 10;
/// The index and the filters of a million pages, which every read asks: without room for them each
/// is read from disk, and its checksum made, for each page.
const MIN_CACHE: usize = 16 << 20;
/// Written pages wait in memory up to this, then in a second such table while the first goes to
/// disk.
pub(super) const MEMTABLE: u64 = super::space::MEMTABLE;
/// The least that fjall allows. Opening takes time in proportion to it.
const JOURNALS: u64 = 64 << 20;
/// Metas stay below this and in the tree; bodies are kept apart, so that compaction does not
/// copy them again and again.
pub(super) const SEPARATE: u32 = 1 << 10;
const BODY_FILE: u64 = 64 << 20;
/// Body files with more garbage than this are rewritten.
const GARBAGE: f32 = 0.3;
/// Flushes and compactions at once; more would take the cores that pages are made on.
const WORKERS: usize = 2;
/// Open files: an eighth of those that the process may have, and no more than are of use.
pub fn open_files(limit: u64) -> usize {
    const MOST: usize = 512;
    const LEAST: usize = 16;
    usize::try_from(limit / 8)
        .unwrap_or(MOST)
        .clamp(LEAST, MOST)
}

fn open_files_here() -> usize {
    open_files(getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX))
}

/// A database that is open.
pub(super) struct Opened {
    /// Bytes of pages that were written since a table was last begun.
    pub(super) unflushed: AtomicU64,
    pub(super) database: fjall::Database,
    pub(super) keyspace: fjall::Keyspace,
}

/// Bytes of the cache, beside `memory` bytes of pages.
pub(super) fn cache_beside(memory: usize) -> u64 {
    let cache = (memory / CACHE_PART).clamp(MIN_CACHE, MAX_CACHE);
    u64::try_from(cache).unwrap_or(0)
}

/// Opens a database, or makes it.
///
/// # Errors
/// Whatever the database says.
pub(super) fn open(pages: &Path, cache: u64) -> Result<Opened, fjall::Error> {
    let open = || {
        let database = fjall::Database::builder(pages)
            .cache_size(cache)
            .max_journaling_size(JOURNALS)
            .worker_threads(WORKERS)
            .max_cached_files(Some(open_files_here()))
            .open()?;
        let options = || {
            let bodies = KvSeparationOptions::default()
                .separation_threshold(SEPARATE)
                .file_target_size(BODY_FILE)
                .staleness_threshold(GARBAGE)
                .compression(fjall::CompressionType::None);
            KeyspaceCreateOptions::default()
                .max_memtable_size(MEMTABLE)
                // First requests ask for pages that are not there: filters answer these.
                .expect_point_read_hits(false)
                .with_kv_separation(Some(bodies))
        };
        let keyspace = database.keyspace("pages", options)?;
        Ok(Opened {
            unflushed: AtomicU64::new(0),
            database,
            keyspace,
        })
    };
    // On bytes that nobody wrote, the database may assert.
    catch_unwind(AssertUnwindSafe(open)).unwrap_or(Err(fjall::Error::Unrecoverable))
}

/// What went wrong, in words for the log.
pub(super) fn describe(error: &fjall::Error) -> String {
    match error {
        fjall::Error::Io(error) => error.to_string(),
        fjall::Error::Poisoned => "an earlier write failed".to_owned(),
        fjall::Error::Unrecoverable => "its files contradict each other".to_owned(),
        fjall::Error::InvalidVersion(_) => "it is of another version of the database".to_owned(),
        other => format!("{other:?}"),
    }
}
