//! A real Cluster of three primaries: pages spread over it, and it changes under the hosts.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use super::extent;
use super::hosts::{site, until_breaker};
use super::redis::{Redis, ask};
use crate::origin::Origin;
use crate::site::{Running, Site, wait_for};
use crate::tools::tool;

/// How long slots may take to move: some servers take ten milliseconds for each.
const MOVED: Duration = Duration::from_secs(120);

/// Slots of a Cluster.
const SLOTS: u16 = 16_384;

/// Three primaries and one replica, which takes the place of the first when it dies.
struct Cluster {
    nodes: Vec<Redis>,
}

/// Waits until a replica has taken its primary's place.
async fn until_primary(replica: &Redis) {
    wait_for("the replica to take over", async || {
        let role = replica.ask(&["ROLE"]).await;
        if role.contains("master") {
            Ok(())
        } else {
            Err(role)
        }
    })
    .await;
}

impl Cluster {
    async fn start() -> Option<Self> {
        let cli = tool("redis-cli", "apt-get install redis-tools")?;
        let arguments = [
            "--cluster-enabled",
            "yes",
            "--cluster-node-timeout",
            "1000",
            "--cluster-require-full-coverage",
            "no",
            "--cluster-replica-validity-factor",
            "0",
            "--repl-diskless-sync-delay",
            "0",
        ];
        let mut nodes = Vec::new();
        for _ in 0..4 {
            nodes.push(Redis::start_with(&arguments).await?);
        }
        let addresses: Vec<String> = nodes.iter().map(|node| node.address.to_string()).collect();
        let created = tokio::process::Command::new(cli)
            .args(["--cluster", "create"])
            .args(&addresses[..3])
            .arg("--cluster-yes")
            .stdin(Stdio::null())
            .output()
            .await
            .unwrap();
        assert!(created.status.success(), "{created:?}");
        let cluster = Self { nodes };
        let [first, .., replica] = &cluster.nodes[..] else {
            unreachable!("there are four");
        };
        let [port, bus] = [first.address, first.bus].map(|it| it.port().to_string());
        let meet = ["CLUSTER", "MEET", "127.0.0.1", &port, &bus];
        replica.ask(&meet).await;
        let id = first.ask(&["CLUSTER", "MYID"]).await;
        let id = id.lines().nth(1).unwrap().to_owned();
        wait_for("a replica", async || {
            let answer = replica.ask(&["CLUSTER", "REPLICATE", &id]).await;
            if answer.is_empty() {
                Ok(())
            } else {
                Err(answer)
            }
        })
        .await;
        wait_for("a replica that has everything", async || {
            let info = first.ask(&["INFO", "replication"]).await;
            if info.contains("state=online") {
                Ok(())
            } else {
                Err(info)
            }
        })
        .await;
        for node in &cluster.nodes {
            wait_for("a whole Cluster", async || {
                let info = node.ask(&["CLUSTER", "INFO"]).await;
                let whole = info.contains("cluster_slots_ok:16384")
                    && info.contains("cluster_known_nodes:4");
                if whole { Ok(()) } else { Err(info) }
            })
            .await;
        }
        Some(cluster)
    }

    /// A host's site that knows two of the nodes, of a site whose invalidations are on the first:
    /// of its slots the lowest third.
    fn site(&self) -> Site {
        let seeds = [self.nodes[1].url(), self.nodes[2].url()];
        let name = (0..)
            .map(|n| format!("site-{n}"))
            .find(|name| slot(name) < SLOTS / 3);
        site("").config(&format!(
            "[store]\nurl = {seeds:?}\nsite = {:?}",
            name.unwrap()
        ))
    }

    async fn host(&self, origin: &Origin) -> Running {
        let host = self.site().start_on(origin.clone()).await;
        until_breaker(&host, "closed").await;
        host
    }
}

/// CRC16 (XMODEM), by which a Cluster spreads its keys.
fn slot(tag: &str) -> u16 {
    let step = |crc: u16, byte: u8| {
        (0..8).fold(crc ^ (u16::from(byte) << 8), |crc, _| {
            let carry = if crc & 0x8000 == 0 { 0 } else { 0x1021 };
            (crc << 1) ^ carry
        })
    };
    tag.bytes().fold(0, step) % SLOTS
}

#[tokio::test]
async fn hosts_share_a_cluster_as_they_share_one_server() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let origin = Origin::start().await;
    let (a, b) = (cluster.host(&origin).await, cluster.host(&origin).await);
    let paths: Vec<String> = (0..60).map(|n| format!("/posts/{n}")).collect();
    for path in &paths {
        origin.script(path, json!({"tags": ["all"]}));
        assert_eq!(a.get(path).await.verdict(), "MISS");
        assert_eq!(b.get(path).await.verdict(), "HIT");
    }
    // They spread, and no script ever needed keys of two nodes.
    for node in &cluster.nodes[..3] {
        assert!(node.keys("*:p:*").await.len() > 5);
    }
    let told = b.revalidate(json!({"tags": ["all"]})).await;
    assert_eq!(told.json()["propagated"], true);
    for path in &paths {
        a.until(path, |page| page.verdict() == "HIT" && page.n() == 2)
            .await;
    }
    b.revalidate(json!({"paths": ["/posts/1"], "mode": "purge"}))
        .await;
    a.until("/posts/1", |page| page.n() == 3).await;
    for host in [&a, &b] {
        assert!(!host.log().contains("CROSSSLOT"));
    }
}

/// The node that has the invalidations dies, and its replica takes over.
#[tokio::test]
async fn a_failover_loses_no_invalidation_and_no_page() {
    let Some(mut cluster) = Cluster::start().await else {
        return;
    };
    let origin = Origin::start().await;
    let (a, b) = (cluster.host(&origin).await, cluster.host(&origin).await);
    for path in ["/posts/1", "/posts/2", "/posts/3"] {
        a.get(path).await;
        b.get(path).await;
    }
    b.renew("/posts/1").await;
    cluster.nodes[0].kill();
    for n in 0..10 {
        assert_eq!(a.get(&format!("/posts/during-{n}")).await.status, 200);
        assert_eq!(b.get("/posts/2").await.verdict(), "HIT");
    }
    a.revalidate(json!({"paths": ["/posts/2"], "mode": "purge"}))
        .await;
    let replica = &cluster.nodes[3];
    until_primary(replica).await;
    b.until("/posts/2", |page| page.n() >= 2).await;
    for host in [&a, &b] {
        until_breaker(host, "closed").await;
    }
    let told = a.revalidate(json!({"paths": ["/posts/3"]})).await;
    assert_eq!(told.json()["propagated"], true, "{}", told.text());
    b.until("/posts/3", |page| page.n() >= 2).await;
    assert!(b.get("/posts/1").await.n() >= 2);
}

/// The replica that takes over has not heard the last: what the hosts heard is told again, and what
/// they say from then on is heard, although the counts begin anew below those that they have seen.
#[tokio::test]
async fn what_a_failover_loses_is_told_again() {
    let Some(mut cluster) = Cluster::start().await else {
        return;
    };
    let origin = Origin::start().await;
    let (a, b) = (cluster.host(&origin).await, cluster.host(&origin).await);
    for (path, tag) in [
        ("/posts/1", "one"),
        ("/posts/2", "two"),
        ("/posts/3", "one"),
    ] {
        origin.script(path, json!({"tags": [tag]}));
        a.get(path).await;
        b.get(path).await;
    }
    a.revalidate(json!({"tags": ["before"]})).await;
    wait_for("a replica that has all of it", async || {
        let info = cluster.nodes[0].ask(&["INFO", "replication"]).await;
        let at = |name: &str| {
            let of = info.split(name).nth(1)?;
            of.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
        };
        let (there, all): (Option<u64>, Option<u64>) = (at(",offset="), at("master_repl_offset:"));
        if there.is_some() && there >= all {
            Ok(())
        } else {
            Err(info)
        }
    })
    .await;
    cluster.nodes[3].signal(Signal::STOP);
    cluster.nodes[0]
        .ask(&["CLIENT", "KILL", "TYPE", "replica"])
        .await;
    for tag in ["one", "x", "y"] {
        let told = a.revalidate(json!({"tags": [tag]})).await;
        assert_eq!(told.json()["propagated"], true);
    }
    b.until("/posts/1", |page| page.n() >= 2).await;
    cluster.nodes[0].kill();
    let replica = &cluster.nodes[3];
    replica.signal(Signal::CONT);
    // At once: nobody notices that a connection took long.
    replica.ask(&["CLUSTER", "FAILOVER", "TAKEOVER"]).await;
    until_primary(replica).await;
    wait_for("a host that tells it", async || {
        let told = a.revalidate(json!({"tags": ["two"]})).await.json();
        if told["propagated"] == true {
            Ok(())
        } else {
            Err(told.to_string())
        }
    })
    .await;
    b.until("/posts/2", |page| page.n() >= 2).await;
    let repairs = "wisr_shared_repairs_total";
    let repaired = a.metric(repairs).await + b.metric(repairs).await;
    assert!(repaired >= 1.0, "nothing was lost, or nobody noticed");
    // Nobody has asked for the third since: a host that comes anew learns that it is stale.
    let c = cluster.host(&origin).await;
    assert_ne!(c.get("/posts/3").await.verdict(), "HIT");
}

/// Slots move to another node while pages are made.
#[tokio::test]
async fn slots_may_move_while_pages_are_made() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let cli = tool("redis-cli", "apt-get install redis-tools").unwrap();
    let origin = Origin::start().await;
    let (a, b) = (cluster.host(&origin).await, cluster.host(&origin).await);
    let id = async |address: SocketAddr| {
        let id = ask(address, &["CLUSTER", "MYID"]).await;
        id.lines().nth(1).unwrap().to_owned()
    };
    let (from, to) = (
        id(cluster.nodes[0].address).await,
        id(cluster.nodes[1].address).await,
    );
    let mut moving = tokio::process::Command::new(cli)
        .args(["--cluster", "reshard"])
        .arg(cluster.nodes[0].address.to_string())
        .args(["--cluster-from", &from, "--cluster-to", &to])
        .args(["--cluster-slots", extent("500", "5000"), "--cluster-yes"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let paths: Vec<String> = (0..200).map(|n| format!("/posts/{n}")).collect();
    let deadline = Instant::now() + MOVED;
    let mut rounds = 0;
    while moving.try_wait().unwrap().is_none() || rounds == 0 {
        for path in &paths {
            assert_eq!(a.get(path).await.status, 200);
            assert_eq!(b.get(path).await.status, 200);
            a.revalidate(json!({"paths": [path], "mode": "stale"}))
                .await;
        }
        rounds += 1;
        assert!(Instant::now() < deadline, "the slots do not move");
    }
    assert!(moving.wait().await.unwrap().success());
    for host in [&a, &b] {
        until_breaker(host, "closed").await;
        assert!(!host.log().contains("CROSSSLOT"));
    }
    for path in &paths {
        let before = origin.count(path) as u64;
        a.revalidate(json!({"paths": [path], "mode": "purge"}))
            .await;
        b.until(path, |page| page.n() > before).await;
    }
}

/// One node is gone for good: only its own pages are made by each host.
#[tokio::test]
async fn one_lost_node_takes_only_its_own_pages() {
    let Some(mut cluster) = Cluster::start().await else {
        return;
    };
    let origin = Origin::start().await;
    let (a, b) = (cluster.host(&origin).await, cluster.host(&origin).await);
    // Which pages are on the node that will be lost.
    let (mut lost, mut kept, mut n) = (Vec::new(), Vec::new(), 0);
    while lost.len() < 20 || kept.len() < 20 {
        let path = format!("/posts/known-{n}");
        let before = cluster.nodes[2].keys("*:p:*").await.len();
        a.get(&path).await;
        let after = cluster.nodes[2].keys("*:p:*").await.len();
        let list = if after > before { &mut lost } else { &mut kept };
        list.push(path);
        n += 1;
    }
    cluster.nodes[2].kill();
    let gone = cluster.nodes[1].address;
    wait_for("the others to notice", async || {
        let nodes = ask(gone, &["CLUSTER", "INFO"]).await;
        if nodes.contains("cluster_slots_fail:0") {
            Err(nodes)
        } else {
            Ok(())
        }
    })
    .await;
    // Whoever asks for them one after the other still does not give the others up.
    for path in &lost {
        a.renew(path).await;
    }
    for path in &kept {
        a.renew(path).await;
        let page = b
            .until(path, |page| page.verdict() == "HIT" && page.n() >= 2)
            .await;
        assert_eq!((page.n(), origin.count(path)), (2, 2), "{path}");
    }
    for host in [&a, &b] {
        until_breaker(host, "closed").await;
        let log = host.log();
        assert!(!log.contains("not shared with other hosts"), "{log}");
    }
}
