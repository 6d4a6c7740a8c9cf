//! The catalogue of hostile pages: what each does, what stops it, and what that looks like to
//! readers, neighbours, the log and whoever looks at the incidents.

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::modules;
use crate::site::{Running, Site, wait_for};

/// Pages that were good once and turn bad: where the page is, which says by which limit it is to be
/// stopped; what it does; the limit; the kind of the incident, or `page` where it is stopped from
/// doing harm and still makes its page.
///
/// The last good page stays up for its readers, its neighbours are served from the cache
/// throughout, and the log has a line for each failure.
const CATALOGUE: [(&str, &str, &str, &str); 61] = [
    // Time. Under `/cpu`, 300 ms of CPU time; under `/wall`, a second of wall time.
    ("/cpu/loop", "static-props never ends", "cpu", "cpu"),
    ("/cpu/render-loop", "render never ends", "cpu", "cpu"),
    (
        "/cpu/hammer",
        "asks for time and random bytes without end",
        "cpu",
        "cpu",
    ),
    (
        "/cpu/bad-requests",
        "makes malformed requests without end",
        "cpu",
        "cpu",
    ),
    (
        "/cpu/spin-poll",
        "polls without end what is ready",
        "cpu",
        "cpu",
    ),
    (
        "/wall/sleep",
        "static-props sleeps for an hour",
        "wall",
        "wall",
    ),
    (
        "/wall/render-sleep",
        "render sleeps for an hour",
        "wall",
        "wall",
    ),
    (
        "/wall/drip",
        "sleeps a millisecond, without end",
        "wall",
        "wall",
    ),
    (
        "/wall/never-wakes",
        "polls what never wakes",
        "wall",
        "wall",
    ),
    // Memory. Under `/size`, 128 MiB.
    ("/size/bomb", "allocates in small steps", "memory", "memory"),
    (
        "/size/one-step",
        "allocates a gibibyte at once",
        "memory",
        "memory",
    ),
    ("/size/tags", "ten million tags", "memory", "memory"),
    ("/size/headers", "ten million headers", "memory", "memory"),
    (
        "/size/recursion",
        "calls itself without end",
        "its stack, 1 MiB",
        "trap",
    ),
    // What is returned: 8 MiB of page, 1 MiB of props, 1 MiB of all else.
    (
        "/size/huge-page",
        "a page a byte too large",
        "page",
        "output",
    ),
    ("/size/vast-page", "a page of 40 MiB", "page", "output"),
    (
        "/size/huge-props",
        "props a byte too large",
        "props",
        "output",
    ),
    (
        "/size/many-tags",
        "a million tags",
        "1 MiB beside the props",
        "output",
    ),
    ("/size/many-headers", "65 headers", "64 headers", "invalid"),
    (
        "/size/large-headers",
        "headers of 64 KiB",
        "8 KiB of headers",
        "invalid",
    ),
    (
        "/size/long-redirect",
        "a location of 16 KiB",
        "8 KiB of location",
        "invalid",
    ),
    // What the host holds for a guest.
    (
        "/size/handles",
        "holds timers without end",
        "1,024 resources",
        "resources",
    ),
    (
        "/size/futures",
        "starts requests and drops none",
        "1,024 resources",
        "resources",
    ),
    (
        "/size/fields",
        "HTTP fields without end",
        "128 KiB of fields",
        "resources",
    ),
    (
        "/size/random",
        "a megabyte of random bytes",
        "64 KiB of them",
        "resources",
    ),
    (
        "/size/vast-log",
        "a message of 40 MiB",
        "9 MiB a call",
        "resources",
    ),
    // What a page may not say.
    (
        "/size/bad-header",
        "CR LF in a header",
        "RFC 9110 section 5",
        "invalid",
    ),
    (
        "/size/header-a b",
        "a space in a header's name",
        "RFC 9110 section 5",
        "invalid",
    ),
    (
        "/size/bad-redirect",
        "CR LF in a location",
        "RFC 9110 section 10",
        "invalid",
    ),
    (
        "/size/bad-tag",
        "a line break in a tag",
        "the grammar of tags",
        "invalid",
    ),
    (
        "/size/zero",
        "fresh for no time at all",
        "a second at least",
        "invalid",
    ),
    (
        "/size/cookie",
        "a cookie for everybody",
        "shared by all",
        "invalid",
    ),
    (
        "/size/private",
        "a page for one reader",
        "shared by all",
        "invalid",
    ),
    (
        "/size/header-transfer-encoding",
        "frames its body",
        "wisr's to set",
        "invalid",
    ),
    (
        "/size/header-content-length",
        "frames its body",
        "wisr's to set",
        "invalid",
    ),
    (
        "/size/header-connection",
        "ends the connection",
        "wisr's to set",
        "invalid",
    ),
    (
        "/size/header-keep-alive",
        "a hop-by-hop field",
        "wisr's to set",
        "invalid",
    ),
    (
        "/size/header-te",
        "a hop-by-hop field",
        "wisr's to set",
        "invalid",
    ),
    (
        "/size/header-trailer",
        "a hop-by-hop field",
        "wisr's to set",
        "invalid",
    ),
    (
        "/size/header-upgrade",
        "a hop-by-hop field",
        "wisr's to set",
        "invalid",
    ),
    (
        "/size/header-x-accel-redirect",
        "a file of the proxy's",
        "wisr's to set",
        "invalid",
    ),
    ("/size/status-0", "no status", "200 to 499", "invalid"),
    (
        "/size/status-101",
        "switches protocols",
        "200 to 499",
        "invalid",
    ),
    (
        "/size/status-304",
        "a page without a body",
        "200 to 499",
        "invalid",
    ),
    (
        "/size/status-999",
        "no status of HTTP's",
        "200 to 499",
        "invalid",
    ),
    (
        "/size/unavailable",
        "status 503",
        "200 to 499",
        "server-error",
    ),
    // How it leaves.
    ("/size/error", "returns an error", "is told", "error"),
    ("/size/panic", "panics", "is told", "trap"),
    (
        "/size/red-panic",
        "panics in colour",
        "is told without",
        "trap",
    ),
    ("/size/abort", "aborts", "is told", "trap"),
    ("/size/exit", "exits with success", "is no page", "exit"),
    ("/size/exit-1", "exits with failure", "is no page", "exit"),
    // What it says and sees.
    (
        "/size/last-words",
        "floods stderr, then panics",
        "the last 4 KiB",
        "trap",
    ),
    ("/size/stdout", "8 MB to stdout", "64 KiB of log", "page"),
    ("/size/stderr", "8 MB to stderr", "64 KiB of log", "page"),
    (
        "/size/flood",
        "8 MB without a line's end",
        "4 KiB a line",
        "page",
    ),
    (
        "/size/escapes",
        "control characters to the log",
        "are escaped",
        "page",
    ),
    (
        "/size/greedy",
        "half of its memory, given back",
        "memory",
        "page",
    ),
    (
        "/size/peek",
        "reads files, environment, sockets",
        "there are none",
        "page",
    ),
    ("/size/never", "fresh for ever", "is allowed", "page"),
    ("/size/fine", "nothing", "none", "page"),
];

const LIMITS: &str = r#"
    [routes."/cpu/[how]"]
    cpu = "300ms"
    wall = "60s"
    [routes."/wall/[how]"]
    cpu = "30s"
    wall = "1s"
    [routes."/size/[how]"]
    cpu = "30s"
    wall = "60s"
    # Its listing never ends; under `/listed` as under all others, pages are made all the same.
    [routes."/listed/[how]"]
    cpu = "300ms"
    settings = { paths = "loop" }
"#;

fn hostile() -> Vec<u8> {
    modules::built("wasm32-wasip2", "hostile")
}

fn url(path: &str) -> String {
    path.replace(' ', "%20")
}

/// Every page of the catalogue, at once, on one site.
#[tokio::test]
async fn a_hostile_page_harms_only_itself() {
    let routes = ["about", "cpu/[how]", "wall/[how]", "size/[how]"];
    let site = Site::new().pages(&routes).config(LIMITS).start().await;
    for answer in join_all(CATALOGUE.map(|row| async { site.get(&url(row.0)).await })).await {
        assert_eq!((answer.status, answer.n()), (200, 1));
    }
    for route in &routes[1..] {
        site.swap(route, &hostile());
    }
    for group in ["/cpu/fine", "/wall/fine", "/size/fine"] {
        // A module that makes a page is not taken back for those that it fails to make.
        site.until(group, |answer| answer.text().contains("hostile"))
            .await;
    }
    let attacks = join_all(CATALOGUE.map(|row| attack(&site, row)));
    let neighbour = async {
        loop {
            assert_eq!(site.get("/about").await.verdict(), "HIT");
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        incidents = attacks => check_words(&site, &incidents),
        () = neighbour => unreachable!(),
    }
    assert!(!std::path::Path::new("/tmp/wisr-was-here").exists());
    assert_eq!(site.metric("wisr_generations_running").await, 0.0);
}

/// Lets one page turn bad; returns its incident, if it is to have one.
async fn attack(site: &Running, row: (&str, &str, &str, &str)) -> Value {
    let (path, misdeed, limit, kind) = row;
    let answer = site.revalidate(json!({ "paths": [url(path)] })).await;
    let page = site.get(&url(path)).await;
    if kind == "page" {
        assert_eq!(answer.status, 200, "{path}: {misdeed}: {}", answer.text());
        assert_eq!((page.status, page.verdict()), (200, "HIT"), "{path}");
        return Value::Null;
    }
    assert_eq!(answer.status, 500, "{path}: {misdeed}: {}", answer.text());
    let last_good = (page.status, page.verdict(), page.n());
    assert_eq!(last_good, (200, "STALE", 1), "{path}: the last good page");
    let incidents = site.incidents().await;
    let found = incidents
        .iter()
        .find(|incident| incident["path"] == url(path).as_str());
    let found = found.unwrap_or_else(|| panic!("no incident of {path}: {incidents:#?}"));
    assert_eq!(
        found["kind"], kind,
        "{path}: {misdeed} is stopped by {limit}: {found:#}"
    );
    found.clone()
}

/// What guests say cannot move a terminal's cursor, forge a line, or be more than a person reads.
fn check_words(site: &Running, incidents: &[Value]) {
    let log = site.log();
    assert!(!log.contains(['\x1b', '\x07']), "{log}");
    // 64 KiB for each generation of each of those that talk, of which a few may be made twice.
    assert!(log.len() < 2_000_000, "{} bytes", log.len());
    for (row, incident) in CATALOGUE.iter().zip(incidents) {
        if incident.is_null() {
            continue;
        }
        let line = log
            .lines()
            .find(|line| line.contains(&format!("path=\"{}\"", url(row.0))));
        assert!(
            line.is_some_and(|line| line.contains(row.3)),
            "{}: {line:?}",
            row.0
        );
        let text = incident.to_string();
        assert!(text.len() < 20_000 && !text.contains("\\u001b"), "{text}");
    }
}
