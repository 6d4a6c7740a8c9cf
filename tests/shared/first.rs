//! The first answer of every host after a call was acknowledged: what was acknowledged, and nothing
//! that was before it.

use rustix::process::Signal;
use serde_json::{Value, json};

use super::hosts::{host, site, until_breaker};
use super::proxy::{Proxy, Weather};
use super::redis::Redis;
use crate::client::Response;
use crate::origin::Origin;
use crate::site::Running;

/// Pages, each asked for once after its call.
const PAGES: usize = 24;

/// Calls, and expects all hosts to know of it.
async fn call(host: &Running, body: Value) -> Value {
    let told = host.revalidate(body).await;
    let json = told.json();
    assert_eq!(
        (told.status, &json["propagated"]),
        (200, &json!(true)),
        "{json}"
    );
    json
}

/// Three hosts of one origin that share a server.
async fn three(redis: &Redis, origin: &Origin) -> Vec<Running> {
    let mut hosts = Vec::new();
    for _ in 0..3 {
        hosts.push(host(&redis.url(), origin).await);
    }
    hosts
}

#[tokio::test]
async fn what_was_made_anew_is_the_first_answer_of_every_host() {
    let Some(redis) = Redis::start().await else {
        return;
    };
    let origin = Origin::start().await;
    let hosts = three(&redis, &origin).await;
    let gone = json!({"outcome": "not-found", "revalidate": "never"});
    let moved = json!({"outcome": "redirect", "location": "/new", "revalidate": "never"});
    let is_new = |n: u64| move |shown: &Response| shown.status == 200 && shown.n() == n;
    for number in 0..PAGES {
        let path = format!("/posts/{number}");
        for host in &hosts {
            host.get(&path).await;
            assert_eq!(host.get(&path).await.verdict(), "HIT");
        }
        let caller = &hosts[number % 3];
        let mode = ["regenerate", "purge"][number / 3 % 2];
        let body = json!({"paths": [path], "mode": mode});
        let (said, expected): (_, &dyn Fn(&Response) -> bool) = match number % 4 {
            0 => (Some(gone.clone()), &|shown| shown.status == 404),
            1 => (Some(moved.clone()), &|shown| shown.status == 307),
            _ => (None, &is_new(2)),
        };
        if let Some(said) = said {
            origin.script(&path, said);
        }
        call(caller, body).await;
        for host in &hosts {
            let data = format!("/_wisr/data{path}.json");
            let shown = match number % 4 {
                // The same entry by another door.
                3 => host.get(&data).await,
                _ => host.get(&path).await,
            };
            match number % 4 {
                3 => assert_eq!(shown.json()["n"], 2, "{path}: {}", shown.text()),
                _ => assert!(
                    expected(&shown),
                    "{path}: {} {}",
                    shown.verdict(),
                    shown.text()
                ),
            }
        }
        assert_eq!(origin.count(&path), 2, "{path}");
        origin.heal(&path);
    }
}

/// Pages that are stale by a tag or by their age are shown once more, but by no host that can have
/// what another has made of them.
#[tokio::test]
async fn no_host_shows_what_is_older_than_what_another_has_shown() {
    let Some(redis) = Redis::start().await else {
        return;
    };
    let origin = Origin::start().await;
    let hosts = three(&redis, &origin).await;
    for number in 0..PAGES {
        let path = format!("/posts/{number}");
        origin.script(&path, json!({"tags": [path]}));
        for host in &hosts {
            host.get(&path).await;
        }
        call(&hosts[number % 3], json!({"tags": [path]})).await;
        hosts[0].until(&path, |shown| shown.n() == 2).await;
        for host in &hosts {
            assert_eq!(host.get(&path).await.n(), 2, "{path}");
        }
    }
    let many: Vec<String> = (0..PAGES)
        .map(|number| format!("/posts/{number}"))
        .collect();
    let regenerated = call(&hosts[0], json!({"tags": many, "mode": "regenerate"})).await;
    assert_eq!(regenerated["results"][0]["pages"], 1, "{regenerated}");
    for host in &hosts {
        for path in &many {
            assert_eq!(host.get(path).await.n(), 3, "{path}");
        }
    }
}

/// With Redis away, or too slow, what was replaced is not shown either: a host makes it itself; and it
/// is shown only if that fails.
#[tokio::test]
async fn what_was_replaced_is_not_shown_without_redis_either() {
    let Some(redis) = Redis::start().await else {
        return;
    };
    let origin = Origin::start().await;
    let proxy = Proxy::to(redis.address).await;
    let a = host(&redis.url(), &origin).await;
    let b = host(&proxy.url(), &origin).await;
    let paths: Vec<String> = (0..6).map(|number| format!("/posts/{number}")).collect();
    for path in &paths {
        a.get(path).await;
        assert_eq!(b.get(path).await.verdict(), "HIT", "{path}");
    }
    call(&a, json!({"paths": paths})).await;
    // One of them is stale once more.
    call(&a, json!({"paths": [paths[5]], "mode": "stale"})).await;
    proxy.turn(Weather::Black);
    // The first of them while it is not known yet that nobody answers.
    for path in &paths[..3] {
        let shown = b.get(path).await;
        assert_eq!((shown.status, shown.n()), (200, 3), "{path}");
        until_breaker(&b, "open").await;
    }
    origin.fail(&paths[3]);
    let shown = b.get(&paths[3]).await;
    assert_eq!(
        (shown.status, shown.verdict(), shown.n()),
        (200, "STALE", 1)
    );
    assert_eq!(b.get(&paths[4]).await.n(), 3);
    // Once it can be had it is, however short a time ago making it has failed.
    proxy.turn(Weather::Fair);
    until_breaker(&b, "closed").await;
    assert_eq!(b.get(&paths[3]).await.n(), 2);
    origin.fail(&paths[5]);
    let shown = b.get(&paths[5]).await;
    assert_eq!((shown.verdict(), shown.n()), ("STALE", 2));
}

/// A host that was away, stopped or killed, begins with what the others were told meanwhile.
#[tokio::test]
async fn a_host_that_begins_shows_nothing_older_than_what_others_have_acknowledged() {
    let Some(redis) = Redis::start().await else {
        return;
    };
    let origin = Origin::start().await;
    let a = host(&redis.url(), &origin).await;
    let mut b = host(&redis.url(), &origin).await;
    for round in 1..=4 {
        let path = "/posts/1";
        for host in [&a, &b] {
            host.until(path, |shown| shown.verdict() == "HIT").await;
        }
        let body =
            json!({"paths": [path], "mode": if round % 2 == 0 { "regenerate" } else { "stale" }});
        if round < 3 {
            b.terminate();
            b.ended().await;
        } else {
            b.kill();
        }
        call(&a, body).await;
        a.until(path, |shown| shown.n() == round + 1).await;
        b.restart_unready().await;
        assert_eq!(b.get(path).await.n(), round + 1, "round {round}");
    }
}

/// A host that is in touch and slow to follow holds the answer up; one that is gone does not for long.
#[tokio::test]
async fn a_call_waits_for_the_hosts_that_are_in_touch() {
    let Some(redis) = Redis::start().await else {
        return;
    };
    let origin = Origin::start().await;
    let hosts = three(&redis, &origin).await;
    for host in &hosts {
        host.get("/posts/1").await;
    }
    // Shorter than after what it counts as gone.
    hosts[1].signal(Signal::STOP);
    let calling = {
        let body = json!({"paths": ["/posts/1"]}).to_string();
        let mut client = hosts[0].reader();
        let headers = [("authorization", "Bearer a-secret-of-the-tests")];
        tokio::spawn(async move {
            client
                .send("POST", "/api/revalidate", &headers, &body)
                .await
        })
    };
    hosts[0].until("/posts/1", |shown| shown.n() == 2).await;
    assert!(!calling.is_finished(), "it has not waited");
    hosts[1].signal(Signal::CONT);
    let told = calling.await.unwrap().unwrap();
    assert_eq!(told.json()["propagated"], true, "{}", told.text());
    assert_eq!(hosts[1].get("/posts/1").await.n(), 2);
}

/// A call for a path is one for its variants, on every host, over a restart.
#[tokio::test]
async fn the_variants_of_a_path_are_stale_on_every_host() {
    let Some(redis) = Redis::start().await else {
        return;
    };
    let origin = Origin::start().await;
    let settings = "query = [\"q\"]\nsettings = { variants = \"1\" }";
    let start = async || {
        let site = site(&redis.url()).config(&format!("[routes.\"/posts/[id]\"]\n{settings}"));
        let host = site.start_on(origin.clone()).await;
        until_breaker(&host, "closed").await;
        host
    };
    let (a, mut b) = (start().await, start().await);
    let variants = ["/posts/1?q=1", "/posts/1?q=2", "/posts/1?q=%C3%A4+b"];
    for host in [&a, &b] {
        for path in variants.iter().chain(&["/posts/1", "/posts/2?q=1"]) {
            host.get(path).await;
        }
    }
    let told = call(&a, json!({"paths": ["/posts/1"]})).await;
    assert_eq!(told["results"][0]["variants"], 3, "{told}");
    b.kill();
    b.restart_unready().await;
    assert_eq!(b.get("/posts/1").await.n(), 2);
    for path in variants {
        assert_eq!(a.get(path).await.verdict(), "STALE", "{path}");
        a.until(path, |shown| shown.n() == 2).await;
        assert_eq!(b.get(path).await.n(), 2, "{path}");
    }
    let told = call(&b, json!({"paths": ["/posts/1"], "mode": "purge"})).await;
    assert_eq!(told["results"][0]["variants"], 3, "{told}");
    for source in ["/posts/1~1", "/posts/1~2"] {
        origin.fail(source);
    }
    for host in [&a, &b] {
        for path in &variants[..2] {
            assert_eq!(host.get(path).await.status, 500, "{path}");
        }
        assert_eq!(host.get("/posts/2?q=1").await.verdict(), "HIT");
    }
}
