//! `BodyHash`: what the entity tags of a body say.

use std::fmt;

use data_encoding::HEXLOWER;
use http::HeaderValue;

use super::{Coding, Digest};

/// Bytes of it: 128 bits, enough that two bodies of one URL never meet.
const BYTES: usize = 16;
const DIGITS: usize = 2 * BYTES;

/// More than any tag has: the digits, the longest name of a coding and what is around them.
const MOST: usize = DIGITS + 8;

/// Half of the hash of a body as rendered. All its codings have it in their tags; kept instead of
/// these, it costs an entry nothing to be read, shared and let go.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct BodyHash([u8; BYTES]);

impl BodyHash {
    /// The hash of `body`.
    pub fn of(body: &[u8]) -> Self {
        let hash = Digest::of(body);
        let half = hash.as_bytes().first_chunk();
        Self(*half.expect("a digest is longer than half of one"))
    }

    /// The entity tag of the body in this coding: strong, and different for each (RFC 9110 section
    /// 8.8.3.3).
    pub fn etag(self, coding: Coding) -> HeaderValue {
        let mut text = [b'"'; MOST];
        HEXLOWER.encode_mut(&self.0, &mut text[1..=DIGITS]);
        let mut end = 1 + DIGITS;
        if coding != Coding::Identity {
            let name = coding.as_str().as_bytes();
            text[end] = b'-';
            text[end + 1..][..name.len()].copy_from_slice(name);
            end += 1 + name.len();
        }
        let value = HeaderValue::from_bytes(&text[..=end]);
        value.expect("hexadecimal digits and a coding's name are visible ASCII")
    }

    /// What [`BodyHash::etag`] was made of.
    pub fn of_etag(text: &[u8], coding: Coding) -> Option<Self> {
        let inner = text.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
        let (digits, end) = inner.split_at_checked(DIGITS)?;
        let is_its = match coding {
            Coding::Identity => end.is_empty(),
            coded => end.strip_prefix(b"-") == Some(coded.as_str().as_bytes()),
        };
        let mut hash = [0; BYTES];
        HEXLOWER.decode_mut(digits, &mut hash).ok()?;
        is_its.then_some(Self(hash))
    }
}

impl fmt::Debug for BodyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_read_as_it_was_made_and_no_otherwise() {
        let hash = BodyHash::of(b"a page");
        for coding in Coding::PREFERRED {
            let etag = hash.etag(coding);
            assert_eq!(BodyHash::of_etag(etag.as_bytes(), coding), Some(hash));
            let other = if coding == Coding::Gzip {
                Coding::Zstd
            } else {
                Coding::Gzip
            };
            assert_eq!(BodyHash::of_etag(etag.as_bytes(), other), None);
            for wrong in [
                &etag.as_bytes()[1..],
                b"",
                etag.to_str().unwrap().to_uppercase().as_bytes(),
            ] {
                assert_eq!(BodyHash::of_etag(wrong, coding), None, "{wrong:?}");
            }
        }
        assert_eq!(hash.etag(Coding::Identity).len(), 34);
    }
}
