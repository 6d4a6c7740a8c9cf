//! Old bytes are read, changed bytes are noticed, no bytes panic.

use http::StatusCode;
use proptest::prelude::*;

use super::*;
use crate::store::conformance::{document, entry};

pub(super) fn decode(meta: &[u8], body: Option<&[u8]>) -> Result<Entry, DecodeError> {
    let body = body.map(Bytes::copy_from_slice);
    decode_meta(meta)?.into_entry(body.as_ref())
}

/// One of each kind, made after the site's third invalidation.
pub(super) fn entries() -> Vec<Entry> {
    let location = HeaderValue::from_static("/new");
    let status = StatusCode::TEMPORARY_REDIRECT;
    let mut entries = vec![
        document("/posts/1", 1_700_000_000_000, "<p>short</p>"),
        document("/posts/2?q=%C3%A9", 1_700_000_000_001, &"long ".repeat(300)),
        entry("/posts/3", 1_700_000_000_002, Content::NotFound),
        entry(
            "/old",
            1_700_000_000_003,
            Content::Redirect { location, status },
        ),
    ];
    let causes = [
        None,
        Some(Cause::Build),
        Some(Cause::OnDemand),
        Some(Cause::Draft),
    ];
    for (entry, cause) in entries.iter_mut().zip(causes) {
        (entry.stamp.sequence, entry.cause) = (3, cause);
    }
    entries
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let pairs = digits.chunks(2);
    pairs
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

#[test]
fn an_entry_comes_back_as_it_was() {
    for entry in entries() {
        let record = encode(&entry);
        let decoded = decode(&record.meta, record.body.as_deref()).unwrap();
        assert_eq!(format!("{decoded:?}"), format!("{entry:?}"));
    }
}

#[test]
fn the_identity_is_left_out_where_zstd_says_it() {
    let entry = document("/posts/1", 0, &"<p>the same words again</p>".repeat(400));
    let record = encode(&entry);
    let Content::Document { body, .. } = &entry.content else {
        panic!("not a document");
    };
    assert!(record.body.unwrap().len() < body.identity().body.len());
}

/// Bytes that each version wrote. They must be readable for ever; add, never change.
#[test]
fn records_of_every_version_are_read() {
    let goldens = [include_str!("golden-1.hex"), include_str!("golden-2.hex")];
    for (golden, version) in goldens.iter().zip(FIRST..) {
        let mut records = golden.lines().map(unhex);
        for mut entry in entries() {
            entry.cause = entry.cause.filter(|_| version > FIRST);
            let meta = records.next().unwrap();
            assert_eq!(meta[4], version);
            let body = records.next().filter(|body| !body.is_empty());
            let decoded = decode(&meta, body.as_deref()).unwrap();
            assert_eq!(format!("{decoded:?}"), format!("{entry:?}"));
            let summary = decode_meta(&meta).unwrap().summary();
            assert_eq!(format!("{summary:?}"), format!("{:?}", entry.summary()));
        }
    }
}

#[test]
fn every_flipped_byte_and_every_cut_is_noticed() {
    for entry in entries() {
        let record = encode(&entry);
        let body = record.body.as_deref();
        for position in 0..record.meta.len() {
            let mut meta = record.meta.clone();
            meta[position] ^= 1 << (position % 8);
            assert!(decode(&meta, body).is_err(), "meta byte {position}");
            assert!(decode(&record.meta[..position], body).is_err());
        }
        for position in 0..body.map_or(0, <[u8]>::len) {
            let mut changed = body.unwrap().to_vec();
            changed[position] ^= 1 << (position % 8);
            assert!(decode(&record.meta, Some(&changed)).is_err());
            assert!(decode(&record.meta, Some(&body.unwrap()[..position])).is_err());
        }
        if body.is_some() {
            assert_eq!(
                decode(&record.meta, None).unwrap_err(),
                DecodeError::BodyMissing
            );
        }
    }
}

#[test]
fn what_a_later_wisr_wrote_is_called_by_its_name() {
    let record = encode(&entries()[0]);
    let (mut meta, mut body) = (record.meta, record.body.unwrap());
    body[4] = VERSION + 1;
    let newer = DecodeError::Newer(VERSION + 1);
    assert_eq!(decode(&meta, Some(&body)).unwrap_err(), newer);
    meta[4] = VERSION + 1;
    assert_eq!(decode(&meta, Some(&body)).unwrap_err(), newer);
    assert_eq!(decode(b"", None).unwrap_err(), DecodeError::Foreign);
    assert_eq!(
        decode(b"hello, world", None).unwrap_err(),
        DecodeError::Foreign
    );
}

proptest! {
    /// Even bytes that carry a right checksum, such as a buggy wisr may have written.
    #[test]
    fn no_bytes_panic(payload in proptest::collection::vec(any::<u8>(), 0..400)) {
        let mut bytes = [&META[..], &[VERSION], &payload].concat();
        let sum = checksum(VERSION, &bytes);
        bytes.extend(sum);
        let _ = decode(&bytes, Some(&bytes));
    }

    /// Nor records of which one byte says something else, under a right checksum.
    #[test]
    fn no_lie_panics(which in 0usize..4, position in any::<prop::sample::Index>(), value in any::<u8>()) {
        let record = encode(&entries()[which]);
        let mut meta = record.meta[..record.meta.len() - CHECKSUM].to_vec();
        let position = position.index(meta.len() - 5) + 5;
        meta[position] = value;
        let sum = checksum(VERSION, &meta);
        meta.extend(sum);
        let _ = decode(&meta, record.body.as_deref());
    }
}
