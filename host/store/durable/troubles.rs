//! `Troubles`: what is wrong with the store, told as incidents; records that cannot be read each once,
//! and not more of them than a person reads.

use std::collections::HashSet;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::database::ReadError;
use crate::telemetry::{Clock, Incidents, Subject};

/// Incidents in one span. A broken disk breaks pages by the thousand, for one and the same reason.
const AT_MOST: usize = 10;
const SPAN: Duration = Duration::from_secs(60);

/// Where troubles are told.
#[derive(Default)]
pub(super) struct Troubles {
    door: OnceLock<(Arc<Incidents>, Clock)>,
    /// What was found at the start, until there is a door.
    found: Mutex<Vec<String>>,
    told: Mutex<Told>,
}

/// What was told in this span.
#[derive(Debug, Default)]
struct Told {
    since: Option<Instant>,
    pages: HashSet<String>,
    untold: usize,
}

impl Troubles {
    /// Tells incidents from here on; until then, the log.
    pub(super) fn report_to(&self, incidents: Arc<Incidents>, clock: Clock) {
        for message in self.found.lock().drain(..) {
            incidents.record(clock.now(), Subject::Server, "store", message, None);
        }
        // A second door would hear only the half of it.
        let _ = self.door.set((incidents, clock));
    }

    /// Tells what was found at the start.
    pub(super) fn found(&self, message: String) {
        tracing::error!("{message}");
        self.found.lock().push(message);
    }

    /// Tells something that is no trouble.
    pub(super) fn word(&self, message: String) {
        match self.door.get() {
            Some((incidents, clock)) => {
                incidents.record(clock.now(), Subject::Server, "store", message, None);
            }
            None => {
                tracing::info!("{message}");
                self.found.lock().push(message);
            }
        }
    }

    /// Tells that a page on disk counts as missing, unless enough was told.
    pub(super) fn tell(&self, page: &str, error: &ReadError) {
        let Some(untold) = self.told.lock().admit(page, Instant::now()) else {
            return;
        };
        let others = match untold {
            0 => String::new(),
            untold => format!(" (and {untold} others since the last one told)"),
        };
        let message = format!("{page} on disk counts as missing and is made anew: {error}{others}");
        match self.door.get() {
            Some((incidents, clock)) => {
                incidents.record(clock.now(), Subject::Server, "store", message, None);
            }
            None => tracing::error!("{message}"),
        }
    }
}

impl Told {
    /// Whether to tell of `page`; how many were not told since the last span, if so.
    fn admit(&mut self, page: &str, now: Instant) -> Option<usize> {
        if self
            .since
            .is_none_or(|since| now.duration_since(since) >= SPAN)
        {
            self.since = Some(now);
            self.pages.clear();
        }
        if self.pages.contains(page) {
            return None;
        }
        if self.pages.len() >= AT_MOST {
            self.untold += 1;
            return None;
        }
        self.pages.insert(page.to_owned());
        Some(std::mem::take(&mut self.untold))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_disk_is_told_of_ten_times_a_minute_and_each_page_once() {
        let mut told = Told::default();
        let start = Instant::now();
        assert_eq!(told.admit("/0", start), Some(0));
        assert_eq!(told.admit("/0", start), None);
        let admitted = (0..100).filter(|n| told.admit(&format!("/{n}"), start).is_some());
        assert_eq!(admitted.count(), AT_MOST - 1);
        assert_eq!(told.admit("/0", start + SPAN), Some(90));
        assert_eq!(told.admit("/1", start + SPAN), Some(0));
    }
}
