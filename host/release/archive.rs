//! `Archive`: what of the releases outlives the process: their history, and the bytes of their
//! modules, each under its digest.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

use super::folder::MODULE_BYTES;
use super::history::{History, HistoryError};
use crate::page::Digest;

/// The file of the history, in the state folder.
const HISTORY: &str = "releases.json";

/// A second one, for when a disk changes bytes of the first: what is lost with it are nine releases
/// and their modules, and that a rollback holds.
const COPY: &str = "releases.copy.json";

/// The folder of modules beside it.
const MODULES: &str = "modules";

/// Bytes of a history that is read: ten releases of ten thousand routes fit.
const HISTORY_BYTES: u64 = 64 << 20;

/// A state folder, which need not exist yet.
#[derive(Debug)]
pub(super) struct Archive {
    folder: PathBuf,
    /// Held while a history is written: that of a pass that was given up may still be on its way,
    /// and must not end up over a later one.
    writing: Mutex<()>,
}

/// Why a module cannot be had from the archive.
#[derive(Debug, thiserror::Error)]
pub(super) enum ModuleError {
    #[error("it is not in `{0}`")]
    Missing(PathBuf),
    #[error("`{0}` is damaged: its bytes are not those that its name says")]
    Damaged(PathBuf),
    #[error("`{0}` cannot be read: {1}")]
    Unreadable(PathBuf, io::Error),
}

/// The archive does not keep what it is given.
#[derive(Debug, thiserror::Error)]
#[error("`{path}` cannot be written: {error}")]
pub(super) struct Unkept {
    path: PathBuf,
    error: io::Error,
}

/// A history that was not understood and is out of the way.
#[derive(Debug, thiserror::Error)]
#[error(
    "the history of releases `{path}` is not used: {error}. {aside}; the history begins anew, from \
     what lies in the folder of pages"
)]
pub(super) struct SetAside {
    path: PathBuf,
    error: HistoryError,
    aside: String,
}

/// What was in the archive after it was tidied.
#[derive(Debug, Default)]
pub(super) struct Tidied {
    /// Modules that should be there and are not.
    pub(super) missing: BTreeSet<Digest>,
    /// Files that were removed, and their bytes.
    pub(super) removed: (usize, u64),
}

/// The history in a file; none if there is no file.
fn read_history(path: &Path) -> Result<Option<History>, HistoryError> {
    match read(path, HISTORY_BYTES) {
        Err(error) if is_absent(&error) => Ok(None),
        Err(error) => Err(HistoryError::Damaged(error.to_string())),
        Ok(text) => History::from_json(&text).map(Some),
    }
}

impl Archive {
    pub(super) fn new(folder: PathBuf) -> Self {
        let writing = Mutex::default();
        Self { folder, writing }
    }

    /// The history; none if there never was one.
    ///
    /// # Errors
    /// When there is one that is not understood, nor a copy that is: it is moved aside.
    pub(super) fn history(&self) -> Result<Option<History>, SetAside> {
        let path = self.folder.join(HISTORY);
        let copy = self.folder.join(COPY);
        read_history(&path).or_else(|error| {
            // A later wisr writes both.
            if let Ok(Some(history)) = read_history(&copy) {
                let (path, copy) = (path.display(), copy.display());
                tracing::error!(
                    "the history of releases `{path}` is not used: {error}. Its copy `{copy}` is"
                );
                // Until it is written anew, the copy is the only one.
                if let Err(unkept) = self.keep_history(&history) {
                    tracing::error!("{unkept}");
                }
                return Ok(Some(history));
            }
            let other = path.with_extension(match error {
                HistoryError::Newer(_) => "newer.json",
                HistoryError::Damaged(_) => "damaged.json",
            });
            let aside = match fs::rename(&path, &other) {
                Ok(()) => format!("It was moved to `{}`", other.display()),
                Err(error) => format!("It cannot be moved aside ({error})"),
            };
            Err(SetAside { path, error, aside })
        })
    }

    /// Writes the history, and its copy, in place of those before.
    ///
    /// # Errors
    /// [`Unkept`] names the file that is still as it was before.
    pub(super) fn keep_history(&self, history: &History) -> Result<(), Unkept> {
        let _alone = self.writing.lock();
        let path = self.folder.join(HISTORY);
        let json = match history.to_json().map_err(io::Error::from) {
            Ok(json) => json,
            Err(error) => return Err(Unkept { path, error }),
        };
        for path in [path, self.folder.join(COPY)] {
            let written = self.replace(&path, json.as_bytes());
            written.map_err(|error| Unkept { path, error })?;
        }
        Ok(())
    }

    /// The bytes of a module, as they were when it was kept. What is damaged is removed, so that
    /// it can be kept again.
    ///
    /// # Errors
    /// [`ModuleError`].
    pub(super) fn module(&self, digest: Digest) -> Result<Vec<u8>, ModuleError> {
        let path = self.path(digest);
        let bytes = match read(&path, MODULE_BYTES) {
            Ok(bytes) => bytes,
            Err(error) if is_absent(&error) => return Err(ModuleError::Missing(path)),
            Err(error) => return Err(ModuleError::Unreadable(path, error)),
        };
        if Digest::of(&bytes) == digest {
            return Ok(bytes);
        }
        // What stays is found damaged again.
        let _ = fs::remove_file(&path);
        Err(ModuleError::Damaged(path))
    }

    /// Keeps a module, unless it is there.
    ///
    /// # Errors
    /// [`Unkept`].
    pub(super) fn keep_module(&self, digest: Digest, bytes: &[u8]) -> Result<(), Unkept> {
        let path = self.path(digest);
        if fs::metadata(&path).is_ok_and(|meta| meta.len() == bytes.len() as u64) {
            return Ok(());
        }
        let written = self.replace(&path, bytes);
        written.map_err(|error| Unkept { path, error })
    }

    /// Removes the modules that are not among `needed`, and what was left half-written.
    pub(super) fn tidy(&self, needed: &BTreeSet<Digest>) -> Tidied {
        let mut tidied = Tidied {
            missing: needed.clone(),
            ..Tidied::default()
        };
        // An archive that cannot be read holds nothing that could be removed or used.
        let entries = fs::read_dir(self.folder.join(MODULES));
        for entry in entries.into_iter().flatten().flatten() {
            let path = entry.path();
            let stem = path.file_stem().and_then(OsStr::to_str).unwrap_or("");
            let is_ours = match path.extension().and_then(OsStr::to_str) {
                Some("new") => true,
                Some("wasm") => match stem.parse::<Digest>() {
                    Ok(digest) if needed.contains(&digest) => {
                        tidied.missing.remove(&digest);
                        false
                    }
                    parsed => parsed.is_ok(),
                },
                _ => false,
            };
            let bytes = entry.metadata().map_or(0, |meta| meta.len());
            if is_ours && fs::remove_file(&path).is_ok() {
                tidied.removed.0 += 1;
                tidied.removed.1 += bytes;
            }
        }
        tidied
    }

    fn path(&self, digest: Digest) -> PathBuf {
        let name = digest.to_string();
        self.folder.join(MODULES).join(name).with_extension("wasm")
    }

    /// Writes a file so that it has either its old content or all of the new one, whenever the
    /// power fails.
    fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let folder = path.parent().unwrap_or(&self.folder);
        let modules = self.folder.join(MODULES);
        fs::create_dir_all(&modules)?;
        // A name by chance: a pass that was given up may still be writing the same module.
        let mut file = tempfile::Builder::new()
            .suffix(".new")
            .tempfile_in(&modules)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        File::open(folder)?.sync_all()
    }
}

fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(limit + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::Timestamp;
    use crate::release::history::How;

    fn archive() -> (tempfile::TempDir, Archive) {
        let folder = tempfile::tempdir().unwrap();
        let archive = Archive::new(folder.path().join("state"));
        (folder, archive)
    }

    fn history() -> History {
        let mut history = History::default();
        let files = [(PathBuf::from("a.wasm"), Digest::of(b"a"))].into();
        history.push(Timestamp::from_millis(1), How::Folder, files);
        history
    }

    #[test]
    fn a_module_is_what_its_name_says_or_nothing() {
        let (_folder, archive) = archive();
        let digest = Digest::of(b"module");
        let read = archive.module(digest);
        assert!(matches!(read, Err(ModuleError::Missing(_))), "{read:?}");
        archive.keep_module(digest, b"module").unwrap();
        assert_eq!(archive.module(digest).unwrap(), b"module");
        fs::write(archive.path(digest), b"m0dule").unwrap();
        let read = archive.module(digest);
        assert!(matches!(read, Err(ModuleError::Damaged(_))), "{read:?}");
        archive.keep_module(digest, b"module").unwrap();
        assert_eq!(archive.module(digest).unwrap(), b"module");
    }

    #[test]
    fn what_is_not_needed_goes_and_what_is_missed_is_told() {
        let (_folder, archive) = archive();
        let [kept, old, lost] = [b"kept", b"old!", b"lost"].map(|bytes| Digest::of(bytes));
        archive.keep_module(kept, b"kept").unwrap();
        archive.keep_module(old, b"old!").unwrap();
        let modules = archive.folder.join(MODULES);
        fs::write(modules.join("0.new"), b"half").unwrap();
        fs::write(modules.join("notes.txt"), b"not ours").unwrap();
        let tidied = archive.tidy(&[kept, lost].into());
        assert_eq!(tidied.missing, [lost].into());
        assert_eq!(tidied.removed, (2, 8));
        assert!(archive.module(kept).is_ok() && modules.join("notes.txt").exists());
    }

    #[test]
    fn a_history_that_is_not_understood_is_set_aside() {
        let (_folder, archive) = archive();
        assert!(archive.history().unwrap().is_none());
        archive.keep_history(&history()).unwrap();
        assert_eq!(archive.history().unwrap(), Some(history()));
        fs::remove_file(archive.folder.join(COPY)).unwrap();
        for (text, name) in [
            ("{}", "releases.damaged.json"),
            (r#"{"format":9}"#, "releases.newer.json"),
        ] {
            fs::write(archive.folder.join(HISTORY), text).unwrap();
            let told = archive.history().unwrap_err().to_string();
            assert!(told.contains(name) && told.contains(HISTORY), "{told}");
            assert!(archive.folder.join(name).exists());
            assert!(archive.history().unwrap().is_none());
        }
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_named() {
        let (folder, archive) = archive();
        fs::write(folder.path().join("state"), b"a file").unwrap();
        let told = archive.keep_history(&history()).unwrap_err().to_string();
        assert!(told.contains("releases.json"), "{told}");
    }
}
