//! `Watch`: a source tree that somebody edits, and what kind of thing changed in it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use notify::event::EventKind;
use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

/// How long it must be quiet before changes are acted on: editors save in several steps.
const QUIET: Duration = Duration::from_millis(150);

/// How long changes are gathered at most: a tool may write without a pause.
const PATIENCE: Duration = Duration::from_secs(2);

/// How deep folders are watched.
const MAX_DEPTH: usize = 32;

/// What changed.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Changes {
    /// Something that pages are built from.
    pub(super) sources: bool,
    /// Something below `public/`.
    pub(super) public: bool,
    /// `wisr.toml`.
    pub(super) config: bool,
}

/// Watches until it is dropped.
pub(super) struct Watch {
    watcher: RecommendedWatcher,
    roots: Vec<PathBuf>,
    watched: BTreeSet<PathBuf>,
    shared: Arc<Shared>,
}

/// What the watcher's thread and its reader share.
struct Shared {
    judge: Judge,
    changes: Mutex<Changes>,
    wake: Notify,
}

/// Tells what a changed path is about.
#[derive(Debug, Clone)]
struct Judge {
    src: PathBuf,
    content: Option<PathBuf>,
}

impl Watch {
    /// Watches a source tree, without the content that is served as it is, and the folders beside it.
    ///
    /// # Errors
    /// When the system has no watches left; the message names the setting.
    pub(super) fn new(
        src: &Path,
        content: Option<PathBuf>,
        beside: &[PathBuf],
    ) -> anyhow::Result<Self> {
        let src = src.to_owned();
        let mut roots = vec![src.clone()];
        roots.extend_from_slice(beside);
        let shared = Arc::new(Shared {
            judge: Judge { src, content },
            changes: Mutex::default(),
            wake: Notify::new(),
        });
        let seen = shared.clone();
        let watcher = notify::recommended_watcher(move |event| seen.take(event))
            .context("cannot watch the source tree")?;
        let mut watch = Self {
            watcher,
            roots,
            watched: BTreeSet::new(),
            shared,
        };
        watch.arm()?;
        Ok(watch)
    }

    /// Waits for the next changes, until it is quiet. May be dropped while it waits: nothing is lost.
    ///
    /// # Errors
    /// As [`Watch::new`], for folders that are new.
    pub(super) async fn next(&mut self) -> anyhow::Result<Changes> {
        while *self.shared.changes.lock() == Changes::default() {
            self.shared.wake.notified().await;
        }
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            let quiet = Instant::now() + QUIET;
            if timeout_at(quiet.min(end), self.shared.wake.notified())
                .await
                .is_err()
            {
                break;
            }
        }
        let changes = std::mem::take(&mut *self.shared.changes.lock());
        // What was written into a new folder before it was watched is found by looking, not by watching.
        self.arm()?;
        Ok(changes)
    }

    /// Watches every folder that is not watched yet. One by one, since what cargo writes below the tree would
    /// take more watches than all sources together.
    fn arm(&mut self) -> anyhow::Result<()> {
        let mut folders = BTreeSet::new();
        for root in &self.roots {
            self.shared.judge.folders(root, 0, &mut folders);
        }
        for folder in folders.difference(&self.watched) {
            let watched = self.watcher.watch(folder, RecursiveMode::NonRecursive);
            watched.with_context(|| {
                format!(
                    "cannot watch `{}` (on Linux `sysctl fs.inotify.max_user_watches` limits how many \
                     folders can be watched)",
                    folder.display()
                )
            })?;
        }
        // A folder that went and came back has to be watched anew.
        self.watched = folders;
        Ok(())
    }
}

impl Shared {
    fn take(&self, event: notify::Result<Event>) {
        let seen = match event {
            Ok(event) if matches!(event.kind, EventKind::Access(_)) => return,
            Ok(event) if event.need_rescan() => Changes {
                sources: true,
                public: true,
                config: false,
            },
            Ok(event) => {
                let seen = event.paths.iter().map(|path| self.judge.changes(path));
                seen.fold(Changes::default(), Changes::or)
            }
            Err(error) => {
                tracing::warn!("watching the source tree: {error}");
                return;
            }
        };
        if seen != Changes::default() {
            let mut changes = self.changes.lock();
            *changes = changes.or(seen);
            self.wake.notify_one();
        }
    }
}

impl Changes {
    fn or(self, other: Self) -> Self {
        Self {
            sources: self.sources || other.sources,
            public: self.public || other.public,
            config: self.config || other.config,
        }
    }
}

impl Judge {
    /// Builds write into these, and nobody edits there.
    fn skips(&self, folder: &Path) -> bool {
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with('.')
            || name == "target"
            || name == "node_modules"
            || self.content.as_deref() == Some(folder)
    }

    fn changes(&self, path: &Path) -> Changes {
        let inside = path.strip_prefix(&self.src).ok();
        let skipped = inside.is_some_and(|inside| {
            let above = inside
                .ancestors()
                .filter(|part| !part.as_os_str().is_empty());
            above
                .into_iter()
                .any(|part| self.skips(&self.src.join(part)))
        });
        let hidden = path
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with('.'));
        let public = inside.is_some_and(|inside| inside.starts_with("public"));
        let config = inside.is_some_and(|inside| inside == Path::new(crate::config::FILE));
        if skipped || hidden {
            return Changes::default();
        }
        Changes {
            public,
            config,
            sources: !public && !config,
        }
    }

    fn folders(&self, folder: &Path, depth: usize, found: &mut BTreeSet<PathBuf>) {
        found.insert(folder.to_owned());
        if depth == MAX_DEPTH {
            return;
        }
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) && !self.skips(&path) {
                self.folders(&path, depth + 1, found);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCES: Changes = Changes {
        sources: true,
        public: false,
        config: false,
    };

    fn judge(src: &Path) -> Judge {
        Judge {
            src: src.to_owned(),
            content: Some(src.join("content")),
        }
    }

    #[test]
    fn a_path_says_what_changed() {
        let judge = judge(Path::new("/src"));
        let nothing = Changes::default();
        let public = Changes {
            public: true,
            ..nothing
        };
        let config = Changes {
            config: true,
            ..nothing
        };
        for (path, expected) in [
            ("/src/posts/[id]/page.rs", SOURCES),
            ("/src/_layout/lib.rs", SOURCES),
            ("/src/Cargo.toml", SOURCES),
            ("/beside/src/lib.rs", SOURCES),
            ("/src/public/a/b.css", public),
            ("/src/wisr.toml", config),
            ("/src/.wisr/target/x", nothing),
            ("/src/target/x", nothing),
            ("/src/posts/target/x", nothing),
            ("/src/content/posts/a.md", nothing),
            ("/src/index/.page.rs.swp", nothing),
        ] {
            assert_eq!(judge.changes(Path::new(path)), expected, "{path}");
        }
    }

    #[tokio::test]
    async fn saved_files_and_files_in_new_folders_are_seen_and_builds_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let src = fs::canonicalize(dir.path()).unwrap();
        fs::create_dir_all(src.join("index")).unwrap();
        fs::create_dir_all(src.join(".wisr/target")).unwrap();
        let mut watch = Watch::new(&src, None, &[]).unwrap();
        fs::write(src.join(".wisr/target/x"), "x").unwrap();
        fs::write(src.join("index/page.rs"), "x").unwrap();
        assert_eq!(watch.next().await.unwrap(), SOURCES);
        fs::create_dir(src.join("about")).unwrap();
        assert_eq!(watch.next().await.unwrap(), SOURCES);
        fs::write(src.join("about/page.rs"), "x").unwrap();
        assert_eq!(watch.next().await.unwrap(), SOURCES);
        assert!(!watch.watched.contains(&src.join(".wisr")));
    }
}
