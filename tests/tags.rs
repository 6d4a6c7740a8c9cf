//! Tags: what pages, and what there is in place of pages, are invalidated by together.

use serde_json::{Value, json};

use crate::modules;
use crate::site::{Running, Site};

/// What the server knows of a page.
async fn entry(site: &Running, path: &str) -> Value {
    let entries = site.admin(&format!("/api/entries?prefix={path}")).await;
    entries.json()["entries"][0].clone()
}

#[tokio::test]
async fn a_page_tags_whatever_comes_of_it() {
    let moved =
        json!({"outcome": "redirect", "location": "/new", "given": ["moved"], "tags": ["b"]});
    let page = json!({"tags": ["all", "b"], "given": ["b", "c"], "render": {"given": ["d"]}});
    let site = Site::new()
        .pages(&["posts/[id]"])
        .script("/posts/page", page)
        .script(
            "/posts/gone",
            json!({"outcome": "not-found", "tags": ["all"], "given": ["gone"]}),
        )
        .script("/posts/moved", moved)
        .start()
        .await;
    for (path, status, tags) in [
        ("/posts/page", 200, json!(["all", "b", "c", "d"])),
        ("/posts/gone", 404, json!(["gone", "all"])),
        ("/posts/moved", 307, json!(["moved", "b"])),
    ] {
        assert_eq!(site.get(path).await.status, status, "{path}");
        assert_eq!(entry(&site, path).await["tags"], tags, "{path}");
    }
    for (path, tag) in [
        ("/posts/page", "d"),
        ("/posts/gone", "gone"),
        ("/posts/moved", "moved"),
    ] {
        let before = site.origin.count(path);
        let called = site.revalidate(json!({"tags": [tag]})).await;
        assert_eq!(called.status, 200);
        assert_eq!(site.get(path).await.verdict(), "STALE", "{path}");
        site.until_calls(path, before + 1).await;
    }
}

/// What is said to be gone by a tag comes back by the same tag, also after a restart and by way of
/// several answers that are no page.
#[tokio::test]
async fn what_took_the_place_of_a_page_keeps_its_tags() {
    let mut site = Site::new()
        .pages(&["posts/[id]"])
        .script("/posts/1", json!({"tags": ["posts"], "given": ["post-1"]}))
        .start()
        .await;
    assert_eq!(site.get("/posts/1").await.status, 200);
    let never = json!("never");
    let moved = json!({"outcome": "redirect", "location": "/new", "revalidate": never});
    let gone = json!({"outcome": "not-found", "revalidate": never, "tags": ["own"]});
    for (answer, status, tag) in [
        (gone, 404, "post-1"),
        (moved, 307, "posts"),
        (json!({"tags": ["posts"]}), 200, "post-1"),
    ] {
        site.origin.script("/posts/1", answer);
        assert_eq!(site.revalidate(json!({"tags": [tag]})).await.status, 200);
        site.restart().await;
        let shown = site
            .until("/posts/1", |shown| shown.verdict() == "HIT")
            .await;
        assert_eq!(shown.status, status);
    }
    // A page has the tags that it says, and no others.
    assert_eq!(entry(&site, "/posts/1").await["tags"], json!(["posts"]));
}

/// A page whose props are what they were is not rendered again: what its rendering was made from
/// still holds.
#[tokio::test]
async fn an_unchanged_page_keeps_what_it_was_rendered_from() {
    let page = json!({"props": {"n": 1}, "tags": ["props"], "render": {"given": ["rendered"]}});
    let site = Site::new()
        .pages(&["posts/[id]"])
        .config("[defaults]\nrender = \"when-props-change\"")
        .script("/posts/1", page)
        .start()
        .await;
    site.get("/posts/1").await;
    for _ in 0..2 {
        site.renew("/posts/1").await;
        let mut tags: Vec<Value> = entry(&site, "/posts/1").await["tags"]
            .as_array()
            .unwrap()
            .clone();
        tags.sort_by_key(Value::to_string);
        assert_eq!(tags, ["props", "rendered"]);
    }
}

#[tokio::test]
async fn what_is_no_tag_and_more_than_there_may_be_is_told() {
    let many: Vec<String> = (0..1_000).map(|number| number.to_string()).collect();
    let site = Site::new()
        .pages(&["posts/[id]"])
        .script(
            "/posts/many",
            json!({"given": many, "outcome": "not-found"}),
        )
        .script("/posts/long", json!({"given": "x".repeat(257)}))
        .start()
        .await;
    for (path, words) in [("/posts/many", "at most 128"), ("/posts/long", "257 bytes")] {
        assert_eq!(site.get(path).await.status, 500, "{path}");
        site.until_incident("invalid", words).await;
    }
}

/// Modules that were built before there was more to import go on being served.
#[tokio::test]
async fn a_module_of_the_first_contract_is_served() {
    let core = r#"
        (import "wisr:page/host@0.1.0" "log" (func $log (param i32 i32 i32)))
        (import "wisr:page/host@0.1.0" "setting" (func $setting (param i32 i32 i32)))"#;
    let site = Site::new()
        .module("about", &modules::good_of_the_first_contract(core))
        .start()
        .await;
    assert_eq!(site.get("/about").await.status, 200);
}

/// A call says how many pages it is about, in memory or on disk, whatever they are.
#[tokio::test]
async fn a_call_says_how_many_pages_it_is_about() {
    let variants = "query = [\"q\"]\nsettings = { variants = \"1\" }";
    let mut site = Site::new()
        .pages(&["posts/[id]", "about"])
        .config(&format!("[routes.\"/posts/[id]\"]\n{variants}"))
        .script("/posts/1", json!({"tags": ["posts", "posts"]}))
        .script(
            "/posts/2",
            json!({"tags": ["posts"], "outcome": "not-found"}),
        )
        .script("/posts/1~a", json!({"tags": ["variants"]}))
        .start()
        .await;
    for path in [
        "/posts/1",
        "/posts/2",
        "/posts/1?q=a",
        "/posts/1?q=b",
        "/posts/12?q=a",
    ] {
        site.get(path).await;
    }
    for _ in 0..2 {
        let body = json!({"tags": ["posts", "variants", "nobody"], "paths": ["/about", "/posts/1", "/posts/1?q=a"],
            "mode": "stale"});
        let told = site.revalidate(body).await.json();
        let counts: Vec<Value> = told["results"]
            .as_array()
            .unwrap()
            .iter()
            .map(|result| {
                json!([
                    result["path"],
                    result["tag"],
                    result["variants"],
                    result["pages"]
                ])
            })
            .collect();
        assert_eq!(
            json!(counts),
            json!([
                ["/about", null, null, null],
                ["/posts/1", null, 2, null],
                ["/posts/1?q=a", null, null, null],
                [null, "posts", null, 2],
                [null, "variants", null, 1],
                [null, "nobody", null, 0],
            ]),
            "{told}"
        );
        site.restart().await;
    }
    // Of a path alone, without a look at all pages.
    let told = site
        .revalidate(json!({"paths": ["/posts/1/", "/posts/9"]}))
        .await
        .json();
    assert_eq!(told["results"][0]["variants"], 2, "{told}");
    assert_eq!(told["results"][1]["variants"], 0, "{told}");
}

/// The page that is named is made anew, its variants are stale from then on; a variant that is named
/// stands for itself alone. Over a `kill -9`, by every door.
#[tokio::test]
async fn a_call_for_a_path_is_one_for_its_variants() {
    let variants = "query = [\"q\"]\nsettings = { variants = \"1\" }";
    let mut site = Site::new()
        .pages(&["posts/[id]"])
        .config(&format!("[routes.\"/posts/[id]\"]\n{variants}"))
        .start()
        .await;
    let (one, other, data) = (
        "/posts/1?q=a",
        "/posts/1?q=b%20c",
        "/_wisr/data/posts/1.json?q=a",
    );
    let fill = async |site: &Running| {
        for path in ["/posts/1", one, other] {
            site.until(path, |shown| shown.verdict() == "HIT").await;
        }
    };
    fill(&site).await;
    site.renew(one).await;
    for path in ["/posts/1", one, other] {
        assert_eq!(site.get(path).await.verdict(), "HIT", "{path}");
    }
    for spelling in ["/posts/1", "/posts/1/", "/posts/%31", "/posts/1?utm=x"] {
        fill(&site).await;
        let before = site.get(one).await.n();
        site.renew(spelling).await;
        assert_eq!(site.get("/posts/1").await.verdict(), "HIT", "{spelling}");
        let head = site.send("HEAD", other, &[], "").await;
        assert_eq!(head.verdict(), "STALE", "{spelling}");
        assert_eq!(site.get(data).await.verdict(), "STALE", "{spelling}");
        site.until(one, |shown| shown.n() == before + 1).await;
    }
    fill(&site).await;
    let asked = json!({"paths": ["/posts/1"], "mode": "stale"});
    assert_eq!(site.revalidate(asked).await.status, 200);
    site.kill();
    site.restart().await;
    for path in ["/posts/1", one, other] {
        assert_eq!(site.get(path).await.verdict(), "STALE", "{path}");
    }
    // Both named: neither is stale for the sake of the other.
    fill(&site).await;
    let both = site.revalidate(json!({"paths": [one, "/posts/1"]})).await;
    assert_eq!(both.status, 200);
    for path in ["/posts/1", one] {
        assert_eq!(site.get(path).await.verdict(), "HIT", "{path}");
    }
    assert_eq!(site.get(other).await.verdict(), "STALE");
    fill(&site).await;
    for source in ["/posts/1", "/posts/1~a", "/posts/1~b%20c"] {
        site.origin.fail(source);
    }
    let asked = json!({"paths": ["/posts/1"], "mode": "purge"});
    assert_eq!(site.revalidate(asked).await.status, 200);
    for path in ["/posts/1", one, other, data] {
        assert_eq!(site.get(path).await.status, 500, "{path}");
    }
    let entries = site.admin("/api/entries?prefix=/posts/1").await.json();
    assert_eq!(entries["entries"], json!([]));
    site.kill();
    site.restart().await;
    assert_eq!(site.get(one).await.status, 500);
}
