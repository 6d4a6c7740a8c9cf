//! `choose`: which content coding a reader gets (RFC 9110 section 12.5.3). Pure.

use http::HeaderMap;
use http::header::{ACCEPT_ENCODING, HeaderValue};

use crate::page::{Coding, Payload, Variant};

/// A weight in thousandths: 0 is refused.
type Weight = u16;

/// What an unlisted `identity` is worth: acceptable, but whatever is asked for by name is better.
const UNLISTED_IDENTITY: Weight = 0;

/// The variant of `payload` that the reader would like best; among equals the smallest coding.
pub(super) fn choose<'a>(headers: &HeaderMap, payload: &'a Payload) -> &'a Variant {
    if payload.coded().is_empty() {
        // Whatever is acceptable, there is nothing else: a page beats a 415 or 406.
        return payload.identity();
    }
    let coding = choose_among(headers, |coding| payload.has(coding));
    payload.get(coding).unwrap_or_else(|| payload.identity())
}

/// The coding that the reader would like best of those that there are; `identity` is always there.
pub(super) fn choose_among(headers: &HeaderMap, has: impl Fn(Coding) -> bool) -> Coding {
    let accepted = Accepted::of(headers);
    Coding::PREFERRED
        .into_iter()
        .filter(|coding| has(*coding))
        .filter_map(|coding| Some((accepted.weight(coding)?, coding)))
        // The first of the greatest, not the last as `max_by_key` would have it.
        .reduce(|best, other| if other.0 > best.0 { other } else { best })
        .map_or(Coding::Identity, |(_, coding)| coding)
}

/// What an `accept-encoding` says of each coding that wisr has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Accepted {
    named: [Option<Weight>; Coding::PREFERRED.len()],
    any: Option<Weight>,
}

impl Accepted {
    fn of(headers: &HeaderMap) -> Self {
        let mut lines = headers.get_all(ACCEPT_ENCODING).iter();
        match (lines.next(), lines.next()) {
            (None, _) => Self::default(),
            (Some(line), None) => Self::browser(line).unwrap_or_else(|| Self::parse([line])),
            (Some(_), Some(_)) => Self::parse(headers.get_all(ACCEPT_ENCODING)),
        }
    }

    /// What nearly every reader sends, recognised without parsing it.
    fn browser(line: &HeaderValue) -> Option<Self> {
        const fn all(brotli: bool, zstd: bool) -> Accepted {
            Accepted {
                named: [
                    if brotli { Some(1000) } else { None },
                    if zstd { Some(1000) } else { None },
                    Some(1000),
                    None,
                ],
                any: None,
            }
        }
        match line.as_bytes() {
            b"gzip, deflate, br, zstd" => Some(all(true, true)),
            b"gzip, deflate, br" => Some(all(true, false)),
            b"gzip, deflate" | b"gzip" => Some(all(false, false)),
            _ => None,
        }
    }

    /// Members that break the grammar are skipped; of a coding named twice the last counts.
    fn parse<'a>(lines: impl IntoIterator<Item = &'a HeaderValue>) -> Self {
        let mut accepted = Self::default();
        for member in lines
            .into_iter()
            .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
        {
            let Some((name, weight)) = member_of(member) else {
                continue;
            };
            if name == "*" {
                accepted.any = Some(weight);
            } else if let Some(place) = place_of(name) {
                accepted.named[place] = Some(weight);
            }
        }
        accepted
    }

    /// None when the coding must not be used.
    fn weight(&self, coding: Coding) -> Option<Weight> {
        let named = place_of(coding.as_str()).and_then(|place| self.named[place]);
        match (named.or(self.any), coding) {
            (Some(0), _) => None,
            (Some(weight), _) => Some(weight),
            (None, Coding::Identity) => Some(UNLISTED_IDENTITY),
            (None, _) => None,
        }
    }
}

fn place_of(name: &str) -> Option<usize> {
    // RFC 9110 section 8.4.1.3: x-gzip is gzip.
    let name = if name.eq_ignore_ascii_case("x-gzip") {
        "gzip"
    } else {
        name
    };
    Coding::PREFERRED
        .iter()
        .position(|coding| coding.as_str().eq_ignore_ascii_case(name))
}

/// `gzip;q=0.8` as its name and weight.
fn member_of(member: &[u8]) -> Option<(&str, Weight)> {
    let text = std::str::from_utf8(member).ok()?;
    let mut parts = text.split(';').map(|part| part.trim_matches([' ', '\t']));
    let name = parts.next().filter(|name| !name.is_empty())?;
    let weight = match parts.next() {
        None => 1000,
        Some(parameter) => {
            let (key, value) = parameter.split_once('=')?;
            if !key.eq_ignore_ascii_case("q") {
                return None;
            }
            weight_of(value)?
        }
    };
    parts.next().is_none().then_some((name, weight))
}

/// A qvalue, RFC 9110 section 12.4.2: `0` or `1` with at most three decimals, and none above 1.
fn weight_of(text: &str) -> Option<Weight> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    if decimals.len() > 3 || !decimals.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let thousandths: Weight = format!("{decimals:0<3}").parse().ok()?;
    match whole {
        "0" => Some(thousandths),
        "1" if thousandths == 0 => Some(1000),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;

    fn page() -> Payload {
        let html = HeaderValue::from_static("text/html");
        Payload::encode(Bytes::from("the same words ".repeat(500)), Some(&html))
    }

    fn chosen(lines: &[&str], payload: &Payload) -> &'static str {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(ACCEPT_ENCODING, HeaderValue::from_str(line).unwrap());
        }
        choose(&headers, payload).coding.as_str()
    }

    #[test]
    fn each_rule_of_the_standard() {
        let payload = page();
        for (line, expected) in [
            ("gzip, deflate, br, zstd", "br"),
            ("gzip, deflate, br", "br"),
            ("gzip, deflate", "gzip"),
            ("gzip", "gzip"),
            ("x-gzip", "gzip"),
            ("GZIP", "gzip"),
            ("zstd,gzip", "zstd"),
            ("gzip;q=0.9, br;q=0.8", "gzip"),
            ("gzip; q=0.5 ,\tbr;q=0.5", "br"),
            ("gzip;Q=0.3", "gzip"),
            ("br;q=0, gzip", "gzip"),
            ("*", "br"),
            ("*;q=0.1, gzip;q=0.2", "gzip"),
            ("br;q=0, *", "zstd"),
            ("identity", "identity"),
            ("identity, gzip;q=0.5", "identity"),
            ("gzip;q=0.5", "gzip"),
            ("identity;q=0, gzip;q=0.001", "gzip"),
            ("deflate", "identity"),
            ("", "identity"),
            ("identity;q=0", "identity"),
            ("*;q=0", "identity"),
            ("gzip;q=2", "identity"),
            ("gzip;q=1.001", "identity"),
            ("gzip;q=0.0001", "identity"),
            ("gzip;q=", "identity"),
            ("gzip;level=9", "identity"),
            ("gzip;q=1;q=1", "identity"),
            (",, ,gzip,,", "gzip"),
            ("gzip;q=1.000", "gzip"),
            ("gzip;q=1.", "gzip"),
        ] {
            assert_eq!(chosen(&[line], &payload), expected, "{line:?}");
        }
        assert_eq!(chosen(&[], &payload), "identity");
        assert_eq!(chosen(&["gzip", "br"], &payload), "br");
        assert_eq!(chosen(&["br;q=0", "gzip, *;q=0"], &payload), "gzip");
    }

    #[test]
    fn a_page_that_is_not_compressed_is_sent_as_it_is() {
        let small = Payload::encode(Bytes::from_static(b"small"), None);
        assert_eq!(chosen(&["br, identity;q=0"], &small), "identity");
    }

    #[test]
    fn recognised_lines_mean_what_parsing_them_means() {
        for line in [
            "gzip, deflate, br, zstd",
            "gzip, deflate, br",
            "gzip, deflate",
            "gzip",
        ] {
            let line = HeaderValue::from_static(line);
            assert_eq!(Accepted::browser(&line), Some(Accepted::parse([&line])));
        }
    }

    proptest! {
        #[test]
        fn a_refused_coding_is_never_sent(
            line in "((br|zstd|gzip|x-gzip|identity|\\*|deflate)(;q=(0|1|0\\.[0-9]{1,3}))?,? ?){0,6}",
        ) {
            let value = HeaderValue::from_str(&line).unwrap();
            let accepted = Accepted::parse([&value]);
            let payload = page();
            let coding = Coding::PREFERRED
                .into_iter()
                .find(|coding| coding.as_str() == chosen(&[&line], &payload))
                .unwrap();
            match accepted.weight(coding) {
                Some(weight) => {
                    for other in Coding::PREFERRED {
                        prop_assert!(accepted.weight(other).is_none_or(|other| other <= weight));
                    }
                }
                None => {
                    prop_assert_eq!(coding, Coding::Identity);
                    for other in Coding::PREFERRED {
                        prop_assert_eq!(accepted.weight(other), None);
                    }
                }
            }
        }

        #[test]
        fn no_bytes_at_all_are_too_strange(bytes in prop::collection::vec(32u8..=255, 0..60)) {
            if let Ok(value) = HeaderValue::from_bytes(&bytes) {
                let _ = Accepted::parse([&value]);
            }
        }
    }
}
