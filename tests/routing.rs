//! Section 3: which page a URL means, and what of a request a page gets to see.

use serde_json::{Value, json};

use crate::modules;
use crate::site::{Running, Site, wait_for};

async fn seen(site: &Running, path: &str) -> Value {
    let answer = site.get(path).await;
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    answer.puppet()
}

/// At every segment: the name itself, then `[id]`, then `[...slug]`, then `[[...slug]]`.
#[tokio::test]
async fn the_most_particular_route_wins() {
    let site = Site::new()
        .pages(&[
            "index",
            "about",
            "posts/index",
            "posts/new",
            "posts/[id]",
            "posts/[id]/edit",
            "posts/[...slug]",
            "docs/[[...slug]]",
            "[lang]/about",
            "[...slug]",
        ])
        .start()
        .await;
    for (path, route) in [
        ("/", "/"),
        ("/about", "/about"),
        ("/posts", "/posts"),
        ("/posts/new", "/posts/new"),
        ("/posts/1", "/posts/[id]"),
        ("/posts/1/edit", "/posts/[id]/edit"),
        ("/posts/1/other", "/posts/[...slug]"),
        ("/posts/new/edit", "/posts/[id]/edit"),
        ("/docs", "/docs/[[...slug]]"),
        ("/docs/a/b", "/docs/[[...slug]]"),
        ("/de/about", "/[lang]/about"),
        ("/de/other", "/[...slug]"),
        ("/About", "/[...slug]"),
    ] {
        assert_eq!(seen(&site, path).await["route"], route, "{path}");
    }
}

/// A catch-all hands over every segment; the optional one also none.
#[tokio::test]
async fn a_catch_all_hands_over_every_segment() {
    let site = Site::new()
        .pages(&["docs/[...slug]", "opt/[[...slug]]", "[lang]/x/[...slug]"])
        .start()
        .await;
    for (path, params) in [
        ("/docs/a", json!({ "slug": ["a"] })),
        ("/docs/a/b/c", json!({ "slug": ["a", "b", "c"] })),
        ("/opt", json!({})),
        ("/opt/a", json!({ "slug": ["a"] })),
        ("/de/x/1/2", json!({ "lang": ["de"], "slug": ["1", "2"] })),
    ] {
        assert_eq!(seen(&site, path).await["params"], params, "{path}");
    }
    assert_eq!(
        site.get("/docs").await.status,
        404,
        "a catch-all wants at least one segment"
    );
}

/// Params are percent-decoded once and per segment, so an escaped slash stays inside its own.
#[tokio::test]
async fn params_are_decoded_once_and_per_segment() {
    let site = Site::new().pages(&["posts/[id]"]).start().await;
    for (path, id) in [
        ("/posts/%61bc", "abc"),
        ("/posts/a%2Fb", "a/b"),
        ("/posts/a%20b", "a b"),
        ("/posts/a+b", "a+b"),
        ("/posts/%C3%A9", "é"),
        ("/posts/a%252Fb", "a%2Fb"),
        ("/posts/[id]", "[id]"),
        ("/posts/a%3Fb", "a?b"),
        ("/posts/a;v=1", "a;v=1"),
    ] {
        assert_eq!(
            seen(&site, path).await["params"],
            json!({ "id": [id] }),
            "{path}"
        );
    }
}

/// Spellings of one path are one page.
#[tokio::test]
async fn spellings_of_one_path_share_one_entry() {
    let site = Site::new().pages(&["posts/[id]"]).start().await;
    for spellings in [
        ["/posts/abc", "/posts/%61bc"],
        ["/posts/%C3%A9", "/posts/%c3%a9"],
        ["/posts/a~b", "/posts/a%7Eb"],
    ] {
        let first = site.get(spellings[0]).await;
        let second = site.get(spellings[1]).await;
        assert_eq!(
            (first.verdict(), second.verdict()),
            ("MISS", "HIT"),
            "{spellings:?}"
        );
        assert_eq!(first.body, second.body, "{spellings:?}");
    }
    let slash = site.get("/posts/a%2Fb").await;
    assert_eq!((slash.status, slash.verdict()), (200, "MISS"));
    assert_eq!(
        site.get("/posts/a/b").await.status,
        404,
        "a real slash is another path"
    );
}

/// `//` and a trailing slash go to the normal form; the query goes along, and no host is invented.
#[tokio::test]
async fn slashes_are_normalised_by_a_308() {
    let site = Site::new().pages(&["index", "posts/[id]"]).start().await;
    for (path, location) in [
        ("/posts/1/", "/posts/1"),
        ("/posts//1", "/posts/1"),
        ("//posts/1", "/posts/1"),
        ("/posts/1/?a=b&c", "/posts/1?a=b&c"),
        ("//evil.example/x", "/evil.example/x"),
        ("//evil.example/", "/evil.example"),
        ("//", "/"),
    ] {
        let head = format!(
            "GET {path} HTTP/1.1\r\nhost: a\r\nx-forwarded-host: evil\r\nconnection: close\r\n\r\n"
        );
        let answer = site.raw(head.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 308"), "{path}: {answer}");
        let sent = answer
            .lines()
            .find_map(|line| line.strip_prefix("location: "));
        assert_eq!(sent, Some(location), "{path}");
    }
    assert_eq!(site.origin.count("/posts/1"), 0);
}

/// An escape that is none, or that is no UTF-8, is the reader's mistake.
#[tokio::test]
async fn a_bad_escape_is_400() {
    let site = Site::new().pages(&["posts/[id]"]).start().await;
    for path in [
        "/posts/%zz",
        "/posts/%",
        "/posts/%f",
        "/posts/%ff",
        "/posts/%c0%af",
    ] {
        let answer = site.get(path).await;
        assert_eq!(answer.status, 400, "{path}");
        assert_eq!(
            answer.header("cache-control"),
            "private, no-store",
            "{path}"
        );
    }
    assert_eq!(
        site.get("/posts/1?bad=%zz").await.status,
        200,
        "the query is not looked at"
    );
    assert_eq!(site.origin.all_calls().len(), 1);
}

/// Dots never lead out of the tree, and escaped ones do not lead into other routes.
#[tokio::test]
async fn dots_never_lead_anywhere_else() {
    let site = Site::new().pages(&["about", "posts/[id]"]).start().await;
    for path in [
        "/posts/../../wisr.toml",
        "/posts/%2e%2e%2fwisr.toml",
        "/..%2f..%2fetc/passwd",
    ] {
        let head = format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        let answer = site.raw(head.as_bytes()).await;
        assert!(
            !answer.contains("outbound") && !answer.contains("root:"),
            "{path}: {answer}"
        );
        assert!(!answer.starts_with("HTTP/1.1 5"), "{path}: {answer}");
    }
}

/// The query does not count, except the parameters that the route allows by name.
#[tokio::test]
async fn only_allowed_query_parameters_reach_a_page_and_its_key() {
    let site = Site::new()
        .pages(&["search", "posts/[id]"])
        .config("[routes.\"/search\"]\nquery = [\"q\"]")
        .start()
        .await;
    let rust = seen(&site, "/search?q=rust&page=2&utm=x").await;
    assert_eq!((&rust["q"], &rust["page"]), (&json!("rust"), &Value::Null));
    for (target, verdict) in [
        ("/search?utm=y&q=rust", "HIT"),
        ("/search?q=%72ust", "HIT"),
        ("/search?q=go", "MISS"),
        ("/search?q=rust%26page%3D2", "MISS"),
    ] {
        assert_eq!(site.get(target).await.verdict(), verdict, "{target}");
    }
    let post = seen(&site, "/posts/1?q=x&page=1").await;
    assert_eq!((&post["q"], &post["page"]), (&Value::Null, &Value::Null));
    for target in ["/posts/1", "/posts/1?", "/posts/1?a=b", "/posts/1?id=2"] {
        assert_eq!(site.get(target).await.verdict(), "HIT", "{target}");
    }
    assert_eq!(site.origin.count("/posts/1"), 1);
}

/// Nothing that a client sends reaches a page, so nothing can poison what others get.
#[tokio::test]
async fn nothing_that_a_client_sends_reaches_a_page_or_splits_its_key() {
    let site = Site::new().pages(&["posts/[id]"]).start().await;
    let poison = "poison-7f3a";
    let headers = [
        ("cookie", poison),
        ("authorization", poison),
        ("user-agent", poison),
        ("accept-language", poison),
        ("referer", poison),
        ("x-forwarded-host", poison),
        ("x-forwarded-proto", poison),
        ("x-original-url", poison),
        ("x-middleware-prefetch", "1"),
        ("x-prerender-revalidate", poison),
        ("host", "poison-7f3a.example"),
        ("purpose", "prefetch"),
        ("range", "bytes=0-3"),
    ];
    let first = site
        .get_with(&format!("/posts/1?x={poison}"), &headers)
        .await;
    assert_eq!(first.status, 200);
    assert!(!first.text().contains(poison) && !format!("{:?}", first.headers).contains(poison));
    let second = site.get("/posts/1").await;
    assert_eq!((second.verdict(), &second.body), ("HIT", &first.body));
    assert_eq!(site.origin.all_calls().len(), 1);
}

/// Settings reach the pages of their route; a route's own wins over the site's.
#[tokio::test]
async fn settings_come_from_the_configuration() {
    let site = Site::new()
        .pages(&["index", "about"])
        .config("[settings]\ngreeting = \"hello\"\n[routes.\"/about\"]\nsettings = { greeting = \"moin\" }")
        .start()
        .await;
    assert_eq!(seen(&site, "/").await["setting"], "hello");
    assert_eq!(seen(&site, "/about").await["setting"], "moin");
}

/// A conflict names both files and harms no other route.
#[tokio::test]
async fn a_conflict_names_both_files_and_harms_no_other_route() {
    for (names, one, other) in [
        (["posts/[id]", "posts/[slug]"], "[id]", "[slug]"),
        (["posts", "posts/index"], "posts.wasm", "index.wasm"),
        (["docs/[...slug]/more", "docs/x"], "[...slug]", "more"),
    ] {
        let site = Site::new().pages(&["about"]).pages(&names).start().await;
        assert_eq!(site.get("/about").await.status, 200, "{names:?}");
        let incident = wait_for("an incident about the conflict", async || {
            let incidents = site.incidents().await;
            let found = incidents.iter().find(|incident| {
                let message = incident.to_string();
                message.contains(one) && message.contains(other)
            });
            found
                .cloned()
                .ok_or_else(|| format!("{names:?}: {incidents:#?}"))
        })
        .await;
        assert!(!incident["message"].as_str().unwrap().is_empty());
    }
}

/// A file that comes into conflict with a route leaves that route with the module it had.
#[tokio::test]
async fn a_route_keeps_its_module_when_a_conflict_appears() {
    let site = Site::new().pages(&["posts/[id]"]).start().await;
    assert_eq!(seen(&site, "/posts/1").await["version"], "0000");
    site.swap("posts/[slug]", &modules::puppet_version(7));
    wait_for("an incident about the conflict", async || {
        let incidents = site.incidents().await;
        let found = incidents
            .iter()
            .any(|incident| incident.to_string().contains("[slug]"));
        if found {
            Ok(())
        } else {
            Err(format!("{incidents:?}"))
        }
    })
    .await;
    let page = seen(&site, "/posts/2").await;
    assert_eq!(
        (&page["route"], &page["version"]),
        (&json!("/posts/[id]"), &json!("0000"))
    );
}

/// A URL or a head beyond every measure is refused, and the server goes on.
#[tokio::test]
async fn oversized_requests_are_refused() {
    let site = Site::new().pages(&["posts/[id]"]).start().await;
    let long = format!(
        "GET /posts/{} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
        "x".repeat(200_000)
    );
    let answer = site.raw(long.as_bytes()).await;
    assert!(
        !answer.starts_with("HTTP/1.1 2") && !answer.starts_with("HTTP/1.1 5"),
        "{answer:.200}"
    );
    let fat = format!(
        "GET /posts/1 HTTP/1.1\r\nhost: a\r\nx: {}\r\nconnection: close\r\n\r\n",
        "x".repeat(2_000_000)
    );
    let answer = site.raw(fat.as_bytes()).await;
    assert!(
        !answer.starts_with("HTTP/1.1 2") && !answer.starts_with("HTTP/1.1 5"),
        "{answer:.200}"
    );
    assert_eq!(site.get("/posts/1").await.status, 200);
}
