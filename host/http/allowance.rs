//! `Debts`: how much each client has had of something that is given out at a pace; and `Allowance`,
//! what it has left for pages that nobody has asked for before.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::address::{Client, Household};
use crate::isr::Toll;

/// Addresses that are remembered: 200 KiB. An attacker with more of them pushes out those that
/// owe the least.
pub(super) const MAX_HOUSEHOLDS: usize = 4096;

/// So many at once, and one more after each pause: the generic cell rate algorithm, which needs one
/// moment for each client.
#[derive(Debug)]
pub(super) struct Debts {
    burst: u32,
    pause: Duration,
    /// When all that an address has had will be forgotten.
    until: Mutex<HashMap<Household, Instant>>,
}

impl Debts {
    pub(super) fn new(burst: u32, pause: Duration) -> Self {
        let until = Mutex::default();
        Self {
            burst,
            pause,
            until,
        }
    }

    /// How long until there is one; none while there is.
    pub(super) fn wait(&self, household: Household, now: Instant) -> Option<Duration> {
        let until = *self.until.lock().get(&household)?;
        self.over(until, now)
    }

    fn over(&self, until: Instant, now: Instant) -> Option<Duration> {
        let full = self.pause * self.burst.saturating_sub(1);
        let over = until.saturating_duration_since(now + full);
        (!over.is_zero()).then_some(over)
    }

    /// Counts one more, whether there is one or not.
    pub(super) fn add(&self, household: Household, now: Instant) {
        self.charge(&mut self.until.lock(), household, now);
    }

    /// Takes one.
    ///
    /// # Errors
    /// How long until there is one.
    fn take(&self, household: Household, now: Instant) -> Result<(), Duration> {
        let mut all = self.until.lock();
        let until = all.get(&household);
        if let Some(wait) = until.and_then(|until| self.over(*until, now)) {
            return Err(wait);
        }
        self.charge(&mut all, household, now);
        Ok(())
    }

    fn give_back(&self, household: Household) {
        let mut all = self.until.lock();
        if let Some(until) = all.get_mut(&household) {
            // An instant has no place before the machine's start.
            *until = until.checked_sub(self.pause).unwrap_or(*until);
        }
    }

    fn charge(&self, all: &mut HashMap<Household, Instant>, household: Household, now: Instant) {
        if all.len() >= MAX_HOUSEHOLDS && !all.contains_key(&household) {
            all.retain(|_, until| *until > now);
            let least = all.iter().min_by_key(|(_, until)| **until);
            if let Some(least) = least.map(|(household, _)| *household)
                && all.len() >= MAX_HOUSEHOLDS
            {
                all.remove(&least);
            }
        }
        let until = all.entry(household).or_insert(now);
        *until = (*until).max(now) + self.pause;
    }

    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.until.lock().len()
    }
}

/// Pages that nobody has asked for before, made for each client.
#[derive(Debug, Clone)]
pub(super) struct Allowance(Arc<Debts>);

/// One client's part of it.
struct Purse {
    debts: Arc<Debts>,
    household: Household,
}

impl Allowance {
    /// So many in a minute, and those of one minute at once.
    pub(super) fn new(in_a_minute: NonZeroU32) -> Self {
        let pause = Duration::from_secs(60) / in_a_minute.get();
        Self(Arc::new(Debts::new(in_a_minute.get(), pause)))
    }

    /// What this client pays with.
    pub(super) fn of(&self, client: Client) -> Arc<dyn Toll> {
        Arc::new(Purse {
            debts: Arc::clone(&self.0),
            household: client.household,
        })
    }
}

impl Toll for Purse {
    fn pay(&self) -> Result<(), Duration> {
        self.debts.take(self.household, Instant::now())
    }

    fn give_back(&self) {
        self.debts.give_back(self.household);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_minute_has_so_many_and_each_client_its_own() {
        let allowance = Allowance::new(NonZeroU32::new(6).unwrap());
        let purse = |address: &str| allowance.of(Client::known(address.parse().unwrap()));
        let (one, other) = (purse("2001:db8::1"), purse("192.0.2.1"));
        for _ in 0..6 {
            assert_eq!(one.pay(), Ok(()));
        }
        assert_eq!(one.pay(), Err(Duration::from_secs(10)));
        // The same customer by another address.
        assert!(purse("2001:db8::2").pay().is_err());
        assert_eq!(other.pay(), Ok(()));
        one.give_back();
        assert_eq!((one.pay(), one.pay().is_err()), (Ok(()), true));
        tokio::time::advance(Duration::from_secs(4)).await;
        assert_eq!(one.pay(), Err(Duration::from_secs(6)));
        tokio::time::advance(Duration::from_secs(6)).await;
        assert_eq!((one.pay(), one.pay().is_err()), (Ok(()), true));
        tokio::time::advance(Duration::from_secs(600)).await;
        let bought = (0..60).filter(|_| one.pay().is_ok()).count();
        assert_eq!(bought, 6);
    }
}
