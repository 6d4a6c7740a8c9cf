//! `Account`: the memory of one sandbox, what the guest has and what the host holds for it, under
//! one limit.
//!
//! What wasmtime's own implementation of `wasi:http` keeps for a guest is weighed after each call
//! that may make it heavier (`http`), by the resource that keeps it (`Ledger`). A request
//! that is sent takes its [`Charge`] along, and gives it back when the task that sends it, or the
//! body of its answer, is gone.

mod http;
mod ledger;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub(super) use http::{Counted, CountedHttp};
pub(super) use ledger::Ledger;

use super::sandbox::Overrun;

/// The account of one sandbox; its clones are the same.
#[derive(Debug, Clone)]
pub(super) struct Account(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    limit: u64,
    held: AtomicU64,
    /// The part of `held` that the host holds.
    by_host: AtomicU64,
    peak: AtomicU64,
}

impl Account {
    /// An empty account of at most `limit` bytes.
    pub(super) fn new(limit: u64) -> Self {
        Self(Arc::new(Inner {
            limit,
            held: AtomicU64::new(0),
            by_host: AtomicU64::new(0),
            peak: AtomicU64::new(0),
        }))
    }

    /// Counts what the guest is about to have more.
    ///
    /// # Errors
    /// When that is more than it may have.
    pub(super) fn grow(&self, growth: u64) -> Result<(), Overrun> {
        let Inner { limit, held, .. } = &*self.0;
        let more = |held: u64| held.checked_add(growth).filter(|held| held <= limit);
        match held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more) {
            Ok(before) => {
                self.0.peak.fetch_max(before + growth, Ordering::Relaxed);
                Ok(())
            }
            Err(held) => Err(Overrun::Memory {
                held,
                by_host: self.0.by_host.load(Ordering::Relaxed),
                growth,
                limit: *limit,
            }),
        }
    }

    /// Takes back what was counted.
    pub(super) fn shrink(&self, bytes: u64) {
        self.0.held.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Counts what the host is to hold for the guest, for as long as the charge is held.
    ///
    /// # Errors
    /// When that is more than the guest may have.
    pub(super) fn charge(&self, bytes: u64) -> Result<Charge, Overrun> {
        let mut charge = Charge {
            account: self.clone(),
            bytes: 0,
        };
        charge.set(bytes)?;
        Ok(charge)
    }

    /// The most that was held at once, in bytes.
    pub(super) fn peak(&self) -> u64 {
        self.0.peak.load(Ordering::Relaxed)
    }
}

/// What the host holds for a guest, given back to its account when it is dropped.
#[derive(Debug)]
pub(super) struct Charge {
    account: Account,
    bytes: u64,
}

impl Charge {
    /// Counts `bytes` instead of what was counted so far.
    ///
    /// # Errors
    /// When that is more than the guest may have.
    fn set(&mut self, bytes: u64) -> Result<(), Overrun> {
        let by_host = &self.account.0.by_host;
        if bytes > self.bytes {
            let more = bytes - self.bytes;
            self.account.grow(more)?;
            by_host.fetch_add(more, Ordering::Relaxed);
        } else {
            let less = self.bytes - bytes;
            self.account.shrink(less);
            by_host.fetch_sub(less, Ordering::Relaxed);
        }
        self.bytes = bytes;
        Ok(())
    }

    /// Counts so many bytes more.
    ///
    /// # Errors
    /// When that is more than the guest may have.
    pub(super) fn add(&mut self, bytes: u64) -> Result<(), Overrun> {
        self.set(self.bytes.saturating_add(bytes))
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        // Less is never refused.
        let _ = self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_share_one_limit() {
        let account = Account::new(100);
        account.grow(60).unwrap();
        let mut charge = account.charge(30).unwrap();
        let expected = Overrun::Memory {
            held: 90,
            by_host: 30,
            growth: 11,
            limit: 100,
        };
        assert_eq!(charge.add(11), Err(expected));
        assert_eq!(account.grow(11), Err(expected));
        charge.add(10).unwrap();
        drop(charge);
        account.shrink(60);
        assert_eq!(account.peak(), 100);
        assert!(account.charge(100).is_ok());
        assert!(account.charge(u64::MAX).is_err());
        account.grow(100).unwrap();
    }
}
