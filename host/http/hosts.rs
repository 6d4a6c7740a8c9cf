//! `Hosts`: the names by which a server that is for its author alone may be called. Pure.
//!
//! A page on the web can have its own name resolve to this machine (DNS rebinding), and then read
//! what a browser here may read; but it cannot change the `host` that it calls.

use std::net::IpAddr;

use http::Uri;
use http::header::{HOST, HeaderMap};

/// Where an author says them.
pub const KEY: &str = "add it to `hosts` of `[dev]` in wisr.toml";

/// Addresses, `localhost` and what is below it, and the names that its author has said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hosts(Vec<Name>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Name {
    /// This one.
    One(String),
    /// All below this one.
    Below(String),
}

/// What is no name of a host.
#[derive(Debug, thiserror::Error)]
#[error(
    "{0:?} is no name of a host: write it without scheme, port and path, as \"my.test\" or \"*.my.test\""
)]
pub struct NoName(String);

impl Hosts {
    /// Besides addresses and `localhost`, these: names, or `*.name` for all below one.
    ///
    /// # Errors
    /// The first that is none.
    pub fn new<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Self, NoName> {
        let name = |text: &'a str| {
            let below = text.strip_prefix("*.");
            let name = normal(below.unwrap_or(text));
            let is_part = |part: &str| !part.is_empty() && part.bytes().all(is_in_name);
            match (name.split('.').all(is_part), below) {
                (false, _) => Err(NoName(text.to_owned())),
                (true, None) => Ok(Name::One(name)),
                (true, Some(_)) => Ok(Name::Below(name)),
            }
        };
        names
            .into_iter()
            .map(name)
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// Holds a request to them.
    ///
    /// # Errors
    /// The name that it calls, which is none of them.
    pub fn admit(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), String> {
        let called = called(uri, headers).and_then(name_of).unwrap_or_default();
        // An address is no name that somebody could have resolve to another one.
        let name = normal(called);
        match name.parse::<IpAddr>() {
            Ok(_) => Ok(()),
            Err(_) if self.have(&name) => Ok(()),
            Err(_) => Err(called.to_owned()),
        }
    }

    fn have(&self, name: &str) -> bool {
        let is_below = |parent: &str| {
            let rest = name.strip_suffix(parent);
            rest.is_some_and(|rest| rest.ends_with('.') && rest.len() > 1)
        };
        // RFC 6761 section 6.3: browsers resolve them to this machine, whatever a server says.
        name == "localhost"
            || is_below("localhost")
            || self.0.iter().any(|own| match own {
                Name::One(own) => own == name,
                Name::Below(parent) => is_below(parent),
            })
    }
}

/// What who calls by another `name` is told.
pub fn stranger(name: &str, key: &str) -> String {
    let name: String = name.chars().filter(|char| !char.is_control()).collect();
    match &*name {
        "" => "This server is for its author: call it by the address that it listens on".to_owned(),
        name => format!(
            "This server is for its author, and answers to addresses and localhost only: if {name:?} is \
             a name of this machine, {key}"
        ),
    }
}

/// One dot at its end says that a name is whole (RFC 1034 section 3.1); case does not matter.
fn normal(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

fn is_in_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_".contains(&byte)
}

/// The host that the request is for, with its port.
pub fn called<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> Option<&'a str> {
    match (uri.authority(), headers.get(HOST)) {
        (_, Some(host)) => host.to_str().ok(),
        (Some(authority), None) => Some(authority.as_str()),
        (None, None) => None,
    }
}

/// The host without its port and brackets.
pub fn name_of(host: &str) -> Option<&str> {
    if let Some(rest) = host.strip_prefix('[') {
        return rest.split_once(']').map(|(name, _)| name);
    }
    host.split(':').next()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn addresses_localhost_and_what_is_said() {
        let hosts = Hosts::new(["my.test", "*.Shop.test."]).unwrap();
        for (host, expected) in [
            ("localhost", true),
            ("LOCALHOST:3000", true),
            ("localhost.:3000", true),
            ("a.localhost:3000", true),
            ("a.b.localhost.", true),
            ("127.0.0.1:3000", true),
            ("127.0.0.1.", true),
            ("[::1]:3000", true),
            ("192.168.1.7", true),
            ("[2001:db8::1]", true),
            ("my.test", true),
            ("MY.TEST.:80", true),
            ("a.shop.test", true),
            ("a.b.shop.test", true),
            ("shop.test", false),
            (".shop.test", false),
            ("a.my.test", false),
            ("notmy.test", false),
            ("notshop.test", false),
            ("evil.example", false),
            ("evil.example:3000", false),
            ("localhost.evil.example", false),
            ("evillocalhost", false),
            (".localhost", false),
            ("localhost..", false),
            ("127.0.0.1.nip.io", false),
            ("127.0.0.1.evil.example", false),
            ("2130706433", false),
            ("0x7f.1", false),
            ("[::1", false),
            ("[evil.example]", false),
            ("", false),
        ] {
            let headers = HeaderMap::from_iter([(HOST, HeaderValue::from_static(host))]);
            let told = hosts.admit(&"/".parse().unwrap(), &headers).is_ok();
            assert_eq!(told, expected, "{host}");
        }
        // HTTP/2 has the name in its target; who names none is no browser, and nobody's page either.
        let none = HeaderMap::new();
        let ask = |uri: &str| hosts.admit(&uri.parse().unwrap(), &none).is_ok();
        assert!(ask("http://localhost:3000/") && !ask("http://evil.example/") && !ask("/"));
    }

    #[test]
    fn names_are_names() {
        for name in [
            "http://my.test",
            "my.test:3000",
            "my.test/",
            "*",
            "*.",
            "a.*.test",
            "",
            "a..b",
            ".",
        ] {
            assert!(Hosts::new([name]).is_err(), "{name}");
        }
        assert!(Hosts::new(["a_b.test", "*.localhost", "xn--bcher-kva.test"]).is_ok());
    }
}
