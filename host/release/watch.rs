//! When to make a pass over the folder: at a report of the file system, or when the time has come.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;

use super::folder;
use super::releases::Releases;

/// A watch on the folder that the configured path means at the moment.
#[derive(Default)]
struct Watch {
    /// The folder that was last tried, so that a failure is told once and not at each pass.
    folder: Option<(PathBuf, u64, u64)>,
    /// Held for what its drop does: it ends the watch.
    _watcher: Option<RecommendedWatcher>,
}

impl Releases {
    /// Makes a pass whenever the folder changes, and one each `poll` since network mounts report
    /// nothing, until `stop`. What is being loaded is given up then; that changes nothing.
    pub async fn watch(&self, stop: impl Future<Output = ()>) {
        let passes = async {
            let reported = Arc::new(Notify::new());
            let mut watch = Watch::default();
            loop {
                watch = watch.renew(&self.config().pages, &reported).await;
                let report = self.pass().await;
                let pause = if report.waiting > 0 {
                    self.config().settle
                } else {
                    self.config().poll
                };
                tokio::select! {
                    // One change comes as many reports; those of the settling time are one.
                    () = reported.notified() => tokio::time::sleep(self.config().settle).await,
                    () = self.fallen() => {}
                    () = self.loads.ripe(), if report.loading > 0 => {}
                    () = tokio::time::sleep(pause) => {}
                }
            }
        };
        tokio::select! {
            () = stop => {}
            () = passes => {}
        }
        self.loads.end();
    }
}

impl Watch {
    /// Watches the folder that `pages` means now, if that is another than before.
    async fn renew(self, pages: &Path, reported: &Arc<Notify>) -> Self {
        let (pages, reported) = (pages.to_owned(), Arc::clone(reported));
        let renewing = tokio::task::spawn_blocking(move || self.renew_now(&pages, reported));
        // A watch that is lost costs a poll's delay and is set up anew before the next pass.
        renewing.await.unwrap_or_default()
    }

    fn renew_now(self, pages: &Path, reported: Arc<Notify>) -> Self {
        let folder = folder::identity(pages);
        if folder == self.folder {
            return self;
        }
        let watcher = folder.as_ref().and_then(|(root, ..)| {
            arm(root, reported)
                .inspect_err(|error| {
                    tracing::warn!(
                        folder = %pages.display(),
                        "changes of the folder are not reported ({error}); wisr looks for them \
                         from time to time"
                    );
                })
                .ok()
        });
        Self {
            folder,
            _watcher: watcher,
        }
    }
}

fn arm(root: &Path, reported: Arc<Notify>) -> notify::Result<RecommendedWatcher> {
    let config = notify::Config::default().with_follow_symlinks(false);
    let tell = move |event: notify::Result<Event>| {
        // An error means lost reports, which a pass makes up for.
        if event.is_ok_and(|event| !is_change(&event.kind)) {
            return;
        }
        reported.notify_one();
    };
    let mut watcher = RecommendedWatcher::new(tell, config)?;
    watcher.watch(root, RecursiveMode::Recursive)?;
    Ok(watcher)
}

/// Passes open and read files themselves: such reports would make a pass cause the next one.
fn is_change(kind: &EventKind) -> bool {
    match kind {
        EventKind::Access(access) => *access == AccessKind::Close(AccessMode::Write),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use super::*;

    async fn is_told(reported: &Notify) -> bool {
        let patience = Duration::from_secs(10);
        tokio::time::timeout(patience, reported.notified())
            .await
            .is_ok()
    }

    #[tokio::test]
    async fn the_watch_follows_the_path_to_another_folder() {
        let site = tempfile::tempdir().unwrap();
        let pages = site.path().join("pages");
        let reported = Arc::new(Notify::new());
        let watch = Watch::default().renew(&pages, &reported).await;
        assert!(watch._watcher.is_none());
        for name in ["one", "two"] {
            fs::create_dir_all(site.path().join(name).join("deep")).unwrap();
        }
        std::os::unix::fs::symlink("one", &pages).unwrap();
        let watch = watch.renew(&pages, &reported).await;
        fs::write(site.path().join("one/deep/a.wasm"), b"a").unwrap();
        assert!(is_told(&reported).await);

        fs::remove_file(&pages).unwrap();
        std::os::unix::fs::symlink("two", &pages).unwrap();
        // Reports of the first folder may still be on their way.
        let reported = Arc::new(Notify::new());
        let _watch = watch.renew(&pages, &reported).await;
        fs::write(site.path().join("two/deep/a.wasm"), b"a").unwrap();
        assert!(is_told(&reported).await);
    }

    #[test]
    fn reading_is_not_a_change() {
        assert!(!is_change(&EventKind::Access(AccessKind::Read)));
        assert!(!is_change(&EventKind::Access(AccessKind::Open(
            AccessMode::Any
        ))));
        assert!(is_change(&EventKind::Access(AccessKind::Close(
            AccessMode::Write
        ))));
        assert!(is_change(&EventKind::Any));
    }
}
