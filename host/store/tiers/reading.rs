//! `Reading`: a read from disk that several may wait for.

use std::sync::{Arc, OnceLock};

use tokio::sync::Notify;

use crate::page::Entry;

/// A read from disk; those who wait are told what came of it.
#[derive(Debug, Default)]
pub(super) struct Reading {
    read: OnceLock<Read>,
    told: Notify,
}

/// What came of a read.
#[derive(Debug, Clone)]
pub(super) enum Read {
    /// The entry, if there is one.
    Done(Option<Arc<Entry>>),
    /// The page was changed meanwhile: look again.
    Overtaken,
}

impl Reading {
    /// What was read, once it is.
    pub(super) async fn wait(&self) -> Read {
        loop {
            // Made before the look, so that it hears of whatever comes after that.
            let told = self.told.notified();
            if let Some(read) = self.read.get() {
                return read.clone();
            }
            told.await;
        }
    }

    /// Tells all who wait. To be called once.
    pub(super) fn tell(&self, read: Read) {
        let _ = self.read.set(read);
        self.told.notify_waiters();
    }
}
