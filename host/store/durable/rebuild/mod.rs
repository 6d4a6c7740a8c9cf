//! `Copier`: a database made anew from all that can be read of one in whose records the disk changed
//! bytes.
//!
//! fjall reads right what it reads: a key is answered from the newest table that may hold it, or with
//! an error where that is in a block whose checksum does not match. But what has to go past such a
//! block ends there: a list, a survey, a compaction, and with the first compaction all writing. So
//! each key of each block that can be read is asked for, and what is answered is copied. What is not
//! answered is left out: an older state of it is never taken for the latest.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use bytes::Bytes;
use fjall::{AbstractTree, LsmError};
use xxhash_rust::xxh3::Xxh3;

use super::commits::Commits;
use super::database::Lost;
use super::keys::{BODY, META, PATH, PURGE, SITE, TAG, text_key};
use super::opened::Opened;
use crate::store::codec;

/// Whether somebody who goes through all of it would end at bytes that changed. Reads all of it.
///
/// # Errors
/// When it cannot be read for another reason.
pub(super) fn is_damaged(opened: &Opened) -> Result<bool, fjall::Error> {
    let version = opened.keyspace.tree.current_version();
    for table in version.iter_tables() {
        let ended = table
            .scan()
            .and_then(|mut items| items.try_for_each(|item| item.map(drop)));
        if readable(ended.map_err(Into::into))?.is_none() {
            return Ok(true);
        }
    }
    let bodies = opened.keyspace.path().join("blobs");
    let files = match std::fs::read_dir(bodies) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        files => files?,
    };
    for file in files {
        let read = bodies_are_whole(&file?.path()).map_err(Into::into);
        if readable(read)? != Some(true) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// What was read; none where the bytes are not those that were written.
///
/// # Errors
/// When nothing is known of the bytes: no descriptor is free, for example.
fn readable<T>(read: Result<T, fjall::Error>) -> Result<Option<T>, fjall::Error> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(error) if is_of_the_bytes(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether an error says that the disk has other bytes than were written, or none.
pub(super) fn is_of_the_bytes(error: &fjall::Error) -> bool {
    match error {
        fjall::Error::Io(error) | fjall::Error::Storage(LsmError::Io(error)) => {
            let broken = rustix::io::Errno::IO.raw_os_error();
            error.raw_os_error() == Some(broken) || error.kind() == io::ErrorKind::UnexpectedEof
        }
        fjall::Error::Storage(_) => true,
        _ => false,
    }
}

/// Bytes of what comes before a body in its file: a magic word, a checksum, a number, the sizes of
/// its key and, twice, of itself.
const FRAME: usize = 4 + 16 + 8 + 2 + 4 + 4;

/// Whether all bodies in a file are as they were written, those too that nothing refers to any more:
/// who copies the others reads past them.
fn bodies_are_whole(path: &Path) -> io::Result<bool> {
    let Ok(contents) = sfa::Reader::new(path) else {
        // It is still being written; what follows the bodies has been looked at when it was opened.
        return Ok(true);
    };
    let size = contents
        .toc()
        .section(b"data")
        .map_or(0, sfa::TocEntry::len);
    let mut input = BufReader::with_capacity(1 << 16, File::open(path)?).take(size);
    let mut body = Vec::new();
    while input.limit() > 0 {
        let mut frame = [0; FRAME];
        input.read_exact(&mut frame)?;
        let (sum, sizes) = (&frame[4..20], &frame[28..]);
        let key = u16::from_le_bytes([sizes[0], sizes[1]]);
        let own = u32::from_le_bytes([sizes[6], sizes[7], sizes[8], sizes[9]]);
        body.clear();
        let size = u64::from(key) + u64::from(own);
        let is_short = (&mut input).take(size).read_to_end(&mut body)? as u64 != size;
        let mut own = Xxh3::new();
        own.update(&body);
        if is_short || !frame.starts_with(b"BLOB") || own.digest128().to_le_bytes() != *sum {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Pages that are counted, a few megabytes of names: of more, a number says no more either.
const COUNTED: usize = 50_000;

/// What can be read of `old` on its way into `new`, which is empty.
struct Copier<'a> {
    old: &'a Opened,
    new: Commits<'a>,
    lost: Lost,
}

/// Copies all that can be read of `old` into `new`, which is empty; what could not be.
///
/// # Errors
/// When `new` cannot be written, or `old` not be read for another reason than that it is damaged.
pub(super) fn copy(old: &Opened, new: &Opened) -> Result<Lost, fjall::Error> {
    // What is in memory goes where everything is looked for. Nobody writes meanwhile.
    old.keyspace.tree.flush_active_memtable(0)?;
    let mut copier = Copier {
        old,
        new: Commits::into(new),
        lost: Lost::default(),
    };
    let version = old.keyspace.tree.current_version();
    for table in version.iter_tables() {
        let mut last = table.metadata.key_range.min().clone();
        let mut gap = false;
        // Where the index of a table is gone, each look at it is an error, without end.
        let mut errors = 0..=table.metadata.data_block_count;
        for item in table.iter() {
            match readable(item.map_err(Into::into))? {
                Some(item) => {
                    let key = item.key.user_key;
                    if std::mem::take(&mut gap) {
                        copier.miss(&last, &key);
                    }
                    copier.take(&key)?;
                    last = key;
                }
                None if errors.next().is_some() => gap = true,
                None => break,
            }
        }
        if gap {
            copier.miss(&last, table.metadata.key_range.max());
        }
    }
    copier.new.end()?;
    Ok(copier.lost)
}

impl Copier<'_> {
    /// Copies what a key has now.
    fn take(&mut self, key: &[u8]) -> Result<(), fjall::Error> {
        let name = |kind: u8| {
            let name = key.strip_prefix(&[kind]);
            name.and_then(|name| std::str::from_utf8(name).ok())
        };
        if let Some(page) = name(META) {
            return self.page(page);
        }
        if let Some(page) = name(BODY) {
            let meta = readable(self.old.keyspace.get(text_key(META, page)))?;
            // Else it is copied with its page.
            return if meta.is_none() {
                self.page(page)
            } else {
                Ok(())
            };
        }
        match readable(self.old.keyspace.get(key))? {
            Some(Some(value)) => self.new.record(key, &value)?,
            Some(None) => {}
            None => self.miss(key, key),
        }
        Ok(())
    }

    /// Copies both records of a page, if they are whole.
    fn page(&mut self, page: &str) -> Result<(), fjall::Error> {
        let get = |kind| readable(self.old.keyspace.get(text_key(kind, page)));
        let meta = match get(META)? {
            Some(None) => return Ok(()),
            meta => meta.flatten().filter(|meta| is_of(page, meta)),
        };
        let body = get(BODY)?.map(|body| body.map(|body| Bytes::copy_from_slice(&body)));
        match (meta, body) {
            (Some(meta), Some(body)) if is_whole(&meta, body.as_ref()) => {
                self.new.page(page, &meta, body.as_deref())
            }
            (_, Some(Some(body))) if let Some(meta) = meta_of(page, &body) => {
                self.new.page(page, &meta, Some(&body))
            }
            _ => {
                if self.lost.pages.len() < COUNTED {
                    self.lost.pages.insert(page.to_owned());
                }
                Ok(())
            }
        }
    }

    /// Notes that nobody knows what is between two keys.
    fn miss(&mut self, from: &[u8], to: &[u8]) {
        self.lost.blocks += 1;
        let kinds = [PATH, SITE[0], TAG, PURGE];
        let is_between = |kind: &u8| from <= &[*kind + 1][..] && &[*kind][..] <= to;
        self.lost.invalidations |= kinds.iter().any(is_between);
    }
}

fn is_of(page: &str, meta: &[u8]) -> bool {
    codec::decode_meta(meta).is_ok_and(|meta| meta.key.as_str() == page)
}

/// Whether the two records of a page are whole, and of one entry.
fn is_whole(meta: &[u8], body: Option<&Bytes>) -> bool {
    codec::decode_meta(meta)
        .is_ok_and(|meta| meta.has_body() == body.is_some() && meta.into_entry(body).is_ok())
}

/// The meta record of a page whose body record tells it whole.
fn meta_of(page: &str, body: &Bytes) -> Option<Vec<u8>> {
    let whole = codec::decode_whole(body).ok()??;
    let entry = whole.into_entry(None).ok()?;
    (entry.key.as_str() == page).then(|| codec::encode(&entry).meta)
}

#[cfg(test)]
mod tests;
