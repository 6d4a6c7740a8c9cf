//! A disk that does as it is told.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::page::{Content, Entry};
use crate::store::conformance::{document, entry};
use crate::store::marks::{Mark, Site};

/// What the disk has and how it behaves.
#[derive(Default)]
struct Disk {
    /// Held by a test to hang the disk.
    hung: Mutex<()>,
    attempts: AtomicUsize,
    failing: Mutex<Option<&'static str>>,
    panics: AtomicUsize,
    pages: Mutex<Vec<(PageKey, Option<Arc<Entry>>)>>,
    marks: Mutex<Vec<(Mark, Option<u64>)>>,
    site: Mutex<Option<Site>>,
    syncs: AtomicUsize,
    revivals: AtomicUsize,
}

impl Disk {
    fn check(&self) -> Result<(), DiskError> {
        self.attempts.fetch_add(1, Ordering::SeqCst);
        drop(self.hung.lock());
        self.failing
            .lock()
            .map_or(Ok(()), |why| Err(std::io::Error::other(why).into()))
    }
}

impl Sink for Arc<Disk> {
    fn commit(&mut self, round: &Round) -> Result<(), DiskError> {
        self.check()?;
        if self.panics.swap(0, Ordering::SeqCst) > 0 {
            panic!("told to");
        }
        let pages = round
            .changes
            .iter()
            .map(|(k, c)| (k.clone(), c.entry(|| None)));
        self.pages.lock().extend(pages);
        self.marks.lock().extend(round.marks.clone());
        if round.site.is_some() {
            *self.site.lock() = round.site;
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<(), DiskError> {
        self.check()?;
        self.syncs.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    fn revive(&mut self) -> Result<(), DiskError> {
        self.revivals.fetch_add(1, Ordering::SeqCst);
        self.check()
    }
}

fn start(bytes: usize) -> (Behind, Arc<Disk>) {
    start_syncing(bytes, Duration::from_millis(20))
}

fn start_syncing(bytes: usize, sync_every: Duration) -> (Behind, Arc<Disk>) {
    let limits = Limits {
        bytes,
        sync_every,
        calm: Duration::from_millis(200),
        retry: Duration::from_millis(5),
        retry_most: Duration::from_millis(20),
        farewell: Duration::from_millis(200),
    };
    let disk = Arc::new(Disk::default());
    let behind = Behind::start(disk.clone(), limits, Arc::new(Metrics::new())).unwrap();
    (behind, disk)
}

fn put(behind: &Behind, entry: Entry) -> bool {
    behind.change(&entry.key.clone(), Change::Put(Arc::new(entry)))
}

fn raised(mark: Mark, sequence: u64) -> Raised {
    Raised {
        site: Site { sequence, floor: 0 },
        marks: vec![(mark, sequence)],
        folded: Vec::new(),
        urgent: true,
    }
}

async fn until(behind: &Behind, health: &str) {
    let mut progress = behind.shared.progress.subscribe();
    let is_it = |progress: &Progress| progress.health().as_str() == health;
    let reached = progress.wait_for(is_it);
    let patience = Duration::from_secs(30);
    drop(tokio::time::timeout(patience, reached).await.unwrap());
}

#[tokio::test]
async fn the_newest_of_each_page_is_written_and_readable_until_then() {
    let (behind, disk) = start(1 << 20);
    let hung = disk.hung.lock();
    let key = PageKey::new("/a", &[]);
    for generated in 1..=5 {
        assert!(put(&behind, document("/a", generated, "text")));
        let pending = behind.look(|queue| queue.get(&key).and_then(|change| change.entry(|| None)));
        assert_eq!(pending.unwrap().stamp.generated.as_millis(), generated);
    }
    drop(hung);
    behind.settled(Need::Committed).await.unwrap();
    let pages = disk.pages.lock();
    assert!(pages.len() <= 2, "{} writes", pages.len());
    let last = pages.last().unwrap().1.clone().unwrap();
    assert_eq!(last.stamp.generated.as_millis(), 5);
    assert!(behind.look(|queue| queue.get(&key).is_none()));
    assert_eq!(behind.look(|queue| queue.changes().count()), 0);
}

#[tokio::test]
async fn pages_are_synced_soon_after() {
    let (behind, _) = start(1 << 20);
    put(&behind, document("/a", 1, "text"));
    behind.settled(Need::Committed).await.unwrap();
    let mut progress = behind.shared.progress.subscribe();
    let synced = progress.wait_for(|progress| progress.synced >= 1);
    drop(
        tokio::time::timeout(Duration::from_secs(30), synced)
            .await
            .unwrap(),
    );
}

#[tokio::test]
async fn removals_and_marks_are_synced_before_it_is_said() {
    let (behind, disk) = start_syncing(1 << 20, Duration::from_secs(3_600));
    put(&behind, document("/a", 1, "text"));
    behind.settled(Need::Committed).await.unwrap();
    assert_eq!(disk.syncs.load(Ordering::SeqCst), 0);
    behind.change(&PageKey::new("/a", &[]), Change::Remove);
    behind.raise(raised(Mark::Path(PageKey::new("/a", &[])), 7));
    let synced = behind.settled(Need::Synced);
    let patience = Duration::from_secs(30);
    tokio::time::timeout(patience, synced)
        .await
        .unwrap()
        .unwrap();
    assert!(disk.syncs.load(Ordering::SeqCst) > 0);
    assert!(disk.pages.lock().last().unwrap().1.is_none());
    assert_eq!(disk.site.lock().unwrap().sequence, 7);
    assert_eq!(disk.marks.lock().len(), 1);
}

#[tokio::test]
async fn a_failing_disk_is_told_at_once_and_gets_everything_when_it_recovers() {
    let (behind, disk) = start(1 << 20);
    *disk.failing.lock() = Some("no space left on device");
    put(&behind, document("/a", 1, "old"));
    let told = behind.settled(Need::Committed).await.unwrap_err();
    assert_eq!(
        told.to_string(),
        "no space left on device; wisr goes on trying"
    );
    assert_eq!(behind.health(), StoreHealth::Degraded(told));
    put(&behind, document("/a", 2, "new"));
    put(&behind, document("/b", 3, "other"));
    behind.raise(raised(Mark::Path(PageKey::new("/c", &[])), 1));
    assert!(behind.settled(Need::Synced).await.is_err());
    *disk.failing.lock() = None;
    until(&behind, "ok").await;
    behind.settled(Need::Synced).await.unwrap();
    let mut made: Vec<u64> = {
        let pages = disk.pages.lock();
        let made = pages.iter().flat_map(|(_, entry)| entry);
        made.map(|entry| entry.stamp.generated.as_millis())
            .collect()
    };
    made.sort_unstable();
    assert_eq!(made, [2, 3]);
    assert_eq!(disk.marks.lock().len(), 1);
    assert!(disk.revivals.load(Ordering::SeqCst) > 0);
    assert_eq!(behind.shared.metrics.store_healthy.get(), 1);
}

#[tokio::test]
async fn a_full_queue_refuses_pages_but_not_that_there_is_none() {
    let weight = document("/0", 1, "text").weight();
    let (behind, disk) = start(weight * 3 + 200);
    let hung = disk.hung.lock();
    behind.change(&PageKey::new("/first", &[]), Change::Remove);
    while disk.attempts.load(Ordering::SeqCst) == 0 {
        std::thread::yield_now();
    }
    assert!((0..3).all(|n| put(&behind, document(&format!("/{n}"), 1, "text"))));
    assert!(!put(&behind, document("/3", 1, "text")));
    assert!(
        put(&behind, document("/2", 2, "text")),
        "in place of its elder"
    );
    assert_eq!(behind.health(), StoreHealth::Degraded(Degraded::Full));
    assert!(put(&behind, entry("/3", 2, Content::NotFound)));
    assert!(behind.change(&PageKey::new("/4", &[]), Change::Remove));
    assert!(!put(&behind, document("/4", 1, "text")));
    assert_eq!(behind.shared.metrics.store_dropped.get(), 2);
    drop(hung);
    behind.settled(Need::Synced).await.unwrap();
    until(&behind, "ok").await;
    assert!(!behind.look(|queue| queue.is_busy()));
    assert!(put(&behind, document("/3", 3, "text")));
    behind.settled(Need::Committed).await.unwrap();
}

#[tokio::test]
async fn a_disk_that_hangs_is_not_waited_for_at_the_end() {
    let (behind, disk) = start(1 << 20);
    let hung = disk.hung.lock();
    put(&behind, document("/a", 1, "text"));
    while disk.attempts.load(Ordering::SeqCst) == 0 {
        std::thread::yield_now();
    }
    drop(behind);
    assert!(disk.pages.lock().is_empty());
    drop(hung);
}

/// What the disk has of a page in the end.
fn last_of(disk: &Disk, path: &str) -> Option<Option<Arc<Entry>>> {
    let pages = disk.pages.lock();
    let of_page = pages.iter().rev().find(|(key, _)| key.as_str() == path);
    of_page.map(|(_, entry)| entry.clone())
}

#[tokio::test]
async fn what_was_deleted_while_the_disk_failed_is_deleted_when_it_recovers() {
    for failure in [
        "no space left on device",
        "input/output error",
        "too many open files",
    ] {
        let weight = document("/00", 1, "text").weight();
        let (behind, disk) = start(weight * 10);
        for path in ["/purged", "/gone"] {
            put(&behind, document(path, 1, "text"));
        }
        behind.settled(Need::Synced).await.unwrap();
        *disk.failing.lock() = Some(failure);
        // More than may wait, so that pages are refused, and many times as much of removals.
        let refused = (0..20).filter(|n| !put(&behind, document(&format!("/{n:02}"), 1, "text")));
        assert!(refused.count() >= 10);
        assert!(put(&behind, entry("/gone", 2, Content::NotFound)));
        behind.change(&PageKey::new("/purged", &[]), Change::Remove);
        for number in 0..10_000 {
            let key = PageKey::new(&format!("/other/{number}"), &[]);
            assert!(behind.change(&key, Change::Remove));
        }
        behind.raise(raised(Mark::Purge(PageKey::new("/purged", &[])), 1));
        assert!(!put(&behind, entry("/late", 2, Content::NotFound)));
        assert!(
            behind.settled(Need::Synced).await.is_err(),
            "the caller is told"
        );
        *disk.failing.lock() = None;
        until(&behind, "ok").await;
        behind.settled(Need::Synced).await.unwrap();
        assert!(last_of(&disk, "/purged").unwrap().is_none());
        let gone = last_of(&disk, "/gone").unwrap().unwrap();
        assert_eq!(gone.content.as_str(), "not-found");
        assert_eq!(disk.marks.lock().len(), 1);
    }
}

#[tokio::test]
async fn a_database_that_panics_is_a_disk_that_fails() {
    let (behind, disk) = start(1 << 20);
    disk.panics.store(1, Ordering::SeqCst);
    put(&behind, document("/a", 1, "text"));
    // The next attempt may have succeeded already.
    let _ = behind.settled(Need::Committed).await;
    until(&behind, "ok").await;
    behind.settled(Need::Committed).await.unwrap();
    assert_eq!(disk.pages.lock().len(), 1);
    assert_eq!(disk.revivals.load(Ordering::SeqCst), 1);
}

/// What is logged, for counting.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn each_turn_is_one_line_in_the_log() {
    let (behind, _) = start(1 << 20);
    let log = Log::default();
    let written = log.clone();
    let subscriber = tracing_subscriber::fmt().with_writer(move || written.clone());
    tracing::subscriber::with_default(subscriber.finish(), || {
        for failing in [
            None,
            Some("full"),
            Some("still full"),
            None,
            None,
            Some("gone"),
        ] {
            behind
                .shared
                .turn(|progress| progress.failing = failing.map(Arc::from));
        }
    });
    let log = String::from_utf8(log.0.lock().clone()).unwrap();
    assert_eq!(log.lines().count(), 3, "{log}");
}
