//! `Verdict`: what the conditions of a reader come to (RFC 9110 section 13). Pure.

use std::time::SystemTime;

use http::HeaderMap;
use http::header::{
    HeaderName, HeaderValue, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE,
    IF_UNMODIFIED_SINCE,
};

use crate::page::Timestamp;

/// What a GET or HEAD is answered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// What there is.
    Send,
    /// 304: the reader has it.
    Unchanged,
    /// 412: it is not what the reader began with, as who goes on with a download may ask.
    Failed,
}

/// How tags are compared (section 8.8.3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Strong,
    Weak,
}

impl Verdict {
    /// What has a date. In the order of section 13.2.2: of each pair the tag alone decides where
    /// there is one; else the date, in whole seconds. `etag` is made for who has conditions only.
    pub(super) fn of(
        headers: &HeaderMap,
        etag: impl Fn() -> HeaderValue,
        modified: Timestamp,
    ) -> Self {
        Self::of_file(headers, etag, Some(modified))
    }

    /// The same for what may have no date, of which none says anything (sections 13.1.3 and 13.1.4).
    ///
    /// Only the very date that was told says that it is the same: a later one may be of what was
    /// there before, since a file may be replaced by an older one, and the clock that pages are
    /// dated by may be set back.
    pub(super) fn of_file(
        headers: &HeaderMap,
        etag: impl Fn() -> HeaderValue,
        modified: Option<Timestamp>,
    ) -> Self {
        let modified = modified.map(whole_seconds);
        let failed = match matches(headers, &IF_MATCH, &etag, Comparison::Strong) {
            Some(is_it) => !is_it,
            None => {
                let date = modified.zip(date(headers, &IF_UNMODIFIED_SINCE));
                date.is_some_and(|(modified, date)| modified > date)
            }
        };
        if failed {
            return Self::Failed;
        }
        let unchanged = match matches(headers, &IF_NONE_MATCH, &etag, Comparison::Weak) {
            Some(has_it) => has_it,
            None => modified.is_some() && date(headers, &IF_MODIFIED_SINCE) == modified,
        };
        match unchanged {
            true => Self::Unchanged,
            false => Self::Send,
        }
    }
}

/// Whether a range may be taken of what there is now (RFC 9110 section 13.1.5): a part of something
/// else than the reader has the rest of is of no use. Without `if-range` it may.
pub(super) fn is_same(
    headers: &HeaderMap,
    etag: &HeaderValue,
    modified: Option<Timestamp>,
) -> bool {
    let mut lines = headers.get_all(IF_RANGE).iter();
    match (lines.next(), lines.next()) {
        (None, _) => true,
        // Strong comparison: a weak tag is never the same.
        (Some(line), None) if line == etag => true,
        (Some(line), None) => {
            let modified = modified.map(whole_seconds);
            modified.is_some() && date_of(line) == modified
        }
        (Some(_), Some(_)) => false,
    }
}

/// What goes into `last-modified`: HTTP dates have no fractions.
pub(super) fn whole_seconds(time: Timestamp) -> SystemTime {
    Timestamp::from_millis(time.as_millis() / 1000 * 1000).to_system_time()
}

/// Whether the reader's tags of this name contain ours, which is a strong one; none if there are
/// none. What cannot be read matches nothing: a page sent in full is never wrong, a 304 may be.
fn matches(
    headers: &HeaderMap,
    name: &HeaderName,
    etag: impl Fn() -> HeaderValue,
    comparison: Comparison,
) -> Option<bool> {
    let mut lines = headers.get_all(name).iter();
    let (first, more) = (lines.next()?, lines.next());
    if more.is_none() && trim(first.as_bytes()) == b"*" {
        return Some(true);
    }
    let etag = etag();
    let wanted = opaque(etag.as_bytes());
    let mut lines = headers.get_all(name).iter();
    Some(lines.any(|line| lists(line.as_bytes(), wanted, comparison)))
}

/// The one date of this name. Two dates are no date (section 13.1.3: ignored when not a valid
/// HTTP-date).
fn date(headers: &HeaderMap, name: &HeaderName) -> Option<SystemTime> {
    let mut lines = headers.get_all(name).iter();
    match (lines.next(), lines.next()) {
        (Some(line), None) => date_of(line),
        _ => None,
    }
}

/// Whether a list of entity tags has the one with this opaque part. Reading stops at the first thing
/// that is not a tag.
fn lists(mut rest: &[u8], wanted: &[u8], comparison: Comparison) -> bool {
    loop {
        rest = trim_start(rest);
        while let [b',', after @ ..] = rest {
            rest = trim_start(after);
        }
        let Some((tag, after)) = entity_tag(rest) else {
            return false;
        };
        let after = trim_start(after);
        if !matches!(after, [] | [b',', ..]) {
            return false;
        }
        if tag == wanted && (comparison == Comparison::Weak || rest.starts_with(b"\"")) {
            return true;
        }
        rest = after;
    }
}

/// The opaque part of the tag at the start, quotes included, and what follows it. A comma inside
/// the quotes belongs to the tag.
fn entity_tag(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let quoted = opaque(text);
    let [b'"', inner @ ..] = quoted else {
        return None;
    };
    let end = inner.iter().position(|byte| *byte == b'"')?;
    let valid = |byte: &u8| matches!(byte, 0x21 | 0x23..=0x7e | 0x80..);
    inner[..end]
        .iter()
        .all(valid)
        .then(|| quoted.split_at(end + 2))
}

/// The tag without its weakness, which is written in upper case only.
fn opaque(tag: &[u8]) -> &[u8] {
    tag.strip_prefix(b"W/").unwrap_or(tag)
}

fn date_of(line: &HeaderValue) -> Option<SystemTime> {
    httpdate::parse_http_date(line.to_str().ok()?.trim()).ok()
}

fn trim(text: &[u8]) -> &[u8] {
    let end = text
        .iter()
        .rposition(|byte| !matches!(byte, b' ' | b'\t'))
        .map_or(0, |last| last + 1);
    trim_start(&text[..end])
}

fn trim_start(text: &[u8]) -> &[u8] {
    let start = text
        .iter()
        .position(|byte| !matches!(byte, b' ' | b'\t'))
        .unwrap_or(text.len());
    &text[start..]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Sun, 06 Nov 1994 08:49:37 GMT and a bit.
    const MADE: Timestamp = Timestamp::from_millis(784_111_777_900);

    fn verdict(lines: &[(HeaderName, &str)]) -> Verdict {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        Verdict::of(&headers, || HeaderValue::from_static("\"abc-br\""), MADE)
    }

    fn ask(lines: &[(HeaderName, &str)]) -> bool {
        verdict(lines) == Verdict::Unchanged
    }

    #[test]
    fn tags() {
        for (line, expected) in [
            ("\"abc-br\"", true),
            ("W/\"abc-br\"", true),
            ("*", true),
            (" * ", true),
            ("\"x\", \"abc-br\"", true),
            ("\"x\",\t W/\"abc-br\" , \"y\"", true),
            (",,\"abc-br\",", true),
            ("\"a,b\", \"abc-br\"", true),
            ("\"abc-br\" garbage", false),
            ("garbage, \"abc-br\"", false),
            ("\"x\" \"abc-br\"", false),
            ("abc-br", false),
            ("\"abc\"", false),
            ("w/\"abc-br\"", false),
            ("\"abc-br", false),
            ("\"x\", *", false),
            ("", false),
            (",", false),
        ] {
            assert_eq!(ask(&[(IF_NONE_MATCH, line)]), expected, "{line:?}");
        }
        assert!(ask(&[
            (IF_NONE_MATCH, "\"x\""),
            (IF_NONE_MATCH, "\"abc-br\"")
        ]));
    }

    #[test]
    fn dates_in_all_three_forms() {
        for (line, expected) in [
            ("Sun, 06 Nov 1994 08:49:37 GMT", true),
            ("Sunday, 06-Nov-94 08:49:37 GMT", true),
            ("Sun Nov  6 08:49:37 1994", true),
            ("Sun, 06 Nov 1994 08:49:38 GMT", false),
            ("Sun, 06 Nov 1994 08:49:36 GMT", false),
            ("yesterday", false),
            ("", false),
        ] {
            assert_eq!(ask(&[(IF_MODIFIED_SINCE, line)]), expected, "{line:?}");
        }
        let date = "Sun, 06 Nov 1994 08:49:37 GMT";
        assert!(!ask(&[
            (IF_MODIFIED_SINCE, date),
            (IF_MODIFIED_SINCE, date)
        ]));
    }

    #[test]
    fn a_tag_takes_precedence_over_a_date_even_when_it_cannot_be_read() {
        let date = "Sun, 06 Nov 1994 08:49:37 GMT";
        assert!(!ask(&[(IF_NONE_MATCH, "\"x\""), (IF_MODIFIED_SINCE, date)]));
        assert!(!ask(&[
            (IF_NONE_MATCH, "garbage"),
            (IF_MODIFIED_SINCE, date)
        ]));
        assert!(ask(&[
            (IF_NONE_MATCH, "\"abc-br\""),
            (IF_MODIFIED_SINCE, "Sun, 06 Nov 1994 08:49:36 GMT"),
        ]));
    }

    #[test]
    fn who_means_something_else_is_told_so_before_all() {
        use Verdict::{Failed, Send, Unchanged};
        let (date, before) = (
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 08:49:36 GMT",
        );
        for (lines, expected) in [
            (&[(IF_MATCH, "\"abc-br\"")][..], Send),
            (&[(IF_MATCH, "*")], Send),
            (&[(IF_MATCH, "\"x\", \"abc-br\"")], Send),
            (&[(IF_MATCH, "W/\"abc-br\"")], Failed),
            (&[(IF_MATCH, "\"x\"")], Failed),
            (&[(IF_MATCH, "garbage")], Failed),
            (&[(IF_UNMODIFIED_SINCE, date)], Send),
            (&[(IF_UNMODIFIED_SINCE, before)], Failed),
            (&[(IF_UNMODIFIED_SINCE, "yesterday")], Send),
            (
                &[(IF_MATCH, "\"abc-br\""), (IF_UNMODIFIED_SINCE, before)],
                Send,
            ),
            (
                &[(IF_MATCH, "\"x\""), (IF_NONE_MATCH, "\"abc-br\"")],
                Failed,
            ),
            (&[(IF_MATCH, "*"), (IF_NONE_MATCH, "\"abc-br\"")], Unchanged),
        ] {
            assert_eq!(verdict(lines), expected, "{lines:?}");
        }
    }

    #[test]
    fn what_may_be_put_back_is_the_same_by_its_very_date_only() {
        use Verdict::{Failed, Send, Unchanged};
        let (date, before, after) = (
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 08:49:36 GMT",
            "Sun, 06 Nov 1994 08:49:38 GMT",
        );
        for (name, value, expected, dateless) in [
            (IF_MODIFIED_SINCE, date, Unchanged, Send),
            (IF_MODIFIED_SINCE, before, Send, Send),
            (IF_MODIFIED_SINCE, after, Send, Send),
            (IF_UNMODIFIED_SINCE, before, Failed, Send),
            (IF_UNMODIFIED_SINCE, date, Send, Send),
            (IF_NONE_MATCH, "\"abc\"", Unchanged, Unchanged),
        ] {
            let headers = HeaderMap::from_iter([(name, HeaderValue::from_static(value))]);
            let told = |modified| {
                Verdict::of_file(&headers, || HeaderValue::from_static("\"abc\""), modified)
            };
            assert_eq!(
                (told(Some(MADE)), told(None)),
                (expected, dateless),
                "{headers:?}"
            );
        }
    }

    #[test]
    fn a_range_is_taken_of_the_same_thing_only() {
        let etag = HeaderValue::from_static("\"abc\"");
        for (line, expected) in [
            ("\"abc\"", true),
            ("W/\"abc\"", false),
            ("\"x\"", false),
            ("*", false),
            ("Sun, 06 Nov 1994 08:49:37 GMT", true),
            ("Sun, 06 Nov 1994 08:49:38 GMT", false),
        ] {
            let headers = HeaderMap::from_iter([(IF_RANGE, HeaderValue::from_static(line))]);
            assert_eq!(is_same(&headers, &etag, Some(MADE)), expected, "{line}");
            let dateless = expected && line.starts_with('"');
            assert_eq!(is_same(&headers, &etag, None), dateless, "{line}");
        }
        assert!(is_same(&HeaderMap::new(), &etag, Some(MADE)));
    }

    #[test]
    fn no_condition_is_no_match() {
        assert!(!ask(&[]));
    }

    proptest! {
        /// The model: a well-formed list matches exactly when it has the tag.
        #[test]
        fn a_list_matches_exactly_its_members(tags in prop::collection::vec("[a-c,]{0,2}", 0..5), wanted in "[a-c,]{0,2}") {
            let line = tags.iter().map(|tag| format!("W/\"{tag}\"")).collect::<Vec<_>>().join(" , ");
            let wanted_tag = format!("\"{wanted}\"");
            prop_assert_eq!(lists(line.as_bytes(), wanted_tag.as_bytes(), Comparison::Weak), tags.contains(&wanted));
        }

        #[test]
        fn nothing_is_too_strange(line in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = lists(&line, b"\"a\"", Comparison::Strong);
        }
    }
}
