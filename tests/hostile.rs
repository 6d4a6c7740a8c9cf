//! The catalogue of hostile pages: what each does, what stops it, and what that looks like to
//! readers, neighbours, the log and whoever looks at the incidents.

use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::client::Response;
use crate::modules;
use crate::site::{CANARY, Running, Site, wait_for};

/// Pages that were good once and turn bad: where the page is, which says by which limit it is to be
/// stopped; what it does; the limit; the kind of the incident, or `page` where it is stopped from
/// doing harm and still makes its page.
///
/// The last good page stays up for its readers, its neighbours are served from the cache
/// throughout, and the log has a line for each failure.
#[rustfmt::skip]
const CATALOGUE: [(&str, &str, &str, &str); 62] = [
    // Time. Under `/cpu`, 300 ms of CPU time; under `/wall`, a second of wall time.
    ("/cpu/loop", "static-props never ends", "cpu", "cpu"),
    ("/cpu/render-loop", "render never ends", "cpu", "cpu"),
    ("/cpu/hammer", "asks for time and random bytes without end", "cpu", "cpu"),
    ("/cpu/bad-requests", "makes malformed requests without end", "cpu", "cpu"),
    ("/cpu/spin-poll", "polls without end what is ready", "cpu", "cpu"),
    ("/wall/sleep", "static-props sleeps for an hour", "wall", "wall"),
    ("/wall/render-sleep", "render sleeps for an hour", "wall", "wall"),
    ("/wall/drip", "sleeps a millisecond, without end", "wall", "wall"),
    ("/wall/never-wakes", "polls what never wakes", "wall", "wall"),
    // Memory. Under `/size`, 128 MiB.
    ("/size/bomb", "allocates in small steps", "memory", "memory"),
    ("/size/one-step", "allocates a gibibyte at once", "memory", "memory"),
    ("/size/tags", "ten million tags", "memory", "memory"),
    ("/size/headers", "ten million headers", "memory", "memory"),
    ("/size/recursion", "calls itself without end", "its stack, 1 MiB", "trap"),
    // What is returned: 8 MiB of page, 1 MiB of props, 1 MiB of all else.
    ("/size/huge-page", "a page a byte too large", "page", "output"),
    ("/size/vast-page", "a page of 40 MiB", "page", "output"),
    ("/size/huge-props", "props a byte too large", "props", "output"),
    ("/size/many-tags", "a million tags", "1 MiB beside the props", "output"),
    ("/size/many-headers", "65 headers", "64 headers", "invalid"),
    ("/size/large-headers", "headers of 64 KiB", "8 KiB of headers", "invalid"),
    ("/size/long-redirect", "a location of 16 KiB", "8 KiB of location", "invalid"),
    // What the host holds for a guest.
    ("/size/handles", "holds timers without end", "1,024 resources", "resources"),
    ("/size/futures", "starts requests and drops none", "1,024 resources", "resources"),
    ("/size/fields", "HTTP fields without end", "128 KiB of fields", "resources"),
    ("/size/random", "a megabyte of random bytes", "64 KiB of them", "resources"),
    ("/size/vast-log", "a message of 40 MiB", "9 MiB a call", "resources"),
    // What a page may not say.
    ("/size/bad-header", "CR LF in a header", "RFC 9110 section 5", "invalid"),
    ("/size/header-a b", "a space in a header's name", "RFC 9110 section 5", "invalid"),
    ("/size/bad-redirect", "CR LF in a location", "RFC 9110 section 10", "invalid"),
    ("/size/bad-tag", "a line break in a tag", "the grammar of tags", "invalid"),
    ("/size/zero", "fresh for no time at all", "a second at least", "invalid"),
    ("/size/cookie", "a cookie for everybody", "shared by all", "invalid"),
    ("/size/private", "a page for one reader", "shared by all", "invalid"),
    ("/size/header-transfer-encoding", "frames its body", "wisr's to set", "invalid"),
    ("/size/header-content-length", "frames its body", "wisr's to set", "invalid"),
    ("/size/header-connection", "ends the connection", "wisr's to set", "invalid"),
    ("/size/header-keep-alive", "a hop-by-hop field", "wisr's to set", "invalid"),
    ("/size/header-te", "a hop-by-hop field", "wisr's to set", "invalid"),
    ("/size/header-trailer", "a hop-by-hop field", "wisr's to set", "invalid"),
    ("/size/header-upgrade", "a hop-by-hop field", "wisr's to set", "invalid"),
    ("/size/header-x-accel-redirect", "a file of the proxy's", "wisr's to set", "invalid"),
    ("/size/header-clear-site-data", "logs its readers out", "wisr's to set", "invalid"),
    ("/size/status-0", "no status", "200 to 499", "invalid"),
    ("/size/status-101", "switches protocols", "200 to 499", "invalid"),
    ("/size/status-304", "a page without a body", "200 to 499", "invalid"),
    ("/size/status-999", "no status of HTTP's", "200 to 499", "invalid"),
    ("/size/unavailable", "status 503", "200 to 499", "server-error"),
    // How it leaves.
    ("/size/error", "returns an error", "is told", "error"),
    ("/size/panic", "panics", "is told", "trap"),
    ("/size/red-panic", "panics in colour", "is told without", "trap"),
    ("/size/abort", "aborts", "is told", "trap"),
    ("/size/exit", "exits with success", "is no page", "exit"),
    ("/size/exit-1", "exits with failure", "is no page", "exit"),
    // What it says and sees.
    ("/size/last-words", "floods stderr, then panics", "the last 4 KiB", "trap"),
    ("/size/stdout", "8 MB to stdout", "64 KiB of log", "page"),
    ("/size/stderr", "8 MB to stderr", "64 KiB of log", "page"),
    ("/size/flood", "8 MB without a line's end", "4 KiB a line", "page"),
    ("/size/escapes", "control characters to the log", "are escaped", "page"),
    ("/size/greedy", "half of its memory, given back", "memory", "page"),
    ("/size/peek", "reads files, environment, sockets", "there are none", "page"),
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
        let mut reader = site.reader();
        loop {
            let page = reader.send("GET", "/about", &[], "").await.unwrap();
            assert_eq!(page.verdict(), "HIT");
        }
    };
    let incidents = tokio::select! {
        incidents = attacks => incidents,
        () = neighbour => unreachable!(),
    };
    check_words(&site, &incidents).await;
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
    // What is alike but for its path is one incident, which has the path of the latest.
    let is_its_own = |incident: &&Value| incident["path"] == url(path).as_str();
    let is_its_group = |incident: &&Value| {
        let count = incident["count"].as_u64().unwrap_or(0);
        incident["kind"] == kind && incident["route"] == route(path) && count > 1
    };
    let found = incidents.iter().find(is_its_own);
    let found = found.or_else(|| incidents.iter().find(is_its_group));
    let found = found.unwrap_or_else(|| panic!("no incident of {path}: {incidents:#?}"));
    assert_eq!(
        found["kind"], kind,
        "{path}: {misdeed} is stopped by {limit}: {found:#}"
    );
    found.clone()
}

/// The route of a page of the catalogue.
fn route(path: &str) -> String {
    let (group, _) = path[1..].split_once('/').unwrap();
    format!("/{group}/[how]")
}

/// What guests say cannot move a terminal's cursor, forge a line, or be more than a person reads.
async fn check_words(site: &Running, incidents: &[Value]) {
    for (row, incident) in CATALOGUE.iter().zip(incidents) {
        if incident.is_null() {
            continue;
        }
        let text = incident.to_string();
        assert!(text.len() < 20_000 && !text.contains("\\u001b"), "{text}");
        let route = format!("route={}", route(row.0));
        let kind = format!("kind=\"{}\"", row.3);
        wait_for(&format!("a line about {route}, {kind}"), async || {
            let log = site.log();
            let found = log
                .lines()
                .any(|line| line.contains(&route) && line.contains(&kind));
            if found { Ok(()) } else { Err(log) }
        })
        .await;
    }
    let log = site.log();
    let hidden = ['\x1b', '\x07', '\u{202e}', '\u{2028}', '\u{e0041}'];
    assert!(!log.contains(hidden), "{log}");
    assert!(log.contains("turned \\u{202e}around"), "{log}");
    // 64 KiB for each generation of each of those that talk, of which a few may be made twice.
    assert!(log.len() < 2_000_000, "{} bytes", log.len());
}

/// Modules that are refused when they are loaded: what they are, what they do, and the words of the
/// refusal that name the limit.
#[rustfmt::skip]
const REFUSED: [(&str, &str, &str); 8] = [
    ("", "types of another contract", "not those of `wisr:page@0.1.0`"),
    ("(memory 4096)", "more memory than a page may have",
        "256 MiB of memory from the start, where at most 128 MiB are allowed (limit `memory`)"),
    ("(memory 1) (memory 1) (memory 1) (memory 1) (memory 1)", "five memories",
        "5 memories, where at most 4 are allowed (fixed)"),
    ("(table 200000 funcref)", "a table of 200,000",
        "200000 elements, where at most 100000 are allowed (fixed)"),
    ("(start $s) (func $s (loop (br 0)))", "a start that never ends", "limit `cpu`"),
    ("(start $s) (func $s unreachable)", "a start that traps", "it does not start"),
    ("(memory 1) (memory 1) (memory 1) (start $s) (func $s (loop
        (drop (memory.grow 0 (i32.const 16))) (drop (memory.grow 1 (i32.const 16)))
        (drop (memory.grow 2 (i32.const 16))) (br 0)))", "memories that grow at the start", "limit `memory`"),
    ("(table $t 1 funcref) (start $s) (func $s
        (drop (table.grow $t (ref.null func) (i32.const 200000))))", "a table that grows", "100000 (fixed)"),
];

/// Pages written by hand, as no SDK writes them: what they hand over as props, and what becomes of
/// it. The words are a result's: error or not, outcome, then a string of props by place and length,
/// freshness and its seconds, tags by place and length.
#[rustfmt::skip]
const BY_HAND: [(&str, &str, &str, [u32; 8], &str); 7] = [
    ("utf-8", "props that are not UTF-8", r"\ff\fe", [0, 0, 0, 2, 0, 0, 0, 0], "utf-8"),
    ("beyond", "props beyond its memory", "", [0, 0, 1 << 24, 9, 0, 0, 0, 0], "out of bounds"),
    ("length", "props of 4 GiB", "", [0, 0, 8, u32::MAX, 0, 0, 0, 0], "out of bounds"),
    ("outcome", "an outcome that there is not", "", [0, 7, 0, 0, 0, 0, 0, 0], "discriminant"),
    ("freshness", "a freshness that there is not", "[]", [0, 0, 0, 2, 9, 0, 0, 0], "discriminant"),
    ("tags", "a list of 500 million tags", "[]", [0, 0, 0, 2, 1, 0, 0, 1 << 29], "out of bounds"),
    ("json", "props that are not JSON", "[[", [0, 0, 0, 2, 1, 0, 0, 0], "not JSON"),
];

/// A core module whose interface section has packages that import each other in a circle: who
/// follows them overflows the stack. The fuzzer of modules found it.
const CIRCLE: &[u8] = include_bytes!("fixtures/circle.wasm");

/// What is no page for its sandbox never becomes one, and what an outlaw hands over never leaves.
#[tokio::test]
async fn a_hostile_module_is_refused_by_name_and_words() {
    let nested = format!("{}1{}", "[".repeat(60_000), "]".repeat(60_000));
    let mut site = Site::new()
        .pages(&["about"])
        .module(
            "deep",
            &modules::returning(&nested, [0, 0, 0, 120_001, 1, 0, 0, 0]),
        )
        .config(LIMITS);
    for (number, (core, ..)) in REFUSED.iter().enumerate() {
        site = site.module(&format!("refused-{number}"), &modules::component(core));
    }
    for (name, _, data, props, _) in BY_HAND {
        site = site.module(&format!("by-hand/{name}"), &modules::returning(data, props));
    }
    let alien = "(component
        (import \"wasi:sockets/raw@0.3.0\" (instance (export \"f\" (func))))
        (component $c) (instance $page (instantiate $c))
        (export \"wisr:page/page@0.1.0\" (instance $page)))";
    let site = site
        .module("alien", &wat::parse_str(alien).unwrap())
        .module("circle", CIRCLE)
        .module("nested", &modules::nested(1_000_000))
        .start()
        .await;

    for (number, (_, misdeed, words)) in REFUSED.iter().enumerate() {
        let file = format!("refused-{number}.wasm");
        let incident = site.until_incident("module", &file).await;
        assert!(
            incident["message"].as_str().unwrap().contains(words),
            "{misdeed}: {incident:#}"
        );
        assert_eq!(
            site.get(&format!("/refused-{number}")).await.status,
            404,
            "{misdeed}"
        );
    }
    let incident = site.until_incident("module", "alien.wasm").await;
    assert!(
        incident.to_string().contains("wasi:sockets/raw@0.3.0"),
        "{incident:#}"
    );
    let incident = site.until_incident("module", "circle.wasm").await;
    let message = incident["message"].as_str().unwrap();
    assert!(message.contains("the compiler crashed on it"), "{message}");
    let incident = site.until_incident("module", "nested.wasm").await;
    assert!(site.resident() < 400 << 20, "{incident:#}");
    for (name, misdeed, _, _, words) in BY_HAND {
        let path = format!("/by-hand/{name}");
        assert_eq!(site.get(&path).await.status, 500, "{misdeed}");
        let kind = if name == "json" { "invalid" } else { "trap" };
        let incident = site.until_incident(kind, &path).await;
        assert!(
            incident["message"].as_str().unwrap().contains(words),
            "{misdeed}: {incident:#}"
        );
    }
    let deep = site.get("/_wisr/data/deep.json").await;
    assert_eq!(
        (deep.status, deep.text()),
        (200, nested),
        "depth is no crime"
    );

    assert_eq!(site.get("/about").await.verdict(), "HIT");
}

/// A shell or a listing that never ends keeps no reader from the page, and takes nothing from the
/// threads that serve.
#[tokio::test]
async fn a_hostile_shell_or_listing_is_done_without() {
    // On a busy machine ten of them take their time.
    let config = "[generations]\nwait = \"60s\"\n[routes.\"/cpu/[how]\"]\nquery = [\"n\"]";
    let site = Site::new().module("cpu/[how]", &hostile());
    let site = site.module("listed/[how]", &hostile());
    let site = site.config(LIMITS).config(config).start().await;
    let readers = (0..10).map(|n| {
        let site = &site;
        async move { site.get(&format!("/cpu/shell-loop?n={n}")).await }
    });
    for page in join_all(readers).await {
        assert_eq!(page.status, 200, "{}", page.text());
        assert!(page.text().contains("hostile"), "the page itself");
    }
    site.until_incident("cpu", "shell").await;
    let (serving, generating) = (cpu_of(&site, "serve"), cpu_of(&site, "generate"));
    assert!(serving * 3 < generating, "{serving} and {generating} ticks");

    site.until_incident("listing", "/listed/[how]").await;
    assert_eq!(site.get("/listed/fine").await.status, 200);
    let background = threads(&site, "background");
    let niceness: Vec<_> = background.iter().map(|stat| stat[16]).collect();
    assert!(niceness.iter().min() >= Some(&10), "{niceness:?}");
}

/// The CPU time of the server's threads of a name, in ticks of the kernel's.
fn cpu_of(site: &Running, name: &str) -> i64 {
    threads(site, name)
        .iter()
        .map(|stat| stat[11] + stat[12])
        .sum()
}

/// What the kernel tells of the server's threads of a name: the numbers after it in their `stat`.
fn threads(site: &Running, name: &str) -> Vec<Vec<i64>> {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", site.pid().as_raw_nonzero())).unwrap();
    let stat = |folder: std::path::PathBuf| {
        let stat = std::fs::read_to_string(folder.join("stat")).ok()?;
        let (head, fields) = stat.rsplit_once(") ")?;
        // The first is a letter, and the last are too large.
        let numbers = fields.split(' ').map(|field| field.parse().unwrap_or(0));
        head.ends_with(&format!("({name}"))
            .then(|| numbers.collect())
    };
    tasks
        .filter_map(|task| stat(task.unwrap().path()))
        .collect()
}

/// The processes that compile for a server.
fn compilers(site: &Running) -> Vec<u32> {
    children(site, "compile-artifact")
}

/// A server's children that do this for it, once they are programs of their own.
fn children(site: &Running, command: &str) -> Vec<u32> {
    let server = site.pid().as_raw_nonzero().get();
    let does_it = |pid: &u32| {
        let read = |name: &str| std::fs::read_to_string(format!("/proc/{pid}/{name}")).ok();
        // The name before it may have spaces and parentheses.
        let parent = read("stat")?
            .rsplit(')')
            .next()?
            .split_whitespace()
            .nth(1)?
            .parse::<i32>()
            .ok()?;
        let words = read("cmdline")?;
        Some(parent == server && words.split('\0').nth(1) == Some(command))
    };
    let processes = std::fs::read_dir("/proc").unwrap();
    let numbers = processes.filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    numbers.filter(|pid| does_it(pid) == Some(true)).collect()
}

async fn until_compiling(site: &Running) -> u32 {
    until_child(site, "compile-artifact").await
}

async fn until_child(site: &Running, command: &str) -> u32 {
    wait_for("a child", async || {
        children(site, command)
            .first()
            .copied()
            .ok_or("there is none".to_owned())
    })
    .await
}

/// A module that takes its compiler down is refused with the limit's name; the pages of its route
/// and of all others are served throughout.
#[tokio::test]
async fn a_module_that_explodes_in_the_compiler_is_refused() {
    let config = "[compile]\nmemory = \"768MiB\"\ncpu = \"3s\"";
    let site = Site::new()
        .pages(&["about", "posts"])
        .config(config)
        .start()
        .await;
    for (module, words) in [
        (
            modules::exploding(),
            "compiling it needed more than 768 MiB of memory (limit `compile.memory`)",
        ),
        (
            modules::endless(),
            "compiling it took more than 3 s of CPU time (limit `compile.cpu`)",
        ),
    ] {
        site.swap("posts", &module);
        let child = until_compiling(&site).await;
        check_child(child).await;
        for path in ["/about", "/posts"] {
            assert_eq!(site.get(path).await.verdict(), "HIT");
        }
        site.until_incident("module", words).await;
        assert_eq!(
            site.get("/posts").await.verdict(),
            "HIT",
            "the module it had serves on"
        );
    }
    site.swap("posts", &modules::puppet_version(7));
    site.until("/posts", |page| page.puppet()["version"] == "0007")
        .await;
}

/// A child has nothing of the server's but three streams: no listening socket, no store, no secret.
/// The kernel ends it before the server.
async fn check_child(child: u32) {
    let read = |name: &str| std::fs::read(format!("/proc/{child}/{name}")).unwrap();
    wait_for(
        "the child to be the first to go",
        async || match &*String::from_utf8(read("oom_score_adj")).unwrap() {
            "1000\n" => Ok(()),
            other => Err(other.to_owned()),
        },
    )
    .await;
    let environment = String::from_utf8(read("environ")).unwrap();
    assert!(!environment.contains(CANARY.1), "{environment}");
    // What it opens itself for a moment is no matter: it is what it keeps that it inherited.
    let files = std::fs::read_dir(format!("/proc/{child}/fd")).unwrap();
    let targets = files.filter_map(|file| std::fs::read_link(file.unwrap().path()).ok());
    let foreign: Vec<_> = targets
        .filter(|target| {
            let target = target.to_string_lossy();
            target.contains("socket:") || target.contains(".wisr")
        })
        .collect();
    assert!(foreign.is_empty(), "{foreign:?}");
}

/// A compiler that takes too long, or is killed, is told of; one whose server is gone goes too.
#[tokio::test]
async fn a_compiler_ends_with_its_time_and_with_its_server() {
    let site = Site::new()
        .pages(&["about"])
        .config("[compile]\nwall = \"1s\"")
        .start()
        .await;
    site.swap("posts", &modules::endless());
    site.until_incident("module", "longer than 1 s (limit `compile.wall`)")
        .await;
    assert_eq!(site.get("/about").await.verdict(), "HIT");

    let mut site = Site::new().pages(&["about"]).start().await;
    site.swap("posts", &modules::endless());
    let pid = |child: u32| rustix::process::Pid::from_raw(child.try_into().unwrap()).unwrap();
    let child = until_compiling(&site).await;
    rustix::process::kill_process(pid(child), rustix::process::Signal::KILL).unwrap();
    site.until_incident("module", "was killed from outside")
        .await;
    assert_eq!(site.get("/about").await.verdict(), "HIT");

    // The next start does not try it again, unless somebody asks.
    site.restart().await;
    let refused = site
        .until_incident("module", "was killed from outside")
        .await;
    assert_eq!(compilers(&site), Vec::<u32>::new(), "{refused:#}");
    assert_eq!(site.get("/about").await.verdict(), "HIT");

    site.swap("posts", &modules::endless());
    let child = until_compiling(&site).await;
    site.kill();
    wait_for(
        "the child's end",
        async || match rustix::process::test_kill_process(pid(child)) {
            Err(_) => Ok(()),
            Ok(()) => Err("it lives".to_owned()),
        },
    )
    .await;
}

/// A module that takes the process with it in which it starts is refused, by a running server as by
/// the next one, which both serve on.
#[tokio::test]
async fn a_module_that_ends_whoever_starts_it_is_refused() {
    let mut site = Site::new().pages(&["about"]).start().await;
    for again in [false, true] {
        if again {
            site.restart().await;
        }
        site.swap(
            "posts",
            &modules::component("(start $s) (func $s (loop (br 0)))"),
        );
        let child = until_child(&site, "try-artifact").await;
        check_child(child).await;
        let child = rustix::process::Pid::from_raw(child.try_into().unwrap()).unwrap();
        // wasmtime asks itself whose a fault is: this one is nobody's.
        rustix::process::kill_process(child, rustix::process::Signal::ABORT).unwrap();
        let words = "starting it ended the process that tried it (signal: 6";
        site.until_incident("module", words).await;
        assert_eq!(site.get("/about").await.verdict(), "HIT");
        assert_eq!(site.get("/posts").await.status, 404);
    }
}

/// In a container with little memory, a compilation takes what is left and no more: the kernel ends
/// nobody.
#[tokio::test]
async fn a_compilation_takes_no_more_than_the_container_has() {
    let Some(group) = Group::of_memory(400 << 20) else {
        eprintln!("no control group can be made here: what reads them has tests of its own");
        return;
    };
    let site = Site::new()
        .pages(&["about"])
        .under(group.enter())
        .start()
        .await;
    site.swap("posts", &modules::exploding());
    site.until_incident(
        "module",
        "of memory that the machine or its control group had left",
    )
    .await;
    assert_eq!(site.get("/about").await.verdict(), "HIT");
    assert_eq!(group.kills(), 0);
    site.swap("posts", &modules::puppet_version(7));
    let version = |page: &Response| page.status == 200 && page.puppet()["version"] == "0007";
    site.until("/posts", version).await;
}

/// A control group with so many bytes of memory, of version 1 or 2, whichever can be made here.
struct Group {
    folder: std::path::PathBuf,
    is_v2: bool,
}

impl Group {
    fn of_memory(bytes: u64) -> Option<Self> {
        let name = format!("wisr-test-{}", std::process::id());
        for (root, limit, is_v2) in [
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", false),
            ("/sys/fs/cgroup", "memory.max", true),
        ] {
            let group = Self {
                folder: std::path::Path::new(root).join(&name),
                is_v2,
            };
            let made = std::fs::create_dir(&group.folder)
                .and_then(|()| std::fs::write(group.folder.join(limit), bytes.to_string()));
            if made.is_ok() {
                return Some(group);
            }
        }
        None
    }

    /// The words before a command that put it into the group.
    fn enter(&self) -> Vec<String> {
        let procs = self.folder.join("cgroup.procs");
        let script = format!("echo $$ > {} && shift && exec \"$@\"", procs.display());
        ["sh", "-c", &script, "sh"].map(str::to_owned).into()
    }

    /// How often the kernel ended somebody in it.
    fn kills(&self) -> u64 {
        let file = if self.is_v2 {
            "memory.events"
        } else {
            "memory.oom_control"
        };
        let told = std::fs::read_to_string(self.folder.join(file)).unwrap();
        let line = told.lines().find_map(|line| line.strip_prefix("oom_kill "));
        line.map_or(0, |count| count.trim().parse().unwrap())
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // The processes in it have ended, and leave it a moment later.
        for _ in 0..100 {
            if std::fs::remove_dir(&self.folder).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
}

/// While one module keeps its compiler busy, others come, change, move and go, and a rollback is
/// made; and who mends the slow one does not wait for it either.
#[tokio::test]
async fn a_module_that_compiles_for_minutes_keeps_no_other_waiting() {
    let site = Site::new()
        .pages(&["index", "posts", "docs/a"])
        .start()
        .await;
    let version = |version: &'static str| {
        move |page: &Response| page.status == 200 && page.puppet()["version"] == version
    };
    site.swap("posts", &modules::endless());
    let child = until_compiling(&site).await;
    site.swap("index", &modules::puppet_version(1));
    site.swap("new", &modules::puppet_version(2));
    site.remove("docs/a");
    site.until("/", version("0001")).await;
    site.until("/new", version("0002")).await;
    site.until("/docs/a", |page| page.status == 404).await;
    site.swap("new", &modules::puppet_version(3));
    site.until("/new", version("0003")).await;
    assert_eq!(compilers(&site), [child], "it is still the same compiler");
    let releases = site.admin("/api/releases").await.json();
    let current = releases["current"].as_u64().unwrap();
    assert!(
        (3..=5).contains(&current),
        "what comes together is one release: {releases:#}"
    );

    let json_type = ("content-type", "application/json");
    let undone = site
        .admin_post("/api/releases/rollback", &[json_type], "{\"id\": 1}")
        .await;
    assert_eq!(undone.status, 200, "{}", undone.text());
    assert_eq!(site.get("/docs/a").await.status, 200);
    assert_eq!(compilers(&site), [child], "nor does a rollback end it");

    site.swap("posts", &modules::puppet_version(4));
    site.until("/posts", version("0004")).await;
    assert_eq!(compilers(&site), Vec::<u32>::new());
    assert_eq!(site.incidents().await, Vec::<Value>::new());
}

/// However many want the pages of a route on which every generation runs into its limit, the other
/// routes' pages are shown and renewed.
#[tokio::test]
async fn a_flood_on_a_hostile_route_keeps_no_other_from_its_turn() {
    let config = "[generations]\nconcurrency = 2\n[routes.\"/many/[id]\"]\ncpu = \"200ms\"";
    let site = Site::new()
        .pages(&["many/[id]", "posts/[id]"])
        .config(config);
    let site = site
        .script("/posts/1", json!({ "revalidate": 1 }))
        .start()
        .await;
    assert_eq!(site.get("/posts/1").await.n(), 1);
    let next = AtomicUsize::new(0);
    let attack = async || {
        loop {
            let path = format!("/many/{}", next.fetch_add(1, Ordering::Relaxed));
            site.origin.script(&path, json!({ "outcome": "spin" }));
            let answer = site.get(&path).await;
            assert!(matches!(answer.status, 500 | 503), "{}", answer.status);
        }
    };
    let attacks = join_all((0..30).map(|_| attack()));
    let neighbour = wait_for("the neighbour's renewal", async || {
        let page = site.get("/posts/1").await;
        assert_eq!(page.status, 200);
        assert!(
            matches!(page.verdict(), "HIT" | "STALE"),
            "{}",
            page.verdict()
        );
        if page.n() > 1 {
            Ok(())
        } else {
            Err(format!("{} by now", page.n()))
        }
    });
    tokio::select! {
        _ = attacks => unreachable!("they never stop"),
        () = neighbour => {}
    }
}

/// A setting is for its route alone, and shows nowhere but where its page puts it: not to other
/// routes, not in the log at its most talkative, not in anything the admin door says. The same goes
/// for the token of the revalidate endpoint.
#[tokio::test]
async fn secrets_stay_where_they_belong() {
    const SETTING: &str = "canary-in-the-settings";
    const TOKEN: &str = "canary-in-the-token";
    let config = format!(
        "[revalidate]\ntoken = {TOKEN:?}\n[routes.\"/mine/[how]\"]\nsettings = {{ greeting = {SETTING:?} }}"
    );
    let site = Site::new()
        .module("mine/[how]", &hostile())
        .module("other/[how]", &hostile());
    let site = site.config(&config).logging("trace").start().await;
    let seen = site.get("/_wisr/data/mine/settings.json").await;
    assert_eq!(seen.json(), json!(SETTING), "it has it");
    let seen = site.get("/_wisr/data/other/settings.json").await;
    assert_eq!(seen.json(), json!(""), "the other does not");

    let bearer = format!("Bearer {TOKEN}");
    let revalidate = async |path: &str| {
        let body = json!({ "paths": [path] }).to_string();
        let headers = [
            ("authorization", &*bearer),
            ("content-type", "application/json"),
        ];
        site.send("POST", "/api/revalidate", &headers, &body).await;
        for token in [TOKEN.to_owned(), format!("{TOKEN}x")] {
            let url = format!("/api/revalidate?secret={token}&path={path}");
            site.send("POST", &url, &[], "").await;
        }
    };
    for how in ["fine", "panic", "loop", "exit", "fetch"] {
        revalidate(&format!("/mine/{how}")).await;
    }
    for what in [
        "",
        "metrics",
        "readyz",
        "api/routes",
        "api/entries",
        "api/incidents",
        "routes",
        "route?name=/mine/[how]",
        "pages",
        "page?path=/mine/fine",
        "incidents",
        "incident?id=1",
    ] {
        let said = site.admin(&format!("/{what}")).await.text();
        assert!(
            !said.contains(SETTING) && !said.contains(TOKEN),
            "{what}: {said}"
        );
    }
    // What a page says itself is its own doing: its author decides what goes to the log.
    assert!(!site.log().contains(SETTING));
    revalidate("/mine/confess").await;
    wait_for("the confession", async || match site.log() {
        log if log.contains(SETTING) => Ok(()),
        log => Err(log.len().to_string()),
    })
    .await;
    let log = site.log();
    let mut told = log.lines().filter(|line| line.contains(SETTING));
    assert!(told.all(|line| line.contains("my setting is")), "{log}");
    assert!(log.contains("TRACE") && !log.contains(TOKEN), "{log}");
}
