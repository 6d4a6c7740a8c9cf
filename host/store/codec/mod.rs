//! `Record`: an entry as the bytes that outlive the process.
//!
//! A page with bodies is told whole by its body record, so that showing it takes one look-up. A
//! small meta record says what it is, for who looks through a million; of what has no bodies it
//! says everything. Both begin with a magic number and a version and end with a checksum, so that
//! a flipped bit anywhere is an error and never a wrong page. Times are absolute: age survives a
//! restart.
//!
//! In version 1 the body record held nothing but the bodies, and the meta record the rest; neither
//! said why the page was made.
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
    Cause, Content, Cost, Digest, Entry, PageKey, Revalidate, Stamp, Summary, Tag, Timestamp,
    Variant,
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

/// Bytes that records commonly have beside bodies.
const HEAD: usize = 1 << 10;

/// Bytes of a checksum: XXH3 of 128 bits. It finds accidents; who can write here need not forge.
const CHECKSUM: usize = 16;

/// An entry in bytes.
#[derive(Debug)]
pub(super) struct Record {
    /// What it is.
    pub(super) meta: Vec<u8>,
    /// All of it; none for what has no bodies.
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
    /// The bytes of its bodies.
    pub(super) body_size: usize,
    pub(super) is_document: bool,
}

/// A record, read and checked.
#[derive(Debug)]
pub(super) struct Meta {
    /// The page.
    pub(super) key: PageKey,
    /// Its route.
    pub(super) route: Arc<str>,
    pub(super) stamp: Stamp,
    cost: Cost,
    cause: Option<Cause>,
    outline: Outline,
}

/// What a record says of a content.
#[derive(Debug)]
enum Outline {
    /// A document whose bodies are in a record of version 1.
    Document(content::Document),
    /// A document, and its bodies.
    Whole(content::Document, Bytes),
    /// A document that another record tells.
    Elsewhere(Sizes),
    NotFound,
    Redirect {
        location: HeaderValue,
        status: http::StatusCode,
    },
}

/// How large a document is, in bytes.
#[derive(Debug, Clone, Copy)]
struct Sizes {
    /// As it was rendered.
    page: usize,
    /// The page and its props in all codings.
    all: usize,
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
    let bodies = content::size(&entry.content);
    let head = |magic: [u8; 4], capacity| {
        let mut out = Encoder::new(capacity);
        out.raw(&magic);
        out.u8(VERSION);
        out.bytes(entry.key.as_str().as_bytes());
        out.bytes(entry.route.as_bytes());
        encode_stamp(&mut out, &entry.stamp);
        encode_cost(&mut out, &entry.cost);
        out.u8(entry.cause.map_or(0, code));
        out.length(bodies);
        out
    };
    let mut meta = head(META, HEAD);
    let Content::Document { body, data, .. } = &entry.content else {
        content::encode(&mut meta, &entry.content);
        return Record {
            meta: sealed(meta),
            body: None,
        };
    };
    content::encode_kind(&mut meta, &entry.content);
    let Summary { size, bytes, .. } = entry.summary();
    meta.length(size);
    meta.length(bytes);
    let mut whole = head(BODY, HEAD + bodies);
    content::encode(&mut whole, &entry.content);
    content::bodies(&mut whole, [body, data]);
    Record {
        meta: sealed(meta),
        body: Some(sealed(whole)),
    }
}

fn sealed(mut record: Encoder) -> Vec<u8> {
    let sum = checksum(VERSION, record.as_slice());
    record.raw(&sum);
    record.into_bytes()
}

/// Reads what a meta record says of its entry. Checks nothing that costs time.
///
/// # Errors
/// When it is no record.
pub(super) fn sketch(bytes: &[u8]) -> Result<Sketch<'_>, DecodeError> {
    let (version, payload) = open(bytes, META)?;
    let mut input = Decoder::new(payload);
    let (key, route) = (input.text()?, input.text()?);
    let stamp = decode_stamp(&mut input)?;
    decode_cost(&mut input)?;
    decode_cause(&mut input, version)?;
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
    let (version, payload) = unseal(bytes, META)?;
    let mut input = Decoder::new(payload);
    let head = decode_head(&mut input, version)?;
    let outline = content::decode(&mut input, version)?;
    input.end()?;
    Ok(head.with(outline))
}

/// Reads a body record; none of version 1, which does not tell the page.
///
/// # Errors
/// Whatever is wrong with it.
pub(super) fn decode_whole(record: &Bytes) -> Result<Option<Meta>, DecodeError> {
    whole(record, unseal)
}

/// As [`decode_whole`], of bytes that whoever kept them has just held against a checksum of its own:
/// ours would find nothing, and take a tenth of the time of a hit.
///
/// # Errors
/// Whatever is wrong with it.
pub(super) fn decode_checked(record: &Bytes) -> Result<Option<Meta>, DecodeError> {
    whole(record, unwrap)
}

fn whole(
    record: &Bytes,
    unseal: impl FnOnce(&[u8], [u8; 4]) -> Result<(u8, &[u8]), DecodeError>,
) -> Result<Option<Meta>, DecodeError> {
    if open(record, BODY)?.0 == FIRST {
        return Ok(None);
    }
    let (version, payload) = unseal(record, BODY)?;
    let mut input = Decoder::sharing(record, payload);
    let head = decode_head(&mut input, version)?;
    let document = content::decode_whole(&mut input)?;
    let bodies = record.slice_ref(input.rest());
    Ok(Some(head.with(Outline::Whole(document, bodies))))
}

/// What both records begin with.
struct Head {
    key: PageKey,
    route: Arc<str>,
    stamp: Stamp,
    cost: Cost,
    cause: Option<Cause>,
}

fn decode_head(input: &mut Decoder<'_>, version: u8) -> Result<Head, DecodeError> {
    let head = Head {
        key: PageKey::new(input.text()?, &[]),
        route: Arc::from(input.text()?),
        stamp: decode_stamp(input)?,
        cost: decode_cost(input)?,
        cause: decode_cause(input, version)?,
    };
    // The size of the bodies: the record that holds them knows it too.
    input.length()?;
    Ok(head)
}

impl Head {
    fn with(self, outline: Outline) -> Meta {
        Meta {
            key: self.key,
            route: self.route,
            stamp: self.stamp,
            cost: self.cost,
            cause: self.cause,
            outline,
        }
    }
}

impl Meta {
    /// Whether there is a body record to be read.
    pub(super) fn has_body(&self) -> bool {
        matches!(self.outline, Outline::Document(_) | Outline::Elsewhere(_))
    }

    /// An entry from a number that this site has not reached was made by a store that has been
    /// replaced since: it counts as made before every invalidation.
    pub(super) fn distrust_after(&mut self, sequence: u64) {
        if self.stamp.sequence > sequence {
            self.stamp.sequence = 0;
        }
    }

    /// What lists tell of the entry.
    pub(super) fn summary(self) -> Summary {
        let (content, sizes) = match &self.outline {
            Outline::Document(document) | Outline::Whole(document, _) => {
                ("document", document.sizes())
            }
            Outline::Elsewhere(sizes) => ("document", *sizes),
            Outline::NotFound => (Content::NotFound.as_str(), Sizes { page: 0, all: 0 }),
            Outline::Redirect { .. } => ("redirect", Sizes { page: 0, all: 0 }),
        };
        Summary {
            key: self.key,
            route: self.route,
            stamp: self.stamp,
            content,
            cause: self.cause,
            cost: self.cost,
            size: sizes.page,
            bytes: sizes.all,
        }
    }

    /// The entry, from this record and its body record, whose bytes it shares.
    ///
    /// # Errors
    /// When the bodies are missing or changed.
    pub(super) fn into_entry(self, body: Option<&Bytes>) -> Result<Entry, DecodeError> {
        let content = match self.outline {
            Outline::Document(document) => {
                document.with_record(body.ok_or(DecodeError::BodyMissing)?)?
            }
            Outline::Whole(document, bodies) => document.with_bodies(&bodies)?,
            Outline::Elsewhere(_) => {
                let whole = decode_whole(body.ok_or(DecodeError::BodyMissing)?)?;
                let whole = whole.filter(|whole| whole.key == self.key);
                let mut entry = whole
                    .ok_or(DecodeError::Malformed("key"))?
                    .into_entry(None)?;
                entry.stamp = self.stamp;
                return Ok(entry);
            }
            Outline::NotFound => Content::NotFound,
            Outline::Redirect { location, status } => Content::Redirect { location, status },
        };
        Ok(Entry {
            key: self.key,
            route: self.route,
            stamp: self.stamp,
            content,
            cause: self.cause,
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

/// The version, and what lies between it and the checksum, which holds.
fn unseal(bytes: &[u8], magic: [u8; 4]) -> Result<(u8, &[u8]), DecodeError> {
    let (version, payload) = unwrap(bytes, magic)?;
    let (summed, sum) = bytes.split_at(bytes.len() - CHECKSUM);
    if checksum(version, summed) == sum {
        Ok((version, payload))
    } else {
        Err(DecodeError::Checksum)
    }
}

/// The version, and what lies between it and the checksum.
fn unwrap(bytes: &[u8], magic: [u8; 4]) -> Result<(u8, &[u8]), DecodeError> {
    let (version, payload) = open(bytes, magic)?;
    let (payload, _) = payload
        .split_last_chunk::<CHECKSUM>()
        .ok_or(DecodeError::Checksum)?;
    Ok((version, payload))
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
        ..Cost::default()
    })
}

/// Causes as they are on disk: never renumber. 0 is none.
const CAUSES: [Cause; 5] = [
    Cause::Build,
    Cause::FirstRequest,
    Cause::Stale,
    Cause::OnDemand,
    Cause::Draft,
];

fn code(cause: Cause) -> u8 {
    match cause {
        Cause::Build => 1,
        Cause::FirstRequest => 2,
        Cause::Stale => 3,
        Cause::OnDemand => 4,
        Cause::Draft => 5,
    }
}

fn decode_cause(input: &mut Decoder<'_>, version: u8) -> Result<Option<Cause>, DecodeError> {
    if version == FIRST {
        return Ok(None);
    }
    let Some(place) = usize::from(input.u8()?).checked_sub(1) else {
        return Ok(None);
    };
    let cause = CAUSES.get(place).ok_or(DecodeError::Malformed("cause"))?;
    Ok(Some(*cause))
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;
