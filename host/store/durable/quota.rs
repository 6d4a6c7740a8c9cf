//! `Quota`: keeps the pages on disk within `store.disk`.
//!
//! The pages made longest ago go first. Counting happens behind all responses, on the thread that
//! writes, and only after enough was written to matter. What the database has not reclaimed yet
//! does not count, so pages may fill [`LIVE_PERCENT`] of the budget: the rest is for garbage.

use std::collections::BinaryHeap;

use super::database::Database;
use crate::page::{PageKey, Timestamp};

/// The part of the budget that pages may fill. Body files are rewritten when 30 % is garbage.
const LIVE_PERCENT: u64 = 70;

/// Above the first part of what pages may fill they are evicted, down to the second. The gap
/// spaces the countings out.
const HIGH_PERCENT: u64 = 90;
const LOW_PERCENT: u64 = 80;

/// The budget of the pages on disk.
#[derive(Debug)]
pub(super) struct Quota {
    /// Bytes that pages may fill.
    live: u64,
    /// Bytes to be written before the next counting.
    until_census: u64,
}

/// The oldest pages, just enough of them to free `need` bytes.
#[derive(Debug)]
struct Oldest {
    need: u64,
    found: u64,
    /// The newest of them on top.
    pages: BinaryHeap<(Timestamp, u64, PageKey)>,
}

impl Quota {
    /// A quota of `disk` bytes; the first write counts what is there.
    pub(super) fn new(disk: u64) -> Self {
        Self {
            live: disk / 100 * LIVE_PERCENT,
            until_census: 0,
        }
    }

    /// Evicts pages after `written` bytes were written, if it is time; how many.
    pub(super) fn enforce(&mut self, database: &Database, written: u64) -> Result<u64, String> {
        self.until_census = self.until_census.saturating_sub(written);
        if self.until_census > 0 {
            return Ok(0);
        }
        let (high, low) = (self.part(HIGH_PERCENT), self.part(LOW_PERCENT));
        self.until_census = (self.live / 10).max(1);
        let mut total = 0;
        let count = database.census(|_, size| total += size);
        count.map_err(|error| error.to_string())?;
        let mut evicted = 0;
        if total > high {
            let mut oldest = Oldest::new(total - low);
            let found = database.census(|meta, size| oldest.offer(meta.generated, size, meta.key));
            found.map_err(|error| error.to_string())?;
            evicted = u64::try_from(oldest.pages.len()).unwrap_or(u64::MAX);
            total = total.saturating_sub(oldest.found);
            database.remove(oldest.pages.into_iter().map(|(_, _, key)| key))?;
        }
        self.until_census = self.until_census.max(high.saturating_sub(total));
        Ok(evicted)
    }

    fn part(&self, percent: u64) -> u64 {
        self.live / 100 * percent
    }
}

impl Oldest {
    fn new(need: u64) -> Self {
        Self {
            need,
            found: 0,
            pages: BinaryHeap::new(),
        }
    }

    fn offer(&mut self, generated: Timestamp, size: u64, key: PageKey) {
        let newest = self.pages.peek().map(|(newest, _, _)| *newest);
        if self.found >= self.need && newest.is_some_and(|newest| newest <= generated) {
            return;
        }
        self.pages.push((generated, size, key));
        self.found += size;
        while let Some((_, size, _)) = self.pages.peek()
            && self.found - size >= self.need
        {
            self.found -= size;
            self.pages.pop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn just_enough_of_the_oldest_are_found_in_any_order() {
        let mut ages: Vec<u64> = (0..1_000).collect();
        for _ in 0..20 {
            fastrand::shuffle(&mut ages);
            let mut oldest = Oldest::new(95);
            for age in &ages {
                let key = PageKey::new(&format!("/{age}"), &[]);
                oldest.offer(Timestamp::from_millis(*age), 10, key);
            }
            let mut found: Vec<u64> = oldest
                .pages
                .iter()
                .map(|(generated, _, _)| generated.as_millis())
                .collect();
            found.sort_unstable();
            assert_eq!(found, (0..10).collect::<Vec<_>>());
        }
    }
}
