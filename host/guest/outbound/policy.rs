//! `Policy`: what a route may call. An empty one allows nothing.

use std::fmt;
use std::net::IpAddr;

use ipnet::{IpNet, Ipv6Net};

use super::target::{Host, HostError, Scheme, Target, split_port};

/// The entries of a route's `outbound` setting.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    entries: Vec<Entry>,
}

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

/// An entry that cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("outbound entry `{entry}`: {rule}")]
pub struct PolicyError {
    entry: String,
    rule: Rule,
}

/// The rule that an entry breaks, and how to mend it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum Rule {
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

impl Policy {
    /// The policy that `entries` describe.
    ///
    /// # Errors
    ///
    /// The first entry that breaks a rule, with the rule and the way to mend it.
    pub fn parse(entries: &[String]) -> Result<Self, PolicyError> {
        let parse = |text: &String| {
            Entry::parse(text).map_err(|rule| PolicyError {
                entry: text.clone(),
                rule,
            })
        };
        let entries = entries.iter().map(parse).collect::<Result<_, _>>()?;
        Ok(Self { entries })
    }

    /// The policy that allows nothing.
    pub fn none() -> Self {
        Self::default()
    }

    /// Whether it allows nothing.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The entries, in the order they were given.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Whether a guest may ask for this target. For a name this says nothing of its addresses.
    pub(super) fn permits(&self, target: &Target) -> bool {
        match &target.host {
            Host::Name(name) => self.entries.iter().any(|entry| {
                entry.applies(target.scheme, target.port) && entry.hosts.match_name(name)
            }),
            Host::Address(address) => self.names(target.scheme, *address, target.port),
        }
    }

    /// Whether an entry names this very address, which opens it even where it is not global: a
    /// name leads to a private address only if the guest could have called that address itself.
    pub(super) fn names(&self, scheme: Scheme, address: IpAddr, port: u16) -> bool {
        self.entries.iter().any(|entry| {
            entry.applies(scheme, port)
                && matches!(&entry.hosts, Hosts::Addresses(net) if net.contains(&address))
        })
    }
}

impl Entry {
    fn parse(text: &str) -> Result<Self, Rule> {
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

    fn match_name(&self, name: &str) -> bool {
        match self {
            Self::Name(own) => own == name,
            Self::Below(suffix) => name.len() > suffix.len() && name.ends_with(suffix.as_str()),
            Self::Addresses(_) => false,
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
