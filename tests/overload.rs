//! Section 4 under ten times what can be made: who waits is bounded by number and time, what is
//! there is served throughout, and everything is well again when it ends.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use rustix::process::Signal;
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
             [defaults]\nwall = \"60s\"\nconcurrency = {PLACES}",
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

/// However many want one route's slow pages, and however these are asked for, another route has a
/// place at once: for its readers, for a call, for what is made behind a reader.
#[tokio::test]
async fn one_routes_slow_pages_leave_a_place_for_every_other_route() {
    let site = Site::new()
        .pages(&["slow/[id]", "posts/[id]"])
        .config("[generations]\nconcurrency = 4\nwait = \"60s\"\n[defaults]\nwall = \"60s\"")
        .script("/posts/1", json!({"revalidate": 1}))
        .start()
        .await;
    assert_eq!(site.get("/posts/1").await.n(), 1);
    let slow: Vec<String> = (0..60).map(|id| format!("/slow/{id}")).collect();
    for path in &slow {
        site.origin.hold(path);
    }
    let readers: Vec<_> = slow.iter().map(|path| site.waiting(path)).collect();
    site.until_metric("wisr_generations_waiting", 57.0).await;
    assert_eq!(site.metric("wisr_generations_running").await, 3.0);

    for id in 2..10 {
        let page = site.get(&format!("/posts/{id}")).await;
        assert_eq!((page.status, page.verdict()), (200, "MISS"), "{id}");
    }
    site.renew("/posts/2").await;
    site.until("/posts/1", |page| page.n() > 1).await;
    assert_eq!(site.metric("wisr_generations_running").await, 3.0);
    for reader in &readers {
        assert!(!reader.is_finished());
        reader.abort();
    }
}

/// As many slow routes as there are places take them all, with a crowd before each; who comes last,
/// for yet another route, has the first place that is given back.
#[tokio::test]
async fn a_group_of_slow_routes_leaves_another_the_next_place() {
    let slow: Vec<String> = (0..6).map(|route| format!("slow{route}/[id]")).collect();
    let names: Vec<&str> = slow
        .iter()
        .map(String::as_str)
        .chain(["posts/[id]"])
        .collect();
    let site = Site::new()
        .pages(&names)
        .config("[generations]\nconcurrency = 2\nwait = \"60s\"\n[defaults]\nwall = \"60s\"")
        .start()
        .await;
    let paths = (0..30).map(|number| format!("/slow{}/{number}", number % 6));
    let paths: Vec<String> = paths.collect();
    let mut readers = Vec::new();
    for (number, path) in paths.iter().enumerate() {
        site.origin.hold(path);
        readers.push(site.waiting(path));
        let waiting = (number + 1).saturating_sub(2) as f64;
        site.until_metric("wisr_generations_waiting", waiting).await;
    }
    let mut over = Vec::new();
    for round in 1..=3 {
        let newcomer = site.waiting(&format!("/posts/{round}"));
        site.until_metric("wisr_generations_waiting", f64::from(30 - round))
            .await;
        let mut running = paths.iter().filter(|path| site.origin.count(path) > 0);
        let running = running.find(|path| !over.contains(path)).unwrap();
        site.origin.release(running);
        over.push(running);
        assert_eq!(newcomer.await.unwrap().status, 200);
        // The next slow one has the place after it.
        site.until_metric("wisr_generations_waiting", f64::from(28 - round))
            .await;
    }
    for reader in readers {
        reader.abort();
    }
}

/// A route that may have more at once than before lets in those who wait for it already: readers of
/// its pages, and callers of an API route.
#[tokio::test]
async fn a_route_that_is_widened_lets_in_who_waits() {
    let rules = |places: usize| {
        format!(
            "[generations]\nconcurrency = 4\n[defaults]\nwall = \"60s\"\n\
             [routes.\"/slow/[id]\"]\nconcurrency = {places}\n\
             [routes.\"/api/slow\"]\nconcurrency = {places}"
        )
    };
    let site = Site::new()
        .pages(&["slow/[id]"])
        .module("api/slow", modules::hook())
        .config(&rules(1))
        .start()
        .await;
    let paths = ["/slow/1", "/slow/2", "/slow/3", "/slow/4"];
    for path in paths.into_iter().chain(["/"]) {
        site.origin.hold(path);
    }
    let api = format!("/api/slow?do=fetch&to=127.0.0.1:{}", site.origin.port());
    let asked: Vec<_> = paths
        .into_iter()
        .chain([&*api; 4])
        .map(|path| site.waiting(path))
        .collect();
    site.until_metric("wisr_generations_waiting", 3.0).await;
    site.until_calls("/", 1).await;
    site.configure(&rules(4));
    site.signal(Signal::HUP);
    for path in paths {
        site.until_calls(path, 1).await;
    }
    site.until_calls("/", 4).await;

    // Narrowed, it lets no more in than it may have, and who runs goes on.
    site.configure(&rules(1));
    site.signal(Signal::HUP);
    wait_for("the second reading", async || {
        let times = site
            .log()
            .matches("was read again, applied: routes")
            .count();
        (times == 2).then_some(()).ok_or(times.to_string())
    })
    .await;
    site.origin.hold("/slow/5");
    let fifth = site.waiting("/slow/5");
    site.until_metric("wisr_generations_waiting", 1.0).await;
    for path in &paths[..3] {
        site.origin.release(path);
    }
    site.until_metric("wisr_generations_running", 1.0).await;
    assert_eq!(site.metric("wisr_generations_waiting").await, 1.0);
    for path in ["/slow/4", "/slow/5", "/"] {
        site.origin.release(path);
    }
    for asked in asked.into_iter().chain([fifth]) {
        assert_eq!(asked.await.unwrap().status, 200);
    }
}

/// Slow API routes, however many and however often their rules or their modules change, leave
/// the next place to another one.
#[tokio::test]
async fn slow_api_routes_leave_the_next_place_to_another() {
    let site = Site::new()
        .module("api/slow", modules::hook())
        .module("api/slower", modules::hook())
        .module("api/hook", modules::hook())
        .config("[generations]\nconcurrency = 2\n[defaults]\nwall = \"60s\"")
        .start()
        .await;
    site.origin.hold("/");
    let to = format!("?do=fetch&to=127.0.0.1:{}", site.origin.port());
    let mut asked: Vec<_> = (0..20)
        .map(|_| site.waiting(&format!("/api/slow{to}")))
        .collect();
    site.until_calls("/", 1).await;
    // The old module's requests still hold what the route may have.
    site.swap("api/slow", &modules::hook_version(2));
    site.until_log("release=2").await;
    asked.extend((0..20).map(|_| site.waiting(&format!("/api/slow{to}"))));
    assert_eq!(site.get("/api/hook").await.status, 200);
    asked.extend((0..20).map(|_| site.waiting(&format!("/api/slower{to}"))));
    site.until_calls("/", 2).await;
    let newcomer = site.waiting("/api/hook");
    site.origin.release("/");
    assert_eq!(newcomer.await.unwrap().status, 200);
    for asked in asked {
        asked.abort();
    }
}
