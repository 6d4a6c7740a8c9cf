//! `Proxies`: who may speak for others, and for whom a request is.
//!
//! Where nobody says which proxies there are, a request is of the address that it came from, and one
//! that no network routes may be everybody's. Where it is said, nobody else may speak for others: the
//! client is the last address that no trusted proxy has.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use http::HeaderMap;
use ipnet::{IpNet, Ipv4Net};

use super::address::Client;
use super::forwarded::Header;

/// What is known of the proxies in front.
#[derive(Debug, Default)]
pub struct Proxies(Option<Known>);

#[derive(Debug)]
struct Known {
    trusted: Vec<IpNet>,
    header: Option<Header>,
    has_preface: bool,
    is_told: AtomicBool,
}

impl Proxies {
    /// These networks are the proxies'. They say for whom they speak in the `header`; without one
    /// said, in either. `has_preface` is whether their connections begin with the PROXY protocol.
    pub fn new(
        trusted: impl IntoIterator<Item = IpNet>,
        header: Option<Header>,
        has_preface: bool,
    ) -> Self {
        Self(Some(Known {
            trusted: trusted.into_iter().map(canonical).collect(),
            header,
            has_preface,
            is_told: AtomicBool::new(false),
        }))
    }

    /// Whether it is known which proxies there are, be it none.
    pub fn are_known(&self) -> bool {
        self.0.is_some()
    }

    /// Whether connections begin with the PROXY protocol.
    pub(super) fn have_preface(&self) -> bool {
        self.0.as_ref().is_some_and(|known| known.has_preface)
    }

    pub(super) fn trust(&self, address: IpAddr) -> bool {
        self.0.as_ref().is_some_and(|known| known.trusts(address))
    }

    /// Whom a connection from `peer` counts as; none for a proxy, which has as many as it needs.
    pub(super) fn connected(&self, peer: IpAddr) -> Option<Client> {
        match &self.0 {
            None => Some(Client::at(peer)),
            Some(known) => (!known.trusts(peer)).then(|| Client::known(peer)),
        }
    }

    /// Whose request it is that came from `peer`.
    pub(super) fn client(&self, peer: IpAddr, headers: &HeaderMap) -> Client {
        let Some(known) = &self.0 else {
            return Client::at(peer);
        };
        if !known.trusts(peer) {
            return Client::known(peer);
        }
        Client::known(known.spoken_for(peer, headers))
    }
}

impl Known {
    fn trusts(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.trusted
            .iter()
            .any(|network| network.contains(&address))
    }

    /// Whom a proxy speaks for: itself, where it says nothing that can be believed.
    fn spoken_for(&self, proxy: IpAddr, headers: &HeaderMap) -> IpAddr {
        let is_in = |header: Header| header.is_in(headers);
        match (
            self.header,
            is_in(Header::Forwarded),
            is_in(Header::XForwardedFor),
        ) {
            (Some(header), ..) => self.walk(header, proxy, headers),
            (None, true, false) => self.walk(Header::Forwarded, proxy, headers),
            (None, false, true) => self.walk(Header::XForwardedFor, proxy, headers),
            (None, true, true) => {
                let [one, other] = [Header::Forwarded, Header::XForwardedFor]
                    .map(|header| self.walk(header, proxy, headers));
                // A proxy writes one and may pass on the other as a client wrote it.
                if one == other { one } else { proxy }
            }
            (None, false, false) => {
                self.tell_of_silence(proxy);
                proxy
            }
        }
    }

    /// From the last address that was added to the first one that is no trusted proxy's.
    fn walk(&self, header: Header, proxy: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut client = proxy;
        for hop in header.hops(headers) {
            let Some(hop) = hop else { break };
            client = hop.to_canonical();
            if !self.trusts(client) {
                break;
            }
        }
        client
    }

    fn tell_of_silence(&self, proxy: IpAddr) {
        if !self.has_preface && !self.is_told.swap(true, Relaxed) {
            tracing::warn!(
                %proxy,
                "a trusted proxy does not say for whom it speaks: its readers count as one client. \
                 Have it add x-forwarded-for or forwarded (nginx: proxy_set_header X-Forwarded-For \
                 $proxy_add_x_forwarded_for)"
            );
        }
    }
}

/// An IPv4 network as such, also where it is written as a part of IPv6 (RFC 4291 section 2.5.5.2).
fn canonical(network: IpNet) -> IpNet {
    const MAPPED: u8 = 96;
    match network {
        IpNet::V6(v6) if v6.prefix_len() >= MAPPED => {
            let mapped = v6.network().to_ipv4_mapped();
            let v4 = mapped.and_then(|v4| Ipv4Net::new(v4, v6.prefix_len() - MAPPED).ok());
            v4.map_or(network, IpNet::V4)
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use http::header::HeaderName;

    use super::*;

    fn proxies(trusted: &[&str], header: Option<Header>) -> Proxies {
        Proxies::new(
            trusted.iter().map(|net| net.parse().unwrap()),
            header,
            false,
        )
    }

    fn client(proxies: &Proxies, peer: &str, lines: &[(&str, &str)]) -> String {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            let name: HeaderName = name.parse().unwrap();
            headers.append(name, HeaderValue::from_str(value).unwrap());
        }
        let client = proxies.client(peer.parse().unwrap(), &headers);
        assert!(!client.is_shared);
        client.address.to_string()
    }

    const XFF: &str = "x-forwarded-for";

    #[test]
    fn the_client_is_the_last_address_that_no_proxy_has() {
        let ours = proxies(&["10.0.0.0/8", "127.0.0.1/32", "2001:db8:1::/48"], None);
        for (peer, lines, expected) in [
            ("127.0.0.1", &[(XFF, "192.0.2.1")][..], "192.0.2.1"),
            ("::ffff:127.0.0.1", &[(XFF, "192.0.2.1")], "192.0.2.1"),
            // What a client says of itself stands before what a proxy says of it.
            ("127.0.0.1", &[(XFF, "9.9.9.9, 192.0.2.1")], "192.0.2.1"),
            (
                "127.0.0.1",
                &[(XFF, "9.9.9.9"), (XFF, "192.0.2.1")],
                "192.0.2.1",
            ),
            ("127.0.0.1", &[(XFF, "127.0.0.1, 192.0.2.1")], "192.0.2.1"),
            ("127.0.0.1", &[(XFF, "x, 192.0.2.1")], "192.0.2.1"),
            // Proxies behind proxies.
            ("127.0.0.1", &[(XFF, "192.0.2.1, 10.1.1.1")], "192.0.2.1"),
            (
                "127.0.0.1",
                &[(XFF, "9.9.9.9, 192.0.2.1, ::ffff:10.1.1.1, 2001:db8:1::5")],
                "192.0.2.1",
            ),
            ("127.0.0.1", &[(XFF, "10.2.2.2, 10.1.1.1")], "10.2.2.2"),
            // Who is no proxy speaks for nobody else.
            ("192.0.2.7", &[(XFF, "192.0.2.1")], "192.0.2.7"),
            ("192.0.2.7", &[("forwarded", "for=192.0.2.1")], "192.0.2.7"),
            ("11.0.0.1", &[(XFF, "192.0.2.1")], "11.0.0.1"),
            // Nothing that can be read.
            ("127.0.0.1", &[], "127.0.0.1"),
            ("127.0.0.1", &[(XFF, "unknown")], "127.0.0.1"),
            ("127.0.0.1", &[(XFF, "192.0.2.1, x, 10.1.1.1")], "10.1.1.1"),
            // Two that disagree: one of them a client wrote.
            (
                "127.0.0.1",
                &[(XFF, "192.0.2.1"), ("forwarded", "for=192.0.2.1")],
                "192.0.2.1",
            ),
            (
                "127.0.0.1",
                &[(XFF, "192.0.2.1"), ("forwarded", "for=9.9.9.9")],
                "127.0.0.1",
            ),
            (
                "127.0.0.1",
                &[(XFF, "192.0.2.1"), ("forwarded", "x")],
                "127.0.0.1",
            ),
            (
                "127.0.0.1",
                &[("forwarded", "for=192.0.2.1;proto=https")],
                "192.0.2.1",
            ),
        ] {
            assert_eq!(client(&ours, peer, lines), expected, "{peer} {lines:?}");
        }
    }

    #[test]
    fn the_header_that_is_named_is_the_one_that_is_read() {
        let both = [(XFF, "192.0.2.1"), ("forwarded", "for=192.0.2.2")];
        for (header, expected, other) in [
            (Header::Forwarded, "192.0.2.2", &both[..1]),
            (Header::XForwardedFor, "192.0.2.1", &both[1..]),
        ] {
            let ours = proxies(&["127.0.0.0/8"], Some(header));
            assert_eq!(client(&ours, "127.0.0.1", &both), expected);
            assert_eq!(client(&ours, "127.0.0.1", other), "127.0.0.1");
        }
    }

    #[test]
    fn networks_are_what_they_are_however_they_are_written() {
        let ours = proxies(&["::ffff:10.0.0.0/104", "192.0.2.9/24"], None);
        for (address, trusted) in [
            ("10.1.2.3", true),
            ("::ffff:10.1.2.3", true),
            ("11.0.0.1", false),
            ("192.0.2.200", true),
            ("::1", false),
        ] {
            assert_eq!(ours.trust(address.parse().unwrap()), trusted, "{address}");
        }
        let all = proxies(&["0.0.0.0/0"], None);
        assert!(!all.trust("2001:db8::1".parse().unwrap()));
    }

    #[test]
    fn connections_of_proxies_do_not_count_and_those_of_others_do() {
        let ours = proxies(&["10.0.0.1/32"], None);
        let counted = |proxies: &Proxies, peer: &str| proxies.connected(peer.parse().unwrap());
        assert_eq!(counted(&ours, "10.0.0.1"), None);
        let none = proxies(&[], None);
        for (proxies, is_shared) in [(&ours, false), (&none, false), (&Proxies::default(), true)] {
            let client = counted(proxies, "10.0.0.2").unwrap();
            assert_eq!(client.is_shared, is_shared);
        }
        assert!(none.are_known() && !Proxies::default().are_known());
    }
}
