//! `OpenError`: why the folder of the durable tier cannot be used, and what to do about it.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::lock::Lock;
use super::spare::{SpareError, Spares};

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
    /// A later wisr wrote it.
    #[error(
        "{} was written by a later wisr (store format {format}, this one reads {FORMAT}): run that one, or move the folder away (pages are then made anew)",
        folder.display()
    )]
    Newer {
        /// The folder.
        folder: PathBuf,
        /// Its format.
        format: u32,
    },
    /// What is in it is no store, or a broken one.
    #[error(
        "{} cannot be read: {reason}. Move the folder away to start afresh (pages are then made anew)",
        folder.display()
    )]
    Unreadable {
        /// The folder.
        folder: PathBuf,
        /// What is wrong with it.
        reason: String,
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

/// The version of the folder's layout and of the keys in the database. Records have their own. Who
/// changes it forgets the spares first: they would put it back.
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

    pub(super) fn unreadable(folder: &Path, reason: impl Into<String>) -> Self {
        Self::Unreadable {
            folder: folder.to_owned(),
            reason: reason.into(),
        }
    }
}

/// A folder that this process alone uses.
pub(super) struct Prepared {
    /// Where the database is, or will be.
    pub(super) pages: PathBuf,
    pub(super) lock: Lock,
    pub(super) spares: Spares,
    /// The files that were put back from their copies.
    pub(super) put_back: Vec<String>,
}

/// Makes `folder` ready for a database in its sub-folder `pages`, and locks it.
///
/// # Errors
/// When it is in use, of another format, damaged, or cannot be written.
pub(super) fn prepare(folder: &Path) -> Result<Prepared, OpenError> {
    let failed = |source| OpenError::io(folder, source);
    std::fs::create_dir_all(folder).map_err(failed)?;
    let lock = Lock::acquire(folder)?;
    let pages = folder.join("pages");
    undo_swap(&pages).map_err(failed)?;
    let spares = Spares::of(folder);
    if !pages.exists() {
        spares.forget().map_err(failed)?;
    }
    let put_back = spares.put_back().map_err(|error| match error {
        SpareError::Io(source) => failed(source),
        lost @ SpareError::Lost(_) => OpenError::unreadable(folder, lost.to_string()),
    })?;
    let marker = folder.join("format");
    match std::fs::read_to_string(&marker) {
        Ok(text) if !text.is_empty() || pages.exists() => check_format(folder, &text)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound && pages.exists() => {
            let reason = "its file `format` is missing";
            return Err(OpenError::unreadable(folder, reason));
        }
        // An empty one is left by a process that was killed just here.
        Ok(_) => write_format(&marker).map_err(failed)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            write_format(&marker).map_err(failed)?;
        }
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            return Err(OpenError::unreadable(
                folder,
                "the file `format` is not text",
            ));
        }
        Err(error) => return Err(failed(error)),
    }
    // The database writes `version` last: without it, it was killed while being made and is empty.
    if pages.exists() && !pages.join("version").exists() {
        std::fs::remove_dir_all(&pages).map_err(failed)?;
    }
    Ok(Prepared {
        pages,
        lock,
        spares,
        put_back,
    })
}

fn write_format(marker: &Path) -> io::Result<()> {
    let mut file = File::create(marker)?;
    writeln!(file, "{MARKER} {FORMAT}")?;
    file.sync_all()
}

fn check_format(folder: &Path, text: &str) -> Result<(), OpenError> {
    let version = text
        .trim_end()
        .strip_prefix(MARKER)
        .and_then(|version| version.trim().parse::<u32>().ok());
    match version {
        Some(FORMAT) => Ok(()),
        Some(format) if format > FORMAT => Err(OpenError::Newer {
            folder: folder.to_owned(),
            format,
        }),
        _ => {
            let reason = "the file `format` does not say which format it has";
            Err(OpenError::unreadable(folder, reason))
        }
    }
}

// === replacing the database ===

/// Where a database is made before it takes its place.
pub(super) fn anew(pages: &Path) -> PathBuf {
    pages.with_extension("new")
}

/// Where one goes that is replaced.
fn replaced(pages: &Path) -> PathBuf {
    pages.with_extension("old")
}

/// Puts the database that was made [`anew`] in its place. Nobody may have either open. Who is
/// killed in the midst of it finds the one before.
///
/// # Errors
/// When the file system refuses.
pub(super) fn swap(pages: &Path, spares: &Spares) -> io::Result<()> {
    let folder = File::open(pages.parent().unwrap_or(pages))?;
    // They are of the one that goes.
    spares.forget()?;
    if pages.exists() {
        std::fs::rename(pages, replaced(pages))?;
    }
    std::fs::rename(anew(pages), pages)?;
    folder.sync_all()?;
    // What stays is removed at the next start.
    let _ = remove(&replaced(pages));
    Ok(())
}

/// Goes back to before a swap that was cut short, and removes what one has left.
///
/// # Errors
/// When the file system refuses: then nobody may open, or make, the database.
pub(super) fn undo_swap(pages: &Path) -> io::Result<()> {
    let replaced = replaced(pages);
    if replaced.exists() && !pages.exists() {
        std::fs::rename(&replaced, pages)?;
        File::open(pages.parent().unwrap_or(pages))?.sync_all()?;
    }
    remove(&replaced)?;
    remove(&anew(pages))
}

/// Removes a folder, if it is there.
pub(super) fn remove(folder: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
