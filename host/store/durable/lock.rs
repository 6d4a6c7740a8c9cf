//! `Lock`: one process at a time in a folder.
//!
//! Two processes that write one database destroy it. The lock is the kernel's, so that it ends
//! with the process that holds it, however that ends; the file names that process for people.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::Path;

use super::OpenError;

/// The right to write to a folder, until dropped.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock of the folder where pages would be kept, for a site that keeps none: its
    /// modules and releases are beside that. None where nothing can be written, so that nothing
    /// can be spoilt.
    ///
    /// # Errors
    /// [`OpenError::InUse`] when another holds it.
    pub fn beside(folder: &Path) -> Result<Option<Self>, OpenError> {
        // What cannot be made cannot be locked either.
        let _ = std::fs::create_dir_all(folder);
        match Self::acquire(folder) {
            Ok(lock) => Ok(Some(lock)),
            Err(OpenError::Io { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Takes the lock of `folder`.
    ///
    /// # Errors
    /// [`OpenError::InUse`] when another holds it, [`OpenError::Io`] when it cannot be written.
    pub(super) fn acquire(folder: &Path) -> Result<Self, OpenError> {
        let path = folder.join("lock");
        let failed = |source| OpenError::io(folder, source);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::Error(source)) => return Err(failed(source)),
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // Whoever holds the lock may be writing its number just now: then none is named.
                let _ = file.read_to_string(&mut holder);
                return Err(OpenError::InUse {
                    folder: folder.to_owned(),
                    pid: holder.trim().parse().ok(),
                });
            }
        }
        file.set_len(0).map_err(failed)?;
        writeln!(file, "{}", std::process::id()).map_err(failed)?;
        Ok(Self { _file: file })
    }
}
