//! Invalidations that all hosts follow, wherever they are said.

use rustix::process::Signal;
use serde_json::json;

use super::hosts::{host, pair, until_breaker};
use super::proxy::{Proxy, Weather};
use super::redis::Redis;
use crate::client::Client;
use crate::origin::Origin;
use crate::site::wait_for;

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

#[tokio::test]
async fn what_another_host_renders_while_its_page_is_purged_is_not_kept() {
    let Some((redis, origin, a, b)) = pair().await else {
        return;
    };
    origin.hold("/posts/1");
    let waiting = b.waiting("/posts/1");
    b.until_calls("/posts/1", 1).await;
    let told = a
        .revalidate(json!({"paths": ["/posts/1"], "mode": "purge"}))
        .await;
    assert_eq!(told.json()["propagated"], true);
    origin.release("/posts/1");
    assert_eq!(waiting.await.unwrap().status, 200);
    for host in [&b, &a] {
        let after = host.get("/posts/1").await;
        assert!(after.n() >= 2, "made from what was read before the purge");
    }
    let c = host(&redis.url(), &origin).await;
    assert!(c.get("/posts/1").await.n() >= 2);
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

/// A host that was away for longer than the log is reads the marks themselves.
#[tokio::test]
async fn a_host_that_was_away_for_long_shows_nothing_that_was_purged() {
    let Some(redis) = Redis::start().await else {
        return;
    };
    let origin = Origin::start().await;
    let a = host(&redis.url(), &origin).await;
    let b = host(&redis.url(), &origin).await;
    for path in ["/posts/1", "/posts/2"] {
        a.get(path).await;
        b.get(path).await;
    }
    b.signal(Signal::STOP);
    a.revalidate(json!({"paths": ["/posts/1"], "mode": "purge"}))
        .await;
    let mut client = Client::new(a.site());
    let headers = [("authorization", "Bearer a-secret-of-the-tests")];
    for n in 0..200 {
        let body = json!({"tags": [format!("{n}")]}).to_string();
        let told = client.send("POST", "/api/revalidate", &headers, &body);
        assert_eq!(told.await.unwrap().status, 200);
    }
    // As if it were thousands of them.
    redis
        .ask(&["XTRIM", "wisr:1:{default}:log", "MAXLEN", "5"])
        .await;
    b.signal(Signal::CONT);
    b.until("/posts/1", |page| page.n() == 2).await;
    assert_eq!(b.get("/posts/2").await.n(), 1);
    assert_eq!(b.metric("wisr_shared_repairs_total").await, 0.0);
}
