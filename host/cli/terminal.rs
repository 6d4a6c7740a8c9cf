//! The terminal: data goes to stdout, talk to stderr, so that a pipe carries only data.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

/// What moves below the talk. All talk goes past it, lest the two write over each other.
static MOVING: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);

/// Stderr for the log.
#[derive(Debug, Clone, Copy)]
pub(super) struct Talk;

impl Write for Talk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        MOVING.suspend(|| io::stderr().lock().write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().lock().flush()
    }
}

/// Writes a line of data to stdout. A reader that went away (`wisr routes | head`) is no error.
pub(super) fn data(line: impl Display) {
    let _ = writeln!(io::stdout().lock(), "{line}");
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
    fn sizes_and_spans() {
        assert_eq!(size(1023), "1023 B");
        assert_eq!(size(1024 * 1024 * 3 / 2), "1.5 MiB");
        assert_eq!(size(u64::MAX), "1717986918.3 GiB");
        assert_eq!(span(Duration::from_micros(420)), "420 µs");
        assert_eq!(span(Duration::from_millis(999)), "999 ms");
        assert_eq!(span(Duration::from_millis(61_260)), "61.2 s");
    }
}
