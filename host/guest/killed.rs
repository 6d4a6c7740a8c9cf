//! `Killed`: the modules whose compilation was killed, or found no memory, and how much was left
//! then. They are not compiled again until there is more, the file changes, or another wisr comes: a
//! server that starts anew in the same container would only be killed anew.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use lru::LruCache;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::artifact::Fingerprint;
use super::compile::Overran;
use super::module::LoadError;

/// Modules that are remembered.
const MOST: usize = 256;

/// The version of the file. Another one is not read: its modules are tried again.
const VERSION: u32 = 1;

/// The record of them, in the site's state.
pub(super) struct Killed {
    file: Option<PathBuf>,
    known: Mutex<LruCache<String, Entry>>,
}

/// What became of a compilation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    /// Bytes of memory that were left for it.
    left: u64,
    /// Whether it was killed; else it was refused more.
    was_killed: bool,
    /// Whether this process has refused it already for what an earlier one found.
    #[serde(skip)]
    is_told: bool,
}

#[derive(Debug, Serialize, Deserialize)]
struct Record {
    version: u32,
    killed: Vec<(String, Entry)>,
}

impl Killed {
    /// What an earlier process left in the folder.
    pub(super) fn open(folder: Option<&Path>) -> Self {
        let file = folder.map(|folder| folder.join("killed.json"));
        let record = file.as_ref().and_then(|file| fs::read(file).ok());
        let mut known = LruCache::unbounded();
        for (name, entry) in record.map_or(Vec::new(), |record| parse(&record)) {
            known.put(name, entry);
        }
        Self {
            file,
            known: Mutex::new(known),
        }
    }

    /// Why a module is not compiled, if it was killed with no less memory left than now. `is_retry`
    /// says that nobody asked for it anew: who writes the file once more wants it tried.
    pub(super) fn refusal(
        &self,
        name: Fingerprint,
        left: Option<u64>,
        is_retry: bool,
    ) -> Option<LoadError> {
        let mut known = self.known.lock();
        let entry = known.get_mut(&name.to_string())?;
        let is_first = !std::mem::replace(&mut entry.is_told, true);
        // A quarter more is more than what comes and goes.
        let is_more = left.is_none_or(|left| left > entry.left.saturating_add(entry.left / 4));
        if is_more || !(is_first || is_retry) {
            return None;
        }
        Some(match entry.was_killed {
            true => LoadError::Killed,
            false => LoadError::Overran(Overran::Left(entry.left)),
        })
    }

    /// Remembers how a compilation ended for which `left` bytes were left.
    pub(super) fn note<T>(&self, name: Fingerprint, left: u64, ended: &Result<T, LoadError>) {
        let was_killed = match ended {
            Err(LoadError::Killed) => true,
            Err(LoadError::Overran(Overran::Left(_))) => false,
            _ => {
                let known = self.known.lock().pop(&name.to_string());
                if known.is_some() {
                    self.save();
                }
                return;
            }
        };
        let entry = Entry {
            left,
            was_killed,
            is_told: true,
        };
        let mut known = self.known.lock();
        known.put(name.to_string(), entry);
        while known.len() > MOST {
            known.pop_lru();
        }
        drop(known);
        self.save();
    }

    /// Writes it down, if that is possible.
    fn save(&self) {
        let Some(file) = &self.file else {
            return;
        };
        let killed = self.known.lock();
        let killed = killed.iter().rev();
        let record = Record {
            version: VERSION,
            killed: killed.map(|(name, entry)| (name.clone(), *entry)).collect(),
        };
        if let Err(error) = write(file, &record) {
            let file = file.display();
            tracing::warn!(%file, "a restart compiles again what was killed: {error}");
        }
    }
}

fn parse(record: &[u8]) -> Vec<(String, Entry)> {
    match serde_json::from_slice::<Record>(record) {
        Ok(record) if record.version == VERSION => record.killed,
        _ => Vec::new(),
    }
}

fn write(file: &Path, record: &Record) -> io::Result<()> {
    let folder = file.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let new = tempfile::NamedTempFile::new_in(folder)?;
    serde_json::to_writer(&new, record)?;
    new.as_file().sync_all()?;
    new.persist(file)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(module: &[u8]) -> Fingerprint {
        Fingerprint::of(&wasmtime::Engine::default(), module)
    }

    #[test]
    fn what_was_killed_is_compiled_again_when_there_is_more_memory_or_somebody_wants_it() {
        let folder = tempfile::tempdir().unwrap();
        let open = || Killed::open(Some(folder.path()));
        let (one, other) = (name(b"one"), name(b"other"));
        let killed = open();
        assert!(killed.refusal(one, Some(100), false).is_none());
        killed.note(one, 100, &Err::<(), _>(LoadError::Killed));
        killed.note(
            other,
            100,
            &Err::<(), _>(LoadError::Overran(Overran::Left(100))),
        );
        let refused = |killed: &Killed, left, is_retry| killed.refusal(one, left, is_retry);
        assert!(matches!(
            refused(&killed, Some(125), true),
            Some(LoadError::Killed)
        ));
        assert!(refused(&killed, Some(126), true).is_none());
        assert!(refused(&killed, None, true).is_none());
        assert!(
            refused(&killed, Some(100), false).is_none(),
            "its file was written anew"
        );
        // The next process does not know who wrote the file, and refuses it once.
        let next = open();
        assert!(matches!(
            refused(&next, Some(100), false),
            Some(LoadError::Killed)
        ));
        assert!(refused(&next, Some(100), false).is_none());
        let told = next.refusal(other, Some(100), true).unwrap();
        assert!(
            told.to_string()
                .contains("100 bytes of memory that the machine"),
            "{told}"
        );
        next.note(one, 100, &Ok(()));
        assert!(refused(&open(), Some(100), false).is_none());
    }

    #[test]
    fn old_records_are_read() {
        let kept = br#"{"version":1,"killed":[["0123",{"left":7,"was_killed":true}]]}"#;
        assert_eq!(parse(kept)[0].1.left, 7);
        assert!(parse(&kept.map(|byte| if byte == b'1' { b'2' } else { byte })).is_empty());
    }
}
