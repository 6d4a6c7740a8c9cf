//! `Contents`: what files hold, read once for as long as the kernel says that they are the same.
//!
//! By it a file has its validator, on each host the same; and by it a coded form is proved to be of
//! the file beside it, by decoding it: a file that is put back with its older time is older than the
//! form of the newer one, and only what both hold tells them apart. Blocks on the disk.

use std::collections::HashMap;
use std::fs::{self, Metadata};
use std::io::{self, Read, Seek};
use std::os::unix::fs::MetadataExt;

use parking_lot::Mutex;

use crate::page::{Coding, Digest, Timestamp};

/// Files that are read for it: a second of one core for the largest. Above it a validator is made of
/// what the kernel says of the file, and coded forms are not used.
pub(super) const MAX_READ: u64 = 64 << 20;

/// Files that are remembered: 1 MiB.
const MAX_KNOWN: usize = 8192;

/// What is read or decoded at once.
const CHUNK: usize = 64 * 1024;

/// The largest window of zstd that browsers take (RFC 9659 section 3).
const ZSTD_WINDOW: u32 = 23;

/// How long a file must have been left alone to be remembered: within a tick of the kernel's clock
/// it may change without its times being others.
const SETTLED: u64 = 2_000;

/// What the kernel says of a file: two that differ in it are not known to hold the same. The last of
/// the times no tool can set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    place: (u64, u64),
    pub(super) len: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// Remembers what files hold.
#[derive(Debug, Default)]
pub(super) struct Contents(Mutex<HashMap<(u64, u64), Known>>);

#[derive(Debug, Clone, Copy)]
struct Known {
    identity: Identity,
    own: Digest,
    decoded: Option<Decoded>,
}

/// What a coded form is a form of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Decoded {
    Of(Digest),
    /// Of nothing, or of more than so many bytes.
    Beyond(u64),
}

impl Identity {
    pub(super) fn of(file: &Metadata) -> Self {
        Self {
            place: (file.dev(), file.ino()),
            len: file.len(),
            modified: (file.mtime(), file.mtime_nsec()),
            changed: (file.ctime(), file.ctime_nsec()),
        }
    }

    /// When the kernel saw it change; none until that second is over, in which it may change again.
    pub(super) fn changed(&self, now: Timestamp) -> Option<Timestamp> {
        let second = u64::try_from(self.changed.0).ok()?;
        let now = now.as_millis() / 1000;
        (second < now).then(|| Timestamp::from_millis(second * 1000))
    }

    fn is_settled(&self, now: Timestamp) -> bool {
        let (seconds, nanos) = self.changed;
        let millis = u64::try_from(seconds * 1000 + nanos / 1_000_000).unwrap_or(u64::MAX);
        millis.saturating_add(SETTLED) <= now.as_millis()
    }

    /// A word for it, where nobody reads the file.
    pub(super) fn digest(&self) -> Digest {
        let ((dev, ino), (modified, changed)) = (self.place, (self.modified, self.changed));
        let facts = [dev, ino, self.len].map(u64::to_le_bytes);
        let times = [modified.0, modified.1, changed.0, changed.1].map(i64::to_le_bytes);
        Digest::of(&[facts.as_flattened(), times.as_flattened()].concat())
    }
}

impl Contents {
    /// What the file holds.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(super) fn own(
        &self,
        file: &mut fs::File,
        identity: Identity,
        now: Timestamp,
    ) -> io::Result<Digest> {
        if identity.len > MAX_READ {
            return Ok(identity.digest());
        }
        if let Some(known) = self.known(identity) {
            return Ok(known.own);
        }
        file.rewind()?;
        let (own, _) = digest(file, identity.len)?;
        self.learn(identity, now, own, None);
        Ok(own)
    }

    /// Whether `coded` is a form of a file that holds `plain`, of so many bytes.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(super) fn is_form_of(
        &self,
        (coded, identity, coding): (&mut fs::File, Identity, Coding),
        (plain, len): (Digest, u64),
        now: Timestamp,
    ) -> io::Result<bool> {
        if identity.len > MAX_READ || len > MAX_READ {
            return Ok(false);
        }
        let decoded = match self.known(identity).and_then(|known| known.decoded) {
            Some(Decoded::Beyond(limit)) if limit < len => None,
            known => known,
        };
        if let Some(decoded) = decoded {
            return Ok(decoded == Decoded::Of(plain));
        }
        let own = self.own(coded, identity, now)?;
        coded.rewind()?;
        // What cannot be decoded is no form of anything.
        let decoded = match decode(coded, coding, len) {
            Ok((digest, true)) => Decoded::Of(digest),
            Ok((_, false)) | Err(_) => Decoded::Beyond(len),
        };
        self.learn(identity, now, own, Some(decoded));
        Ok(decoded == Decoded::Of(plain))
    }

    fn known(&self, identity: Identity) -> Option<Known> {
        let all = self.0.lock();
        let known = all.get(&identity.place)?;
        (known.identity == identity).then_some(*known)
    }

    fn learn(&self, identity: Identity, now: Timestamp, own: Digest, decoded: Option<Decoded>) {
        if !identity.is_settled(now) {
            return;
        }
        let mut all = self.0.lock();
        if all.len() >= MAX_KNOWN && !all.contains_key(&identity.place) {
            // To be read again, which costs less than to tell which of them is asked for least.
            all.clear();
        }
        let known = Known {
            identity,
            own,
            decoded,
        };
        all.insert(identity.place, known);
    }
}

/// What the first bytes hold, up to `limit`, and whether that was all.
fn digest(mut from: impl Read, limit: u64) -> io::Result<(Digest, bool)> {
    let (mut hasher, mut left) = (blake3::Hasher::new(), limit);
    let done = |hasher: &blake3::Hasher| Digest::from(*hasher.finalize().as_bytes());
    let mut chunk = vec![0; CHUNK];
    loop {
        match from.read(&mut chunk) {
            Ok(0) => return Ok((done(&hasher), true)),
            Ok(length) if length as u64 > left => return Ok((done(&hasher), false)),
            Ok(length) => {
                hasher.update(&chunk[..length]);
                left -= length as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn decode(coded: &mut fs::File, coding: Coding, limit: u64) -> io::Result<(Digest, bool)> {
    match coding {
        Coding::Identity => digest(coded, limit),
        Coding::Brotli => digest(brotli::Decompressor::new(coded, CHUNK), limit),
        Coding::Gzip => digest(flate2::read::MultiGzDecoder::new(coded), limit),
        Coding::Zstd => {
            let mut decoder = zstd::Decoder::new(coded)?;
            decoder.window_log_max(ZSTD_WINDOW)?;
            digest(decoder, limit)
        }
    }
}
