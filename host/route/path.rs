//! `Path`: the one spelling of a request path, so that no page has two keys.

use std::fmt;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// RFC 3986 section 3.3: a `pchar` stands for itself, so it is never escaped in the normal form.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'!')
    .remove(b'$')
    .remove(b'&')
    .remove(b'\'')
    .remove(b'(')
    .remove(b')')
    .remove(b'*')
    .remove(b'+')
    .remove(b',')
    .remove(b';')
    .remove(b'=')
    .remove(b':')
    .remove(b'@');

/// Segments in a path or a pattern: far more than any site has, few enough that matching stays
/// cheap however long a URL the listener lets in.
pub const MAX_SEGMENTS: usize = 256;

/// A canonical path: `/posts/caf%C3%A9`. Every character that may stand for itself does, all others
/// are escaped in upper case; no empty or dot segments, no trailing slash. Two paths are equal
/// exactly when their decoded segments are.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Path {
    text: String,
    /// Empty when nothing is escaped: the segments are then slices of `text`.
    decoded: Vec<String>,
}

/// Why a request path is not a [`Path`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// It means nothing: 400.
    #[error("{0}")]
    BadEscape(BadPath),
    /// It means what this canonical path means: 308, with the query appended.
    #[error("the page is at {0}")]
    Elsewhere(String),
}

/// What makes a path meaningless.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadPath {
    /// It does not begin with a slash.
    #[error("a path begins with `/`")]
    Relative,
    /// A `%` without two hexadecimal digits after it.
    #[error("`%` in a path is followed by two hexadecimal digits; a percent sign itself is `%25`")]
    Escape,
    /// The escapes do not decode to UTF-8.
    #[error("the escapes of a path decode to UTF-8")]
    Utf8,
    /// A NUL, which no page can mean.
    #[error("a path has no NUL")]
    Nul,
    /// More than [`MAX_SEGMENTS`].
    #[error("a path has at most {MAX_SEGMENTS} segments")]
    TooLong,
}

impl Path {
    /// Reads a path as it stands in a request target: escaped, without the query.
    ///
    /// # Errors
    /// [`PathError::BadEscape`] when it means nothing, [`PathError::Elsewhere`] when empty segments,
    /// a trailing slash or dot segments (`%2e` too) make it another spelling of a path.
    pub fn parse(raw: &str) -> Result<Self, PathError> {
        let Some(rest) = raw.strip_prefix('/') else {
            return Err(PathError::BadEscape(BadPath::Relative));
        };
        if is_plain(rest) {
            return Ok(Self {
                text: raw.to_owned(),
                decoded: Vec::new(),
            });
        }
        let (segments, moved) = normalise(rest).map_err(PathError::BadEscape)?;
        let path = Self::of_segments(segments);
        if moved {
            Err(PathError::Elsewhere(path.text))
        } else {
            Ok(path)
        }
    }

    /// The path of decoded segments, each of which is one that a request can have.
    pub(super) fn of_segments(segments: Vec<String>) -> Self {
        let mut text = String::new();
        for segment in &segments {
            text.push('/');
            text.extend(utf8_percent_encode(segment, SEGMENT));
        }
        if text.is_empty() {
            text.push('/');
        }
        let escaped = text.contains('%');
        Self {
            text,
            decoded: if escaped { segments } else { Vec::new() },
        }
    }

    /// The path, escaped: safe as a URL, a `Location` and a key.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The segments, decoded; `/` has none.
    pub fn segments(&self) -> Segments<'_> {
        if self.decoded.is_empty() {
            Segments::Plain(self.text.strip_prefix('/').unwrap_or(&self.text))
        } else {
            Segments::Decoded(self.decoded.iter())
        }
    }
}

/// What is left of a path's segments. A copy starts where this one stands.
#[derive(Debug, Clone)]
pub enum Segments<'a> {
    /// The rest of a path without escapes, without its slash.
    Plain(&'a str),
    /// The rest of a path with escapes.
    Decoded(std::slice::Iter<'a, String>),
}

impl<'a> Iterator for Segments<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let rest = match self {
            Self::Decoded(segments) => return segments.next().map(String::as_str),
            Self::Plain("") => return None,
            Self::Plain(rest) => rest,
        };
        // Segments are short: searching them by the word, as `split_once` does, costs more.
        let end = rest.bytes().position(|byte| byte == b'/');
        let segment;
        (segment, *rest) = end.map_or((*rest, ""), |end| (&rest[..end], &rest[end + 1..]));
        Some(segment)
    }
}

/// Whether the path after its first slash is canonical and has no escapes: nearly every request's.
fn is_plain(rest: &str) -> bool {
    let is_literal = |byte: &u8| {
        byte.is_ascii_alphanumeric()
            || matches!(
                byte,
                b'-' | b'.'
                    | b'_'
                    | b'~'
                    | b'!'
                    | b'$'
                    | b'&'
                    | b'\''
                    | b'('
                    | b')'
                    | b'*'
                    | b'+'
                    | b','
                    | b';'
                    | b'='
                    | b':'
                    | b'@'
            )
    };
    let mut count = 0;
    rest.is_empty()
        || rest.as_bytes().split(|byte| *byte == b'/').all(|segment| {
            count += 1;
            count <= MAX_SEGMENTS
                && !matches!(segment, b"" | b"." | b"..")
                && segment.iter().all(is_literal)
        })
}

/// The decoded segments, and whether there were segments that mean nothing (RFC 3986 section 5.2.4).
fn normalise(rest: &str) -> Result<(Vec<String>, bool), BadPath> {
    let mut segments = Vec::new();
    let mut moved = false;
    for raw in rest.split('/') {
        let segment = decode(raw)?;
        match segment.as_str() {
            "" | "." => moved = true,
            ".." => {
                segments.pop();
                moved = true;
            }
            _ if segments.len() == MAX_SEGMENTS => return Err(BadPath::TooLong),
            _ => segments.push(segment),
        }
    }
    Ok((segments, moved))
}

fn decode(raw: &str) -> Result<String, BadPath> {
    let mut escapes = raw.split('%');
    escapes.next();
    for after in escapes {
        let digits = after.as_bytes().get(..2).ok_or(BadPath::Escape)?;
        if !digits.iter().all(u8::is_ascii_hexdigit) {
            return Err(BadPath::Escape);
        }
    }
    let text = percent_decode_str(raw)
        .decode_utf8()
        .map_err(|_| BadPath::Utf8)?;
    if text.contains('\0') {
        return Err(BadPath::Nul);
    }
    Ok(text.into_owned())
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn canonical(raw: &str) -> String {
        Path::parse(raw).unwrap().as_str().to_owned()
    }

    fn elsewhere(raw: &str) -> String {
        match Path::parse(raw) {
            Err(PathError::Elsewhere(normal)) => normal,
            other => panic!("{raw}: {other:?}"),
        }
    }

    #[test]
    fn one_page_has_one_spelling() {
        assert_eq!(canonical("/"), "/");
        assert_eq!(canonical("/posts/%61bc"), "/posts/abc");
        assert_eq!(canonical("/caf%c3%a9"), "/caf%C3%A9");
        assert_eq!(canonical("/café"), "/caf%C3%A9");
        assert_eq!(canonical("/a+b;v=1@:!"), "/a+b;v=1@:!");
        assert_eq!(canonical("/%2B%20%3F%23"), "/+%20%3F%23");
        assert_eq!(canonical("/a\\b"), "/a%5Cb");
        assert_eq!(canonical("/Posts"), "/Posts");
    }

    #[test]
    fn an_escaped_slash_stays_inside_its_segment() {
        let path = Path::parse("/posts/%2e%2e%2fabout").unwrap();
        assert_eq!(path.as_str(), "/posts/..%2Fabout");
        assert_eq!(path.segments().collect::<Vec<_>>(), ["posts", "../about"]);
        let path = Path::parse("/%252F").unwrap();
        assert_eq!(path.segments().collect::<Vec<_>>(), ["%2F"]);
    }

    #[test]
    fn other_spellings_lead_to_the_normal_form_at_once() {
        assert_eq!(elsewhere("/posts//1/"), "/posts/1");
        assert_eq!(elsewhere("/posts/%2E%2e/./about//"), "/about");
        assert_eq!(elsewhere("/../../x"), "/x");
        assert_eq!(elsewhere("//"), "/");
        assert_eq!(elsewhere("/%61/."), "/a");
    }

    #[test]
    fn a_redirect_never_leaves_the_host() {
        assert_eq!(elsewhere("//evil.example/x"), "/evil.example/x");
        assert_eq!(elsewhere("/..//evil.example"), "/evil.example");
        assert_eq!(elsewhere("/./\\evil.example"), "/%5Cevil.example");
        assert_eq!(elsewhere("/.//%2Fevil.example"), "/%2Fevil.example");
    }

    #[test]
    fn what_means_nothing_is_refused() {
        for (raw, reason) in [
            ("", BadPath::Relative),
            ("*", BadPath::Relative),
            ("/%", BadPath::Escape),
            ("/%zz", BadPath::Escape),
            ("/a%1", BadPath::Escape),
            ("/%é", BadPath::Escape),
            ("/%+1", BadPath::Escape),
            ("/%ff", BadPath::Utf8),
            ("/%c0%af", BadPath::Utf8),
            ("/%00", BadPath::Nul),
            ("/a/../%zz/", BadPath::Escape),
        ] {
            assert_eq!(Path::parse(raw), Err(PathError::BadEscape(reason)), "{raw}");
        }
        let most = "/a".repeat(MAX_SEGMENTS);
        assert!(Path::parse(&most).is_ok());
        for over in [format!("{most}/a"), format!("{most}/%61")] {
            let refused = Err(PathError::BadEscape(BadPath::TooLong));
            assert_eq!(Path::parse(&over), refused);
        }
    }

    fn segment() -> impl Strategy<Value = String> {
        prop_oneof!["[ab./%\\\\é ?+]{1,4}", "[^\0]{1,3}"]
            .prop_filter("a request cannot have it", |text| {
                text != "." && text != ".."
            })
    }

    fn raw_path() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            Just("/".to_owned()),
            Just("//".to_owned()),
            Just("%2e".to_owned()),
            Just(".".to_owned()),
            Just("..".to_owned()),
            Just("%2F".to_owned()),
            Just("\\".to_owned()),
            "[a%é:]{1,3}",
            any::<u8>().prop_map(|byte| format!("%{byte:02x}")),
            ".{0,3}",
        ];
        prop::collection::vec(piece, 0..12).prop_map(|pieces| format!("/{}", pieces.concat()))
    }

    proptest! {
        #[test]
        fn the_normal_form_is_a_fixed_point(raw in raw_path()) {
            let normal = match Path::parse(&raw) {
                Ok(path) => path.text,
                Err(PathError::Elsewhere(normal)) => normal,
                Err(PathError::BadEscape(_)) => return Ok(()),
            };
            prop_assert!(normal.starts_with('/') && !normal.starts_with("//"));
            prop_assert!(normal.is_ascii() && !normal.contains(['\\', '?', '#', ' ']));
            let again = Path::parse(&normal);
            prop_assert_eq!(again.map(|path| path.text), Ok(normal));
        }

        #[test]
        fn paths_are_equal_when_their_segments_are(
            one in prop::collection::vec(segment(), 0..4), two in prop::collection::vec(segment(), 0..4),
        ) {
            let (left, right) = (Path::of_segments(one.clone()), Path::of_segments(two.clone()));
            prop_assert_eq!(left.as_str() == right.as_str(), one == two);
            prop_assert_eq!(left == right, one == two);
            let escaped: String = one.iter().flat_map(|segment| {
                std::iter::once("/".to_owned()).chain(segment.bytes().map(|byte| format!("%{byte:02x}")))
            }).collect();
            let parsed = Path::parse(if escaped.is_empty() { "/" } else { &escaped });
            prop_assert_eq!(parsed.as_ref(), Ok(&left));
            prop_assert_eq!(left.segments().collect::<Vec<_>>(), one);
        }
    }
}
