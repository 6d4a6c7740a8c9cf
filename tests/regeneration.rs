//! Section 4: the life of a page, from the first request on.

use std::time::Duration;

use serde_json::json;

use crate::modules;
use crate::site::{Running, Site, all, wait_for};

async fn posts() -> Running {
    posts_with("").await
}

async fn posts_with(config: &str) -> Running {
    Site::new()
        .pages(&["posts/[id]"])
        .config(config)
        .start()
        .await
}

/// Fifty readers of a page that does not exist yet cost one generation.
#[tokio::test]
async fn fifty_cold_readers_cost_one_generation() {
    let site = posts().await;
    site.origin.hold("/posts/1");
    let mut paths = vec!["/posts/1"; 25];
    paths.extend(["/posts/1?id=other"; 25]);
    let readers = site.crowd(&paths).await;
    site.origin.release("/posts/1");
    for answer in all(readers).await {
        assert_eq!((answer.status, answer.n()), (200, 1));
        assert!(
            ["MISS", "HIT"].contains(&answer.verdict()),
            "{}",
            answer.verdict()
        );
    }
    assert_eq!(site.origin.count("/posts/1"), 1);
}

/// The page and its data are one entry, so both kinds of readers wait for one generation.
#[tokio::test]
async fn readers_of_a_page_and_of_its_data_share_a_generation() {
    let site = posts().await;
    site.origin.hold("/posts/1");
    let mut paths = vec!["/posts/1"; 10];
    paths.extend(["/_wisr/data/posts/1.json"; 10]);
    let readers = site.crowd(&paths).await;
    site.origin.release("/posts/1");
    assert!(all(readers).await.iter().all(|answer| answer.status == 200));
    assert_eq!(site.origin.count("/posts/1"), 1);
}

/// An expired page is served at once, again and again, while one generation replaces it.
#[tokio::test]
async fn a_stale_page_is_served_at_once_while_one_generation_renews_it() {
    let site = posts().await;
    site.origin.script("/posts/1", json!({ "revalidate": 1 }));
    site.get("/posts/1").await;
    site.origin.hold("/posts/1");
    site.until("/posts/1", |answer| answer.verdict() == "STALE")
        .await;
    site.until_calls("/posts/1", 2).await;
    for answer in all((0..20).map(|_| site.waiting("/posts/1")).collect()).await {
        assert_eq!(
            (answer.status, answer.verdict(), answer.n()),
            (200, "STALE", 1)
        );
    }
    assert_eq!(site.origin.count("/posts/1"), 2);
    site.origin.script("/posts/1", json!({}));
    site.origin.release("/posts/1");
    let renewed = site
        .until("/posts/1", |answer| answer.verdict() == "HIT")
        .await;
    assert_eq!(
        renewed.n(),
        2,
        "the reload finds the page made from the second answer"
    );
    assert_eq!(
        site.origin.causes("/posts/1")[..2],
        ["FirstRequest", "Stale"]
    );
}

/// Nobody reads, nothing is made.
#[tokio::test]
async fn without_readers_nothing_is_regenerated() {
    let site = Site::new()
        .pages(&["posts/[id]", "clock"])
        .script("/clock", json!({ "revalidate": 1 }))
        .script("/posts/1", json!({ "revalidate": 1 }))
        .start()
        .await;
    site.get("/posts/1").await;
    // The other page's regenerations are the clock: by the third, this one has long expired.
    wait_for("three generations of the clock", async || {
        site.get("/clock").await;
        let calls = site.origin.count("/clock");
        if calls >= 4 {
            Ok(())
        } else {
            Err(calls.to_string())
        }
    })
    .await;
    assert_eq!(site.origin.count("/posts/1"), 1);
}

/// A failing regeneration keeps the page, is an incident, and is retried with growing pauses.
#[tokio::test]
async fn a_failing_regeneration_keeps_the_last_good_page_and_backs_off() {
    let site = posts().await;
    site.origin.script("/posts/1", json!({ "revalidate": 1 }));
    site.get("/posts/1").await;
    site.origin.fail("/posts/1");
    wait_for("three attempts to renew", async || {
        let answer = site.get("/posts/1").await;
        assert_eq!(
            (answer.status, answer.n()),
            (200, 1),
            "the last good page stays"
        );
        let calls = site.origin.count("/posts/1");
        if calls >= 4 {
            Ok(())
        } else {
            Err(calls.to_string())
        }
    })
    .await;
    let calls = site.origin.calls("/posts/1");
    let pauses: Vec<Duration> = calls[1..]
        .windows(2)
        .map(|pair| pair[1].at - pair[0].at)
        .collect();
    assert!(
        pauses[0] >= Duration::from_millis(2_000),
        "at least about 3 s: {pauses:?}"
    );
    assert!(
        pauses[1] >= Duration::from_millis(4_000),
        "doubled to about 6 s: {pauses:?}"
    );
    let incident = site.until_incident("error", "/posts/1").await;
    assert_eq!(incident["route"], "/posts/[id]", "{incident}");
    assert_eq!(incident["cause"], "stale", "{incident}");
    assert_eq!(
        site.get("/posts/1").await.verdict(),
        "STALE",
        "an outage shows in the headers"
    );
}

/// After the origin has healed the page is renewed without anybody's help.
#[tokio::test]
async fn a_page_recovers_by_itself() {
    let site = posts().await;
    site.origin.script("/posts/1", json!({ "revalidate": 1 }));
    site.get("/posts/1").await;
    site.origin.fail("/posts/1");
    wait_for("a failed attempt", async || {
        site.get("/posts/1").await;
        let calls = site.origin.count("/posts/1");
        if calls >= 2 {
            Ok(())
        } else {
            Err(calls.to_string())
        }
    })
    .await;
    site.origin.heal("/posts/1");
    let page = site.until("/posts/1", |answer| answer.n() > 1).await;
    assert_eq!(page.status, 200);
}

/// Each way to fail is told apart in its incident, and none of them costs the page.
#[tokio::test]
async fn every_way_to_fail_keeps_the_page_and_says_what_happened() {
    let site = posts().await;
    let ways = [
        (
            "error",
            json!({ "outcome": "error" }),
            "the origin wants an error",
        ),
        (
            "trap",
            json!({ "outcome": "panic" }),
            "the origin wants a panic",
        ),
        (
            "error",
            json!({ "render": { "outcome": "error" } }),
            "the origin wants an error",
        ),
        (
            "trap",
            json!({ "render": { "outcome": "panic" } }),
            "the origin wants a panic",
        ),
        (
            "server-error",
            json!({ "render": { "status": 503 } }),
            "503",
        ),
    ];
    for (number, (kind, script, words)) in ways.into_iter().enumerate() {
        let path = format!("/posts/way{number}");
        site.get(&path).await;
        site.origin.script(&path, script);
        let answer = site.revalidate(json!({ "paths": [path] })).await;
        assert_eq!(answer.status, 500, "{path} {}", answer.text());
        let page = site.get(&path).await;
        assert_eq!((page.status, page.n()), (200, 1), "{path} keeps its page");
        let incident = site.until_incident(kind, &path).await;
        assert!(
            incident.to_string().contains(words),
            "{words:?} in {incident:#}"
        );
    }
}

/// What a cached page must not be is refused, and the rule is named.
#[tokio::test]
async fn a_document_that_breaks_a_rule_fails_and_names_the_rule() {
    let site = posts().await;
    let cases = [
        (
            json!({ "headers": [["set-cookie", "a=b"]] }),
            "invalid",
            "set-cookie",
        ),
        (
            json!({ "headers": [["Set-Cookie", "a=b"]] }),
            "invalid",
            "set-cookie",
        ),
        (
            json!({ "headers": [["cache-control", "private"]] }),
            "invalid",
            "private",
        ),
        (
            json!({ "headers": [["cache-control", "max-age=0, no-store"]] }),
            "invalid",
            "no-store",
        ),
        (
            json!({ "headers": [["x-a", "1\r\nset-cookie: a=b"]] }),
            "invalid",
            "x-a",
        ),
        (
            json!({ "headers": [["bad name", "1"]] }),
            "invalid",
            "bad name",
        ),
        (
            json!({ "headers": [["connection", "close"]] }),
            "invalid",
            "connection",
        ),
        (
            json!({ "headers": [["transfer-encoding", "chunked"]] }),
            "invalid",
            "transfer-encoding",
        ),
        (
            json!({ "headers": [["content-length", "1"]] }),
            "invalid",
            "content-length",
        ),
        (json!({ "status": 99 }), "invalid", "99"),
        (json!({ "status": 304 }), "invalid", "304"),
        (json!({ "status": 1000 }), "invalid", "1000"),
        (json!({ "status": 500 }), "server-error", "500"),
    ];
    for (number, (render, kind, words)) in cases.into_iter().enumerate() {
        let path = format!("/posts/rule-{number}-");
        site.origin.script(&path, json!({ "render": render }));
        let answer = site.get(&path).await;
        assert_eq!(answer.status, 500, "{render}");
        assert_eq!(
            answer.header("cache-control"),
            "private, no-store",
            "{render}"
        );
        assert!(answer.header("set-cookie").is_empty());
        let incident = site.until_incident(kind, &path).await;
        let message = incident["message"].as_str().unwrap();
        assert!(message.contains(words), "{words:?} in {message:?}");
    }
}

/// A redirect is checked as a document is.
#[tokio::test]
async fn a_redirect_that_cannot_be_sent_fails() {
    let site = posts().await;
    for (number, script) in [
        json!({ "outcome": "redirect", "location": "/a\r\nset-cookie: a=b" }),
        json!({ "outcome": "redirect", "location": "" }),
        json!({ "outcome": "redirect", "location": "/a", "redirect_status": 200 }),
    ]
    .into_iter()
    .enumerate()
    {
        let path = format!("/posts/redirect-{number}");
        site.origin.script(&path, script);
        let answer = site.get(&path).await;
        assert_eq!(
            (answer.status, answer.header("location")),
            (500, ""),
            "{path}"
        );
        assert_eq!(answer.header("cache-control"), "private, no-store");
        site.until_incident("invalid", &path).await;
    }
}

/// What the page says wins over its route's configuration, and that over the default.
#[tokio::test]
async fn the_page_decides_how_long_it_lives_then_its_route_then_the_default() {
    let site = Site::new()
        .pages(&["posts/[id]", "docs/[id]"])
        .config("[defaults]\nrevalidate = 33\n[routes.\"/docs/[id]\"]\nrevalidate = 77")
        .start()
        .await;
    site.origin.script("/docs/own", json!({ "revalidate": 5 }));
    site.origin
        .script("/docs/never", json!({ "revalidate": "never" }));
    for (path, seconds) in [
        ("/posts/1", "33"),
        ("/docs/1", "77"),
        ("/docs/own", "5"),
        ("/docs/never", "31536000"),
    ] {
        assert_eq!(
            site.get(path).await.directive("s-maxage"),
            Some(seconds),
            "{path}"
        );
    }
}

/// A lifetime may change with every generation.
#[tokio::test]
async fn every_generation_may_live_for_another_time() {
    let site = posts().await;
    site.origin.script("/posts/1", json!({ "revalidate": 1 }));
    assert_eq!(site.get("/posts/1").await.directive("s-maxage"), Some("1"));
    site.origin.script("/posts/1", json!({ "revalidate": 90 }));
    let renewed = site.until("/posts/1", |answer| answer.n() == 2).await;
    assert_eq!(renewed.directive("s-maxage"), Some("90"));
    site.origin
        .script("/posts/1", json!({ "revalidate": "never" }));
    site.renew("/posts/1").await;
    assert_eq!(
        site.get("/posts/1").await.directive("s-maxage"),
        Some("31536000")
    );
}

/// A 404 is an entry: made once, kept for a minute unless it says otherwise.
#[tokio::test]
async fn a_missing_page_is_cached_and_does_not_stick() {
    let site = posts_with("[defaults]\nrevalidate = 999").await;
    for (path, script, seconds) in [
        ("/posts/a", json!({ "outcome": "not-found" }), "60"),
        (
            "/posts/b",
            json!({ "outcome": "not-found", "revalidate": 300 }),
            "300",
        ),
        (
            "/posts/c",
            json!({ "outcome": "not-found", "revalidate": "never" }),
            "31536000",
        ),
    ] {
        site.origin.script(path, script);
        for verdict in ["MISS", "HIT"] {
            let answer = site.get(path).await;
            assert_eq!((answer.status, answer.verdict()), (404, verdict), "{path}");
            assert_eq!(answer.directive("s-maxage"), Some(seconds), "{path}");
        }
        assert_eq!(site.origin.count(path), 1, "{path}");
    }
}

/// A page that appears replaces its 404, and one that disappears is replaced by it.
#[tokio::test]
async fn a_page_may_appear_and_disappear() {
    let site = posts().await;
    site.origin.script(
        "/posts/1",
        json!({ "outcome": "not-found", "revalidate": 1 }),
    );
    assert_eq!(site.get("/posts/1").await.status, 404);
    site.origin.script("/posts/1", json!({ "revalidate": 1 }));
    site.until("/posts/1", |answer| answer.status == 200).await;
    site.origin
        .script("/posts/1", json!({ "outcome": "not-found" }));
    site.until("/posts/1", |answer| {
        answer.status == 404 && answer.verdict() == "HIT"
    })
    .await;
}

/// A deleted page stays deleted after a crash: its old document never comes back.
#[tokio::test]
async fn a_deleted_page_stays_deleted_after_a_restart() {
    let mut site = posts().await;
    for path in ["/posts/deleted", "/posts/moved"] {
        assert_eq!(site.get(path).await.status, 200);
    }
    site.origin.script(
        "/posts/deleted",
        json!({ "outcome": "not-found", "revalidate": "never" }),
    );
    let moved = json!({ "outcome": "redirect", "location": "/posts/new", "redirect_status": 308 });
    site.origin.script("/posts/moved", moved);
    site.renew("/posts/deleted").await;
    site.renew("/posts/moved").await;
    site.restart().await;
    let calls = site.origin.all_calls().len();
    let deleted = site.get("/posts/deleted").await;
    assert_eq!((deleted.status, deleted.verdict()), (404, "HIT"));
    let moved = site.get("/posts/moved").await;
    assert_eq!((moved.status, moved.verdict()), (308, "HIT"));
    assert_eq!(moved.header("location"), "/posts/new");
    assert_eq!(
        site.origin.all_calls().len(),
        calls,
        "nothing had to be made again"
    );
}

/// A redirect is an entry with its own status, lifetime and successor.
#[tokio::test]
async fn a_redirect_is_cached_and_renewed() {
    let site = posts().await;
    let script = |to: &str| json!({ "outcome": "redirect", "location": to, "revalidate": 1 });
    site.origin.script("/posts/1", script("/posts/2"));
    let first = site.get("/posts/1?utm=x").await;
    assert_eq!(
        (first.status, first.header("location"), first.verdict()),
        (307, "/posts/2", "MISS")
    );
    assert_eq!(first.directive("s-maxage"), Some("1"));
    site.origin
        .script("/posts/1", script("https://example.com/é"));
    let moved = site
        .until("/posts/1", |answer| answer.header("location") != "/posts/2")
        .await;
    assert_eq!(moved.header("location"), "https://example.com/%C3%A9");
    site.origin.heal("/posts/1");
    site.until("/posts/1", |answer| answer.status == 200).await;
}

/// Past `max-stale` a reader waits for the new page instead of getting the old one.
#[tokio::test]
async fn a_page_older_than_max_stale_is_waited_for() {
    let site = posts_with("[defaults]\nmax-stale = \"2s\"").await;
    site.origin.script("/posts/1", json!({ "revalidate": 1 }));
    let first = site.get("/posts/1").await;
    assert!(
        first
            .header("cache-control")
            .ends_with("stale-while-revalidate=1"),
        "{:?}",
        first.headers
    );
    site.origin.hold("/posts/1");
    let reader = wait_for("a reader who has to wait", async || {
        let mut reader = site.waiting("/posts/1");
        match tokio::time::timeout(Duration::from_secs(1), &mut reader).await {
            Ok(answer) => Err(answer.unwrap().header("age").to_owned()),
            Err(_) => Ok(reader),
        }
    })
    .await;
    site.origin.release("/posts/1");
    assert_eq!(reader.await.unwrap().n(), 2);
}

/// Past `max-stale`, when the generation fails too, the last good page is still better than none.
#[tokio::test]
async fn a_page_older_than_max_stale_is_shown_when_it_cannot_be_renewed() {
    let site = posts_with("[defaults]\nmax-stale = \"2s\"").await;
    site.origin.script("/posts/1", json!({ "revalidate": 1 }));
    site.get("/posts/1").await;
    site.origin.fail("/posts/1");
    let old = site.until("/posts/1", |answer| {
        assert_eq!((answer.status, answer.n()), (200, 1));
        answer.header("age").parse::<u64>().unwrap() >= 4
    });
    old.await;
}

/// The first failure is a 500 that nobody keeps, and the next reader tries again.
#[tokio::test]
async fn a_first_failure_is_shown_once_and_tried_again() {
    let site = posts().await;
    site.origin.fail("/posts/1");
    for attempt in 1..=2 {
        let answer = site.get("/posts/1").await;
        assert_eq!((answer.status, answer.verdict()), (500, ""));
        assert_eq!(answer.header("cache-control"), "private, no-store");
        assert_eq!(site.origin.count("/posts/1"), attempt);
    }
    site.origin.heal("/posts/1");
    assert_eq!(site.get("/posts/1").await.verdict(), "MISS");
}

/// Readers who waited for a generation that failed share its failure.
#[tokio::test]
async fn waiting_readers_share_a_failure() {
    let site = posts().await;
    site.origin.fail("/posts/1");
    site.origin.hold("/posts/1");
    let readers = site.crowd(&["/posts/1"; 10]).await;
    site.until_calls("/posts/1", 1).await;
    site.origin.release("/posts/1");
    assert!(all(readers).await.iter().all(|answer| answer.status == 500));
    assert_eq!(site.origin.count("/posts/1"), 1);
}

/// A reader who hangs up neither kills the generation nor makes it run twice.
#[tokio::test]
async fn a_reader_who_hangs_up_changes_nothing() {
    let site = posts().await;
    site.origin.hold("/posts/1");
    let reader = site.waiting("/posts/1");
    site.until_calls("/posts/1", 1).await;
    reader.abort();
    let _ = reader.await;
    site.origin.release("/posts/1");
    // Who has left and who only says no more look alike until there is an answer.
    wait_for("the connection to be gone", async || {
        match site.metric("wisr_connections").await {
            0.0 => Ok(()),
            open => Err(open.to_string()),
        }
    })
    .await;
    let page = site.get("/posts/1").await;
    assert_eq!((page.status, page.n()), (200, 1));
    assert_eq!(site.origin.count("/posts/1"), 1);
}

/// With the queue full a reader without a page is told to come back; pages that exist are served.
#[tokio::test]
async fn a_full_queue_turns_readers_away_but_never_a_page() {
    let site = posts_with("[generations]\nconcurrency = 1\nqueue = 1\nwait = \"60s\"").await;
    site.origin.script("/posts/old", json!({ "revalidate": 1 }));
    site.get("/posts/old").await;
    site.origin.hold("/posts/a");
    let first = site.waiting("/posts/a");
    site.until_calls("/posts/a", 1).await;
    let second = site.waiting("/posts/b");
    site.until_metric("wisr_generations_waiting", 1.0).await;
    let refused = site.get("/posts/c").await;
    assert_eq!(refused.status, 503, "{}", refused.text());
    assert!(refused.header("retry-after").parse::<u64>().unwrap() >= 1);
    assert_eq!(refused.header("cache-control"), "private, no-store");
    let old = site.until("/posts/old", |answer| {
        assert_eq!((answer.status, answer.n()), (200, 1));
        answer.verdict() == "STALE"
    });
    old.await;
    site.origin.release("/posts/a");
    assert_eq!(
        (first.await.unwrap().status, second.await.unwrap().status),
        (200, 200)
    );
    assert_eq!(
        site.until("/posts/c", |answer| answer.status == 200)
            .await
            .n(),
        1
    );
}

/// Nobody waits for a place for longer than `wait`.
#[tokio::test]
async fn a_reader_waits_for_a_place_no_longer_than_configured() {
    let site = posts_with("[generations]\nconcurrency = 1\nwait = \"1s\"").await;
    site.origin.hold("/posts/a");
    let first = site.waiting("/posts/a");
    site.until_calls("/posts/a", 1).await;
    let refused = site.get("/posts/b").await;
    assert_eq!(refused.status, 503);
    assert!(refused.header("retry-after").parse::<u64>().unwrap() >= 1);
    site.origin.release("/posts/a");
    assert_eq!(first.await.unwrap().status, 200);
}

/// A route's own limit holds back its generations and not those of other routes.
#[tokio::test]
async fn a_route_has_its_own_limit_on_generations() {
    let site = Site::new()
        .pages(&["posts/[id]", "docs/[id]"])
        .config("[routes.\"/posts/[id]\"]\nconcurrency = 2")
        .start()
        .await;
    let paths = ["/posts/1", "/posts/2", "/posts/3", "/posts/4"];
    paths.iter().for_each(|path| site.origin.hold(path));
    let readers = site.crowd(&paths).await;
    site.until_metric("wisr_generations_waiting", 2.0).await;
    assert_eq!(
        site.get("/docs/1").await.status,
        200,
        "another route is not held back"
    );
    wait_for("two generations of the route", async || {
        let calls = site.origin.all_calls();
        let of_route = calls.iter().filter(|call| call.path.starts_with("/posts"));
        match of_route.count() {
            2 => Ok(()),
            begun => Err(format!("{begun} begun")),
        }
    })
    .await;
    paths.iter().for_each(|path| site.origin.release(path));
    assert!(all(readers).await.iter().all(|answer| answer.status == 200));
    assert!(site.origin.most_in_flight() <= 3);
}

/// A route may opt in to skip rendering when its props did not change.
#[tokio::test]
async fn render_is_skipped_when_props_did_not_change_if_the_route_wants_that() {
    let site = posts_with("[routes.\"/posts/[id]\"]\nrender = \"when-props-change\"").await;
    site.origin.script(
        "/posts/1",
        json!({ "revalidate": 1, "props": { "same": true } }),
    );
    let first = site.get("/posts/1").await;
    let again = site
        .until("/posts/1", |answer| {
            answer.verdict() == "HIT" && site.origin.count("/posts/1") >= 2
        })
        .await;
    assert_eq!(
        (&again.body, again.header("etag")),
        (&first.body, first.header("etag"))
    );
    site.origin
        .script("/posts/1", json!({ "props": { "same": false } }));
    let changed = site
        .until("/posts/1", |answer| answer.body != first.body)
        .await;
    assert_eq!(changed.puppet()["props"]["same"], false);
}

/// Without that, a page is rendered every time, since it may look at the clock.
#[tokio::test]
async fn render_runs_every_time_by_default() {
    let site = posts().await;
    site.origin.script(
        "/posts/1",
        json!({ "revalidate": 1, "props": { "same": true } }),
    );
    let first = site.get("/posts/1").await;
    let second = site
        .until("/posts/1", |answer| answer.body != first.body)
        .await;
    assert_eq!(first.puppet()["props"], second.puppet()["props"]);
    assert_ne!(first.header("etag"), second.header("etag"));
}

/// A static route and every listed path are made before anybody asks.
#[tokio::test]
async fn listed_paths_are_made_ahead_of_time() {
    let paths = json!({ "fallback": "blocking", "paths": [{ "id": "1" }, { "id": "2" }] });
    let site = Site::new()
        .pages(&["index", "posts/[id]"])
        .listed("/posts/[id]", "posts", paths)
        .start()
        .await;
    for path in ["/", "/posts/1", "/posts/2"] {
        assert_eq!(site.origin.causes(path), ["Build"], "{path}");
        assert_eq!(site.get(path).await.verdict(), "HIT", "{path}");
    }
    assert_eq!(site.get("/posts/3").await.verdict(), "MISS");
    assert_eq!(site.origin.causes("/posts/3"), ["FirstRequest"]);
}

/// Under `not-found` what is not listed is 404, and no generation is spent on it.
#[tokio::test]
async fn an_unlisted_path_is_404_under_not_found() {
    let paths = json!({ "fallback": "not-found", "paths": [{ "id": "1" }] });
    let site = Site::new()
        .pages(&["posts/[id]"])
        .listed("/posts/[id]", "posts", paths)
        .start()
        .await;
    assert_eq!(site.get("/posts/1").await.status, 200);
    for path in ["/posts/2", "/_wisr/data/posts/2.json"] {
        let answer = site.get(path).await;
        assert_eq!((answer.status, answer.verdict()), (404, ""), "{path}");
        assert_eq!(answer.header("cache-control"), "private, no-store");
    }
    assert_eq!(site.origin.count("/posts/2"), 0);
}

/// Before that 404, the next matching route has its chance.
#[tokio::test]
async fn an_unlisted_path_goes_to_the_next_matching_route() {
    let paths = json!({ "fallback": "not-found", "paths": [{ "id": "1" }] });
    let site = Site::new()
        .pages(&["posts/[id]", "[...slug]"])
        .listed("/posts/[id]", "posts", paths)
        .start()
        .await;
    assert_eq!(site.get("/posts/1").await.puppet()["route"], "/posts/[id]");
    assert_eq!(site.get("/posts/2").await.puppet()["route"], "/[...slug]");
}

/// A path that a new release no longer lists is 404 from then on, though its page is still stored.
#[tokio::test]
async fn a_path_that_is_no_longer_listed_is_404() {
    let list = |ids: &[&str]| {
        let paths: Vec<_> = ids.iter().map(|id| json!({ "id": id })).collect();
        json!({ "fallback": "not-found", "paths": paths })
    };
    let site = Site::new()
        .pages(&["posts/[id]"])
        .listed("/posts/[id]", "posts", list(&["1", "2"]))
        .start()
        .await;
    assert_eq!(site.get("/posts/2").await.status, 200);
    site.origin.script("/@paths/posts", list(&["1"]));
    site.swap("posts/[id]", &modules::puppet_version(1));
    site.until("/posts/2", |answer| answer.status == 404).await;
    assert_eq!(site.get("/posts/1").await.status, 200);
}

/// Under `shell` an ordinary reader gets the shell at once, and a reload finds the page.
#[tokio::test]
async fn a_shell_is_shown_at_once_while_the_page_is_made() {
    let site = Site::new()
        .pages(&["posts/[id]"])
        .listed("/posts/[id]", "posts", json!({ "fallback": "shell" }))
        .start()
        .await;
    site.origin.hold("/posts/1");
    let shell = site.get("/posts/1").await;
    assert_eq!((shell.status, shell.verdict()), (200, "SHELL"));
    assert!(
        shell.text().contains("shell of /posts/1"),
        "{}",
        shell.text()
    );
    assert_eq!(shell.header("cache-control"), "private, no-store");
    site.until_calls("/posts/1", 1).await;
    assert_eq!(site.get("/posts/1").await.verdict(), "SHELL");
    site.origin.release("/posts/1");
    let page = site
        .until("/posts/1", |answer| answer.verdict() == "HIT")
        .await;
    assert_eq!(page.n(), 1, "one generation, started by the shell");
    assert_eq!(site.origin.count("/posts/1"), 1);
}

/// A crawler would index the shell, so it waits for the page; so does who reads the data.
#[tokio::test]
async fn a_crawler_waits_for_the_page() {
    let site = Site::new()
        .pages(&["posts/[id]"])
        .listed("/posts/[id]", "posts", json!({ "fallback": "shell" }))
        .start()
        .await;
    for (number, agent) in [
        "Mozilla/5.0 (compatible; Googlebot/2.1)",
        "Slackbot 1.0",
        "bingbot/2.0",
    ]
    .iter()
    .enumerate()
    {
        let answer = site
            .get_with(&format!("/posts/{number}"), &[("user-agent", agent)])
            .await;
        assert_eq!((answer.verdict(), answer.n()), ("MISS", 1), "{agent}");
    }
    let data = site.get("/_wisr/data/posts/data.json").await;
    assert_eq!((data.status, &data.json()["n"]), (200, &json!(1)));
}

/// A shell that cannot be made costs the reader nothing but the wait.
#[tokio::test]
async fn a_failing_shell_makes_the_reader_wait() {
    let site = Site::new()
        .pages(&["posts/[id]"])
        .listed("/posts/[id]", "posts", json!({ "fallback": "shell" }))
        .script("/@shell/posts/1", json!({ "outcome": "panic" }))
        .start()
        .await;
    let answer = site.get("/posts/1").await;
    assert_eq!((answer.status, answer.n()), (200, 1));
}

/// A listing that fails is an incident, is asked for again, and harms no other route.
#[tokio::test]
async fn a_failing_listing_is_an_incident_and_harms_no_other_route() {
    let site = Site::new()
        .pages(&["posts/[id]", "about"])
        .listed("/posts/[id]", "posts", json!({ "outcome": "error" }))
        .start()
        .await;
    assert_eq!(site.get("/about").await.status, 200);
    site.until_incident("listing", "/posts/[id]").await;
    site.origin
        .script("/@paths/posts", json!({ "paths": [{ "id": "1" }] }));
    site.until_calls("/posts/1", 1).await;
    assert_eq!(
        site.origin.causes("/posts/1"),
        ["Build"],
        "made once it is listed"
    );
}

/// Pages survive a crash, and their age goes on counting from when they were made.
#[tokio::test]
async fn pages_survive_a_crash_and_keep_their_age() {
    let mut site = posts().await;
    site.get("/posts/1").await;
    let old = site
        .until("/posts/1", |answer| {
            answer.header("age").parse::<u64>().unwrap() >= 2
        })
        .await;
    // The store writes behind the response: a second generation that was acknowledged is behind it.
    site.renew("/posts/2").await;
    site.restart().await;
    let page = site.get("/posts/1").await;
    assert_eq!((page.status, page.verdict(), page.n()), (200, "HIT", 1));
    assert!(
        page.header("age").parse::<u64>().unwrap() >= 2,
        "{:?}",
        page.headers
    );
    for name in ["etag", "last-modified", "content-type", "x-puppet-version"] {
        assert_eq!(page.header(name), old.header(name), "{name}");
    }
    assert_eq!(site.origin.count("/posts/1"), 1);
}

/// The folder of state may be deleted: that costs a cold start and nothing else.
#[tokio::test]
async fn the_state_may_be_deleted() {
    let mut site = posts().await;
    site.get("/posts/1").await;
    site.kill();
    let _ = std::fs::remove_dir_all(site.folder().join(".wisr"));
    site.restart().await;
    assert_eq!(site.get("/posts/1").await.verdict(), "MISS");
}

/// State that was damaged costs pages their entries at worst, never the server its start.
#[tokio::test]
async fn damaged_state_is_survived() {
    let mut site = posts().await;
    site.renew("/posts/1").await;
    site.kill();
    let state = site.folder().join(".wisr");
    let mut damaged = 0;
    for file in crate::swap::walk(&state) {
        let mut bytes = std::fs::read(&file).unwrap();
        let middle = bytes.len() / 2;
        bytes.iter_mut().skip(middle).for_each(|byte| *byte ^= 0x55);
        std::fs::write(&file, bytes).unwrap();
        damaged += 1;
    }
    assert!(damaged > 0, "there is state");
    site.restart().await;
    let page = site.get("/posts/1").await;
    assert_eq!(page.status, 200, "{}", page.text());
}

/// When places are scarce, readers come before on-demand calls and those before the background.
#[tokio::test]
async fn readers_come_before_calls_and_calls_before_the_background() {
    let site = posts_with("[generations]\nconcurrency = 1\nwait = \"60s\"").await;
    site.origin
        .script("/posts/background", json!({ "revalidate": 1 }));
    site.get("/posts/background").await;
    site.origin.hold("/posts/first");
    let first = site.waiting("/posts/first");
    site.until_calls("/posts/first", 1).await;
    site.until("/posts/background", |answer| answer.verdict() == "STALE")
        .await;
    site.until_metric("wisr_generations_waiting", 1.0).await;
    let call = site.renew("/posts/call");
    let rest = async {
        site.until_metric("wisr_generations_waiting", 2.0).await;
        let reader = site.waiting("/posts/reader");
        site.until_metric("wisr_generations_waiting", 3.0).await;
        site.origin.release("/posts/first");
        assert_eq!(reader.await.unwrap().status, 200);
    };
    tokio::join!(call, rest);
    assert_eq!(first.await.unwrap().status, 200);
    site.until_calls("/posts/background", 2).await;
    let order: Vec<_> = site
        .origin
        .all_calls()
        .into_iter()
        .skip(1)
        .map(|call| call.path)
        .collect();
    assert_eq!(
        order,
        [
            "/posts/first",
            "/posts/reader",
            "/posts/call",
            "/posts/background"
        ]
    );
}

/// Who counts as a crawler can be configured.
#[tokio::test]
async fn the_list_of_crawlers_can_be_configured() {
    let site = Site::new()
        .pages(&["posts/[id]"])
        .listed("/posts/[id]", "posts", json!({ "fallback": "shell" }))
        .config("[shell]\ncrawlers = [\"housebot\"]")
        .start()
        .await;
    let ours = site
        .get_with("/posts/1", &[("user-agent", "HouseBot/1.0")])
        .await;
    assert_eq!(ours.verdict(), "MISS");
    let other = site
        .get_with("/posts/2", &[("user-agent", "Googlebot/2.1")])
        .await;
    assert_eq!(other.verdict(), "SHELL");
}
