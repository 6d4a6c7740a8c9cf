//! `Record`: an entry as the bytes that outlive the process.
//!
//! A small meta record says everything but the bodies; a body record holds these. Both begin with
//! a magic number and a version; the meta record ends with its own checksum and names that of the
//! body record, so that a flipped bit anywhere is an error and never a wrong page. Times are
//! absolute: age survives a restart.
//!
//! Coded bodies are kept as they are sent, so that a restart compresses nothing. The identity is
//! left out where a zstd variant exists, and decoded from that for the first reader who takes no
//! coding: on pages this saves more than half of the bytes.
//!
//! Not kept: the list of outgoing requests of a generation; its other costs are.

mod content;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;
use xxhash_rust::xxh3::xxh3_128;

use crate::page::{
    Content, Cost, Digest, Entry, PageKey, Revalidate, Stamp, Tag, Timestamp, Variant,
};
use wire::{Decoder, Encoder};

/// What a record begins with.
const META: [u8; 4] = *b"WISm";
const BODY: [u8; 4] = *b"WISb";

/// The version of both records. Readers of a later one keep reading this one.
const VERSION: u8 = 2;

/// The first version, whose checksums are halves of BLAKE3 hashes: ten times the work, and as good
/// against accidents.
const FIRST: u8 = 1;

/// Bytes of a checksum: XXH3 of 128 bits. It finds accidents; who can write here need not forge.
const CHECKSUM: usize = 16;

/// An entry in bytes.
#[derive(Debug)]
pub(super) struct Record {
    /// Everything but the bodies.
    pub(super) meta: Vec<u8>,
    /// The bodies; none for what has none.
    pub(super) body: Option<Vec<u8>>,
}

/// The part of a meta record that says what its entry is, read but not checked: enough to choose
/// among a million, not to show one.
#[derive(Debug)]
pub(super) struct Sketch<'a> {
    /// The page.
    pub(super) key: &'a str,
    /// Its route.
    pub(super) route: &'a str,
    pub(super) stamp: Stamp,
    /// The bytes of its body record.
    pub(super) body_size: usize,
    pub(super) is_document: bool,
}

/// A meta record, read and checked.
#[derive(Debug)]
pub(super) struct Meta {
    /// The page.
    pub(super) key: PageKey,
    /// Its route.
    pub(super) route: Arc<str>,
    pub(super) stamp: Stamp,
    cost: Cost,
    outline: Outline,
}

/// A content without its bodies.
#[derive(Debug)]
enum Outline {
    Document(content::Document),
    NotFound,
    Redirect {
        location: HeaderValue,
        status: http::StatusCode,
    },
}

/// Why bytes are not a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum DecodeError {
    /// They begin otherwise.
    #[error("these bytes are not a record of wisr's")]
    Foreign,
    /// A later wisr wrote it.
    #[error("written by a later wisr (record version {0}, this one reads up to {VERSION})")]
    Newer(u8),
    /// They changed since they were written.
    #[error("the checksum does not match: the disk or the file system changed the bytes")]
    Checksum,
    /// They are checksummed and yet not a record: a bug of the wisr that wrote them.
    #[error("the record is malformed: {0}")]
    Malformed(&'static str),
    /// There is a meta record, but no body record for it.
    #[error("the record of its bodies is missing")]
    BodyMissing,
}

/// The record of `entry`.
pub(super) fn encode(entry: &Entry) -> Record {
    let body = match &entry.content {
        Content::Document { body, data, .. } => Some(content::bodies(body, data)),
        Content::NotFound | Content::Redirect { .. } => None,
    };
    let mut out = Encoder::new(512);
    out.raw(&META);
    out.u8(VERSION);
    out.bytes(entry.key.as_str().as_bytes());
    out.bytes(entry.route.as_bytes());
    encode_stamp(&mut out, &entry.stamp);
    encode_cost(&mut out, &entry.cost);
    out.length(body.as_ref().map_or(0, Vec::len));
    content::encode(&mut out, &entry.content, body.as_deref());
    let sum = checksum(VERSION, out.as_slice());
    out.raw(&sum);
    Record {
        meta: out.into_bytes(),
        body,
    }
}

/// Reads what a meta record says of its entry. Checks nothing that costs time.
///
/// # Errors
/// When it is no record.
pub(super) fn sketch(bytes: &[u8]) -> Result<Sketch<'_>, DecodeError> {
    let (_, payload) = open(bytes, META)?;
    let mut input = Decoder::new(payload);
    let (key, route) = (input.text()?, input.text()?);
    let stamp = decode_stamp(&mut input)?;
    decode_cost(&mut input)?;
    Ok(Sketch {
        key,
        route,
        stamp,
        body_size: input.length()?,
        is_document: content::is_document(&mut input)?,
    })
}

/// Reads a meta record.
///
/// # Errors
/// Whatever is wrong with it.
pub(super) fn decode_meta(bytes: &[u8]) -> Result<Meta, DecodeError> {
    let (version, payload) = open(bytes, META)?;
    let Some((payload, sum)) = payload.split_last_chunk::<CHECKSUM>() else {
        return Err(DecodeError::Checksum);
    };
    if checksum(version, &bytes[..bytes.len() - CHECKSUM]) != *sum {
        return Err(DecodeError::Checksum);
    }
    let mut input = Decoder::new(payload);
    let key = PageKey::new(input.text()?, &[]);
    let route = Arc::from(input.text()?);
    let stamp = decode_stamp(&mut input)?;
    let cost = decode_cost(&mut input)?;
    // The size of the bodies: the record that holds them knows it too.
    input.length()?;
    let outline = content::decode(&mut input)?;
    input.end()?;
    Ok(Meta {
        key,
        route,
        stamp,
        cost,
        outline,
    })
}

impl Meta {
    /// Whether there is a body record to be read.
    pub(super) fn has_body(&self) -> bool {
        matches!(self.outline, Outline::Document(_))
    }

    /// An entry from a number that this site has not reached was made by a store that has been
    /// replaced since: it counts as made before every invalidation.
    pub(super) fn distrust_after(&mut self, sequence: u64) {
        if self.stamp.sequence > sequence {
            self.stamp.sequence = 0;
        }
    }

    /// The entry, from this record and that of its bodies, which it shares.
    ///
    /// # Errors
    /// When the bodies are missing or changed.
    pub(super) fn into_entry(self, body: Option<&Bytes>) -> Result<Entry, DecodeError> {
        let content = match self.outline {
            Outline::Document(document) => {
                document.with_bodies(body.ok_or(DecodeError::BodyMissing)?)?
            }
            Outline::NotFound => Content::NotFound,
            Outline::Redirect { location, status } => Content::Redirect { location, status },
        };
        Ok(Entry {
            key: self.key,
            route: self.route,
            stamp: self.stamp,
            content,
            cost: self.cost,
        })
    }
}

/// The version, and what follows it and the magic number.
fn open(bytes: &[u8], magic: [u8; 4]) -> Result<(u8, &[u8]), DecodeError> {
    match bytes.split_first_chunk::<4>() {
        Some((found, [version, payload @ ..])) if *found == magic => match *version {
            FIRST..=VERSION => Ok((*version, payload)),
            newer if newer > VERSION => Err(DecodeError::Newer(newer)),
            _ => Err(DecodeError::Foreign),
        },
        _ => Err(DecodeError::Foreign),
    }
}

fn checksum(version: u8, bytes: &[u8]) -> [u8; CHECKSUM] {
    if version > FIRST {
        return xxh3_128(bytes).to_le_bytes();
    }
    let hash = blake3::hash(bytes);
    *hash
        .as_bytes()
        .first_chunk()
        .expect("a BLAKE3 hash is longer than half of one")
}

fn encode_stamp(out: &mut Encoder, stamp: &Stamp) {
    out.u64(stamp.generated.as_millis());
    match stamp.revalidate {
        Revalidate::Never => out.u8(0),
        Revalidate::After(seconds) => {
            out.u8(1);
            out.u32(seconds);
        }
    }
    match stamp.fresh_until {
        None => out.u8(0),
        Some(until) => {
            out.u8(1);
            out.u64(until.as_millis());
        }
    }
    out.raw(stamp.module.as_bytes());
    out.u64(stamp.sequence);
    out.length(stamp.tags.len());
    for tag in &stamp.tags {
        out.bytes(tag.as_str().as_bytes());
    }
}

fn decode_stamp(input: &mut Decoder<'_>) -> Result<Stamp, DecodeError> {
    let generated = Timestamp::from_millis(input.u64()?);
    let revalidate = match input.u8()? {
        0 => Revalidate::Never,
        1 => Revalidate::After(input.u32()?),
        _ => return Err(DecodeError::Malformed("revalidate")),
    };
    let fresh_until = match input.u8()? {
        0 => None,
        1 => Some(Timestamp::from_millis(input.u64()?)),
        _ => return Err(DecodeError::Malformed("fresh-until")),
    };
    let module = Digest::from(input.array::<32>()?);
    let sequence = input.u64()?;
    let mut tags = Vec::new();
    for _ in 0..input.length()? {
        let tag = Tag::new(input.text()?).map_err(|_| DecodeError::Malformed("tag"))?;
        tags.push(tag);
    }
    Ok(Stamp {
        generated,
        revalidate,
        fresh_until,
        module,
        sequence,
        tags: tags.into(),
    })
}

fn encode_cost(out: &mut Encoder, cost: &Cost) {
    for span in [
        cost.cpu,
        cost.wall,
        cost.instantiate,
        cost.static_props,
        cost.render,
        cost.encode,
    ] {
        out.u64(u64::try_from(span.as_micros()).unwrap_or(u64::MAX));
    }
    out.u64(cost.memory);
}

fn decode_cost(input: &mut Decoder<'_>) -> Result<Cost, DecodeError> {
    let mut span = || input.u64().map(Duration::from_micros);
    Ok(Cost {
        cpu: span()?,
        wall: span()?,
        instantiate: span()?,
        static_props: span()?,
        render: span()?,
        encode: span()?,
        memory: input.u64()?,
        fetches: Vec::new(),
    })
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;
