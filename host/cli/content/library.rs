//! `Library`: a folder of Markdown that somebody edits, read anew for every question.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::item::{Item, ItemError};

/// The largest Markdown file, in bytes: ten times a long book, so that a mistake does not fill the memory.
const MAX_FILE_BYTES: u64 = 8 << 20;

/// How deep folders may nest below a collection: far more than a person would.
const MAX_DEPTH: usize = 16;

/// The folder: one folder below it for each collection.
#[derive(Debug, Clone)]
pub struct Library {
    root: PathBuf,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum LibraryError {
    /// A file that cannot be understood.
    #[error(transparent)]
    Item(#[from] ItemError),
    /// A file that cannot be served.
    #[error("{file}: {reason}")]
    File {
        /// Relative to the folder.
        file: String,
        /// What is wrong, and what to do.
        reason: String,
    },
}

impl Library {
    /// The library in `folder`.
    ///
    /// # Errors
    /// When it is not a folder that can be read.
    pub fn open(folder: &Path) -> io::Result<Self> {
        let root = fs::canonicalize(folder)?;
        fs::read_dir(&root)?;
        Ok(Self { root })
    }

    /// Answers the question for a path, given as its decoded segments; `None` when nothing is there.
    ///
    /// # Errors
    /// A file that is there and cannot be served.
    pub fn answer(&self, segments: &[String]) -> Result<Option<Value>, LibraryError> {
        // Names that begin with a dot are hidden, and this is where `..` ends.
        let plain = |name: &String| {
            !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\\', '\0', ':'])
        };
        if !segments.iter().all(plain) {
            return Ok(None);
        }
        match segments {
            [] => Ok(Some(self.collections()?)),
            [collection] => self.list(collection),
            [collection, id @ ..] => self.find(collection, &id.join("/")),
        }
    }

    fn collections(&self) -> Result<Value, LibraryError> {
        let mut names: Vec<_> = self.read(&self.root)?;
        names.retain(|(_, kind)| *kind == Kind::Folder);
        Ok(names.into_iter().map(|(name, _)| name).collect())
    }

    fn list(&self, collection: &str) -> Result<Option<Value>, LibraryError> {
        let folder = self.root.join(collection);
        // Symbolic links are not followed: a link out of the folder would serve what it points to.
        if !fs::symlink_metadata(&folder).is_ok_and(|meta| meta.is_dir()) {
            return Ok(None);
        }
        let mut items = Vec::new();
        self.gather(&folder, collection, "", 0, &mut items)?;
        items.retain(|item| !item.draft());
        items.sort_by(Item::compare);
        let summaries = items.iter().map(|item| Value::Object(item.summary()));
        Ok(Some(summaries.collect()))
    }

    fn gather(
        &self,
        folder: &Path,
        collection: &str,
        prefix: &str,
        depth: usize,
        items: &mut Vec<Item>,
    ) -> Result<(), LibraryError> {
        for (name, kind) in self.read(folder)? {
            let path = folder.join(&name);
            match (kind, name.strip_suffix(".md")) {
                (Kind::Folder, _) if depth < MAX_DEPTH => {
                    let prefix = format!("{prefix}{name}/");
                    self.gather(&path, collection, &prefix, depth + 1, items)?;
                }
                (Kind::File, Some(stem)) => {
                    let id = format!("{prefix}{stem}");
                    items.extend(self.load(collection, &id)?);
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn find(&self, collection: &str, id: &str) -> Result<Option<Value>, LibraryError> {
        let item = self.load(collection, id)?.filter(|item| !item.draft());
        Ok(item.map(|item| Value::Object(item.whole())))
    }

    fn load(&self, collection: &str, id: &str) -> Result<Option<Item>, LibraryError> {
        let file = format!("{collection}/{id}.md");
        let path = self.root.join(&file);
        // The very path, with no link in it and, where the file system ignores case, with its own.
        if !fs::canonicalize(&path).is_ok_and(|real| real == path) {
            return Ok(None);
        }
        let refuse = |reason: String| LibraryError::File {
            file: file.clone(),
            reason,
        };
        let size = fs::metadata(&path).map_or(0, |meta| meta.len());
        if size > MAX_FILE_BYTES {
            return Err(refuse(format!(
                "{size} bytes: at most {MAX_FILE_BYTES} are served; split it"
            )));
        }
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(Item::parse(&file, id, &text)?)),
            // Removed between the listing and now, as editors do while they save.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(refuse(error.to_string())),
        }
    }

    /// The names in a folder, sorted; hidden ones, links and names that are not Unicode left out.
    fn read(&self, folder: &Path) -> Result<Vec<(String, Kind)>, LibraryError> {
        let refuse = |error: io::Error| LibraryError::File {
            file: folder
                .strip_prefix(&self.root)
                .unwrap_or(folder)
                .display()
                .to_string(),
            reason: error.to_string(),
        };
        let mut names = Vec::new();
        for entry in fs::read_dir(folder).map_err(refuse)?.flatten() {
            let (Ok(name), Ok(kind)) = (entry.file_name().into_string(), entry.file_type()) else {
                continue;
            };
            if name.starts_with('.') || kind.is_symlink() {
                continue;
            }
            let kind = if kind.is_dir() {
                Kind::Folder
            } else {
                Kind::File
            };
            names.push((name, kind));
        }
        names.sort();
        Ok(names)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Folder,
    File,
}
