//! `Payload`: one body in every content coding, made once, at generation.

use std::fmt;
use std::io::Write;
use std::sync::OnceLock;

use bytes::Bytes;
use http::HeaderValue;

use super::BodyHash;

/// A content coding (RFC 9110 section 8.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Coding {
    /// As rendered.
    Identity,
    /// RFC 1952.
    Gzip,
    /// RFC 7932.
    Brotli,
    /// RFC 8878.
    Zstd,
}

impl Coding {
    /// What wisr would rather send first: the smallest.
    pub const PREFERRED: [Coding; 4] =
        [Coding::Brotli, Coding::Zstd, Coding::Gzip, Coding::Identity];

    /// How the names of files end that are coded so; none for what is not coded.
    pub fn extension(self) -> &'static str {
        match self {
            Coding::Identity => "",
            Coding::Gzip => ".gz",
            Coding::Brotli => ".br",
            Coding::Zstd => ".zst",
        }
    }

    /// The name in `accept-encoding` and `content-encoding`.
    pub fn as_str(self) -> &'static str {
        match self {
            Coding::Identity => "identity",
            Coding::Gzip => "gzip",
            Coding::Brotli => "br",
            Coding::Zstd => "zstd",
        }
    }
}

/// A body in one coding.
#[derive(Debug, Clone)]
pub struct Variant {
    /// How it is coded.
    pub coding: Coding,
    /// That of the body as rendered.
    pub hash: BodyHash,
    /// The bytes as sent.
    pub body: Bytes,
}

/// A body in all codings that make it smaller.
#[derive(Clone)]
pub struct Payload {
    identity: Box<Identity>,
    coded: Box<[Variant]>,
}

/// The body as rendered, or what it is decoded from: nearly all readers take a coding, and the
/// body of a page that comes from a store is its largest part.
#[derive(Clone)]
struct Identity {
    hash: BodyHash,
    /// Bytes, decoded.
    size: usize,
    decoded: OnceLock<Variant>,
}

/// Below this, a response fits one packet anyway and the coding costs more than it saves.
const MIN_COMPRESSED: usize = 512;

/// Brotli 5, zstd 3 and gzip 6: measured on pages, higher levels save under 1 % for 5 times the
/// time.
const THOROUGH: Levels = Levels {
    brotli: 5,
    zstd: 3,
    gzip: 6,
};

/// What bodies of [`LARGE`] and more are coded by: measured on 8 MiB of rows, an eighth of the time,
/// which no limit of their page counts, and an eighth more bytes.
const QUICK: Levels = Levels {
    brotli: 1,
    zstd: 3,
    gzip: 3,
};

/// Bytes of a body, from which on it is coded quickly: a page that people wrote has less.
const LARGE: usize = 1 << 20;

const BROTLI_WINDOW: u32 = 20;

/// How thoroughly a body is coded.
struct Levels {
    brotli: u32,
    zstd: i32,
    gzip: u32,
}

/// What it takes, in bytes, to share a body among readers.
const SHARED: usize = 64;

impl Variant {
    /// A body in one coding.
    pub fn new(coding: Coding, hash: BodyHash, body: Bytes) -> Self {
        Self { coding, hash, body }
    }

    /// The entity tag, which no other coding has.
    pub fn etag(&self) -> HeaderValue {
        self.hash.etag(self.coding)
    }
}

impl Payload {
    /// Codes `body` unless it is small or its `content_type` says that it is compressed already.
    /// Takes milliseconds: keep it off the threads that serve.
    pub fn encode(body: Bytes, content_type: Option<&HeaderValue>) -> Self {
        let hash = BodyHash::of(&body);
        let mut coded = Vec::with_capacity(3);
        if body.len() >= MIN_COMPRESSED && compressible(content_type) {
            let levels = if body.len() < LARGE { THOROUGH } else { QUICK };
            for coding in [Coding::Brotli, Coding::Zstd, Coding::Gzip] {
                // One after another, so that only one takes memory to be made.
                let bytes = match coding {
                    Coding::Brotli => brotli(&body, levels.brotli),
                    Coding::Zstd => zstd::bulk::compress(&body, levels.zstd).ok(),
                    Coding::Gzip => gzip(&body, levels.gzip),
                    Coding::Identity => None,
                };
                if let Some(bytes) = bytes.filter(|bytes| bytes.len() < body.len()) {
                    let bytes = Bytes::from(bytes.into_boxed_slice());
                    coded.push(Variant::new(coding, hash, bytes));
                }
            }
        }
        let identity = Variant::new(Coding::Identity, hash, body);
        Self {
            identity: Box::new(Identity {
                hash,
                size: identity.body.len(),
                decoded: OnceLock::from(identity),
            }),
            coded: coded.into_boxed_slice(),
        }
    }

    /// A payload made earlier, as a store kept it: the identity and what it is coded as.
    pub fn from_variants(identity: Variant, coded: Vec<Variant>) -> Option<Self> {
        let mut payload = Self::of_coded(identity.hash, identity.body.len(), coded)?;
        payload.identity.decoded = OnceLock::from(identity);
        Some(payload)
    }

    /// A payload made earlier, whose identity of `size` bytes is what its zstd variant decodes to;
    /// none if a coding comes twice or is of another body, or the zstd variant does not say that size.
    pub fn from_zstd(hash: BodyHash, size: usize, coded: Vec<Variant>) -> Option<Self> {
        let payload = Self::of_coded(hash, size, coded)?;
        let frame = &payload.get(Coding::Zstd)?.body;
        // A frame says the size of its content (RFC 8878 section 3.1.1.1.4).
        let told = zstd::zstd_safe::get_frame_content_size(frame);
        (told.ok().flatten() == u64::try_from(size).ok()).then_some(payload)
    }

    fn of_coded(hash: BodyHash, size: usize, coded: Vec<Variant>) -> Option<Self> {
        let is_odd = |(position, variant): (usize, &Variant)| {
            let mut earlier = coded[..position].iter();
            variant.coding == Coding::Identity
                || variant.hash != hash
                || earlier.any(|e| e.coding == variant.coding)
        };
        let decoded = OnceLock::new();
        (!coded.iter().enumerate().any(is_odd)).then(|| Self {
            identity: Box::new(Identity {
                hash,
                size,
                decoded,
            }),
            coded: coded.into_boxed_slice(),
        })
    }

    /// The body as rendered. The first call may take some 10 µs to decode it.
    pub fn identity(&self) -> &Variant {
        let Identity {
            hash,
            size,
            decoded,
        } = &*self.identity;
        decoded.get_or_init(|| {
            let zstd = self.coded.iter().find(|v| v.coding == Coding::Zstd);
            let body = zstd.and_then(|zstd| zstd::bulk::decompress(&zstd.body, *size).ok());
            let body = body.expect("a checksum says that these are the bytes that zstd made of it");
            Variant::new(Coding::Identity, *hash, Bytes::from(body))
        })
    }

    /// The hash of the body as rendered.
    pub fn hash(&self) -> BodyHash {
        self.identity.hash
    }

    /// The bytes of the body as rendered.
    pub fn size(&self) -> usize {
        self.identity.size
    }

    /// What the body is coded as.
    pub fn coded(&self) -> &[Variant] {
        &self.coded
    }

    /// Whether there is the body in this coding.
    pub fn has(&self, coding: Coding) -> bool {
        coding == Coding::Identity || self.coded.iter().any(|v| v.coding == coding)
    }

    /// The body in this coding, if there is one.
    pub fn get(&self, coding: Coding) -> Option<&Variant> {
        match coding {
            Coding::Identity => Some(self.identity()),
            coded => self.coded.iter().find(|variant| variant.coding == coded),
        }
    }

    /// The bytes that it holds in memory once all of it was asked for. An allocator's size classes
    /// lie an eighth apart and more, and what is freed among others is not all used again: a body
    /// holds a quarter more than it has.
    pub fn weight(&self) -> usize {
        let weigh = |size: usize| size_of::<Variant>() + SHARED + size + size / 4;
        let coded = self.coded.iter().map(|variant| weigh(variant.body.len()));
        weigh(self.identity.size) + coded.sum::<usize>()
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = std::iter::once(self.identity()).chain(&self.coded);
        f.debug_list().entries(all).finish()
    }
}

/// Whether bodies of this type become smaller by a coding: text is, pictures are compressed already.
pub fn compressible(content_type: Option<&HeaderValue>) -> bool {
    let Some(Ok(text)) = content_type.map(HeaderValue::to_str) else {
        return false;
    };
    let kind = text
        .split(';')
        .next()
        .unwrap_or("")
        .trim()
        .to_ascii_lowercase();
    kind.starts_with("text/")
        || kind.ends_with("+xml")
        || kind.ends_with("+json")
        || matches!(
            kind.as_str(),
            "application/json"
                | "application/xml"
                | "application/javascript"
                | "application/wasm"
                | "application/manifest+json"
                | "font/ttf"
                | "image/bmp"
                | "image/x-icon"
        )
}

fn brotli(body: &[u8], quality: u32) -> Option<Vec<u8>> {
    let mut coder = brotli::CompressorWriter::new(
        Vec::with_capacity(body.len() / 3),
        4096,
        quality,
        BROTLI_WINDOW,
    );
    coder.write_all(body).ok()?;
    Some(coder.into_inner())
}

fn gzip(body: &[u8], level: u32) -> Option<Vec<u8>> {
    let level = flate2::Compression::new(level);
    let mut coder = flate2::write::GzEncoder::new(Vec::with_capacity(body.len() / 3), level);
    coder.write_all(body).ok()?;
    coder.finish().ok()
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn every_coding_decodes_to_the_page_and_has_its_own_etag() {
        let page = "<p>the same words again and again</p>".repeat(200);
        let html = HeaderValue::from_static("text/html; charset=utf-8");
        let payload = Payload::encode(Bytes::from(page.clone()), Some(&html));
        let etags: std::collections::HashSet<_> = Coding::PREFERRED
            .iter()
            .map(|coding| payload.get(*coding).unwrap().etag())
            .collect();
        assert_eq!(etags.len(), 4);
        let decode = |coding| {
            let coded = &payload.get(coding).unwrap().body[..];
            assert!(coding == Coding::Identity || coded.len() < page.len() / 10);
            let mut out = String::new();
            match coding {
                Coding::Identity => out = String::from_utf8(coded.to_vec()).unwrap(),
                Coding::Gzip => drop(flate2::read::GzDecoder::new(coded).read_to_string(&mut out)),
                Coding::Brotli => {
                    drop(brotli::Decompressor::new(coded, 4096).read_to_string(&mut out))
                }
                Coding::Zstd => out = String::from_utf8(zstd::decode_all(coded).unwrap()).unwrap(),
            }
            out
        };
        for coding in Coding::PREFERRED {
            assert_eq!(decode(coding), page, "{coding:?}");
        }
    }

    #[test]
    fn large_bodies_are_coded_quickly_and_whole() {
        let row = |number: usize| format!("<li>{}</li>", number.wrapping_mul(2_654_435_761));
        let page: String = (0..200_000).map(row).collect();
        let html = HeaderValue::from_static("text/html");
        let coded = |page: &str| Payload::encode(Bytes::from(page.to_owned()), Some(&html));
        let large = coded(&page);
        assert!(large.size() >= LARGE);
        for coding in [Coding::Brotli, Coding::Zstd, Coding::Gzip] {
            assert!(
                large.get(coding).unwrap().body.len() < page.len() / 2,
                "{coding:?}"
            );
        }
        let half = &page[..LARGE - 1];
        let made = |payload: &Payload| payload.get(Coding::Brotli).map(|v| v.body.to_vec());
        assert_eq!(made(&large), brotli(page.as_bytes(), QUICK.brotli));
        assert_eq!(made(&coded(half)), brotli(half.as_bytes(), THOROUGH.brotli));
        let mut out = String::new();
        let body = &large.get(Coding::Brotli).unwrap().body[..];
        brotli::Decompressor::new(body, 4096)
            .read_to_string(&mut out)
            .unwrap();
        assert_eq!(out, page);
    }

    #[test]
    fn small_and_compressed_bodies_are_left_alone() {
        let html = HeaderValue::from_static("text/html");
        let png = HeaderValue::from_static("image/png");
        assert_eq!(
            Payload::encode(Bytes::from_static(b"small"), Some(&html))
                .coded()
                .len(),
            0
        );
        assert_eq!(
            Payload::encode(Bytes::from(vec![0; 9000]), Some(&png))
                .coded()
                .len(),
            0
        );
    }

    #[test]
    fn equal_bodies_have_equal_etags() {
        let tag = |text: &'static str| {
            Payload::encode(Bytes::from_static(text.as_bytes()), None)
                .identity()
                .etag()
        };
        assert_eq!(tag("a"), tag("a"));
        assert_ne!(tag("a"), tag("b"));
    }
}
