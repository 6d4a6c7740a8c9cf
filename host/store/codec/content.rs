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
        if !payload.has(Coding::Zstd) {
            out.raw(&payload.identity().body);
        }
        for variant in payload.coded() {
            out.raw(&variant.body);
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
            out.raw(&checksum(VERSION, bodies.unwrap_or_default()));
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
    pub(super) fn with_bodies(self, record: &Bytes) -> Result<Content, DecodeError> {
        let (version, bodies) = super::open(record, BODY)?;
        if checksum(version, record) != self.checksum {
            return Err(DecodeError::Checksum);
        }
        let mut input = Decoder::new(bodies);
        let content = Content::Document {
            status: self.status,
            headers: self.headers,
            body: fill(self.body, record, &mut input)?,
            data: fill(self.data, record, &mut input)?,
            props: self.props,
        };
        input.end()?;
        Ok(content)
    }
}

/// Gives each variant its part of `record`, at which `input` stands.
fn fill(
    sketches: Vec<Sketch>,
    record: &Bytes,
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
        let body = record.slice_ref(input.raw(sketch.size)?);
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
