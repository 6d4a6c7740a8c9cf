//! Restarts, broken files, folders that cannot be used.

use std::path::PathBuf;

use super::health::DiskError;
use super::*;
use crate::page::{Content, Tag};
use crate::store::conformance::{document, entry, told};
use crate::store::marks::{Mark, Site};

pub(super) fn open(folder: &Path) -> (Durable, Saved) {
    try_open(folder).unwrap()
}

pub(super) fn try_open(folder: &Path) -> Result<(Durable, Saved), OpenError> {
    Durable::open(folder, 1 << 20, Space::default(), Arc::new(Metrics::new()))
}

fn within(bytes: u64) -> Space {
    Space {
        most: Most::Bytes(bytes),
        ..Space::default()
    }
}

pub(super) fn key(path: &str) -> PageKey {
    PageKey::new(path, &[])
}

pub(super) fn page(number: u64) -> Entry {
    let path = format!("/posts/{number:04}");
    let text = format!("<p>{number}</p>").repeat(100 + usize::try_from(number).unwrap());
    document(&path, number, &text)
}

pub(super) fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

pub(super) fn copy(from: &Path, to: &Path) {
    for file in files(from) {
        let target = to.join(file.strip_prefix(from).unwrap());
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        std::fs::copy(&file, &target).unwrap();
    }
}

#[tokio::test]
async fn what_was_committed_is_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let (durable, _) = open(folder.path());
    let mut expected = Vec::new();
    for number in 0..300 {
        let entry = Arc::new(page(number));
        durable.put(entry.clone()).unwrap();
        expected.push(told(Some(entry)));
    }
    durable.committed().await.unwrap();
    drop(durable);
    let (durable, _) = open(folder.path());
    for (number, expected) in (0..).zip(&expected) {
        assert_eq!(&told(durable.get(&page(number).key)), expected);
    }
    let listed = durable.list(&Window::new("/posts/01", 200));
    assert_eq!(listed.len(), 100);
    assert_eq!(listed[99].key, page(199).key);
}

#[tokio::test]
async fn a_deleted_page_never_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let (durable, _) = open(folder.path());
    for number in 0..3 {
        durable.put(Arc::new(page(number))).unwrap();
    }
    durable.committed().await.unwrap();
    let gone = Arc::new(entry("/posts/0000", 9, Content::NotFound));
    durable.put(gone).unwrap();
    durable.forget(&key("/posts/0001"));
    durable.synced().await.unwrap();
    drop(durable);
    let (durable, _) = open(folder.path());
    let first = durable.get(&key("/posts/0000")).unwrap();
    assert_eq!(first.content.as_str(), "not-found");
    assert!(durable.get(&key("/posts/0001")).is_none());
    assert!(durable.get(&key("/posts/0002")).is_some());
    assert_eq!(durable.database.bodies(), 1);
    assert!(durable.stamp(&key("/posts/0002")).is_some());
    assert_eq!(durable.remove_routes(&|route| route == "/posts/[id]"), 2);
    assert!(durable.stamp(&key("/posts/0002")).is_none());
    durable.synced().await.unwrap();
    drop(durable);
    let (durable, _) = open(folder.path());
    assert!(durable.list(&Window::new("", 9)).is_empty());
    assert_eq!(durable.database.bodies(), 0);
}

#[tokio::test]
async fn invalidations_come_back_and_forgotten_ones_do_not() {
    let folder = tempfile::tempdir().unwrap();
    let (durable, saved) = open(folder.path());
    assert_eq!(saved.site, Site::default());
    let news = Mark::Tag(Tag::new("news").unwrap());
    let (path, purge) = (Mark::Path(key("/a")), Mark::Purge(key("/a")));
    for (sequence, mark, folded) in [
        (1, &news, None),
        (2, &path, None),
        (3, &purge, Some(path.clone())),
    ] {
        durable.raise(Raised {
            site: Site {
                sequence,
                floor: sequence - 1,
            },
            marks: vec![(mark.clone(), sequence)],
            folded: folded.into_iter().collect(),
            urgent: true,
        });
        durable.synced().await.unwrap();
    }
    drop(durable);
    let (_durable, mut saved) = open(folder.path());
    let site = Site {
        sequence: 3,
        floor: 2,
    };
    assert_eq!(saved.site, site);
    saved.marks.sort_by_key(|(_, sequence)| *sequence);
    assert_eq!(saved.marks, [(news, 1), (purge, 3)]);
}

#[tokio::test]
async fn a_record_that_changed_is_a_miss_and_heals() {
    let folder = tempfile::tempdir().unwrap();
    let (durable, _) = open(folder.path());
    let made = Arc::new(page(1));
    let unreadable = || durable.metrics.store_unreadable.get();
    for kind in [b'm', b'b'] {
        durable.put(made.clone()).unwrap();
        durable.put(Arc::new(page(2))).unwrap();
        durable.committed().await.unwrap();
        assert_eq!(durable.list(&Window::new("", 9)).len(), 2);
        let before = unreadable();
        durable.database.tamper(kind, &made.key, |bytes| {
            bytes.truncate(bytes.len() / 2);
        });
        // The body record tells the page whole.
        let shown = told(durable.get(&made.key));
        let expected = if kind == b'm' {
            told(Some(made.clone()))
        } else {
            told(None)
        };
        assert_eq!(shown, expected);
        assert_eq!(unreadable(), before + u64::from(kind == b'b'));
        // A list does not look at bodies.
        let listed = durable.list(&Window::new("", 9));
        let readable = if kind == b'm' { 1 } else { 2 };
        assert_eq!(listed.len(), readable, "the other page is listed");
        assert!(unreadable() > before);
    }
    durable.put(Arc::new(page(1))).unwrap();
    durable.committed().await.unwrap();
    assert!(durable.get(&page(1).key).is_some());
}

#[tokio::test]
async fn a_page_that_another_route_made_meanwhile_is_not_removed() {
    let folder = tempfile::tempdir().unwrap();
    let (durable, _) = open(folder.path());
    let mut moved = page(1);
    moved.route = Arc::from("/posts/0001");
    durable.put(Arc::new(moved)).unwrap();
    durable.put(Arc::new(page(2))).unwrap();
    durable.committed().await.unwrap();
    // As somebody saw them before.
    let seen = [1, 2].map(|number| (page(number).key, Arc::from("/posts/[id]")));
    assert_eq!(durable.behind.remove_of(&seen), 2);
    for _ in 0..2 {
        assert!(durable.get(&page(1).key).is_some());
        assert!(durable.get(&page(2).key).is_none());
        assert_eq!(durable.list(&Window::new("", 9)).len(), 1);
        durable.synced().await.unwrap();
    }
    assert_eq!(durable.database.bodies(), 1);
}

#[tokio::test]
async fn a_page_that_was_deleted_is_removed_even_where_there_is_no_room_for_the_news() {
    let folder = tempfile::tempdir().unwrap();
    let (durable, _) = open(folder.path());
    durable.put(Arc::new(page(1))).unwrap();
    durable.put(Arc::new(page(2))).unwrap();
    durable.put(Arc::new(page(3))).unwrap();
    durable.synced().await.unwrap();
    let hung = durable.hang();
    durable.gave_up(&page(3).key);
    let missing = |path: &str| Arc::new(entry(path, 2, Content::NotFound));
    let full = (0..).find(|n| durable.put(missing(&format!("/{n}"))).is_err());
    assert!(full.is_some());
    assert!(durable.replace(missing("/posts/0001")).is_err());
    // Nobody knows whether there was one.
    assert!(durable.put(missing("/posts/0003")).is_err());
    assert!(durable.replace(Arc::new(page(2))).is_err());
    drop(hung);
    durable.synced().await.unwrap();
    drop(durable);
    let (durable, _) = open(folder.path());
    assert!(durable.get(&page(1).key).is_none());
    assert!(durable.get(&page(3).key).is_none());
    assert!(
        durable.get(&page(2).key).is_some(),
        "an older page, but one"
    );
}

#[tokio::test]
async fn what_cannot_be_read_is_an_incident() {
    let folder = tempfile::tempdir().unwrap();
    let (durable, _) = open(folder.path());
    let incidents = Arc::new(Incidents::default());
    durable.report_to(incidents.clone(), Clock::system());
    durable.put(Arc::new(page(1))).unwrap();
    durable.committed().await.unwrap();
    durable
        .database
        .tamper(b'b', &page(1).key, |bytes| bytes[0] ^= 4);
    for _ in 0..3 {
        assert!(durable.get(&page(1).key).is_none());
    }
    let [incident] = &incidents.latest(9)[..] else {
        panic!("{:?}", incidents.latest(9));
    };
    assert_eq!(incident.kind, "store");
    assert!(
        incident
            .message
            .contains("/posts/0001 on disk counts as missing")
    );
    assert!(
        incident.message.contains("not a record"),
        "{}",
        incident.message
    );
}

#[tokio::test]
async fn a_file_that_cannot_be_read_is_a_miss_and_heals() {
    let folder = tempfile::tempdir().unwrap();
    let (durable, _) = open(folder.path());
    let noise: String = std::iter::repeat_with(fastrand::alphanumeric)
        .take(20_000)
        .collect();
    let key = key("/posts/1");
    durable
        .put(Arc::new(document("/posts/1", 1, &noise)))
        .unwrap();
    durable.synced().await.unwrap();
    durable.database.flush_tables();
    drop(durable);
    let (durable, _) = open(folder.path());
    let all = files(&folder.path().join("pages"));
    let is_body = |file: &&PathBuf| {
        file.parent()
            .is_some_and(|parent| parent.ends_with("blobs"))
    };
    let bodies = all.iter().filter(is_body);
    let bodies: Vec<_> = bodies
        .map(|file| (file, std::fs::read(file).unwrap()))
        .collect();
    assert!(!bodies.is_empty());
    for (file, _) in &bodies {
        std::fs::write(file, "").unwrap();
    }
    assert!(durable.get(&key).is_none());
    assert_eq!(durable.metrics.store_unreadable.get(), 1);
    for (file, content) in bodies {
        std::fs::write(file, content).unwrap();
    }
    assert!(durable.get(&key).is_some());
}

/// The folder's layout: what an earlier wisr wrote is read for ever.
#[test]
fn keys_of_format_1_are_read() {
    let folder = tempfile::tempdir().unwrap();
    drop(open(folder.path()));
    let record = crate::store::codec::encode(&page(7));
    {
        let database = fjall::Database::builder(folder.path().join("pages"))
            .open()
            .unwrap();
        let options = fjall::KeyspaceCreateOptions::default;
        let keyspace = database.keyspace("pages", options).unwrap();
        let number = |number: u64| number.to_le_bytes();
        for (key, value) in [
            (&b"m/posts/0007"[..], &record.meta[..]),
            (b"b/posts/0007", &record.body.unwrap()),
            (b"s", &[number(9), number(2)].concat()),
            (b"p/a", &number(7)),
            (b"x/b?q=1", &number(8)),
            (b"tnews", &number(9)),
        ] {
            keyspace.insert(key, value).unwrap();
        }
        database.persist(fjall::PersistMode::SyncData).unwrap();
    }
    let (durable, saved) = open(folder.path());
    let found = durable.get(&key("/posts/0007"));
    assert_eq!(told(found), told(Some(Arc::new(page(7)))));
    let site = Site {
        sequence: 9,
        floor: 2,
    };
    assert_eq!(saved.site, site);
    let marks = [
        (Mark::Path(key("/a")), 7),
        (Mark::Purge(key("/b?q=1")), 8),
        (Mark::Tag(Tag::new("news").unwrap()), 9),
    ];
    assert_eq!(saved.marks, marks);
}

/// Wherever a disk flips a byte, the folder opens, with right pages only.
#[tokio::test]
async fn a_byte_flipped_in_any_file_is_never_a_wrong_page() {
    let original = tempfile::tempdir().unwrap();
    let (durable, _) = open(original.path());
    for number in 0..20 {
        durable.put(Arc::new(page(number))).unwrap();
    }
    durable.synced().await.unwrap();
    durable.database.flush_tables();
    for number in 20..30 {
        durable.put(Arc::new(page(number))).unwrap();
    }
    durable.synced().await.unwrap();
    drop(durable);
    let (mut opened, mut missed) = (0, 0);
    let mut whole = 0;
    for file in files(original.path()) {
        let file = file.strip_prefix(original.path()).unwrap();
        for part in 0..4 {
            let site = tempfile::tempdir().unwrap();
            let folder = site.path().join("store");
            copy(original.path(), &folder);
            let mut bytes = std::fs::read(folder.join(file)).unwrap();
            if bytes.is_empty() {
                continue;
            }
            let position = (bytes.len() - 1) * part / 3;
            bytes[position] ^= 0x10;
            std::fs::write(folder.join(file), bytes).unwrap();
            let (durable, _) = open(&folder);
            opened += 1;
            let before = missed;
            for number in 0..30 {
                let expected = page(number);
                match durable.get(&expected.key) {
                    Some(entry) => assert_eq!(format!("{entry:?}"), format!("{expected:?}")),
                    None => missed += 1,
                }
            }
            whole += usize::from(missed == before);
        }
    }
    assert!(missed > 0 && whole > 0, "{opened} {whole} {missed}");
}

#[tokio::test]
async fn a_journal_cut_short_costs_what_was_cut() {
    let folder = tempfile::tempdir().unwrap();
    let (durable, _) = open(folder.path());
    for number in 0..2 {
        durable.put(Arc::new(page(number))).unwrap();
        durable.synced().await.unwrap();
    }
    drop(durable);
    let is_journal = |file: &&PathBuf| file.extension().is_some_and(|end| end == "jnl");
    let all = files(folder.path());
    let journal = all.iter().find(is_journal).unwrap();
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(journal)
        .unwrap();
    let mut content = std::fs::read(journal).unwrap();
    while content.last() == Some(&0) {
        content.pop();
    }
    file.set_len(u64::try_from(content.len()).unwrap() - 10)
        .unwrap();
    let (durable, _) = open(folder.path());
    assert!(durable.get(&page(0).key).is_some());
    assert!(durable.get(&page(1).key).is_none());
    durable.put(Arc::new(page(1))).unwrap();
    durable.committed().await.unwrap();
    drop(durable);
    let (durable, _) = open(folder.path());
    assert!(durable.get(&page(1).key).is_some());
}

#[test]
fn a_folder_in_use_is_refused_and_free_when_its_user_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let first = open(folder.path());
    let Err(refused) = try_open(folder.path()) else {
        panic!("opened twice");
    };
    let message = refused.to_string();
    let by_whom = format!("is in use by process {}: stop it", std::process::id());
    assert!(message.contains(&by_whom), "{message}");
    assert!(message.contains(&*folder.path().to_string_lossy()));
    drop(first);
    open(folder.path());
}

/// What makes a store one that cannot be opened; each is told, and what there was is kept.
#[tokio::test]
async fn what_cannot_be_opened_is_set_aside_with_a_word() {
    type Damage = fn(&Path);
    let damages: [(Damage, &str); 8] = [
        (
            |store| put(store, "format", b"wisr-store 2\n"),
            "a later wisr wrote it",
        ),
        (
            |store| put(store, "format", b"hello"),
            "does not say which format",
        ),
        (|store| put(store, "format", b"\xff\xfe"), "is not text"),
        (
            |store| put(store, "format", b""),
            "does not say which format",
        ),
        (
            |store| std::fs::remove_file(store.join("format")).unwrap(),
            "is missing",
        ),
        (
            |store| put(store, "pages/version", b"rubbish"),
            "another version",
        ),
        (
            |store| std::fs::remove_file(store.join("pages/version")).unwrap(),
            "`version` is missing",
        ),
        (
            |store| std::fs::remove_file(store.join("pages/0.jnl")).unwrap(),
            "a journal",
        ),
    ];
    for (damage, word) in damages {
        let site = tempfile::tempdir().unwrap();
        let store = site.path().join("store");
        let (durable, _) = open(&store);
        durable.put(Arc::new(page(1))).unwrap();
        durable.synced().await.unwrap();
        assert_eq!(durable.health(), StoreHealth::Ok);
        drop(durable);
        damage(&store);
        let (durable, saved) = open(&store);
        let StoreHealth::Degraded(told) = durable.health() else {
            panic!("{word}");
        };
        assert_eq!(told.as_str(), "set-aside");
        assert!(told.to_string().contains(word), "{told}");
        assert!(saved.site.floor > 0, "{saved:?}");
        assert_eq!(durable.metrics.store_set_aside.get(), 1);
        let incidents = Arc::new(Incidents::default());
        durable.report_to(incidents.clone(), Clock::system());
        let [incident] = &incidents.latest(9)[..] else {
            panic!("{:?}", incidents.latest(9));
        };
        assert!(incident.message.contains("store.damaged"), "{incident:?}");
        assert!(site.path().join("store.damaged/pages").exists());
        durable.put(Arc::new(page(2))).unwrap();
        durable.synced().await.unwrap();
        drop(durable);
        let (durable, _) = open(&store);
        assert_eq!(durable.health(), StoreHealth::Ok);
        assert!(durable.get(&page(2).key).is_some());
    }
}

/// A database that a changed byte keeps from writing says so, and is set aside at the next start.
#[tokio::test]
async fn bytes_that_changed_under_a_running_server_are_told() {
    let site = tempfile::tempdir().unwrap();
    let store = site.path().join("store");
    let (durable, _) = open(&store);
    for number in 0..20 {
        durable.put(Arc::new(page(number))).unwrap();
    }
    durable.synced().await.unwrap();
    durable.database.flush_tables();
    drop(durable);
    let (durable, _) = open(&store);
    for table in files(&store.join("pages/keyspaces/1/tables")) {
        let mut bytes = std::fs::read(&table).unwrap();
        bytes[100] ^= 1;
        std::fs::write(&table, bytes).unwrap();
    }
    // Once may be a disk that was full for a moment.
    durable.database.reopen().unwrap();
    let damaged = durable.database.reopen();
    assert!(matches!(damaged, Err(DiskError::Damaged)), "{damaged:?}");
    drop(durable);
    let (durable, _) = open(&store);
    let StoreHealth::Degraded(told) = durable.health() else {
        panic!("it is well");
    };
    assert!(told.to_string().contains("changed bytes of it"), "{told}");
}

fn put(store: &Path, name: &str, bytes: &[u8]) {
    std::fs::write(store.join(name), bytes).unwrap();
}

/// Killed while it is being made, a store is made again; and a limit that is no damage sets nothing
/// aside.
#[test]
fn nothing_but_damage_sets_a_store_aside() {
    let site = tempfile::tempdir().unwrap();
    let store = site.path().join("store");
    std::fs::create_dir_all(store.join("pages.new/keyspaces/0")).unwrap();
    put(&store, "format", b"");
    put(&store, "pages.new/0.jnl", b"");
    drop(open(&store));
    let elsewhere = std::fs::File::open(store.join("pages/lock")).unwrap();
    elsewhere.lock().unwrap();
    assert!(matches!(try_open(&store), Err(OpenError::InUse { .. })));
    drop(elsewhere);
    drop(open(&store));
    assert!(!site.path().join("store.damaged").exists());
}

#[test]
fn a_folder_that_cannot_be_written_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let under_a_file = try_open(&file.join("store"));
    assert!(matches!(under_a_file, Err(OpenError::Io { .. })));
    let read_only = folder.path().join("read-only");
    std::fs::create_dir(&read_only).unwrap();
    let mut rights = std::fs::metadata(&read_only).unwrap().permissions();
    rights.set_readonly(true);
    std::fs::set_permissions(&read_only, rights).unwrap();
    // The rights do not bind root.
    if std::fs::write(read_only.join("probe"), "").is_err() {
        let refused = try_open(&read_only);
        assert!(matches!(refused, Err(OpenError::Io { .. })));
    }
}

#[tokio::test]
async fn the_database_is_opened_again_under_its_readers() {
    let folder = tempfile::tempdir().unwrap();
    let (durable, _) = open(folder.path());
    durable.put(Arc::new(page(1))).unwrap();
    durable.committed().await.unwrap();
    durable.database.reopen().unwrap();
    assert!(durable.get(&page(1).key).is_some());
    durable.put(Arc::new(page(2))).unwrap();
    durable.synced().await.unwrap();
    assert!(durable.get(&page(2).key).is_some());
}

#[tokio::test]
async fn the_oldest_pages_make_room_within_the_quota() {
    let folder = tempfile::tempdir().unwrap();
    let metrics = Arc::new(Metrics::new());
    let disk = 200_000;
    let (durable, _) = Durable::open(folder.path(), 1 << 20, within(disk), metrics).unwrap();
    for number in 0..1_000 {
        durable.put(Arc::new(page(number))).unwrap();
        durable.committed().await.unwrap();
    }
    let mut total = 0;
    let mut oldest = u64::MAX;
    let count = durable.database.survey().rest(|brief, size| {
        total += size;
        oldest = oldest.min(brief.stamp.generated.as_millis());
        ControlFlow::Continue(())
    });
    count.unwrap();
    assert!(total < disk * 7 / 10, "{total}");
    assert!(total > disk * 4 / 10, "{total}");
    let kept = durable.list(&Window::new("", 1_000));
    assert_eq!(kept.len(), 1_000 - usize::try_from(oldest).unwrap());
    let evicted = durable.metrics.store_evictions.get();
    assert_eq!(evicted, oldest);
}

#[tokio::test]
async fn notes_come_back_and_a_broken_one_costs_itself_only() {
    let folder = tempfile::tempdir().unwrap();
    let (durable, _) = open(folder.path());
    for slot in [300, 2, 1] {
        durable.note(Note::Incident(slot), Some(&format!("incident {slot}")));
    }
    for path in ["/a", "/b", "/c"] {
        durable.note(Note::Backoff(key(path)), Some(&path));
    }
    durable.put(Arc::new(page(1))).unwrap();
    durable.note(Note::Incident(2), Some(&"a later one"));
    durable.note(Note::Backoff(key("/a")), None::<&()>);
    let long = key(&"x".repeat(MAX_KEY + 1));
    durable.note(Note::Backoff(long), Some(&"x"));
    durable.committed().await.unwrap();
    durable.note(Note::Backoff(key("/b")), None::<&()>);
    durable.committed().await.unwrap();
    drop(durable);
    let metrics = Arc::new(Metrics::new());
    let (durable, _) =
        Durable::open(folder.path(), 1 << 20, Space::default(), metrics.clone()).unwrap();
    let incidents = durable.notes::<String>(Notes::Incidents);
    assert_eq!(incidents, ["incident 1", "a later one", "incident 300"]);
    assert_eq!(durable.notes::<String>(Notes::Backoffs), ["/c"]);
    assert_eq!(durable.list(&Window::new("", 9)).len(), 1);
    assert_eq!(metrics.store_unreadable.get(), 0);
    durable
        .database
        .tamper(b'f', &key("/c"), |record| record[2] ^= 1);
    assert!(durable.notes::<String>(Notes::Backoffs).is_empty());
    assert_eq!(metrics.store_unreadable.get(), 1);
    assert_eq!(durable.notes::<String>(Notes::Incidents).len(), 3);
}

#[tokio::test]
async fn pages_that_no_route_shows_make_room_before_older_ones() {
    let folder = tempfile::tempdir().unwrap();
    let metrics = Arc::new(Metrics::new());
    let (durable, _) = Durable::open(folder.path(), 1 << 20, within(200_000), metrics).unwrap();
    durable
        .worth()
        .serve_routes([Arc::from("/posts/[id]")].into());
    for number in 0..400 {
        let mut made = page(number);
        if number >= 100 {
            made.route = Arc::from("/gone");
        }
        durable.put(Arc::new(made)).unwrap();
        durable.committed().await.unwrap();
    }
    assert!(durable.metrics.store_evictions.get() > 0);
    let kept = durable.list(&Window::new("", 1_000));
    assert!(kept.len() < 400);
    let routed = kept.iter().filter(|entry| &*entry.route == "/posts/[id]");
    assert_eq!(routed.count(), 100);
}
