//! Section 4: drafts, which an editor alone sees: made anew for each request, and kept nowhere.

use std::time::Duration;

use serde_json::json;

use crate::client::Response;
use crate::site::{Running, Site, all};

const TOKEN: &str = "a draft token of some length";

/// Posts of which only the first is listed, and draft mode.
fn site() -> Site {
    let listed = json!({"paths": [{"id": "1"}], "fallback": "not-found"});
    Site::new()
        .pages(&["index", "posts/[id]"])
        .listed("/posts/[id]", "posts", listed)
        .config(&format!("[draft]\ntoken = {TOKEN:?}"))
}

async fn enter(site: &Running, query: &str) -> Response {
    let token = TOKEN.replace(' ', "+");
    site.get(&format!("/api/draft?secret={token}{query}")).await
}

/// The cookie that an editor's browser sends from then on.
async fn pass(site: &Running) -> String {
    let entered = enter(site, "&path=/posts/1").await;
    assert_eq!(entered.status, 307, "{}", entered.text());
    let cookie = entered.header("set-cookie");
    cookie.split(';').next().unwrap().to_owned()
}

async fn draft(site: &Running, path: &str, pass: &str) -> Response {
    site.get_with(path, &[("cookie", pass)]).await
}

/// Who knows the token gets a cookie and is sent to the page; the page sees no more than its cause.
#[tokio::test]
async fn an_editor_sees_what_is_there_now() {
    let site = site().start().await;
    assert_eq!(site.get("/posts/1").await.n(), 1);
    let entered = enter(&site, "&path=/posts/1").await;
    assert_eq!(
        (entered.status, entered.header("location")),
        (307, "/posts/1")
    );
    assert_eq!(entered.header("cache-control"), "private, no-store");
    assert_eq!(entered.header("referrer-policy"), "no-referrer");
    let cookie = entered.header("set-cookie");
    assert!(
        cookie.ends_with("; Max-Age=3600; Path=/; HttpOnly; SameSite=Lax"),
        "{cookie}"
    );
    let pass = pass(&site).await;
    for n in [2, 3] {
        let page = draft(&site, "/posts/1", &pass).await;
        assert_eq!((page.status, page.verdict(), page.n()), (200, "BYPASS", n));
        assert_eq!(page.header("cache-control"), "private, no-store");
        assert_eq!(page.header("cache-status"), "wisr; fwd=bypass");
        for absent in ["etag", "age", "last-modified", "set-cookie"] {
            assert_eq!(page.header(absent), "", "{absent}");
        }
        assert!(!page.text().contains("wisr_draft"));
    }
    // Readers get what was published, and nobody made it anew for them.
    let page = site.get("/posts/1").await;
    assert_eq!((page.verdict(), page.n()), ("HIT", 1));
    let data = draft(&site, "/_wisr/data/posts/1.json", &pass).await;
    assert_eq!((data.status, data.verdict()), (200, "BYPASS"));
    assert_eq!(data.json()["n"], 4);
    let causes = site.origin.causes("/posts/1");
    assert_eq!(causes[1..], ["Draft", "Draft", "Draft"]);
    let head = site
        .send("HEAD", "/posts/1", &[("cookie", &pass)], "")
        .await;
    assert_eq!(
        (head.status, head.verdict(), head.body.len()),
        (200, "BYPASS", 0)
    );
    assert_eq!(
        site.send("POST", "/posts/1", &[("cookie", &pass)], "")
            .await
            .status,
        405
    );
}

/// What is not listed yet can be drafted; what has no page even so is a 404, and so is it to readers.
#[tokio::test]
async fn what_is_not_listed_can_be_drafted() {
    let site = site()
        .script("/posts/3", json!({"outcome": "not-found"}))
        .script(
            "/posts/4",
            json!({"outcome": "redirect", "location": "/posts/1"}),
        )
        .start()
        .await;
    let entered = enter(&site, "&path=/posts/2").await;
    assert_eq!(
        (entered.status, entered.header("location")),
        (307, "/posts/2")
    );
    let pass = pass(&site).await;
    assert_eq!(site.get("/posts/2").await.status, 404);
    let page = draft(&site, "/posts/2", &pass).await;
    assert_eq!((page.status, page.verdict()), (200, "BYPASS"));
    assert_eq!(site.get("/posts/2").await.status, 404);
    for (path, status) in [
        ("/posts/3", 404),
        ("/_wisr/data/posts/3.json", 404),
        ("/posts/4", 307),
    ] {
        let answer = draft(&site, path, &pass).await;
        assert_eq!(
            (answer.status, answer.verdict()),
            (status, "BYPASS"),
            "{path}"
        );
    }
    assert_eq!(draft(&site, "/nowhere", &pass).await.status, 404);
    let entries = site.admin("/api/entries?prefix=/posts").await.json();
    assert!(!entries.to_string().contains("/posts/2"), "{entries}");
}

/// A wrong token opens nothing, and nobody is sent away from the site.
#[tokio::test]
async fn the_door_to_drafts_is_guarded() {
    let site = site().start().await;
    for query in [
        "",
        "?path=/posts/1",
        "?secret=&path=/posts/1",
        "?secret=secret&path=/posts/1",
        "?secret=a+draft+token+of+some+lengt&path=/posts/1",
    ] {
        let refused = site.get(&format!("/api/draft{query}")).await;
        assert_eq!(refused.status, 401, "{query}");
        assert_eq!(refused.header("set-cookie"), "");
    }
    for (query, status, location) in [
        ("&path=//evil.example/", 404, ""),
        ("&path=https://evil.example/", 400, ""),
        ("&path=/%5Cevil.example", 404, ""),
        ("&path=%2F%2Fevil.example", 404, ""),
        ("&path=/nowhere", 404, ""),
        ("&path=/posts/1?a=%0d%0aset-cookie:b=c", 400, ""),
        ("&path=/a/../posts/./1/", 307, "/posts/1"),
        ("&slug=/posts/1?preview=1", 307, "/posts/1?preview=1"),
        ("", 307, "/"),
    ] {
        let answer = enter(&site, query).await;
        assert_eq!(
            (answer.status, answer.header("location")),
            (status, location),
            "{query}"
        );
    }
    // A draft token is no revalidate token, nor the other way round.
    let token = TOKEN.replace(' ', "+");
    let revalidate = site
        .get(&format!("/api/revalidate?secret={token}&path=/"))
        .await;
    assert_eq!(revalidate.status, 401);
    assert_eq!(site.send("POST", "/api/draft", &[], "").await.status, 405);
    for _ in 0..20 {
        site.get("/api/draft?secret=guess").await;
    }
    let refused = site.get("/api/draft?secret=guess").await;
    assert_eq!(refused.status, 429);
    assert_ne!(refused.header("retry-after"), "");
}

/// A cookie that is forged, of another site or host, or too old is no cookie.
#[tokio::test]
async fn other_cookies_are_ignored() {
    let site = site().config("[draft]\nlifetime = \"2s\"").start().await;
    let other = Site::new()
        .pages(&["posts/[id]"])
        .config("[draft]\ntoken = \"another token of some length\"")
        .start()
        .await;
    let pass = pass(&site).await;
    assert_eq!(draft(&site, "/posts/1", &pass).await.verdict(), "BYPASS");
    assert_eq!(draft(&other, "/posts/1", &pass).await.verdict(), "MISS");
    let forged = pass.replace("wisr_draft=1.1", "wisr_draft=1.2");
    let last = pass.chars().last().unwrap();
    let changed = format!(
        "{}{}",
        &pass[..pass.len() - 1],
        if last == 'A' { 'B' } else { 'A' }
    );
    for cookie in [&forged, &changed, "wisr_draft=1", "wisr_draft=", "a=1"] {
        let page = draft(&site, "/posts/1", cookie).await;
        assert_eq!((page.status, page.verdict()), (200, "HIT"), "{cookie}");
    }
    let host = [("host", "elsewhere.example"), ("cookie", &*pass)];
    assert_eq!(site.get_with("/posts/1", &host).await.verdict(), "HIT");
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while draft(&site, "/posts/1", &pass).await.verdict() == "BYPASS" {
        assert!(tokio::time::Instant::now() < deadline, "it never expires");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(draft(&site, "/posts/1", &pass).await.verdict(), "HIT");
}

/// Draft mode ends by a form of the site itself; a link that is fetched ahead ends nothing.
#[tokio::test]
async fn draft_mode_ends_when_the_editor_says_so() {
    let site = site().start().await;
    let asked = site.get("/api/draft/off?path=/posts/1").await;
    assert_eq!((asked.status, asked.header("set-cookie")), (200, ""));
    assert!(
        asked
            .text()
            .contains("action=\"/api/draft/off?path=/posts/1\""),
        "{}",
        asked.text()
    );
    let left = site
        .send("POST", "/api/draft/off?path=/posts/1", &[], "")
        .await;
    assert_eq!((left.status, left.header("location")), (303, "/posts/1"));
    assert!(
        left.header("set-cookie")
            .starts_with("wisr_draft=; Max-Age=0; Path=/")
    );
    let foreign = [("sec-fetch-site", "cross-site")];
    let refused = site.send("POST", "/api/draft/off", &foreign, "").await;
    assert_eq!((refused.status, refused.header("set-cookie")), (403, ""));
    let evil = site
        .send("POST", "/api/draft/off?path=//evil.example", &[], "")
        .await;
    assert_eq!(evil.header("location"), "/evil.example");
}

/// A draft that fails says why to the editor, leaves the page as it was, and its module in place.
#[tokio::test]
async fn a_failing_draft_harms_nobody() {
    let site = site().start().await;
    assert_eq!(site.get("/posts/1").await.n(), 1);
    let pass = pass(&site).await;
    site.origin.script("/posts/1", json!({"outcome": "error"}));
    for _ in 0..6 {
        let failed = draft(&site, "/posts/1", &pass).await;
        assert_eq!((failed.status, failed.verdict()), (500, "BYPASS"));
        assert_eq!(failed.header("cache-control"), "private, no-store");
        let text = failed.text();
        assert!(
            text.contains("This draft failed") && text.contains("static-props"),
            "{text}"
        );
        assert!(
            !text.contains("http://127.0.0.1"),
            "its fetches are told: {text}"
        );
    }
    let data = draft(&site, "/_wisr/data/posts/1.json", &pass).await;
    assert_eq!((data.status, data.verdict()), (500, "BYPASS"));
    let incident = site.until_incident("error", "").await;
    assert_eq!(incident["cause"], "draft");
    let page = site.get("/posts/1").await;
    assert_eq!(
        (page.verdict(), page.n(), page.header("cache-status")),
        ("HIT", 1, "wisr; hit")
    );
    site.origin.heal("/posts/1");
    // No back-off was begun.
    site.renew("/posts/1").await;
}

/// Drafts share no flight with readers, and have places of their own.
#[tokio::test]
async fn editors_do_not_keep_readers_from_their_pages() {
    let site = site()
        .config("[generations]\nconcurrency = 8\nwait = \"5s\"")
        .config("[defaults]\nwall = \"60s\"")
        .start()
        .await;
    let pass = pass(&site).await;
    site.origin.hold("/posts/1");
    let drafts = (0..50).map(|_| {
        let mut editor = site.reader();
        let pass = pass.clone();
        tokio::spawn(async move {
            let cookie = [("cookie", &*pass)];
            editor.send("GET", "/posts/1", &cookie, "").await.unwrap()
        })
    });
    let drafts: Vec<_> = drafts.collect();
    // The listed page, made ahead, and two drafts.
    site.until_calls("/posts/1", 3).await;
    // A quarter of the places is taken; a reader has one of the others.
    site.renew("/").await;
    assert_eq!(site.get("/").await.verdict(), "HIT");
    let made = site
        .origin
        .causes("/posts/1")
        .iter()
        .filter(|cause| *cause == "Draft")
        .count();
    assert!(made <= 2, "{made} drafts at once");
    site.origin.release("/posts/1");
    let answers = all(drafts).await;
    let busy = answers.iter().filter(|answer| answer.status == 503).count();
    // 2 places and a line of 32.
    assert_eq!(busy, 50 - 34);
    let mut numbers: Vec<_> = answers
        .iter()
        .filter(|answer| answer.status == 200)
        .map(Response::n)
        .collect();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), 34, "two editors shared a draft");
}

/// Without a token there is no draft mode; a short one is refused with the fix; one from the
/// environment will do; and a module of the site takes the endpoint's place.
#[tokio::test]
async fn draft_mode_is_off_until_it_is_configured() {
    let site = Site::new().pages(&["posts/[id]"]).start().await;
    assert_eq!(
        site.get("/api/draft?secret=x&path=/posts/1").await.status,
        404
    );
    assert_eq!(
        site.send("POST", "/api/draft/off", &[], "").await.status,
        404
    );
    site.configure("[draft]\ntoken = \"short\"");
    site.until_incident("config", "use at least 16").await;
    site.configure(&format!("[draft]\ntoken = {TOKEN:?}"));
    site.until("/api/draft?secret=x", |answer| answer.status == 401)
        .await;
    pass(&site).await;
    site.swap("api/draft", crate::modules::hook());
    site.until("/api/draft", |answer| {
        answer.text().contains("version: 0000")
    })
    .await;

    let script = format!("shift; WISR_DRAFT_TOKEN={TOKEN:?} exec \"$@\"");
    let shell = ["sh", "-c", &script, "sh"].map(str::to_owned).to_vec();
    let site = Site::new()
        .pages(&["posts/[id]"])
        .under(shell)
        .start()
        .await;
    pass(&site).await;
}
