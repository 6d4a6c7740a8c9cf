//! `Throttle`: how often one address may be wrong about a token.

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use tokio::time::Instant;

use super::address::Client;
use super::allowance::Debts;
use crate::telemetry::metrics::{Denial, Metrics};

/// Wrong tokens in a row that pass for mistakes: a hook that was set up badly tries a few times.
const BURST: u32 = 10;

/// One more may follow after this, ten in a minute.
const PAUSE: Duration = Duration::from_secs(6);

/// Remembers who was wrong.
///
/// An address that was wrong too often is not even compared any more, so that nobody guesses
/// faster. Behind an address that everybody may be behind (a loopback or private one, where nobody
/// says which proxies there are), a right token passes all the same: whoever guesses there would
/// otherwise shut its owner out.
#[derive(Debug)]
pub struct Throttle {
    /// Which door this is, for the metrics.
    door: &'static str,
    denials: Family<Denial, Counter>,
    wrong: Debts,
}

/// Why a caller is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denied {
    /// The token is wrong or missing.
    Wrong,
    /// And it was too often; so long it is of no use to try.
    TooOften(Duration),
}

impl Denied {
    /// The word for metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Denied::Wrong => "wrong-token",
            Denied::TooOften(_) => "throttled",
        }
    }
}

impl Default for Throttle {
    fn default() -> Self {
        Self {
            door: "",
            denials: Family::default(),
            wrong: Debts::new(BURST, PAUSE),
        }
    }
}

impl Throttle {
    /// The throttle of a door. Whom it denies is counted.
    pub fn new(door: &'static str, metrics: &Metrics) -> Self {
        Self {
            door,
            denials: metrics.callers_denied.clone(),
            ..Self::default()
        }
    }

    /// Lets a caller in whose token is right.
    ///
    /// # Errors
    /// Why not.
    pub fn admit(
        &self,
        client: Client,
        now: Instant,
        is_right: impl FnOnce() -> bool,
    ) -> Result<(), Denied> {
        let admitted = self.judge(client, now, is_right);
        if let Err(denied) = admitted {
            let (door, reason) = (self.door, denied.as_str());
            self.denials.get_or_create(&Denial { door, reason }).inc();
        }
        admitted
    }

    fn judge(
        &self,
        client: Client,
        now: Instant,
        is_right: impl FnOnce() -> bool,
    ) -> Result<(), Denied> {
        let household = client.household;
        let wait = self.wrong.wait(household, now);
        if let Some(wait) = wait
            && !client.is_shared
        {
            return Err(Denied::TooOften(wait));
        }
        if is_right() {
            return Ok(());
        }
        match wait {
            Some(wait) => Err(Denied::TooOften(wait)),
            None => {
                self.wrong.add(household, now);
                Err(Denied::Wrong)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::allowance::MAX_HOUSEHOLDS;
    use super::*;

    const STRANGER: &str = "192.0.2.1";

    fn ask(throttle: &Throttle, address: &str, now: Instant, right: bool) -> Result<(), Denied> {
        throttle.admit(Client::at(address.parse().unwrap()), now, || right)
    }

    #[test]
    fn who_is_wrong_too_often_is_not_compared() {
        let (throttle, now) = (Throttle::default(), Instant::now());
        assert_eq!(ask(&throttle, STRANGER, now, true), Ok(()));
        for _ in 0..BURST {
            assert_eq!(ask(&throttle, STRANGER, now, false), Err(Denied::Wrong));
        }
        let too_often = Err(Denied::TooOften(PAUSE));
        for right in [false, true] {
            assert_eq!(ask(&throttle, STRANGER, now, right), too_often);
        }
        assert_eq!(ask(&throttle, "192.0.2.2", now, true), Ok(()));
        let later = now + PAUSE;
        assert_eq!(ask(&throttle, STRANGER, later, false), Err(Denied::Wrong));
        assert_eq!(ask(&throttle, STRANGER, later, true), too_often);
        assert_eq!(ask(&throttle, STRANGER, later + PAUSE, true), Ok(()));
    }

    #[test]
    fn one_network_is_one_stranger() {
        let (throttle, now) = (Throttle::default(), Instant::now());
        for number in 0..BURST {
            let _ = ask(&throttle, &format!("2001:db8::{number}"), now, false);
        }
        assert!(ask(&throttle, "2001:db8::ffff", now, true).is_err());
        assert!(ask(&throttle, "2001:db8:0:1::1", now, true).is_ok());
    }

    #[test]
    fn nobody_shuts_out_who_is_behind_the_same_proxy() {
        let (throttle, now) = (Throttle::default(), Instant::now());
        for _ in 0..2 * BURST {
            let _ = ask(&throttle, "127.0.0.1", now, false);
        }
        let told = ask(&throttle, "127.0.0.1", now, false);
        assert_eq!(told, Err(Denied::TooOften(PAUSE)));
        assert_eq!(ask(&throttle, "127.0.0.1", now, true), Ok(()));
    }

    #[test]
    fn what_is_remembered_is_bounded_and_the_worst_are_remembered() {
        let (throttle, now) = (Throttle::default(), Instant::now());
        for _ in 0..BURST {
            let _ = ask(&throttle, STRANGER, now, false);
        }
        for number in 0..2 * MAX_HOUSEHOLDS as u32 {
            let address = std::net::Ipv4Addr::from(0x0800_0000 + number);
            let _ = ask(&throttle, &address.to_string(), now, false);
        }
        assert_eq!(throttle.wrong.count(), MAX_HOUSEHOLDS);
        assert!(ask(&throttle, STRANGER, now, true).is_err());
    }
}
