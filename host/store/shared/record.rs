//! `Packed`: an entry as other hosts read it.
//!
//! Its times are by Redis's clock, and its number says only what all hosts know: whatever a host
//! has invalidated and not yet told concerns every page that it gets from others.

use bytes::Bytes;

use super::breaker::Links;
use crate::page::{Entry, Stamp, Timestamp};
use crate::store::codec::{self, DecodeError};
use crate::store::marks::{count, numbered};

/// What is stored of a page.
pub(super) struct Packed {
    /// Invalidations that all hosts knew before its generation began.
    pub(super) count: u64,
    /// When it was made.
    pub(super) made: Timestamp,
    /// Until when it is fresh; none while nothing invalidates it.
    pub(super) until: Option<Timestamp>,
    pub(super) meta: Vec<u8>,
    pub(super) body: Option<Vec<u8>>,
}

impl Packed {
    pub(super) fn new(entry: &Entry, links: &Links) -> Self {
        let stamp = moved(&entry.stamp, |at| links.there(at));
        let entry = Entry {
            key: entry.key.clone(),
            route: entry.route.clone(),
            stamp,
            content: entry.content.clone(),
            cause: entry.cause,
            cost: entry.cost.clone(),
        };
        let record = codec::encode(&entry);
        Self {
            count: count(entry.stamp.sequence),
            made: entry.stamp.generated,
            until: entry.stamp.fresh_until,
            meta: record.meta,
            body: record.body,
        }
    }
}

/// The entry in two records.
///
/// # Errors
/// When they are not what some host of this version wrote.
pub(super) fn unpack(
    meta: &[u8],
    body: Option<&Bytes>,
    links: &Links,
) -> Result<Entry, DecodeError> {
    let mut entry = codec::decode_meta(meta)?.into_entry(body)?;
    entry.stamp = moved(&entry.stamp, |at| links.here(at));
    Ok(entry)
}

fn moved(stamp: &Stamp, shift: impl Fn(Timestamp) -> Timestamp) -> Stamp {
    Stamp {
        generated: shift(stamp.generated),
        fresh_until: stamp.fresh_until.map(&shift),
        sequence: numbered(count(stamp.sequence)),
        ..stamp.clone()
    }
}
