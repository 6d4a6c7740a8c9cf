//! `Snapshot`: what lies in the folder of modules at one moment.

use std::collections::BTreeMap;
use std::fs::{self, DirEntry, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::page::Timestamp;
use crate::route::Pattern;

use super::routes::Refusal;

/// Bytes of a module's file; the engine's own limit, checked before a file is read.
pub(super) const MODULE_BYTES: u64 = 64 << 20;

/// Modules in the folder: a generated site of this size still loads, a mistaken mount of a whole
/// disk does not take the memory.
const MODULES: usize = 10_000;

/// Folders inside folders; a path has at most as many segments.
const DEPTH: usize = crate::route::MAX_SEGMENTS;

/// What tells one version of a file from the next without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) len: u64,
    inode: (u64, u64),
    modified: (i64, i64),
    /// Set by the kernel alone, so that a tool that keeps modification times deceives nobody.
    changed: (i64, i64),
}

/// A file that may be a page module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) mark: Mark,
    pub(super) pattern: Pattern,
}

/// All that lies in the folder. Paths are relative to it.
#[derive(Debug, Default)]
pub(super) struct Snapshot {
    pub(super) files: BTreeMap<PathBuf, Found>,
    pub(super) refused: Vec<Refusal>,
    /// Subfolders whose contents are not known.
    pub(super) unread: Vec<PathBuf>,
    /// The device that the folder is on.
    pub(super) device: u64,
}

/// Why nothing is known of the folder.
#[derive(Debug, thiserror::Error)]
pub(super) enum FolderError {
    #[error(
        "the folder of pages {0} cannot be read ({1}); the routes stay as they are until it can be"
    )]
    Unreadable(PathBuf, io::Error),
    #[error(
        "the folder of pages {0} is empty and on another device than before, as after an unmount; \
         the routes stay as they are. Mount it again, or restart wisr if it is meant to be empty"
    )]
    Unmounted(PathBuf),
    #[error(
        "the folder of pages {0} has more than {MODULES} modules; is it the right folder? The \
         routes stay as they are"
    )]
    TooMany(PathBuf),
}

impl Mark {
    pub(super) fn of(metadata: &Metadata) -> Self {
        Self {
            len: metadata.len(),
            inode: (metadata.dev(), metadata.ino()),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// When the file was last touched in any way.
    pub(super) fn touched(&self) -> Timestamp {
        let (seconds, nanos) = self.modified.max(self.changed);
        let millis = seconds
            .saturating_mul(1000)
            .saturating_add(nanos / 1_000_000);
        Timestamp::from_millis(u64::try_from(millis).unwrap_or(0))
    }

    #[cfg(test)]
    pub(super) fn made_up(len: u64, touched: Timestamp) -> Self {
        let millis = i64::try_from(touched.as_millis()).unwrap();
        let time = (millis / 1000, millis % 1000 * 1_000_000);
        Self {
            len,
            inode: (0, 0),
            modified: time,
            changed: time,
        }
    }
}

impl Snapshot {
    /// Looks at the folder. Blocks on the disk.
    ///
    /// # Errors
    /// When the folder itself cannot be read; whatever is wrong inside it is in the snapshot.
    pub(super) fn take(folder: &Path) -> Result<Self, FolderError> {
        let unreadable = |error| FolderError::Unreadable(folder.to_owned(), error);
        let root = fs::canonicalize(folder).map_err(unreadable)?;
        let mut snapshot = Self {
            device: fs::metadata(&root).map_err(unreadable)?.dev(),
            ..Self::default()
        };
        let mut folders = vec![PathBuf::new()];
        while let Some(relative) = folders.pop() {
            match fs::read_dir(root.join(&relative))
                .and_then(Iterator::collect::<io::Result<Vec<_>>>)
            {
                Ok(entries) => {
                    for entry in entries {
                        snapshot.meet(&root, &relative, &entry, &mut folders);
                    }
                }
                Err(error) if relative.as_os_str().is_empty() => return Err(unreadable(error)),
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => snapshot.leave_unread(relative, &error),
            }
            if snapshot.files.len() + snapshot.refused.len() > MODULES {
                return Err(FolderError::TooMany(folder.to_owned()));
            }
        }
        Ok(snapshot)
    }

    fn meet(&mut self, root: &Path, parent: &Path, entry: &DirEntry, folders: &mut Vec<PathBuf>) {
        let name = entry.file_name();
        let bytes = name.as_encoded_bytes();
        if bytes.starts_with(b".") {
            return;
        }
        let relative = parent.join(&name);
        let is_module = bytes.ends_with(b".wasm");
        let kind = match entry.file_type() {
            Ok(kind) => kind,
            Err(error) => return self.miss(relative, &error),
        };
        if kind.is_dir() {
            match self.closed(&relative) {
                Some(reason) => self.refuse(relative, reason),
                None => folders.push(relative),
            }
        } else if bytes.ends_with(b".cwasm") {
            self.refuse(
                relative,
                "a precompiled module is native code, which no sandbox could hold; put the `.wasm` \
                 itself in the folder",
            );
        } else if is_module {
            match self.examine(root, &relative, kind.is_symlink()) {
                Ok(found) => drop(self.files.insert(relative, found)),
                Err(Trouble::Rule(reason)) => self.refuse(relative, reason),
                Err(Trouble::Io(error)) => self.miss(relative, &error),
            }
        } else if kind.is_symlink()
            && fs::metadata(entry.path()).is_ok_and(|target| target.is_dir())
        {
            self.refuse(
                relative,
                "a link to a folder is not followed; link the modules in it one by one, or move the \
                 folder here",
            );
        }
    }

    /// Why a subfolder is not looked into, if it is not.
    fn closed(&self, relative: &Path) -> Option<&'static str> {
        match relative.to_str() {
            Some("_wisr") => {
                Some("paths below `/_wisr` are the server's own; give the folder another name")
            }
            _ if relative.components().count() > DEPTH => {
                Some("the folder is too deep: a path has at most 256 segments")
            }
            _ => None,
        }
    }

    fn examine(&self, root: &Path, relative: &Path, is_link: bool) -> Result<Found, Trouble> {
        let path = root.join(relative);
        let pattern =
            Pattern::of_file(relative).map_err(|error| Trouble::Rule(error.to_string()))?;
        if is_link
            && !fs::canonicalize(&path)
                .map_err(Trouble::Io)?
                .starts_with(root)
        {
            let rule = "the link points out of the folder of pages; copy the module, or move its target here";
            return Err(Trouble::Rule(rule.to_owned()));
        }
        let metadata = fs::metadata(&path).map_err(Trouble::Io)?;
        if !metadata.is_file() {
            return Err(Trouble::Rule("it is not a regular file".to_owned()));
        }
        if metadata.len() > MODULE_BYTES {
            return Err(Trouble::Rule(format!(
                "the file has {} bytes, at most {MODULE_BYTES} (64 MiB) are allowed: build it in \
                 release mode and strip it",
                metadata.len()
            )));
        }
        Ok(Found {
            mark: Mark::of(&metadata),
            pattern,
        })
    }

    fn refuse(&mut self, file: PathBuf, message: impl Into<String>) {
        self.refused.push(Refusal::module(file, message));
    }

    /// A file that is gone before it was looked at was removed; any other trouble is worth a word.
    fn miss(&mut self, file: PathBuf, error: &io::Error) {
        if error.kind() != ErrorKind::NotFound {
            self.refuse(file, format!("it cannot be read: {error}"));
        }
    }

    fn leave_unread(&mut self, relative: PathBuf, error: &io::Error) {
        let message = format!("the folder cannot be read ({error}); its routes stay as they are");
        self.refuse(relative.clone(), message);
        self.unread.push(relative);
    }

    /// Whether this is the empty mount point of a folder that was on the device `before`, and not
    /// the folder emptied.
    pub(super) fn is_mount_point_of(&self, before: Option<u64>) -> bool {
        before.is_some_and(|device| device != self.device) && self.files.is_empty()
    }

    /// Whether this look says nothing of what became of a file.
    pub(super) fn is_blind_to(&self, file: &Path) -> bool {
        self.refused.iter().any(|refusal| refusal.file == file)
            || self.unread.iter().any(|folder| file.starts_with(folder))
    }
}

enum Trouble {
    Rule(String),
    Io(io::Error),
}

/// Which folder a path means now, links followed: another one needs another watch.
pub(super) fn identity(folder: &Path) -> Option<(PathBuf, u64, u64)> {
    let root = fs::canonicalize(folder).ok()?;
    let metadata = fs::metadata(&root).ok()?;
    Some((root, metadata.dev(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn site(files: &[&str]) -> tempfile::TempDir {
        let site = tempfile::tempdir().unwrap();
        for file in files {
            let path = site.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, b"module").unwrap();
        }
        site
    }

    fn routes(snapshot: &Snapshot) -> Vec<&str> {
        snapshot
            .files
            .values()
            .map(|found| found.pattern.as_str())
            .collect()
    }

    fn reason(snapshot: &Snapshot, file: &str) -> String {
        let refusal = snapshot
            .refused
            .iter()
            .find(|refusal| refusal.file == Path::new(file));
        refusal
            .unwrap_or_else(|| panic!("{file} is not refused"))
            .message
            .clone()
    }

    #[test]
    fn only_modules_count() {
        let site = site(&[
            "index.wasm",
            "posts/[id].wasm",
            "readme.md",
            ".hidden.wasm",
            ".git/x.wasm",
            "x.wasm.tmp",
            "api/hook.wasm",
            "_wisr/x.wasm",
            "[[id]].wasm",
            "native.cwasm",
            "blog/api/a.wasm",
        ]);
        fs::create_dir(site.path().join("folder.wasm")).unwrap();
        let snapshot = Snapshot::take(site.path()).unwrap();
        let expected = ["/api/hook", "/blog/api/a", "/", "/posts/[id]"];
        assert_eq!(routes(&snapshot), expected);
        assert!(reason(&snapshot, "_wisr").contains("the server's own"));
        assert!(reason(&snapshot, "[[id]].wasm").contains("is not a parameter"));
        assert!(reason(&snapshot, "native.cwasm").contains("native code"));
        assert_eq!(snapshot.refused.len(), 3);
    }

    #[test]
    fn links_stay_inside_and_the_folder_itself_may_be_one() {
        let site = site(&["pages/..data/a.wasm", "pages/real.wasm", "outside.wasm"]);
        let pages = site.path().join("pages");
        symlink("..data/a.wasm", pages.join("a.wasm")).unwrap();
        symlink("../outside.wasm", pages.join("out.wasm")).unwrap();
        symlink("nowhere.wasm", pages.join("broken.wasm")).unwrap();
        symlink(".", pages.join("loop")).unwrap();
        let door = site.path().join("door");
        symlink(&pages, &door).unwrap();
        let snapshot = Snapshot::take(&door).unwrap();
        assert_eq!(routes(&snapshot), ["/a", "/real"]);
        assert!(reason(&snapshot, "out.wasm").contains("points out of the folder"));
        assert!(reason(&snapshot, "loop").contains("link to a folder"));
        assert_eq!(snapshot.refused.len(), 2);
        assert_eq!(identity(&door), identity(&pages));
    }

    #[test]
    fn a_file_too_large_is_not_even_read() {
        let site = site(&["big.wasm"]);
        let big = fs::File::create(site.path().join("big.wasm")).unwrap();
        big.set_len(MODULE_BYTES + 1).unwrap();
        let snapshot = Snapshot::take(site.path()).unwrap();
        assert!(reason(&snapshot, "big.wasm").contains("64 MiB"));
        assert!(snapshot.is_blind_to(Path::new("big.wasm")));
    }

    #[test]
    fn no_folder_is_not_an_empty_folder() {
        let site = site(&[]);
        assert!(Snapshot::take(site.path()).unwrap().files.is_empty());
        let gone = Snapshot::take(&site.path().join("gone"));
        assert!(matches!(gone, Err(FolderError::Unreadable(..))));
        assert_eq!(identity(&site.path().join("gone")), None);
    }

    #[test]
    fn an_emptied_folder_is_not_a_mount_point() {
        let site = site(&[]);
        let mut snapshot = Snapshot::take(site.path()).unwrap();
        let device = snapshot.device;
        assert!(!snapshot.is_mount_point_of(None));
        assert!(!snapshot.is_mount_point_of(Some(device)));
        assert!(snapshot.is_mount_point_of(Some(device + 1)));
        fs::write(site.path().join("a.wasm"), b"module").unwrap();
        snapshot = Snapshot::take(site.path()).unwrap();
        assert!(!snapshot.is_mount_point_of(Some(device + 1)));
    }

    #[test]
    fn every_change_of_a_file_changes_its_mark() {
        let site = site(&["a.wasm", "b.wasm"]);
        let mark = |file: &str| Mark::of(&fs::metadata(site.path().join(file)).unwrap());
        let before = mark("a.wasm");
        assert_eq!(before, mark("a.wasm"));
        fs::rename(site.path().join("b.wasm"), site.path().join("a.wasm")).unwrap();
        assert_ne!(before, mark("a.wasm"));
    }
}
