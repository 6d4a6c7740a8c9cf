//! `Sync`: how a host that comes back learns what it has missed, and tells what Redis has lost.
//!
//! The counts of invalidations are of a history, which has a name. Redis may come back with less than
//! hosts have seen: restarted empty, or a replica that had not heard the last. The first host to see
//! that begins another history, whose counts lie far above all that any host can have seen. Its
//! `base` is the count up to which it continues the one before. A host of another history tells
//! again what it knows beyond the base, and reads what was told beyond it.

use std::collections::{HashMap, HashSet};

use redis::RedisResult;

use super::link::{Call, Link};
use super::log::{self, Kind, Place};
use super::{Core, MAX_REPLACED, Trouble, names, script};
use crate::page::PageKey;
use crate::store::marks::{Mark, Told, count};

/// How far ahead the counts of another history begin: more invalidations than one host can have
/// seen of those that another has not.
const GAP: u64 = 1 << 20;

/// Marks in one command: a server does nothing else meanwhile.
const AT_ONCE: usize = 1_000;

/// Attempts before somebody else is taken to be at it all the time.
const ATTEMPTS: usize = 5;

/// How far the site has come, as Redis says it.
struct Hello {
    history: String,
    count: u64,
    last: String,
    base: u64,
    floor: u64,
    /// Marks that there should be, if that was ever noted, and those that there are.
    marks: (i64, i64),
}

impl Core {
    /// Brings this host and Redis to the same count; from where the log goes on.
    pub(super) async fn sync(&self, link: &mut Link) -> Result<Place, Trouble> {
        for _ in 0..ATTEMPTS {
            let hello = self.hello(link).await?;
            let here = count(self.ledger.sequence());
            let own = self.ledger.history();
            if hello.history.is_empty() || hello.marks.0 > hello.marks.1 {
                self.push(link).await?;
                self.found(link, &hello.history, here, here).await?;
                continue;
            }
            let from = if own.as_ref() == Some(&hello.history) {
                if let Some(base) = self.divergence(link, &hello, here).await? {
                    self.found(link, &hello.history, base, here).await?;
                    continue;
                }
                here
            } else {
                self.ledger.disown(hello.base);
                here.min(hello.base)
            };
            self.pull(link, from, &hello).await?;
            self.ledger.belong_to(&hello.history);
            self.applied.send_replace(hello.count);
            return Ok(Place {
                at: hello.count,
                last: hello.last,
            });
        }
        Err(Trouble::History)
    }

    async fn hello(&self, link: &mut Link) -> RedisResult<Hello> {
        let call = Call::of(&script::HELLO, &self.names.control());
        let (history, count, last, base, floor, noted, there) = link.run(&call).await?;
        Ok(Hello {
            history,
            count,
            last,
            base,
            floor,
            marks: (noted, there),
        })
    }

    /// Gives Redis all marks that this host knows and all are to know, by their counts.
    async fn push(&self, link: &mut Link) -> RedisResult<()> {
        for marks in self.ledger.counted().chunks(AT_ONCE) {
            let mut command = redis::cmd("ZADD");
            command.arg(&self.names.control[1]).arg("GT");
            for (mark, at) in marks {
                command.arg(*at).arg(names::encode(mark, *at));
            }
            let _: u64 = link.ask(&command).await?;
        }
        Ok(())
    }

    /// Begins another history after `before`, unless some other host is faster.
    async fn found(&self, link: &mut Link, before: &str, base: u64, here: u64) -> RedisResult<()> {
        let name = format!("{:016x}", fastrand::u64(..));
        let call = Call::of(&script::FOUND, &self.names.control())
            .text(before)
            .text(&name)
            .number(base)
            .number(here.max(base) + GAP)
            .number(self.ledger.floor());
        let founded: u8 = link.run(&call).await?;
        if founded == 1 {
            if !before.is_empty() {
                tracing::warn!(
                    "Redis came back with less than this host has seen: it is told again"
                );
                self.metrics.shared_repairs.inc();
                self.noted.lock().repaired = Some(self.clock.now());
            }
            if before.is_empty() || base >= here {
                // Redis has all that this host knows, by the same counts.
                self.ledger.belong_to(&name);
            }
        }
        Ok(())
    }

    /// The count up to which Redis and this host have seen the same, if they have not seen the same
    /// up to where this host is.
    async fn divergence(
        &self,
        link: &mut Link,
        hello: &Hello,
        here: u64,
    ) -> RedisResult<Option<u64>> {
        if hello.count >= here && self.continues(link, hello, here).await? {
            return Ok(None);
        }
        let mut there: HashMap<Mark, u64> = HashMap::new();
        self.read(link, 0, |mark, at| {
            there.insert(mark, at);
        })
        .await?;
        let mut base = hello.count.min(here);
        for (mark, at) in self.ledger.counted() {
            match there.remove(&mark) {
                Some(also) if also == at => {}
                Some(other) => base = base.min(other.max(at).saturating_sub(1)),
                None if at > hello.floor => base = base.min(at.saturating_sub(1)),
                None => {}
            }
        }
        there.retain(|mark, at| !self.ledger.knows(mark, *at));
        let unknown = there.values().min().map_or(base, |at| at.saturating_sub(1));
        Ok(Some(base.min(unknown)))
    }

    /// Whether the log goes on from what this host has seen last: it tells of nothing up to there
    /// that this host has not heard, and of everything that it has.
    async fn continues(&self, link: &mut Link, hello: &Hello, here: u64) -> RedisResult<bool> {
        let (events, oldest) = log::until(link, &self.names.control[2], here).await?;
        if events.first().is_none_or(|last| last.at != here) {
            return Ok(oldest.is_none_or(|oldest| oldest > here));
        }
        let (mut told, mut since) = (HashSet::new(), here);
        for event in events {
            since = event.at;
            match event.kind {
                Kind::Founded { history } if history != hello.history => return Ok(false),
                // What was before is of another history.
                Kind::Founded { .. } => break,
                // What it tells of pages that were replaced is no invalidation.
                Kind::Raised { marks, .. } => {
                    if !marks.iter().all(|mark| self.ledger.knows(mark, since)) {
                        return Ok(false);
                    }
                    told.extend(marks.into_iter().map(|mark| (mark, since)));
                }
            }
        }
        let heard = self.ledger.counted();
        let mut lately = heard.iter().filter(|(_, at)| (since..=here).contains(at));
        Ok(lately.all(|heard| told.contains(heard)))
    }

    /// Reads what was told after `from`.
    async fn pull(&self, link: &mut Link, from: u64, hello: &Hello) -> RedisResult<()> {
        let mut marks = Vec::new();
        self.read(link, from, |mark, at| marks.push((mark, at)))
            .await?;
        let purged: Vec<Mark> = marks.iter().map(|(mark, _)| mark.clone()).collect();
        self.read_replaced(link, &mut marks).await?;
        self.ledger.adopt(Told {
            marks,
            head: hello.count,
            floor: hello.floor,
            latest: None,
        });
        self.purge(&purged);
        Ok(())
    }

    /// Reads which pages were replaced: all of them, since the counts up to which say nothing of when
    /// that was told.
    async fn read_replaced(&self, link: &mut Link, into: &mut Vec<(Mark, u64)>) -> RedisResult<()> {
        for first in (0..MAX_REPLACED).step_by(AT_ONCE) {
            let mut command = redis::cmd("ZREVRANGE");
            command.arg(&self.names.replaced);
            command
                .arg(first)
                .arg(first + AT_ONCE - 1)
                .arg("WITHSCORES");
            let page: Vec<(String, u64)> = link.ask(&command).await?;
            let is_last = page.len() < AT_ONCE;
            let replaced = |(key, at): (String, u64)| (Mark::Replaced(PageKey::new(&key, &[])), at);
            into.extend(page.into_iter().map(replaced));
            if is_last {
                break;
            }
        }
        Ok(())
    }

    /// Reads all marks after `from`. One that moves meanwhile stands in the log.
    async fn read(
        &self,
        link: &mut Link,
        from: u64,
        mut visit: impl FnMut(Mark, u64),
    ) -> RedisResult<()> {
        let mut last = from;
        loop {
            let mut command = redis::cmd("ZRANGE");
            command.arg(&self.names.control[1]);
            command.arg(format!("({last}")).arg("+inf").arg("BYSCORE");
            command.arg("LIMIT").arg(0).arg(AT_ONCE).arg("WITHSCORES");
            let mut page: Vec<(Vec<u8>, u64)> = link.ask(&command).await?;
            let is_last = page.len() < AT_ONCE;
            let Some((_, end)) = page.last().cloned() else {
                return Ok(());
            };
            if !is_last && page[0].1 != end {
                // The next page begins with all that have this count.
                page.retain(|(_, at)| *at < end);
            }
            last = page.last().map_or(end, |(_, at)| *at);
            for (member, at) in page {
                if let Some(mark) = names::decode(&member) {
                    visit(mark, at);
                }
            }
            if is_last {
                return Ok(());
            }
        }
    }
}
