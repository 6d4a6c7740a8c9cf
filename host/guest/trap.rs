//! `Stop`: how a generation ended without a page, and its telling as a [`Failure`].

use std::fmt::{Display, Write};
use std::time::Duration;

use wasmtime::component::ResourceTableError;
use wasmtime::{PoolConcurrencyLimitError, Trap, WasmBacktrace};
use wasmtime_wasi::I32Exit;

use super::frames::{Place, places};
use super::limits::{
    HANDLES, Limits, MESSAGE_BYTES, RANDOM_BYTES, RESOURCES, STACK_BYTES, TABLE_ELEMENTS,
};
use super::meter::Cut;
use super::sandbox::Overrun;
use super::sink::neutralise;
use crate::page::{FailureKind, is_hidden, plural};

/// Why a generation stopped.
#[derive(Debug)]
pub(super) enum Stop {
    /// The guest trapped, or ran into a limit.
    Trapped(wasmtime::Error),
    /// The guest returned an error.
    Said(String),
    /// What the guest returned breaks a rule.
    Broken {
        /// Which sort of rule.
        kind: FailureKind,
        /// The rule, and what to do.
        message: String,
    },
    /// It was cut short.
    Cut(Cut),
}

impl Stop {
    /// What the guest returned breaks a rule.
    pub(super) fn broken(kind: FailureKind, reason: impl ToString) -> Self {
        Stop::Broken {
            kind,
            message: reason.to_string(),
        }
    }

    /// What the guest returned is not what it may be.
    pub(super) fn invalid(reason: impl ToString) -> Self {
        Self::broken(FailureKind::Invalid, reason)
    }

    /// Its kind and one sentence that a page's author can act on. `stderr` is what the guest
    /// wrote to it last; `call` bounds what one call may move.
    pub(super) fn explain(self, limits: &Limits, call: u64, stderr: &str) -> (FailureKind, String) {
        match self {
            Stop::Trapped(error) => explain(&error, limits, call, stderr),
            Stop::Said(message) => (FailureKind::Error, message),
            Stop::Broken { kind, message } => (kind, message),
            Stop::Cut(Cut::Wall) => {
                let wall = span(limits.wall);
                let message = format!(
                    "took longer than its {wall}, waiting for the host included (limit `wall`)"
                );
                (FailureKind::Wall, message)
            }
            Stop::Cut(Cut::Panic(words)) => {
                let message = format!("wisr itself panicked, please report it: {words}");
                (FailureKind::Host, message)
            }
        }
    }

    /// Where the guest was, innermost first.
    pub(super) fn places(&self) -> Vec<Place> {
        match self {
            Stop::Trapped(error) => places(error),
            _ => Vec::new(),
        }
    }
}

impl From<wasmtime::Error> for Stop {
    fn from(error: wasmtime::Error) -> Self {
        Stop::Trapped(error)
    }
}

fn explain(
    error: &wasmtime::Error,
    limits: &Limits,
    call: u64,
    stderr: &str,
) -> (FailureKind, String) {
    if let Some(overrun) = error.downcast_ref::<Overrun>() {
        return overrun_words(*overrun, limits);
    }
    if let Some(I32Exit(code)) = error.downcast_ref() {
        let message = format!("called exit({code}) instead of returning");
        return (FailureKind::Exit, message);
    }
    if let Some(told) = resource_words(error, call) {
        return told;
    }
    if error.downcast_ref::<PoolConcurrencyLimitError>().is_some() {
        let message = format!("wisr ran out of instances, please report it: {error}");
        return (FailureKind::Host, message);
    }
    let message = match error.downcast_ref::<Trap>() {
        Some(trap) => trap_words(*trap, stderr),
        None => format!("trapped: {}", error.root_cause()),
    };
    (FailureKind::Trap, message)
}

fn overrun_words(overrun: Overrun, limits: &Limits) -> (FailureKind, String) {
    match overrun {
        Overrun::Cpu => {
            let cpu = span(limits.cpu);
            let message = format!("used more than its {cpu} of CPU time (limit `cpu`)");
            (FailureKind::Cpu, message)
        }
        Overrun::Memory {
            held,
            by_host,
            growth,
            limit,
        } => {
            let (held, growth, limit) = (size(held), size(growth), size(limit));
            let by_host = match by_host {
                0 => String::new(),
                by_host => format!(
                    ", {} of them in HTTP messages that the host holds for it",
                    size(by_host)
                ),
            };
            let message = format!(
                "asked for {growth} more memory than the {held} it held{by_host}, beyond its \
                 {limit} (limit `memory`)"
            );
            (FailureKind::Memory, message)
        }
        Overrun::Table(elements) => {
            let message = format!(
                "asked for a table of {elements} elements, it may have {TABLE_ELEMENTS} (fixed)"
            );
            (FailureKind::Resources, message)
        }
    }
}

/// wasmtime keeps the types of most of these to itself, so their words are all there is; the tests
/// with the hostile fixture fail when they change.
fn resource_words(error: &wasmtime::Error, call: u64) -> Option<(FailureKind, String)> {
    let told = |message: String| Some((FailureKind::Resources, message));
    if error
        .chain()
        .any(|cause| matches!(cause.downcast_ref(), Some(ResourceTableError::Full)))
    {
        return told(format!(
            "held more than {RESOURCES} streams, requests and timers at once (fixed): drop what is done"
        ));
    }
    let words = error.root_cause().to_string();
    if words.contains("store handle limit exceeded") {
        return told(format!(
            "held more than {HANDLES} handles at once (fixed): drop what is done"
        ));
    }
    if words.starts_with("requested len") {
        return told(format!(
            "asked for more than {} of random bytes at once (fixed)",
            size(RANDOM_BYTES)
        ));
    }
    if words.contains("total size of fields exceeds limit") {
        return told("made an HTTP message with too many or too large headers (fixed)".to_owned());
    }
    if words.contains("fuel allocated for hostcalls") {
        let call = size(call);
        // With a backtrace the guest was calling the host; without, it had returned.
        if error.downcast_ref::<WasmBacktrace>().is_some() {
            return told(format!("passed more than {call} to the host in one call"));
        }
        let message = format!(
            "returned more than {call}, headers and tags included (limits `page` and `props`)"
        );
        return Some((FailureKind::Output, message));
    }
    None
}

fn trap_words(trap: Trap, stderr: &str) -> String {
    match trap {
        Trap::UnreachableCodeReached => panic_words(stderr)
            .or_else(|| last_words(stderr))
            .unwrap_or_else(|| {
                "aborted (`unreachable` was executed, and stderr says nothing)".to_owned()
            }),
        Trap::StackOverflow => {
            let stack = size(STACK_BYTES as u64);
            format!("recursed too deeply: its stack of {stack} is full")
        }
        Trap::MemoryOutOfBounds => {
            "reached outside its memory: often recursion that is too deep, else a wild pointer"
                .to_owned()
        }
        trap => format!("trapped: {trap}"),
    }
}

/// The last panic that Rust reported: `thread 'main' (1) panicked at src/lib.rs:1:2:\nwords`.
fn panic_words(stderr: &str) -> Option<String> {
    let (_, told) = stderr.rsplit_once("panicked at ")?;
    let mut lines = told.lines();
    let place = lines.next()?.trim_end_matches(':');
    let words = lines.next().unwrap_or("").trim();
    Some(format!("panicked at {place}: {words}"))
}

/// The last line before it aborted, where C and others say why.
fn last_words(stderr: &str) -> Option<String> {
    let line = stderr.trim_end().lines().next_back()?.trim();
    Some(format!("aborted: {line}"))
}

/// Text by a guest, made fit for a log and for keeping: bounded, without control characters.
pub(super) fn brief(text: &str) -> String {
    clip(text, MESSAGE_BYTES)
}

/// The same of JSON, which stays JSON: what is hidden in a text stands there as an escape.
pub(super) fn brief_json(json: &str) -> String {
    let mut shown = String::with_capacity(json.len());
    for char in json.chars() {
        // Between its tokens JSON has line ends and tabs; within its texts it has neither.
        if is_hidden(char) && !char.is_ascii_whitespace() {
            for unit in char.encode_utf16(&mut [0; 2]) {
                // Writing to a text does not fail.
                let _ = write!(shown, "\\u{unit:04x}");
            }
        } else {
            shown.push(char);
        }
    }
    brief(&shown)
}

/// The same in lines, as stacks of other languages are.
pub(super) fn brief_lines(text: &str) -> String {
    cut(text, MESSAGE_BYTES, true)
}

pub(super) fn clip(text: &str, most: usize) -> String {
    cut(text, most, false)
}

fn cut(text: &str, most: usize, lines: bool) -> String {
    let end = text.floor_char_boundary(most);
    let mut brief = neutralise(&text.as_bytes()[..end], lines);
    if end < text.len() {
        brief.push_str(" …");
    }
    brief
}

/// An error and its causes. Modules choose the names in it, and so its length.
pub(super) fn story(error: &impl Display) -> String {
    brief(&format!("{error:#}"))
}

/// A size in the largest unit that keeps it readable.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [(u32, &str); 3] = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
    for (shift, unit) in UNITS {
        let tenths = (u128::from(bytes) * 10) >> shift;
        if tenths >= 10 {
            return match tenths % 10 {
                0 => format!("{} {unit}", tenths / 10),
                rest => format!("{}.{rest} {unit}", tenths / 10),
            };
        }
    }
    format!("{bytes} byte{}", plural(bytes))
}

/// A duration in words.
pub(super) fn span(time: Duration) -> String {
    if time.subsec_millis() == 0 {
        format!("{} s", time.as_secs())
    } else {
        format!("{} ms", time.as_millis())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_spans_read_well() {
        assert_eq!(size(1023), "1023 bytes");
        assert_eq!(size(128 << 20), "128 MiB");
        assert_eq!(size((8 << 20) + (1 << 19)), "8.5 MiB");
        assert_eq!(span(Duration::from_secs(1)), "1 s");
        assert_eq!(span(Duration::from_millis(1500)), "1500 ms");
    }

    #[test]
    fn a_guests_words_are_bounded_and_tame() {
        let long = "é".repeat(MESSAGE_BYTES);
        let brief = brief(&long);
        assert!(
            brief.len() < MESSAGE_BYTES + 8 && brief.ends_with("é …"),
            "{brief}"
        );
        assert_eq!(super::brief("two\nlines"), "two\\nlines");
        assert_eq!(brief_lines("two\nlines\x1b"), "two\nlines\\u{1b}");
    }

    #[test]
    fn json_stays_json_whatever_is_hidden_in_it() {
        let json = "{\"a\":\n\"\u{202e}\u{e0041}\"}";
        let shown = brief_json(json);
        assert!(!shown.contains(is_hidden), "{shown}");
        let read = |json: &str| serde_json::from_str::<serde_json::Value>(json).unwrap();
        assert_eq!(read(&shown.replace("\\n", "\n")), read(json));
    }

    #[test]
    fn a_panic_is_found_in_what_was_said() {
        let stderr =
            "log\n\nthread '<unnamed>' (1) panicked at src/page.rs:7:9:\nno such post\nnote: run\n";
        assert_eq!(
            panic_words(stderr).unwrap(),
            "panicked at src/page.rs:7:9: no such post"
        );
        assert_eq!(panic_words("nothing of the kind"), None);
    }

    #[test]
    fn an_abort_is_told_by_its_last_line() {
        let words = |stderr| trap_words(Trap::UnreachableCodeReached, stderr);
        assert_eq!(
            words("log\npage.c:7: no water\n"),
            "aborted: page.c:7: no water"
        );
        assert!(words(" \n").contains("stderr says nothing"));
    }
}
