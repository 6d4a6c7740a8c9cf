//! Which addresses are global: the ones a page may reach by name. Everything else belongs to this
//! machine, its network or its cloud, and only an entry that names the address opens it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

const fn v4(a: u8, b: u8, c: u8, d: u8, length: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), length)
}

const fn v6(first: u16, second: u16, length: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(first, second, 0, 0, 0, 0, 0, 0), length)
}

/// The IANA special-purpose registry of IPv4 (RFC 6890) as far as it is not global, multicast,
/// and the one metadata service that sits on a public-looking address.
const CLOSED_V4: [(Ipv4Net, &str); 17] = [
    (v4(0, 0, 0, 0, 8), "this network"),
    (v4(10, 0, 0, 0, 8), "private"),
    (v4(100, 64, 0, 0, 10), "shared by a carrier or cloud"),
    (v4(127, 0, 0, 0, 8), "loopback"),
    (v4(169, 254, 169, 254, 32), "cloud metadata"),
    (v4(169, 254, 0, 0, 16), "link-local"),
    (v4(172, 16, 0, 0, 12), "private"),
    (v4(192, 0, 0, 0, 24), "protocol assignments"),
    (v4(192, 0, 2, 0, 24), "documentation"),
    (v4(192, 88, 99, 0, 24), "6to4 relay"),
    (v4(192, 168, 0, 0, 16), "private"),
    (v4(198, 18, 0, 0, 15), "benchmarks"),
    (v4(198, 51, 100, 0, 24), "documentation"),
    (v4(203, 0, 113, 0, 24), "documentation"),
    (v4(224, 0, 0, 0, 4), "multicast"),
    (v4(240, 0, 0, 0, 4), "reserved"),
    (v4(168, 63, 129, 16, 32), "cloud metadata"),
];

/// All of IPv6 that is handed out for global use (RFC 4291, section 2.4).
const GLOBAL_V6: Ipv6Net = v6(0x2000, 0, 3);

/// What is not global within it. 6to4 and Teredo carry an IPv4 address past every check of IPv4
/// and have been out of use for years (RFC 7526): closed whole.
const CLOSED_V6: [(Ipv6Net, &str); 5] = [
    (v6(0x2001, 0, 32), "Teredo"),
    (v6(0x2001, 0, 23), "protocol assignments"),
    (v6(0x2001, 0xdb8, 32), "documentation"),
    (v6(0x2002, 0, 16), "6to4"),
    (v6(0x3fff, 0, 20), "documentation"),
];

/// Names for the IPv6 ranges outside of global use, for messages.
const LOCAL_V6: [(Ipv6Net, &str); 6] = [
    (v6(0xfd00, 0x0ec2, 32), "cloud metadata"),
    (v6(0xfc00, 0, 7), "private"),
    (v6(0xfe80, 0, 10), "link-local"),
    (v6(0xfec0, 0, 10), "site-local"),
    (v6(0xff00, 0, 8), "multicast"),
    (v6(0x64, 0xff9b, 32), "local NAT64"),
];

/// RFC 6052, section 2.1: how a host without IPv4 reaches an IPv4 address.
const NAT64: Ipv6Net = v6(0x64, 0xff9b, 96);

/// Why `address` is not global; `None` where it is.
///
/// An address that carries an IPv4 address as IPv4-mapped or under the well-known NAT64 prefix
/// counts as that one. A NAT64 prefix that a network chose for itself cannot be told from any
/// other address.
pub(super) fn closed(address: IpAddr) -> Option<&'static str> {
    match address.to_canonical() {
        IpAddr::V4(address) => closed_v4(address),
        IpAddr::V6(address) if NAT64.contains(&address) => {
            let [.., a, b, c, d] = address.octets();
            closed_v4(Ipv4Addr::new(a, b, c, d))
        }
        IpAddr::V6(address) if GLOBAL_V6.contains(&address) => reason_v6(&CLOSED_V6, address),
        IpAddr::V6(address) if address.is_loopback() => Some("loopback"),
        IpAddr::V6(address) => Some(reason_v6(&LOCAL_V6, address).unwrap_or("reserved")),
    }
}

fn closed_v4(address: Ipv4Addr) -> Option<&'static str> {
    let within = |(net, _): &&(Ipv4Net, &'static str)| net.contains(&address);
    CLOSED_V4.iter().find(within).map(|(_, reason)| *reason)
}

fn reason_v6(table: &[(Ipv6Net, &'static str)], address: Ipv6Addr) -> Option<&'static str> {
    let within = |(net, _): &&(Ipv6Net, &'static str)| net.contains(&address);
    table.iter().find(within).map(|(_, reason)| *reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_global_addresses_are_open() {
        let cases = [
            ("8.8.8.8", None),
            ("1.1.1.1", None),
            ("9.255.255.255", None),
            ("11.0.0.0", None),
            ("100.63.255.255", None),
            ("100.128.0.0", None),
            ("172.15.255.255", None),
            ("172.32.0.0", None),
            ("192.0.1.1", None),
            ("198.17.255.255", None),
            ("198.20.0.0", None),
            ("223.255.255.255", None),
            ("0.0.0.0", Some("this network")),
            ("10.0.0.1", Some("private")),
            ("100.64.0.1", Some("shared by a carrier or cloud")),
            ("100.100.100.200", Some("shared by a carrier or cloud")),
            ("127.0.0.1", Some("loopback")),
            ("127.255.255.255", Some("loopback")),
            ("168.63.129.16", Some("cloud metadata")),
            ("169.254.1.1", Some("link-local")),
            ("169.254.169.254", Some("cloud metadata")),
            ("172.16.0.1", Some("private")),
            ("172.31.255.255", Some("private")),
            ("192.0.0.192", Some("protocol assignments")),
            ("192.0.2.1", Some("documentation")),
            ("192.88.99.1", Some("6to4 relay")),
            ("192.168.1.1", Some("private")),
            ("198.18.0.1", Some("benchmarks")),
            ("198.19.255.255", Some("benchmarks")),
            ("198.51.100.1", Some("documentation")),
            ("203.0.113.1", Some("documentation")),
            ("224.0.0.1", Some("multicast")),
            ("240.0.0.1", Some("reserved")),
            ("255.255.255.255", Some("reserved")),
            ("2606:4700:4700::1111", None),
            ("2001:4860:4860::8888", None),
            ("2a00::1", None),
            ("::", Some("reserved")),
            ("::1", Some("loopback")),
            ("::127.0.0.1", Some("reserved")),
            ("::8.8.8.8", Some("reserved")),
            ("::ffff:127.0.0.1", Some("loopback")),
            ("::ffff:169.254.169.254", Some("cloud metadata")),
            ("::ffff:8.8.8.8", None),
            ("64:ff9b::127.0.0.1", Some("loopback")),
            ("64:ff9b::a00:1", Some("private")),
            ("64:ff9b::8.8.8.8", None),
            ("64:ff9b:1::8.8.8.8", Some("local NAT64")),
            ("64:ff9b:1::7f00:1", Some("local NAT64")),
            ("100::1", Some("reserved")),
            ("2001::1", Some("Teredo")),
            ("2001:0:7f00:1::", Some("Teredo")),
            ("2001:2::1", Some("protocol assignments")),
            ("2001:20::1", Some("protocol assignments")),
            ("2001:db8::1", Some("documentation")),
            ("2002:7f00:1::", Some("6to4")),
            ("2002:808:808::1", Some("6to4")),
            ("3fff::1", Some("documentation")),
            ("5f00::1", Some("reserved")),
            ("fc00::1", Some("private")),
            ("fd00::1", Some("private")),
            ("fd00:ec2::254", Some("cloud metadata")),
            ("fe80::1", Some("link-local")),
            ("fec0::1", Some("site-local")),
            ("ff02::1", Some("multicast")),
        ];
        for (address, reason) in cases {
            assert_eq!(closed(address.parse().unwrap()), reason, "{address}");
        }
    }
}
