//! `Target`: where a request goes, in its one spelling, so that a rule and a request can be
//! compared letter by letter.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use http::Uri;

use super::refusal::Refusal;

/// The schemes that a guest can speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Scheme {
    Http,
    Https,
}

impl Scheme {
    pub(super) fn parse(text: &str) -> Option<Self> {
        match text {
            "http" => Some(Self::Http),
            "https" => Some(Self::Https),
            _ => None,
        }
    }

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// RFC 9110, sections 4.2.1 and 4.2.2.
    pub(super) fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// A host in its one spelling: a lower-case name without a trailing dot, or an address with an
/// IPv4-mapped one unwrapped.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Host {
    Name(String),
    Address(IpAddr),
}

/// Why a text is no host, phrased so that it can follow the thing it is about.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum HostError {
    #[error("it names no host: write scheme://host")]
    Empty,
    #[error(
        "`{0}` is a number that some resolvers read as an address: write IPv4 addresses as four decimal numbers, as in 192.0.2.1"
    )]
    Number(String),
    #[error(
        "`{0}` has letters outside ASCII: write the name in punycode, as in xn--mnchen-3ya.example"
    )]
    NotAscii(String),
    #[error(
        "`{0}` is no IPv6 address: write it in brackets and without a zone, as in [2001:db8::1]"
    )]
    Address(String),
    #[error(
        "`{0}` is no host name: use letters, digits, `-` and `_`, at most 63 between dots and 253 in all"
    )]
    Name(String),
    #[error("`{0}` is no port: write a number from 1 to 65535, or leave it out")]
    Port(String),
}

impl Host {
    /// Reads a host as it stands in a URL, IPv6 addresses in brackets.
    pub(super) fn parse(text: &str) -> Result<Self, HostError> {
        if let Some(inner) = text.strip_prefix('[') {
            return inner
                .strip_suffix(']')
                .and_then(|inner| inner.parse::<Ipv6Addr>().ok())
                .map(|address| Self::Address(IpAddr::V6(address).to_canonical()))
                .ok_or_else(|| HostError::Address(text.to_owned()));
        }
        if !text.is_ascii() {
            return Err(HostError::NotAscii(text.to_owned()));
        }
        let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        if name.is_empty() {
            return Err(HostError::Empty);
        }
        if let Ok(address) = name.parse::<Ipv4Addr>() {
            return Ok(Self::Address(address.into()));
        }
        if ends_in_number(&name) {
            return Err(HostError::Number(text.to_owned()));
        }
        let fits = name.len() <= 253 && name.split('.').all(is_label);
        fits.then_some(Self::Name(name))
            .ok_or_else(|| HostError::Name(text.to_owned()))
    }
}

/// The WHATWG URL standard's "ends in a number" check: what a C resolver would take for an
/// address (`127.1`, `0x7f.1`, `2130706433`, `0177.0.0.1`).
fn ends_in_number(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or(name);
    let hex = last.strip_prefix("0x");
    (!last.is_empty() && last.bytes().all(|b| b.is_ascii_digit()))
        || hex.is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))
}

fn is_label(label: &str) -> bool {
    (1..=63).contains(&label.len())
        && label
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(IpAddr::V4(address)) => write!(f, "{address}"),
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
        }
    }
}

/// Splits `host[:port]` without judging the host.
pub(super) fn split_port(authority: &str) -> Result<(&str, Option<u16>), HostError> {
    let after_host = match authority.rfind(']') {
        Some(bracket) => bracket + 1,
        None if authority.starts_with('[') => return Err(HostError::Address(authority.to_owned())),
        None => 0,
    };
    let Some(colon) = authority[after_host..].find(':') else {
        return Ok((authority, None));
    };
    let (host, port) = authority.split_at(after_host + colon);
    let digits = &port[1..];
    // `parse` alone would take "+80".
    let number = digits
        .bytes()
        .all(|b| b.is_ascii_digit())
        .then(|| digits.parse::<u16>().ok())
        .flatten()
        .filter(|port| *port != 0);
    match number {
        Some(port) => Ok((host, Some(port))),
        None => Err(HostError::Port(digits.to_owned())),
    }
}

/// Scheme, host and port of a request.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Target {
    pub(super) scheme: Scheme,
    pub(super) host: Host,
    pub(super) port: u16,
}

impl Target {
    /// The target of an absolute URL.
    pub(super) fn of(uri: &Uri) -> Result<Self, Refusal> {
        let scheme = uri
            .scheme_str()
            .and_then(Scheme::parse)
            .ok_or_else(|| Refusal::Scheme(uri.scheme_str().unwrap_or_default().to_owned()))?;
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        if authority.contains('@') {
            return Err(Refusal::Userinfo);
        }
        if !uri.path().starts_with('/') {
            return Err(Refusal::Path);
        }
        let (host, port) = split_port(authority)?;
        Ok(Self {
            scheme,
            host: Host::parse(host)?,
            port: port.unwrap_or(scheme.default_port()),
        })
    }

    /// `host` or `host:port`, as RFC 9110, section 7.2 wants it in `Host`.
    pub(super) fn authority(&self) -> String {
        if self.port == self.scheme.default_port() {
            self.host.to_string()
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

/// The shortest policy entry that would allow this target.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme.as_str(), self.authority())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is left of `url` once it is in its one spelling, or the refusal's word for logs.
    fn spelled(url: &str) -> String {
        let Ok(uri) = url.parse::<Uri>() else {
            return "unparsable".to_owned();
        };
        match Target::of(&uri) {
            Ok(target) => target.to_string(),
            Err(refusal) => refusal.as_str().to_owned(),
        }
    }

    #[test]
    fn every_url_has_one_spelling_or_none() {
        let cases = [
            ("https://api.example.com/", "https://api.example.com"),
            ("https://api.example.com", "https://api.example.com"),
            ("https://api.example.com?x", "https://api.example.com"),
            ("https://API.Example.COM/a?b", "https://api.example.com"),
            ("HTTPS://api.example.com/", "https://api.example.com"),
            ("https://api.example.com./", "https://api.example.com"),
            ("https://api.example.com:443/", "https://api.example.com"),
            (
                "https://api.example.com:8443/",
                "https://api.example.com:8443",
            ),
            ("http://api.example.com:80/", "http://api.example.com"),
            ("http://api.example.com:443/", "http://api.example.com:443"),
            ("http://localhost./", "http://localhost"),
            ("http://a_b.example/", "http://a_b.example"),
            (
                "http://xn--mnchen-3ya.example/",
                "http://xn--mnchen-3ya.example",
            ),
            ("http://127.0.0.1:3002/", "http://127.0.0.1:3002"),
            ("http://127.0.0.1./", "http://127.0.0.1"),
            ("http://[::1]/", "http://[::1]"),
            ("http://[::1]:8080/", "http://[::1]:8080"),
            ("http://[0:0:0:0:0:0:0:1]/", "http://[::1]"),
            ("http://[::ffff:127.0.0.1]/", "http://127.0.0.1"),
            ("http://[::ffff:7f00:1]/", "http://127.0.0.1"),
            ("http://[64:ff9b::7f00:1]/", "http://[64:ff9b::7f00:1]"),
            ("http://0x7f.1/", "url"),
            ("http://0x7f000001/", "url"),
            ("http://0X7F000001/", "url"),
            ("http://2130706433/", "url"),
            ("http://0177.0.0.1/", "url"),
            ("http://127.1/", "url"),
            ("http://127.0.1./", "url"),
            ("http://127.0.0.0x1/", "url"),
            ("http://1.2.3.4.5/", "url"),
            ("http://256.0.0.1/", "url"),
            ("http://example.0x/", "url"),
            ("http://a..example/", "url"),
            ("http://.example/", "url"),
            ("http://./", "url"),
            ("http://exa*mple/", "url"),
            ("http://[::1%25eth0]/", "url"),
            ("http://[127.0.0.1]/", "url"),
            ("http://[::1]x/", "url"),
            ("http://api.example.com:0/", "url"),
            ("http://api.example.com:/", "url"),
            ("http://api.example.com:99999/", "url"),
            ("http://user@api.example.com/", "url"),
            ("http://user:secret@api.example.com/", "url"),
            ("http://api.example.com@127.0.0.1/", "url"),
            ("http://api.example.com:80@127.0.0.1/", "url"),
            ("ftp://api.example.com/", "url"),
            ("file:///etc/passwd", "unparsable"),
            ("/only/a/path", "url"),
            ("api.example.com:443", "url"),
            ("http://münchen.example/", "unparsable"),
            ("http://127。0。0。1/", "unparsable"),
        ];
        for (url, expected) in cases {
            assert_eq!(spelled(url), expected, "{url}");
        }
    }

    #[test]
    fn a_long_name_is_no_name() {
        let label = "a".repeat(63);
        let longest = format!("{label}.{label}.{label}.{}", "a".repeat(61));
        assert_eq!(Host::parse(&longest), Ok(Host::Name(longest.clone())));
        assert!(matches!(
            Host::parse(&format!("{longest}a")),
            Err(HostError::Name(_))
        ));
        assert!(matches!(
            Host::parse(&format!("{label}a.example")),
            Err(HostError::Name(_))
        ));
    }
}
