//! How it goes with the hosts that share pages.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Serialize;

use super::super::Admin;
use super::super::refusal::Refusal;
use super::operation::{Nothing, Operation, Told};
use crate::page::Timestamp;
use crate::store::{Peer, Sharing};

/// How it goes with other hosts.
#[derive(Debug, Serialize, JsonSchema)]
pub(in crate::admin) struct Others {
    /// None where no pages are shared.
    pub(in crate::admin) sharing: Option<Account>,
}

/// How it goes. Times are in milliseconds since the Unix epoch, by this host's clock.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Sharing")]
pub(in crate::admin) struct Account {
    /// The state of the breaker before Redis.
    pub(in crate::admin) breaker: &'static str,
    /// Why it is not closed.
    pub(in crate::admin) reason: Option<String>,
    /// Since when it is closed, or is not.
    pub(in crate::admin) since: Timestamp,
    /// What time it is here.
    pub(in crate::admin) now: Timestamp,
    /// Where Redis is; of a Cluster some of its nodes.
    pub(in crate::admin) servers: Vec<String>,
    /// The site whose pages these are: `store.site`.
    pub(in crate::admin) site: String,
    /// Microseconds to Redis and back, when they were last measured.
    pub(in crate::admin) round_trip_us: Option<u64>,
    /// Of a Cluster, the percentage that is not asked because it only failed of late.
    pub(in crate::admin) resting: usize,
    /// When this host last knew of all invalidations that Redis had.
    pub(in crate::admin) heard: Option<Timestamp>,
    /// The number of the latest invalidation that this host knows: it goes up with each, and leaps
    /// when Redis lost some and has been told again.
    pub(in crate::admin) count: u64,
    /// Tags and paths that are remembered for them.
    pub(in crate::admin) marks: usize,
    /// Invalidations that the other hosts are to be told.
    pub(in crate::admin) untold: usize,
    /// Pages that were made alone, and are to be offered to the other hosts.
    pub(in crate::admin) owed: usize,
    /// Pages that are being made here on behalf of all hosts.
    pub(in crate::admin) leases: i64,
    /// Pages had from other hosts, since the start.
    pub(in crate::admin) hits: u64,
    /// Pages made in vain because another host had made them since, since the start.
    pub(in crate::admin) fenced: u64,
    /// What failed last, whether or not it is over.
    pub(in crate::admin) failed: Option<Failed>,
    /// When Redis last had to be told again what it had lost.
    pub(in crate::admin) repaired: Option<Timestamp>,
    /// What should be changed.
    pub(in crate::admin) warning: Option<String>,
    /// Who shares, this host among them.
    pub(in crate::admin) hosts: Vec<Host>,
}

/// What failed, and when.
#[derive(Debug, Serialize, JsonSchema)]
pub(in crate::admin) struct Failed {
    pub(in crate::admin) at: Timestamp,
    pub(in crate::admin) why: String,
}

/// A host that shares.
#[derive(Debug, Serialize, JsonSchema)]
pub(in crate::admin) struct Host {
    /// The name of its machine, and where its readers connect.
    pub(in crate::admin) name: String,
    /// Whether it is the one that tells this.
    pub(in crate::admin) this: bool,
    /// When it last said that it was there.
    pub(in crate::admin) heard: Timestamp,
    /// The number of the latest invalidation that it knew then.
    pub(in crate::admin) count: u64,
}

pub(super) fn operations() -> Vec<Operation> {
    let show = Operation::show(
        "/api/shared",
        "How it goes with the hosts that share pages",
        show,
    );
    vec![show]
}

async fn show(admin: Arc<Admin>, _: Nothing) -> Result<Told<Others>, Refusal> {
    let sharing = account(&admin);
    Ok(Others { sharing }.into())
}

/// How it goes, where pages are shared.
pub(in crate::admin) fn account(admin: &Admin) -> Option<Account> {
    let (isr, metrics) = (&admin.parts.isr, &admin.parts.metrics);
    let sharing = isr.sharing()?;
    let Sharing { health, failed, .. } = sharing;
    Some(Account {
        breaker: health.as_str(),
        reason: health.reason().map(str::to_owned),
        since: sharing.since,
        now: isr.now(),
        servers: sharing.servers,
        site: sharing.site,
        round_trip_us: sharing
            .round_trip
            .map(|trip| u64::try_from(trip.as_micros()).unwrap_or(u64::MAX)),
        resting: sharing.resting,
        heard: sharing.heard,
        count: sharing.count,
        marks: sharing.marks,
        untold: sharing.untold,
        owed: sharing.owed,
        leases: sharing.leases,
        hits: metrics.shared_hits.get(),
        fenced: metrics.shared_fenced.get(),
        failed: failed.map(|(at, why)| Failed {
            at,
            why: why.to_string(),
        }),
        repaired: sharing.repaired,
        warning: sharing.warning,
        hosts: sharing.hosts.into_iter().map(host).collect(),
    })
}

fn host(peer: Peer) -> Host {
    Host {
        name: peer.name,
        this: peer.is_this,
        heard: peer.heard,
        count: peer.count,
    }
}
