//! `Header`: what proxies say of whom they speak for, in `forwarded` (RFC 7239) and in
//! `x-forwarded-for`. Pure.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use http::header::{FORWARDED, HeaderMap, HeaderName};
use serde::{Deserialize, Serialize};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// A header in which proxies say it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Header {
    /// The standard.
    Forwarded,
    /// What nearly all proxies write.
    XForwardedFor,
}

impl Header {
    fn name(self) -> HeaderName {
        match self {
            Header::Forwarded => FORWARDED,
            Header::XForwardedFor => X_FORWARDED_FOR,
        }
    }

    pub(super) fn is_in(self, headers: &HeaderMap) -> bool {
        headers.contains_key(self.name())
    }

    /// Who was spoken for, the last one first: each proxy adds whom it heard at the end. What cannot be
    /// read, is hidden or unknown is none, and what stands before it says nothing.
    ///
    /// Each line is read by itself: a quote that a client left open must not reach into the line that
    /// a proxy added.
    pub(super) fn hops(self, headers: &HeaderMap) -> impl Iterator<Item = Option<IpAddr>> {
        let lines = headers.get_all(self.name()).iter().rev();
        lines.flat_map(move |line| {
            let hops = line.to_str().ok().and_then(|line| match self {
                Header::Forwarded => elements(line),
                Header::XForwardedFor => Some(list(line)),
            });
            hops.unwrap_or_else(|| vec![None]).into_iter().rev()
        })
    }
}

/// The elements of an `x-forwarded-for`, which nobody has written a standard for: addresses, which
/// some proxies send with ports.
fn list(line: &str) -> Vec<Option<IpAddr>> {
    let elements = line.split(',').map(|element| element.trim_matches(OWS));
    elements
        .filter(|element| !element.is_empty())
        .map(|element| {
            let bare = || element.parse::<IpAddr>().ok();
            bare().or_else(|| node(element))
        })
        .collect()
}

/// Blanks that lists have between their elements (RFC 9110 section 5.6.3).
const OWS: [char; 2] = [' ', '\t'];

/// The elements of a `forwarded` (RFC 7239 section 4); none of a line that breaks a rule of it.
fn elements(line: &str) -> Option<Vec<Option<IpAddr>>> {
    let mut found = Vec::new();
    let mut rest = line.trim_matches(OWS);
    loop {
        // An empty element of a list is none (RFC 9110 section 5.6.1.2).
        while let Some(after) = rest.strip_prefix(',') {
            rest = after.trim_start_matches(OWS);
        }
        if rest.is_empty() {
            return Some(found);
        }
        let (spoken_for, after) = element(rest)?;
        found.push(spoken_for);
        rest = after;
    }
}

/// The `for` of the element at the start, and what follows the element.
fn element(mut rest: &str) -> Option<(Option<IpAddr>, &str)> {
    let mut spoken_for = None;
    loop {
        if !rest.starts_with([';', ',']) && !rest.is_empty() {
            let (name, after) = token(rest)?;
            let (value, after) = value(after.strip_prefix('=')?)?;
            if name.eq_ignore_ascii_case("for") {
                // Each parameter once (section 4).
                if spoken_for.replace(node(&value)).is_some() {
                    return None;
                }
            }
            rest = after.trim_start_matches(OWS);
        }
        if let Some(after) = rest.strip_prefix(';') {
            rest = after.trim_start_matches(OWS);
        } else if rest.is_empty() || rest.starts_with(',') {
            return Some((spoken_for.flatten(), rest));
        } else {
            return None;
        }
    }
}

fn token(text: &str) -> Option<(&str, &str)> {
    let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    let end = text.bytes().position(|byte| !is_token(&byte));
    let (token, rest) = text.split_at(end.unwrap_or(text.len()));
    (!token.is_empty()).then_some((token, rest))
}

/// A token or a quoted string (RFC 9110 section 5.6.4).
fn value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let (token, rest) = token(text)?;
        return Some((token.to_owned(), rest));
    };
    let (mut value, mut chars) = (String::new(), quoted.chars());
    loop {
        match chars.next()? {
            '"' => return Some((value, chars.as_str())),
            '\\' => value.push(chars.next()?),
            char => value.push(char),
        }
    }
}

/// The address of a node (section 6): IPv6 in brackets, either with a port or without. `unknown`,
/// names that hide somebody and whatever else is none.
fn node(text: &str) -> Option<IpAddr> {
    let inner = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    if let Some(inner) = inner {
        return inner.parse::<Ipv6Addr>().ok().map(IpAddr::V6);
    }
    let whole = || text.parse::<IpAddr>().ok().filter(IpAddr::is_ipv4);
    let with_port = || text.parse::<SocketAddr>().ok().map(|node| node.ip());
    // A port, too, may be hidden: `_` and letters, digits, `.`, `_`, `-`.
    let with_hidden = || {
        let (address, port) = text.rsplit_once(":_")?;
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        let is_hidden = !port.is_empty() && port.bytes().all(is_name);
        is_hidden.then(|| node(address)).flatten()
    };
    whole().or_else(with_port).or_else(with_hidden)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn told(header: Header, lines: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(
                header.name(),
                HeaderValue::from_bytes(line.as_bytes()).unwrap(),
            );
        }
        let hops = header.hops(&headers).map(|hop| match hop {
            Some(address) => address.to_string(),
            None => "?".to_owned(),
        });
        hops.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn addresses_are_read_from_the_last_one_on() {
        for (lines, expected) in [
            (&["192.0.2.1"][..], "192.0.2.1"),
            (&["192.0.2.1, 192.0.2.2"], "192.0.2.2 192.0.2.1"),
            (
                &["192.0.2.1", "192.0.2.2,,192.0.2.3 "],
                "192.0.2.3 192.0.2.2 192.0.2.1",
            ),
            (&["192.0.2.1:80"], "192.0.2.1"),
            (&["2001:db8::1"], "2001:db8::1"),
            (&["[2001:db8::1]"], "2001:db8::1"),
            (&["[2001:db8::1]:443"], "2001:db8::1"),
            (&["::ffff:192.0.2.1"], "::ffff:192.0.2.1"),
            (&["unknown, 192.0.2.1"], "192.0.2.1 ?"),
            (&["192.0.2.01"], "?"),
            (&["192.0.2"], "?"),
            (&["192.0.2.1:99999"], "?"),
            (&["192.0.2.1 192.0.2.2"], "?"),
            (&["\"192.0.2.1\""], "?"),
            (&["fe80::1%eth0"], "?"),
            (&["\u{e4}, 192.0.2.1"], "?"),
            (&["\u{e4}", "192.0.2.1"], "192.0.2.1 ?"),
            (&[""], ""),
            (&[" , "], ""),
        ] {
            assert_eq!(told(Header::XForwardedFor, lines), expected, "{lines:?}");
        }
    }

    #[test]
    fn the_standard_is_read_by_its_letter() {
        for (lines, expected) in [
            (&["for=192.0.2.1"][..], "192.0.2.1"),
            (&["For=192.0.2.1;proto=http;by=203.0.113.43"], "192.0.2.1"),
            (&["proto=https; For=192.0.2.1 "], "192.0.2.1"),
            (&["for=\"192.0.2.1:80\""], "192.0.2.1"),
            (&["for=\"[2001:db8::1]\""], "2001:db8::1"),
            (&["for=\"[2001:db8::1]:4711\""], "2001:db8::1"),
            (&["for=\"[2001:db8::1]:_a.b-c\""], "2001:db8::1"),
            (&["for=\"\\[2001:db8::1\\]\""], "2001:db8::1"),
            (&["for=192.0.2.1, for=192.0.2.2"], "192.0.2.2 192.0.2.1"),
            (&["for=192.0.2.1", "for=192.0.2.2"], "192.0.2.2 192.0.2.1"),
            (&["for=192.0.2.1,,by=x"], "? 192.0.2.1"),
            (&["for=\"a, for=9.9.9.9\", for=192.0.2.1"], "192.0.2.1 ?"),
            (&["for=unknown"], "?"),
            (&["for=_hidden, for=192.0.2.1"], "192.0.2.1 ?"),
            (&["for=\"_hidden:80\""], "?"),
            // What breaks a rule says nothing at all.
            (&["for=2001:db8::1"], "?"),
            (&["for=192.0.2.1:80"], "?"),
            (&["for=\"2001:db8::1\""], "?"),
            (&["for=[2001:db8::1]"], "?"),
            (&["for=\"192.0.2.1"], "?"),
            (&["for=\"x, for=192.0.2.1"], "?"),
            (&["for=\"x", "for=192.0.2.1"], "192.0.2.1 ?"),
            (&["for=192.0.2.1;for=192.0.2.2"], "?"),
            (&["for = 192.0.2.1"], "?"),
            (&["for=192.0.2.1 for=192.0.2.2"], "?"),
            (&["192.0.2.1"], "?"),
            (&["for="], "?"),
            (&["=192.0.2.1"], "?"),
            (&["for=192.0.2.1;;proto=http;"], "192.0.2.1"),
            (&[""], ""),
        ] {
            assert_eq!(told(Header::Forwarded, lines), expected, "{lines:?}");
        }
    }

    proptest! {
        /// Whatever a client sends ahead, a line of the proxy's own is what counts.
        #[test]
        fn what_a_client_sends_ahead_hides_nothing(line in "[ -~]{0,40}", standard: bool) {
            let (header, own) = match standard {
                true => (Header::Forwarded, "for=192.0.2.1"),
                false => (Header::XForwardedFor, "192.0.2.1"),
            };
            let hops = told(header, &[&line, own]);
            prop_assert!(hops.starts_with("192.0.2.1"), "{}", hops);
        }
    }
}
