//! One generation across hosts, whoever asks and whoever dies.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use super::hosts::{host, pair, site, until_breaker};
use super::redis::Redis;
use crate::origin::Origin;
use crate::site::{Running, all};

/// Readers of a cold page on each host.
const READERS: usize = 1_000;

/// How soon a page is made whose leader died: its lease of a second, and another for busy machines.
/// Far less than the 30 s after which nobody waits for another host any more.
const TAKEOVER: Duration = Duration::from_secs(2);

/// A host whose death is noticed soon.
async fn brief(redis: &Redis, origin: &Origin) -> Running {
    let site = site(&redis.url()).config("[store]\nlease = \"1s\"\ntimeout = \"330ms\"");
    let host = site.start_on(origin.clone()).await;
    host.until_ready().await;
    until_breaker(&host, "closed").await;
    host
}

#[tokio::test]
async fn however_many_ask_however_many_hosts_a_page_is_made_once() {
    let Some(redis) = Redis::start().await else {
        return;
    };
    let origin = Origin::start().await;
    origin.hold("/posts/1");
    let mut hosts = Vec::new();
    for _ in 0..3 {
        hosts.push(host(&redis.url(), &origin).await);
    }
    let mut readers = Vec::new();
    for host in &hosts {
        readers.extend(host.crowd(&["/posts/1"; READERS]).await);
    }
    hosts[0].until_calls("/posts/1", 1).await;
    origin.release("/posts/1");
    for answer in all(readers).await {
        assert_eq!((answer.status, answer.n()), (200, 1));
    }
    assert_eq!(origin.count("/posts/1"), 1);
}

/// Whoever calls needs data read after the call: that of a generation under way will not do, on
/// whichever host that is.
#[tokio::test]
async fn a_call_never_settles_for_what_another_host_had_begun() {
    let Some((_redis, origin, a, b)) = pair().await else {
        return;
    };
    origin.hold("/posts/1");
    let reader = a.waiting("/posts/1");
    a.until_calls("/posts/1", 1).await;
    let call = {
        let mut client = b.reader();
        let body = json!({"paths": ["/posts/1"]}).to_string();
        let headers = [("authorization", "Bearer a-secret-of-the-tests")];
        tokio::spawn(async move {
            let told = client.send("POST", "/api/revalidate", &headers, &body);
            told.await.unwrap()
        })
    };
    a.until_log("").await;
    origin.release("/posts/1");
    assert_eq!(call.await.unwrap().status, 200);
    assert_eq!(b.get("/posts/1").await.n(), 2);
    assert_eq!(reader.await.unwrap().status, 200);
    a.until("/posts/1", |page| page.n() == 2).await;
    assert_eq!(origin.count("/posts/1"), 2);
}

#[tokio::test]
async fn a_leader_that_dies_is_replaced_when_its_lease_ends() {
    let Some(redis) = Redis::start().await else {
        return;
    };
    let origin = Origin::start().await;
    let (mut a, b) = (brief(&redis, &origin).await, brief(&redis, &origin).await);
    origin.hold("/posts/1");
    let left = a.waiting("/posts/1");
    a.until_calls("/posts/1", 1).await;
    let reader = b.waiting("/posts/1");
    let killed = Instant::now();
    a.kill();
    left.abort();
    b.until_calls("/posts/1", 2).await;
    let again = origin.calls("/posts/1")[1].at;
    assert!(again - killed < TAKEOVER, "{:?}", again - killed);
    origin.release("/posts/1");
    assert_eq!(reader.await.unwrap().n(), 2);
    assert_eq!(origin.count("/posts/1"), 2);
    // Of the two leaders one has given all hosts the page.
    let commits = r#"wisr_shared_operations_total{operation="commit"}"#;
    assert_eq!(b.metric(commits).await, 1.0);
    assert_eq!(b.metric("wisr_shared_fenced_total").await, 0.0);
}

/// A leader that was paused for longer than its lease finds that another has made the page.
#[tokio::test]
async fn a_paused_leaders_late_page_is_refused() {
    let Some(redis) = Redis::start().await else {
        return;
    };
    let origin = Origin::start().await;
    let (a, b) = (brief(&redis, &origin).await, brief(&redis, &origin).await);
    origin.hold("/posts/1");
    let late = a.waiting("/posts/1");
    a.until_calls("/posts/1", 1).await;
    a.signal(Signal::STOP);
    let reader = b.waiting("/posts/1");
    b.until_calls("/posts/1", 2).await;
    origin.release("/posts/1");
    assert_eq!(reader.await.unwrap().n(), 2);
    a.signal(Signal::CONT);
    assert_eq!(late.await.unwrap().status, 200);
    a.until_metric("wisr_shared_fenced_total", 1.0).await;
    a.until("/posts/1", |page| page.n() == 2).await;
    let c = host(&redis.url(), &origin).await;
    assert_eq!(c.get("/posts/1").await.n(), 2);
    assert_eq!(origin.count("/posts/1"), 2);
}

#[tokio::test]
async fn a_leader_that_takes_longer_than_its_lease_keeps_it() {
    let Some(redis) = Redis::start().await else {
        return;
    };
    let origin = Origin::start().await;
    let (a, b) = (brief(&redis, &origin).await, brief(&redis, &origin).await);
    origin.hold("/posts/1");
    let readers = [a.waiting("/posts/1"), b.waiting("/posts/1")];
    a.until_calls("/posts/1", 1).await;
    // Renewed three times in each lease: after two of them it lasts because it was.
    let renewals = r#"wisr_shared_operations_total{operation="renew"}"#;
    crate::site::wait_for("renewals", async || {
        let told = [
            a.metric_or_zero(renewals).await,
            b.metric_or_zero(renewals).await,
        ];
        if told.iter().sum::<f64>() >= 7.0 {
            Ok(())
        } else {
            Err(format!("{told:?}"))
        }
    })
    .await;
    origin.release("/posts/1");
    for reader in readers {
        assert_eq!(reader.await.unwrap().n(), 1);
    }
    assert_eq!(origin.count("/posts/1"), 1);
}

#[tokio::test]
async fn a_page_that_fails_on_one_host_may_be_made_by_the_next_at_once() {
    let Some((_redis, origin, a, b)) = pair().await else {
        return;
    };
    origin.fail("/posts/1");
    assert_eq!(a.get("/posts/1").await.status, 500);
    origin.heal("/posts/1");
    assert_eq!(b.get("/posts/1").await.n(), 2);
    assert_eq!(a.get("/posts/1").await.n(), 2);
}
