//! `Span`, `Size`, `Disk` and `Lifetime`: quantities as people write them in `wisr.toml`.

use std::net::SocketAddr;
use std::time::Duration;

use serde::de::{Deserializer, Error, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use crate::page::Revalidate;
use crate::store::Most;

/// A duration with its unit: `"500ms"`, `"10s"`, `"365d"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span(pub(super) Duration);

/// A number of bytes: `4096`, `"8MiB"`, `"1 GB"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) struct Size(pub(super) u64);

/// A size, a part such as `"50%"`, or `"unlimited"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Disk(pub(super) Most);

impl Serialize for Disk {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Most::Bytes(bytes) => Size(bytes).serialize(serializer),
            Most::Part(percent) => serializer.collect_str(&format_args!("{percent}%")),
            Most::Unlimited => serializer.serialize_str("unlimited"),
        }
    }
}

struct DiskVisitor;

impl Visitor<'_> for DiskVisitor {
    type Value = Disk;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(
            "a size such as \"10GiB\", a part of the disk such as \"50%\", or \"unlimited\"",
        )
    }

    fn visit_i64<E: Error>(self, bytes: i64) -> Result<Disk, E> {
        SizeVisitor
            .visit_i64(bytes)
            .map(|Size(bytes)| Disk(Most::Bytes(bytes)))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Disk, E> {
        if text == "unlimited" {
            return Ok(Disk(Most::Unlimited));
        }
        let Some(percent) = text.strip_suffix('%') else {
            return SizeVisitor
                .visit_str(text)
                .map(|Size(bytes)| Disk(Most::Bytes(bytes)));
        };
        match percent.trim().parse() {
            Ok(percent @ 1..=100) => Ok(Disk(Most::Part(percent))),
            _ => Err(E::custom(format!(
                "{text:?} is no part of a disk: write \"1%\" to \"100%\""
            ))),
        }
    }
}

impl<'de> Deserialize<'de> for Disk {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(DiskVisitor)
    }
}

/// `"never"`, or a number of seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lifetime(pub(super) Revalidate);

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_duration(self.0))
    }
}

impl Serialize for Lifetime {
    /// As seconds, which are at least 1: 0 is `"never"`.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(match self.0 {
            Revalidate::Never => 0,
            Revalidate::After(seconds) => seconds,
        })
    }
}

/// Reads an address to listen at.
///
/// # Errors
/// What it should be instead.
pub fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        format!(
            "{text:?} is not an IP address with a port: write 127.0.0.1:3000, [::1]:3000, or \
             0.0.0.0:3000 for all addresses of the machine"
        )
    })
}

/// An address in the file.
pub(super) fn listen<'de, D: Deserializer<'de>>(from: D) -> Result<Option<SocketAddr>, D::Error> {
    let text = Option::<String>::deserialize(from)?;
    let read = text.map(|text| address(&text).map_err(D::Error::custom));
    read.transpose()
}

struct SpanVisitor;

impl Visitor<'_> for SpanVisitor {
    type Value = Span;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a duration with its unit, such as \"500ms\", \"10s\" or \"365d\"")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Span, E> {
        humantime::parse_duration(text).map(Span).map_err(|_| {
            E::custom(format!(
                "{text:?} is not a duration: write \"500ms\", \"10s\", \"365d\""
            ))
        })
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(SpanVisitor)
    }
}

struct SizeVisitor;

impl Visitor<'_> for SizeVisitor {
    type Value = Size;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a size such as \"128MiB\", or a number of bytes")
    }

    fn visit_i64<E: Error>(self, bytes: i64) -> Result<Size, E> {
        u64::try_from(bytes)
            .map(Size)
            .map_err(|_| E::custom("a size is not negative"))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Size, E> {
        text.parse::<bytesize::ByteSize>()
            .map(|size| Size(size.as_u64()))
            .map_err(|_| {
                E::custom(format!(
                    "{text:?} is not a size: write \"128MiB\", \"1GB\" or a number of bytes"
                ))
            })
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SizeVisitor)
    }
}

struct LifetimeVisitor;

impl Visitor<'_> for LifetimeVisitor {
    type Value = Lifetime;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("\"never\" or a number of seconds, at least 1")
    }

    fn visit_i64<E: Error>(self, seconds: i64) -> Result<Lifetime, E> {
        match u32::try_from(seconds) {
            Ok(seconds) if seconds > 0 => Ok(Lifetime(Revalidate::After(seconds))),
            _ => Err(E::custom(
                "revalidate is \"never\" or a number of seconds, at least 1",
            )),
        }
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Lifetime, E> {
        Err(E::custom(
            "revalidate is \"never\" or a number of seconds; whether an API route may have pages \
             made anew is `may-revalidate`",
        ))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Lifetime, E> {
        match text {
            "never" => Ok(Lifetime(Revalidate::Never)),
            _ => Err(E::custom(format!(
                "revalidate = {text:?}: write \"never\" or a number of seconds"
            ))),
        }
    }
}

impl<'de> Deserialize<'de> for Lifetime {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(LifetimeVisitor)
    }
}
