//! `AccessLog`: a line for each request, written by a thread of its own.
//!
//! Serving threads hand lines over and never wait: what the disk does not take in time is dropped and
//! counted, by its bytes, since a client decides how long its line is. Queries are left out, of referrers too: they may hold tokens.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use prometheus_client::metrics::counter::Counter;
use serde_json::json;

use crate::page::{Timestamp, is_hidden};

/// Bytes of lines that wait to be written: some ten thousand.
const WAITING: usize = 2 << 20;

/// Lines that are written before whoever looks sees them.
const AT_ONCE: usize = 8_192;

/// How often it is looked whether the file was moved away, as log rotation does.
const LOOK: Duration = Duration::from_secs(1);

/// Where lines go, and in which form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessConfig {
    /// Where to.
    pub target: Target,
    /// In which form.
    pub form: Form,
}

/// Where lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Standard output.
    Stdout,
    /// A file, which is made anew when it was moved away.
    File(PathBuf),
}

/// The form of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// The "combined" format of Apache and nginx.
    Combined,
    /// One JSON object.
    Json,
}

/// One request and its answer.
#[derive(Debug)]
pub struct Line<'a> {
    /// When the answer began.
    pub at: Timestamp,
    /// Who asked: the client, or a proxy.
    pub peer: IpAddr,
    /// The request's method.
    pub method: &'a str,
    /// The request's target; its query is not written.
    pub path: &'a str,
    /// `HTTP/1.1`.
    pub version: &'a str,
    /// The answer's status.
    pub status: u16,
    /// Bytes of the answer's body, where that is known beforehand.
    pub bytes: Option<u64>,
    /// Time to the answer's head.
    pub took: Duration,
    /// What `x-wisr-cache` says.
    pub cache: Option<&'a str>,
    /// The referring address; its query is not written.
    pub referrer: &'a str,
    /// What the client says that it is.
    pub agent: &'a str,
}

/// Takes lines; dropping it writes those that wait.
#[derive(Debug)]
pub struct AccessLog {
    lines: Option<Sender<String>>,
    /// Bytes of lines that were handed over and not taken yet.
    waiting: Arc<AtomicUsize>,
    dropped: Counter,
    form: Form,
    thread: Option<JoinHandle<()>>,
}

impl AccessLog {
    /// Opens the log; `dropped` counts lines that are not written.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn open(config: &AccessConfig, dropped: Counter) -> io::Result<Self> {
        let sink = Sink::open(&config.target)?;
        let (sender, lines) = channel();
        let (waiting, lost) = (Arc::default(), dropped.clone());
        let taken = Arc::clone(&waiting);
        let thread = std::thread::Builder::new()
            .name("wisr-access".to_owned())
            .spawn(move || write(&lines, &taken, sink, &lost))?;
        Ok(Self {
            lines: Some(sender),
            waiting,
            dropped,
            form: config.form,
            thread: Some(thread),
        })
    }

    /// Hands over a line.
    pub fn log(&self, line: &Line<'_>) {
        let text = match self.form {
            Form::Combined => line.combined(),
            Form::Json => line.json(),
        };
        let size = text.len();
        let fits = self.waiting.fetch_add(size, Relaxed) + size <= WAITING;
        let lines = self.lines.as_ref().filter(|_| fits);
        if lines.is_none_or(|lines| lines.send(text).is_err()) {
            self.waiting.fetch_sub(size, Relaxed);
            self.dropped.inc();
        }
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        self.lines = None;
        // A panic of the thread was logged where it happened.
        self.thread.take().map(JoinHandle::join);
    }
}

impl Line<'_> {
    fn combined(&self) -> String {
        let Self {
            peer,
            method,
            version,
            status,
            ..
        } = self;
        // "Sat, 21 Nov 2026 08:00:00 GMT": RFC 9110 section 5.6.7 fixes every place.
        let date = httpdate::fmt_http_date(self.at.to_system_time());
        let (day, month, year, time) = (&date[5..7], &date[8..11], &date[12..16], &date[17..25]);
        let path = escaped(bare(self.path));
        let bytes = self
            .bytes
            .map_or_else(|| "-".to_owned(), |bytes| bytes.to_string());
        let (referrer, agent) = (escaped(bare(self.referrer)), escaped(self.agent));
        format!(
            "{peer} - - [{day}/{month}/{year}:{time} +0000] \"{method} {path} {version}\" {status} {bytes} \
             \"{referrer}\" \"{agent}\"\n"
        )
    }

    fn json(&self) -> String {
        let at = humantime::format_rfc3339_millis(self.at.to_system_time());
        let told = json!({
            "time": at.to_string(),
            "peer": self.peer,
            "method": self.method,
            "path": bare(self.path),
            "version": self.version,
            "status": self.status,
            "bytes": self.bytes,
            "seconds": self.took.as_secs_f64(),
            "cache": self.cache,
            "referrer": bare(self.referrer),
            "agent": self.agent,
        })
        .to_string();
        let mut line = String::with_capacity(told.len() + 1);
        for char in told.chars() {
            match char {
                // JSON may have them as they are; a terminal obeys some of them.
                char if is_hidden(char) => {
                    for unit in char.encode_utf16(&mut [0; 2]) {
                        // Writing to a `String` cannot fail.
                        let _ = write!(line, "\\u{unit:04x}");
                    }
                }
                char => line.push(char),
            }
        }
        line.push('\n');
        line
    }
}

/// An address without its query and its fragment.
fn bare(address: &str) -> &str {
    address.split(['?', '#']).next().unwrap_or_default()
}

/// As Apache writes what a client says: nothing in it ends the field or the line. A field that is
/// empty is `-`.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '"' | '\\' => out.extend(['\\', char]),
            char if is_hidden(char) => {
                for byte in char.encode_utf8(&mut [0; 4]).bytes() {
                    // Writing to a `String` cannot fail.
                    let _ = write!(out, "\\x{byte:02x}");
                }
            }
            char => out.push(char),
        }
    }
    if out.is_empty() { "-".to_owned() } else { out }
}

/// Writes lines until nobody can send any.
fn write(lines: &Receiver<String>, waiting: &AtomicUsize, mut sink: Sink, lost: &Counter) {
    let mut looked = Instant::now();
    loop {
        let line = match lines.recv_timeout(LOOK) {
            Ok(line) => Some(line),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        if looked.elapsed() >= LOOK {
            looked = Instant::now();
            sink.follow();
        }
        // What waits is written at once, and then handed on: whoever looks sees whole lines.
        for line in line.into_iter().chain(lines.try_iter().take(AT_ONCE)) {
            waiting.fetch_sub(line.len(), Relaxed);
            if !sink.write(&line) {
                lost.inc();
            }
        }
        sink.flush();
    }
}

/// Where lines are written to.
struct Sink {
    path: Option<PathBuf>,
    writer: BufWriter<Box<dyn Write + Send>>,
    /// Device and number of the file.
    identity: Option<(u64, u64)>,
    failing: bool,
}

impl Sink {
    fn open(target: &Target) -> io::Result<Self> {
        let (path, writer, identity): (_, Box<dyn Write + Send>, _) = match target {
            Target::Stdout => (None, Box::new(io::stdout()), None),
            Target::File(path) => {
                let file = append(path)?;
                let identity = file.metadata()?;
                let identity = Some((identity.dev(), identity.ino()));
                (Some(path.clone()), Box::new(file), identity)
            }
        };
        Ok(Self {
            path,
            writer: BufWriter::with_capacity(64 << 10, writer),
            identity,
            failing: false,
        })
    }

    /// Begins a new file where the old one was moved away or removed.
    fn follow(&mut self) {
        let Some(path) = self.path.clone() else {
            return;
        };
        let there = std::fs::metadata(&path).ok();
        if there.map(|file| (file.dev(), file.ino())) == self.identity {
            return;
        }
        match Self::open(&Target::File(path)) {
            Ok(new) => *self = new,
            Err(error) => self.failed(&error),
        }
    }

    /// Whether it was written.
    fn write(&mut self, line: &str) -> bool {
        let written = self.writer.write_all(line.as_bytes());
        self.told(written)
    }

    fn flush(&mut self) {
        let flushed = self.writer.flush();
        self.told(flushed);
    }

    fn told(&mut self, result: io::Result<()>) -> bool {
        match &result {
            Ok(()) => self.failing = false,
            Err(error) => self.failed(error),
        }
        result.is_ok()
    }

    /// Says once that lines are lost, until one is written again.
    fn failed(&mut self, error: &io::Error) {
        if !std::mem::replace(&mut self.failing, true) {
            tracing::warn!("the access log cannot be written: {error}; its lines are lost");
        }
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line<'a>(path: &'a str, agent: &'a str) -> Line<'a> {
        Line {
            at: Timestamp::from_millis(1_795_248_000_250),
            peer: "127.0.0.1".parse().unwrap(),
            method: "GET",
            path,
            version: "HTTP/1.1",
            status: 200,
            bytes: Some(7),
            took: Duration::from_millis(5),
            cache: Some("HIT"),
            referrer: "http://a/?token=geheim",
            agent,
        }
    }

    #[test]
    fn lines_are_those_that_other_servers_write() {
        let expected = "127.0.0.1 - - [21/Nov/2026:08:00:00 +0000] \"GET /a HTTP/1.1\" 200 7 \"http://a/\" \"curl\"\n";
        assert_eq!(line("/a?secret=geheim", "curl").combined(), expected);
        let told: serde_json::Value = serde_json::from_str(&line("/a?x#y", "curl").json()).unwrap();
        let expected = json!({
            "time": "2026-11-21T08:00:00.250Z", "peer": "127.0.0.1", "method": "GET", "path": "/a",
            "version": "HTTP/1.1", "status": 200, "bytes": 7, "seconds": 0.005, "cache": "HIT",
            "referrer": "http://a/", "agent": "curl",
        });
        assert_eq!(told, expected);
    }

    #[test]
    fn nothing_that_a_client_says_ends_a_line() {
        let told = line("/a", "x\" 500 \n127.0.0.1\\").combined();
        assert_eq!(told.matches('\n').count(), 1, "{told}");
        assert!(
            told.ends_with("\"x\\\" 500 \\x0a127.0.0.1\\\\\"\n"),
            "{told}"
        );
        assert!(line("/a", "").combined().ends_with("\"-\"\n"));
    }

    #[test]
    fn nothing_that_a_client_says_steers_a_terminal() {
        let agent = "\u{1b}[2J \u{9b}2J \u{7f} \u{e9}";
        let line = line("/\u{9b}2J", agent);
        for told in [line.combined(), line.json()] {
            let told = told.strip_suffix('\n').unwrap();
            assert!(!told.contains(char::is_control), "{told:?}");
        }
        let told: serde_json::Value = serde_json::from_str(&line.json()).unwrap();
        assert_eq!(
            (&told["path"], &told["agent"]),
            (&json!("/\u{9b}2J"), &json!(agent))
        );
    }

    #[test]
    fn a_disk_that_takes_nothing_costs_lines_and_nothing_else() {
        let config = AccessConfig {
            target: Target::File("/dev/full".into()),
            form: Form::Json,
        };
        let dropped = Counter::default();
        let log = AccessLog::open(&config, dropped.clone()).unwrap();
        for _ in 0..4 * AT_ONCE {
            log.log(&line("/a", "curl"));
        }
        drop(log);
        assert!(dropped.get() > 0);
    }

    #[test]
    fn lines_that_wait_are_bounded_however_long_clients_make_them() {
        let ((lines, taken), dropped) = (channel(), Counter::default());
        let log = AccessLog {
            lines: Some(lines),
            waiting: Arc::default(),
            dropped: dropped.clone(),
            form: Form::Combined,
            thread: None,
        };
        let agent = "\u{1}".repeat(30 << 10);
        for _ in 0..1_000 {
            log.log(&line("/a", &agent));
        }
        let waiting: Vec<String> = taken.try_iter().collect();
        let bytes: usize = waiting.iter().map(String::len).sum();
        assert!(bytes <= WAITING && bytes > WAITING / 2, "{bytes}");
        assert_eq!(dropped.get() + waiting.len() as u64, 1_000);
    }

    #[test]
    fn a_file_that_is_moved_away_is_begun_anew() {
        let folder = tempfile::tempdir().unwrap();
        let (path, old) = (folder.path().join("log"), folder.path().join("old"));
        let mut sink = Sink::open(&Target::File(path.clone())).unwrap();
        assert!(sink.write("one\n"));
        sink.flush();
        sink.follow();
        std::fs::rename(&path, &old).unwrap();
        assert!(sink.write("two\n"));
        sink.flush();
        sink.follow();
        assert!(sink.write("three\n"));
        sink.flush();
        let read = |path| std::fs::read_to_string(path).unwrap();
        assert_eq!(
            (read(&old).as_str(), read(&path).as_str()),
            ("one\ntwo\n", "three\n")
        );
    }
}
