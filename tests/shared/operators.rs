//! What those who operate several hosts are told of them.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::hosts::{site, until_breaker};
use super::proxy::{Proxy, Weather};
use super::redis::Redis;
use crate::browser::Browser;
use crate::dashboard::reads_well;
use crate::origin::Origin;
use crate::site::{Running, Site, wait_for};

/// Waits until a host tells of sharing what is wanted.
async fn until_told(host: &Running, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    wait_for(what, async || {
        let told = told(host).await;
        if wanted(&told) {
            Ok(told)
        } else {
            Err(told.to_string())
        }
    })
    .await
}

async fn told(host: &Running) -> Value {
    host.admin("/api/shared").await.json()["sharing"].clone()
}

fn knows_of(hosts: usize) -> impl Fn(&Value) -> bool {
    move |told| told["hosts"].as_array().unwrap().len() == hosts
}

/// Three hosts that share a Redis with a password, which may forget what it must not; the network
/// of the first.
async fn three() -> Option<(Redis, [Running; 3], Proxy)> {
    let arguments = [
        "--requirepass",
        "open-sesame",
        "--maxmemory-policy",
        "allkeys-lru",
    ];
    let redis = Redis::start_with(&arguments).await?;
    let (origin, proxy) = (Origin::start().await, Proxy::to(redis.address).await);
    let locked = async |address| {
        let url = format!("redis://:open-sesame@{address}");
        let host = site(&url).start_on(origin.clone()).await;
        until_breaker(&host, "closed").await;
        host
    };
    let hosts = [
        locked(proxy.address).await,
        locked(redis.address).await,
        locked(redis.address).await,
    ];
    Some((redis, hosts, proxy))
}

#[tokio::test]
async fn an_operator_sees_who_shares_and_how_it_goes() {
    let Some((_redis, hosts, proxy)) = three().await else {
        return;
    };
    let [a, b, _] = &hosts;
    let first = until_told(a, "three hosts", knows_of(3)).await;
    let named = format!(" {}", a.site());
    for host in first["hosts"].as_array().unwrap() {
        let is_named = host["name"].as_str().unwrap().ends_with(&named);
        assert_eq!(host["this"], is_named, "{first}");
    }
    assert_eq!(first["servers"], json!([proxy.address.to_string()]));
    assert!(first["failed"].is_null() && first["repaired"].is_null());
    assert!(first["warning"].as_str().unwrap().contains("allkeys-lru"));
    assert!(first["round_trip_us"].as_u64().unwrap() > 0, "{first}");
    assert_eq!(a.metric("wisr_shared_hosts").await, 3.0);
    let before = first["count"].as_u64().unwrap();
    b.revalidate(json!({"tags": ["news"]})).await;
    for host in &hosts {
        until_told(host, "one more", |told| told["count"] == before + 1).await;
    }
    a.get("/posts/1").await;
    b.get("/posts/1").await;
    assert!(told(b).await["hits"].as_u64() >= Some(1));
    until_told(b, "no lease", |told| told["leases"] == 0).await;
}

#[tokio::test]
async fn an_operator_sees_what_stands_between_hosts() {
    let Some((_redis, [a, b, _c], proxy)) = three().await else {
        return;
    };
    for host in [&a, &b] {
        until_told(host, "three hosts", knows_of(3)).await;
    }
    proxy.turn(Weather::Cut);
    until_breaker(&a, "open").await;
    a.get("/posts/2").await;
    a.revalidate(json!({"tags": ["news"]})).await;
    let now = told(&a).await;
    assert_eq!((&now["untold"], &now["owed"]), (&json!(1), &json!(1)));
    assert_eq!(now["failed"]["why"], now["reason"], "{now}");
    until_told(&b, "a host that is gone", knows_of(2)).await;
    for (host, is_alone) in [(&a, true), (&b, false)] {
        let page = host.admin("/shared").await.text();
        assert!(!page.contains("open-sesame"), "{page}");
        assert!(page.contains("maxmemory-policy allkeys-lru"), "{page}");
        assert_eq!(page.contains("goes on alone"), is_alone);
    }
    if let Some(browser) = Browser::open(1280, 800).await {
        for host in [&a, &b] {
            reads_well(&browser, &format!("{}/shared", host.admin_url())).await;
        }
    }
    proxy.turn(Weather::Fair);
    until_told(&b, "three hosts again", knows_of(3)).await;
    until_told(&a, "nothing to tell", |told| {
        told["untold"] == 0 && told["owed"] == 0
    })
    .await;
    assert!(!told(&a).await.to_string().contains("open-sesame"));
}

/// A host that is stopped in order says so: nobody counts it any more.
#[tokio::test]
async fn a_host_that_stops_takes_its_leave() {
    let Some((_redis, _origin, a, mut b)) = super::hosts::pair().await else {
        return;
    };
    until_told(&a, "two hosts", knows_of(2)).await;
    b.terminate();
    assert!(b.ended().await.success());
    let left = Instant::now();
    until_told(&a, "one host", knows_of(1)).await;
    // Long before it would have been missed.
    assert!(left.elapsed() < Duration::from_secs(15));
}

#[tokio::test]
async fn who_does_not_share_is_told_how_to() {
    let alone = Site::new().pages(&["index"]).start().await;
    assert_eq!(told(&alone).await, json!(null));
    let refused = alone.admin("/shared").await;
    assert_eq!(refused.status, 404);
    assert!(refused.text().contains("store.url"), "{}", refused.text());
}
