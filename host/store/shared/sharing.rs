//! `Sharing`: how it goes with the other hosts, for those who operate them.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::link::{Call, Link};
use super::log::{Fields, Place};
use super::{Core, Lane, SharedHealth, Trouble, script};
use crate::page::Timestamp;
use crate::store::marks::count;

/// How often a host says that it is there, learns who else is, and compares the clocks.
pub(super) const BEAT: Duration = Duration::from_secs(5);

/// After how long of silence a host counts as gone: more than one beat that was lost.
const GONE: Duration = Duration::from_secs(20);

/// How long a host counts as in touch after it said how far it has followed: several times the pause
/// between two such words.
const IN_TOUCH: Duration = Duration::from_secs(3);

/// The first look whether other hosts have followed, and the longest pause between two: they follow
/// within a millisecond, and later on a busy machine.
const SOON: Duration = Duration::from_millis(1);
const LATE: Duration = Duration::from_millis(50);

/// How it goes.
#[derive(Debug, Clone)]
pub struct Sharing {
    /// The state of the breaker.
    pub health: SharedHealth,
    /// Since when it is closed, or is not.
    pub since: Timestamp,
    /// Where Redis is, without what opens it.
    pub servers: Vec<String>,
    /// The site whose pages these are.
    pub site: String,
    /// The way to Redis and back, when it was last measured.
    pub round_trip: Option<Duration>,
    /// Of a Cluster, the percentage that is not asked because it only failed of late.
    pub resting: usize,
    /// When this host last knew of all invalidations that Redis had.
    pub heard: Option<Timestamp>,
    /// The count of the latest invalidation that this host knows.
    pub count: u64,
    /// Tags and paths that are remembered for them.
    pub marks: usize,
    /// Invalidations that the others are to be told.
    pub untold: usize,
    /// Pages that were made alone, and are to be offered to the others.
    pub owed: usize,
    /// Pages that are being made here on behalf of all hosts.
    pub leases: i64,
    /// What failed last, if it is over or not.
    pub failed: Option<(Timestamp, Arc<str>)>,
    /// When Redis last had to be told again what it had lost.
    pub repaired: Option<Timestamp>,
    /// What should be changed.
    pub warning: Option<String>,
    /// Who shares, this host among them, in the order of their names.
    pub hosts: Vec<Peer>,
}

/// A host that shares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// What it calls itself.
    pub name: String,
    /// Whether it is this one.
    pub is_this: bool,
    /// When it last said that it was there.
    pub heard: Timestamp,
    /// The count of the latest invalidation that it knew then.
    pub count: u64,
}

/// What was noticed on the way.
#[derive(Debug, Default)]
pub(super) struct Noted {
    pub(super) heard: Option<Timestamp>,
    pub(super) repaired: Option<Timestamp>,
    pub(super) warning: Option<String>,
    round_trip: Option<Duration>,
    hosts: Vec<Peer>,
}

impl Core {
    /// How it goes.
    pub(super) fn sharing(&self) -> Sharing {
        let (health, since, failed) = self.breaker.state();
        let noted = self.noted.lock();
        Sharing {
            health,
            since,
            failed,
            servers: self.server.addresses(),
            site: self.config.site.clone(),
            round_trip: noted.round_trip,
            resting: self.shards.resting(),
            heard: noted.heard,
            count: count(self.ledger.sequence()),
            marks: self.ledger.len(),
            untold: self.ledger.untold_count(),
            owed: self.owed.lock().len(),
            leases: self.metrics.shared_leases.get(),
            repaired: noted.repaired,
            warning: noted.warning.clone(),
            hosts: noted.hosts.clone(),
        }
    }

    /// Says that this host is there, and learns who else is; Redis's clock less this host's, and
    /// where the log ends.
    pub(super) async fn beat(&self, link: &mut Link) -> Result<(i64, Place), Trouble> {
        let names = &self.names;
        let keys = [&names.hosts, &names.control[0], &names.heard];
        let call = Call::of(&script::BEAT, &keys)
            .text(&self.origin)
            .text(&self.config.name)
            .number(count(self.ledger.sequence()))
            .number(u64::try_from(GONE.as_millis()).unwrap_or(u64::MAX));
        let (begun, started) = (self.clock.now(), Instant::now());
        let asked = timeout(self.config.timeout, link.run(&call)).await;
        let (there, at, last, told): (u64, u64, String, Fields) =
            asked.map_err(|_| Trouble::Slow)??;
        let round_trip = started.elapsed();
        // What Redis said was true half-way.
        let here = begun.plus(round_trip / 2).as_millis();
        let offset = i64::try_from(there).unwrap_or(0) - i64::try_from(here).unwrap_or(0);
        let now = self.clock.now();
        let peers = told.into_iter().filter_map(|(origin, said)| {
            let said = String::from_utf8(said).ok()?;
            let mut words = said.splitn(3, ' ');
            let (at, count) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
            let heard = Timestamp::from_millis(u64::saturating_add_signed(at, -offset));
            Some(Peer {
                name: words.next()?.to_owned(),
                is_this: origin == self.origin,
                heard: heard.min(now),
                count,
            })
        });
        let mut hosts: Vec<Peer> = peers.collect();
        hosts.sort_by(|one, other| one.name.cmp(&other.name));
        self.metrics
            .shared_hosts
            .set(i64::try_from(hosts.len()).unwrap_or(i64::MAX));
        let mut noted = self.noted.lock();
        noted.round_trip = Some(round_trip);
        noted.hosts = hosts;
        Ok((offset, Place { at, last }))
    }

    /// Says that this host goes.
    pub(super) async fn leave(&self) {
        let Ok(links) = self.breaker.links() else {
            return;
        };
        for key in [&self.names.heard, &self.names.hosts] {
            let mut command = redis::cmd("HDEL");
            command.arg(key).arg(&self.origin);
            let mut link = links.control.clone();
            let _ = timeout(self.config.timeout, link.ask::<u8>(&command)).await;
        }
    }

    /// Says how far this host has followed the log: whoever was told that all hosts know of
    /// something waits for that.
    pub(super) async fn follow_up(&self, link: &mut Link) {
        let call = Call::of(&script::FOLLOW, &[&self.names.heard])
            .text(&self.origin)
            .number(count(self.ledger.sequence()))
            .number(u64::try_from(GONE.as_millis()).unwrap_or(u64::MAX));
        // Otherwise nobody waits for this host, which may be what Redis is short of.
        let _ = timeout(self.config.timeout, link.run::<u8>(&call)).await;
    }

    /// Waits until every host that was in touch a moment ago knows of all invalidations that this one
    /// knows. One that is not heard of any more is not waited for: it is gone, or cut off.
    pub(super) async fn followed(&self) -> Result<(), Trouble> {
        let known = count(self.ledger.sequence());
        let (mut pause, begun) = (SOON, Instant::now());
        loop {
            let in_touch = u64::try_from(IN_TOUCH.as_millis()).unwrap_or(u64::MAX);
            let call = Call::of(&script::BEHIND, &[&self.names.heard])
                .number(known)
                .number(in_touch);
            let behind = self.call("behind", Lane::Control, call, self.config.timeout);
            let behind: u64 = behind.await?;
            if behind == 0 {
                return Ok(());
            }
            if begun.elapsed() > IN_TOUCH * 2 {
                return Err(Trouble::Behind(behind));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LATE);
        }
    }
}
