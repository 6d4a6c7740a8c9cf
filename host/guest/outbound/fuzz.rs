//! URLs of guests and entries of policies, held against the parser of the URL standard: where two
//! parsers read different hosts, one of them lets the other be deceived.

use std::net::IpAddr;

use http::Uri;
use proptest::prelude::*;

use super::entry::Entry;
use super::policy::Policy;
use super::target::{Host, Target};
use crate::fuzz;

const WORDS: &[&str] = &[
    "https://",
    "http://",
    "@",
    ":",
    ":80",
    ":443",
    "/",
    "//",
    "\\",
    "?",
    "#",
    "[",
    "]",
    "[::1]",
    "::ffff:",
    "127.0.0.1",
    "0x7f",
    "017",
    ".",
    "*.",
    "/8",
    "%2e",
    "xn--",
    "example.com",
    "é",
    "。",
    "\t",
];

/// Scheme, host and port as browsers read them.
fn theirs(url: &url::Url) -> Option<(String, Host, u16)> {
    let host = match url.host()? {
        url::Host::Domain(name) => Host::Name(name.strip_suffix('.').unwrap_or(name).to_owned()),
        url::Host::Ipv4(address) => Host::Address(IpAddr::V4(address)),
        url::Host::Ipv6(address) => Host::Address(IpAddr::V6(address).to_canonical()),
    };
    Some((url.scheme().to_owned(), host, url.port_or_known_default()?))
}

#[test]
fn a_request_goes_where_everybody_reads_that_it_goes() {
    let seeds = [
        "https://api.example.com/a?b",
        "http://user@api.example.com:8080/",
        "http://127.0.0.1:3002/",
        "http://[::ffff:127.0.0.1]:80/",
        "http://0x7f.1/",
        "http://xn--mnchen-3ya.example./",
    ];
    fuzz::run("target", &fuzz::text(&seeds, WORDS), |text| {
        let Some(target) = text
            .parse::<Uri>()
            .ok()
            .and_then(|uri| Target::of(&uri).ok())
        else {
            return Ok(());
        };
        if let Some(theirs) = url::Url::parse(&text).ok().as_ref().and_then(theirs) {
            let ours = (
                target.scheme.as_str().to_owned(),
                target.host.clone(),
                target.port,
            );
            prop_assert_eq!(ours, theirs);
        }
        // Shown in a refusal as the entry that would allow it: it does, and nothing broader.
        let shown = target.to_string();
        let policy = Policy::parse(std::slice::from_ref(&shown)).unwrap();
        prop_assert!(policy.permits(&target), "{}", shown);
        prop_assert_eq!(policy.entries()[0].to_string(), shown);
        prop_assert!(!Policy::none().permits(&target));
        Ok(())
    });
}

#[test]
fn an_entry_is_shown_as_it_is_understood() {
    let seeds = [
        "https://api.example.com",
        "https://*.example.org:8443",
        "http://10.0.0.0/8:8080",
        "http://[fd00::/8]",
        "http://[::1]",
        "HTTPS://API.example.com.",
    ];
    fuzz::run("outbound", &fuzz::text(&seeds, WORDS), |text| {
        let entry = match Entry::parse(&text) {
            Ok(entry) => entry,
            Err(rule) => {
                prop_assert!(!rule.to_string().is_empty());
                return Ok(());
            }
        };
        let shown = entry.to_string();
        prop_assert_eq!(Entry::parse(&shown), Ok(entry.clone()));
        let Ok(url) = url::Url::parse(&text) else {
            return Ok(());
        };
        // A range or a wildcard is no URL, even where it can be read as one.
        if let Some((scheme, host, port)) =
            theirs(&url).filter(|_| !text[8.min(text.len())..].contains(['/', '*']))
        {
            let target = Uri::try_from(format!("{scheme}://{host}:{port}/")).ok();
            let target = target.and_then(|uri| Target::of(&uri).ok());
            let policy = Policy::parse(&[text]).unwrap();
            prop_assert!(
                target.is_none_or(|target| policy.permits(&target)),
                "{}",
                shown
            );
        }
        Ok(())
    });
}
