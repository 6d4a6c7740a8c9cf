//! `Entry`: one line of a policy, and how it is read.

use std::fmt;
use std::net::IpAddr;

use ipnet::{IpNet, Ipv6Net};

use super::target::{Host, HostError, Scheme, split_port};

/// One entry: `https://api.example.com`, `https://*.example.org:8443`, `http://10.0.0.0/8`.
/// Shown as it is understood: lower case, the scheme's own port left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    scheme: Scheme,
    hosts: Hosts,
    port: u16,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Hosts {
    Name(String),
    /// Any name that ends in this one, its leading dot included.
    Below(String),
    Addresses(IpNet),
}

/// The rule that an entry breaks, and how to mend it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Rule {
    #[error("it has no scheme: write http:// or https:// before the host, as in https://{0}")]
    NoScheme(String),
    #[error("guests speak http and https only, not `{0}`")]
    Scheme(String),
    #[error("it has a user name or password: leave it out and let the page send a header")]
    Userinfo,
    #[error(
        "it has a path or query, and entries open whole origins: leave out everything after the host and port"
    )]
    Path,
    #[error(
        "`*` can only stand first, before a dot, for any subdomain: write *.example.org, or list the hosts"
    )]
    Wildcard,
    #[error("`{0}` is no range of addresses: write it as in 10.0.0.0/8 or [fd00::/8]")]
    Range(String),
    #[error("`{0}` has bits set beyond its prefix length: write {1}")]
    HostBits(String, IpNet),
    #[error("`{0}` spells IPv4 addresses in IPv6: write them as IPv4")]
    Mapped(String),
    #[error("{0}")]
    Host(#[from] HostError),
}

impl Entry {
    /// Reads an entry as it stands in the settings.
    pub(super) fn parse(text: &str) -> Result<Self, Rule> {
        let (scheme, rest) = text
            .split_once("://")
            .ok_or_else(|| Rule::NoScheme(text.to_owned()))?;
        let scheme = Scheme::parse(&scheme.to_ascii_lowercase())
            .ok_or_else(|| Rule::Scheme(scheme.to_owned()))?;
        if rest.contains('@') {
            return Err(Rule::Userinfo);
        }
        if rest.contains(['?', '#']) {
            return Err(Rule::Path);
        }
        let (host, port) = split_port(rest).map_err(|error| match error {
            HostError::Port(text) if text.contains('/') => Rule::Path,
            error => Rule::Host(error),
        })?;
        Ok(Self {
            scheme,
            hosts: Hosts::parse(host)?,
            port: port.unwrap_or(scheme.default_port()),
        })
    }

    /// Whether it opens this name.
    pub(super) fn covers_name(&self, scheme: Scheme, name: &str, port: u16) -> bool {
        self.applies(scheme, port)
            && match &self.hosts {
                Hosts::Name(own) => own == name,
                Hosts::Below(suffix) => name.len() > suffix.len() && name.ends_with(suffix),
                Hosts::Addresses(_) => false,
            }
    }

    /// Whether it opens this very address.
    pub(super) fn covers_address(&self, scheme: Scheme, address: IpAddr, port: u16) -> bool {
        self.applies(scheme, port)
            && matches!(&self.hosts, Hosts::Addresses(net) if net.contains(&address))
    }

    fn applies(&self, scheme: Scheme, port: u16) -> bool {
        self.scheme == scheme && self.port == port
    }
}

impl Hosts {
    fn parse(text: &str) -> Result<Self, Rule> {
        if let Some((before, _)) = text.split_once('/') {
            // A range only where an address stands before the slash; otherwise it is a path.
            let range =
                before.starts_with('[') || matches!(Host::parse(before), Ok(Host::Address(_)));
            return if range {
                parse_range(text)
            } else {
                Err(Rule::Path)
            };
        }
        let (below, name) = match text.strip_prefix("*.") {
            Some(name) => (true, name),
            None => (false, text),
        };
        if name.contains('*') {
            return Err(Rule::Wildcard);
        }
        match (Host::parse(name)?, below) {
            (Host::Name(name), false) => Ok(Self::Name(name)),
            (Host::Name(name), true) => Ok(Self::Below(format!(".{name}"))),
            (Host::Address(address), false) => Ok(Self::Addresses(address.into())),
            (Host::Address(_), true) => Err(Rule::Wildcard),
        }
    }
}

/// Reads `10.0.0.0/8` or `[fd00::/8]`.
fn parse_range(text: &str) -> Result<Hosts, Rule> {
    let range = || Rule::Range(text.to_owned());
    let net: IpNet = match text.strip_prefix('[') {
        Some(inner) => {
            let inner = inner.strip_suffix(']').ok_or_else(range)?;
            IpNet::V6(inner.parse::<Ipv6Net>().map_err(|_| range())?)
        }
        None => IpNet::V4(text.parse().map_err(|_| range())?),
    };
    if net.trunc() != net {
        return Err(Rule::HostBits(text.to_owned(), net.trunc()));
    }
    if matches!(net.addr(), IpAddr::V6(address) if address.to_ipv4_mapped().is_some()) {
        return Err(Rule::Mapped(text.to_owned()));
    }
    Ok(Hosts::Addresses(net))
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://", self.scheme.as_str())?;
        match &self.hosts {
            Hosts::Name(name) => f.write_str(name)?,
            Hosts::Below(suffix) => write!(f, "*{suffix}")?,
            Hosts::Addresses(net) if net.prefix_len() == net.max_prefix_len() => {
                write!(f, "{}", Host::Address(net.addr()))?;
            }
            Hosts::Addresses(IpNet::V4(net)) => write!(f, "{net}")?,
            Hosts::Addresses(IpNet::V6(net)) => write!(f, "[{net}]")?,
        }
        if self.port == self.scheme.default_port() {
            return Ok(());
        }
        write!(f, ":{}", self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Policy;
    use super::*;

    #[test]
    fn entries_are_shown_as_they_are_understood() {
        let cases = [
            ("HTTPS://API.example.com.", "https://api.example.com"),
            ("https://api.example.com:443", "https://api.example.com"),
            ("http://*.example.org:81", "http://*.example.org:81"),
            ("http://10.0.0.0/8:8080", "http://10.0.0.0/8:8080"),
            ("http://[fd00::/8]:8080", "http://[fd00::/8]:8080"),
            ("http://[::1]", "http://[::1]"),
            ("http://[::ffff:10.0.0.1]", "http://10.0.0.1"),
            ("http://127.0.0.1/32", "http://127.0.0.1"),
        ];
        for (text, shown) in cases {
            assert_eq!(Entry::parse(text).unwrap().to_string(), shown, "{text}");
        }
    }

    #[test]
    fn a_bad_entry_names_itself_the_rule_and_the_fix() {
        let cases = [
            ("api.example.com", "as in https://api.example.com"),
            ("ftp://example.com", "http and https only, not `ftp`"),
            ("https://", "names no host"),
            ("https://user@example.com", "user name or password"),
            ("https://user:pw@example.com", "user name or password"),
            ("https://example.com/", "leave out everything after"),
            ("https://example.com/v1", "leave out everything after"),
            ("https://example.com:80/v1", "leave out everything after"),
            ("https://example.com?x", "leave out everything after"),
            ("https://example.com#x", "leave out everything after"),
            ("https://*", "write *.example.org"),
            ("https://*.", "names no host"),
            ("https://a.*.org", "write *.example.org"),
            ("https://*.*.org", "write *.example.org"),
            ("https://*a.org", "write *.example.org"),
            ("https://*.127.0.0.1", "write *.example.org"),
            ("https://example.com:0", "`0` is no port"),
            ("https://example.com:+80", "`+80` is no port"),
            ("https://example.com:65536", "`65536` is no port"),
            ("https://example.com:", "is no port"),
            ("http://0x7f.1", "four decimal numbers"),
            ("http://2130706433", "four decimal numbers"),
            ("http://010.0.0.1", "four decimal numbers"),
            ("http://10.0.0.0/33", "no range"),
            ("http://10.0.0.0/x", "no range"),
            ("http://10.1.2.3/8", "write 10.0.0.0/8"),
            ("http://[fd00::]/8", "no range"),
            ("http://[fd00::1/8]", "write fd00::/8"),
            ("http://[fd00::/8", "is no IPv6 address"),
            ("http://[::ffff:10.0.0.0/104]", "write them as IPv4"),
            ("http://fd00::1", "is no port"),
            ("https://münchen.example", "punycode"),
            ("https://exa mple.com", "no host name"),
        ];
        for (entry, part) in cases {
            let error = Policy::parse(&[entry.to_owned()]).unwrap_err().to_string();
            assert!(error.contains(part), "{entry}: {error}");
            assert!(error.contains(&format!("`{entry}`")), "{error}");
        }
    }
}
