//! `Encoder` and `Decoder`: the few shapes that records are made of.
//!
//! Integers are little-endian; texts and byte strings carry their length before them. Written by
//! hand so that the bytes on disk are exactly what this file says, whatever a library does next.

use bytes::Bytes;
use http::HeaderValue;

use super::DecodeError;

/// Builds the bytes of a record.
pub(super) struct Encoder(Vec<u8>);

/// Takes a record apart; never reads past its end.
pub(super) struct Decoder<'a> {
    left: &'a [u8],
    /// What it is a part of, for values that share it.
    shared: Option<&'a Bytes>,
}

impl Encoder {
    pub(super) fn new(capacity: usize) -> Self {
        Self(Vec::with_capacity(capacity))
    }

    pub(super) fn raw(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    pub(super) fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    pub(super) fn u16(&mut self, value: u16) {
        self.raw(&value.to_le_bytes());
    }

    pub(super) fn u32(&mut self, value: u32) {
        self.raw(&value.to_le_bytes());
    }

    pub(super) fn u64(&mut self, value: u64) {
        self.raw(&value.to_le_bytes());
    }

    /// A length. What is counted here is far below 4 G: bodies are bounded at their making.
    pub(super) fn length(&mut self, length: usize) {
        self.u32(u32::try_from(length).unwrap_or(u32::MAX));
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.length(bytes.len());
        self.raw(bytes);
    }

    pub(super) fn as_slice(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

impl<'a> Decoder<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self {
            left: bytes,
            shared: None,
        }
    }

    /// As [`Decoder::new`]; what is taken out as a value shares `record`, of which `bytes` is a part.
    pub(super) fn sharing(record: &'a Bytes, bytes: &'a [u8]) -> Self {
        Self {
            left: bytes,
            shared: Some(record),
        }
    }

    pub(super) fn raw(&mut self, length: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self
            .left
            .split_at_checked(length)
            .ok_or(DecodeError::Malformed("length"))?;
        self.left = rest;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let taken = self.raw(N)?;
        taken
            .try_into()
            .map_err(|_| DecodeError::Malformed("length"))
    }

    pub(super) fn u8(&mut self) -> Result<u8, DecodeError> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(super) fn u16(&mut self) -> Result<u16, DecodeError> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, DecodeError> {
        self.array().map(u64::from_le_bytes)
    }

    pub(super) fn length(&mut self) -> Result<usize, DecodeError> {
        let length = self.u32()?;
        usize::try_from(length).map_err(|_| DecodeError::Malformed("length"))
    }

    pub(super) fn bytes(&mut self) -> Result<&'a [u8], DecodeError> {
        let length = self.length()?;
        self.raw(length)
    }

    pub(super) fn text(&mut self) -> Result<&'a str, DecodeError> {
        std::str::from_utf8(self.bytes()?).map_err(|_| DecodeError::Malformed("text"))
    }

    /// The value of a header.
    pub(super) fn value(&mut self) -> Result<HeaderValue, DecodeError> {
        let bytes = self.bytes()?;
        let value = match self.shared {
            Some(record) => HeaderValue::from_maybe_shared(record.slice_ref(bytes)),
            None => HeaderValue::from_bytes(bytes),
        };
        value.map_err(|_| DecodeError::Malformed("header value"))
    }

    /// All that is left.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.left
    }

    /// Nothing may be left over.
    pub(super) fn end(&self) -> Result<(), DecodeError> {
        if self.left.is_empty() {
            Ok(())
        } else {
            Err(DecodeError::Malformed("trailing bytes"))
        }
    }
}
