//! Section 4 under ten times what can be made: who waits is bounded by number and time, what is
//! there is served throughout, and everything is well again when it ends.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use serde_json::json;
use tokio::time::Instant;

use crate::modules;
use crate::site::{Running, Site, wait_for};

/// Generations at once, readers in the queue, and how long each of them waits.
const PLACES: usize = 2;
const QUEUE: usize = 10;
const WAIT: Duration = Duration::from_secs(2);

/// Ten times what the places and the queue hold.
const COLD: usize = 10 * (PLACES + QUEUE);

async fn site() -> Running {
    Site::new()
        .pages(&["kept", "cold/[id]"])
        .config(&format!(
            "[generations]\nconcurrency = {PLACES}\nqueue = {QUEUE}\nwait = \"{}s\"\n\
             [defaults]\nwall = \"60s\"",
            WAIT.as_secs()
        ))
        .script("/kept", json!({"revalidate": 1}))
        .start()
        .await
}

#[tokio::test]
async fn too_many_cold_pages_are_too_many_for_their_readers_only() {
    let site = site().await;
    let kept = site
        .until("/kept", |answer| answer.verdict() == "HIT")
        .await;
    let paths: Vec<String> = (0..COLD).map(|id| format!("/cold/{id}")).collect();
    // Nothing that has begun is finished while the load is on.
    for path in &paths {
        site.origin.hold(path);
    }
    let before = site.resident();
    let began = Instant::now();
    let readers = paths.iter().map(|path| site.waiting(path));
    let mut readers: FuturesUnordered<_> = readers.collect();
    site.until_metric("wisr_generations_running", PLACES as f64)
        .await;
    site.until_metric("wisr_generations_waiting", QUEUE as f64)
        .await;
    assert!(site.metric("wisr_generations_waiting").await <= QUEUE as f64);

    // Fresh or stale, what there is is there at once: its own renewal waits behind the readers.
    site.until("/kept", |answer| answer.verdict() == "STALE")
        .await;
    assert_eq!(site.get("/kept").await.status, 200);

    // Who finds no room is told at once, the others when their time is over.
    for _ in 0..COLD - PLACES {
        let answer = readers.next().await.unwrap().unwrap();
        assert_eq!(answer.status, 503, "{answer:?}");
        let after: u64 = answer.header("retry-after").parse().unwrap();
        assert!((1..=60).contains(&after), "{after}");
        assert_eq!(answer.header("cache-control"), "private, no-store");
    }
    assert!(began.elapsed() >= WAIT);
    let grown = site.resident().saturating_sub(before);
    assert!(grown < 64 << 20, "{grown} bytes more");

    // It ends: who had a place gets the page, and nothing of the load is left.
    for path in &paths {
        site.origin.release(path);
    }
    for _ in 0..PLACES {
        assert_eq!(readers.next().await.unwrap().unwrap().status, 200);
    }
    for gauge in ["wisr_generations_running", "wisr_generations_waiting"] {
        wait_for(&format!("{gauge} 0"), async || {
            match site.metric(gauge).await {
                0.0 => Ok(()),
                left => Err(left.to_string()),
            }
        })
        .await;
    }
    assert_eq!(site.get("/cold/new").await.status, 200);
    let made = kept.n();
    site.until("/kept", |answer| answer.n() > made).await;
}

/// However many wait for an API route that does not answer, another one answers.
#[tokio::test]
async fn a_slow_api_route_leaves_room_for_the_others() {
    let site = Site::new()
        .module("api/slow", modules::hook())
        .module("api/hook", modules::hook())
        .config("[defaults]\nwall = \"60s\"")
        .start()
        .await;
    // More than there are places for all routes together.
    let asked = (0..300).map(|_| site.waiting("/api/slow?do=sleep"));
    let mut asked: FuturesUnordered<_> = asked.collect();
    // Who is told first that there is none left knows of the slow route's share only.
    assert_eq!(asked.next().await.unwrap().unwrap().status, 503);
    assert_eq!(site.get("/api/hook").await.status, 200);
    for asked in &asked {
        asked.abort();
    }
}
