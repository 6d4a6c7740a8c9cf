//! `Files`: the static files of a site, known by name without asking the disk.

use std::collections::{HashSet, VecDeque};
use std::fs;
use std::path::{Path as FsPath, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use http::header::{CACHE_CONTROL, HeaderValue};
use http::request::Parts;
use http::{Request, Response};
use notify::Watcher;
use tower_http::services::ServeDir;
use tower_service::Service;

use super::body::Body;
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

/// Names by path: `css/app.css`.
type Names = HashSet<Box<str>>;

/// The files of one folder. Dropping it ends the watch.
pub(super) struct Files {
    dir: ServeDir,
    names: Arc<ArcSwap<Names>>,
    watch: Option<(notify::Result<notify::RecommendedWatcher>, Sender<()>)>,
    thread: Option<JoinHandle<()>>,
}

impl Files {
    /// Reads the names in `root`, which need not exist yet, and watches them.
    pub(super) fn watch(root: PathBuf) -> Self {
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
        let (dir, shared) = (ServeDir::new(&root), names.clone());
        let thread = std::thread::Builder::new()
            .name("static-files".to_owned())
            .spawn(move || follow(&root, &changes, &shared))
            .inspect_err(|error| tracing::warn!(%error, "changes of static files go unnoticed"))
            .ok();
        Self {
            dir: dir.append_index_html_on_directories(false),
            names,
            watch: Some((watcher, changed)),
            thread,
        }
    }

    /// Whether there is a file for the path.
    pub(super) fn has(&self, path: &Path) -> bool {
        let names = self.names.load();
        if names.is_empty() {
            return false;
        }
        let text = path.as_str();
        if !text.contains('%') {
            return names.contains(&text[1..]);
        }
        let segments: Vec<&str> = path.segments().collect();
        // `a%2Fb` is one name, and no file has it.
        !segments.iter().any(|segment| segment.contains('/'))
            && names.contains(segments.join("/").as_str())
    }

    /// Sends the file, or part of it, or says that the reader has it already.
    pub(super) async fn serve(&self, parts: Parts) -> Response<Body> {
        let request = Request::from_parts(parts, Body::Empty);
        let Ok(response) = self.dir.clone().call(request).await;
        let mut response = response.map(Body::stream);
        response
            .headers_mut()
            .insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=0"));
        response
    }
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

fn follow(root: &FsPath, changes: &mpsc::Receiver<()>, names_: &ArcSwap<Names>) {
    loop {
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

/// The names in the folder. Hidden ones (`.git`, `.env`) are nobody's business.
fn names(root: &FsPath) -> Names {
    let mut found = Names::new();
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
            if name.starts_with('.') {
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
    use http_body_util::BodyExt;

    use super::*;

    fn has(files: &Files, path: &str) -> bool {
        files.has(&Path::parse(path).unwrap())
    }

    #[tokio::test]
    async fn files_are_found_by_their_exact_name_only() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("css/a b")).unwrap();
        fs::write(folder.path().join("css/app.css"), "body{}").unwrap();
        fs::write(folder.path().join("css/a b/ü.txt"), "ü").unwrap();
        fs::write(folder.path().join(".env"), "SECRET").unwrap();
        let files = Files::watch(folder.path().to_owned());
        for (path, expected) in [
            ("/css/app.css", true),
            ("/css/a%20b/%C3%BC.txt", true),
            ("/css", false),
            ("/", false),
            ("/css%2Fapp.css", false),
            ("/..%2Fcss%2Fapp.css", false),
            ("/.env", false),
            ("/CSS/app.css", false),
        ] {
            assert_eq!(has(&files, path), expected, "{path}");
        }
        let (parts, ()) = Request::get("/css/app.css").body(()).unwrap().into_parts();
        let response = files.serve(parts).await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/css");
        assert!(response.headers().contains_key("etag"));
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body, "body{}");
    }

    #[test]
    fn a_new_file_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let files = Files::watch(folder.path().to_owned());
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
        let files = Files::watch(folder.path().to_owned());
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
        let files = Files::watch(folder.path().to_owned());
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
