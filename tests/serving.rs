//! Section 4, responses: what every answer says of itself, and how it is negotiated.

use serde_json::json;
use sfv::{BareItem, ListEntry, Parser};

use crate::client::Response;
use crate::site::{Running, Site, wait_for};

/// `cache-status` (RFC 9211): its one member must be wisr, and these are its parameters.
fn cache_status(answer: &Response) -> Vec<(String, String)> {
    let text = answer.header("cache-status");
    let list = Parser::new(text).parse::<sfv::List>();
    let list = list.unwrap_or_else(|error| panic!("{error} in cache-status {text:?}"));
    let [ListEntry::Item(item)] = &list[..] else {
        panic!("one cache answered, so there is one member: {text:?}")
    };
    assert_eq!(bare(&item.bare_item), "wisr", "{text:?}");
    let params = item.params.iter();
    params
        .map(|(key, value)| (key.to_string(), bare(value)))
        .collect()
}

fn bare(item: &BareItem) -> String {
    match item {
        BareItem::Token(token) => token.to_string(),
        BareItem::String(string) => string.to_string(),
        BareItem::Integer(number) => number.to_string(),
        BareItem::Boolean(truth) => truth.to_string(),
        other => panic!("RFC 9211 has no such parameter: {other:?}"),
    }
}

fn parameter(answer: &Response, key: &str) -> Option<String> {
    cache_status(answer)
        .into_iter()
        .find(|(name, _)| name == key)
        .map(|(_, value)| value)
}

/// A server with one dynamic route and nothing made yet.
async fn posts() -> Running {
    Site::new().pages(&["posts/[id]"]).start().await
}

/// What every cached answer carries, whatever its verdict.
fn assert_cached(answer: &Response) {
    assert!(
        answer.header("age").parse::<u64>().is_ok(),
        "age: {:?}",
        answer.headers
    );
    let etag = answer.header("etag");
    assert!(
        etag.starts_with('"') && etag.ends_with('"') && etag.len() > 10,
        "strong etag: {etag}"
    );
    assert!(
        httpdate::parse_http_date(answer.header("last-modified")).is_ok(),
        "{:?}",
        answer.headers
    );
    assert!(
        httpdate::parse_http_date(answer.header("date")).is_ok(),
        "{:?}",
        answer.headers
    );
    assert!(
        answer
            .header("vary")
            .to_ascii_lowercase()
            .contains("accept-encoding"),
        "{:?}",
        answer.headers
    );
    assert_eq!(
        answer.header("content-length"),
        answer.body.len().to_string()
    );
    cache_status(answer);
}

/// What an answer that nobody may keep carries.
fn assert_uncached(answer: &Response) {
    assert_eq!(answer.header("cache-control"), "private, no-store");
    assert_eq!((answer.header("age"), answer.verdict()), ("", ""));
}

/// The first answer is a miss, the second the same bytes as a hit; both say how long they hold.
#[tokio::test]
async fn a_page_is_made_once_and_then_served_from_the_cache() {
    let site = posts().await;
    site.origin.script("/posts/1", json!({ "revalidate": 60 }));
    let first = site.get("/posts/1").await;
    let second = site.get("/posts/1").await;
    for answer in [&first, &second] {
        assert_eq!(answer.status, 200);
        assert_cached(answer);
        assert_eq!(answer.header("content-type"), "text/html; charset=utf-8");
        assert_eq!(
            answer.header("cache-control"),
            format!(
                "public, max-age=0, s-maxage=60, stale-while-revalidate={}",
                31_536_000 - 60
            )
        );
    }
    assert_eq!((first.verdict(), second.verdict()), ("MISS", "HIT"));
    assert_eq!(
        (&first.body, first.header("etag")),
        (&second.body, second.header("etag"))
    );
    assert_eq!(site.origin.causes("/posts/1"), ["FirstRequest"]);
    assert_eq!(parameter(&second, "hit").as_deref(), Some("true"));
    let ttl: u64 = parameter(&second, "ttl").unwrap().parse().unwrap();
    assert!(
        (1..=66).contains(&ttl),
        "revalidate and up to a tenth of jitter: {ttl}"
    );
    assert!(
        parameter(&first, "fwd").is_some(),
        "{}",
        first.header("cache-status")
    );
}

/// `never` tells shared caches to keep the page for a year.
#[tokio::test]
async fn a_page_that_never_expires_says_a_year() {
    let site = posts().await;
    for (path, answer) in [
        ("/posts/1", json!({})),
        ("/posts/2", json!({ "revalidate": "never" })),
    ] {
        site.origin.script(path, answer);
        let answer = site.get(path).await;
        assert_eq!(answer.directive("s-maxage"), Some("31536000"), "{path}");
        assert!(
            answer
                .header("cache-control")
                .starts_with("public, max-age=0"),
            "{path}"
        );
    }
}

/// A stale page says so, and `age` and `cache-status` say how and why.
#[tokio::test]
async fn a_stale_page_says_how_old_it_is_and_why() {
    let site = posts().await;
    site.origin.script("/posts/1", json!({ "revalidate": 1 }));
    site.get("/posts/1").await;
    site.origin.hold("/posts/1");
    let stale = site
        .until("/posts/1", |answer| answer.verdict() == "STALE")
        .await;
    assert_cached(&stale);
    assert_eq!(stale.directive("s-maxage"), Some("1"));
    assert!(stale.header("age").parse::<u64>().unwrap() >= 1);
    // RFC 9211 section 2.4: a stored response that is stale has a ttl that is not positive.
    let ttl: i64 = parameter(&stale, "ttl").unwrap().parse().unwrap();
    assert!(ttl <= 0, "{ttl}");
    assert!(
        parameter(&stale, "detail").is_some(),
        "{}",
        stale.header("cache-status")
    );
    site.origin.release("/posts/1");
}

/// The page's own headers and status are part of the entry.
#[tokio::test]
async fn a_page_brings_its_own_headers_and_status() {
    let site = posts().await;
    let render = json!({ "status": 410, "headers": [["x-greeting", "hello"], ["content-type", "text/plain"]], "body": "gone" });
    site.origin.script("/posts/1", json!({ "render": render }));
    for verdict in ["MISS", "HIT"] {
        let answer = site.get("/posts/1").await;
        assert_eq!((answer.status, answer.verdict()), (410, verdict));
        assert_eq!(answer.header("x-greeting"), "hello");
        assert_eq!(answer.header("content-type"), "text/plain");
        assert_eq!(answer.text(), "gone");
    }
}

/// A body that is not text arrives byte for byte.
#[tokio::test]
async fn bytes_arrive_as_they_were_rendered() {
    let site = posts().await;
    let bytes: Vec<u8> = (0..=255).cycle().take(2000).collect();
    site.origin
        .script("/posts/1", json!({ "render": { "binary": bytes } }));
    let answer = site
        .get_with("/posts/1", &[("accept-encoding", "gzip, br, zstd")])
        .await;
    assert_eq!(answer.decoded(), bytes);
    assert_eq!(answer.header("content-type"), "application/octet-stream");
}

/// Each coding is the same page; the best of those that the reader accepts is sent.
#[tokio::test]
async fn a_page_is_sent_in_the_best_coding_that_the_reader_accepts() {
    let site = posts().await;
    site.origin
        .script("/posts/1", json!({ "render": { "pad": 20_000 } }));
    let plain = site.get("/posts/1").await;
    assert_eq!(plain.header("content-encoding"), "");
    let mut tags = vec![plain.header("etag").to_owned()];
    for (accepted, coding) in [
        ("br", "br"),
        ("zstd", "zstd"),
        ("gzip", "gzip"),
        ("gzip, deflate, br, zstd", "br"),
        ("gzip;q=1.0, br;q=0.1", "gzip"),
        ("br;q=0, zstd;q=0.5, gzip;q=0.4", "zstd"),
        ("*;q=0.1, br;q=0", "zstd"),
        ("GZIP", "gzip"),
        ("identity", ""),
        ("br;q=0, gzip;q=0, zstd;q=0", ""),
        ("identity;q=1, br;q=0.5", ""),
        ("deflate", ""),
        ("", ""),
    ] {
        let answer = site
            .get_with("/posts/1", &[("accept-encoding", accepted)])
            .await;
        assert_eq!(
            (answer.verdict(), answer.header("content-encoding")),
            ("HIT", coding),
            "{accepted:?}"
        );
        assert_eq!(answer.decoded(), plain.body, "{accepted:?}");
        assert_cached(&answer);
        if !coding.is_empty() {
            assert!(
                answer.body.len() < plain.body.len() / 2,
                "{accepted:?} compresses"
            );
        }
        tags.push(answer.header("etag").to_owned());
    }
    tags.sort();
    tags.dedup();
    assert_eq!(tags.len(), 4, "one strong etag per coding: {tags:?}");
    assert_eq!(site.origin.count("/posts/1"), 1);
}

/// HEAD is GET without the body, on a cold page too.
#[tokio::test]
async fn head_is_get_without_the_body() {
    let site = posts().await;
    let head = site.send("HEAD", "/posts/1", &[], "").await;
    assert_eq!(
        (head.status, head.verdict(), head.body.len()),
        (200, "MISS", 0)
    );
    let get = site.get("/posts/1").await;
    assert_eq!((get.verdict(), get.n()), ("HIT", 1));
    let again = site.send("HEAD", "/posts/1", &[], "").await;
    for name in [
        "etag",
        "content-length",
        "content-type",
        "cache-control",
        "last-modified",
        "vary",
    ] {
        assert_eq!(again.header(name), get.header(name), "{name}");
    }
}

/// HEAD on a stale page starts its regeneration, as GET does.
#[tokio::test]
async fn head_starts_a_regeneration() {
    let site = posts().await;
    site.origin.script("/posts/1", json!({ "revalidate": 1 }));
    site.get("/posts/1").await;
    wait_for("a second generation by HEAD alone", async || {
        let head = site.send("HEAD", "/posts/1", &[], "").await;
        let calls = site.origin.count("/posts/1");
        if calls >= 2 {
            Ok(())
        } else {
            Err(format!("{:?}", head.headers))
        }
    })
    .await;
}

/// A page can be read and nothing else; nothing is made for another method.
#[tokio::test]
async fn other_methods_are_answered_405_with_what_is_allowed() {
    let site = posts().await;
    for method in ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"] {
        let answer = site.send(method, "/posts/1", &[], "").await;
        assert_eq!(answer.status, 405, "{method}");
        let allow = answer.header("allow");
        assert!(
            allow.contains("GET") && allow.contains("HEAD"),
            "{method}: {allow:?}"
        );
    }
    assert_eq!(site.origin.count("/posts/1"), 0);
    assert_eq!(site.send("POST", "/nowhere", &[], "").await.status, 404);
}

/// No route: 404 that nobody may keep.
#[tokio::test]
async fn an_unknown_route_is_404_and_not_stored() {
    let site = posts().await;
    for path in ["/nowhere", "/posts", "/posts/1/2"] {
        let answer = site.get(path).await;
        assert_eq!(answer.status, 404, "{path}");
        assert_uncached(&answer);
    }
}

/// `404.wasm` is what a missing page looks like.
#[tokio::test]
async fn the_404_page_is_shown_for_what_is_missing() {
    let site = Site::new()
        .pages(&["posts/[id]", "404"])
        .script(
            "/404",
            json!({ "render": { "body": "<h1>our own 404</h1>" } }),
        )
        .script("/posts/gone", json!({ "outcome": "not-found" }))
        .start()
        .await;
    let unknown = site
        .until("/nowhere", |answer| answer.text().contains("our own 404"))
        .await;
    assert_eq!(unknown.status, 404);
    assert_uncached(&unknown);
    let gone = site.get("/posts/gone").await;
    assert_eq!(
        (gone.status, gone.text().as_str()),
        (404, "<h1>our own 404</h1>")
    );
    assert_eq!(gone.directive("s-maxage"), Some("60"));
}

/// A 404 page that only fails is not tried again for each reader: what it reads from may be what is
/// slow.
#[tokio::test]
async fn a_404_page_that_fails_keeps_nobody_waiting() {
    let site = Site::new()
        .pages(&["index", "404"])
        .script("/404", json!({ "outcome": "error" }))
        .start()
        .await;
    for _ in 0..5 {
        let missing = site.get("/nowhere").await;
        assert_eq!(missing.status, 404);
        let told = missing.text();
        assert!(told.contains("Nothing is published"), "{told}");
    }
    assert_eq!(site.origin.count("/404"), 1);
}

/// `500.wasm` is what a failure looks like.
#[tokio::test]
async fn the_500_page_is_shown_for_a_failure() {
    let site = Site::new()
        .pages(&["posts/[id]", "500"])
        .script(
            "/500",
            json!({ "render": { "body": "<h1>our own 500</h1>" } }),
        )
        .script("/posts/1", json!({ "outcome": "error" }))
        .start()
        .await;
    let answer = site
        .until("/posts/1", |answer| answer.text().contains("our own 500"))
        .await;
    assert_eq!(answer.status, 500);
    assert_uncached(&answer);
}

/// Who goes on with something else than there is now is told so: 412 (RFC 9110 13.1.1, 13.1.4).
#[tokio::test]
async fn a_reader_who_means_another_page_gets_412() {
    let site = posts().await;
    let page = site.get("/posts/1").await;
    let before = "Sun, 06 Nov 1994 08:49:37 GMT";
    for (header, value, status) in [
        ("if-match", page.header("etag"), 200),
        ("if-match", "*", 200),
        ("if-match", "\"other\"", 412),
        ("if-unmodified-since", page.header("last-modified"), 200),
        ("if-unmodified-since", before, 412),
    ] {
        let answer = site.get_with("/posts/1", &[(header, value)]).await;
        assert_eq!(answer.status, status, "{header}: {value}");
        if status == 412 {
            assert_uncached(&answer);
        }
    }
    // There is nothing to be another one of.
    let missing = site.get_with("/nowhere", &[("if-match", "\"x\"")]).await;
    assert_eq!(missing.status, 404);
}

/// `if-none-match` by value, weakly compared, in a list, or `*` answers 304 (RFC 9110 13.1.2).
#[tokio::test]
async fn a_reader_who_has_the_page_gets_304() {
    let site = posts().await;
    site.origin
        .script("/posts/1", json!({ "render": { "pad": 5000 } }));
    let page = site.get("/posts/1").await;
    let etag = page.header("etag").to_owned();
    for (value, status) in [
        (etag.clone(), 304),
        (format!("W/{etag}"), 304),
        (format!("\"other\", {etag}"), 304),
        ("*".to_owned(), 304),
        ("\"other\"".to_owned(), 200),
        (etag.trim_matches('"').to_owned(), 200),
    ] {
        let answer = site
            .get_with("/posts/1", &[("if-none-match", &value)])
            .await;
        assert_eq!(answer.status, status, "if-none-match: {value}");
        if status == 304 {
            assert_eq!(answer.body.len(), 0);
            for name in ["etag", "cache-control", "vary", "date"] {
                assert!(
                    !answer.header(name).is_empty(),
                    "RFC 9110 15.4.5 wants {name}"
                );
            }
            assert_eq!(answer.header("etag"), etag);
        }
    }
    let headers = [
        ("if-none-match", etag.as_str()),
        ("accept-encoding", "gzip"),
    ];
    let coded = site.get_with("/posts/1", &headers).await;
    assert_eq!(
        coded.status, 200,
        "the etag of another coding is another representation"
    );
}

/// `if-modified-since` counts unless `if-none-match` is there, which then decides alone
/// (RFC 9110 13.2.2).
#[tokio::test]
async fn an_etag_outranks_a_date() {
    let site = posts().await;
    let page = site.get("/posts/1").await;
    let (etag, modified) = (page.header("etag"), page.header("last-modified"));
    let old = "Mon, 01 Jan 2001 00:00:00 GMT";
    let cases: [(&[(&str, &str)], u16); 6] = [
        (&[("if-modified-since", modified)], 304),
        (&[("if-modified-since", old)], 200),
        (&[("if-modified-since", "not a date")], 200),
        (
            &[
                ("if-none-match", "\"other\""),
                ("if-modified-since", modified),
            ],
            200,
        ),
        (&[("if-none-match", etag), ("if-modified-since", old)], 304),
        (&[("if-none-match", etag), ("range", "bytes=0-1")], 304),
    ];
    for (headers, status) in cases {
        assert_eq!(
            site.get_with("/posts/1", headers).await.status,
            status,
            "{headers:?}"
        );
    }
    let head = site
        .send("HEAD", "/posts/1", &[("if-none-match", etag)], "")
        .await;
    assert_eq!(head.status, 304);
}

/// A 304 from a stale entry still has the page made anew.
#[tokio::test]
async fn a_304_from_a_stale_page_starts_a_regeneration() {
    let site = posts().await;
    site.origin.script(
        "/posts/1",
        json!({ "revalidate": 1, "render": { "body": "same" } }),
    );
    let etag = site.get("/posts/1").await.header("etag").to_owned();
    wait_for("a second generation by 304s alone", async || {
        let answer = site.get_with("/posts/1", &[("if-none-match", &etag)]).await;
        assert_eq!(answer.status, 304, "the same bytes have the same etag");
        if site.origin.count("/posts/1") >= 2 {
            Ok(())
        } else {
            Err(answer.verdict().to_owned())
        }
    })
    .await;
}

/// What a request says of caching never bypasses the cache.
#[tokio::test]
async fn a_reader_cannot_force_a_generation() {
    let site = posts().await;
    site.get("/posts/1").await;
    for header in [
        ("cache-control", "no-cache"),
        ("cache-control", "max-age=0"),
        ("pragma", "no-cache"),
    ] {
        assert_eq!(
            site.get_with("/posts/1", &[header]).await.verdict(),
            "HIT",
            "{header:?}"
        );
    }
    assert_eq!(site.origin.count("/posts/1"), 1);
}

/// A request without `host`, or with two, is not answered (RFC 9112 section 3.2).
#[tokio::test]
async fn a_request_names_its_host_exactly_once() {
    let site = posts().await;
    for head in [
        "GET /posts/1 HTTP/1.1\r\nconnection: close\r\n\r\n",
        "GET /posts/1 HTTP/1.1\r\nhost: a\r\nhost: b\r\nconnection: close\r\n\r\n",
    ] {
        let answer = site.raw(head.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{head:?}: {answer:?}");
    }
    let good = site
        .raw(b"GET /posts/1 HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        .await;
    assert!(good.starts_with("HTTP/1.1 200"), "{good:?}");
}

/// The data route serves the props of the very entry that the page shows.
#[tokio::test]
async fn the_data_of_a_page_is_its_props_from_the_same_generation() {
    let site = Site::new().pages(&["index", "posts/[id]"]).start().await;
    for (page, data) in [
        ("/posts/1", "/_wisr/data/posts/1.json"),
        ("/", "/_wisr/data/index.json"),
    ] {
        let first = site.get(data).await;
        assert_eq!(first.status, 200, "{data}");
        assert!(
            first.header("content-type").starts_with("application/json"),
            "{:?}",
            first.headers
        );
        assert_cached(&first);
        let shown = site.get(page).await;
        assert_eq!(shown.verdict(), "HIT", "{page}: the data made the page");
        assert_eq!(shown.puppet()["props"], first.json(), "{page}");
        assert_eq!(
            shown.directive("s-maxage"),
            first.directive("s-maxage"),
            "{page}"
        );
        assert_ne!(
            shown.header("etag"),
            first.header("etag"),
            "two representations"
        );
        assert_eq!(site.origin.count(page), 1, "{page}");
        let etag = [("if-none-match", first.header("etag"))];
        assert_eq!(site.get_with(data, &etag).await.status, 304, "{data}");
    }
}

/// Missing and moved pages say so as JSON.
#[tokio::test]
async fn the_data_of_missing_and_moved_pages_says_so() {
    let site = posts().await;
    site.origin
        .script("/posts/gone", json!({ "outcome": "not-found" }));
    site.origin.script(
        "/posts/moved",
        json!({ "outcome": "redirect", "location": "/new", "redirect_status": 308 }),
    );
    let gone = site.get("/_wisr/data/posts/gone.json").await;
    assert_eq!(
        (gone.status, gone.json()),
        (404, json!({ "notFound": true }))
    );
    let moved = site.get("/_wisr/data/posts/moved.json").await;
    let target = json!({ "redirect": { "location": "/new", "status": 308 } });
    assert_eq!((moved.status, moved.json()), (200, target));
    // It is a success, so that it can be asked whether it is still the same.
    let tag = [("if-none-match", moved.header("etag"))];
    let again = site.get_with("/_wisr/data/posts/moved.json", &tag).await;
    assert_eq!(again.status, 304);
    for path in ["/posts/moved", "/posts/gone"] {
        let any = site.get_with(path, &[("if-none-match", "*")]).await;
        assert_ne!((any.status, any.body.len()), (304, 0), "{path}");
        assert!(!any.headers.contains_key("etag"), "{path}");
    }
    assert_eq!(site.get("/_wisr/data/nowhere.json").await.status, 404);
}

/// Files in `public/` are served as they are, before pages.
#[tokio::test]
async fn static_files_are_served() {
    let site = Site::new()
        .pages(&["[slug]"])
        .file("public/robots.txt", b"User-agent: *\n")
        .file("public/a/b.css", b"body{}")
        .start()
        .await;
    let robots = site.get("/robots.txt").await;
    assert_eq!(
        (robots.status, robots.text().as_str()),
        (200, "User-agent: *\n")
    );
    assert!(
        robots.header("content-type").starts_with("text/plain"),
        "{:?}",
        robots.headers
    );
    assert_eq!(site.get("/a/b.css").await.text(), "body{}");
    assert_eq!(site.get("/a/none.css").await.status, 404);
    let escape = site
        .raw(b"GET /a/../../wisr.toml HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        .await;
    assert!(
        !escape.contains("origin ="),
        "only the public folder is public: {escape}"
    );
    let escape = site
        .raw(b"GET /%2e%2e/wisr.toml HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        .await;
    assert!(
        !escape.contains("origin ="),
        "only the public folder is public: {escape}"
    );
}

/// SIGTERM lets the reader who waits have the page, and then the server ends well.
#[tokio::test]
async fn a_stopping_server_finishes_what_it_began() {
    let mut site = posts().await;
    site.origin.hold("/posts/1");
    let waiting = site.waiting("/posts/1");
    site.until_calls("/posts/1", 1).await;
    site.terminate();
    wait_for(
        "no new connections",
        async || match tokio::net::TcpStream::connect(site.site()).await {
            Ok(_) => Err("it still accepts".to_owned()),
            Err(_) => Ok(()),
        },
    )
    .await;
    site.origin.release("/posts/1");
    let status = site.ended().await;
    assert!(status.success(), "{status}");
    assert_eq!(waiting.await.unwrap().status, 200);
}
