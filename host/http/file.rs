//! `File`: one static file, opened, and what a reader gets of it.
//!
//! Conditions and ranges as RFC 9110 sections 13 and 14 have them; of several ranges none is taken,
//! which section 14.2 allows. The validator is strong and made of what the kernel says of the file:
//! its length and its times, also the one that no tool can set.

use std::fs;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::RangeInclusive;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use bytes::{Bytes, BytesMut};
use futures_util::stream;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Response, StatusCode};
use http_body::Frame;
use http_body_util::StreamBody;

use super::body::{Body, BodyError};
use super::conditional::{self, Verdict, whole_seconds};
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
    len: u64,
    modified: Timestamp,
    etag: HeaderValue,
    coding: Coding,
}

impl File {
    /// Opens the file `name` below `root` in a coding; none if it is not there, is no file, a link
    /// leads out of `root`, or the coded one is older than the file itself. Blocks on the disk.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    pub(super) fn open(root: &Path, name: &str, coding: Coding) -> io::Result<Option<Self>> {
        let opened = || -> io::Result<Option<Self>> {
            let root = fs::canonicalize(root)?;
            let own = fs::canonicalize(root.join(name))?;
            let coded = match coding {
                Coding::Identity => own.clone(),
                _ => fs::canonicalize(root.join(format!("{name}{}", coding.extension())))?,
            };
            if !own.starts_with(&root) || !coded.starts_with(&root) {
                return Ok(None);
            }
            // The type first: opening a pipe would wait for its other end.
            let original = fs::metadata(&own)?;
            if !original.is_file() || !fs::metadata(&coded)?.is_file() {
                return Ok(None);
            }
            let file = fs::File::open(coded)?;
            let metadata = file.metadata()?;
            // Somebody changed the file and left its coded form behind.
            if metadata.mtime() < original.mtime() {
                return Ok(None);
            }
            let modified = metadata.mtime().max(0).cast_unsigned().saturating_mul(1000);
            Ok(Some(Self {
                len: metadata.len(),
                etag: etag(&metadata, coding),
                file,
                modified: Timestamp::from_millis(modified),
                coding,
            }))
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

    /// What the reader gets of it. `is_coded` says that there are other codings. Reads a small file,
    /// which blocks on the disk.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(super) fn answer(
        mut self,
        reader: Reader<'_>,
        name: &str,
        is_coded: bool,
    ) -> io::Result<Response<Body>> {
        let mut response = Response::new(Body::Empty);
        let headers = response.headers_mut();
        self.describe(headers, name, is_coded);
        match Verdict::of(reader.headers, || self.etag.clone(), self.modified) {
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
            Range::Whole => 0..=self.len.saturating_sub(1),
            Range::Part(part) => {
                *response.status_mut() = StatusCode::PARTIAL_CONTENT;
                part
            }
            Range::Beyond => {
                headers.remove(header::CONTENT_ENCODING);
                headers.insert(header::CONTENT_RANGE, text(format!("bytes */{}", self.len)));
                *response.status_mut() = StatusCode::RANGE_NOT_SATISFIABLE;
                return Ok(response);
            }
        };
        let size = match self.len {
            0 => 0,
            _ => part.end() - part.start() + 1,
        };
        let is_part = response.status() == StatusCode::PARTIAL_CONTENT;
        let headers = response.headers_mut();
        if is_part {
            let told = format!("bytes {}-{}/{}", part.start(), part.end(), self.len);
            headers.insert(header::CONTENT_RANGE, text(told));
        }
        headers.insert(header::CONTENT_TYPE, media::content_type(name));
        headers.insert(header::CONTENT_LENGTH, size.into());
        if *reader.method != Method::HEAD {
            if *part.start() > 0 {
                self.file.seek(SeekFrom::Start(*part.start()))?;
            }
            *response.body_mut() = body(self.file, size)?;
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
        let modified = httpdate::fmt_http_date(whole_seconds(self.modified));
        headers.insert(header::LAST_MODIFIED, text(modified));
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
        match asked.validate(self.len).map(|mut parts| parts.pop()) {
            // Nothing has no part, whatever the library says.
            Ok(Some(part)) if *part.end() < self.len => Range::Part(part),
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

fn etag(metadata: &fs::Metadata, coding: Coding) -> HeaderValue {
    let facts = [
        metadata.len().cast_signed(),
        metadata.mtime(),
        metadata.mtime_nsec(),
        metadata.ctime(),
        metadata.ctime_nsec(),
    ];
    let bytes: Vec<u8> = facts.into_iter().flat_map(i64::to_le_bytes).collect();
    let tag = Digest::of(&bytes).to_string();
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

/// `size` bytes from where the file stands.
fn body(mut file: fs::File, size: u64) -> io::Result<Body> {
    if size <= PIECE {
        return Ok(Body::from(piece(&mut file, size)?));
    }
    let pieces = stream::try_unfold((file, size), async |(mut file, left)| {
        if left == 0 {
            return Ok::<_, BodyError>(None);
        }
        let reading = tokio::task::spawn_blocking(move || {
            let bytes = piece(&mut file, left.min(PIECE))?;
            io::Result::Ok((bytes, file))
        });
        let (bytes, file) = reading.await??;
        let left = left - bytes.len() as u64;
        Ok(Some((Frame::data(bytes), (file, left))))
    });
    Ok(Body::stream(StreamBody::new(pieces)))
}

/// That many bytes and no fewer: a file that became shorter ends its response, which says so by
/// being shorter than its length.
fn piece(file: &mut fs::File, size: u64) -> io::Result<Bytes> {
    let mut bytes = BytesMut::zeroed(usize::try_from(size).unwrap_or(usize::MAX));
    file.read_exact(&mut bytes)?;
    Ok(bytes.freeze())
}
