//! `Template`: a path or a tag with places for what a payload says: `/posts/{/fields/slug}`.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use super::pointer::{Pointer, words};

/// RFC 3986 section 2.3: all but the unreserved is escaped, so that no value ends its segment.
const VALUE: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// Paths or tags of one template: as many as one call takes.
const MAX_EXPANDED: usize = 1_000;

/// Bytes of a path or a tag: as many as a URL has. A long value in each of a thousand texts would
/// be a thousand long values.
const MAX_BYTES: usize = 8 * 1024;

/// Text with places.
#[derive(Debug, Clone)]
pub(super) struct Template {
    kind: Kind,
    pieces: Vec<Piece>,
}

/// What a template is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A path: values are escaped, each stays in its segment.
    Path,
    /// A tag: values are as they are.
    Tag,
}

#[derive(Debug, Clone)]
enum Piece {
    Text(String),
    /// `{/slug}`: one segment of a path, whatever it holds.
    Value(Pointer),
    /// `{+/path}`: several segments (compare RFC 6570 section 3.2.3).
    Segments(Pointer),
}

/// Why a payload makes no path or tag.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unmapped {
    /// Nothing is there.
    #[error("the payload has nothing at `{0}`")]
    Missing(String),
    /// What is there has no words.
    #[error("what the payload has at `{0}` is no text, number or truth value")]
    Wordless(String),
    /// A value would lead out of its place.
    #[error("the payload makes the path {0:?}, which has an empty or dot segment")]
    Escapes(String),
    /// There are too many.
    #[error("the payload makes more than {MAX_EXPANDED} paths or tags")]
    TooMany,
    /// One is too long.
    #[error("the payload makes a path or a tag of more than {MAX_BYTES} bytes")]
    TooLong,
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn parse(kind: Kind, written: &str) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut rest = written;
        while let Some((text, after)) = rest.split_once('{') {
            let Some((pointer, after)) = after.split_once('}') else {
                return Err(format!("{written:?}: a `{{` has no `}}`"));
            };
            if !text.is_empty() {
                pieces.push(Piece::Text(text.to_owned()));
            }
            pieces.push(match pointer.strip_prefix('+') {
                Some(_) if kind == Kind::Tag => {
                    let words = format!("{written:?}: `{{+` is for paths; a tag takes `{{/…}}`");
                    return Err(words);
                }
                Some(pointer) => Piece::Segments(Pointer::parse(pointer)?),
                None => Piece::Value(Pointer::parse(pointer)?),
            });
            rest = after;
        }
        if rest.contains('}') {
            return Err(format!("{written:?}: a `}}` has no `{{`"));
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(rest.to_owned()));
        }
        let begins_well = match pieces.first() {
            Some(Piece::Text(text)) => text.starts_with('/'),
            Some(Piece::Segments(_)) => true,
            Some(Piece::Value(_)) | None => false,
        };
        if kind == Kind::Path && !begins_well {
            return Err(format!("{written:?}: a path begins with `/`"));
        }
        if pieces.is_empty() {
            return Err("a tag has at least one letter".to_owned());
        }
        Ok(Self { kind, pieces })
    }

    /// What a payload makes of it: one text for each combination of its values; none where an array
    /// has no items.
    ///
    /// # Errors
    /// [`Unmapped`].
    pub(super) fn expand(&self, payload: &Value) -> Result<Vec<String>, Unmapped> {
        let mut made = vec![String::new()];
        for piece in &self.pieces {
            let values = match piece {
                Piece::Text(text) => vec![text.clone()],
                Piece::Value(pointer) => {
                    let values = values(pointer, payload)?.into_iter();
                    values.map(|value| self.escaped(&value)).collect()
                }
                Piece::Segments(pointer) => {
                    let values = values(pointer, payload)?.into_iter();
                    values.map(|value| segments(&value)).collect()
                }
            };
            if made.len() * values.len() > MAX_EXPANDED {
                return Err(Unmapped::TooMany);
            }
            if longest(&made) + longest(&values) > MAX_BYTES {
                return Err(Unmapped::TooLong);
            }
            let all = made.iter();
            made = all
                .flat_map(|text| values.iter().map(move |value| format!("{text}{value}")))
                .collect();
        }
        match made
            .iter()
            .find(|path| self.kind == Kind::Path && !is_sound(path))
        {
            Some(path) => Err(Unmapped::Escapes(path.clone())),
            None => Ok(made),
        }
    }

    fn escaped(&self, value: &str) -> String {
        match self.kind {
            Kind::Path => utf8_percent_encode(value, VALUE).to_string(),
            Kind::Tag => value.to_owned(),
        }
    }
}

/// The words at a pointer; those of all items where an array is.
fn values(pointer: &Pointer, payload: &Value) -> Result<Vec<String>, Unmapped> {
    let missing = || Unmapped::Missing(pointer.to_string());
    let found = pointer.select(payload).ok_or_else(missing)?;
    let items = found.into_iter().flat_map(|value| match value {
        Value::Array(items) => items.as_slice(),
        other => std::slice::from_ref(other),
    });
    items
        .map(|value| match value {
            // Content systems say so of fields that are not filled in.
            Value::Null => Err(missing()),
            value => words(value).ok_or_else(|| Unmapped::Wordless(pointer.to_string())),
        })
        .collect()
}

fn longest(texts: &[String]) -> usize {
    texts.iter().map(String::len).max().unwrap_or(0)
}

fn segments(value: &str) -> String {
    let escaped = value
        .split('/')
        .map(|part| utf8_percent_encode(part, VALUE).to_string());
    escaped.collect::<Vec<_>>().join("/")
}

/// Whether every segment is one: values that are empty or dots would name another page.
fn is_sound(made: &str) -> bool {
    let path = made.split_once('?').map_or(made, |(path, _)| path);
    let Some(rest) = path.strip_prefix('/') else {
        return false;
    };
    rest.is_empty()
        || rest
            .split('/')
            .all(|segment| !matches!(segment, "" | "." | ".."))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn expand(kind: Kind, template: &str, payload: &Value) -> Result<Vec<String>, Unmapped> {
        Template::parse(kind, template).unwrap().expand(payload)
    }

    #[test]
    fn no_value_leaves_its_segment() {
        for (value, expected) in [
            ("a/b", Some("/posts/a%2Fb")),
            ("a?b=c#d", Some("/posts/a%3Fb%3Dc%23d")),
            ("%2e%2e", Some("/posts/%252e%252e")),
            ("..a", Some("/posts/..a")),
            ("caf\u{e9} \r\n", Some("/posts/caf%C3%A9%20%0D%0A")),
            ("..", None),
            (".", None),
            ("", None),
        ] {
            let made = expand(Kind::Path, "/posts/{/slug}", &json!({"slug": value}));
            match expected {
                Some(expected) => assert_eq!(made.unwrap(), [expected], "{value}"),
                None => assert!(matches!(made, Err(Unmapped::Escapes(_))), "{value}"),
            }
        }
    }

    #[test]
    fn several_segments_stay_below_their_place() {
        let made = |template, value: &str| {
            expand(Kind::Path, template, &json!({"path": value}))
                .ok()
                .map(|made| made.concat())
        };
        assert_eq!(
            made("/docs/{+/path}", "a/b c").as_deref(),
            Some("/docs/a/b%20c")
        );
        assert_eq!(made("{+/path}", "/a/b").as_deref(), Some("/a/b"));
        assert_eq!(
            made("/search?q={/path}", "a&b/c").as_deref(),
            Some("/search?q=a%26b%2Fc")
        );
        for value in ["../x", "a//b", "a/./b", "/a", "a/"] {
            assert_eq!(made("/docs/{+/path}", value), None, "{value}");
        }
        for value in ["a", "//evil", "https://x"] {
            assert_eq!(made("{+/path}", value), None, "{value}");
        }
    }

    #[test]
    fn arrays_make_several() {
        let payload =
            json!({"ids": [1, 2], "langs": ["de", "fr"], "none": [], "many": vec![0; 40]});
        let made = expand(Kind::Path, "/{/langs}/{/ids}", &payload).unwrap();
        assert_eq!(made, ["/de/1", "/de/2", "/fr/1", "/fr/2"]);
        assert_eq!(
            expand(Kind::Tag, "id:{/ids/*}", &payload).unwrap(),
            ["id:1", "id:2"]
        );
        assert!(expand(Kind::Tag, "{/none}", &payload).unwrap().is_empty());
        assert_eq!(
            expand(Kind::Tag, "{/many}{/many}", &payload),
            Err(Unmapped::TooMany)
        );
        let long = json!({"text": "x".repeat(MAX_BYTES / 2 + 1)});
        assert!(expand(Kind::Tag, "{/text}", &long).is_ok());
        let twice = expand(Kind::Path, "/{/text}/{/text}", &long);
        assert_eq!(twice, Err(Unmapped::TooLong));
    }

    #[test]
    fn what_is_missing_is_named() {
        let payload = json!({"a": null, "b": {}, "t": true});
        let missing = Unmapped::Missing("/a".to_owned());
        assert_eq!(expand(Kind::Tag, "x:{/a}", &payload), Err(missing));
        let missing = Unmapped::Missing("/c/d".to_owned());
        assert_eq!(expand(Kind::Tag, "x:{/c/d}", &payload), Err(missing));
        let wordless = Unmapped::Wordless("/b".to_owned());
        assert_eq!(expand(Kind::Tag, "x:{/b}", &payload), Err(wordless));
        assert_eq!(expand(Kind::Tag, "{/t}/..", &payload).unwrap(), ["true/.."]);
    }

    #[test]
    fn a_template_is_checked_before_it_is_used() {
        for (kind, written, part) in [
            (Kind::Path, "posts/{/slug}", "begins with `/`"),
            (Kind::Path, "{/slug}", "begins with `/`"),
            (Kind::Path, "/posts/{slug}", "no JSON pointer"),
            (Kind::Path, "/posts/{/slug", "no `}`"),
            (Kind::Path, "/posts/}", "no `{`"),
            (Kind::Tag, "{+/slug}", "is for paths"),
            (Kind::Tag, "", "at least one letter"),
        ] {
            let mistake = Template::parse(kind, written).unwrap_err();
            assert!(mistake.contains(part), "{written}: {mistake}");
        }
    }
}
