//! `Installed`: what a build put into a site's folder, so that the next one can take away what has gone.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::{Deserialize, Serialize};

/// The record, below the site's folder.
const RECORD: &str = ".wisr/built.json";

/// The record's format.
const VERSION: u32 = 1;

/// The files that wisr build made, relative to the site's folder, with `/`.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Installed {
    version: u32,
    files: BTreeSet<String>,
    #[serde(skip)]
    out: PathBuf,
}

impl Installed {
    /// Reads the record. Without one, or with one that is not understood, nothing is known to be ours: a
    /// stale file that stays is better than a lost one.
    pub(super) fn read(out: &Path) -> Self {
        let text = fs::read(out.join(RECORD)).unwrap_or_default();
        let files = match serde_json::from_slice::<Self>(&text) {
            Ok(record) if record.version == VERSION => record.files,
            _ => BTreeSet::new(),
        };
        Self {
            version: VERSION,
            files,
            out: out.to_owned(),
        }
    }

    /// Puts a file in place when its bytes differ; true when it did.
    pub(super) fn put(&mut self, file: &str, bytes: &[u8]) -> anyhow::Result<bool> {
        self.files.insert(file.to_owned());
        put(&self.out.join(file), bytes)
    }

    /// Whether an earlier build made the file, and it is still there.
    pub(super) fn has(&self, file: &str) -> bool {
        self.files.contains(file) && self.out.join(file).is_file()
    }

    /// Removes what an earlier build made below `folder/` and no source makes any more.
    pub(super) fn keep_only(&mut self, folder: &str, wanted: &BTreeSet<String>) -> Vec<String> {
        let prefix = format!("{folder}/");
        let gone: Vec<String> = self
            .files
            .iter()
            .filter(|file| file.starts_with(&prefix) && !wanted.contains(*file))
            .cloned()
            .collect();
        let top = self.out.join(folder);
        let mut removed = Vec::new();
        for file in gone {
            if let Some(file) = self.remove(&file) {
                remove_empty(self.out.join(&file).parent(), &top);
                removed.push(file);
            }
        }
        removed
    }

    /// Removes a file that an earlier build made, and returns it; one of somebody else stays.
    pub(super) fn remove(&mut self, file: &str) -> Option<String> {
        let ours = self.files.take(file)?;
        let path = self.out.join(file);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!("cannot remove `{}`: {error}", path.display());
                // The next build tries again.
                self.files.insert(ours);
                None
            }
            _ => Some(ours),
        }
    }

    /// Writes the record.
    pub(super) fn save(&self) -> anyhow::Result<()> {
        let text = serde_json::to_vec_pretty(self)?;
        replace(&self.out.join(RECORD), &text).context("cannot write the record of the build")
    }
}

/// Puts a file in place when its bytes differ, so that nobody takes it for a new one; true when it
/// did.
pub(super) fn put(path: &Path, bytes: &[u8]) -> anyhow::Result<bool> {
    if fs::read(path).is_ok_and(|old| old == bytes) {
        return Ok(false);
    }
    replace(path, bytes).with_context(|| format!("cannot write `{}`", path.display()))?;
    Ok(true)
}

/// The old bytes or the new ones, never a part: a server may be watching.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // Hidden, and without the extension that a watcher looks for.
    let fresh = folder.join(format!(".{name}.new"));
    let mut file = File::create(&fresh)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&fresh, path)
}

fn remove_empty(folder: Option<&Path>, top: &Path) {
    let below = folder.filter(|folder| folder.starts_with(top) && *folder != top);
    if let Some(folder) = below
        && fs::remove_dir(folder).is_ok()
    {
        remove_empty(folder.parent(), top);
    }
}

/// How deep `public/` is copied: deeper than any address a person would type.
const MAX_DEPTH: usize = 32;

/// The files below a folder, relative, with `/`. Links are followed, as a web server would.
pub(super) fn files_below(folder: &Path) -> anyhow::Result<Vec<String>> {
    fn gather(folder: &Path, place: &str, depth: usize, files: &mut Vec<String>) -> io::Result<()> {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            let place = if place.is_empty() {
                name
            } else {
                format!("{place}/{name}")
            };
            match fs::metadata(entry.path()) {
                Ok(meta) if meta.is_dir() && depth < MAX_DEPTH => {
                    gather(&entry.path(), &place, depth + 1, files)?;
                }
                Ok(meta) if meta.is_file() => files.push(place),
                _ => {}
            }
        }
        Ok(())
    }
    let mut files = Vec::new();
    if folder.is_dir() {
        gather(folder, "", 0, &mut files)
            .with_context(|| format!("cannot read the folder `{}`", folder.display()))?;
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(files: &[&str]) -> BTreeSet<String> {
        files.iter().map(|file| (*file).to_owned()).collect()
    }

    #[test]
    fn a_file_is_written_only_when_it_differs() {
        let dir = tempfile::tempdir().unwrap();
        let mut installed = Installed::read(dir.path());
        assert!(installed.put("pages/a/[id].wasm", b"one").unwrap());
        assert!(!installed.put("pages/a/[id].wasm", b"one").unwrap());
        assert!(installed.put("pages/a/[id].wasm", b"two").unwrap());
        assert_eq!(files_below(dir.path()).unwrap(), ["pages/a/[id].wasm"]);
    }

    #[test]
    fn only_what_a_build_made_is_taken_away() {
        let dir = tempfile::tempdir().unwrap();
        let mut installed = Installed::read(dir.path());
        for file in ["pages/a/x.wasm", "pages/b.wasm", "public/c"] {
            installed.put(file, b"x").unwrap();
        }
        installed.save().unwrap();
        fs::write(dir.path().join("pages/own.wasm"), "x").unwrap();
        let mut installed = Installed::read(dir.path());
        let gone = installed.keep_only("pages", &set(&["pages/b.wasm"]));
        assert_eq!(gone, ["pages/a/x.wasm"]);
        assert_eq!(
            (
                installed.remove("public/c"),
                installed.remove("pages/own.wasm")
            ),
            (Some("public/c".to_owned()), None)
        );
        let left = [".wisr/built.json", "pages/b.wasm", "pages/own.wasm"];
        assert_eq!(files_below(dir.path()).unwrap(), left);
        assert!(!dir.path().join("pages/a").exists());
    }

    #[test]
    fn a_record_of_another_version_claims_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let record = br#"{"version":2,"files":["pages/a.wasm"]}"#;
        replace(&dir.path().join(RECORD), record).unwrap();
        assert!(Installed::read(dir.path()).files.is_empty());
    }
}
