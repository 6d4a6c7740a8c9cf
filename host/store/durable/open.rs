//! `OpenError`: why the folder of the durable tier cannot be used, and what to do about it; and
//! `Damage`: why what is in it cannot be, so that it is set aside.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::journals;
use super::leftovers::{self, journal_number};
use super::lock::Lock;
use super::opened::{self, Opened, describe};

/// The folder cannot be used. Each message names the folder, the reason and the fix.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process uses it.
    #[error(
        "{} is in use by {}: stop it, or serve a copy of the site",
        folder.display(),
        pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
    )]
    InUse {
        /// The folder.
        folder: PathBuf,
        /// The process that has it, if it could be told.
        pid: Option<u32>,
    },
    /// The operating system has no threads for those who read.
    #[error("cannot start the threads that read pages from disk: {0}")]
    NoThreads(io::Error),
    /// The file system refused.
    #[error(
        "cannot use {}: {source}. The folder and everything in it must be writable by this user",
        folder.display()
    )]
    Io {
        /// The folder.
        folder: PathBuf,
        /// What the file system said.
        source: io::Error,
    },
}

/// Why a store is set aside: nothing but this ever is a reason. A disk that is full, a limit of open
/// files, a right that is missing leave it where it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Damage {
    /// A later wisr wrote it. That one takes it back, if it comes within the week.
    #[error("a later wisr wrote it (store format {0}, this one reads {FORMAT})")]
    Newer(u32),
    /// Nobody can tell what it is.
    #[error("its file `format` {0}")]
    Format(&'static str),
    /// What it was opened with before the last entries is not there any more.
    #[error("a journal of its database is gone")]
    JournalGone,
    /// The database takes what it cannot read for the end that a crash left, and says nothing.
    #[error("a journal of its database cannot be read to its end")]
    JournalCut,
    /// The database says so.
    #[error("its database cannot be opened: {0}")]
    Database(String),
    /// An earlier run came upon bytes that nobody wrote, and could write no more.
    #[error("the disk or the file system changed bytes of it")]
    Changed,
}

/// The file that a run leaves that came upon bytes which nobody wrote.
pub(super) const CHANGED: &str = "changed";

/// The version of the folder's layout and of the keys in the database. Records have their own.
const FORMAT: u32 = 1;

/// The first word of the file that says so.
const MARKER: &str = "wisr-store";

impl OpenError {
    pub(in crate::store) fn io(folder: &Path, source: io::Error) -> Self {
        Self::Io {
            folder: folder.to_owned(),
            source,
        }
    }
}

/// A folder that this process alone uses.
pub(super) struct Prepared {
    /// Where the database is, or will be.
    pub(super) pages: PathBuf,
    pub(super) lock: Lock,
    /// What lay among the database's files, and was moved away.
    pub(super) strays: Vec<String>,
}

/// Makes `folder` ready for a database in its sub-folder `pages`, and locks it. Nothing but leftovers
/// is touched.
///
/// # Errors
/// When it is in use, or cannot be written.
pub(super) fn prepare(folder: &Path) -> Result<Prepared, OpenError> {
    let failed = |source| OpenError::io(folder, source);
    fs::create_dir_all(folder).map_err(failed)?;
    let lock = Lock::acquire(folder)?;
    let strays = leftovers::remove(folder).map_err(failed)?;
    Ok(Prepared {
        pages: folder.join("pages"),
        lock,
        strays,
    })
}

/// Opens the database of a prepared folder, or makes one where there is none; or else what is wrong
/// with it.
///
/// # Errors
/// When another process has it, or the file system refuses.
pub(super) fn begin(
    folder: &Path,
    pages: &Path,
    cache: u64,
) -> Result<Result<Opened, Damage>, OpenError> {
    let failed = |source| OpenError::io(folder, source);
    if let Err(damage) = check_format(&folder.join("format"), pages.exists()).map_err(failed)? {
        return Ok(Err(damage));
    }
    if pages.exists()
        && let Err(damage) = check_files(pages).map_err(failed)?
    {
        return Ok(Err(damage));
    }
    if folder.join(CHANGED).exists() {
        return Ok(Err(Damage::Changed));
    }
    let mut ends = Vec::new();
    let opened = if pages.exists() {
        ends = journals::ends(pages).map_err(failed)?;
        opened::open(pages, cache)
    } else {
        make(pages, cache)
    };
    match opened {
        Ok(_) if journals::is_any_cut(&ends).map_err(failed)? => Ok(Err(Damage::JournalCut)),
        Ok(opened) => Ok(Ok(opened)),
        Err(error) => judge(folder, error).map(Err),
    }
}

/// What an error of the database at its opening means.
fn judge(folder: &Path, error: fjall::Error) -> Result<Damage, OpenError> {
    let said = describe(&error);
    match error {
        fjall::Error::Locked => Err(OpenError::InUse {
            folder: folder.to_owned(),
            pid: None,
        }),
        fjall::Error::Io(source) | fjall::Error::Storage(fjall::LsmError::Io(source))
            if !is_of_the_bytes(&source) =>
        {
            Err(OpenError::io(folder, source))
        }
        _ => Ok(Damage::Database(said)),
    }
}

/// Whether an error says that the disk has other bytes than were written, or none.
pub(super) fn is_of_the_bytes(error: &io::Error) -> bool {
    let broken = rustix::io::Errno::IO.raw_os_error();
    let kinds = [
        io::ErrorKind::NotFound,
        io::ErrorKind::UnexpectedEof,
        io::ErrorKind::InvalidData,
    ];
    kinds.contains(&error.kind()) || error.raw_os_error() == Some(broken)
}

/// Makes a database, in one step: a folder of this name has all that one needs.
fn make(pages: &Path, cache: u64) -> Result<Opened, fjall::Error> {
    let anew = pages.with_extension("new");
    drop(opened::open(&anew, cache)?);
    sync_folders(&anew)?;
    fs::rename(&anew, pages)?;
    File::open(pages.parent().unwrap_or(pages))?.sync_all()?;
    opened::open(pages, cache)
}

/// Makes the names of files in a folder survive a power cut.
fn sync_folders(folder: &Path) -> io::Result<()> {
    for path in leftovers::entries(folder)? {
        if path.is_dir() {
            sync_folders(&path)?;
        }
    }
    File::open(folder)?.sync_all()
}

/// Looks for what the database would not miss, and begin afresh or with an older state.
pub(super) fn check_files(pages: &Path) -> io::Result<Result<(), Damage>> {
    for name in ["version", "lock"] {
        if !pages.join(name).exists() {
            let reason = format!("its file `{name}` is missing");
            return Ok(Err(Damage::Database(reason)));
        }
    }
    let files = leftovers::entries(pages)?;
    let mut journals: Vec<u64> = files
        .iter()
        .filter_map(|file| journal_number(file))
        .collect();
    journals.sort_unstable();
    // They are numbered one after the other, and the oldest goes first.
    let is_whole = journals.windows(2).all(|pair| pair[0] + 1 == pair[1]);
    Ok(if journals.is_empty() || !is_whole {
        Err(Damage::JournalGone)
    } else {
        Ok(())
    })
}

// === the format ===

/// Checks what the marker says, and writes it where there is no store yet.
fn check_format(marker: &Path, is_store: bool) -> io::Result<Result<(), Damage>> {
    match fs::read_to_string(marker) {
        // An empty one is left by a process that was killed just here.
        Ok(text) if text.is_empty() && !is_store => write_format(marker).map(Ok),
        Ok(text) => Ok(read_format(&text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if is_store {
                return Ok(Err(Damage::Format("is missing")));
            }
            write_format(marker).map(Ok)
        }
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            Ok(Err(Damage::Format("is not text")))
        }
        Err(error) => Err(error),
    }
}

/// Whether a later wisr wrote what is beside this marker.
pub(super) fn is_newer(marker: &Path) -> bool {
    let format = fs::read_to_string(marker);
    format.is_ok_and(|text| matches!(read_format(&text), Err(Damage::Newer(_))))
}

fn write_format(marker: &Path) -> io::Result<()> {
    let mut file = File::create(marker)?;
    writeln!(file, "{MARKER} {FORMAT}")?;
    file.sync_all()
}

fn read_format(text: &str) -> Result<(), Damage> {
    let version = text
        .trim_end()
        .strip_prefix(MARKER)
        .and_then(|version| version.trim().parse::<u32>().ok());
    match version {
        Some(FORMAT) => Ok(()),
        Some(format) if format > FORMAT => Err(Damage::Newer(format)),
        _ => Err(Damage::Format("does not say which format the store has")),
    }
}
