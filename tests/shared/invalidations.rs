//! Invalidations that all hosts follow, wherever they are said.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use super::extent;
use super::hosts::{host, pair, site, until_breaker};
use super::proxy::{Proxy, Weather};
use super::redis::Redis;
use crate::origin::Origin;
use crate::site::{Running, wait_for};

#[tokio::test]
async fn what_is_invalidated_on_one_host_is_on_all() {
    let Some(redis) = Redis::start().await else {
        return;
    };
    let origin = Origin::start().await;
    origin.script("/posts/2", json!({"tags": ["news"]}));
    let (a, b) = (
        host(&redis.url(), &origin).await,
        host(&redis.url(), &origin).await,
    );
    let paths = ["/posts/1", "/posts/2", "/posts/3", "/posts/4"];
    for path in paths {
        a.get(path).await;
        assert_eq!(b.get(path).await.verdict(), "HIT", "{path}");
    }
    let told = a.revalidate(json!({"paths": ["/posts/1"]})).await;
    assert_eq!(
        (told.status, &told.json()["propagated"]),
        (200, &json!(true))
    );
    assert_eq!(a.get("/posts/1").await.n(), 2);
    b.until("/posts/1", |page| page.n() == 2).await;
    a.revalidate(json!({"tags": ["news"]})).await;
    for host in [&b, &a] {
        host.until("/posts/2", |page| page.verdict() == "HIT" && page.n() == 2)
            .await;
    }
    b.revalidate(json!({"paths": ["/posts/3"], "mode": "purge"}))
        .await;
    a.until("/posts/3", |page| page.n() == 2).await;
    b.revalidate(json!({"paths": ["/posts/4"], "mode": "stale"}))
        .await;
    a.until("/posts/4", |page| page.n() == 2).await;
    for path in paths {
        assert_eq!(origin.count(path), 2, "{path}");
    }
}

/// No host shows a purged page, not even as its last good one.
#[tokio::test]
async fn a_purged_page_is_gone_everywhere() {
    let Some((_redis, origin, a, mut b)) = pair().await else {
        return;
    };
    a.get("/posts/1").await;
    b.get("/posts/1").await;
    origin.fail("/posts/1");
    a.revalidate(json!({"paths": ["/posts/1"], "mode": "purge"}))
        .await;
    assert_eq!(a.get("/posts/1").await.status, 500);
    b.until("/posts/1", |page| page.status == 500).await;
    b.restart().await;
    until_breaker(&b, "closed").await;
    assert_eq!(b.get("/posts/1").await.status, 500);
}

/// Whichever host renders it and whichever purges it.
#[tokio::test]
async fn what_is_rendered_while_its_page_is_purged_is_not_kept() {
    let Some((redis, origin, a, b)) = pair().await else {
        return;
    };
    let roles = [(&b, &a), (&a, &b), (&a, &a)];
    for (number, (renders, purges)) in roles.into_iter().enumerate() {
        let path = format!("/posts/{number}");
        origin.hold(&path);
        let waiting = renders.waiting(&path);
        renders.until_calls(&path, 1).await;
        let told = purges
            .revalidate(json!({"paths": [path], "mode": "purge"}))
            .await;
        assert_eq!(told.json()["propagated"], true);
        origin.release(&path);
        assert_eq!(waiting.await.unwrap().status, 200);
        for host in [&b, &a] {
            let after = host.get(&path).await;
            assert!(after.n() >= 2, "made from what was read before the purge");
        }
        let c = host(&redis.url(), &origin).await;
        assert!(c.get(&path).await.n() >= 2);
    }
}

/// What is said while Redis is away holds at once where it is said, survives that host's death, and
/// reaches the others when Redis is back.
#[tokio::test]
async fn what_is_said_without_redis_is_told_later() {
    let Some(redis) = Redis::start().await else {
        return;
    };
    let origin = Origin::start().await;
    origin.script("/posts/2", json!({"tags": ["news"]}));
    let proxy = Proxy::to(redis.address).await;
    let mut a = host(&proxy.url(), &origin).await;
    let b = host(&redis.url(), &origin).await;
    for path in ["/posts/1", "/posts/2"] {
        a.get(path).await;
        b.get(path).await;
    }
    proxy.turn(Weather::Cut);
    until_breaker(&a, "open").await;
    let purge = json!({"paths": ["/posts/1"], "mode": "purge"});
    a.revalidate(purge).await;
    let told = a.revalidate(json!({"tags": ["news"]})).await;
    let json = told.json();
    assert_eq!((told.status, &json["propagated"]), (202, &json!(false)));
    assert!(
        json["warning"].as_str().unwrap().contains("Redis"),
        "{json}"
    );
    let overview = a.admin("/").await.text();
    assert!(
        overview.contains("not told to other hosts yet"),
        "{overview}"
    );
    assert_eq!(a.get("/posts/1").await.n(), 2);
    assert_eq!(b.get("/posts/1").await.n(), 1);
    a.kill();
    proxy.turn(Weather::Fair);
    a.restart().await;
    b.until("/posts/1", |page| page.n() > 1).await;
    b.until("/posts/2", |page| page.n() > 1).await;
}

/// Redis loses everything while one host cannot see it: what the other was told is not forgotten.
#[tokio::test]
async fn a_redis_that_comes_back_empty_is_told_again() {
    let Some(mut redis) = Redis::start().await else {
        return;
    };
    let origin = Origin::start().await;
    origin.script("/posts/2", json!({"tags": ["news"]}));
    let proxy = Proxy::to(redis.address).await;
    let a = host(&redis.url(), &origin).await;
    let b = host(&proxy.url(), &origin).await;
    for path in ["/posts/1", "/posts/2", "/posts/3"] {
        a.get(path).await;
        b.get(path).await;
    }
    proxy.turn(Weather::Black);
    until_breaker(&b, "open").await;
    let purge = json!({"paths": ["/posts/1"], "mode": "purge"});
    for call in [purge, json!({"tags": ["news"]})] {
        assert_eq!(a.revalidate(call).await.json()["propagated"], true);
    }
    redis.kill();
    redis.launch().await;
    until_breaker(&a, "closed").await;
    proxy.turn(Weather::Fair);
    until_breaker(&b, "closed").await;
    assert_ne!(b.get("/posts/1").await.n(), 1);
    assert_ne!(b.get("/posts/2").await.verdict(), "HIT");
    assert_eq!(b.get("/posts/3").await.n(), 1);
    // It goes on as before.
    a.renew("/posts/3").await;
    b.until("/posts/3", |page| page.n() == 2).await;
}

/// As when a replica takes over that had not heard the last: both hosts have said something since.
#[tokio::test]
async fn a_redis_that_comes_back_with_less_is_told_what_it_lacks() {
    let Some(redis) = Redis::start().await else {
        return;
    };
    let origin = Origin::start().await;
    let proxy = Proxy::to(redis.address).await;
    for (path, tag) in [("/posts/1", "one"), ("/posts/2", "two")] {
        origin.script(path, json!({"tags": [tag]}));
    }
    let a = host(&redis.url(), &origin).await;
    let b = host(&proxy.url(), &origin).await;
    for path in ["/posts/1", "/posts/2"] {
        a.get(path).await;
        b.get(path).await;
    }
    // So that there is something of each kind to go back to.
    a.revalidate(json!({"tags": ["before"]})).await;
    let control = ["site", "marks", "log"].map(|key| format!("wisr:1:{{default}}:{key}"));
    let copy = |from: &str| format!("{from}-copy");
    for key in &control {
        redis.ask(&["COPY", key, &copy(key)]).await;
    }
    // A hears of it, B does not, and then Redis does not know of it either.
    proxy.turn(Weather::Black);
    until_breaker(&b, "open").await;
    a.revalidate(json!({"tags": ["one"]})).await;
    for key in &control {
        redis.ask(&["COPY", &copy(key), key, "REPLACE"]).await;
    }
    redis.ask(&["CLIENT", "KILL", "TYPE", "normal"]).await;
    until_breaker(&a, "closed").await;
    proxy.turn(Weather::Fair);
    until_breaker(&b, "closed").await;
    b.until("/posts/1", |page| page.n() >= 2).await;
    wait_for("a repair", async || {
        let repairs = a.metric("wisr_shared_repairs_total").await;
        if repairs >= 1.0 {
            Ok(())
        } else {
            Err(repairs.to_string())
        }
    })
    .await;
    assert_eq!(b.get("/posts/2").await.n(), 1);
    b.revalidate(json!({"tags": ["two"]})).await;
    a.until("/posts/2", |page| page.n() >= 2).await;
}

/// The log of the site, which has the last ten thousand invalidations or a few more.
const LOG: &str = "wisr:1:{default}:log";

/// Two hosts that share two pages, a third that invalidates, and the way of the second to Redis.
async fn with_a_caller() -> Option<(Redis, [Running; 3], Proxy)> {
    let redis = Redis::start().await?;
    let origin = Origin::start().await;
    let proxy = Proxy::to(redis.address).await;
    let a = host(&redis.url(), &origin).await;
    let b = host(&proxy.url(), &origin).await;
    let memory = site(&redis.url()).config("[store]\ndurable = false");
    let caller = memory.start_on(origin.clone()).await;
    until_breaker(&caller, "closed").await;
    for path in ["/posts/1", "/posts/2"] {
        a.get(path).await;
        b.get(path).await;
    }
    Some((redis, [a, b, caller], proxy))
}

/// Invalidates this many tags that no page has, each in a call of its own.
async fn invalidate(host: &Running, calls: usize) {
    let mut client = host.reader();
    let headers = [("authorization", "Bearer a-secret-of-the-tests")];
    for n in 0..calls {
        let body = json!({"tags": [format!("tag-{n}")]}).to_string();
        let told = client.send("POST", "/api/revalidate", &headers, &body);
        assert_eq!(told.await.unwrap().status, 200);
    }
}

/// A host that was away while the log went on beyond what it keeps reads the marks themselves.
#[tokio::test]
async fn a_host_that_was_away_for_longer_than_the_log_shows_nothing_that_was_purged() {
    let Some((redis, [a, b, caller], proxy)) = with_a_caller().await else {
        return;
    };
    let away = Instant::now();
    proxy.turn(Weather::Black);
    until_breaker(&b, "open").await;
    a.revalidate(json!({"paths": ["/posts/1"], "mode": "purge"}))
        .await;
    invalidate(&caller, 10_200).await;
    let oldest = redis.ask(&["XRANGE", LOG, "-", "+", "COUNT", "1"]).await;
    assert!(!oldest.contains("x/posts/1"), "the log has everything");
    tokio::time::sleep_until((away + extent(Duration::ZERO, Duration::from_secs(60))).into()).await;
    proxy.turn(Weather::Fair);
    until_breaker(&b, "closed").await;
    assert_ne!(b.get("/posts/1").await.n(), 1);
    assert_eq!(b.get("/posts/2").await.n(), 1);
    assert_eq!(b.metric("wisr_shared_repairs_total").await, 0.0);
}

/// A host that stood still asks for what comes next in the log, which may have gone on beyond that.
#[tokio::test]
async fn a_host_that_stood_still_misses_nothing_that_the_log_has_forgotten() {
    let Some((redis, [a, b, caller], _proxy)) = with_a_caller().await else {
        return;
    };
    b.signal(Signal::STOP);
    // What its question is answered with; the rest it has to ask for.
    invalidate(&caller, 1).await;
    a.revalidate(json!({"paths": ["/posts/1"], "mode": "purge"}))
        .await;
    invalidate(&caller, 10).await;
    redis.ask(&["XTRIM", LOG, "MAXLEN", "5"]).await;
    b.signal(Signal::CONT);
    b.until("/posts/1", |page| page.n() == 2).await;
    assert_eq!(b.get("/posts/2").await.n(), 1);
}

/// A replica takes over that had not heard the last, and what is said there ends as what it lacks did.
#[tokio::test]
async fn histories_that_end_alike_are_told_apart() {
    let Some(redis) = Redis::start().await else {
        return;
    };
    let origin = Origin::start().await;
    let proxies = [
        Proxy::to(redis.address).await,
        Proxy::to(redis.address).await,
    ];
    for (path, tag) in [("/posts/1", "one"), ("/posts/2", "two")] {
        origin.script(path, json!({"tags": [tag]}));
    }
    let (a, b) = (
        host(&proxies[0].url(), &origin).await,
        host(&proxies[1].url(), &origin).await,
    );
    for path in ["/posts/1", "/posts/2"] {
        a.get(path).await;
        b.get(path).await;
    }
    a.revalidate(json!({"tags": ["before"]})).await;
    let control = ["site", "marks", "log"].map(|key| format!("wisr:1:{{default}}:{key}"));
    let copy = |from: &str| format!("{from}-copy");
    for key in &control {
        redis.ask(&["COPY", key, &copy(key)]).await;
    }
    proxies[1].turn(Weather::Cut);
    until_breaker(&b, "open").await;
    for tag in ["one", "all"] {
        a.revalidate(json!({"tags": [tag]})).await;
    }
    proxies[0].turn(Weather::Cut);
    until_breaker(&a, "open").await;
    for key in &control {
        redis.ask(&["COPY", &copy(key), key, "REPLACE"]).await;
    }
    proxies[1].turn(Weather::Fair);
    until_breaker(&b, "closed").await;
    for tag in ["two", "all"] {
        b.revalidate(json!({"tags": [tag]})).await;
    }
    proxies[0].turn(Weather::Fair);
    until_breaker(&a, "closed").await;
    a.until("/posts/2", |page| page.n() >= 2).await;
    b.until("/posts/1", |page| page.n() >= 2).await;
}
