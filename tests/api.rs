//! Section 3: `pages/api/` holds modules that answer requests themselves, of the standard world
//! `wasi:http/proxy`.

use serde_json::{Value, json};

use crate::modules;
use crate::site::{Running, Site, all, wisr};

async fn hooks() -> Running {
    Site::new()
        .pages(&["index"])
        .module("api/hook", modules::hook())
        .module("api/posts/[id]", modules::hook())
        .start()
        .await
}

/// Whether the echo has this line.
#[track_caller]
fn tells(echo: &str, line: &str) {
    assert!(echo.lines().any(|told| told == line), "{line:?} in {echo}");
}

/// Method, path, query, headers and body reach the module; what is the server's own does not.
#[tokio::test]
async fn a_request_reaches_the_module_as_it_was_sent() {
    let site = hooks().await;
    let headers = [
        ("x-test", "caf\u{e9}"),
        ("cookie", "session=1"),
        ("authorization", "Bearer x"),
        ("x-wisr-cache", "HIT"),
    ];
    let answer = site
        .send("POST", "/api/hook?a=1&b=%20", &headers, "hello")
        .await;
    let echo = answer.text();
    assert_eq!(answer.status, 200, "{echo}");
    assert_eq!(answer.header("content-type"), "text/plain");
    for line in [
        "version: 0000",
        "method: Method::Post",
        "target: /api/hook?a=1&b=%20",
        &format!("authority: {}", site.site()),
        "header x-test: caf\u{e9}",
        "header cookie: session=1",
        "header authorization: Bearer x",
        "environment: 0",
        "length: 5",
        "body: hello",
    ] {
        tells(&echo, line);
    }
    assert!(!echo.contains("x-wisr"), "{echo}");
    for method in ["GET", "PUT", "DELETE", "PATCH", "OPTIONS"] {
        let answer = site.send(method, "/api/posts/7?x", &[], "").await;
        let name = format!("{}{}", &method[..1], method[1..].to_lowercase());
        assert_eq!(answer.status, 200, "{method}");
        tells(&answer.text(), &format!("method: Method::{name}"));
        tells(&answer.text(), "target: /api/posts/7?x");
    }
    let other = site.send("PURGE", "/api/hook", &[], "").await;
    tells(&other.text(), "method: Method::Other(\"PURGE\")");
    let old = site.raw(b"GET /api/hook HTTP/1.0\r\n\r\n").await;
    assert!(old.starts_with("HTTP/1.0 200"), "{old}");
}

/// Status, headers and cookies are the module's own, and nobody keeps the answer.
#[tokio::test]
async fn a_response_is_the_modules_own_and_kept_by_nobody() {
    let site = hooks().await;
    let answer = site.get("/api/hook?do=status").await;
    assert_eq!((answer.status, answer.header("x-own")), (503, "1"));
    let cookies: Vec<_> = answer.headers.get_all("set-cookie").iter().collect();
    assert_eq!(cookies, ["a=1", "b=2"]);
    assert_eq!(answer.header("cache-control"), "private, no-store");
    for absent in ["x-wisr-cache", "cache-status", "etag", "age"] {
        assert_eq!(answer.header(absent), "", "{absent}");
    }
    let kept = site.get("/api/hook?do=cached").await;
    assert_eq!(kept.header("cache-control"), "public, max-age=5");
    for round in 1..=3 {
        let body = format!("round {round}");
        let echo = site.send("GET", "/api/hook", &[], &body).await.text();
        tells(&echo, &format!("body: {body}"));
    }
    let empty = site.get("/api/hook?do=empty").await;
    assert_eq!((empty.status, empty.header("content-length")), (204, ""));
    let big = site.get("/api/hook?do=big").await;
    assert_eq!((big.status, big.body.len()), (200, 4 << 20));
    assert!(site.incidents().await.is_empty());
}

/// HEAD is the module's to answer, without a body on the wire.
#[tokio::test]
async fn head_is_the_modules_own() {
    let site = hooks().await;
    let head = site.send("HEAD", "/api/hook", &[], "").await;
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_ne!(head.header("content-length"), "0");
    let stated = site.send("HEAD", "/api/hook?do=length", &[], "").await;
    assert_eq!(stated.header("content-length"), "4711");
    let conditions = [("if-none-match", "*"), ("range", "bytes=0-1")];
    let echo = site.get_with("/api/hook", &conditions).await;
    assert_eq!(echo.status, 200);
    tells(&echo.text(), "header if-none-match: *");
}

/// What HTTP knows no such status for, and what would log operators and editors out, is not passed on.
#[tokio::test]
async fn an_answer_is_one_that_http_and_wisr_know() {
    let site = hooks().await;
    for (answer, status) in [
        ("as=200", 200),
        ("as=299", 299),
        ("as=599", 599),
        ("as=100", 500),
        ("as=199", 500),
        ("as=600", 500),
        ("as=999", 500),
        ("name=set-cookie&value=wisr-sessions=1", 200),
        ("name=set-cookie&value=a=wisr-session", 200),
        ("name=set-cookie&value=wisr-session=1", 500),
        ("name=set-cookie&value=wisr-session=;max-age=0", 500),
        ("name=set-cookie&value==wisr-session=1", 500),
        ("name=set-cookie&value=wisr_draft=;path=/;max-age=0", 500),
    ] {
        let given = site.get(&format!("/api/hook?do=answer&{answer}")).await;
        assert_eq!(given.status, status, "{answer}: {}", given.text());
    }
    site.until_incident("invalid", "status 999 is no final response")
        .await;
    site.until_incident("invalid", "`wisr_draft` is wisr's to set")
        .await;
}

/// Whatever a module does, its caller gets a 500, its author an incident, and its neighbours go on.
#[tokio::test]
async fn a_module_that_fails_harms_nobody() {
    let site = Site::new()
        .pages(&["index"])
        .module("api/hook", modules::hook())
        .module("api/busy", modules::hook())
        .module("api/slow", modules::hook())
        // Each limit is hit where the others are out of the way.
        .config("[defaults]\nwall = \"60s\"\ncpu = \"30s\"\nmemory = \"32MiB\"")
        .config("[routes.\"/api/busy\"]\ncpu = \"300ms\"")
        .config("[routes.\"/api/slow\"]\nwall = \"2s\"")
        .start()
        .await;
    for (route, misdeed, kind, words) in [
        ("hook", "trap", "trap", "the caller wants a panic"),
        ("hook", "half", "trap", "half way"),
        ("busy", "loop", "cpu", "limit `cpu`"),
        ("slow", "sleep", "wall", "limit `wall`"),
        ("hook", "nothing", "invalid", "without a complete response"),
        ("hook", "leak", "invalid", "without a complete response"),
        ("hook", "length", "invalid", "content-length"),
        ("hook", "own", "invalid", "`x-wisr-cache` is wisr's"),
        ("hook", "file", "invalid", "`x-accel-redirect` is wisr's"),
        ("hook", "huge", "output", "limit `page`"),
        ("hook", "bomb", "memory", "limit `memory`"),
    ] {
        let answer = site.get(&format!("/api/{route}?do={misdeed}")).await;
        assert_eq!(answer.status, 500, "{misdeed}");
        assert_eq!(answer.header("cache-control"), "private, no-store");
        assert!(!answer.text().contains(words), "{misdeed}: told to all");
        let incident = site.until_incident(kind, words).await;
        assert_eq!(incident["route"], format!("/api/{route}"), "{misdeed}");
        assert_eq!(incident["cause"], "api", "{misdeed}");
        assert_eq!(incident["failure"]["call"], "handle", "{misdeed}");
        assert_eq!(site.get("/").await.verdict(), "HIT", "{misdeed}");
        assert_eq!(site.get("/api/hook").await.status, 200, "{misdeed}");
    }
}

/// More callers than instances wait for their turn.
#[tokio::test]
async fn many_callers_take_turns() {
    let site = Site::new()
        .pages(&["index"])
        .module("api/hook", modules::hook())
        .config("[generations]\nconcurrency = 1")
        .start()
        .await;
    let callers = (0..64).map(|_| site.waiting("/api/hook")).collect();
    for answer in all(callers).await {
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
}

/// A body is passed up to 1 MiB; a larger one never reaches the module.
#[tokio::test]
async fn a_body_has_a_limit() {
    let site = hooks().await;
    let most = "x".repeat(1 << 20);
    let answer = site.send("POST", "/api/hook", &[], &most).await;
    tells(&answer.text(), "length: 1048576");
    let stated = b"POST /api/hook HTTP/1.1\r\nhost: x\r\ncontent-length: 1048577\r\n\
        connection: close\r\n\r\n";
    let refused = site.raw(stated).await;
    assert!(refused.starts_with("HTTP/1.1 413"), "{refused}");
    let mut chunked = b"POST /api/hook HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\
        connection: close\r\n\r\n100001\r\n"
        .to_vec();
    chunked.extend(most.bytes());
    // The byte too many is the last that is sent, so that nothing is left to reset the connection.
    chunked.push(b'x');
    let refused = site.raw(&chunked).await;
    assert!(refused.starts_with("HTTP/1.1 413"), "{refused}");
    let small = b"POST /api/hook HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\
        connection: close\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    let echo = site.raw(small).await;
    assert!(echo.contains("body: abc"), "{echo}");
    assert!(echo.contains("header content-length: 3"), "{echo}");
    assert!(!echo.contains("header transfer-encoding"), "{echo}");
}

/// A module reaches the hosts of its route, and no others.
#[tokio::test]
async fn outgoing_requests_are_under_the_routes_policy() {
    let site = hooks().await;
    let port = site.origin.port();
    let allowed = format!("/api/hook?do=fetch&to=127.0.0.1:{port}");
    assert_eq!(site.get(&allowed).await.text(), "200");
    let refused = site.get("/api/hook?do=fetch&to=127.0.0.1:9").await;
    assert_eq!(refused.status, 200);
    assert!(
        refused.text().contains("HttpRequestDenied"),
        "{}",
        refused.text()
    );
}

/// Modules are swapped, refused and removed like those of pages.
#[tokio::test]
async fn modules_come_change_and_go() {
    let site = hooks().await;
    let routes = site.admin("/api/routes").await.json();
    let files: Vec<_> = routes["apis"].as_array().unwrap().iter().collect();
    assert_eq!(files.len(), 2, "{routes}");
    assert_eq!(files[0]["file"], "api/hook.wasm");

    site.swap("api/hook", &modules::hook_version(1));
    let is_new = |answer: &crate::client::Response| answer.text().contains("version: 0001");
    site.until("/api/hook", is_new).await;
    tells(&site.get("/api/posts/1").await.text(), "version: 0000");

    let bad: [(&[u8], &str, &str); 3] = [
        (b"<html>", "api/hook.wasm", "not WebAssembly"),
        (&modules::wrong_world(), "api/hook.wasm", "wasi:http/proxy"),
        (modules::puppet(), "api/hook.wasm", "move it out of `api/`"),
    ];
    for (bytes, file, words) in bad {
        site.swap("api/hook", bytes);
        let incident = site.until_incident("module", words).await;
        assert_eq!(incident["file"], file);
        assert!(is_new(&site.get("/api/hook").await), "{words}");
    }
    site.swap("hook", modules::hook());
    let incident = site.until_incident("module", "move it into `api/`").await;
    assert_eq!(incident["file"], "hook.wasm");
    assert_eq!(site.get("/hook").await.status, 404);

    site.swap("api/new", modules::hook());
    site.until("/api/new", |answer| answer.status == 200).await;
    site.remove("api/new");
    site.until("/api/new", |answer| answer.status == 404).await;
}

/// A core module for wasip1 is adapted, as for pages.
#[tokio::test]
async fn a_core_module_is_adapted() {
    let site = Site::new()
        .module("api/core", &modules::built("wasm32-wasip1", "hook"))
        .start()
        .await;
    tells(&site.get("/api/core").await.text(), "target: /api/core");
}

/// A module of exactly that route takes the place of the built-in endpoint; a catch-all does not.
#[tokio::test]
async fn a_module_may_take_the_place_of_the_revalidate_endpoint() {
    let site = Site::new()
        .pages(&["index"])
        .module("api/[...rest]", modules::hook())
        .start()
        .await;
    site.renew("/").await;
    tells(&site.get("/api/else").await.text(), "target: /api/else");
    site.swap("api/revalidate", modules::hook());
    let is_own = |answer: &crate::client::Response| answer.text().contains("version: 0000");
    site.until("/api/revalidate", is_own).await;
    let echo = site.revalidate(json!({"paths": ["/"]})).await.text();
    tells(&echo, "body: {\"paths\":[\"/\"]}");
    site.remove("api/revalidate");
    site.until("/api/revalidate", |answer| answer.status == 401)
        .await;
    site.renew("/").await;
}

/// The commands that tell of modules and routes know API routes.
#[tokio::test]
async fn the_commands_tell_of_api_routes() {
    let here = tempfile::tempdir().unwrap();
    let api = here.path().join("pages/api/posts");
    std::fs::create_dir_all(&api).unwrap();
    std::fs::write(api.join("[id].wasm"), modules::hook()).unwrap();
    let routes = wisr(here.path(), &["routes", "--json"]).await;
    let told: serde_json::Value = serde_json::from_str(&routes.stdout).unwrap();
    assert_eq!(routes.code, Some(0), "{}", routes.stderr);
    assert_eq!(told["routes"][0]["route"], "/api/posts/[id]");
    assert_eq!(told["routes"][0]["kind"], "api");
    let check = wisr(
        here.path(),
        &["check", "--json", "pages/api/posts/[id].wasm"],
    )
    .await;
    let told: serde_json::Value = serde_json::from_str(&check.stdout).unwrap();
    assert_eq!(check.code, Some(0), "{}", check.stderr);
    assert_eq!(told[0]["exports"], json!(["incoming-handler"]));
}

/// Posts, and a module that may have them made anew.
fn granted() -> Site {
    Site::new()
        .pages(&["posts/[id]"])
        .module("api/call", modules::caller())
        .config("[routes.\"/api/call\"]\nmay-revalidate = true\nsettings = { key = \"own\" }")
}

/// What became of each path and tag.
fn effects(told: &Value) -> Vec<String> {
    let fates = told["fates"].as_array().unwrap().iter();
    fates
        .map(|fate| {
            let text = |key: &str| fate[key].as_str().unwrap().to_owned();
            format!("{} {}", text("target"), text("effect"))
        })
        .collect()
}

/// A module has pages made anew: the very next reader sees them, as after a call of the endpoint.
#[tokio::test]
async fn a_module_has_pages_made_anew() {
    let site = granted()
        .script("/posts/2", json!({"tags": ["two"]}))
        .script("/posts/9", json!({"outcome": "panic"}))
        .start()
        .await;
    for (path, n) in [("/posts/1", 1), ("/posts/2", 1)] {
        assert_eq!(site.get(path).await.n(), n);
    }
    for (query, status, done) in [
        (
            "paths=/posts/1,/posts/3",
            ["/posts/1 regenerated", "/posts/3 regenerated"],
            true,
        ),
        (
            "paths=/posts/2,/posts/8&only",
            ["/posts/2 regenerated", "/posts/8 not-generated"],
            true,
        ),
        (
            "paths=/posts/1,/posts/8&mode=purge",
            ["/posts/1 purged", "/posts/8 absent"],
            true,
        ),
        (
            "paths=/posts/9,/nowhere",
            ["/posts/9 failed", "/nowhere unknown-route"],
            false,
        ),
        (
            "paths=/posts/3&tags=two&mode=stale",
            ["/posts/3 stale", "two stale"],
            true,
        ),
    ] {
        let told = site.get(&format!("/api/call?{query}")).await;
        assert_eq!(told.status, 200, "{query}: {}", told.text());
        let told = told.json();
        assert_eq!(
            (effects(&told), &told["done"]),
            (status.map(str::to_owned).to_vec(), &json!(done))
        );
    }
    let page = site.get("/posts/2").await;
    assert_eq!((page.verdict(), page.n()), ("STALE", 2));
    let page = site.get("/posts/1").await;
    assert_eq!((page.verdict(), page.n()), ("MISS", 3));
    site.until_incident("trap", "panic").await;
    let told = site.get("/api/call?tags=two&mode=regenerate").await.json();
    assert_eq!(effects(&told), ["two stale", "/posts/2 regenerated"]);
}

/// Data read before the call is no answer to it, also not when it was read for a reader.
#[tokio::test]
async fn a_call_never_settles_for_older_data() {
    let site = granted().start().await;
    site.origin.hold("/posts/1");
    let reader = site.waiting("/posts/1");
    site.until_calls("/posts/1", 1).await;
    let calls = [
        site.waiting("/api/call?paths=/posts/1"),
        site.waiting("/api/call?paths=/posts/1"),
    ];
    // The generation of the reader is under way; nobody but its landing lets the next one begin.
    site.origin.release("/posts/1");
    assert_eq!(reader.await.unwrap().status, 200);
    for answer in all(calls.into()).await {
        assert_eq!(answer.json()["done"], true, "{}", answer.text());
    }
    let page = site.get("/posts/1").await;
    assert_eq!(page.verdict(), "HIT");
    let causes = site.origin.causes("/posts/1");
    // Whether the calls or the landing begin the next one, it is there before they are answered.
    assert!(
        causes.len() > 1 && causes[0] == "FirstRequest",
        "{causes:?}"
    );
    assert_eq!(page.n() as usize, causes.len());
}

/// Modules that wait for pages hold no place that these pages need.
#[tokio::test]
async fn waiting_modules_and_pages_share_one_place_each() {
    let site = granted()
        .config("[generations]\nconcurrency = 1")
        .config("[defaults]\nwall = \"60s\"")
        .start()
        .await;
    let callers = (0..12).map(|id| site.waiting(&format!("/api/call?paths=/posts/{}", id % 3)));
    let readers = (0..12).map(|id| site.waiting(&format!("/posts/{}", id % 4)));
    let waiting = callers.chain(readers).collect();
    for answer in all(waiting).await {
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
}

/// Waiting counts to the wall time, and what was asked for is made all the same.
#[tokio::test]
async fn a_module_does_not_wait_for_ever() {
    let site = granted()
        .config("[routes.\"/api/call\"]\nwall = \"500ms\"")
        .start()
        .await;
    site.origin.hold("/posts/1");
    let answer = site.get("/api/call?paths=/posts/1").await;
    assert_eq!(answer.status, 500);
    site.until_incident("wall", "limit `wall`").await;
    site.origin.release("/posts/1");
    site.until("/posts/1", |page| page.verdict() == "HIT").await;
    assert_eq!(site.origin.causes("/posts/1"), ["OnDemand"]);
}

/// Without the grant nothing happens, and the module learns which key to set. It comes and goes
/// with `wisr.toml`.
#[tokio::test]
async fn only_what_is_granted_can_be_called() {
    let site = Site::new()
        .pages(&["posts/[id]"])
        .module("api/call", modules::caller())
        .start()
        .await;
    let call = "/api/call?paths=/posts/1";
    let refused = site.get(call).await;
    assert_eq!(refused.status, 403);
    let error = refused.json()["error"].as_str().unwrap().to_owned();
    for part in ["may-revalidate = true", "[routes.\"/api/call\"]"] {
        assert!(error.contains(part), "{error}");
    }
    assert_eq!(site.origin.count("/posts/1"), 0);
    let grant = |granted| format!("[routes.\"/api/call\"]\nmay-revalidate = {granted}");
    site.configure(&grant(true));
    site.until(call, |answer| answer.status == 200).await;
    site.configure(&grant(false));
    site.until(call, |answer| answer.status == 403).await;
}

/// Calls have limits, and what cannot be understood does nothing.
#[tokio::test]
async fn calls_have_limits() {
    let site = granted().config("[defaults]\nwall = \"60s\"").start().await;
    let many = "/a,".repeat(1_001);
    for (query, part) in [
        (format!("paths={many}"), "at most 1000"),
        ("paths=posts".to_owned(), "begins with `/`"),
        ("".to_owned(), "neither a path nor a tag"),
        ("tags=a&mode=purge".to_owned(), "purge is for paths"),
        ("tags=a&times=257".to_owned(), "at most 256 times"),
    ] {
        let refused = site.get(&format!("/api/call?{query}")).await;
        let told = refused.json()["error"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        assert_eq!(
            (refused.status, told.contains(part)),
            (403, true),
            "{query}: {told}"
        );
    }
    assert_eq!(site.get("/api/call?tags=a&times=256").await.status, 200);
}

/// A module of the SDK reads its settings, logs, and its error is an incident in its own words.
#[tokio::test]
async fn a_module_of_the_sdk_is_like_a_page_of_it() {
    let site = granted().start().await;
    assert_eq!(site.get("/api/call?setting=key").await.text(), "own");
    site.until_log("asked by GET").await;
    let failed = site.get("/api/call?fail=no%20cheese+left").await;
    assert_eq!(failed.status, 500);
    assert!(!failed.text().contains("cheese"));
    let incident = site.until_incident("error", "no cheese left").await;
    assert_eq!(incident["message"], "no cheese left");
}

/// The handler of the Next.js documentation, as a page author's own module with its own secret, in
/// the place of the built-in endpoint.
#[tokio::test]
async fn an_author_writes_the_revalidate_endpoint() {
    let site = Site::new()
        .pages(&["posts/[id]"])
        .module("api/revalidate", &modules::example_hook())
        .config("[routes.\"/api/revalidate\"]\nmay-revalidate = true")
        .config("[routes.\"/api/revalidate\".settings]\nsecret = \"my own\"")
        .start()
        .await;
    assert_eq!(site.get("/posts/1").await.n(), 1);
    let call = |secret| format!("/api/revalidate?secret={secret}&path=/posts/1");
    // The built-in endpoint's token is nothing to it.
    for secret in ["secret", "", "my"] {
        let refused = site.get(&call(secret)).await;
        assert_eq!(
            (refused.status, refused.json()),
            (401, json!({"message": "Invalid token"}))
        );
    }
    let done = site.get(&call("my%20own")).await;
    assert_eq!(
        (done.status, done.json()),
        (200, json!({"revalidated": true}))
    );
    let page = site.get("/posts/1").await;
    assert_eq!((page.verdict(), page.n()), ("HIT", 2));
    site.origin.script("/posts/1", json!({"outcome": "panic"}));
    let failed = site.get(&call("my%20own")).await;
    assert_eq!(
        (failed.status, &*failed.text()),
        (500, "Error revalidating")
    );
    assert_eq!(site.get("/posts/1").await.n(), 2);
}

/// A component of the standard world that knows nothing of wisr, made by a framework of others.
#[tokio::test]
async fn a_server_that_was_made_for_others_runs() {
    let site = Site::new()
        .module("api/foreign/[...rest]", modules::foreign())
        .start()
        .await;
    let waited = site.get("/api/foreign/wait").await;
    assert_eq!(waited.status, 200);
    assert!(waited.text().starts_with("waited "), "{}", waited.text());
    let body = "piece by piece ".repeat(10_000);
    let echo = site.send("POST", "/api/foreign/echo", &[], &body).await;
    assert_eq!((echo.status, echo.text()), (200, body));
    let missing = site.get("/api/foreign/other").await;
    assert_eq!(
        (missing.status, &*missing.text()),
        (404, "nothing at /api/foreign/other")
    );
    let failed = site.get("/api/foreign/fail").await;
    assert_eq!(failed.status, 500);
    site.until_incident("error", "it means to fail").await;
}
