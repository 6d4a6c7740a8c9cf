//! `Client`: who a request or a connection counts as, and `Crowd`: how many connections each one has
//! open.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use parking_lot::Mutex;

/// What one client can have of addresses: one of IPv4, or the 64 bits of IPv6 that the smallest
/// customer is given (RFC 6177 section 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Household(IpAddr);

impl Household {
    pub(super) fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V6(address) => {
                let prefix = u128::from(address) >> 64 << 64;
                Self(Ipv6Addr::from(prefix).into())
            }
            v4 @ IpAddr::V4(_) => Self(v4),
        }
    }

    /// Whether everybody may be behind it: an address that no network routes is that of a proxy on
    /// this machine or beside it, or of people who know each other. 100.64.0.0/10 (RFC 6598) is
    /// what clusters and overlay networks have when they run out of the others.
    pub(super) fn is_shared(self) -> bool {
        match self.0 {
            IpAddr::V4(v4) => {
                let is_carriers = matches!(v4.octets(), [100, 64..128, ..]);
                v4.is_loopback() || v4.is_private() || v4.is_link_local() || is_carriers
            }
            // Of ::1 the prefix is left.
            IpAddr::V6(v6) => {
                v6.is_unspecified() || v6.is_unique_local() || v6.is_unicast_link_local()
            }
        }
    }
}

/// Who is counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Client {
    pub(super) address: IpAddr,
    pub(super) household: Household,
    /// Whether it may be many.
    pub(super) is_shared: bool,
}

impl Client {
    /// Who calls from this address, where nobody says which addresses proxies have.
    pub fn at(address: IpAddr) -> Self {
        Self {
            is_shared: Household::of(address).is_shared(),
            ..Self::known(address)
        }
    }

    /// Who calls from this address, where it is no proxy's.
    pub(super) fn known(address: IpAddr) -> Self {
        Self {
            address: address.to_canonical(),
            household: Household::of(address),
            is_shared: false,
        }
    }
}

/// How many connections one address may have open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PerAddress {
    /// So many from the internet; any number from addresses that everybody may be behind.
    Public(usize),
    /// So many from any address.
    All(usize),
}

/// The open connections by household.
#[derive(Debug)]
pub(super) struct Crowd {
    most: PerAddress,
    open: Mutex<HashMap<Household, usize>>,
}

/// A connection that counts until this is dropped.
#[derive(Debug)]
pub(super) struct Counted {
    crowd: Arc<Crowd>,
    household: Household,
}

impl Crowd {
    pub(super) fn new(most: PerAddress) -> Arc<Self> {
        let open = Mutex::default();
        Arc::new(Self { most, open })
    }

    /// Counts one more, unless its household has as many as it may.
    pub(super) fn enter(self: &Arc<Self>, client: Client) -> Option<Counted> {
        let household = client.household;
        let most = match self.most {
            PerAddress::Public(_) if client.is_shared => usize::MAX,
            PerAddress::Public(most) | PerAddress::All(most) => most,
        };
        let mut open = self.open.lock();
        let count = open.entry(household).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        let crowd = Arc::clone(self);
        Some(Counted { crowd, household })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut open = self.crowd.open.lock();
        if let Some(count) = open.get_mut(&self.household) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.household);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn household(address: &str) -> Household {
        Household::of(address.parse().unwrap())
    }

    #[test]
    fn addresses_of_one_customer_are_one() {
        for (one, other, same) in [
            ("192.0.2.1", "192.0.2.1", true),
            ("192.0.2.1", "192.0.2.2", false),
            ("192.0.2.1", "::ffff:192.0.2.1", true),
            ("2001:db8::1", "2001:db8::ffff:0:0:1", true),
            ("2001:db8::1", "2001:db8:0:1::1", false),
        ] {
            assert_eq!(household(one) == household(other), same, "{one} {other}");
        }
    }

    #[test]
    fn everybody_may_be_behind_an_address_that_is_not_routed() {
        for (address, shared) in [
            ("127.0.0.1", true),
            ("::1", true),
            ("::ffff:127.0.0.1", true),
            ("10.1.2.3", true),
            ("172.16.0.1", true),
            ("192.168.1.1", true),
            ("169.254.1.1", true),
            ("100.64.0.1", true),
            ("100.127.255.255", true),
            ("100.63.0.1", false),
            ("100.128.0.1", false),
            ("fd00::1", true),
            ("fe80::1", true),
            ("192.0.2.1", false),
            ("172.32.0.1", false),
            ("2001:db8::1", false),
        ] {
            assert_eq!(household(address).is_shared(), shared, "{address}");
        }
    }

    #[test]
    fn a_household_has_its_share_and_no_more() {
        let crowd = Crowd::new(PerAddress::Public(2));
        let enter = |address: &str| crowd.enter(Client::at(address.parse().unwrap()));
        let (first, second) = (enter("2001:db8::1"), enter("2001:db8::2"));
        assert!(first.is_some() && second.is_some());
        assert!(enter("2001:db8::3").is_none());
        assert!(enter("192.0.2.1").is_some());
        drop(first);
        assert!(enter("2001:db8::3").is_some());
        let proxied: Vec<_> = (0..10).map(|_| enter("10.0.0.1")).collect();
        assert!(proxied.iter().all(Option::is_some));
        // Where proxies are known, an address like that is one client's.
        let known = || crowd.enter(Client::known(IpAddr::from([10, 0, 0, 2])));
        let known: Vec<_> = (0..10).filter_map(|_| known()).collect();
        assert_eq!(known.len(), 2);
        drop((second, proxied, known));
        assert!(crowd.open.lock().is_empty());

        let strict = Crowd::new(PerAddress::All(1));
        let local = Client::at(IpAddr::from([127, 0, 0, 1]));
        let one = strict.enter(local);
        assert!(one.is_some() && strict.enter(local).is_none());
    }
}
