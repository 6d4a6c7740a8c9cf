//! Whichever byte of it changes.

use super::super::tests::{files, open, page, try_open};
use super::*;
use crate::page::Entry;
use crate::store::conformance::{document, told};
use crate::store::durable::{Durable, OpenError};
use crate::store::{Store, Window};

/// A closed store with tables, body files and a journal; page 0 was deleted when it was in a table.
async fn store(folder: &Path) {
    let (durable, _) = open(folder);
    for number in 0..20 {
        durable.put(page(number).into()).unwrap();
    }
    durable.synced().await.unwrap();
    durable.database.flush_tables();
    durable.forget(&page(0).key);
    for number in 20..30 {
        durable.put(large(number).into()).unwrap();
    }
    durable.synced().await.unwrap();
    durable.database.flush_tables();
}

/// A page with a body of its own.
fn large(number: u64) -> Entry {
    let mut random = fastrand::Rng::with_seed(number);
    let text: String = std::iter::repeat_with(|| random.alphanumeric())
        .take(3_000)
        .collect();
    document(page(number).key.as_str(), number, &text)
}

fn assert_whole(durable: &Durable) {
    assert!(durable.get(&page(0).key).is_none());
    for number in 1..30 {
        let expected = if number < 20 {
            page(number)
        } else {
            large(number)
        };
        assert_eq!(
            told(durable.get(&expected.key)),
            told(Some(expected.into()))
        );
    }
    assert_eq!(durable.list(&Window::new("", 99)).len(), 29);
}

/// The files of which not all is a record, and where what is not one begins.
fn parts(folder: &Path) -> Vec<(PathBuf, usize)> {
    let mut parts = Vec::new();
    for file in files(folder) {
        let name = within(&file, folder);
        let is_another = ["spare", "lock", "pages/lock"]
            .iter()
            .any(|other| name.starts_with(other))
            || file.extension().is_some_and(|end| end == "jnl");
        // A list that another has replaced.
        let is_former = list_number(&name).is_some() && !folder.join("spare").join(&name).exists();
        if !is_another && !is_former {
            let whole = sfa::Reader::new(&file);
            let records = whole
                .ok()
                .and_then(|whole| Some(whole.toc().section(b"data")?.len()));
            let from = if is_whole(&name) { 0 } else { records.unwrap() };
            parts.push((file, usize::try_from(from).unwrap()));
        }
    }
    parts
}

#[tokio::test]
async fn whichever_byte_changes_is_put_back() {
    let folder = tempfile::tempdir().unwrap();
    store(folder.path()).await;
    let spares = Spares::of(folder.path());
    assert!(spares.put_back().unwrap().is_empty());
    spares.keep().unwrap();
    let parts = parts(folder.path());
    for part in ["format", "version", "current", "v", "tables", "blobs"] {
        let is_it = |(file, _): &(PathBuf, usize)| file.to_string_lossy().contains(part);
        assert!(parts.iter().any(is_it), "{part} in {parts:?}");
    }
    let mut put_back = 0;
    for (file, from) in &parts {
        let whole = std::fs::read(file).unwrap();
        let step = (whole.len() - from).div_ceil(60);
        for place in (*from..whole.len()).step_by(step) {
            let mut changed = whole.clone();
            changed[place] ^= 1 << (place % 8);
            std::fs::write(file, &changed).unwrap();
            let names = spares.put_back();
            let bodies = spares.put_bodies_back().unwrap();
            let names = names.map(|names| [names, bodies].concat());
            let names = names.unwrap_or_else(|error| panic!("{}: {error}", file.display()));
            let is_back = std::fs::read(file).unwrap() == whole;
            // At the kind of the checksum nobody looks.
            let is_ignored = file.ends_with("current") && place == NAMING - 1;
            assert!(
                is_back && names.len() == 1 || is_ignored,
                "{place} of {}",
                file.display()
            );
            std::fs::write(file, &whole).unwrap();
            spares.keep().unwrap();
            put_back += names.len();
        }
    }
    assert!(put_back > 300, "{put_back}");
    assert_whole(&open(folder.path()).0);
}

#[tokio::test]
async fn a_store_whose_list_of_tables_changed_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    store(folder.path()).await;
    for (file, from) in parts(folder.path()) {
        let mut bytes = std::fs::read(&file).unwrap();
        bytes[from..].fill(0xa5);
        std::fs::write(file, bytes).unwrap();
    }
    let (durable, saved) = open(folder.path());
    assert_whole(&durable);
    assert_eq!(saved.site.floor, 0, "no invalidation is lost");
}

/// An older list would bring back what was deleted: where the latest is not known, none is taken.
#[tokio::test]
async fn an_older_list_is_never_put_into_force() {
    let folder = tempfile::tempdir().unwrap();
    store(folder.path()).await;
    let lists = folder.path().join("pages/keyspaces/1");
    let number = entries(&lists)
        .unwrap()
        .iter()
        .filter_map(|list| list_number(list))
        .max();
    let number = number.unwrap();
    let list = lists.join(format!("v{number}"));
    let mut bytes = std::fs::read(&list).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&list, bytes).unwrap();
    // Begun since the copy was made.
    std::fs::write(lists.join(format!("v{}", number + 1)), "").unwrap();
    let refused = try_open(folder.path()).map(drop);
    assert!(
        matches!(refused, Err(OpenError::Unreadable { .. })),
        "{refused:?}"
    );
    std::fs::remove_file(lists.join(format!("v{}", number + 1))).unwrap();
    Spares::of(folder.path()).forget().unwrap();
    let refused = try_open(folder.path()).map(drop);
    assert!(
        matches!(refused, Err(OpenError::Unreadable { .. })),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_copy_that_changed_or_is_of_another_file_is_not_put_back() {
    let folder = tempfile::tempdir().unwrap();
    store(folder.path()).await;
    let spares = Spares::of(folder.path());
    for copy in files(&spares.place()) {
        let mut bytes = std::fs::read(&copy).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(copy, bytes).unwrap();
    }
    assert!(spares.put_back().unwrap().is_empty());
    spares.keep().unwrap();
    let tables = folder.path().join("pages/keyspaces/1/tables");
    let [first, second, ..] = &files(&tables)[..] else {
        panic!("two tables");
    };
    let copy = |of: &Path| spares.place().join(within(of, folder.path()));
    std::fs::copy(copy(first), copy(second)).unwrap();
    assert!(spares.put_back().unwrap().is_empty());
    assert_whole(&open(folder.path()).0);
}

/// What version 1 of a copy looks like, for ever.
#[test]
fn a_copy_of_version_1_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("copy");
    let known = Known {
        size: 9,
        head: 0x0102_0304,
    };
    let bytes = b"part".to_vec();
    Part {
        known,
        from: 5,
        bytes,
    }
    .write(&copy)
    .unwrap();
    let golden = data_encoding::HEXLOWER.encode(&std::fs::read(&copy).unwrap());
    assert_eq!(
        golden,
        "5749537301090000000000000004030201000000000500000000000000706172743ed13c4f3391202cd9a4139cd3ea5a8d"
    );
    let part = Part::read(&copy).unwrap().unwrap();
    assert!(part.known == known && part.from == 5 && part.bytes == b"part");
}
