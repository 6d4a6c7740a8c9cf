//! The terminal: data goes to stdout, talk to stderr, so that a pipe carries only data.

use std::borrow::Cow;
use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::page::is_hidden;

/// What moves below the talk. All talk goes past it, lest the two write over each other.
static MOVING: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);

/// Stderr for the log.
#[derive(Debug, Clone, Copy)]
pub(super) struct Talk;

impl Write for Talk {
    /// Takes whole lines: what guests and clients say stands in them, wherever it came through.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let shown = unturned(bytes, JSON.load(Ordering::Relaxed));
        MOVING.suspend(|| io::stderr().lock().write_all(&shown))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().lock().flush()
    }
}

/// Lines without what would be hidden in them, or turn them around. The controls of colours stay:
/// they are the log's own, which escapes those of others.
fn unturned(bytes: &[u8], json: bool) -> Cow<'_, [u8]> {
    let is_turning = |char: char| !char.is_ascii_control() && is_hidden(char);
    let text = String::from_utf8_lossy(bytes);
    if !text.chars().any(is_turning) {
        return Cow::Borrowed(bytes);
    }
    let mut shown = String::with_capacity(text.len() + 8);
    for char in text.chars() {
        match char {
            char if !is_turning(char) => shown.push(char),
            char if json => {
                let mut units = [0; 2];
                let units = char.encode_utf16(&mut units).iter();
                shown.extend(units.map(|unit| format!("\\u{unit:04x}")));
            }
            char => shown.extend(char.escape_unicode()),
        }
    }
    Cow::Owned(shown.into_bytes())
}

/// Writes a line of data to stdout: to a program as it is. A reader that went away (`wisr routes |
/// head`) is no error.
pub(super) fn data(line: impl Display) {
    let mut stdout = io::stdout().lock();
    let line = format!("{line}\n");
    let _ = match stdout.is_terminal() {
        true => stdout.write_all(&unturned(line.as_bytes(), false)),
        false => stdout.write_all(line.as_bytes()),
    };
}

/// Writes bytes of data to stdout as they are.
pub(super) fn raw(bytes: &[u8]) {
    let _ = io::stdout().lock().write_all(bytes);
}

/// Whether stderr is read by a program, which expects JSON on each line.
static JSON: AtomicBool = AtomicBool::new(false);

/// Has all talk go through the log, which writes JSON.
pub(super) fn talk_json() {
    JSON.store(true, Ordering::Relaxed);
}

/// Writes a line of talk to stderr.
pub(super) fn say(line: impl Display) {
    if JSON.load(Ordering::Relaxed) {
        return tracing::info!("{line}");
    }
    let _ = Talk.write_all(format!("{line}\n").as_bytes());
}

/// Writes the last word of a command that failed to stderr.
pub(super) fn fail(reason: impl Display) {
    if JSON.load(Ordering::Relaxed) && tracing::enabled!(tracing::Level::ERROR) {
        return tracing::error!("{reason}");
    }
    say(format!("error: {reason}"));
}

/// A moving line where talk goes.
pub(super) fn bar(style: ProgressStyle) -> ProgressBar {
    MOVING.add(ProgressBar::new(0).with_style(style))
}

/// Whether a person watches the talk.
pub(super) fn watched() -> bool {
    io::stderr().is_terminal()
}

/// Rows in columns as wide as their widest cell, two spaces apart; `head` only where there are rows.
pub(super) fn table<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let head = head.map(str::to_owned);
    let all = || std::iter::once(&head).chain(rows);
    let width = |column: usize| all().map(|row| row[column].chars().count()).max();
    let widths: Vec<usize> = (0..N).map(|column| width(column).unwrap_or(0)).collect();
    let mut lines = Vec::with_capacity(rows.len() + 1);
    for row in all() {
        let cells = row.iter().zip(&widths);
        let line: Vec<String> = cells
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        lines.push(line.join("  ").trim_end().to_owned());
    }
    lines.join("\n")
}

/// A size in bytes as a person says it: `512 B`, `1.2 MiB`.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match UNITS.iter().find(|(unit, _)| bytes >= *unit) {
        None => format!("{bytes} B"),
        Some((unit, name)) => {
            let tenths = bytes.saturating_mul(10) / unit;
            format!("{}.{} {name}", tenths / 10, tenths % 10)
        }
    }
}

/// A time span as a person says it: `420 µs`, `85 ms`, `2.4 s`.
pub(super) fn span(time: Duration) -> String {
    match time.as_millis() {
        0 => format!("{} µs", time.as_micros()),
        millis @ 1..1_000 => format!("{millis} ms"),
        millis => format!("{}.{} s", millis / 1_000, millis % 1_000 / 100),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [
            ["/".to_owned(), "1".to_owned()],
            ["/é".repeat(3), "22".into()],
        ];
        let text = table(["route", "n"], &rows);
        assert_eq!(text, "route   n\n/       1\n/é/é/é  22");
        assert_eq!(table(["a"], &[]), "");
    }

    #[test]
    fn no_line_is_turned_around() {
        let line = "\x1b[31mred\x1b[0m \u{202e}txt\u{2028}\u{e0041}\n".as_bytes();
        let shown = |json| String::from_utf8(unturned(line, json).into_owned()).unwrap();
        let plain = "\x1b[31mred\x1b[0m \\u{202e}txt\\u{2028}\\u{e0041}\n";
        assert_eq!(shown(false), plain);
        let json = "\x1b[31mred\x1b[0m \\u202etxt\\u2028\\udb40\\udc41\n";
        assert_eq!(shown(true), json);
        assert!(matches!(
            unturned("Grüße\n".as_bytes(), false),
            Cow::Borrowed(_)
        ));
    }

    #[test]
    fn sizes_and_spans() {
        assert_eq!(size(1023), "1023 B");
        assert_eq!(size(1024 * 1024 * 3 / 2), "1.5 MiB");
        assert_eq!(size(u64::MAX), "1717986918.3 GiB");
        assert_eq!(span(Duration::from_micros(420)), "420 µs");
        assert_eq!(span(Duration::from_millis(999)), "999 ms");
        assert_eq!(span(Duration::from_millis(61_260)), "61.2 s");
    }
}
