//! `Troubles`: records that cannot be read, told as incidents: each page once, and not more of them
//! than a person reads.

use std::collections::HashSet;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::database::{Lost, ReadError};
use crate::telemetry::{Clock, Incidents, Subject};

/// Incidents in one span. A broken disk breaks pages by the thousand, for one and the same reason.
const AT_MOST: usize = 10;
const SPAN: Duration = Duration::from_secs(60);

/// Pages that are told by name of those that a start has cost.
const NAMED: usize = 5;

/// Where troubles are told.
#[derive(Default)]
pub(super) struct Troubles {
    door: OnceLock<(Arc<Incidents>, Clock)>,
    /// What was found at the start, until there is a door.
    found: Mutex<Option<String>>,
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
        if let Some(message) = self.found.lock().take() {
            incidents.record(clock.now(), Subject::Server, "store", message, None);
        }
        // A second door would hear only the half of it.
        let _ = self.door.set((incidents, clock));
    }

    /// Tells what a disk that changed bytes has cost, if it has.
    pub(super) fn tell_of_bytes(&self, lost: &Lost) {
        let costs = lost.costs();
        if costs.is_empty() {
            return;
        }
        let costs = costs.join("; ");
        let message = format!("the disk or the file system changed bytes of the store: {costs}");
        tracing::error!("{message}");
        match self.door.get() {
            Some((incidents, clock)) => {
                incidents.record(clock.now(), Subject::Server, "store", message, None);
            }
            None => *self.found.lock() = Some(message),
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

impl Lost {
    /// What it comes to, in words.
    fn costs(&self) -> Vec<String> {
        let mut costs = Vec::new();
        if !self.pages.is_empty() {
            let mut names: Vec<&str> = self.pages.iter().map(String::as_str).collect();
            names.truncate(NAMED);
            let (count, names) = (self.pages.len(), names.join(", "));
            costs.push(format!(
                "pages that count as missing and are made anew: {count} ({names})"
            ));
        }
        if self.blocks > 0 {
            let count = self.blocks;
            costs.push(format!(
                "blocks of records that are gone, so that what only they had counts as missing: {count}"
            ));
        }
        if self.invalidations {
            costs.push("invalidations may be lost, so that all pages count as stale".to_owned());
        }
        if !self.put_back.is_empty() {
            let files = self.put_back.join(", ");
            costs.push(format!("nothing of {files}, put back from copies"));
        }
        costs
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
