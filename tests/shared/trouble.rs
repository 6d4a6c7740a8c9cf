//! Redis down, slow, silent, full, locked: readers do not notice, and it heals by itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;
use tokio::task::JoinHandle;

use super::extent;
use super::hosts::{hasty, host, pair, site, until_breaker};
use super::proxy::{Proxy, Weather};
use super::redis::{Redis, free_port};
use crate::origin::Origin;
use crate::site::{Running, wait_for};

/// Misses that are asked for while something is wrong: some of them wait for Redis, none for long.
const MISSES: usize = 30;

/// What a miss may take beside its generation, at most: `store.timeout` for each of the few times
/// that it asks, far below the 10 s after which a reader is sent away.
const BOUND: Duration = Duration::from_secs(5);

async fn misses_are_served(host: &Running, what: &str) {
    for n in 0..MISSES {
        let started = Instant::now();
        let page = host.get(&format!("/posts/{what}-{n}")).await;
        assert_eq!(page.status, 200, "{what}");
        assert!(started.elapsed() < BOUND, "{what}: {:?}", started.elapsed());
    }
}

/// Readers of a page that is there, who never rest: whatever happens, each of them gets it at once.
struct Readers {
    over: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<usize>>,
}

impl Readers {
    fn of(host: &Running, path: &'static str) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let tasks = (0..4).map(|_| {
            let (mut client, over) = (host.reader(), over.clone());
            tokio::spawn(async move {
                let mut hits = 0;
                while !over.load(Ordering::Relaxed) {
                    let shown = client.send("GET", path, &[], "").await.unwrap();
                    assert_eq!((shown.status, shown.verdict()), (200, "HIT"), "{path}");
                    hits += 1;
                }
                hits
            })
        });
        Self {
            tasks: tasks.collect(),
            over,
        }
    }

    async fn were_all_served(self) {
        self.over.store(true, Ordering::Relaxed);
        for reader in self.tasks {
            assert!(reader.await.unwrap() > 0);
        }
    }
}

/// A host that shares, and gives Redis up soon.
async fn hasty_host(url: &str, origin: &Origin) -> Running {
    let host = hasty(url).start_on(origin.clone()).await;
    until_breaker(&host, "closed").await;
    host
}

/// What an operator asks for holds at once, and the dashboard tells what the others do not know yet.
#[tokio::test]
async fn a_form_is_done_without_redis() {
    let host = hasty("redis://127.0.0.1:1").start().await;
    until_breaker(&host, "open").await;
    host.get("/posts/1").await;
    let browser = [
        ("content-type", "application/x-www-form-urlencoded"),
        ("sec-fetch-site", "same-origin"),
    ];
    let form = "path=/posts/1&action=purge";
    let done = host.admin_post("/page/act", &browser, form).await;
    let told = done.text();
    assert_eq!(done.status, 202, "{told}");
    for words in ["The page was removed.", "this holds on this host"] {
        assert!(told.contains(words), "{words} in {told}");
    }
    assert_eq!(host.get("/posts/1").await.verdict(), "MISS");
}

#[tokio::test]
async fn a_host_starts_without_redis_and_shares_once_it_is_there() {
    let Some(mut redis) = Redis::start().await else {
        return;
    };
    let origin = Origin::start().await;
    let mut a = host(&redis.url(), &origin).await;
    a.renew("/posts/1").await;
    redis.kill();
    a.restart().await;
    let kept = a.get("/posts/1").await;
    assert_eq!((kept.verdict(), kept.n()), ("HIT", 1));
    let shared = until_breaker(&a, "open").await;
    assert!(!shared["reason"].as_str().unwrap().is_empty());
    let overview = a.admin("/").await.text();
    assert!(overview.contains("<dt>Shared</dt>"), "{overview}");
    assert!(overview.contains("breaker open"), "{overview}");
    misses_are_served(&a, "without").await;
    redis.launch().await;
    until_breaker(&a, "closed").await;
    a.get("/posts/shared").await;
    let b = host(&redis.url(), &origin).await;
    assert_eq!(b.get("/posts/shared").await.verdict(), "HIT");
    // What was made meanwhile is offered as well.
    wait_for("all pages in Redis", async || {
        let pages = redis.keys("wisr:1:default:p:*").await.len();
        if pages >= MISSES {
            Ok(())
        } else {
            Err(pages.to_string())
        }
    })
    .await;
}

/// A new host, whose Redis was never there, is ready for readers all the same.
#[tokio::test]
async fn a_host_whose_redis_was_never_there_is_as_good_as_one_alone() {
    let origin = Origin::start().await;
    let a = hasty(&format!("redis://{}", free_port()))
        .start_on(origin)
        .await;
    a.until_ready().await;
    assert_eq!(a.get("/posts/1").await.verdict(), "MISS");
    assert_eq!(a.get("/posts/1").await.verdict(), "HIT");
    misses_are_served(&a, "never").await;
    let told = a.revalidate(json!({"paths": ["/posts/1"]})).await;
    assert_eq!(
        (told.status, &told.json()["propagated"]),
        (202, &json!(false))
    );
    assert_eq!(a.get("/posts/1").await.n(), 2);
    until_breaker(&a, "open").await;
}

#[tokio::test]
async fn a_silent_network_costs_readers_a_moment_and_heals() {
    let Some(redis) = Redis::start().await else {
        return;
    };
    let origin = Origin::start().await;
    let proxy = Proxy::to(redis.address).await;
    let a = hasty_host(&proxy.url(), &origin).await;
    let slow = Weather::Slow(Duration::from_millis(200));
    let weathers = [
        (Weather::Black, "black"),
        (slow, "slow"),
        (Weather::Narrow(500), "narrow"),
        (Weather::Cut, "cut"),
    ];
    for (weather, what) in weathers {
        a.get("/posts/1").await;
        let readers = Readers::of(&a, "/posts/1");
        proxy.turn(weather);
        misses_are_served(&a, what).await;
        until_breaker(&a, "open").await;
        tokio::time::sleep(extent(Duration::ZERO, Duration::from_secs(60))).await;
        readers.were_all_served().await;
        assert!(a.metric("wisr_shared_failures_total").await > 0.0);
        proxy.turn(Weather::Fair);
        until_breaker(&a, "closed").await;
    }
    // Slow, and yet fast enough to be asked.
    for weather in [
        Weather::Slow(Duration::from_millis(40)),
        Weather::Narrow(10_000),
    ] {
        proxy.turn(weather);
        misses_are_served(&a, "far").await;
        proxy.turn(Weather::Fair);
        until_breaker(&a, "closed").await;
    }
    a.get("/posts/after").await;
    let b = host(&redis.url(), &origin).await;
    assert_eq!(b.get("/posts/after").await.verdict(), "HIT");
}

/// Nor is a host alone because of one answer that nobody waited for.
#[tokio::test]
async fn one_slow_answer_is_forgiven() {
    let Some(redis) = Redis::start().await else {
        return;
    };
    let origin = Origin::start().await;
    let proxy = Proxy::to(redis.address).await;
    let site = site(&proxy.url()).config("[store]\ntimeout = \"600ms\"");
    let a = site.start_on(origin.clone()).await;
    until_breaker(&a, "closed").await;
    a.until_ready().await;
    let failures = "wisr_shared_failures_total";
    let before = a.metric(failures).await;
    // There and back it takes longer than `store.timeout`, and less than the log may take.
    proxy.turn(Weather::Slow(Duration::from_millis(350)));
    a.until_metric(failures, before + 1.0).await;
    proxy.turn(Weather::Fair);
    a.get("/posts/1").await;
    let b = host(&redis.url(), &origin).await;
    assert_eq!(b.get("/posts/1").await.verdict(), "HIT");
    let log = a.log();
    assert!(!log.contains("not shared with other hosts"), "{log}");
}

#[tokio::test]
async fn a_redis_that_stands_still_keeps_nobody_waiting() {
    let Some(redis) = Redis::start().await else {
        return;
    };
    let origin = Origin::start().await;
    let a = hasty_host(&redis.url(), &origin).await;
    a.get("/posts/1").await;
    let readers = Readers::of(&a, "/posts/1");
    redis.signal(Signal::STOP);
    let stopped = Instant::now();
    misses_are_served(&a, "stopped").await;
    until_breaker(&a, "open").await;
    let least = extent(Duration::from_secs(3), Duration::from_secs(30));
    tokio::time::sleep_until((stopped + least).into()).await;
    redis.signal(Signal::CONT);
    until_breaker(&a, "closed").await;
    readers.were_all_served().await;
}

/// A replica takes over and the address leads to it, while the connections to the old primary stay.
#[tokio::test]
async fn a_primary_that_is_demoted_is_left_for_the_one_in_its_place() {
    let (Some(redis), Some(replica)) = (Redis::start().await, Redis::start().await) else {
        return;
    };
    let port = |redis: &Redis| redis.address.port().to_string();
    replica
        .ask(&["REPLICAOF", "127.0.0.1", &port(&redis)])
        .await;
    wait_for("a replica", async || {
        let info = replica.ask(&["INFO", "replication"]).await;
        if info.contains("master_link_status:up") {
            Ok(())
        } else {
            Err(info)
        }
    })
    .await;
    let origin = Origin::start().await;
    let proxy = Proxy::to(redis.address).await;
    let (a, b) = (
        host(&proxy.url(), &origin).await,
        host(&proxy.url(), &origin).await,
    );
    for path in ["/posts/1", "/posts/2"] {
        a.get(path).await;
        b.get(path).await;
    }
    a.renew("/posts/1").await;
    proxy.lead_to(replica.address);
    replica.ask(&["REPLICAOF", "NO", "ONE"]).await;
    redis
        .ask(&["REPLICAOF", "127.0.0.1", &port(&replica)])
        .await;
    a.revalidate(json!({"paths": ["/posts/2"], "mode": "purge"}))
        .await;
    misses_are_served(&b, "demoted").await;
    b.until("/posts/2", |page| page.n() >= 2).await;
    b.until("/posts/1", |page| page.n() >= 2).await;
    wait_for("a page in the replica", async || {
        a.get("/posts/after").await;
        a.revalidate(json!({"paths": ["/posts/after"]})).await;
        match replica.keys("wisr:1:default:p:*").await.len() {
            0 => Err("none".to_owned()),
            _ => Ok(()),
        }
    })
    .await;
    let c = host(&replica.url(), &origin).await;
    assert!(c.get("/posts/2").await.n() >= 2);
    assert_eq!(a.metric("wisr_shared_repairs_total").await, 0.0);
}

/// Connections that are reset every 100 ms: what is said is told all the same.
#[tokio::test]
async fn connections_that_end_all_the_time_lose_no_invalidation() {
    let Some(redis) = Redis::start().await else {
        return;
    };
    let origin = Origin::start().await;
    let proxy = Proxy::to(redis.address).await;
    let a = hasty_host(&proxy.url(), &origin).await;
    let b = host(&redis.url(), &origin).await;
    a.get("/posts/still").await;
    let readers = Readers::of(&a, "/posts/still");
    let resets = tokio::spawn(async move {
        loop {
            proxy.turn(Weather::Cut);
            tokio::time::sleep(Duration::from_millis(5)).await;
            proxy.turn(Weather::Fair);
            tokio::time::sleep(Duration::from_millis(95)).await;
        }
    });
    let end = Instant::now() + extent(Duration::from_secs(3), Duration::from_secs(60));
    let mut purged = Vec::new();
    while Instant::now() < end {
        let path = format!("/posts/{}", purged.len());
        assert_eq!(b.get(&path).await.status, 200);
        assert_eq!(a.get(&path).await.status, 200);
        let before = origin.count(&path) as u64;
        a.revalidate(json!({"paths": [path], "mode": "purge"}))
            .await;
        purged.push((path, before));
    }
    // They go on.
    for (path, before) in purged {
        b.until(&path, |page| page.n() > before).await;
    }
    resets.abort();
    readers.were_all_served().await;
}

#[tokio::test]
async fn a_redis_without_memory_is_left_alone_until_it_has_some() {
    let Some(redis) = Redis::start().await else {
        return;
    };
    let origin = Origin::start().await;
    let a = hasty_host(&redis.url(), &origin).await;
    redis.ask(&["CONFIG", "SET", "maxmemory", "1"]).await;
    misses_are_served(&a, "full").await;
    let shared = until_breaker(&a, "open").await;
    let told = a.revalidate(json!({"tags": ["news"]})).await;
    assert_eq!(told.json()["propagated"], false, "{shared}");
    redis.ask(&["CONFIG", "SET", "maxmemory", "0"]).await;
    until_breaker(&a, "closed").await;
    a.until_log("maxmemory").await;
}

#[tokio::test]
async fn a_policy_that_may_forget_invalidations_is_warned_of() {
    let arguments = ["--maxmemory-policy", "allkeys-lru"];
    let Some(redis) = Redis::start_with(&arguments).await else {
        return;
    };
    let origin = Origin::start().await;
    let a = host(&redis.url(), &origin).await;
    a.until_log("volatile-lfu").await;
    let warning = async || a.admin("/api/shared").await.json()["sharing"]["warning"].clone();
    assert!(warning().await.as_str().unwrap().contains("allkeys-lru"));
    redis
        .ask(&["CONFIG", "SET", "maxmemory-policy", "volatile-lfu"])
        .await;
    wait_for("no warning", async || {
        let warning = warning().await;
        if warning.is_null() {
            Ok(())
        } else {
            Err(warning.to_string())
        }
    })
    .await;
}

#[tokio::test]
async fn scripts_that_redis_forgets_are_told_again() {
    let Some((redis, _origin, a, b)) = pair().await else {
        return;
    };
    for n in 0..10 {
        redis.ask(&["SCRIPT", "FLUSH"]).await;
        let path = format!("/posts/{n}");
        a.get(&path).await;
        assert_eq!(b.get(&path).await.verdict(), "HIT");
        redis.ask(&["SCRIPT", "FLUSH"]).await;
        a.renew(&path).await;
        b.until(&path, |page| page.n() == 2).await;
    }
    assert!(!a.log().contains("NOSCRIPT"));
}

#[tokio::test]
async fn who_may_not_in_is_told_so_and_serves_all_the_same() {
    let arguments = ["--requirepass", "open-sesame"];
    let Some(redis) = Redis::start_with(&arguments).await else {
        return;
    };
    let origin = Origin::start().await;
    let wrong = site(&redis.url()).env("WISR_STORE_PASSWORD", "guessed");
    let a = wrong.start_on(origin.clone()).await;
    a.until_log("WISR_STORE_PASSWORD").await;
    misses_are_served(&a, "locked").await;
    assert!(!a.log().contains("guessed"));
    let right = site(&redis.url()).env("WISR_STORE_PASSWORD", "open-sesame");
    let b = right.start_on(origin.clone()).await;
    until_breaker(&b, "closed").await;
}

/// An ACL user with a password from the environment, who may do what is needed and no more.
#[tokio::test]
async fn an_acl_user_needs_the_keys_of_wisr_and_scripts() {
    let may = "on >pw ~wisr:1:* +@read +@write +@scripting +time +@connection";
    let arguments = [
        "--user",
        "wisr",
        may,
        "--user",
        "mute",
        &may.replace("+@scripting ", ""),
    ];
    let words: Vec<&str> = arguments.iter().flat_map(|it| it.split(' ')).collect();
    let Some(redis) = Redis::start_with(&words).await else {
        return;
    };
    let origin = Origin::start().await;
    let as_user = |user: &str| {
        site(&redis.url())
            .env("WISR_STORE_USER", user)
            .env("WISR_STORE_PASSWORD", "pw")
    };
    let a = as_user("wisr").start_on(origin.clone()).await;
    until_breaker(&a, "closed").await;
    assert_eq!(a.get("/posts/1").await.status, 200);
    assert_eq!(redis_pages(&a).await, 1.0);
    let mute = as_user("mute").start_on(origin.clone()).await;
    mute.until_log("+@scripting").await;
    assert_eq!(mute.get("/posts/2").await.status, 200);
}

async fn redis_pages(host: &Running) -> f64 {
    host.metric_or_zero(r#"wisr_shared_operations_total{operation="commit"}"#)
        .await
        .min(1.0)
}

/// Over TLS, with a certificate of an authority of the operator's own.
#[tokio::test]
async fn redis_may_be_reached_over_tls() {
    let mut authority = rcgen::CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let key = rcgen::KeyPair::generate().unwrap();
    let root = authority.self_signed(&key).unwrap();
    let issuer = rcgen::Issuer::new(authority, key);
    let own = rcgen::KeyPair::generate().unwrap();
    let server = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let server = server.signed_by(&own, &issuer).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let root = write("root.pem", &root.pem());
    let (cert, key) = (
        write("cert.pem", &server.pem()),
        write("key.pem", &own.serialize_pem()),
    );
    let port = free_port().port();
    let arguments = ["--tls-port", &port.to_string(), "--tls-auth-clients", "no"];
    let files = [
        "--tls-cert-file",
        &cert,
        "--tls-key-file",
        &key,
        "--tls-ca-cert-file",
        &root,
    ];
    let Some(redis) = Redis::start_with(&[&arguments[..], &files[..]].concat()).await else {
        return;
    };
    let origin = Origin::start().await;
    let url = format!("rediss://localhost:{port}");
    let trusting = site(&url).config(&format!("[store]\nca = {root:?}"));
    let a = trusting.start_on(origin.clone()).await;
    until_breaker(&a, "closed").await;
    a.get("/posts/1").await;
    let b = host(&redis.url(), &origin).await;
    assert_eq!(b.get("/posts/1").await.verdict(), "HIT");
    let doubting = site(&url).start_on(origin.clone()).await;
    doubting.until_log("ertificate").await;
    assert_eq!(doubting.get("/posts/1").await.status, 200);
}
