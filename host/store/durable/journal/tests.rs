//! Whichever byte changes, and wherever a journal ends.

use std::collections::BTreeMap;

use xxhash_rust::xxh3::xxh3_64;

use super::repair::write_item;
use super::*;
use crate::store::conformance::{document, entry};
use crate::store::durable::keys::{BODY, INCIDENT, META, SITE, text_key};
use crate::store::{codec, notes};

/// The items of one batch.
fn sealed(number: u64, items: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
    let mut kept = Vec::new();
    for (key, value) in items {
        write_item(&mut kept, key, value);
    }
    let count = u32::try_from(items.len()).unwrap().to_le_bytes();
    let (number, sum) = (number.to_le_bytes(), xxh3_64(&kept).to_le_bytes());
    [&[START][..], &count, &number, &kept, &[END], &sum, &MAGIC].concat()
}

fn page(path: &str, content: Option<&str>) -> [(Vec<u8>, Vec<u8>); 2] {
    let record = match content {
        Some("") => codec::encode(&entry(path, 2, crate::page::Content::NotFound)),
        Some(text) => codec::encode(&document(path, 1, text)),
        None => codec::Record {
            meta: Vec::new(),
            body: None,
        },
    };
    let body = record.body.unwrap_or_default();
    [
        (text_key(META, path), record.meta),
        (text_key(BODY, path), body),
    ]
}

/// Pages made, replaced, deleted; an invalidation; a note. A guest has put what ends a batch,
/// and a page of another's, into its page.
fn journal() -> Vec<u8> {
    let planted = String::from_utf8_lossy(&sealed(7, &page("/a", Some("evil")))).into_owned();
    let planted = format!("{planted}FJL\u{3}\u{1}\u{1}\0\0\0");
    let note = notes::encode(&"note").unwrap().to_vec();
    [
        sealed(
            4,
            &[page("/a", Some("one")), page("/gone", Some("old"))].concat(),
        ),
        sealed(5, &page("/guest", Some(&planted))),
        sealed(
            6,
            &[page("/moved", Some("old")), page("/b", Some("two"))].concat(),
        ),
        sealed(
            7,
            &[
                (SITE.to_vec(), vec![1; 16]),
                (b"tnews".to_vec(), vec![1; 8]),
            ],
        ),
        sealed(9, &[page("/gone", None), page("/moved", Some(""))].concat()),
        sealed(10, &[(vec![INCIDENT, 0, 0, 0, 1], note)]),
        sealed(11, &page("/c", Some("three"))),
    ]
    .concat()
}

type State = BTreeMap<Vec<u8>, Vec<u8>>;

/// What a database has after it has read a journal; none where it refuses.
fn read(mut journal: &[u8]) -> Option<State> {
    let (mut state, mut number) = (State::new(), None);
    while !journal.is_empty() {
        let whole = journal;
        if !batch(&mut journal, &mut number).ok()? {
            return None;
        }
        let mut rest = &whole[START_BYTES..whole.len() - journal.len() - END_BYTES];
        while !rest.is_empty() {
            let key = ITEM_BYTES + usize::from(u16_at(rest, 11));
            let end = key + length(u32_at(rest, 13));
            state.remove(&rest[ITEM_BYTES..key]);
            if end > key {
                state.insert(rest[ITEM_BYTES..key].to_vec(), rest[key..end].to_vec());
            }
            rest = &rest[end..];
        }
    }
    Some(state)
}

fn mended(bytes: &[u8]) -> Result<(Vec<u8>, Mended), usize> {
    let mut mended = Mended::default();
    let mut repair = Repair::new(bytes, &mut mended);
    repair.run()?;
    Ok((repair.out, mended))
}

/// Whichever byte changes, at most one page is lost, none is another, and what was deleted
/// stays so; where an invalidation may be lost, it is told.
#[test]
fn a_changed_byte_costs_one_page() {
    let journal = journal();
    let whole = read(&journal).unwrap();
    let names = |state: &State| -> BTreeSet<Vec<u8>> {
        let keys = state.keys().filter(|key| [META, BODY].contains(&key[0]));
        keys.map(|key| key[1..].to_vec()).collect()
    };
    assert_eq!(names(&whole).len(), 5);
    let (mut lost, mut unsure) = (0, 0);
    for place in 0..journal.len() {
        let mut changed = journal.clone();
        changed[place] ^= 1 << (place % 8);
        let (out, mended) = mended(&changed).unwrap_or_else(|at| panic!("{place}: {at}"));
        let state = read(&out).expect("what was mended is whole");
        for (key, value) in &state {
            assert_eq!(whole.get(key), Some(value), "{place}: {key:?}");
        }
        let missing = names(&whole).difference(&names(&state)).count();
        assert!(missing <= 1, "{place}: {missing} lost");
        let mut invalidations = whole.keys().filter(|key| b"st".contains(&key[0]));
        let are_kept = invalidations.all(|key| state.contains_key(key));
        assert!(are_kept || mended.unsure, "{place}");
        lost += missing;
        unsure += usize::from(mended.unsure);
    }
    assert!(lost > 0 && unsure > 0, "{lost} {unsure}");
}

/// A process that ended in the midst of a batch loses that batch; nothing else is touched.
#[test]
fn a_journal_that_ends_early_is_cut_where_it_does() {
    let journal = journal();
    let folder = tempfile::tempdir().unwrap();
    let (file, distrust) = (folder.path().join("1.jnl"), folder.path().join("distrust"));
    for end in 0..=journal.len() {
        for room in [0, 100] {
            let mut torn = journal[..end].to_vec();
            torn.resize(end + room, 0);
            let (mut left, cost) = mended(&torn).unwrap_or_else(|at| panic!("{end} {room}: {at}"));
            assert_eq!(cost, Mended::default(), "{end} {room}");
            // Each is written to the disk, and that takes its time.
            if end % 97 == 0 {
                std::fs::write(&file, &torn).unwrap();
                assert_eq!(mend(folder.path(), &distrust).unwrap(), Mended::default());
                left = std::fs::read(&file).unwrap();
            }
            let written = left.iter().rposition(|byte| *byte != 0);
            let left = &left[..written.map_or(0, |last| last + 1)];
            assert!(journal.starts_with(left), "{end} {room}");
        }
    }
}

#[test]
fn what_cannot_be_told_apart_is_refused() {
    let mut journal = journal();
    journal[20..1_000].fill(0xa5);
    assert_eq!(mended(&journal).err(), Some(0));
}
