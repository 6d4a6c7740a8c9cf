//! `Trailers`: what a client sends, such that a pseudo-header in trailers ends its stream.
//!
//! RFC 9113 section 8.1 has it be malformed, and the library drops it unseen. What the library does
//! refuse is a pseudo-header behind a field: each block of trailers is given a field of our own to
//! begin with. Nobody here reads trailers.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What a connection of HTTP/2 begins with (section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Bytes of a frame before its payload (section 4.1).
const HEAD: usize = 9;

/// The type of frames that begin a block of headers or of trailers, and flags that say what stands
/// before the block (section 6.2).
const HEADERS: u8 = 1;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

/// A frame may have so many bytes, as long as nobody says otherwise (section 4.2).
const MAX_FRAME: usize = 16 * 1024;

/// Gaps between streams that are remembered: no client leaves any.
const MAX_SKIPPED: usize = 64;

/// The field `x`, empty, of which no decoder keeps anything (RFC 7541 section 6.2.2).
const FIELD: [u8; 4] = [0, 1, b'x', 0];

/// A connection whose trailers are looked after.
pub(super) struct Trailers<I> {
    io: I,
    at: At,
    frames: Frames,
    /// What is to be handed on before anything else is read.
    ahead: BytesMut,
}

/// Where in what the client sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// So many bytes into what may be the preface of HTTP/2.
    Preface(usize),
    /// In HTTP/1: all is handed on.
    Http1,
    /// In frames.
    Frames,
}

/// Frames, as far as they have come.
#[derive(Default)]
struct Frames {
    head: [u8; HEAD],
    filled: usize,
    inside: Inside,
    /// The stream that may be opened next: a block of an earlier one is trailers.
    next: u32,
    /// Streams that were passed over, of late, and cannot be opened any more (section 5.1.1).
    skipped: VecDeque<Range<u32>>,
}

/// Where in a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Inside {
    #[default]
    Head,
    /// So many bytes before its end.
    Payload(usize),
    /// In trailers, so many bytes before the block and as many in all.
    Before(usize, usize),
    /// In trailers, where the decoder may be told the size of its table (RFC 7541 section 4.2), which
    /// nothing stands before; in the midst of a number, perhaps.
    Sizes(usize, bool),
}

impl<I> Trailers<I> {
    pub(super) fn new(io: I) -> Self {
        Self {
            io,
            at: At::Preface(0),
            frames: Frames::default(),
            ahead: BytesMut::new(),
        }
    }

    /// Looks at what came; how much of it is handed on as it is. The rest is in `ahead`.
    fn look(&mut self, bytes: &[u8]) -> usize {
        let mut of_preface = 0;
        if let At::Preface(known) = self.at {
            let rest = &PREFACE[known..];
            of_preface = rest.len().min(bytes.len());
            self.at = match bytes[..of_preface] == rest[..of_preface] {
                true if of_preface == rest.len() => At::Frames,
                true => At::Preface(known + of_preface),
                false => At::Http1,
            };
        }
        if self.at != At::Frames {
            return bytes.len();
        }
        let unchanged = of_preface + self.frames.pass(&bytes[of_preface..]);
        self.frames.rewrite(&bytes[unchanged..], &mut self.ahead);
        unchanged
    }
}

impl Frames {
    /// How much passes as it is: up to a head that is not all there, or that of trailers.
    fn pass(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        loop {
            match self.inside {
                Inside::Head if self.filled == 0 && bytes.len() - at >= HEAD => {
                    let mut head = [0; HEAD];
                    head.copy_from_slice(&bytes[at..at + HEAD]);
                    let inside = self.begin(&head);
                    if let Inside::Before(..) = inside {
                        return at;
                    }
                    self.inside = inside;
                    at += HEAD;
                }
                Inside::Payload(length) => {
                    let step = length.min(bytes.len() - at);
                    at += step;
                    self.inside = Inside::payload(length - step);
                    if step < length {
                        return at;
                    }
                }
                _ => return at,
            }
        }
    }

    /// What follows this head.
    fn begin(&mut self, head: &[u8; HEAD]) -> Inside {
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]) & (u32::MAX >> 1);
        let (kind, flags) = (head[3], head[4]);
        if kind == HEADERS && stream >= self.next {
            self.open(stream);
            return Inside::payload(length);
        }
        let is_skipped = || self.skipped.iter().any(|skipped| skipped.contains(&stream));
        let is_open = || stream % 2 == 1 && !is_skipped();
        if kind == HEADERS && length + FIELD.len() <= MAX_FRAME && is_open() {
            let padding = usize::from(flags & PADDED != 0);
            let priority = if flags & PRIORITY != 0 { 5 } else { 0 };
            if padding + priority <= length {
                return Inside::Before(padding + priority, length);
            }
        }
        Inside::payload(length)
    }

    fn open(&mut self, stream: u32) {
        let first = self.next.max(1);
        if stream > first {
            self.skipped.push_back(first..stream);
        }
        if self.skipped.len() > MAX_SKIPPED {
            self.skipped.pop_front();
        }
        self.next = stream + 2;
    }

    /// Hands on what passes, and what is to be read in the place of the rest.
    fn rewrite(&mut self, mut bytes: &[u8], to: &mut BytesMut) {
        loop {
            match self.inside {
                // Nothing is to come before the field, and nothing has to.
                Inside::Before(0, length) => self.inside = Inside::Sizes(length, false),
                Inside::Sizes(0, _) => {
                    to.extend_from_slice(&FIELD);
                    self.inside = Inside::Head;
                }
                _ if bytes.is_empty() => return,
                Inside::Head => {
                    let step = (HEAD - self.filled).min(bytes.len());
                    self.head[self.filled..self.filled + step].copy_from_slice(&bytes[..step]);
                    self.filled += step;
                    bytes.advance(step);
                    if self.filled == HEAD {
                        self.filled = 0;
                        let mut head = self.head;
                        self.inside = self.begin(&head);
                        if let Inside::Before(_, length) = self.inside {
                            let longer = length + FIELD.len();
                            // A frame's length has three bytes.
                            head[..3]
                                .copy_from_slice(&longer.to_be_bytes()[size_of::<usize>() - 3..]);
                        }
                        to.extend_from_slice(&head);
                    }
                }
                Inside::Payload(length) => {
                    let step = length.min(bytes.len());
                    to.extend_from_slice(&bytes[..step]);
                    bytes.advance(step);
                    self.inside = Inside::payload(length - step);
                }
                Inside::Before(before, length) => {
                    let step = before.min(bytes.len());
                    to.extend_from_slice(&bytes[..step]);
                    bytes.advance(step);
                    self.inside = Inside::Before(before - step, length - step);
                }
                Inside::Sizes(length, in_number) => {
                    let byte = bytes[0];
                    let is_size = in_number || byte >> 5 == 0b001;
                    if !is_size {
                        to.extend_from_slice(&FIELD);
                        self.inside = Inside::Payload(length);
                        continue;
                    }
                    to.extend_from_slice(&[byte]);
                    bytes.advance(1);
                    // Section 5.1: a number goes on behind a prefix of ones, and while the first bit
                    // is set.
                    let goes_on = match in_number {
                        true => byte & 0x80 != 0,
                        false => byte & 0x1f == 0x1f,
                    };
                    self.inside = Inside::Sizes(length - 1, goes_on);
                }
            }
        }
    }
}

impl Inside {
    fn payload(length: usize) -> Self {
        match length {
            0 => Self::Head,
            length => Self::Payload(length),
        }
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Trailers<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.at == At::Http1 {
            return Pin::new(&mut this.io).poll_read(cx, buffer);
        }
        loop {
            if !this.ahead.is_empty() {
                let length = this.ahead.len().min(buffer.remaining());
                buffer.put_slice(&this.ahead.split_to(length));
                return Poll::Ready(Ok(()));
            }
            let before = buffer.filled().len();
            ready!(Pin::new(&mut this.io).poll_read(cx, buffer))?;
            let is_end = buffer.filled().len() == before;
            let unchanged = this.look(&buffer.filled()[before..]);
            buffer.set_filled(before + unchanged);
            if unchanged > 0 || is_end {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Trailers<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buffer)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::AsyncReadExt;

    use super::*;
    use crate::fuzz;

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()];
        [&head.concat(), payload].concat()
    }

    /// What is read when these pieces come one after the other.
    fn read(pieces: &[&[u8]]) -> Vec<u8> {
        let mut io = tokio_test_io(pieces);
        let mut all = Vec::new();
        let reading = async { io.read_to_end(&mut all).await };
        futures_util::FutureExt::now_or_never(reading)
            .unwrap()
            .unwrap();
        all
    }

    /// A client that sends these pieces, and no more.
    struct Pieces(std::collections::VecDeque<Vec<u8>>);

    fn tokio_test_io(pieces: &[&[u8]]) -> Trailers<Pieces> {
        let pieces = pieces.iter().filter(|piece| !piece.is_empty());
        Trailers::new(Pieces(pieces.map(|piece| piece.to_vec()).collect()))
    }

    impl AsyncRead for Pieces {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            if let Some(piece) = self.0.front_mut() {
                let length = piece.len().min(buffer.remaining());
                buffer.put_slice(&piece[..length]);
                piece.drain(..length);
                if piece.is_empty() {
                    self.0.pop_front();
                }
            }
            Poll::Ready(Ok(()))
        }
    }

    /// What a client sends, and what is to be read of it.
    fn talk() -> (Vec<u8>, Vec<u8>) {
        let mut sent = PREFACE.to_vec();
        let mut wanted = sent.clone();
        let mut both = |as_sent: &[u8], as_read: &[u8]| {
            sent.extend(as_sent);
            wanted.extend(as_read);
        };
        let with = |before: &[u8], after: &[u8]| [before, &FIELD, after].concat();
        for unchanged in [
            frame(4, 0, 0, b""),
            frame(HEADERS, 4, 1, b"a request"),
            frame(HEADERS, 4, 3, b"another"),
            frame(0, 0, 1, &[1; 300]),
            frame(9, 4, 1, b"more"),
        ] {
            both(&unchanged, &unchanged);
        }
        for (flags, before, after) in [
            (5, &b""[..], &b"\x82trailers"[..]),
            (5, b"", b""),
            // The size of the table, in one byte and in three.
            (5, b"\x20\x3f\xe1\x1f", b"\x82"),
            (5, b"\x3f\xe1\x1f", b""),
            (5 | PADDED, b"\x02", b"\x82\0\0"),
            (5 | PRIORITY, b"\0\0\0\0\0", b"\x82"),
            (5 | PADDED | PRIORITY, b"\x01\0\0\0\0\0", b"\x82\0"),
        ] {
            let whole = [before, after].concat();
            both(
                &frame(HEADERS, flags, 1, &whole),
                &frame(HEADERS, flags, 1, &with(before, after)),
            );
        }
        // What is broken is left to who tells so.
        let short = frame(HEADERS, 5 | PRIORITY, 3, b"\0\0");
        both(&short, &short);
        let long = frame(HEADERS, 5, 3, &vec![7; MAX_FRAME - 3]);
        both(&long, &long);
        both(b"\0\0", b"");
        (sent, wanted)
    }

    #[test]
    fn trailers_begin_with_a_field_wherever_the_bytes_are_cut() {
        let (sent, wanted) = talk();
        assert_eq!(read(&[&sent]), wanted);
        for cut in 0..600 {
            let (start, end) = sent.split_at(cut);
            assert_eq!(read(&[start, end]), wanted, "{cut}");
        }
    }

    #[test]
    fn in_whatever_pieces() {
        let cuts = proptest::collection::vec(1..40_usize, 1..50);
        fuzz::run("trailers", &cuts, |cuts| {
            let (sent, wanted) = talk();
            let (mut rest, mut pieces) = (&sent[..], Vec::new());
            for cut in cuts.iter().cycle() {
                let (piece, after) = rest.split_at((*cut).min(rest.len()));
                pieces.push(piece);
                rest = after;
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(read(&pieces), wanted);
            Ok(())
        });
    }

    #[test]
    fn of_http1_nothing_is_changed() {
        for text in [
            "PRI * HTTP/2.0\r\n\r\nSMUGGLED",
            "GET / HTTP/1.1\r\n\r\n",
            "P",
        ] {
            for cut in 0..text.len() {
                let (start, end) = text.as_bytes().split_at(cut);
                assert_eq!(read(&[start, end]), text.as_bytes());
            }
        }
    }
}
