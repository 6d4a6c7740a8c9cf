//! Numbers, times and foreign text, as people read them.

use std::fmt::Write;
use std::time::Duration;

use maud::{Markup, html};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::super::api::entries::State;
use crate::page::{Timestamp, is_hidden, plural};

/// RFC 3986 section 2.3, and `/`, which needs no escaping in a query.
const QUERY: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'/');

/// An address with one parameter.
pub(super) fn link(path: &str, name: &str, value: &str) -> String {
    format!("{path}?{name}={}", utf8_percent_encode(value, QUERY))
}

/// Text that somebody else wrote, with what could steer a terminal or turn the line around made
/// visible. Escaping for HTML comes with the page.
pub(super) fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '\n' | '\t' => shown.push(char),
            // U+2400 and on are the pictures of control characters.
            '\0'..='\u{1f}' => shown.extend(char::from_u32(0x2400 + u32::from(char))),
            '\u{7f}' => shown.push('\u{2421}'),
            hidden if is_hidden(hidden) => {
                let _ = write!(shown, "\u{27e8}U+{:04X}\u{27e9}", u32::from(hidden));
            }
            other => shown.push(other),
        }
    }
    shown
}

/// A message that begins like a sentence.
pub(super) fn sentence(message: &str) -> String {
    let mut chars = message.chars();
    let first = chars.next().map(|first| first.to_ascii_uppercase());
    visible(&first.into_iter().chain(chars).collect::<String>())
}

/// `1.4 MiB`.
pub(super) fn bytes(bytes: u64) -> String {
    bytesize::ByteSize::b(bytes).display().iec().to_string()
}

/// `1,234,567`.
pub(super) fn count(count: u64) -> String {
    let digits = count.to_string();
    let mut shown = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

/// `1.4 ms`.
pub(super) fn span(span: Duration) -> String {
    let micros = span.as_micros();
    match micros {
        0..1_000 => format!("{micros} µs"),
        1_000..1_000_000 => format!("{:.1} ms", micros as f64 / 1e3),
        _ => format!("{:.1} s", micros as f64 / 1e6),
    }
}

/// `3 minutes`, in the largest unit that fits.
pub(super) fn rough(span: Duration) -> String {
    let seconds = span.as_secs();
    let (count, unit) = match seconds {
        0..120 => (seconds, "second"),
        120..7_200 => (seconds / 60, "minute"),
        7_200..172_800 => (seconds / 3_600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    format!("{} {unit}{}", self::count(count), plural(count))
}

/// How long ago it was; the exact time when pointed at.
pub(super) fn ago(then: Timestamp, now: Timestamp) -> Markup {
    let exact = humantime::format_rfc3339_seconds(then.to_system_time()).to_string();
    html! { time datetime=(exact) title=(exact) { (rough(now.since(then))) " ago" } }
}

/// The exact time.
pub(super) fn at(then: Timestamp) -> Markup {
    let exact = humantime::format_rfc3339_seconds(then.to_system_time()).to_string();
    html! { time datetime=(exact) { (exact.replace('T', " ").replace('Z', " UTC")) } }
}

/// A state, in a word and a colour.
pub(super) fn state(state: State) -> Markup {
    let colour = match state {
        State::Fresh => "good",
        State::Stale => "warn",
        State::Expired | State::Orphan => "bad",
    };
    badge(colour, state.as_str())
}

/// A word and a colour: `good`, `warn`, `bad` or `plain`.
pub(super) fn badge(colour: &str, word: &str) -> Markup {
    html! { span class={ "badge " (colour) } { (word) } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_steers_terminals_and_lines_is_shown_instead() {
        for (text, expected) in [
            ("plain\n\ttext é 🦀", "plain\n\ttext é 🦀"),
            ("\u{1b}[31mred\u{7}\r", "␛[31mred␇␍"),
            ("\u{9b}2J\u{7f}", "⟨U+009B⟩2J␡"),
            (
                "a\u{202e}b\u{2066}c\u{200b}\u{feff}",
                "a⟨U+202E⟩b⟨U+2066⟩c⟨U+200B⟩⟨U+FEFF⟩",
            ),
        ] {
            assert_eq!(visible(text), expected);
        }
    }

    #[test]
    fn numbers_are_read_at_a_glance() {
        assert_eq!(
            [0, 999, 1_000, 1_234_567].map(count),
            ["0", "999", "1,000", "1,234,567"]
        );
        let secs = Duration::from_secs;
        assert_eq!(rough(secs(1)), "1 second");
        assert_eq!(rough(secs(7_199)), "119 minutes");
        assert_eq!(rough(secs(7_200)), "2 hours");
        assert_eq!(rough(secs(172_800_000)), "2,000 days");
        let micros = Duration::from_micros;
        assert_eq!(
            [7, 1_450, 2_000_000].map(|it| span(micros(it))),
            ["7 µs", "1.4 ms", "2.0 s"]
        );
    }

    #[test]
    fn a_path_survives_a_query() {
        assert_eq!(
            link("/page", "path", "/a?q=é&b"),
            "/page?path=/a%3Fq%3D%C3%A9%26b"
        );
    }
}
