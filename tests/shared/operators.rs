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
        let told = host.admin("/api/shared").await.json();
        if wanted(&told) {
            Ok(told)
        } else {
            Err(told.to_string())
        }
    })
    .await
}

fn knows_of(hosts: usize) -> impl Fn(&Value) -> bool {
    move |told| told["hosts"].as_array().unwrap().len() == hosts
}

/// Three hosts, a Redis that may forget what it must not, and a network that fails one of them.
#[tokio::test]
async fn an_operator_sees_who_shares_and_what_stands_between_them() {
    let arguments = [
        "--requirepass",
        "open-sesame",
        "--maxmemory-policy",
        "allkeys-lru",
    ];
    let Some(redis) = Redis::start_with(&arguments).await else {
        return;
    };
    let origin = Origin::start().await;
    let proxy = Proxy::to(redis.address).await;
    let mut hosts = Vec::new();
    for address in [proxy.address, redis.address, redis.address] {
        let url = format!("redis://:open-sesame@{address}");
        let host = site(&url).start_on(origin.clone()).await;
        until_breaker(&host, "closed").await;
        hosts.push(host);
    }
    let [a, b, c] = &hosts[..] else {
        unreachable!("there are three");
    };
    let told = until_told(a, "three hosts", knows_of(3)).await;
    let own = told["hosts"].as_array().unwrap().iter();
    let own: Vec<&Value> = own.filter(|host| host["this"] == true).collect();
    assert_eq!(own.len(), 1, "{told}");
    let name = own[0]["name"].as_str().unwrap();
    assert!(name.ends_with(&format!(" {}", a.site())), "{name}");
    assert_eq!(told["servers"], json!([proxy.address.to_string()]));
    assert_eq!((&told["failed"], &told["repaired"]), (&json!(null), &json!(null)));
    assert!(told["warning"].as_str().unwrap().contains("allkeys-lru"));
    assert!(told["round_trip_us"].as_u64().unwrap() > 0, "{told}");
    assert_eq!(a.metric("wisr_shared_hosts").await, 3.0);
    // All know as much.
    let before = told["count"].as_u64().unwrap();
    b.revalidate(json!({"tags": ["news"]})).await;
    for host in [a, b, c] {
        until_told(host, "one more", |told| told["count"] == before + 1).await;
    }
    a.get("/posts/1").await;
    b.get("/posts/1").await;
    assert!(b.admin("/api/shared").await.json()["hits"].as_u64() >= Some(1));
    until_told(b, "no lease", |told| told["leases"] == 0).await;

    proxy.turn(Weather::Cut);
    until_breaker(a, "open").await;
    a.get("/posts/2").await;
    a.revalidate(json!({"tags": ["news"]})).await;
    let told = a.admin("/api/shared").await.json();
    assert_eq!((&told["untold"], &told["owed"]), (&json!(1), &json!(1)));
    assert_eq!(told["failed"]["why"], told["reason"], "{told}");
    for host in [a, b] {
        let page = host.admin("/shared").await.text();
        assert!(!page.contains("open-sesame"), "{page}");
        assert!(page.contains("maxmemory-policy allkeys-lru"), "{page}");
        assert_eq!(page.contains("goes on alone"), std::ptr::eq(host, a));
    }
    until_told(b, "a host that is gone", knows_of(2)).await;
    if let Some(browser) = Browser::open(1280, 800).await {
        for host in [a, b] {
            reads_well(&browser, &format!("{}/shared", host.admin_url())).await;
        }
    }
    proxy.turn(Weather::Fair);
    until_told(b, "three hosts again", knows_of(3)).await;
    until_told(a, "nothing to tell", |told| {
        told["untold"] == 0 && told["owed"] == 0
    })
    .await;
    assert!(!a.admin("/api/shared").await.text().contains("open-sesame"));
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
    for path in ["/shared", "/api/shared"] {
        let refused = alone.admin(path).await;
        assert_eq!(refused.status, 404, "{path}");
        assert!(refused.text().contains("store.url"), "{}", refused.text());
    }
}
