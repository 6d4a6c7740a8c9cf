//! Section 3: nothing that one client sends changes what another one gets, or makes a second entry
//! for a page. And what callers know stays with them.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use serde_json::json;

use crate::client::{Response, raw};
use crate::site::{Running, Site, TOKEN};

/// What an attacker would like to find again in somebody's page.
const POISON: &str = "poison-7f3a";

/// The pages of the site, each by its one address.
const PAGES: [&str; 5] = ["/", "/about", "/posts/1", "/search", "/search?q=rust"];

async fn site() -> Running {
    let site = Site::new()
        .pages(&["index", "about", "posts/[id]", "search"])
        .config("[routes.\"/search\"]\nquery = [\"q\"]")
        .file("public/app.css", b"body{}")
        .start()
        .await;
    for page in PAGES {
        site.get(page).await;
    }
    site
}

/// What does not change from one answer to the next.
fn lasting(answer: &Response) -> (u16, BTreeMap<String, String>, String) {
    let headers = answer.headers.iter().map(|(name, value)| {
        (
            name.to_string(),
            String::from_utf8_lossy(value.as_bytes()).into_owned(),
        )
    });
    let moving = ["date", "age", "cache-status"];
    let headers = headers.filter(|(name, _)| !moving.contains(&name.as_str()));
    (answer.status, headers.collect(), answer.text())
}

async fn shown(site: &Running) -> Vec<(u16, BTreeMap<String, String>, String)> {
    let answers = join_all(PAGES.iter().map(|page| site.get(page))).await;
    answers.iter().map(lasting).collect()
}

/// The keys of all entries.
async fn entries(site: &Running) -> Vec<String> {
    let told = site.admin("/api/entries?limit=1000").await.json();
    let entries = told["entries"].as_array().unwrap().iter();
    let mut keys: Vec<String> = entries
        .map(|entry| entry["path"].as_str().unwrap().to_owned())
        .collect();
    keys.sort();
    keys
}

fn request(method: &str, target: &str, lines: &str, body: &str) -> Vec<u8> {
    let length = match body.len() {
        0 => String::new(),
        length => format!("content-length: {length}\r\n"),
    };
    format!(
        "{method} {target} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{length}{lines}\r\n{body}"
    )
    .into_bytes()
}

/// Lines that move pages, change their form or unlock them elsewhere.
fn headers() -> Vec<String> {
    let poisoned = [
        "x-forwarded-host",
        "x-forwarded-proto",
        "x-forwarded-for",
        "x-forwarded-port",
        "x-forwarded-prefix",
        "x-forwarded-scheme",
        "x-original-url",
        "x-rewrite-url",
        "x-original-host",
        "x-host",
        "forwarded",
        "via",
        "cookie",
        "authorization",
        "user-agent",
        "referer",
        "origin",
        "accept",
        "accept-language",
        "accept-charset",
        "content-type",
        "x-http-method-override",
        "x-method-override",
        "x-wisr-cache",
        "x-prerender-revalidate",
        "x-middleware-prefetch",
        "x-nextjs-data",
        "rsc",
        "purpose",
        "sec-fetch-dest",
        "range",
        "if-match",
        "cache-control",
        "pragma",
        "upgrade-insecure-requests",
        "x-real-ip",
        "true-client-ip",
        "surrogate-capability",
        "cdn-loop",
    ];
    let poisoned = poisoned.iter().map(|name| format!("{name}: {POISON}\r\n"));
    let real = [
        "x-http-method-override: POST",
        "x-http-method-override: PURGE",
        "x-original-url: /about",
        "x-rewrite-url: /about",
        "range: bytes=0-3",
        "range: bytes=5-1",
        "cache-control: no-cache",
        "cache-control: no-store",
        "pragma: no-cache",
        "accept-encoding: br",
        "accept-encoding: gzip, *;q=0",
        "accept-encoding: identity;q=0, *;q=0",
        "if-none-match: *",
        "if-modified-since: Fri, 01 Jan 2100 00:00:00 GMT",
        "te: trailers",
        "purpose: prefetch",
        "sec-fetch-dest: document",
        "x-forwarded-host: a\r\nx-forwarded-host: b",
        "cookie: __prerender_bypass=1",
        "expect: 100-continue",
    ];
    poisoned
        .chain(real.iter().map(|line| format!("{line}\r\n")))
        .collect()
}

/// Other ways to write `/about`, and what leads near it.
const PATHS: [&str; 34] = [
    "//about",
    "/about/",
    "/./about",
    "/x/../about",
    "/%2e/about",
    "/x/%2e%2e/about",
    "/x/..%2fabout",
    "/%61bout",
    "/%41bout",
    "/ABOUT",
    "/about%2f",
    "/about%2F..",
    "/about;a=b",
    "/about;jsessionid=1",
    "/about.",
    "/about%20",
    "/about%09",
    "/about%00",
    "/about%0d%0ax:y",
    "/about%23",
    "/about%3F",
    "/about.css",
    "/about/app.css",
    "/about%2fapp.css",
    "/about%3b.css",
    "/about\\",
    "/\\about",
    "/..\\about",
    "/about%5c",
    "/about%ff",
    "/about%c0%af",
    "/about%252f",
    "/about#x",
    "/_wisr/data/about/.json",
];

/// Other ways to write the query of `/search?q=rust`.
const QUERIES: [&str; 16] = [
    "q=rust&utm=poison-7f3a",
    "utm=poison-7f3a&q=rust",
    "q=rust&q=poison-7f3a",
    "%71=rust",
    "q=%72ust",
    "q=%72%75%73%74",
    "&&q=rust&&",
    "q=rust&",
    "q=rust&=",
    "q=rust&Q=poison-7f3a",
    "q=rust#x",
    "q=rust&q%00=poison-7f3a",
    "q=rust&q[]=poison-7f3a",
    "q=rust;q=poison-7f3a&q=rust",
    "x=%zz&q=rust",
    "x=\\&q=rust",
];

/// Of each request: the page that it is for, where there is one.
fn attacks() -> Vec<(Option<&'static str>, Vec<u8>)> {
    let mut attacks = Vec::new();
    for page in PAGES {
        for lines in headers() {
            attacks.push((Some(page), request("GET", page, &lines, "")));
        }
        for method in [
            "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PURGE", "get",
        ] {
            attacks.push((None, request(method, page, "", POISON)));
        }
        attacks.push((Some(page), request("GET", page, "", POISON)));
        let absolute = format!("http://{POISON}{page}");
        attacks.push((Some(page), request("GET", &absolute, "", "")));
    }
    for path in PATHS {
        attacks.push((None, request("GET", path, "", "")));
    }
    attacks.extend(mixtures());
    // Whatever route allows no parameter has one page for all of them.
    for query in QUERIES {
        let target = format!("/about?{query}");
        attacks.push((Some("/about"), request("GET", &target, "", "")));
    }
    attacks
}

/// Several at once, which ones being left to chance: the same each time.
fn mixtures() -> Vec<(Option<&'static str>, Vec<u8>)> {
    let mut chance = fastrand::Rng::with_seed(7);
    let headers = headers();
    let mixed = (0..200).map(|_| {
        let page = PAGES[chance.usize(..3)];
        let query = QUERIES[chance.usize(..QUERIES.len())];
        let lines: String = (0..4)
            .map(|_| &*headers[chance.usize(..headers.len())])
            .collect();
        let body = if chance.bool() { POISON } else { "" };
        let target = format!("{page}?{query}");
        (Some(page), request("GET", &target, &lines, body))
    });
    mixed.collect()
}

/// No header, method, body or spelling changes a page for others, shows anything of itself in it,
/// or is kept as a page of its own.
#[tokio::test]
async fn nothing_that_a_client_sends_is_there_for_the_next() {
    let site = site().await;
    let (pages, known) = (shown(&site).await, entries(&site).await);
    assert_eq!(known, PAGES);
    let calls = site.origin.all_calls().len();
    for (page, bytes) in attacks() {
        let sent = String::from_utf8_lossy(&bytes).into_owned();
        let answer = raw(site.site(), &bytes).await;
        assert!(!answer.starts_with("HTTP/1.1 5"), "{sent}{answer}");
        // A redirect to the normal form keeps the query; nothing else tells what was sent.
        let quotes = answer.contains(POISON) && !answer.starts_with("HTTP/1.1 308");
        assert!(!quotes, "{sent}{answer}");
        if page.is_some() {
            let is_kind = ["HTTP/1.1 200", "HTTP/1.1 304", "HTTP/1.1 406"]
                .iter()
                .any(|status| answer.starts_with(status));
            // What is no page of anybody's is kept by nobody.
            let is_unkept = answer.starts_with("HTTP/1.1 412") && answer.contains("no-store");
            assert!(is_kind || is_unkept, "{sent}{answer}");
        }
    }
    for query in QUERIES {
        let answer = site
            .raw(&request("GET", &format!("/search?{query}"), "", ""))
            .await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{query}: {answer}");
        assert!(
            !answer.contains(POISON) || query.starts_with("q=rust;"),
            "{query}: {answer}"
        );
    }
    assert_eq!(shown(&site).await, pages);
    let mut expected: Vec<String> = PAGES.map(str::to_owned).to_vec();
    // A semicolon parts nothing: this is another value, and another page.
    expected.push("/search?q=rust%3Bq%3Dpoison-7f3a".to_owned());
    assert_eq!(entries(&site).await, expected);
    assert_eq!(site.origin.all_calls().len(), calls + 1);
}

/// What leads to a page by another name than its own would be a second copy in every cache in
/// front; and one that ends like a file might be kept where pages are not.
#[tokio::test]
async fn a_page_has_no_second_address() {
    let site = site().await;
    for path in PATHS {
        let answer = site.raw(&request("GET", path, "", "")).await;
        let same = ["/%61bout", "/about#x"].contains(&path);
        assert_eq!(answer.starts_with("HTTP/1.1 200"), same, "{path}: {answer}");
    }
    for (path, status) in [
        ("/_wisr/data/index.json", 200),
        ("/_wisr/data/posts/1.json", 200),
        ("/_wisr/data/.json", 404),
        ("/_wisr/data/posts/.json", 404),
        ("/_wisr/data/posts%2F1.json", 404),
        ("/_wisr/data/about", 404),
        ("/_wisr/data/about.json.json", 404),
        ("/_wisr/data/index", 404),
        ("/_wisr/data/", 308),
        ("/_wisr/data//about.json", 308),
        ("/_wisr/data/../../about", 308),
        ("/_wisr/about.json", 404),
        ("/app.css", 200),
        ("/app.css/about", 404),
        ("/app%2ecss", 200),
    ] {
        assert_eq!(site.get(path).await.status, status, "{path}");
    }
}

/// Who is shown a draft, a preview or a private page elsewhere is shown here what all are shown.
#[tokio::test]
async fn who_asks_first_is_nobody_special() {
    let site = Site::new().pages(&["posts/[id]"]).start().await;
    for (number, lines) in headers().iter().enumerate() {
        let path = format!("/posts/{number}");
        let first = site.raw(&request("GET", &path, lines, "")).await;
        assert!(!first.contains(POISON), "{first}");
        let second = site.get(&path).await;
        assert_eq!((second.status, second.verdict()), (200, "HIT"), "{lines}");
        assert!(!second.text().contains(POISON), "{lines}");
        assert_eq!(second.header("content-encoding"), "", "{lines}");
    }
    assert_eq!(site.origin.all_calls().len(), headers().len());
}

/// Wrong tokens are refused, then not even compared; a right one passes, for all may be behind a
/// proxy's address. No token is told to anybody, and none is logged.
#[tokio::test]
async fn tokens_stay_with_those_who_know_them() {
    let site = Site::new()
        .pages(&["index"])
        .config("[server]\nadmin-token = \"admin-token-4711\"")
        .logging("trace")
        .start_unready()
        .await;
    let call = async |method: &str, secret: &str, bearer: &str, body: &str| {
        let target = format!("/api/revalidate?secret={secret}&path=/");
        let bearer = [("authorization", bearer)];
        let headers = if bearer[0].1.is_empty() {
            &[][..]
        } else {
            &bearer
        };
        site.send(method, &target, headers, body).await
    };
    for number in 0..10 {
        let wrong = format!("wrong-{number}-{TOKEN}");
        let answer = call("GET", &wrong, "", "").await;
        assert_eq!(answer.status, 401, "{number}");
        assert!(!answer.text().contains(TOKEN), "{}", answer.text());
    }
    let answer = call("POST", "wrong-again", "", "{}").await;
    let wait: u64 = answer.header("retry-after").parse().unwrap();
    assert_eq!((answer.status, (1..=6).contains(&wait)), (429, true));
    assert_eq!(call("GET", TOKEN, "", "").await.status, 200);
    let bearer = format!("Bearer {TOKEN}");
    assert_eq!(call("GET", TOKEN, &bearer, "").await.status, 429);
    let many = json!({"paths": vec!["/"; 1001]}).to_string();
    assert_eq!(call("POST", TOKEN, "", &many).await.status, 400);
    assert_eq!(
        call("POST", TOKEN, "", &" ".repeat(65 << 10)).await.status,
        413
    );
    assert_eq!(site.admin("/metrics").await.status, 401);

    let log = site.log();
    assert!(log.contains("TRACE") || log.contains("DEBUG"), "{log}");
    for secret in ["secret=", "wrong-again", "Bearer", "admin-token-4711"] {
        assert!(!log.contains(secret), "{secret} in {log}");
    }
}

/// What a browser is told of the admin door: nothing of others runs in it, frames it or is loaded.
#[tokio::test]
async fn the_admin_door_is_a_place_for_nothing_else() {
    let site = site().await;
    for path in ["/", "/api/routes", "/metrics", "/nothing"] {
        let answer = site.admin(path).await;
        let policy = answer.header("content-security-policy");
        let is_page = answer.header("content-type").starts_with("text/html");
        let (form, from) = match is_page {
            true => ("form-action 'self'", "same-origin"),
            false => ("form-action 'none'", "no-referrer"),
        };
        for rule in ["default-src 'none'", "frame-ancestors 'none'", form] {
            assert!(policy.contains(rule), "{path}: {policy}");
        }
        // Pages have a script, which is a file of wisr's own.
        assert_eq!(
            policy.contains("script-src 'self';"),
            is_page,
            "{path}: {policy}"
        );
        for loose in ["unsafe", "data:", "http:", "*"] {
            assert!(!policy.contains(loose), "{path}: {policy}");
        }
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(answer.header("referrer-policy"), from, "{path}");
        assert_eq!(answer.header("cache-control"), "no-store", "{path}");
        assert_eq!(answer.header("access-control-allow-origin"), "", "{path}");
    }
    // A name of somebody else's that resolves to this machine.
    for host in [
        "evil.example",
        "evil.example:3001",
        "localhost.evil.example",
        "127.0.0.1.nip.io",
    ] {
        let head = format!("GET /api/routes HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
        let answer = raw(site.admin_door(), head.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 421 "), "{host}: {answer}");
    }
}
