//! Records that a disk, or a wisr with a bug, has changed.

use proptest::prelude::*;
use proptest::sample::select;

use super::tests::{decode, entries};
use super::*;
use crate::fuzz;

/// A changed record is the page that it was, or no page at all.
#[test]
fn no_changed_record_is_another_page() {
    let whole: Vec<(Record, String)> = entries()
        .iter()
        .map(|entry| (encode(entry), format!("{entry:?}")))
        .collect();
    let metas = whole
        .iter()
        .map(|(record, _)| record.meta.clone())
        .collect();
    let bodies = whole
        .iter()
        .filter_map(|(record, _)| record.body.clone())
        .collect();
    let words: &[&[u8]] = &[&META, &BODY, &[VERSION], &[0; 4], &[255; 4]];
    // The bodies of any page: files may be swapped as well as changed.
    let inputs = (
        fuzz::bytes(metas, words),
        prop::option::of(fuzz::bytes(bodies, words)),
    );
    fuzz::run("record", &inputs, |(meta, body)| {
        if let Ok(entry) = decode(&meta, body.as_deref()) {
            let told = format!("{entry:?}");
            prop_assert!(
                whole
                    .iter()
                    .any(|(record, own)| *own == told && record.meta == meta)
            );
        }
        Ok(())
    });
}

/// Under right checksums anything may stand in a record. What can be read at all can be written
/// and read again.
#[test]
fn what_can_be_read_can_be_written() {
    let records: Vec<Record> = entries().iter().map(encode).collect();
    let contents = |record: &Record| record.meta[5..record.meta.len() - CHECKSUM].to_vec();
    let words: &[&[u8]] = &[
        &[0; 4],
        &[255; 4],
        &[1, 0, 0, 0],
        &[0xc8, 0],
        b"a",
        &[3],
        &[2],
    ];
    let inputs = (
        fuzz::bytes(records.iter().map(contents).collect(), words),
        select(
            records
                .iter()
                .map(|record| record.body.clone())
                .collect::<Vec<_>>(),
        ),
    );
    fuzz::run("sealed record", &inputs, |(content, body)| {
        let mut meta = [&META[..], &[VERSION], &content].concat();
        meta.extend(checksum(VERSION, &meta));
        if let Ok(entry) = decode(&meta, body.as_deref()) {
            let record = encode(&entry);
            let again = decode(&record.meta, record.body.as_deref());
            prop_assert_eq!(
                again.map(|again| format!("{again:?}")),
                Ok(format!("{entry:?}"))
            );
        }
        Ok(())
    });
}
