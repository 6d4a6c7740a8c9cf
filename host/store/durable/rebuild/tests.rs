//! Bytes that change where compactions, lists and surveys go past them.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::tests::{copy as copy_folder, files, open, page};
use super::*;
use crate::page::{Entry, Tag};
use crate::store::conformance::{document, told};
use crate::store::durable::Durable;
use crate::store::marks::{Mark, Raised, Site, numbered};
use crate::store::{Store, Window};
use crate::telemetry::{Clock, Incidents};

/// Enough for dozens of blocks in each table.
const PAGES: u64 = 1_000;

/// Pages of which a block of 4 KiB has a record, at most: of each a reference to its body.
const IN_A_BLOCK: usize = 4_096 / 20;

/// A page made anew, with a body that is kept apart.
fn second(number: u64) -> Entry {
    let mut random = fastrand::Rng::with_seed(number);
    let text: String = std::iter::repeat_with(|| random.alphanumeric())
        .take(3_000)
        .collect();
    document(&format!("/posts/{number:04}"), PAGES + number, &text)
}

/// A closed store: every page, then every third one anew and every fifth removed, in tables of
/// their own; and a tag that was invalidated.
async fn store(folder: &Path) {
    let (durable, _) = open(folder);
    put(&durable, (0..PAGES).map(page)).await;
    put(&durable, (0..PAGES).step_by(3).map(second)).await;
    for number in (0..PAGES).step_by(5) {
        durable.forget(&page(number).key);
    }
    durable.raise(Raised {
        site: Site {
            sequence: 1,
            floor: 0,
        },
        marks: vec![(news(), 1)],
        folded: Vec::new(),
        urgent: true,
    });
    durable.synced().await.unwrap();
    durable.database.flush_tables();
}

fn news() -> Mark {
    Mark::Tag(Tag::new("news").unwrap())
}

async fn put(durable: &Durable, pages: impl Iterator<Item = Entry>) {
    for page in pages.map(Arc::new) {
        while durable.put(page.clone()).is_err() {
            durable.committed().await.unwrap();
        }
    }
    durable.synced().await.unwrap();
    durable.database.flush_tables();
}

fn expected(number: u64) -> Option<Entry> {
    match number {
        removed if removed % 5 == 0 => None,
        anew if anew % 3 == 0 => Some(second(anew)),
        first => Some(page(first)),
    }
}

/// How many pages are missing; none is wrong, and none is back.
fn missing(durable: &Durable) -> usize {
    let missing = (0..PAGES).filter(|number| {
        let found = durable.get(&page(*number).key);
        let expected = expected(*number);
        let is_lost = found.is_none() && expected.is_some();
        assert!(
            is_lost || told(found) == told(expected.map(Into::into)),
            "{number}"
        );
        is_lost
    });
    missing.count()
}

/// Where the records of the tables or body files are, each file with their bytes.
fn records(folder: &Path, kind: &str) -> Vec<(PathBuf, usize)> {
    let found = files(&folder.join("pages/keyspaces/1").join(kind)).into_iter();
    let sized = found.map(|file| {
        let contents = sfa::Reader::new(&file).unwrap();
        let size = contents.toc().section(b"data").unwrap().len();
        (file, usize::try_from(size).unwrap())
    });
    sized.collect()
}

fn flip(file: &Path, place: usize) {
    let mut bytes = std::fs::read(file).unwrap();
    bytes[place] ^= 0x10;
    std::fs::write(file, bytes).unwrap();
}

/// Has everything compacted, and waits until the store is well after that.
async fn compact(durable: &Durable) {
    let until = Instant::now() + Duration::from_secs(60);
    for number in 0.. {
        let entry = document(&format!("/other/{number}"), 1, "text");
        durable.put(entry.into()).unwrap();
        if durable.synced().await.is_ok() {
            let flushed = durable.database.flush_if_open();
            if flushed && number > 20 && durable.database.is_compacted() {
                return;
            }
        }
        assert!(Instant::now() < until, "{:?}", durable.health());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Wherever a byte of a table changes, a compaction that comes upon it costs the records of its block
/// and is told once; everything else goes on, and nothing that was removed comes back.
#[tokio::test]
async fn a_byte_that_a_compaction_comes_upon_costs_one_block() {
    let original = tempfile::tempdir().unwrap();
    store(original.path()).await;
    let tables = records(original.path(), "tables");
    assert!(tables.len() > 2, "{tables:?}");
    let mut lost = Vec::new();
    for (file, size) in &tables {
        for part in [0, 1, 2] {
            let folder = tempfile::tempdir().unwrap();
            copy_folder(original.path(), folder.path());
            let file = folder
                .path()
                .join(file.strip_prefix(original.path()).unwrap());
            flip(&file, (size - 1) * part / 2);
            let (durable, _) = open(folder.path());
            let incidents = Arc::new(Incidents::default());
            durable.report_to(incidents.clone(), Clock::system());
            compact(&durable).await;
            let pages = missing(&durable);
            assert!(pages <= IN_A_BLOCK, "{pages} missing");
            let told = incidents.latest(99);
            let of_blocks = told
                .iter()
                .filter(|told| told.message.contains("blocks of records"));
            assert_eq!(of_blocks.count(), 1, "{told:?}");
            let listed = durable.list(&Window::new("/posts", 2_000)).len();
            assert!(listed + pages >= 1_000 * 4 / 5);
            put(&durable, (0..PAGES).filter_map(expected)).await;
            assert_eq!(missing(&durable), 0, "it heals");
            drop(durable);
            let (durable, saved) = open(folder.path());
            assert_eq!(missing(&durable), 0);
            let is_kept = saved.marks == [(news(), 1)];
            assert!(is_kept || saved.site.floor > 1, "{saved:?}");
            lost.push((pages, is_kept));
        }
    }
    assert!(lost.iter().any(|(pages, _)| *pages > 0), "{lost:?}");
    assert!(lost.iter().any(|(_, is_kept)| *is_kept), "{lost:?}");
}

/// A body that changed costs its page, also where a compaction comes upon it that would copy it.
#[tokio::test]
async fn a_byte_of_a_body_costs_its_page() {
    let folder = tempfile::tempdir().unwrap();
    store(folder.path()).await;
    let bodies = records(folder.path(), "blobs");
    let (file, size) = bodies.first().unwrap();
    flip(file, size / 2);
    let (durable, _) = open(folder.path());
    let lost = durable.database.reopen().unwrap();
    assert_eq!((lost.pages.len(), lost.blocks), (1, 0), "{lost:?}");
    assert!(!lost.invalidations);
    assert_eq!(missing(&durable), 1);
    // It is looked through once, and nothing is found now.
    assert!(durable.database.reopen().unwrap().pages.is_empty());
    drop(durable);
    let (durable, saved) = open(folder.path());
    assert_eq!(saved.marks, [(news(), 1)]);
    assert_eq!(missing(&durable), 1);
}

/// Who lists pages past bytes that changed sees what is before them, once; then they are mended:
/// what a page is in short is told by its body, too.
#[tokio::test]
async fn a_list_that_ends_early_has_the_database_mended() {
    let folder = tempfile::tempdir().unwrap();
    store(folder.path()).await;
    let tables = records(folder.path(), "tables");
    let (file, size) = tables.first().unwrap();
    flip(file, size * 9 / 10);
    let (durable, _) = open(folder.path());
    let window = Window::new("/posts", 2_000);
    let whole = (0..PAGES).filter_map(expected).count();
    assert!(durable.list(&window).len() < whole);
    let until = Instant::now() + Duration::from_secs(60);
    while durable.list(&window).len() < whole || durable.synced().await.is_err() {
        assert!(Instant::now() < until, "{:?}", durable.health());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(missing(&durable), 0);
}

/// Where neither the invalidations nor all pages can be read, no page has a later number than the
/// site: after as many more invalidations it would count as made after those that are lost.
#[tokio::test]
async fn no_page_is_of_a_later_number_than_a_site_that_lost_its_own() {
    let folder = tempfile::tempdir().unwrap();
    store(folder.path()).await;
    let tables = records(folder.path(), "tables");
    let last = |(file, _): &&(PathBuf, usize)| {
        let name = file.file_name().and_then(|name| name.to_str());
        name.and_then(|name| name.parse::<u64>().ok())
    };
    let (file, size) = tables.iter().max_by_key(last).unwrap();
    flip(file, size - 1);
    let (durable, saved) = open(folder.path());
    assert!(saved.marks.is_empty());
    assert!(saved.site.floor >= numbered(1 << 30), "{saved:?}");
    assert!(missing(&durable) <= IN_A_BLOCK);
}

/// Who is killed while a database takes the place of another finds one of the two, whole.
#[tokio::test]
async fn a_swap_that_is_cut_short_is_undone() {
    let folder = tempfile::tempdir().unwrap();
    store(folder.path()).await;
    let pages = folder.path().join("pages");
    let (anew, replaced) = (pages.with_extension("new"), pages.with_extension("old"));
    for cut in 0..3 {
        match cut {
            0 => copy_folder(&pages, &anew),
            1 => {
                std::fs::rename(&pages, &replaced).unwrap();
                std::fs::create_dir(&anew).unwrap();
            }
            _ => copy_folder(&pages, &replaced),
        }
        let (durable, saved) = open(folder.path());
        assert_eq!(missing(&durable), 0, "{cut}");
        assert_eq!(saved.marks, [(news(), 1)], "{cut}");
        assert!(!anew.exists() && !replaced.exists(), "{cut}");
    }
}

/// Also where the process lives on.
#[tokio::test]
async fn a_swap_that_fails_is_undone() {
    let folder = tempfile::tempdir().unwrap();
    store(folder.path()).await;
    let (durable, _) = open(folder.path());
    let pages = folder.path().join("pages");
    std::fs::rename(&pages, pages.with_extension("old")).unwrap();
    durable.database.reopen().unwrap();
    assert_eq!(missing(&durable), 0);
}

/// A disk without a free descriptor says nothing of the bytes on it.
#[test]
fn only_errors_of_the_bytes_count_as_damage() {
    let of_bytes = |error| is_of_the_bytes(&fjall::Error::Io(error));
    let errno = |errno: rustix::io::Errno| io::Error::from_raw_os_error(errno.raw_os_error());
    assert!(of_bytes(errno(rustix::io::Errno::IO)));
    assert!(of_bytes(io::ErrorKind::UnexpectedEof.into()));
    assert!(!of_bytes(errno(rustix::io::Errno::MFILE)));
    assert!(!of_bytes(errno(rustix::io::Errno::NOSPC)));
    assert!(!is_of_the_bytes(&fjall::Error::Poisoned));
}
