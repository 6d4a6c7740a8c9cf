//! Several hosts, one cache: real servers, a real Redis.

mod hosts;
mod redis;

use serde_json::json;

use crate::origin::Origin;
use hosts::host;
use redis::Redis;

#[tokio::test]
async fn a_page_that_one_host_made_is_a_hit_on_another_with_its_true_age() {
    let Some(redis) = Redis::start().await else {
        return;
    };
    let origin = Origin::start().await;
    let (a, b) = (
        host(&redis.url(), &origin).await,
        host(&redis.url(), &origin).await,
    );
    assert_eq!(a.get("/posts/1").await.verdict(), "MISS");
    tokio::time::sleep(std::time::Duration::from_millis(1_100)).await;
    let there = b.get("/posts/1").await;
    assert_eq!((there.verdict(), there.n()), ("HIT", 1));
    assert!(there.header("age").parse::<u64>().unwrap() >= 1);
    assert_eq!(there.header("etag"), a.get("/posts/1").await.header("etag"));
    assert_eq!(origin.count("/posts/1"), 1);
}

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
    for path in ["/posts/1", "/posts/2", "/posts/3"] {
        a.get(path).await;
        assert_eq!(b.get(path).await.verdict(), "HIT", "{path}");
    }
    let told = a.revalidate(json!({"paths": ["/posts/1"]})).await;
    assert_eq!(
        (told.status, &told.json()["propagated"]),
        (200, &json!(true))
    );
    b.until("/posts/1", |page| page.n() == 2).await;
    a.revalidate(json!({"tags": ["news"]})).await;
    b.until("/posts/2", |page| page.verdict() == "HIT" && page.n() == 2)
        .await;
    a.until("/posts/2", |page| page.verdict() == "HIT" && page.n() == 2)
        .await;
    b.revalidate(json!({"paths": ["/posts/3"], "mode": "purge"}))
        .await;
    a.until("/posts/3", |page| page.n() == 2).await;
    for path in ["/posts/1", "/posts/2", "/posts/3"] {
        assert_eq!(origin.count(path), 2, "{path}");
    }
}
