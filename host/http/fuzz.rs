//! What clients send, against models and against the parsers of others.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::HeaderMap;
use http::header::{ACCEPT_ENCODING, HeaderValue, IF_MODIFIED_SINCE, IF_NONE_MATCH};
use proptest::prelude::*;
use proptest::sample::select;

use super::conditional::Verdict;
use super::locate::{allowed, pairs};
use super::negotiate::choose;
use crate::fuzz;
use crate::page::{Coding, PageKey, Payload, Timestamp};
use crate::route::{Path, PathError};

// === the key of a URL ===

/// The parameters that the route of these tests allows, in its order.
const NAMES: [&str; 3] = ["page", "q", "é &="];

/// The key of a request target, as `locate` makes it; none for what is redirected or refused.
fn key(path: &str, query: Option<&str>) -> Option<PageKey> {
    let names = NAMES.map(str::to_owned);
    let path = Path::parse(path).ok()?;
    let query = query.map_or_else(Vec::new, |query| allowed(query, &names));
    Some(PageKey::new(path.as_str(), &query))
}

/// What a URL means: decoded segments, and for each allowed parameter its first value.
type Meaning = (Vec<String>, [Option<String>; NAMES.len()]);

fn meaning() -> impl Strategy<Value = Meaning> {
    let letter = select(vec![
        "a", "A", "é", "/", "%", "2F", "+", " ", "&", "=", "?", "#", ".", "\\", ";",
    ]);
    let word = prop::collection::vec(letter, 0..4).prop_map(|letters| letters.concat());
    let segment = word
        .clone()
        .prop_filter("a request cannot have it", |text| {
            !matches!(text.as_str(), "" | "." | "..")
        });
    let value = prop::option::of(word);
    (
        prop::collection::vec(segment, 0..3),
        [value.clone(), value.clone(), value],
    )
}

/// How a letter, a parameter or a whole query is written.
#[derive(Debug, Clone)]
struct Hand {
    /// One choice for each byte: as it is, `%2f` or `%2F`.
    bytes: Vec<u8>,
    /// Which parameter comes next.
    order: Vec<usize>,
    /// Parameters that no route allows, and second values of those that it does.
    noise: Vec<String>,
}

fn hand() -> impl Strategy<Value = Hand> {
    let noise = select(vec!["utm=1", "Q=a", "page[]=2", "", "=", "q%00=1", "qq"]);
    (
        prop::collection::vec(0..3_u8, 1..9),
        Just((0..NAMES.len()).collect::<Vec<_>>()).prop_shuffle(),
        prop::collection::vec(noise.prop_map(str::to_owned), 0..3),
    )
        .prop_map(|(bytes, order, noise)| Hand {
            bytes,
            order,
            noise,
        })
}

/// `text` as `hand` spells it; `plain` tells which bytes may stand for themselves.
fn spelled(text: &str, hand: &Hand, plain: impl Fn(u8) -> bool) -> String {
    let bytes = text.bytes().zip(hand.bytes.iter().cycle());
    bytes
        .map(|(byte, way)| match way {
            0 if plain(byte) => char::from(byte).to_string(),
            1 => format!("%{byte:02x}"),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

/// A URL with this meaning.
fn written((segments, values): &Meaning, hand: &Hand) -> (String, Option<String>) {
    let in_path = |byte: u8| byte.is_ascii_alphanumeric() || b"+&=.;".contains(&byte);
    let in_query = |byte: u8| byte.is_ascii_alphanumeric() || b"./?;".contains(&byte);
    let path: String = segments
        .iter()
        .map(|text| format!("/{}", spelled(text, hand, in_path)))
        .collect();
    let mut query = hand.noise.clone();
    for place in &hand.order {
        let name = spelled(NAMES[*place], hand, in_query);
        let Some(value) = &values[*place] else {
            continue;
        };
        let value = spelled(value, hand, in_query);
        // A space has a spelling of its own in queries.
        query.push(format!("{name}={}", value.replace("%20", "+")));
        query.push(format!("{name}=the+second+does+not+count"));
    }
    let path = if path.is_empty() {
        "/".to_owned()
    } else {
        path
    };
    (path, (!query.is_empty()).then(|| query.join("&")))
}

/// Every spelling of a URL has the key of its meaning, and no other meaning has it.
#[test]
fn a_key_is_what_a_url_means() {
    let inputs = ((meaning(), hand()), (meaning(), hand()));
    fuzz::run("key", &inputs, |((one, by_one), (two, by_two))| {
        let key_of = |meaning, hand| {
            let (path, query) = written(meaning, hand);
            key(&path, query.as_deref())
        };
        let first = key_of(&one, &by_one);
        prop_assert!(first.is_some());
        prop_assert_eq!(&first, &key_of(&one, &by_two));
        prop_assert_eq!(first == key_of(&two, &by_two), one == two);
        Ok(())
    });
}

/// A key is a URL too: its own.
#[test]
fn a_key_is_its_own_key() {
    let seeds = [
        "/posts/1?q=a+b&page=2",
        "/caf%C3%A9?q=%FF&q=2",
        "/s?%C3%A9%20%26%3D=1&&=&q",
    ];
    let words = [
        "?", "&", "=", "%", "%2", "%3D", "+", "q", "page", "%C3", "é", "/", "/../", ";",
    ];
    fuzz::run("key of a key", &fuzz::text(&seeds, &words), |url| {
        let (path, query) = match url.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (&*url, None),
        };
        if let Some(query) = query {
            // The parser of the URL standard, for the same bytes.
            let theirs = url::form_urlencoded::parse(query.as_bytes());
            prop_assert!(pairs(query).eq(theirs), "{query}");
        }
        let Some(own) = key(path, query) else {
            return Ok(());
        };
        let (path, query) = match own.as_str().split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (own.as_str(), None),
        };
        prop_assert_eq!(path, own.path());
        prop_assert_eq!(key(path, query), Some(own.clone()));
        Ok(())
    });
}

/// Where a redirect to the normal form leads, there is a page and no further redirect.
#[test]
fn nothing_is_redirected_twice() {
    let seeds = ["//a/../b/", "/%2e%2e/a", "/./a%2F/", "/a/b/../../../c"];
    fuzz::run(
        "redirect",
        &fuzz::text(&seeds, &["/", "..", "%2E", "%2F", "\\"]),
        |raw| {
            if let Err(PathError::Elsewhere(normal)) = Path::parse(&raw) {
                prop_assert!(Path::parse(&normal).is_ok(), "{}", normal);
                let base = url::Url::parse("http://reader.example").unwrap();
                let followed = base.join(&normal).unwrap();
                prop_assert_eq!(followed.host_str(), Some("reader.example"));
                prop_assert_eq!(followed.path(), normal);
            }
            Ok(())
        },
    );
}

// === accept-encoding ===

fn headers(name: http::HeaderName, line: &[u8]) -> Option<HeaderMap> {
    let value = HeaderValue::from_bytes(line).ok()?;
    Some(HeaderMap::from_iter([(name, value)]))
}

/// The weights of a line, by the parser of structured fields: none if it is none of these. All
/// that it takes is a valid `accept-encoding`; the reverse does not hold.
fn weights(line: &str) -> Option<Vec<(String, i64)>> {
    // Where the two grammars differ: a coding has one weight, it begins with one digit, and nothing
    // is quoted.
    let is_double = |member: &str| member.matches(';').count() > 1;
    let is_long = |value: &str| value.as_bytes().get(1).is_some_and(u8::is_ascii_digit);
    if line.contains('"') || line.split(',').any(is_double) || line.split('=').skip(1).any(is_long)
    {
        return None;
    }
    let list: sfv::List = sfv::Parser::new(line).parse().ok()?;
    let members = list.into_iter().map(|member| {
        let sfv::ListEntry::Item(item) = member else {
            return None;
        };
        let name = item.bare_item.as_token()?.as_str().to_ascii_lowercase();
        let mut parameters = item.params.iter();
        let weight = match (parameters.next(), parameters.next()) {
            (None, _) => 1000,
            (Some((key, value)), None) if key.as_str() == "q" => match value {
                sfv::BareItem::Integer(whole) => i64::from(*whole) * 1000,
                sfv::BareItem::Decimal(decimal) => i64::from(decimal.as_integer_scaled_1000()),
                _ => return None,
            },
            _ => return None,
        };
        (0..=1000).contains(&weight).then_some((name, weight))
    });
    members.collect()
}

#[test]
fn the_coding_is_the_one_that_the_reader_likes_best() {
    let seeds = [
        "gzip, deflate, br, zstd",
        "br;q=0.9, gzip;q=0.8, *;q=0",
        "identity;q=0, x-gzip;q=0.001",
        "zstd;q=1.000,\tidentity;q=0.5",
    ];
    let words = [
        "br", "gzip", "x-gzip", "zstd", "identity", "*", ";q=0", ";q=0.5", ", ", ",", ";", "=",
    ];
    let html = HeaderValue::from_static("text/html");
    let payload = Payload::encode(Bytes::from("the same words ".repeat(500)), Some(&html));
    fuzz::run("accept-encoding", &fuzz::text(&seeds, &words), |line| {
        let Some(headers) = headers(ACCEPT_ENCODING, line.as_bytes()) else {
            return Ok(());
        };
        let chosen = choose(&headers, &payload).coding;
        let Some(weights) = weights(&line) else {
            return Ok(());
        };
        let weight = |coding: Coding| {
            let is_it = |name: &str| {
                name == coding.as_str() || (name == "x-gzip" && coding == Coding::Gzip)
            };
            let last = |wanted: &dyn Fn(&str) -> bool| {
                weights
                    .iter()
                    .rev()
                    .find(|(name, _)| wanted(name))
                    .map(|(_, weight)| *weight)
            };
            let named = last(&is_it).or_else(|| last(&|name| name == "*"));
            // What nobody named is acceptable only as it is, and after all that was.
            named.map_or(if coding == Coding::Identity { 0 } else { -1 }, |weight| {
                if weight == 0 { -1 } else { weight }
            })
        };
        let best = Coding::PREFERRED.into_iter().map(weight).max();
        match best {
            Some(-1) => prop_assert_eq!(chosen, Coding::Identity),
            best => prop_assert_eq!(Some(weight(chosen)), best),
        }
        Ok(())
    });
}

// === if-none-match, if-modified-since ===

const ETAG: &str = "\"abc-br\"";

#[test]
fn a_304_is_only_for_who_has_the_page() {
    let etag = HeaderValue::from_static(ETAG);
    let seeds = [
        "\"abc-br\"",
        "W/\"abc-br\" , \"x\"",
        "*",
        "\"a,b\",\t\"\", W/\"abc-br\"",
        ",, \"abc-br\" ,",
    ];
    let words = ["\"", "W/", "w/", ",", "*", "abc-br", " ", "\t", "\u{e9}"];
    fuzz::run("if-none-match", &fuzz::text(&seeds, &words), |line| {
        let Some(headers) = headers(IF_NONE_MATCH, line.as_bytes()) else {
            return Ok(());
        };
        let verdict = Verdict::of(&headers, || etag.clone(), Timestamp::from_millis(0));
        let is_match = verdict == Verdict::Unchanged;
        let line = line.trim_matches([' ', '\t']);
        prop_assert_eq!(is_match, line == "*" || tags(line).contains("abc-br"));
        Ok(())
    });
}

/// The tags of a list, letter by letter, up to the first letter that cannot stand where it stands.
fn tags(line: &str) -> BTreeSet<String> {
    let mut tags = BTreeSet::new();
    let (mut open, mut closed, mut weak) = (None::<String>, None::<String>, false);
    let mut letters = line.chars().peekable();
    while let Some(letter) = letters.next() {
        match (&mut open, letter) {
            (Some(_), '"') => closed = open.take(),
            (Some(_), ' ' | '\t' | '\u{7f}') => return tags,
            (Some(tag), letter) => tag.push(letter),
            // Only now it is known that nothing else belongs to the one before.
            (None, ',') if !weak => tags.extend(closed.take()),
            (None, ' ' | '\t') if !weak => {}
            (None, '"') if closed.is_none() => (open, weak) = (Some(String::new()), false),
            (None, 'W') if closed.is_none() && !weak => {
                if letters.next() != Some('/') {
                    return tags;
                }
                weak = true;
            }
            _ => return tags,
        }
    }
    if open.is_none() && !weak {
        tags.extend(closed);
    }
    tags
}

/// The date of a line in the one form that may still be sent (RFC 9110 section 5.6.7), read place
/// by place.
fn date(line: &str) -> Option<SystemTime> {
    const MONTHS: &str = "JanFebMarAprMayJunJulAugSepOctNovDec";
    let number = |from: usize, to: usize| line.get(from..to)?.parse::<u64>().ok();
    let month = line.get(8..11)?;
    let month = MONTHS
        .as_bytes()
        .chunks(3)
        .position(|name| name == month.as_bytes())?;
    let (day, year) = (number(5, 7)?, number(12, 16)?);
    let (hour, minute, second) = (number(17, 19)?, number(20, 22)?, number(23, 25)?);
    let leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    let length = |month: usize| {
        [
            31,
            28 + u64::from(leap(year)),
            31,
            30,
            31,
            30,
            31,
            31,
            30,
            31,
            30,
            31,
        ][month]
    };
    let years: u64 = (1970..year).map(|year| 365 + u64::from(leap(year))).sum();
    let months: u64 = (0..month).map(length).sum();
    let days = years + months + day - 1;
    let seconds = ((days * 24 + hour) * 60 + minute) * 60 + second;
    Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}

#[test]
fn a_date_means_one_second() {
    let seeds = [
        "Sun, 06 Nov 1994 08:49:37 GMT",
        "Sunday, 06-Nov-94 08:49:37 GMT",
        "Sun Nov  6 08:49:37 1994",
        "Thu, 29 Feb 2024 23:59:59 GMT",
    ];
    let words = [
        "Sun", "Feb", "29", "99", "1900", "2000", "2100", " ", ":", "60", "GMT", "-",
    ];
    let etag = HeaderValue::from_static(ETAG);
    fuzz::run("if-modified-since", &fuzz::text(&seeds, &words), |line| {
        let Some(headers) = headers(IF_MODIFIED_SINCE, line.as_bytes()) else {
            return Ok(());
        };
        let is_newer = |seconds: u64| {
            let modified = Timestamp::from_millis(seconds * 1000 + 999);
            Verdict::of(&headers, || etag.clone(), modified) == Verdict::Unchanged
        };
        // Nobody has a page from after the last year that has four digits.
        prop_assert!(!is_newer(253_402_300_800));
        let line = line.trim();
        if line.len() == 29 && httpdate::parse_http_date(line).is_ok() {
            let date = date(line).unwrap();
            let seconds = date
                .duration_since(SystemTime::UNIX_EPOCH)
                .unwrap()
                .as_secs();
            prop_assert!(is_newer(seconds) && !is_newer(seconds + 1), "{:?}", date);
            prop_assert!(seconds == 0 || !is_newer(seconds - 1), "{:?}", date);
        }
        Ok(())
    });
}
