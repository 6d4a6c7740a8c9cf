//! `File`: one static file, opened, and what a reader gets of it.
//!
//! Conditions and ranges as RFC 9110 sections 13 and 14 have them; of several ranges none is taken,
//! which section 14.2 allows. The validator is strong and made of what is sent, by [`Contents`]; the
//! date is that at which the kernel saw the file change, which no tool can set.

use std::fs;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::stream;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Response, StatusCode};
use http_body::Frame;
use http_body_util::StreamBody;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::body::{Body, BodyError};
use super::conditional::{self, Verdict, whole_seconds};
use super::contents::{Contents, Identity};
use super::errors::Problem;
use super::media;
use super::respond::Reader;
use super::showing::tell_coding;
use crate::page::{Coding, Digest, Timestamp};

/// What is read at once. Smaller files are read when they are opened, so that they take one turn on
/// the threads that wait for disks; a reader who stalls holds so much memory.
const PIECE: u64 = 64 * 1024;

/// What a name with a hash in it means never changes (RFC 8246).
const IMMUTABLE: &str = "public, max-age=31536000, immutable";

/// Whatever else has a validator, so that asking again costs no body.
const REVALIDATED: &str = "public, max-age=0, must-revalidate";

/// A file in one coding, as it was when it was opened.
pub(super) struct File {
    file: fs::File,
    path: PathBuf,
    identity: Identity,
    /// None in the second in which it changed.
    modified: Option<Timestamp>,
    etag: HeaderValue,
    coding: Coding,
}

/// What all files of a folder are opened with.
pub(super) struct Shelf {
    pub(super) root: Arc<Path>,
    pub(super) contents: Contents,
    /// Files that are held open for readers who are slow to take them. Beyond these a file is opened
    /// again for each piece, and one that is replaced meanwhile breaks off.
    pub(super) held: Arc<Semaphore>,
}

impl File {
    /// Opens the file `name` of a folder in a coding; none if it is not there, is no file, a link leads
    /// out of the folder, or the coded one is not proved to be of it. Blocks on the disk.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    pub(super) fn open(
        shelf: &Shelf,
        name: &str,
        coding: Coding,
        now: Timestamp,
    ) -> io::Result<Option<Self>> {
        let root = &shelf.root;
        let Some((path, mut file, identity)) = open(root, name)? else {
            return Ok(None);
        };
        let plain = shelf.contents.own(&mut file, identity, now)?;
        still(&file, identity)?;
        let of = |file, path, identity: Identity, holds: Digest| Self {
            file,
            path,
            identity,
            modified: identity.changed(now),
            etag: etag(&holds, coding),
            coding,
        };
        if coding == Coding::Identity {
            return Ok(Some(of(file, path, identity, plain)));
        }
        let Some((path, mut coded, is_coded)) =
            open(root, &format!("{name}{}", coding.extension()))?
        else {
            return Ok(None);
        };
        let form = (&mut coded, is_coded, coding);
        if !shelf
            .contents
            .is_form_of(form, (plain, identity.len), now)?
        {
            return Ok(None);
        }
        let holds = shelf.contents.own(&mut coded, is_coded, now)?;
        still(&coded, is_coded)?;
        Ok(Some(of(coded, path, is_coded, holds)))
    }

    /// What the reader gets of it. `is_coded` says that there are other codings. Reads a small file,
    /// which blocks on the disk.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(super) fn answer(
        self,
        reader: Reader<'_>,
        name: &str,
        (shelf, is_coded): (&Shelf, bool),
    ) -> io::Result<Response<Body>> {
        let mut response = Response::new(Body::Empty);
        let headers = response.headers_mut();
        self.describe(headers, name, is_coded);
        match Verdict::of_file(reader.headers, || self.etag.clone(), self.modified) {
            Verdict::Send => {}
            Verdict::Unchanged => {
                headers.remove(header::CONTENT_ENCODING);
                *response.status_mut() = StatusCode::NOT_MODIFIED;
                return Ok(response);
            }
            Verdict::Failed => return Ok(Problem::Precondition.page(false)),
        }
        headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        let part = match self.range(reader) {
            Range::Whole => 0..=self.identity.len.saturating_sub(1),
            Range::Part(part) => {
                *response.status_mut() = StatusCode::PARTIAL_CONTENT;
                part
            }
            Range::Beyond => {
                headers.remove(header::CONTENT_ENCODING);
                headers.insert(
                    header::CONTENT_RANGE,
                    text(format!("bytes */{}", self.identity.len)),
                );
                *response.status_mut() = StatusCode::RANGE_NOT_SATISFIABLE;
                return Ok(response);
            }
        };
        let size = match self.identity.len {
            0 => 0,
            _ => part.end() - part.start() + 1,
        };
        let is_part = response.status() == StatusCode::PARTIAL_CONTENT;
        let headers = response.headers_mut();
        if is_part {
            let told = format!(
                "bytes {}-{}/{}",
                part.start(),
                part.end(),
                self.identity.len
            );
            headers.insert(header::CONTENT_RANGE, text(told));
        }
        headers.insert(header::CONTENT_TYPE, media::content_type(name));
        headers.insert(header::CONTENT_LENGTH, size.into());
        if *reader.method != Method::HEAD {
            let source = Source {
                is_held: Arc::clone(&shelf.held).try_acquire_owned().ok(),
                file: self.file,
                path: self.path,
                identity: self.identity,
            };
            *response.body_mut() = body(source, *part.start(), size)?;
        }
        Ok(response)
    }

    fn describe(&self, headers: &mut HeaderMap, name: &str, is_coded: bool) {
        if is_coded {
            tell_coding(headers, self.coding);
        }
        let control = match media::is_fingerprinted(name) {
            true => IMMUTABLE,
            false => REVALIDATED,
        };
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(control));
        headers.insert(header::ETAG, self.etag.clone());
        if let Some(modified) = self.modified {
            let modified = httpdate::fmt_http_date(whole_seconds(modified));
            headers.insert(header::LAST_MODIFIED, text(modified));
        }
    }

    fn range(&self, reader: Reader<'_>) -> Range {
        let mut lines = reader.headers.get_all(header::RANGE).iter();
        let (Some(line), None) = (lines.next(), lines.next()) else {
            return Range::Whole;
        };
        // RFC 9110 section 14.2: ranges are for GET, and what cannot be read is as good as not there.
        let asked = line.to_str().ok();
        let asked = asked.filter(|_| *reader.method == Method::GET);
        let asked = asked.and_then(|line| http_range_header::parse_range_header(line).ok());
        let Some(asked) = asked.filter(|asked| asked.ranges.len() == 1) else {
            return Range::Whole;
        };
        if !conditional::is_same(reader.headers, &self.etag, self.modified) {
            return Range::Whole;
        }
        match asked
            .validate(self.identity.len)
            .map(|mut parts| parts.pop())
        {
            // Nothing has no part, whatever the library says.
            Ok(Some(part)) if *part.end() < self.identity.len => Range::Part(part),
            _ => Range::Beyond,
        }
    }
}

/// What is asked for of a file.
enum Range {
    Whole,
    Part(RangeInclusive<u64>),
    /// Nothing that there is.
    Beyond,
}

/// A file by its name; none if it is not there, is no file, or a link leads out of `root`.
fn open(root: &Path, name: &str) -> io::Result<Option<(PathBuf, fs::File, Identity)>> {
    let opened = || -> io::Result<Option<_>> {
        let root = fs::canonicalize(root)?;
        let path = fs::canonicalize(root.join(name))?;
        // The type first: opening a pipe would wait for its other end.
        if !path.starts_with(&root) || !fs::metadata(&path)?.is_file() {
            return Ok(None);
        }
        let file = fs::File::open(&path)?;
        let identity = Identity::of(&file.metadata()?);
        Ok(Some((path, file, identity)))
    };
    match opened() {
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            Ok(None)
        }
        opened => opened,
    }
}

/// A file that was written to while it was read. What was read of it is no version of it.
#[derive(Debug, thiserror::Error)]
#[error("it changed while it was read")]
struct Changed;

/// Whether reading failed because somebody wrote, and may be tried again.
pub(super) fn is_changed(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<Changed>())
}

fn still(file: &fs::File, identity: Identity) -> io::Result<()> {
    match Identity::of(&file.metadata()?) == identity {
        true => Ok(()),
        false => Err(io::Error::other(Changed)),
    }
}

fn etag(holds: &Digest, coding: Coding) -> HeaderValue {
    let tag = holds.to_string();
    text(format!(
        "\"{}{}\"",
        &tag[..16],
        coding.extension().replace('.', "-")
    ))
}

/// Text of ours: digits, dates and names of codings.
fn text(text: String) -> HeaderValue {
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(""))
}

/// Where the pieces of a file are read.
struct Source {
    file: fs::File,
    path: PathBuf,
    identity: Identity,
    /// Without it the file is not kept open from one piece to the next.
    is_held: Option<OwnedSemaphorePermit>,
}

/// `size` bytes from `start` on.
fn body(mut source: Source, start: u64, size: u64) -> io::Result<Body> {
    if size <= PIECE {
        return Ok(Body::from(source.piece(start, size)?));
    }
    let next = match source.is_held {
        Some(_) => Next::Held(source),
        None => Next::Named(source.path, source.identity),
    };
    let pieces = stream::try_unfold((next, start, size), async |(next, start, left)| {
        if left == 0 {
            return Ok::<_, BodyError>(None);
        }
        let reading = tokio::task::spawn_blocking(move || next.piece(start, left.min(PIECE)));
        let (bytes, next) = reading.await??;
        let length = bytes.len() as u64;
        Ok(Some((
            Frame::data(bytes),
            (next, start + length, left - length),
        )))
    });
    Ok(Body::stream(StreamBody::new(pieces)))
}

/// What is kept between two pieces.
enum Next {
    Held(Source),
    Named(PathBuf, Identity),
}

impl Next {
    fn piece(self, start: u64, size: u64) -> io::Result<(Bytes, Self)> {
        match self {
            Next::Held(mut source) => Ok((source.piece(start, size)?, Next::Held(source))),
            Next::Named(path, identity) => {
                let mut source = Source {
                    file: fs::File::open(&path)?,
                    path,
                    identity,
                    is_held: None,
                };
                let bytes = source.piece(start, size)?;
                Ok((bytes, Next::Named(source.path, identity)))
            }
        }
    }
}

impl Source {
    /// That many bytes and no fewer, of the file as it was: one that is written to meanwhile ends its
    /// response, which says so by being shorter than its length.
    fn piece(&mut self, start: u64, size: u64) -> io::Result<Bytes> {
        let mut bytes = BytesMut::zeroed(usize::try_from(size).unwrap_or(usize::MAX));
        self.file.seek(SeekFrom::Start(start))?;
        self.file.read_exact(&mut bytes)?;
        still(&self.file, self.identity)?;
        Ok(bytes.freeze())
    }
}
