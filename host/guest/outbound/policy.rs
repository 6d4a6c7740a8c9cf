//! `Policy`: what a route may call. An empty one allows nothing.

use std::net::IpAddr;

use super::entry::{Entry, Rule};
use super::target::{Host, Scheme, Target};

/// The entries of a route's `outbound` setting.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    entries: Vec<Entry>,
}

/// An entry that cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("outbound entry `{entry}`: {rule}")]
pub struct PolicyError {
    entry: String,
    rule: Rule,
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
            Host::Name(name) => self
                .entries
                .iter()
                .any(|entry| entry.covers_name(target.scheme, name, target.port)),
            Host::Address(address) => self.names(target.scheme, *address, target.port),
        }
    }

    /// Whether an entry names this very address, which opens it even where it is not global: a
    /// name leads to a private address only if the guest could have called that address itself.
    pub(super) fn names(&self, scheme: Scheme, address: IpAddr, port: u16) -> bool {
        let mut entries = self.entries.iter();
        entries.any(|entry| entry.covers_address(scheme, address, port))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(entries: &[&str]) -> Policy {
        let entries: Vec<_> = entries.iter().map(ToString::to_string).collect();
        Policy::parse(&entries).unwrap()
    }

    fn allows(policy: &Policy, url: &str) -> bool {
        Target::of(&url.parse().unwrap()).is_ok_and(|target| policy.permits(&target))
    }

    #[test]
    fn an_empty_policy_allows_nothing() {
        assert!(Policy::none().is_empty());
        assert!(!allows(&Policy::none(), "https://example.com/"));
        assert!(!allows(&Policy::none(), "http://127.0.0.1/"));
    }

    #[test]
    fn an_entry_allows_its_origin_and_no_other() {
        let entries = policy(&[
            "https://api.example.com",
            "https://*.Example.ORG:8443",
            "http://127.0.0.1:3002",
            "http://10.0.0.0/8:8080",
            "http://[fd00::/8]",
        ]);
        let cases = [
            ("https://api.example.com/a", true),
            ("https://API.EXAMPLE.com./a", true),
            ("https://api.example.com:443/", true),
            ("https://api.example.com:8443/", false),
            ("http://api.example.com/", false),
            ("https://example.com/", false),
            ("https://x.api.example.com/", false),
            ("https://api.example.com.evil.example/", false),
            ("https://evil-api.example.com/", false),
            ("https://a.example.org:8443/", true),
            ("https://a.b.example.org:8443/", true),
            ("https://example.org:8443/", false),
            ("https://evilexample.org:8443/", false),
            ("https://a.example.org/", false),
            ("http://127.0.0.1:3002/", true),
            ("http://[::ffff:127.0.0.1]:3002/", true),
            ("http://127.0.0.1:3003/", false),
            ("http://127.0.0.2:3002/", false),
            ("http://localhost:3002/", false),
            ("http://2130706433:3002/", false),
            ("http://[64:ff9b::7f00:1]:3002/", false),
            ("http://10.255.0.1:8080/", true),
            ("http://10.255.0.1/", false),
            ("http://11.0.0.1:8080/", false),
            ("http://[fd12::1]/", true),
            ("http://[fe80::1]/", false),
        ];
        for (url, expected) in cases {
            assert_eq!(allows(&entries, url), expected, "{url}");
        }
    }
}
