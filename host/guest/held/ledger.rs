//! `Ledger`: which resource of a guest's the host holds how much for.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::{Account, Charge};
use crate::guest::outbound::Companion;
use crate::guest::sandbox::Overrun;

/// The charges of one sandbox, by the number of the resource in wasmtime's table.
#[derive(Debug)]
pub(in crate::guest) struct Ledger {
    account: Account,
    charges: HashMap<u32, Charge>,
    /// For what is no resource any more and stays as long as the sandbox.
    kept: Vec<Charge>,
    /// Goes along with the next request that is sent.
    passed: Arc<Mutex<Option<Companion>>>,
}

impl Ledger {
    /// An empty ledger. What goes along with requests is left at `passed`.
    pub(in crate::guest) fn new(account: Account, passed: Arc<Mutex<Option<Companion>>>) -> Self {
        Self {
            account,
            charges: HashMap::new(),
            kept: Vec::new(),
            passed,
        }
    }

    /// Counts what a resource holds now.
    ///
    /// # Errors
    /// When that is more than the guest may have.
    pub(super) fn set(&mut self, resource: u32, bytes: u64) -> Result<(), Overrun> {
        match self.charges.get_mut(&resource) {
            Some(charge) => charge.set(bytes),
            None => {
                self.charges.insert(resource, self.account.charge(bytes)?);
                Ok(())
            }
        }
    }

    /// What was counted for a resource that goes; to be dropped, or to go with what it became.
    pub(super) fn take(&mut self, resource: u32) -> Option<Charge> {
        self.charges.remove(&resource)
    }

    /// Counts `bytes` until the sandbox ends.
    ///
    /// # Errors
    /// When that is more than the guest may have.
    pub(in crate::guest) fn keep(&mut self, bytes: u64) -> Result<(), Overrun> {
        self.kept.push(self.account.charge(bytes)?);
        Ok(())
    }

    /// Counts what a resource held until the sandbox ends.
    pub(super) fn keep_of(&mut self, resource: u32) {
        self.kept.extend(self.charges.remove(&resource));
    }

    /// Has `charge` go along with the request that is about to be sent.
    pub(super) fn pass_on(&self, charge: Charge) {
        *self.passed.lock() = Some(Box::new(charge));
    }

    /// Drops what no request took along.
    pub(super) fn take_back(&self) {
        *self.passed.lock() = None;
    }

    /// The account that the charges are of.
    pub(in crate::guest) fn account(&self) -> &Account {
        &self.account
    }
}
