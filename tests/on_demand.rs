//! Section 5: pages made anew because somebody asked for it.

use serde_json::{Value, json};

use crate::client::Response;
use crate::modules;
use crate::site::{Running, Site, wait_for};

async fn posts() -> Running {
    Site::new().pages(&["posts/[id]"]).start().await
}

/// The hook as people wrote it for Next.js.
async fn hook(site: &Running, query: &str) -> Response {
    site.get(&format!("/api/revalidate?{query}")).await
}

/// The call returns when the new page is stored: the very next reader sees it.
#[tokio::test]
async fn the_next_reader_sees_the_new_page() {
    let site = posts().await;
    assert_eq!(site.get("/posts/1").await.n(), 1);
    for (n, method) in [(2, "GET"), (3, "POST")] {
        let answer = site
            .send(
                method,
                "/api/revalidate?secret=a-secret-of-the-tests&path=/posts/1",
                &[],
                "",
            )
            .await;
        assert_eq!(answer.status, 200, "{method} {}", answer.text());
        assert_eq!(answer.json()["revalidated"], true);
        let page = site.get("/posts/1").await;
        assert_eq!((page.verdict(), page.n()), ("HIT", n), "{method}");
    }
    assert_eq!(
        site.origin.causes("/posts/1"),
        ["FirstRequest", "OnDemand", "OnDemand"]
    );
}

/// A bearer token and a JSON body do the same for many paths, each with its result.
#[tokio::test]
async fn many_paths_are_renewed_in_one_call() {
    let site = posts().await;
    let paths = ["/posts/1", "/posts/2", "/posts/3"];
    for path in paths {
        site.get(path).await;
    }
    let answer = site.revalidate(json!({ "paths": paths })).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let said = answer.json();
    assert_eq!(said["revalidated"], true);
    for path in paths {
        assert!(
            said.to_string().contains(path),
            "a result for {path} in {said}"
        );
        let page = site.get(path).await;
        assert_eq!((page.verdict(), page.n()), ("HIT", 2), "{path}");
    }
}

/// A page that was never made is made by the call.
#[tokio::test]
async fn a_page_that_was_never_made_is_made() {
    let site = posts().await;
    site.renew("/posts/1").await;
    assert_eq!(site.get("/posts/1").await.verdict(), "HIT");
    assert_eq!(site.origin.causes("/posts/1"), ["OnDemand"]);
}

/// With `onlyGenerated` it is left alone.
#[tokio::test]
async fn only_generated_leaves_other_pages_alone() {
    let site = posts().await;
    site.get("/posts/1").await;
    let answer = site
        .revalidate(json!({ "paths": ["/posts/1", "/posts/2"], "onlyGenerated": true }))
        .await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(
        (site.origin.count("/posts/1"), site.origin.count("/posts/2")),
        (2, 0)
    );
}

/// Without the right token nothing happens.
#[tokio::test]
async fn a_wrong_or_missing_token_is_401() {
    let site = posts().await;
    site.get("/posts/1").await;
    for query in [
        "path=/posts/1",
        "secret=&path=/posts/1",
        "secret=wrong&path=/posts/1",
        "secret=a-secret-of-the-tests1&path=/posts/1",
    ] {
        let answer = hook(&site, query).await;
        assert_eq!(
            (answer.status, answer.json()),
            (401, json!({ "message": "Invalid token" })),
            "{query}"
        );
        assert_eq!(answer.header("www-authenticate"), "Bearer");
    }
    let body = json!({ "paths": ["/posts/1"] }).to_string();
    for authorization in [
        "Bearer wrong",
        "Bearer",
        "Basic a-secret-of-the-tests",
        "a-secret-of-the-tests",
    ] {
        let answer = site
            .send(
                "POST",
                "/api/revalidate",
                &[("authorization", authorization)],
                &body,
            )
            .await;
        assert_eq!(answer.status, 401, "{authorization}");
    }
    assert_eq!(site.origin.count("/posts/1"), 1);
}

/// Without a configured token there is no endpoint, whatever is sent.
#[tokio::test]
async fn without_a_configured_token_there_is_no_endpoint() {
    // Merged tables cannot lose a key, so the file is written anew.
    let mut site = posts().await;
    let file = site.folder().join("wisr.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let mut config: toml::Table = text.parse().unwrap();
    config.remove("revalidate");
    std::fs::write(&file, config.to_string()).unwrap();
    site.restart().await;
    for query in [
        "path=/posts/1",
        "secret=&path=/posts/1",
        "secret=a-secret-of-the-tests&path=/posts/1",
    ] {
        assert_eq!(hook(&site, query).await.status, 404, "{query}");
    }
}

/// A failing generation is reported, and the page stays.
#[tokio::test]
async fn a_failure_is_reported_and_the_page_stays() {
    let site = posts().await;
    site.get("/posts/1").await;
    site.origin.fail("/posts/1");
    let answer = hook(&site, "secret=a-secret-of-the-tests&path=/posts/1").await;
    assert_eq!(answer.status, 500);
    let said = answer.json();
    assert_eq!(
        (&said["revalidated"], &said["message"]),
        (&json!(false), &json!("Error revalidating"))
    );
    let page = site.get("/posts/1").await;
    assert_eq!((page.status, page.n()), (200, 1));
    let seen = (page.verdict(), page.directive("s-maxage"));
    assert_eq!(
        seen,
        ("STALE", Some("0")),
        "caches in front are not to keep what is known to be old"
    );
    assert_eq!(
        site.until_incident("error", "/posts/1").await["cause"],
        "on-demand"
    );
}

/// One bad page among good ones does not stop the good ones.
#[tokio::test]
async fn one_failure_does_not_stop_the_other_paths() {
    let site = posts().await;
    site.get("/posts/1").await;
    site.get("/posts/2").await;
    site.origin.fail("/posts/1");
    let answer = site
        .revalidate(json!({ "paths": ["/posts/1", "/posts/2"] }))
        .await;
    assert_eq!(
        (answer.status, &answer.json()["revalidated"]),
        (500, &json!(false)),
        "{}",
        answer.text()
    );
    assert_eq!(site.get("/posts/2").await.n(), 2);
}

/// What cannot be revalidated says why by its status.
#[tokio::test]
async fn unknown_routes_are_404_and_malformed_calls_400() {
    let site = posts().await;
    assert_eq!(
        hook(&site, "secret=a-secret-of-the-tests&path=/nowhere")
            .await
            .status,
        404
    );
    for query in [
        "secret=a-secret-of-the-tests",
        "secret=a-secret-of-the-tests&path=",
        "secret=a-secret-of-the-tests&path=posts/1",
        "secret=a-secret-of-the-tests&path=http://a/posts/1",
        "secret=a-secret-of-the-tests&path=/posts/%25zz",
    ] {
        let answer = hook(&site, query).await;
        assert_eq!(answer.status, 400, "{query}: {}", answer.text());
        assert!(answer.json()["message"].is_string(), "{query}");
    }
    let token = [
        ("authorization", "Bearer a-secret-of-the-tests"),
        ("content-type", "application/json"),
    ];
    for body in [
        "",
        "{",
        "[]",
        "{}",
        "{\"paths\":\"/posts/1\"}",
        "{\"paths\":[1]}",
        "{\"paths\":[\"/posts/1\"],\"mode\":\"delete\"}",
    ] {
        let answer = site.send("POST", "/api/revalidate", &token, body).await;
        assert_eq!(answer.status, 400, "{body:?}: {}", answer.text());
    }
    assert_eq!(site.origin.all_calls().len(), 0);
}

/// A call that comes while an older generation runs does not settle for its result: that was made
/// from data read before the call.
#[tokio::test]
async fn a_call_never_settles_for_an_older_generation() {
    let site = posts().await;
    site.origin
        .script("/posts/1", json!({ "props": { "n": 1, "text": "old" } }));
    site.origin.hold("/posts/1");
    let reader = site.waiting("/posts/1");
    site.until_calls("/posts/1", 1).await;
    site.origin
        .script("/posts/1", json!({ "props": { "n": 2, "text": "new" } }));
    let call = site.renew("/posts/1");
    let release = async {
        // The call is in flight when both it and the reader are connected.
        site.until_metric("wisr_connections", 2.0).await;
        site.origin.release("/posts/1");
    };
    tokio::join!(call, release);
    assert_eq!(site.get("/posts/1").await.puppet()["props"]["text"], "new");
    assert_eq!(reader.await.unwrap().status, 200);
    assert_eq!(site.origin.count("/posts/1"), 2);
}

/// A second call during the first is answered with data read after it came, too.
#[tokio::test]
async fn a_second_call_never_settles_for_the_first() {
    let site = posts().await;
    site.get("/posts/1").await;
    site.origin.hold("/posts/1");
    site.origin
        .script("/posts/1", json!({ "props": { "text": "old" } }));
    let first = site.renew("/posts/1");
    let rest = async {
        site.until_calls("/posts/1", 2).await;
        site.origin
            .script("/posts/1", json!({ "props": { "text": "new" } }));
        let release = async {
            site.until_metric("wisr_connections", 2.0).await;
            site.origin.release("/posts/1");
        };
        tokio::join!(site.renew("/posts/1"), release);
        site.get("/posts/1").await.puppet()["props"]["text"].clone()
    };
    let ((), text) = tokio::join!(first, rest);
    assert_eq!(text, "new");
}

/// Twenty calls at once for one page are not twenty generations.
#[tokio::test]
async fn calls_for_the_same_page_share_generations() {
    let site = posts().await;
    site.get("/posts/1").await;
    let (site, calls) = (std::sync::Arc::new(site), 20);
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..calls {
        let site = std::sync::Arc::clone(&site);
        waiting.spawn(async move { site.renew("/posts/1").await });
    }
    waiting.join_all().await;
    let generations = site.origin.count("/posts/1") - 1;
    assert!((1..calls).contains(&generations), "{generations}");
    assert_eq!(
        site.origin.most_in_flight(),
        1,
        "never the same page twice at once"
    );
}

/// While a call waits, readers get the page that there is.
#[tokio::test]
async fn readers_are_not_held_up_by_a_call() {
    let site = posts().await;
    site.get("/posts/1").await;
    site.origin.hold("/posts/1");
    let watch = async {
        site.until_calls("/posts/1", 2).await;
        let page = site.get("/posts/1").await;
        assert_eq!((page.status, page.n()), (200, 1));
        site.origin.release("/posts/1");
    };
    tokio::join!(site.renew("/posts/1"), watch);
    assert_eq!(site.get("/posts/1").await.n(), 2);
}

/// `stale` marks the page and returns: the next reader still gets it, and starts the renewal.
#[tokio::test]
async fn stale_marks_and_returns_at_once() {
    let site = posts().await;
    site.get("/posts/1").await;
    let answer = site
        .revalidate(json!({ "paths": ["/posts/1"], "mode": "stale" }))
        .await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(site.origin.count("/posts/1"), 1, "nothing is made yet");
    let page = site.get("/posts/1").await;
    assert_eq!((page.verdict(), page.n()), ("STALE", 1));
    site.until("/posts/1", |answer| {
        answer.verdict() == "HIT" && answer.n() == 2
    })
    .await;
}

/// A page that one call names and whose tag it names too is fresh afterwards, not made twice.
#[tokio::test]
async fn a_page_named_beside_its_tag_is_made_once() {
    let site = posts().await;
    site.origin.script("/posts/1", json!({ "tags": ["posts"] }));
    site.get("/posts/1").await;
    let call = json!({ "paths": ["/posts/1"], "tags": ["posts"] });
    let answer = site.revalidate(call).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let page = site.get("/posts/1").await;
    assert_eq!((page.verdict(), page.n()), ("HIT", 2));
}

/// Invalidating a tag makes every page stale that carries it, and no other.
#[tokio::test]
async fn a_tag_reaches_every_page_that_carries_it() {
    let site = posts().await;
    for (path, tags) in [
        ("/posts/1", json!(["posts", "a"])),
        ("/posts/2", json!(["posts"])),
        ("/posts/3", json!(["other"])),
    ] {
        site.origin.script(path, json!({ "tags": tags }));
        site.get(path).await;
    }
    let answer = site.revalidate(json!({ "tags": ["posts"] })).await;
    assert_eq!(
        (answer.status, &answer.json()["revalidated"]),
        (200, &json!(true)),
        "{}",
        answer.text()
    );
    for path in ["/posts/1", "/posts/2"] {
        assert_eq!(site.get(path).await.verdict(), "STALE", "{path}");
        site.until(path, |answer| answer.verdict() == "HIT" && answer.n() == 2)
            .await;
    }
    assert_eq!(site.get("/posts/3").await.verdict(), "HIT");
}

/// A tag invalidated while a page is made from the old data makes that page stale, too.
#[tokio::test]
async fn a_tag_invalidated_while_the_page_is_made_is_not_missed() {
    let site = posts().await;
    site.origin.script("/posts/1", json!({ "tags": ["posts"] }));
    site.origin.hold("/posts/1");
    let reader = site.waiting("/posts/1");
    site.until_calls("/posts/1", 1).await;
    assert_eq!(
        site.revalidate(json!({ "tags": ["posts"] })).await.status,
        200
    );
    site.origin.release("/posts/1");
    assert_eq!(reader.await.unwrap().n(), 1);
    site.until("/posts/1", |answer| answer.n() == 2).await;
}

/// `purge` removes the page: the next reader waits for a new one, and nothing old comes back.
#[tokio::test]
async fn a_purged_page_is_gone() {
    let site = posts().await;
    site.get("/posts/1").await;
    let purge = json!({ "paths": ["/posts/1"], "mode": "purge" });
    assert_eq!(site.revalidate(purge.clone()).await.status, 200);
    assert_eq!(site.origin.count("/posts/1"), 1, "purging makes nothing");
    let page = site.get("/posts/1").await;
    assert_eq!((page.verdict(), page.n()), ("MISS", 2));
    assert_eq!(site.revalidate(purge).await.status, 200);
    site.origin.fail("/posts/1");
    assert_eq!(
        site.get("/posts/1").await.status,
        500,
        "the last good page went with the purge"
    );
}

/// A generation that began before a purge does not bring the page back as it was.
#[tokio::test]
async fn a_purge_outlives_a_generation_that_began_before_it() {
    let site = posts().await;
    site.origin.hold("/posts/1");
    let reader = site.waiting("/posts/1");
    site.until_calls("/posts/1", 1).await;
    assert_eq!(
        site.revalidate(json!({ "paths": ["/posts/1"], "mode": "purge" }))
            .await
            .status,
        200
    );
    site.origin.release("/posts/1");
    assert_eq!(reader.await.unwrap().status, 200);
    site.until("/posts/1", |answer| answer.n() == 2).await;
}

/// What was acknowledged survives `kill -9`.
#[tokio::test]
async fn what_was_acknowledged_survives_a_crash() {
    let mut site = posts().await;
    for path in [
        "/posts/renewed",
        "/posts/purged",
        "/posts/stale",
        "/posts/tagged",
    ] {
        site.origin
            .script(path, json!({ "tags": [path.replace('/', "-")] }));
        site.get(path).await;
    }
    // The store is written behind the response; the acknowledged renewals are behind the pages.
    for path in ["/posts/purged", "/posts/stale", "/posts/tagged"] {
        site.renew(path).await;
    }
    let calls: [Value; 4] = [
        json!({ "paths": ["/posts/renewed"] }),
        json!({ "paths": ["/posts/purged"], "mode": "purge" }),
        json!({ "paths": ["/posts/stale"], "mode": "stale" }),
        json!({ "tags": ["-posts-tagged"] }),
    ];
    for call in calls {
        assert_eq!(site.revalidate(call.clone()).await.status, 200, "{call}");
    }
    site.restart().await;
    let renewed = site.get("/posts/renewed").await;
    assert_eq!((renewed.verdict(), renewed.n()), ("HIT", 2));
    assert_eq!(site.get("/posts/purged").await.verdict(), "MISS");
    for path in ["/posts/stale", "/posts/tagged"] {
        assert_eq!(site.get(path).await.verdict(), "STALE", "{path}");
        site.until(path, |answer| answer.verdict() == "HIT").await;
    }
}

/// A path is normalised as a reader's would be; other routes' and other pages' entries stay.
#[tokio::test]
async fn a_path_is_understood_as_a_reader_would_write_it() {
    let site = posts().await;
    for path in ["/posts/%C3%A9", "/posts/1", "/posts/2"] {
        site.get(path).await;
    }
    for path in ["/posts/%c3%a9", "/posts/é"] {
        let answer = site.revalidate(json!({ "paths": [path] })).await;
        assert_eq!(answer.status, 200, "{path} {}", answer.text());
    }
    assert_eq!(site.get("/posts/%C3%A9").await.n(), 3);
    assert_eq!(site.get("/posts/2").await.n(), 1);
}

/// A not-found and a redirect are results as good as a page.
#[tokio::test]
async fn a_missing_or_moved_page_counts_as_revalidated() {
    let site = posts().await;
    site.get("/posts/1").await;
    site.origin
        .script("/posts/1", json!({ "outcome": "not-found" }));
    site.renew("/posts/1").await;
    assert_eq!(site.get("/posts/1").await.status, 404);
    site.origin.script(
        "/posts/1",
        json!({ "outcome": "redirect", "location": "/x" }),
    );
    site.renew("/posts/1").await;
    assert_eq!(site.get("/posts/1").await.status, 307);
}

/// Under a shell the call makes the page, so that no reader sees the shell afterwards.
#[tokio::test]
async fn a_page_behind_a_shell_is_made() {
    let site = Site::new()
        .pages(&["posts/[id]"])
        .listed("/posts/[id]", "posts", json!({ "fallback": "shell" }))
        .start()
        .await;
    site.renew("/posts/1").await;
    assert_eq!(site.get("/posts/1").await.verdict(), "HIT");
    let log = site.log();
    let listing = log.lines().find(|line| line.contains("/@paths/posts"));
    let listing = listing.unwrap_or_else(|| panic!("no listing in {log}"));
    assert!(listing.contains("route=\"/posts/[id]\""), "{listing}");
}

/// A renewal after a module swap is made by the new module.
#[tokio::test]
async fn a_renewal_is_made_by_the_module_that_owns_the_route() {
    let site = posts().await;
    site.get("/posts/1").await;
    site.swap("posts/[id]", &modules::puppet_version(1));
    wait_for("the new module", async || {
        site.renew("/posts/1").await;
        let version = site.get("/posts/1").await.puppet()["version"].clone();
        if version == "0001" {
            Ok(())
        } else {
            Err(version.to_string())
        }
    })
    .await;
}

/// What a list says, and whose other paths are 404.
fn only(ids: &[&str]) -> Value {
    let paths: Vec<Value> = ids.iter().map(|id| json!({ "id": [id] })).collect();
    json!({ "fallback": "not-found", "paths": paths })
}

/// A call for a path that no list has is about one of a moment ago: the paths are listed anew before
/// it is said to be missing. Strangers have nothing listed, and a list that cannot be had stays.
#[tokio::test]
async fn a_path_that_is_not_listed_is_looked_for_in_a_list_of_now() {
    let site = Site::new()
        .pages(&["posts/[id]"])
        .listed("/posts/[id]", "posts", only(&["1"]))
        .start()
        .await;
    for _ in 0..20 {
        assert_eq!(site.get("/posts/2").await.status, 404);
    }
    assert_eq!(site.origin.count("/@paths/posts"), 1);
    site.origin.script("/@paths/posts", only(&["1", "2"]));
    let call = async |path: &str| site.revalidate(json!({ "paths": [path] })).await;
    let answer = call("/posts/2").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let page = site.get("/posts/2").await;
    assert_eq!((page.status, page.verdict()), (200, "HIT"));
    let answer = call("/posts/3").await;
    assert_eq!(answer.status, 404, "{}", answer.text());
    assert!(answer.text().contains("No route has this path"));

    // Many calls share a listing.
    let before = site.origin.count("/@paths/posts");
    site.origin
        .script("/@paths/posts", only(&["1", "2", "3", "4", "5", "6"]));
    let paths = ["/posts/3", "/posts/4", "/posts/5", "/posts/6"];
    let answer = site.revalidate(json!({ "paths": paths })).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let listings = site.origin.count("/@paths/posts") - before;
    assert!((1..=2).contains(&listings), "{listings}");

    // Neither a list that fails nor another module that has none makes any path a page.
    site.origin.fail("/@paths/posts");
    let answer = call("/posts/7").await;
    assert_eq!(answer.status, 500, "{}", answer.text());
    assert!(answer.text().contains("listed anew"), "{}", answer.text());
    site.swap("posts/[id]", &modules::puppet_version(1));
    site.until("/posts/1", |page| page.header("x-puppet-version") == "0001")
        .await;
    assert_eq!(site.get("/posts/7").await.status, 404);
    assert_eq!(site.get("/posts/6").await.status, 200);
}

/// What was published without a call is there when the list has become old.
#[tokio::test]
async fn a_list_becomes_old() {
    let site = Site::new()
        .pages(&["posts/[id]"])
        .config("[routes.\"/posts/[id]\"]\npaths-revalidate = 1")
        .listed("/posts/[id]", "posts", only(&["1"]))
        .start()
        .await;
    assert_eq!(site.get("/posts/2").await.status, 404);
    site.origin.script("/@paths/posts", only(&["2"]));
    site.until("/posts/2", |page| page.status == 200).await;
    assert_eq!(site.get("/posts/1").await.status, 404);
}
