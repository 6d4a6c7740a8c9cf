//! `Files`: the static files of a site, known by name without asking the disk.
//!
//! A file comes before an API route and a page of the same path. It may lie beside coded forms of
//! itself (`app.css.br`, `.zst`, `.gz`), which readers get who accept them, if they are proved to be
//! that; these have addresses of their own, too, at which they are files like any other.

use std::collections::{HashSet, VecDeque};
use std::path::{Path as FsPath, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use std::{fs, io};

use arc_swap::ArcSwap;
use http::Response;
use http::request::Parts;
use notify::Watcher;
use tokio::sync::Semaphore;

use super::body::Body;
use super::check;
use super::contents::Contents;
use super::errors::Problem;
use super::file::{File, Shelf, is_changed};
use super::negotiate;
use super::respond::Reader;
use crate::page::{Coding, Timestamp};
use crate::route::Path;

/// Files in the folder; far more than any site has, and their names still fit in memory.
const MAX_FILES: usize = 100_000;

/// Folders within folders, so that a link to a parent comes to an end.
const MAX_DEPTH: usize = 32;

/// Folders that are looked into: two links to a parent would otherwise be four folders, then eight.
const MAX_FOLDERS: usize = 10_000;

/// How often the folder is looked at though nothing reported a change: network mounts report none.
const POLL: Duration = Duration::from_secs(5);

/// A copy of many files is one change.
const SETTLE: Duration = Duration::from_millis(50);

/// How long changes may follow upon each other before the folder is looked at all the same: a file
/// that is written all the time must not hide the others.
const UNSETTLED: Duration = Duration::from_secs(1);

/// How often a file is read that is written to meanwhile.
const ATTEMPTS: usize = 3;

/// Names by path: `css/app.css`.
type Names = HashSet<Box<str>>;

/// The files of one folder. Dropping it ends the watch.
pub(super) struct Files {
    shelf: Arc<Shelf>,
    names: Arc<ArcSwap<Names>>,
    watch: Option<(notify::Result<notify::RecommendedWatcher>, Sender<()>)>,
    thread: Option<JoinHandle<()>>,
}

impl Files {
    /// Reads the names in `root`, which need not exist yet, and watches them. `look` is called with
    /// what tells whether a path has a file, from time to time and when that changed.
    pub(super) fn watch(
        root: PathBuf,
        held: usize,
        mut look: impl FnMut(&dyn Fn(&Path) -> bool) + Send + 'static,
    ) -> Self {
        let names = Arc::new(ArcSwap::from_pointee(names(&root)));
        let (changed, changes) = mpsc::channel();
        let report = changed.clone();
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // Reading the folder is an event too: only those that may change a name count.
            if event.is_ok_and(|event| !event.kind.is_access()) {
                let _ = report.send(());
            }
        })
        .and_then(|mut watcher| {
            watcher.watch(&root, notify::RecursiveMode::Recursive)?;
            Ok(watcher)
        });
        let (root, shared) = (Arc::<FsPath>::from(root), names.clone());
        let watched = root.clone();
        let look = move |names: &Names| look(&|path| name_of(names, path).is_some());
        let thread = std::thread::Builder::new()
            .name("static-files".to_owned())
            .spawn(move || follow(&watched, &changes, &shared, look))
            .inspect_err(|error| tracing::warn!(%error, "changes of static files go unnoticed"))
            .ok();
        let shelf = Shelf {
            root,
            contents: Contents::default(),
            held: Arc::new(Semaphore::new(held)),
        };
        Self {
            shelf: Arc::new(shelf),
            names,
            watch: Some((watcher, changed)),
            thread,
        }
    }

    /// The name of the file for the path, if there is one.
    pub(super) fn find(&self, path: &Path) -> Option<Box<str>> {
        name_of(&self.names.load(), path)
    }

    /// Sends the file, or part of it, or says that the reader has it already; none if it is gone.
    pub(super) async fn serve(
        &self,
        name: Box<str>,
        parts: Parts,
        now: Timestamp,
    ) -> Option<Response<Body>> {
        if !check::is_read(&parts.method) {
            return Some(Problem::Method.page(false));
        }
        let names = self.names.load_full();
        let has = |coding: Coding| names.contains(&*format!("{name}{}", coding.extension()));
        let coding = negotiate::choose_among(&parts.headers, has);
        let is_coded = Coding::PREFERRED
            .into_iter()
            .filter(|coding| has(*coding))
            .count()
            > 1;
        let shelf = self.shelf.clone();
        let serving = tokio::task::spawn_blocking(move || {
            let reader = Reader::of(&parts);
            let answer = || {
                let open = |coding| File::open(&shelf, &name, coding, now);
                let file = match open(coding)? {
                    None if coding != Coding::Identity => open(Coding::Identity)?,
                    file => file,
                };
                file.map(|file| file.answer(reader, &name, (&shelf, is_coded)))
                    .transpose()
            };
            let again = |told: &io::Result<_>| told.as_ref().is_err_and(is_changed);
            let mut told = answer();
            for _ in 1..ATTEMPTS {
                if !again(&told) {
                    break;
                }
                told = answer();
            }
            told
        });
        match serving.await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => {
                tracing::debug!(%error, "a static file cannot be read");
                Some(Problem::Unreadable.page(false))
            }
            Err(_) => Some(Problem::Panicked.page(false)),
        }
    }
}

fn name_of(names: &Names, path: &Path) -> Option<Box<str>> {
    if names.is_empty() {
        return None;
    }
    let text = path.as_str();
    if !text.contains('%') {
        return names.get(&text[1..]).cloned();
    }
    let segments: Vec<&str> = path.segments().collect();
    // `a%2Fb` is one name, and no file has it.
    let is_name = !segments.iter().any(|segment| segment.contains('/'));
    names
        .get(segments.join("/").as_str())
        .filter(|_| is_name)
        .cloned()
}

impl Drop for Files {
    fn drop(&mut self) {
        // The channel closes with its last sender, and the thread ends with the channel.
        self.watch = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn follow(
    root: &FsPath,
    changes: &mpsc::Receiver<()>,
    names_: &ArcSwap<Names>,
    mut look: impl FnMut(&Names),
) {
    loop {
        look(&names_.load());
        match changes.recv_timeout(POLL) {
            Ok(()) => {
                let until = Instant::now() + UNSETTLED;
                while Instant::now() < until && changes.recv_timeout(SETTLE).is_ok() {}
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        let found = names(root);
        if found != **names_.load() {
            tracing::info!(files = found.len(), "static files changed");
            names_.store(Arc::new(found));
        }
    }
}

/// The one hidden name that is for everybody (RFC 8615).
const WELL_KNOWN: &str = ".well-known";

/// The names in the folder. Hidden ones (`.git`, `.env`) are nobody's business, and neither is what
/// links out of the folder lead to.
fn names(root: &FsPath) -> Names {
    let mut found = Names::new();
    let Ok(home) = fs::canonicalize(root) else {
        return found;
    };
    let leaves = |entry: &fs::DirEntry| {
        let is_link = entry.file_type().is_ok_and(|kind| kind.is_symlink());
        is_link && !fs::canonicalize(entry.path()).is_ok_and(|path| path.starts_with(&home))
    };
    let mut folders = VecDeque::from([(root.to_owned(), String::new(), 0)]);
    let mut known = 1;
    // Those near the root first: what a link repeats is the deeper one.
    while let Some((folder, prefix, depth)) = folders.pop_front() {
        let Ok(entries) = fs::read_dir(&folder) else {
            continue;
        };
        for entry in entries.flatten() {
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            // Follows links, as sending the file does.
            let Ok(kind) = fs::metadata(entry.path()) else {
                continue;
            };
            let path = format!("{prefix}{name}");
            if (name.starts_with('.') && path != WELL_KNOWN) || leaves(&entry) {
                continue;
            } else if kind.is_dir() && depth < MAX_DEPTH && known < MAX_FOLDERS {
                known += 1;
                folders.push_back((entry.path(), format!("{path}/"), depth + 1));
            } else if kind.is_file() && found.len() < MAX_FILES {
                found.insert(path.into_boxed_str());
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watch(folder: &tempfile::TempDir) -> Files {
        Files::watch(folder.path().to_owned(), 1, |_| {})
    }

    fn has(files: &Files, path: &str) -> bool {
        files.find(&Path::parse(path).unwrap()).is_some()
    }

    #[test]
    fn files_are_found_by_their_exact_name_only() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("css/a b")).unwrap();
        fs::write(folder.path().join("css/app.css"), "body{}").unwrap();
        fs::write(folder.path().join("css/a b/ü.txt"), "ü").unwrap();
        fs::write(folder.path().join(".env"), "SECRET").unwrap();
        fs::create_dir_all(folder.path().join(".well-known")).unwrap();
        fs::write(folder.path().join(".well-known/security.txt"), "").unwrap();
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("secret.txt"), "SECRET").unwrap();
        for (target, link) in [
            (outside.path().join("secret.txt"), "secret.txt"),
            (outside.path().to_owned(), "outside"),
            (folder.path().join("css/app.css"), "same.css"),
            (folder.path().join("nowhere"), "broken.css"),
        ] {
            std::os::unix::fs::symlink(target, folder.path().join(link)).unwrap();
        }
        let files = watch(&folder);
        for (path, expected) in [
            ("/css/app.css", true),
            ("/css/a%20b/%C3%BC.txt", true),
            ("/css", false),
            ("/", false),
            ("/css%2Fapp.css", false),
            ("/..%2Fcss%2Fapp.css", false),
            ("/.env", false),
            ("/.well-known/security.txt", true),
            ("/secret.txt", false),
            ("/outside/secret.txt", false),
            ("/same.css", true),
            ("/broken.css", false),
            ("/CSS/app.css", false),
        ] {
            assert_eq!(has(&files, path), expected, "{path}");
        }
    }

    #[test]
    fn a_new_file_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let files = watch(&folder);
        assert!(!has(&files, "/new.txt"));
        fs::write(folder.path().join("new.txt"), "new").unwrap();
        while !has(&files, "/new.txt") {
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_folder_that_contains_itself_comes_to_an_end() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a.txt"), "a").unwrap();
        std::os::unix::fs::symlink(folder.path(), folder.path().join("self")).unwrap();
        let files = watch(&folder);
        assert!(has(&files, "/a.txt"));
        assert!(has(&files, "/self/a.txt"));
    }

    #[test]
    fn folders_that_contain_themselves_twice_come_to_an_end() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("css")).unwrap();
        fs::write(folder.path().join("css/app.css"), "body{}").unwrap();
        for link in ["one", "two"] {
            std::os::unix::fs::symlink(folder.path(), folder.path().join(link)).unwrap();
        }
        let (tell, told) = mpsc::channel();
        let root = folder.path().to_owned();
        std::thread::spawn(move || tell.send(names(&root)));
        let found = told.recv_timeout(Duration::from_secs(30)).unwrap();
        assert!(found.contains("css/app.css"));
        assert!(found.len() <= MAX_FILES);
    }

    #[test]
    fn a_file_that_never_rests_does_not_hide_the_new_ones() {
        let folder = tempfile::tempdir().unwrap();
        let files = watch(&folder);
        let began = std::time::Instant::now();
        let mut count = 0_u64;
        while !has(&files, "/new.txt") {
            fs::write(folder.path().join("log.txt"), count.to_string()).unwrap();
            fs::write(folder.path().join("new.txt"), "new").unwrap();
            std::thread::sleep(SETTLE / 10);
            count += 1;
            assert!(began.elapsed() < 2 * POLL, "the folder is never looked at");
        }
    }
}
