//! `unchanged`: whether the reader has the page already (RFC 9110 section 13). Pure.
//!
//! `If-Match` and `If-Unmodified-Since` guard changes, and nothing can be changed through a page;
//! a cache may leave them alone (sections 13.1.1 and 13.1.4).

use std::time::SystemTime;

use http::HeaderMap;
use http::header::{HeaderValue, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE};

use crate::page::Timestamp;

/// Whether a GET or HEAD is answered 304. In the order of section 13.2.2: `If-None-Match` alone
/// decides where there is one; else `If-Modified-Since`, in whole seconds.
pub(super) fn unchanged(headers: &HeaderMap, etag: &HeaderValue, generated: Timestamp) -> bool {
    if headers.contains_key(IF_NONE_MATCH) {
        return none_match(headers, etag);
    }
    let mut lines = headers.get_all(IF_MODIFIED_SINCE).iter();
    match (lines.next(), lines.next()) {
        (Some(line), None) => date_of(line).is_some_and(|date| whole_seconds(generated) <= date),
        // Two dates are no date (section 13.1.3: ignored when not a valid HTTP-date).
        _ => false,
    }
}

/// Whether a range may be taken of what there is now (RFC 9110 section 13.1.5): a part of something
/// else than the reader has the rest of is of no use. Without `if-range` it may.
pub(super) fn is_same(headers: &HeaderMap, etag: &HeaderValue, modified: Timestamp) -> bool {
    let mut lines = headers.get_all(IF_RANGE).iter();
    match (lines.next(), lines.next()) {
        (None, _) => true,
        // Strong comparison: a weak tag is never the same.
        (Some(line), None) if line == etag => true,
        (Some(line), None) => date_of(line) == Some(whole_seconds(modified)),
        (Some(_), Some(_)) => false,
    }
}

/// What goes into `last-modified`: HTTP dates have no fractions.
pub(super) fn whole_seconds(time: Timestamp) -> SystemTime {
    Timestamp::from_millis(time.as_millis() / 1000 * 1000).to_system_time()
}

/// Whether the reader's tags contain ours. What cannot be read matches nothing: a page sent in
/// full is never wrong, a 304 may be.
fn none_match(headers: &HeaderMap, etag: &HeaderValue) -> bool {
    let mut lines = headers.get_all(IF_NONE_MATCH).iter();
    if let (Some(only), None) = (lines.next(), lines.next())
        && trim(only.as_bytes()) == b"*"
    {
        return true;
    }
    headers
        .get_all(IF_NONE_MATCH)
        .iter()
        .any(|line| lists(line.as_bytes(), opaque(etag.as_bytes())))
}

/// Whether a list of entity tags has the one with this opaque part (weak comparison, section
/// 8.8.3.2). Reading stops at the first thing that is not a tag.
fn lists(mut rest: &[u8], wanted: &[u8]) -> bool {
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
        if tag == wanted {
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

    fn ask(lines: &[(http::HeaderName, &str)]) -> bool {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        unchanged(&headers, &HeaderValue::from_static("\"abc-br\""), MADE)
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
            ("Sun, 06 Nov 1994 08:49:38 GMT", true),
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
            assert_eq!(is_same(&headers, &etag, MADE), expected, "{line}");
        }
        assert!(is_same(&HeaderMap::new(), &etag, MADE));
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
            prop_assert_eq!(lists(line.as_bytes(), wanted_tag.as_bytes()), tags.contains(&wanted));
        }

        #[test]
        fn nothing_is_too_strange(line in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = lists(&line, b"\"a\"");
        }
    }
}
