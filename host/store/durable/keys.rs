//! The keys of records: a kind and a text, so that pages are listed in the order of their paths and
//! no two keys can collide.
//!
//! | key | value |
//! |---|---|
//! | `m` + page key | meta record |
//! | `b` + page key | body record, kept apart from the tree |
//! | `p`, `x`, `t` + page key, page key, tag | number of its last path mark, purge, tag mark |
//! | `r` + page key | number up to which it was replaced |
//! | `s` | sequence and floor of the site |
//! | `i` + number, `f` + page key, `h` | note of an incident, of a page in back-off, of the history |

use crate::page::{PageKey, Tag};
use crate::store::codec::DecodeError;
use crate::store::marks::Mark;
use crate::store::notes::Note;

pub(super) const META: u8 = b'm';
pub(super) const BODY: u8 = b'b';
pub(super) const PATH: u8 = b'p';
pub(super) const PURGE: u8 = b'x';
pub(super) const REPLACED: u8 = b'r';
pub(super) const TAG: u8 = b't';
pub(super) const SITE: [u8; 1] = *b"s";
pub(super) const INCIDENT: u8 = b'i';
pub(super) const BACKOFF: u8 = b'f';
pub(super) const HISTORY: u8 = b'h';

/// Bytes of a page key; the database's limit is 64 KiB.
pub(in crate::store) const MAX_KEY: usize = 60_000;

pub(super) fn text_key(kind: u8, text: &str) -> Vec<u8> {
    let mut key = Vec::with_capacity(1 + text.len());
    key.push(kind);
    key.extend_from_slice(text.as_bytes());
    key
}

pub(super) fn mark_key(mark: &Mark) -> Vec<u8> {
    match mark {
        Mark::Path(key) => text_key(PATH, key.as_str()),
        Mark::Purge(key) => text_key(PURGE, key.as_str()),
        Mark::Replaced(key) => text_key(REPLACED, key.as_str()),
        Mark::Tag(tag) => text_key(TAG, tag.as_str()),
    }
}

pub(super) fn note_key(note: &Note) -> Vec<u8> {
    match note {
        // Big-endian, so that they are listed in their order.
        Note::Incident(slot) => [&[INCIDENT][..], &(*slot as u64).to_be_bytes()].concat(),
        Note::Backoff(key) => text_key(BACKOFF, key.as_str()),
        Note::History => vec![HISTORY],
    }
}

pub(super) fn decode_mark(kind: u8, text: &[u8]) -> Result<Mark, DecodeError> {
    let wrong = DecodeError::Malformed("mark");
    let text = std::str::from_utf8(text).map_err(|_| wrong)?;
    Ok(match kind {
        PATH => Mark::Path(PageKey::new(text, &[])),
        PURGE => Mark::Purge(PageKey::new(text, &[])),
        REPLACED => Mark::Replaced(PageKey::new(text, &[])),
        _ => Mark::Tag(Tag::new(text).map_err(|_| wrong)?),
    })
}

#[cfg(test)]
mod fuzz {
    use proptest::prelude::*;

    use super::super::database::number;
    use super::*;
    use crate::fuzz;

    /// A key of the database is one mark, or none.
    #[test]
    fn a_mark_is_what_its_key_says() {
        let seeds = [
            mark_key(&Mark::Path(PageKey::new("/posts/1", &[]))),
            mark_key(&Mark::Purge(PageKey::new("/caf%C3%A9?q=1", &[]))),
            mark_key(&Mark::Replaced(PageKey::new("/a", &[]))),
            mark_key(&Mark::Tag(Tag::new("größe").unwrap())),
        ];
        let words: &[&[u8]] = &[b"p", b"x", b"t", b"\xff", b"\n", "é".as_bytes()];
        let inputs = (fuzz::bytes(seeds.to_vec(), words), any::<Vec<u8>>());
        fuzz::run("mark", &inputs, |(key, value)| {
            prop_assert_eq!(number(&value).is_ok(), value.len() == 8);
            let Some((kind @ (&PATH | &PURGE | &REPLACED | &TAG), text)) = key.split_first() else {
                return Ok(());
            };
            match decode_mark(*kind, text) {
                Ok(mark) => prop_assert_eq!(mark_key(&mark), key),
                Err(_) => prop_assert!(std::str::from_utf8(text).is_err() || *kind == TAG),
            }
            Ok(())
        });
    }
}
