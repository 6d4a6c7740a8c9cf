//! `resolve`: from what the file says of proxies to whom the public door believes.

use std::net::IpAddr;
use std::num::NonZeroU32;

use anyhow::{Context, ensure};
use ipnet::IpNet;

use super::file::{FixedTables, Server};
use crate::http;

/// Who may speak for others.
pub(super) fn resolve(server: &Server) -> anyhow::Result<http::Proxies> {
    let has_preface = server.proxy_protocol == Some(true);
    let Some(trusted) = &server.trusted_proxies else {
        ensure!(
            !has_preface && server.forwarded_header.is_none(),
            "[server] proxy-protocol and forwarded-header are about trusted-proxies: say who they \
             are, as in trusted-proxies = [\"127.0.0.1\"]"
        );
        return Ok(http::Proxies::default());
    };
    ensure!(
        !has_preface || !trusted.is_empty(),
        "[server] proxy-protocol = true: nobody could connect, as trusted-proxies is empty"
    );
    let network = |text: &String| {
        let address = || text.parse::<IpAddr>().ok().map(IpNet::from);
        let network = text.parse::<IpNet>().ok().or_else(address);
        network.with_context(|| {
            format!(
                "[server] trusted-proxies: {text:?} is neither an address nor a network, such as \
                 \"127.0.0.1\" or \"10.0.0.0/8\""
            )
        })
    };
    let trusted = trusted.iter().map(network);
    let trusted = trusted.collect::<anyhow::Result<Vec<_>>>()?;
    let header = server.forwarded_header;
    Ok(http::Proxies::new(trusted, header, has_preface))
}

/// Pages that nobody has asked for before, made for one client in a minute, where nobody says: a
/// reader's curiosity and a crawler's pace are below it, and a page of 100 KB makes 360 MB an hour.
const FIRST_PER_CLIENT: u32 = 60;

/// How many pages are made for one client who is the first to ask for them, where it is known who
/// is one: a CDN has public addresses, and is everybody.
pub(super) fn first_pages(file: &FixedTables) -> anyhow::Result<Option<NonZeroU32>> {
    let said = file.generations.first_per_client;
    let is_known = file.server.trusted_proxies.is_some();
    ensure!(
        is_known || said.is_none(),
        "[generations] first-per-client is of each client, and it is not known who is one: set \
         [server] trusted-proxies, to [] where there is no proxy"
    );
    let default = NonZeroU32::new(FIRST_PER_CLIENT).filter(|_| is_known);
    Ok(said.or(default))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str) -> String {
        let server: Server = toml::from_str(text).unwrap();
        match resolve(&server) {
            Ok(proxies) => proxies.are_known().to_string(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn each_rule() {
        for (text, expected) in [
            ("", "false"),
            ("trusted-proxies = []", "true"),
            (
                "trusted-proxies = [\"127.0.0.1\", \"10.0.0.0/8\", \"::1\", \"fd00::/8\"]",
                "true",
            ),
            (
                "trusted-proxies = [\"::1\"]\nproxy-protocol = true\nforwarded-header = \"forwarded\"",
                "true",
            ),
            ("proxy-protocol = true", "are about trusted-proxies"),
            (
                "forwarded-header = \"forwarded\"",
                "are about trusted-proxies",
            ),
            (
                "trusted-proxies = []\nproxy-protocol = true",
                "nobody could connect",
            ),
            (
                "trusted-proxies = [\"localhost\"]",
                "\"localhost\" is neither an address nor a network",
            ),
            ("trusted-proxies = [\"10.0.0.0/33\"]", "neither"),
            ("trusted-proxies = [\"10.0.0.1:80\"]", "neither"),
        ] {
            assert!(told(text).contains(expected), "{text}: {}", told(text));
        }
    }

    #[test]
    fn first_pages_are_counted_where_clients_are_known() {
        let told = |server: &str, generations: &str| {
            let file = FixedTables {
                server: toml::from_str(server).unwrap(),
                generations: toml::from_str(generations).unwrap(),
                ..FixedTables::default()
            };
            first_pages(&file).map_err(|error| error.to_string())
        };
        let (none, seven) = ("trusted-proxies = []", "first-per-client = 7");
        assert_eq!(told("", ""), Ok(None));
        assert_eq!(told(none, ""), Ok(NonZeroU32::new(60)));
        assert_eq!(told(none, seven), Ok(NonZeroU32::new(7)));
        assert!(told("", seven).unwrap_err().contains("trusted-proxies"));
    }
}
