//! `is_hidden`: characters that whoever reads a line does not see, or that turn the line around, and
//! how text of others is shown without them.

use std::borrow::Cow;

/// Whether a terminal obeys the character, a line ends at it, or it changes how others are shown
/// while it is not seen itself: controls, marks of direction (UAX #9), separators of lines, what has
/// no width, tags, and letters that are blank.
pub fn is_hidden(char: char) -> bool {
    char.is_control()
        || matches!(
            char,
            '\u{ad}'
                | '\u{34f}'
                | '\u{61c}'
                | '\u{115f}'..='\u{1160}'
                | '\u{17b4}'..='\u{17b5}'
                | '\u{180b}'..='\u{180f}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{3164}'
                | '\u{feff}'
                | '\u{ffa0}'
                | '\u{fff0}'..='\u{fffb}'
                | '\u{1bca0}'..='\u{1bca3}'
                | '\u{1d173}'..='\u{1d17a}'
                | '\u{e0000}'..='\u{e0fff}'
        )
}

/// Text of others for people to read: what is hidden is escaped as Rust does, `\u{202e}`. Tabs stay,
/// and the ends of `lines` where there may be several.
pub fn visible(text: &str, lines: bool) -> Cow<'_, str> {
    let stays = |char: char| char == '\t' || (lines && char == '\n') || !is_hidden(char);
    if text.chars().all(stays) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 8);
    for char in text.chars() {
        match stays(char) {
            true => shown.push(char),
            // `escape_default` would escape all that is not ASCII, but knows `\n` and `\r`.
            false => shown.extend(char.escape_default()),
        }
    }
    Cow::Owned(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What stands in no line that a person reads: one of each kind.
    const HIDDEN: [char; 28] = [
        '\0',
        '\x07',
        '\x1b',
        '\x7f',
        '\u{80}',
        '\u{85}',
        '\u{9b}',
        '\u{ad}',
        '\u{61c}',
        '\u{180e}',
        '\u{200b}',
        '\u{200d}',
        '\u{200e}',
        '\u{200f}',
        '\u{2028}',
        '\u{2029}',
        '\u{202a}',
        '\u{202e}',
        '\u{2060}',
        '\u{2066}',
        '\u{2069}',
        '\u{206f}',
        '\u{3164}',
        '\u{feff}',
        '\u{fff9}',
        '\u{1d173}',
        '\u{e0041}',
        '\u{e0100}',
    ];

    #[test]
    fn what_is_hidden_is_shown() {
        for char in HIDDEN {
            let shown = visible(&format!("a{char}b"), true).into_owned();
            assert!(shown.is_ascii() && shown.contains('\\'), "{shown}");
            assert!(!shown.chars().any(is_hidden), "{shown}");
        }
        let honest = "Grüße, 日本語, עברית, 👍🏽, ✈️, e\u{301}\tx";
        assert_eq!(visible(honest, false), honest);
        assert_eq!(visible("a\nb", true), "a\nb");
        assert_eq!(visible("a\nb", false), "a\\nb");
    }
}
