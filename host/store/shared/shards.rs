//! `Shards`: which of a Cluster's keys are asked for at all.
//!
//! A Cluster that has lost a node has all others. So it is not the breaker that opens for what fails
//! there: failures are counted for each shard, the slots of one primary, and a shard that only fails
//! rests. Now and then one command tries it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use redis::{FromRedisValue, Value};

use super::Lane;
use super::breaker::PATIENCE;
use crate::page::Timestamp;

/// Slots of a Cluster (Redis Cluster specification, "Key distribution model").
const SLOTS: usize = 16_384;

/// How long a shard rests before it is tried again: one of its readers waits for that.
const REST: Duration = Duration::from_secs(1);

/// All shards.
#[derive(Default)]
pub(super) struct Shards {
    /// In the order of their slots.
    all: ArcSwap<Vec<Slots>>,
    /// Slots that no primary has.
    nobodys: Arc<Shard>,
}

/// Slots next to each other that one primary has.
struct Slots {
    first: u16,
    last: u16,
    shard: Arc<Shard>,
}

/// One primary's slots, for both lanes.
#[derive(Default)]
pub(super) struct Shard {
    pub(super) primary: String,
    lanes: [Health; 2],
}

/// Whether a shard is asked.
#[derive(Default)]
struct Health {
    /// In a row.
    failures: AtomicU32,
    /// Until when it is not asked, in milliseconds since the Unix epoch; 0 while it is.
    rests_until: AtomicU64,
}

impl Shards {
    /// Learns which primary has which slots, from the answer to `CLUSTER SLOTS`. What is known of a
    /// primary's health stays.
    pub(super) fn learn(&self, answer: Vec<Vec<Value>>) {
        let before = self.all.load();
        let mut all: Vec<Slots> = Vec::new();
        for slots in answer {
            let Some((first, last, primary)) = read(slots) else {
                continue;
            };
            let mut known = all.iter().chain(before.iter()).map(|slots| &slots.shard);
            let shard = known.find(|shard| shard.primary == primary).cloned();
            let lanes = Default::default();
            let shard = shard.unwrap_or_else(|| Arc::new(Shard { primary, lanes }));
            all.push(Slots { first, last, shard });
        }
        all.sort_by_key(|slots| slots.first);
        self.all.store(Arc::new(all));
    }

    /// The shard that a key with this tag is in.
    pub(super) fn of(&self, tag: &[u8]) -> Arc<Shard> {
        let slot = crc16::State::<crc16::XMODEM>::calculate(tag) % SLOTS as u16;
        let all = self.all.load();
        let slots = &all[all.partition_point(|slots| slots.last < slot)..];
        let has = slots.first().filter(|slots| slots.first <= slot);
        has.map_or(&self.nobodys, |slots| &slots.shard).clone()
    }

    /// The share of the Cluster's slots that rest, in percent.
    pub(super) fn resting(&self) -> usize {
        let all = self.all.load();
        let resting = all.iter().filter(|slots| slots.shard.rests());
        let slots = resting.map(|slots| usize::from(slots.last - slots.first) + 1);
        slots.sum::<usize>() * 100 / SLOTS
    }
}

/// The first and the last slot, and where their primary is, with its name: addresses may be shared
/// (`CLUSTER SLOTS`, "Nested Result Array").
fn read(slots: Vec<Value>) -> Option<(u16, u16, String)> {
    let mut slots = slots.into_iter();
    let first = u16::from_redis_value(slots.next()?).ok()?;
    let last = u16::from_redis_value(slots.next()?).ok()?;
    let primary = Vec::<Value>::from_redis_value(slots.next()?).ok()?;
    let [host, port, name, ..] = &primary[..] else {
        return None;
    };
    let text = |value| String::from_redis_value_ref(value).ok();
    let host = text(host).unwrap_or_default();
    let primary = format!("{host}:{} ({})", text(port)?, text(name)?);
    (first <= last).then_some((first, last, primary))
}

impl Shard {
    fn rests(&self) -> bool {
        let until = |lane: &Health| lane.rests_until.load(Ordering::Relaxed);
        self.lanes.iter().any(|lane| until(lane) > 0)
    }

    /// Whether it may be asked; after each rest, by one.
    pub(super) fn may_be_asked(&self, lane: Lane, now: Timestamp) -> bool {
        let rests_until = &self.lanes[lane as usize].rests_until;
        let until = rests_until.load(Ordering::Relaxed);
        if until == 0 {
            return true;
        }
        let next = now.plus(REST).as_millis();
        let order = Ordering::Relaxed;
        let swap = |until| rests_until.compare_exchange(until, next, order, order);
        until <= now.as_millis() && swap(until).is_ok()
    }

    /// It answered; whether it had not for long.
    pub(super) fn succeeded(&self, lane: Lane) -> bool {
        let health = &self.lanes[lane as usize];
        health.failures.store(0, Ordering::Relaxed);
        health.rests_until.swap(0, Ordering::Relaxed) > 0
    }

    /// It did not; whether it rests from here on.
    pub(super) fn failed(&self, lane: Lane, now: Timestamp) -> bool {
        let health = &self.lanes[lane as usize];
        let failures = health.failures.fetch_add(1, Ordering::Relaxed) + 1;
        let next = now.plus(REST).as_millis();
        failures >= PATIENCE && health.rests_until.swap(next, Ordering::Relaxed) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a Cluster answers in which each of these has the slots up to the one given.
    fn told(ends: &[(u16, &str)]) -> Vec<Vec<Value>> {
        let mut first = 0;
        let range = |(last, name): &(u16, &str)| {
            let text = |text: &str| Value::BulkString(text.into());
            let node = [text("127.0.0.1"), Value::Int(6379), text(name)];
            let slots = [first, *last].map(|slot| Value::Int(slot.into()));
            first = last + 1;
            let mut range = slots.to_vec();
            range.push(Value::Array(node.to_vec()));
            range
        };
        ends.iter().map(range).collect()
    }

    #[test]
    fn a_shard_that_only_fails_rests_and_is_tried_by_one() {
        let shards = Shards::default();
        shards.learn(told(&[(4_095, "a"), (16_383, "b")]));
        let (pages, at) = (Lane::Pages, Timestamp::from_millis);
        let shard = shards.of(b"");
        for _ in 1..PATIENCE {
            assert!(!shard.failed(pages, at(1)) && shard.may_be_asked(pages, at(1)));
        }
        assert!(shard.failed(pages, at(1)));
        assert_eq!(shards.resting(), 25);
        assert!(!shard.may_be_asked(pages, at(1_000)) && shard.may_be_asked(Lane::Control, at(1)));
        assert!(shard.may_be_asked(pages, at(1_001)) && !shard.may_be_asked(pages, at(1_001)));
        assert!(!shard.failed(pages, at(1_100)) && !shard.may_be_asked(pages, at(2_000)));
        assert!(shard.may_be_asked(pages, at(2_100)));
        assert!(shard.succeeded(pages) && shard.may_be_asked(pages, at(2_100)));
        assert_eq!(shards.resting(), 0);
    }

    /// `CLUSTER KEYSLOT` says 12739 of this tag, and 0 of the empty one.
    #[test]
    fn a_shard_is_what_one_primary_has_to_the_slot() {
        let shards = Shards::default();
        let primary = |tag: &[u8]| {
            let shard = shards.of(tag);
            shard
                .primary
                .trim_start_matches("127.0.0.1:6379 ")
                .to_owned()
        };
        assert_eq!(primary(b"123456789"), "");
        shards.learn(told(&[(12_738, "a"), (12_739, "b"), (16_383, "c")]));
        assert_eq!(primary(b"123456789"), "(b)");
        shards.learn(told(&[(12_739, "a"), (16_383, "b")]));
        assert_eq!(primary(b"123456789"), "(a)");
        shards.learn(told(&[(12_738, "a")]));
        assert_eq!(primary(b"123456789"), "");
        assert_eq!(primary(b""), "(a)");
    }

    #[test]
    fn slots_that_move_leave_a_primary_as_it_was() {
        let shards = Shards::default();
        shards.learn(told(&[(0, "a"), (8_191, "b"), (16_383, "c")]));
        let tired = shards.of(b"123456789");
        for _ in 0..PATIENCE {
            tired.failed(Lane::Pages, Timestamp::from_millis(1));
        }
        assert_eq!(shards.resting(), 50);
        shards.learn(told(&[(8_191, "c"), (12_738, "a"), (16_383, "c")]));
        assert!(Arc::ptr_eq(&shards.of(b""), &tired));
        assert!(Arc::ptr_eq(&shards.of(b"123456789"), &tired));
        assert_eq!(shards.resting(), 72);
        shards.learn(told(&[(16_383, "d")]));
        assert_eq!(shards.resting(), 0);
    }
}
