//! `Journal`: what one guest says on stdout, on stderr and through `host.log`, bounded.
//!
//! A sink that is full must swallow, not fail: a guest's `println!` panics when its pipe closes.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};

use super::bindings::wisr::page::host::Level;
use super::limits::{LOG_BYTES, LOG_LINE_BYTES, STDERR_BYTES};
use super::repeats::Repeats;
use crate::page::visible;

/// What Rust's panics end with; a page has no environment, and the frames are shown anyway.
const BACKTRACE_HINT: &str =
    "note: run with `RUST_BACKTRACE=1` environment variable to display a backtrace";

/// Where a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stream {
    /// `wasi:cli/stdout`.
    Stdout,
    /// `wasi:cli/stderr`, where panics are reported.
    Stderr,
}

/// The journal of one generation; its clones are the same.
#[derive(Debug, Clone)]
pub(super) struct Journal(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    route: Arc<str>,
    generation: u64,
    repeats: Arc<Repeats>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    /// The end of stderr, at most twice [`STDERR_BYTES`].
    tail: Vec<u8>,
    logged: usize,
    dropped: usize,
}

impl Journal {
    /// An empty journal. `generation` tells the generations of a route apart in the log.
    pub(super) fn new(route: Arc<str>, generation: u64, repeats: Arc<Repeats>) -> Self {
        Self(Arc::new(Inner {
            route,
            generation,
            repeats,
            state: Mutex::default(),
        }))
    }

    /// The sink for one of the guest's streams.
    pub(super) fn sink(&self, stream: Stream) -> Sink {
        Sink {
            journal: self.clone(),
            stream,
        }
    }

    /// A message by `host.log`.
    pub(super) fn log(&self, level: Level, message: &str) {
        let mut state = self.0.state.lock();
        for line in message.split('\n') {
            let mut rest = line.as_bytes();
            while !rest.is_empty() {
                let (piece, later) = rest.split_at(whole(rest, LOG_LINE_BYTES));
                self.line(&mut state, level, piece);
                rest = later;
            }
        }
    }

    /// Logs what is left of unfinished lines; returns the end of stderr.
    pub(super) fn close(&self) -> String {
        let mut state = self.0.state.lock();
        for stream in [Stream::Stdout, Stream::Stderr] {
            let rest = std::mem::take(state.partial(stream));
            if !rest.is_empty() {
                self.say(&mut state, stream, &rest);
            }
        }
        if state.dropped > 0 {
            let Inner {
                route, generation, ..
            } = &*self.0;
            let dropped = state.dropped;
            tracing::warn!(%route, generation, "more output was dropped, in bytes: {dropped}");
        }
        let from = whole(&state.tail, state.tail.len().saturating_sub(STDERR_BYTES));
        neutralise(&state.tail[from..], true).replace(BACKTRACE_HINT, "")
    }

    fn write(&self, stream: Stream, bytes: &[u8]) {
        let mut state = self.0.state.lock();
        if stream == Stream::Stderr {
            state.remember(bytes);
        }
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, ended) = match piece.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (piece, false),
            };
            self.append(&mut state, stream, text);
            if ended {
                let line = std::mem::take(state.partial(stream));
                self.say(&mut state, stream, &line);
            }
        }
    }

    fn append(&self, state: &mut State, stream: Stream, mut text: &[u8]) {
        while state.partial(stream).len() + text.len() > LOG_LINE_BYTES {
            let room = LOG_LINE_BYTES - state.partial(stream).len();
            let (now, later) = text.split_at(whole(text, room));
            state.partial(stream).extend_from_slice(now);
            let line = std::mem::take(state.partial(stream));
            self.say(state, stream, &line);
            text = later;
        }
        state.partial(stream).extend_from_slice(text);
    }

    /// A line of a stream; of stderr, one that the route says over and over is told once in a while.
    fn say(&self, state: &mut State, stream: Stream, line: &[u8]) {
        let Inner { route, repeats, .. } = &*self.0;
        let times = match stream {
            Stream::Stdout => Some(1),
            Stream::Stderr => repeats.told(route, line, Instant::now()),
        };
        match times {
            None => {}
            Some(1) => self.line(state, stream.level(), line),
            Some(times) => {
                let line = [line, format!(" ({times} times so far)").as_bytes()].concat();
                self.line(state, stream.level(), &line);
            }
        }
    }

    fn line(&self, state: &mut State, level: Level, line: &[u8]) {
        // An empty line costs the log as much as a short one.
        let cost = line.len().max(16);
        if state.logged + cost > LOG_BYTES {
            state.dropped += line.len();
            return;
        }
        state.logged += cost;
        let Inner {
            route, generation, ..
        } = &*self.0;
        let text = neutralise(line, false);
        if text.trim().is_empty() || text == BACKTRACE_HINT {
            return;
        }
        match level {
            Level::Trace => tracing::trace!(%route, generation, "{text}"),
            Level::Debug => tracing::debug!(%route, generation, "{text}"),
            Level::Info => tracing::info!(%route, generation, "{text}"),
            Level::Warn => tracing::warn!(%route, generation, "{text}"),
            Level::Error => tracing::error!(%route, generation, "{text}"),
        }
    }
}

impl State {
    fn partial(&mut self, stream: Stream) -> &mut Vec<u8> {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }

    fn remember(&mut self, bytes: &[u8]) {
        let from = bytes.len().saturating_sub(STDERR_BYTES);
        self.tail.extend_from_slice(&bytes[from..]);
        if self.tail.len() > 2 * STDERR_BYTES {
            self.tail.drain(..self.tail.len() - STDERR_BYTES);
        }
    }
}

impl Stream {
    fn level(self) -> Level {
        match self {
            Stream::Stdout => Level::Info,
            Stream::Stderr => Level::Warn,
        }
    }
}

/// Text that cannot move a terminal's cursor, turn a line around or forge one of the log.
pub(super) fn neutralise(bytes: &[u8], lines: bool) -> String {
    visible(&String::from_utf8_lossy(bytes), lines).into_owned()
}

/// How many of these bytes fit into `room` without a character cut in two.
fn whole(bytes: &[u8], room: usize) -> usize {
    if bytes.len() <= room {
        return bytes.len();
    }
    // One that never begins is no character, and is cut anywhere.
    let begins = |at: &usize| bytes[*at] & 0xc0 != 0x80;
    (room.saturating_sub(3)..=room)
        .rev()
        .find(begins)
        .unwrap_or(room)
}

/// One of a guest's output streams.
#[derive(Debug, Clone)]
pub(super) struct Sink {
    journal: Journal,
    stream: Stream,
}

/// Bytes that a guest may write in one call.
const PERMIT: usize = 64 << 10;

impl IsTerminal for Sink {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Sink {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for Sink {
    async fn ready(&mut self) {}
}

impl OutputStream for Sink {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.journal.write(self.stream, &bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(PERMIT)
    }
}

impl AsyncWrite for Sink {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        self.journal.write(self.stream, bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn journal() -> Journal {
        Journal::new(Arc::from("/x"), 1, Arc::default())
    }

    #[test]
    fn a_flood_is_bounded_and_its_end_is_kept() {
        let journal = journal();
        for round in 0..100_000 {
            journal.write(Stream::Stderr, format!("line {round}\n").as_bytes());
        }
        journal.write(Stream::Stdout, &vec![b'x'; 1 << 20]);
        let state = journal.0.state.lock();
        assert!(state.logged <= LOG_BYTES && state.dropped > 1 << 20);
        assert!(state.stdout.len() <= LOG_LINE_BYTES && state.tail.len() <= 2 * STDERR_BYTES);
        drop(state);
        let tail = journal.close();
        assert!(
            tail.len() <= STDERR_BYTES && tail.ends_with("line 99999\n"),
            "{tail}"
        );
    }

    #[test]
    fn control_characters_cannot_forge_a_log() {
        assert_eq!(
            neutralise(b"a\x1b[2J\r\nb\xff", false),
            "a\\u{1b}[2J\\r\\nb\u{fffd}"
        );
        assert_eq!(neutralise(b"a\nb\tc", true), "a\nb\tc");
        let turned = "a\u{202e}b\u{2028}c".as_bytes();
        assert_eq!(neutralise(turned, true), "a\\u{202e}b\\u{2028}c");
    }

    #[test]
    fn no_character_is_cut_in_two() {
        let text = "a😀é".as_bytes();
        let fits = [0, 1, 1, 1, 1, 5, 5, 7, 7];
        for (room, fit) in fits.into_iter().enumerate() {
            assert_eq!(whole(text, room), fit, "{room}");
        }
        assert_eq!(whole(&[0x80; 9], 5), 5);
    }

    #[test]
    fn lines_may_arrive_in_pieces() {
        let journal = journal();
        journal.write(Stream::Stdout, b"one\ntw");
        assert_eq!(journal.0.state.lock().stdout, b"tw");
        journal.write(Stream::Stdout, b"o\n");
        assert_eq!(journal.0.state.lock().stdout, b"");
        assert_eq!(journal.0.state.lock().logged, 32);
    }
}
