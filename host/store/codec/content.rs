//! `Document`: the part of a record that describes bodies, and the bodies themselves.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::{
    BODY, CHECKSUM, DecodeError, Decoder, Encoder, FIRST, Outline, Sizes, VERSION, Variant,
    checksum,
};
use crate::page::{Coding, Content, Digest, Payload};

/// A document whose bodies are yet to be read.
#[derive(Debug)]
pub(super) struct Document {
    status: StatusCode,
    headers: HeaderMap,
    props: Digest,
    /// That of the record of its bodies, in version 1.
    checksum: Option<[u8; CHECKSUM]>,
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

/// The bodies: what is sent of the page, then of its props.
pub(super) fn bodies(out: &mut Encoder, payloads: [&Payload; 2]) {
    for body in payloads.into_iter().flat_map(kept) {
        out.raw(body);
    }
}

/// The bytes of the bodies.
pub(super) fn size(content: &Content) -> usize {
    match content {
        Content::Document { body, data, .. } => [body, data]
            .into_iter()
            .flat_map(kept)
            .map(Bytes::len)
            .sum(),
        Content::NotFound | Content::Redirect { .. } => 0,
    }
}

fn kept(payload: &Payload) -> impl Iterator<Item = &Bytes> {
    let identity = (!payload.has(Coding::Zstd)).then(|| &payload.identity().body);
    let coded = payload.coded().iter().map(|variant| &variant.body);
    identity.into_iter().chain(coded)
}

pub(super) fn encode_kind(out: &mut Encoder, content: &Content) {
    out.u8(match content {
        Content::Document { .. } => DOCUMENT,
        Content::NotFound => NOT_FOUND,
        Content::Redirect { .. } => REDIRECT,
    });
}

pub(super) fn encode(out: &mut Encoder, content: &Content) {
    encode_kind(out, content);
    match content {
        Content::Document {
            status,
            headers,
            body,
            data,
            props,
        } => {
            out.u16(status.as_u16());
            out.length(headers.len());
            for (name, value) in headers {
                out.bytes(name.as_str().as_bytes());
                out.bytes(value.as_bytes());
            }
            out.raw(props.as_bytes());
            for payload in [body, data] {
                encode_payload(out, payload);
            }
        }
        Content::NotFound => {}
        Content::Redirect { location, status } => {
            out.u16(status.as_u16());
            out.bytes(location.as_bytes());
        }
    }
}

fn encode_payload(out: &mut Encoder, payload: &Payload) {
    out.length(1 + payload.coded().len());
    let (etag, size) = payload.outline();
    let identity = (Coding::Identity, etag, size);
    let coded = payload.coded().iter();
    let coded = coded.map(|variant| (variant.coding, &variant.etag, variant.body.len()));
    for (coding, etag, size) in std::iter::once(identity).chain(coded) {
        out.u8(match coding {
            Coding::Identity => 0,
            Coding::Gzip => 1,
            Coding::Brotli => 2,
            Coding::Zstd => 3,
        });
        out.length(size);
        out.bytes(etag.as_bytes());
    }
}

/// What a meta record of `version` says.
pub(super) fn decode(input: &mut Decoder<'_>, version: u8) -> Result<Outline, DecodeError> {
    match input.u8()? {
        DOCUMENT if version > FIRST => Ok(Outline::Elsewhere(Sizes {
            page: input.length()?,
            all: input.length()?,
        })),
        DOCUMENT => decode_document(input, version).map(Outline::Document),
        NOT_FOUND => Ok(Outline::NotFound),
        REDIRECT => Ok(Outline::Redirect {
            status: decode_status(input)?,
            location: input.value()?,
        }),
        _ => Err(DecodeError::Malformed("kind")),
    }
}

/// The document that a body record tells.
pub(super) fn decode_whole(input: &mut Decoder<'_>) -> Result<Document, DecodeError> {
    if is_document(input)? {
        decode_document(input, VERSION)
    } else {
        Err(DecodeError::Malformed("kind"))
    }
}

/// Whether what follows is a document.
pub(super) fn is_document(input: &mut Decoder<'_>) -> Result<bool, DecodeError> {
    Ok(input.u8()? == DOCUMENT)
}

fn decode_document(input: &mut Decoder<'_>, version: u8) -> Result<Document, DecodeError> {
    let status = decode_status(input)?;
    let mut headers = HeaderMap::new();
    for _ in 0..input.length()? {
        let name = HeaderName::from_bytes(input.bytes()?)
            .map_err(|_| DecodeError::Malformed("header name"))?;
        headers.append(name, input.value()?);
    }
    let props = Digest::from(input.array::<32>()?);
    let checksum = (version == FIRST).then(|| input.array()).transpose()?;
    Ok(Document {
        status,
        headers,
        props,
        checksum,
        body: decode_payload(input)?,
        data: decode_payload(input)?,
    })
}

fn decode_status(input: &mut Decoder<'_>) -> Result<StatusCode, DecodeError> {
    StatusCode::from_u16(input.u16()?).map_err(|_| DecodeError::Malformed("status"))
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
            etag: input.value()?,
        });
    }
    Ok(sketches)
}

impl Document {
    pub(super) fn sizes(&self) -> Sizes {
        let all = self.body.iter().chain(&self.data);
        Sizes {
            // The identity comes first.
            page: self.body.first().map_or(0, |identity| identity.size),
            all: all.map(|sketch| sketch.size).sum(),
        }
    }

    /// The content, once `record` of version 1 is known to hold the very bodies that belong to it.
    pub(super) fn with_record(self, record: &Bytes) -> Result<Content, DecodeError> {
        let (version, bodies) = super::open(record, BODY)?;
        if self.checksum != Some(checksum(version, record)) {
            return Err(DecodeError::Checksum);
        }
        self.with_bodies(&record.slice_ref(bodies))
    }

    /// The content, whose parts are parts of `bodies`.
    pub(super) fn with_bodies(self, bodies: &Bytes) -> Result<Content, DecodeError> {
        let mut input = Decoder::new(bodies);
        let content = Content::Document {
            status: self.status,
            headers: self.headers,
            body: fill(self.body, bodies, &mut input)?,
            data: fill(self.data, bodies, &mut input)?,
            props: self.props,
        };
        input.end()?;
        Ok(content)
    }
}

/// Gives each variant its part of `bodies`, at which `input` stands.
fn fill(
    sketches: Vec<Sketch>,
    bodies: &Bytes,
    input: &mut Decoder<'_>,
) -> Result<Payload, DecodeError> {
    let wrong = DecodeError::Malformed("variants");
    let derived = sketches.iter().any(|sketch| sketch.coding == Coding::Zstd);
    let mut sketches = sketches.into_iter();
    let first = sketches
        .next()
        .filter(|first| first.coding == Coding::Identity);
    let first = first.ok_or(wrong)?;
    let fill = |sketch: Sketch, input: &mut Decoder<'_>| {
        let body = bodies.slice_ref(input.raw(sketch.size)?);
        Ok::<_, DecodeError>(Variant::new(sketch.coding, sketch.etag, body))
    };
    let payload = if derived {
        let coded = sketches.map(|sketch| fill(sketch, input));
        Payload::from_zstd(first.etag, first.size, coded.collect::<Result<_, _>>()?)
    } else {
        let identity = fill(first, input)?;
        let coded = sketches.map(|sketch| fill(sketch, input));
        Payload::from_variants(identity, coded.collect::<Result<_, _>>()?)
    };
    payload.ok_or(wrong)
}
