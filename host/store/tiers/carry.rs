//! [`start`]: brings pages back from a store that was set aside, behind everybody.
//!
//! A page that there is stays, and so does the word that there is none; a page that was purged since,
//! or whose route is gone since, does not come back. Who is killed in the midst of it goes on at the
//! next start.

use std::ops::ControlFlow;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

use super::reading::{Read, Reading};
use super::{PATIENCE, Tiers};
use crate::page::Entry;
use crate::store::durable::Old;
use crate::store::{Store, Unkept};

/// How long is waited for whoever reads the same page.
const BUSY: Duration = Duration::from_millis(1);

/// What became of a page.
enum Back {
    Kept,
    /// There is another, or there must be none.
    Refused,
    /// Somebody else is at it.
    Busy,
    /// The disk has to catch up.
    NoRoom,
}

/// Brings pages back from each of `olds`, the newest first.
pub(super) fn start(tiers: &Arc<Tiers>, olds: Vec<Old>) {
    if olds.is_empty() {
        return;
    }
    *tiers.gone.lock() = Some(Vec::new());
    let tiers = Arc::downgrade(tiers);
    let carry = move || {
        for old in olds {
            carry(&tiers, old);
        }
        if let Some(tiers) = tiers.upgrade() {
            *tiers.gone.lock() = None;
        }
    };
    // Otherwise it is done at the next start.
    let _ = thread::Builder::new()
        .name("wisr-carry".to_owned())
        .spawn(carry);
}

fn carry(tiers: &Weak<Tiers>, old: Old) {
    let place = old.place().display().to_string();
    let mut kept = 0_u64;
    let walked = old.walk(|entry| {
        let Some(tiers) = tiers.upgrade() else {
            return ControlFlow::Break(());
        };
        kept += u64::from(tiers.bring_back_patiently(Arc::new(entry))?);
        ControlFlow::Continue(())
    });
    let Some(durable) = tiers.upgrade().and_then(|tiers| tiers.durable.clone()) else {
        return;
    };
    let ControlFlow::Continue(lost) = walked else {
        tracing::warn!("pages stay in {place} until the next start: the disk fails");
        return;
    };
    let closed = durable
        .synced_blocking()
        .map_err(|error| error.to_string())
        .and_then(|()| old.close(lost).map_err(|error| error.to_string()));
    if let Err(error) = closed {
        tracing::warn!("pages of {place} are taken back once more at the next start: {error}");
    }
    durable.tell(format!(
        "pages taken back from {place}: {kept}; what could not be read there and is made anew: {lost}"
    ));
}

impl Tiers {
    /// Keeps a page of an earlier store, if it may be; breaks off while the disk fails.
    fn bring_back_patiently(&self, entry: Arc<Entry>) -> ControlFlow<(), bool> {
        loop {
            match self.bring_back(&entry) {
                Back::Kept => return ControlFlow::Continue(true),
                Back::Refused => return ControlFlow::Continue(false),
                Back::Busy => thread::sleep(BUSY),
                Back::NoRoom => {
                    let durable = self.durable.as_ref();
                    if !durable.is_some_and(|durable| durable.wait_for_room(PATIENCE)) {
                        return ControlFlow::Break(());
                    }
                }
            }
        }
    }

    fn bring_back(&self, entry: &Arc<Entry>) -> Back {
        let Some(durable) = &self.durable else {
            return Back::Refused;
        };
        let (key, reading) = (&entry.key, Arc::new(Reading::default()));
        {
            let mut readings = self.reading.lock();
            if readings.contains_key(key) {
                return Back::Busy;
            }
            readings.insert(key.clone(), reading.clone());
        }
        // Not under the lock: it may ask the disk.
        let is_known = self.memory.holds(key) || durable.knows(key);
        let back = {
            let mut readings = self.reading.lock();
            let its = readings.get(key);
            if its.is_some_and(|its| Arc::ptr_eq(its, &reading)) {
                readings.remove(key);
                self.bring_back_alone(entry, is_known)
            } else {
                // Somebody changed the page meanwhile.
                Back::Busy
            }
        };
        // Who waits looks again.
        reading.tell(Read::Overtaken);
        back
    }

    /// Where nobody else is at the page.
    fn bring_back_alone(&self, entry: &Arc<Entry>, is_known: bool) -> Back {
        let gone = self.gone.lock();
        let is_gone = |route: &str| gone.iter().flatten().any(|is_gone| is_gone(route));
        if is_known || self.ledger.is_purged(&entry.key, 0) || is_gone(&entry.route) {
            return Back::Refused;
        }
        let durable = self.durable.as_ref();
        match durable.map(|durable| durable.put(entry.clone())) {
            Some(Ok(())) => Back::Kept,
            Some(Err(Unkept::NoRoom)) => Back::NoRoom,
            _ => Back::Refused,
        }
    }
}
