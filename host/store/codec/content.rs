//! `Document`: the part of a record that describes bodies, and the bodies themselves.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, StatusCode};

use super::{
    BODY, CHECKSUM, DecodeError, Decoder, Encoder, FIRST, Outline, Sizes, VERSION, Variant,
    checksum,
};
use crate::page::{BodyHash, Coding, Content, Digest, Payload};

/// A document whose bodies are yet to be read.
#[derive(Debug)]
pub(super) struct Document {
    status: StatusCode,
    headers: HeaderMap,
    props: Digest,
    /// That of the record of its bodies, in version 1.
    checksum: Option<[u8; CHECKSUM]>,
    body: Sketch,
    data: Sketch,
}

/// A payload whose bytes are yet to be read.
#[derive(Debug)]
struct Sketch {
    hash: BodyHash,
    /// Bytes as rendered.
    size: usize,
    /// The other codings, and the bytes of each.
    coded: Vec<(Coding, usize)>,
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
    let hash = payload.hash();
    let identity = (Coding::Identity, payload.size());
    let coded = payload.coded().iter();
    let coded = coded.map(|variant| (variant.coding, variant.body.len()));
    for (coding, size) in std::iter::once(identity).chain(coded) {
        out.u8(match coding {
            Coding::Identity => 0,
            Coding::Gzip => 1,
            Coding::Brotli => 2,
            Coding::Zstd => 3,
        });
        out.length(size);
        out.bytes(hash.etag(coding).as_bytes());
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

fn decode_payload(input: &mut Decoder<'_>) -> Result<Sketch, DecodeError> {
    // The identity comes first, and is never missing.
    let others = input.length()?.checked_sub(1);
    let others = others.ok_or(DecodeError::Malformed("variants"))?;
    let (coding, size, etag) = decode_variant(input)?;
    let hash = BodyHash::of_etag(etag, coding).filter(|_| coding == Coding::Identity);
    let hash = hash.ok_or(DecodeError::Malformed("entity tag"))?;
    let mut coded = Vec::new();
    for _ in 0..others {
        // Their tags say nothing else.
        let (coding, size, _) = decode_variant(input)?;
        coded.push((coding, size));
    }
    Ok(Sketch { hash, size, coded })
}

/// The coding, the bytes and the entity tag of a variant.
fn decode_variant<'a>(input: &mut Decoder<'a>) -> Result<(Coding, usize, &'a [u8]), DecodeError> {
    let coding = CODINGS.get(usize::from(input.u8()?));
    let coding = *coding.ok_or(DecodeError::Malformed("coding"))?;
    Ok((coding, input.length()?, input.bytes()?))
}

impl Document {
    pub(super) fn sizes(&self) -> Sizes {
        Sizes {
            page: self.body.size,
            all: self.body.all() + self.data.all(),
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

impl Sketch {
    /// The bytes of all codings.
    fn all(&self) -> usize {
        self.size + self.coded.iter().map(|(_, size)| size).sum::<usize>()
    }
}

/// Gives each variant its part of `bodies`, at which `input` stands.
fn fill(sketch: Sketch, bodies: &Bytes, input: &mut Decoder<'_>) -> Result<Payload, DecodeError> {
    let Sketch { hash, size, coded } = sketch;
    let fill = |(coding, size), input: &mut Decoder<'_>| {
        let body = bodies.slice_ref(input.raw(size)?);
        Ok::<_, DecodeError>(Variant::new(coding, hash, body))
    };
    let payload = if coded.iter().any(|(coding, _)| *coding == Coding::Zstd) {
        let coded = coded.into_iter().map(|coded| fill(coded, input));
        Payload::from_zstd(hash, size, coded.collect::<Result<_, _>>()?)
    } else {
        let identity = fill((Coding::Identity, size), input)?;
        let coded = coded.into_iter().map(|coded| fill(coded, input));
        Payload::from_variants(identity, coded.collect::<Result<_, _>>()?)
    };
    payload.ok_or(DecodeError::Malformed("variants"))
}
