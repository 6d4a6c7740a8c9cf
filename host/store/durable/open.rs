//! `OpenError`: why the folder of the durable tier cannot be used, and what to do about it.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::lock::Lock;

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

    pub(super) fn unreadable(folder: &Path, reason: impl Into<String>) -> Self {
        Self::Unreadable {
            folder: folder.to_owned(),
            reason: reason.into(),
        }
    }
}

/// Makes `folder` ready for a database in its sub-folder `pages`, and locks it.
///
/// # Errors
/// When it is in use, of another format, or cannot be written.
pub(super) fn prepare(folder: &Path) -> Result<(PathBuf, Lock), OpenError> {
    let failed = |source| OpenError::io(folder, source);
    std::fs::create_dir_all(folder).map_err(failed)?;
    let lock = Lock::acquire(folder)?;
    let pages = folder.join("pages");
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
    Ok((pages, lock))
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
