//! `Document`: the part of a record that describes bodies, and the bodies themselves.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::{BODY, CHECKSUM, DecodeError, Decoder, Encoder, Outline, VERSION, Variant, checksum};
use crate::page::{Coding, Content, Digest, Payload};

/// A document whose bodies are yet to be read.
#[derive(Debug)]
pub(super) struct Document {
    status: StatusCode,
    headers: HeaderMap,
    props: Digest,
    checksum: [u8; CHECKSUM],
    body: Vec<Sketch>,
    data: Vec<Sketch>,
}

/// A variant whose bytes are yet to be read.
#[derive(Debug)]
struct Sketch {
    coding: Coding,
    size: usize,
    etag: HeaderValue,
}

/// Kinds and codings as they are on disk: never renumber.
const DOCUMENT: u8 = 0;
const NOT_FOUND: u8 = 1;
const REDIRECT: u8 = 2;
const CODINGS: [Coding; 4] = [Coding::Identity, Coding::Gzip, Coding::Brotli, Coding::Zstd];

/// The body record: what is sent of the page, then of its props.
pub(super) fn bodies(body: &Payload, data: &Payload) -> Vec<u8> {
    let mut out = Encoder::new(body.weight() + data.weight());
    out.raw(&BODY);
    out.u8(VERSION);
    for payload in [body, data] {
        let derived = payload.get(Coding::Zstd).is_some();
        for variant in payload.variants() {
            if !(derived && variant.coding == Coding::Identity) {
                out.raw(&variant.body);
            }
        }
    }
    out.into_bytes()
}

pub(super) fn encode(out: &mut Encoder, content: &Content, bodies: Option<&[u8]>) {
    match content {
        Content::Document {
            status,
            headers,
            body,
            data,
            props,
        } => {
            out.u8(DOCUMENT);
            out.u16(status.as_u16());
            out.length(headers.len());
            for (name, value) in headers {
                out.bytes(name.as_str().as_bytes());
                out.bytes(value.as_bytes());
            }
            out.raw(props.as_bytes());
            out.raw(&checksum(bodies.unwrap_or_default()));
            for payload in [body, data] {
                encode_payload(out, payload);
            }
        }
        Content::NotFound => out.u8(NOT_FOUND),
        Content::Redirect { location, status } => {
            out.u8(REDIRECT);
            out.u16(status.as_u16());
            out.bytes(location.as_bytes());
        }
    }
}

fn encode_payload(out: &mut Encoder, payload: &Payload) {
    out.length(payload.variants().len());
    for variant in payload.variants() {
        out.u8(match variant.coding {
            Coding::Identity => 0,
            Coding::Gzip => 1,
            Coding::Brotli => 2,
            Coding::Zstd => 3,
        });
        out.length(variant.body.len());
        out.bytes(variant.etag.as_bytes());
    }
}

pub(super) fn decode(input: &mut Decoder<'_>) -> Result<Outline, DecodeError> {
    match input.u8()? {
        DOCUMENT => decode_document(input).map(Outline::Document),
        NOT_FOUND => Ok(Outline::NotFound),
        REDIRECT => Ok(Outline::Redirect {
            status: decode_status(input)?,
            location: decode_value(input)?,
        }),
        _ => Err(DecodeError::Malformed("kind")),
    }
}

/// Whether what follows is a document.
pub(super) fn is_document(input: &mut Decoder<'_>) -> Result<bool, DecodeError> {
    Ok(input.u8()? == DOCUMENT)
}

fn decode_document(input: &mut Decoder<'_>) -> Result<Document, DecodeError> {
    let status = decode_status(input)?;
    let mut headers = HeaderMap::new();
    for _ in 0..input.length()? {
        let name = HeaderName::from_bytes(input.bytes()?)
            .map_err(|_| DecodeError::Malformed("header name"))?;
        headers.append(name, decode_value(input)?);
    }
    Ok(Document {
        status,
        headers,
        props: Digest::from(input.array::<32>()?),
        checksum: input.array()?,
        body: decode_payload(input)?,
        data: decode_payload(input)?,
    })
}

fn decode_status(input: &mut Decoder<'_>) -> Result<StatusCode, DecodeError> {
    StatusCode::from_u16(input.u16()?).map_err(|_| DecodeError::Malformed("status"))
}

fn decode_value(input: &mut Decoder<'_>) -> Result<HeaderValue, DecodeError> {
    HeaderValue::from_bytes(input.bytes()?).map_err(|_| DecodeError::Malformed("header value"))
}

fn decode_payload(input: &mut Decoder<'_>) -> Result<Vec<Sketch>, DecodeError> {
    let mut sketches = Vec::new();
    for _ in 0..input.length()? {
        let coding = CODINGS
            .get(usize::from(input.u8()?))
            .ok_or(DecodeError::Malformed("coding"))?;
        sketches.push(Sketch {
            coding: *coding,
            size: input.length()?,
            etag: decode_value(input)?,
        });
    }
    Ok(sketches)
}

impl Document {
    /// The content, once `record` is known to hold the very bodies that belong to it.
    pub(super) fn with_bodies(self, record: &[u8]) -> Result<Content, DecodeError> {
        let bodies = super::open(record, BODY)?;
        if checksum(record) != self.checksum {
            return Err(DecodeError::Checksum);
        }
        let mut input = Decoder::new(bodies);
        let content = Content::Document {
            status: self.status,
            headers: self.headers,
            body: fill(self.body, &mut input)?,
            data: fill(self.data, &mut input)?,
            props: self.props,
        };
        input.end()?;
        Ok(content)
    }
}

/// Gives each variant its bytes.
fn fill(sketches: Vec<Sketch>, input: &mut Decoder<'_>) -> Result<Payload, DecodeError> {
    let derived = sketches.iter().any(|sketch| sketch.coding == Coding::Zstd);
    let mut variants = Vec::with_capacity(sketches.len());
    for Sketch { coding, size, etag } in sketches {
        let body = if derived && coding == Coding::Identity {
            Bytes::new()
        } else {
            Bytes::copy_from_slice(input.raw(size)?)
        };
        // Until the zstd variant is read, the identity's size waits in its place.
        variants.push((size, Variant::new(coding, etag, body)));
    }
    let zstd = variants
        .iter()
        .find(|(_, variant)| variant.coding == Coding::Zstd)
        .map(|(_, variant)| variant.body.clone());
    if let (Some(zstd), Some((size, identity))) = (zstd, variants.first_mut()) {
        identity.body = inflate(&zstd, *size)?;
    }
    let variants = variants.into_iter().map(|(_, variant)| variant).collect();
    Payload::from_variants(variants).ok_or(DecodeError::Malformed("variants"))
}

fn inflate(zstd: &[u8], size: usize) -> Result<Bytes, DecodeError> {
    let wrong = DecodeError::Malformed("zstd variant");
    // The frame says its size too (RFC 8878 section 3.1.1.1.4): no room is made for another.
    let frame = zstd::zstd_safe::get_frame_content_size(zstd);
    if frame.ok().flatten() != u64::try_from(size).ok() {
        return Err(wrong);
    }
    match zstd::bulk::decompress(zstd, size) {
        Ok(body) if body.len() == size => Ok(Bytes::from(body)),
        _ => Err(wrong),
    }
}
