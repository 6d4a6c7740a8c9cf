//! What an author sees under `wisr dev`: in the browser, in its network tab and on the terminal; and
//! what an operator sees who asks for the same in production.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::client::{Client, Response};
use crate::commands::source;
use crate::site::{Site, wait_for};

/// A running `wisr dev`, which ends with it.
struct Dev {
    site: SocketAddr,
    terminal: Arc<Mutex<String>>,
    _process: Child,
}

impl Dev {
    async fn start(src: &Path) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_wisr"))
            .args(["dev", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
            .arg(src)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let terminal = Arc::new(Mutex::new(String::new()));
        let (mut said, heard) = (process.stderr.take().unwrap(), Arc::clone(&terminal));
        tokio::spawn(async move {
            let mut chunk = [0; 4096];
            while let Ok(length @ 1..) = said.read(&mut chunk).await {
                heard
                    .lock()
                    .push_str(&String::from_utf8_lossy(&chunk[..length]));
            }
        });
        // Building takes as long as it takes: the first line comes after it.
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let line = lines.next_line().await.unwrap();
        let line = line.unwrap_or_else(|| panic!("it did not start:\n{}", terminal.lock()));
        let (_, address) = line.split_once(" on http://").unwrap();
        Self {
            site: address.parse().unwrap(),
            terminal,
            _process: process,
        }
    }

    async fn get(&self, path: &str, headers: &[(&str, &str)]) -> Response {
        let answer = Client::new(self.site).send("GET", path, headers, "").await;
        answer.unwrap()
    }

    /// Waits until the browser would be told this of a page; `None` that all is well.
    async fn until_told(&self, page: &str, wanted: Option<&str>) -> String {
        let path = format!("/_wisr/dev/failure?page={page}");
        wait_for(&format!("{wanted:?} about {page}"), async || {
            // Somebody looks at it.
            self.get(page, &[]).await;
            let told = self.get(&path, &[]).await;
            match (told.status, wanted) {
                (200, Some(words)) if told.text().contains(words) => Ok(told.text()),
                (204, None) => Ok(String::new()),
                _ => Err(format!(
                    "{} {}\n{}",
                    told.status,
                    told.text(),
                    self.terminal.lock()
                )),
            }
        })
        .await
    }

    /// Reads the browser's stream of events until it says this.
    async fn until_event(&self, wanted: &str) {
        let mut stream = TcpStream::connect(self.site).await.unwrap();
        let ask = "GET /_wisr/dev/events HTTP/1.1\r\nhost: localhost\r\n\r\n";
        stream.write_all(ask.as_bytes()).await.unwrap();
        let mut read = String::new();
        while !read.contains(wanted) {
            let mut chunk = [0; 4096];
            let length = stream.read(&mut chunk).await.unwrap();
            assert!(length > 0, "{wanted} in {read}");
            read.push_str(&String::from_utf8_lossy(&chunk[..length]));
        }
    }
}

/// What a browser says when it is to show a page.
const BROWSER: (&str, &str) = ("sec-fetch-dest", "document");

/// A page that fails is shown as it was, with everything that is known of the failure over it, until
/// it is mended.
#[tokio::test]
async fn an_author_is_told_why_a_page_fails() {
    let here = source(false);
    let dev = Dev::start(&here.path().join("src")).await;
    look(&dev).await;

    let page = here.path().join("src/posts/[id]/page.rs");
    let good = std::fs::read_to_string(&page).unwrap();
    let bad = good.replace("Ok(Document::html(props))", "panic!(\"{props} <fell>\")");
    assert_ne!(bad, good);
    std::fs::write(&page, &bad).unwrap();
    let told = dev
        .until_told("/posts/1", Some("/posts/1 &lt;fell&gt;"))
        .await;
    for words in [
        "panicked at",
        "trap in <code>render</code>",
        "page.rs:",
        "<h2>Props</h2>",
    ] {
        assert!(told.contains(words), "{words} in {told}");
    }
    let program = dev.get("/posts/1", &[]).await;
    assert_eq!(
        (program.status, program.text().as_str()),
        (200, "hello from /posts/1")
    );
    let browser = dev.get("/posts/1", &[BROWSER]).await.text();
    assert!(
        browser.starts_with("hello from /posts/1<script"),
        "{browser}"
    );
    dev.until_event("\"incident\":").await;
    let never = dev.get("/posts/never", &[]).await;
    assert_eq!(never.status, 500);
    assert!(
        never.text().contains("<section data-wisr-failure>"),
        "{}",
        never.text()
    );

    std::fs::write(&page, good).unwrap();
    dev.until_told("/posts/1", None).await;
    assert_eq!(dev.get("/posts/never", &[]).await.status, 200);
}

/// Requests are told of on the terminal, and generations timed for the network tab.
async fn look(dev: &Dev) {
    let first = dev.get("/posts/1", &[]).await;
    let timing = first.header("server-timing");
    for phase in [
        "queue",
        "instantiate",
        "static-props",
        "render",
        "encode",
        "total",
    ] {
        assert!(
            timing.contains(&format!("{phase};dur=")),
            "{phase} in {timing}"
        );
    }
    dev.get("/style.css", &[]).await;
    let again = dev.get("/posts/1", &[]).await;
    assert!(
        again.header("server-timing").starts_with("total;dur="),
        "{again:?}"
    );
    let terminal = dev.terminal.lock().clone();
    assert!(
        terminal.contains("\nGET /posts/1 200 MISS (first request) "),
        "{terminal}"
    );
    assert!(
        terminal.contains("\nGET /posts/1 200 HIT (fresh for "),
        "{terminal}"
    );
    assert!(!terminal.contains("GET /style.css"), "{terminal}");
    assert!(!terminal.contains(" INFO "), "it is no log: {terminal}");
    assert_eq!(dev.until_told("/posts/1", None).await, "");
}

/// `WISR_DEBUG_CACHE=1` logs what readers got and why, and what was made for them; without it, and
/// about files, nothing is said.
#[tokio::test]
async fn an_operator_may_watch_the_cache() {
    let site = || {
        Site::new()
            .pages(&["posts/[id]"])
            .file("public/style.css", b"body{}")
    };
    let script = "WISR_DEBUG_CACHE=1 exec \"$@\"";
    let under = ["sh", "-c", script].map(str::to_owned);
    let watched = site().under(under.into()).start().await;
    let silent = site().start().await;
    for site in [&watched, &silent] {
        for path in ["/style.css", "/posts/1", "/posts/1"] {
            site.get(path).await;
        }
        site.revalidate(serde_json::json!({ "paths": ["/posts/1"], "mode": "stale" }))
            .await;
        site.get("/posts/1").await;
        site.until_calls("/posts/1", 2).await;
    }
    for words in [
        "GET /posts/1 200 MISS (first request)",
        "GET /posts/1 200 HIT ",
        "GET /posts/1 200 STALE (path-invalidated)",
        "generated /posts/1 (first-request): document in",
        "generated /posts/1 (stale): document in",
    ] {
        watched.until_log(words).await;
        assert!(!silent.log().contains(words), "{}", silent.log());
    }
    assert!(!watched.log().contains("style.css"), "{}", watched.log());
    let head = watched.get("/posts/1").await;
    assert_eq!(head.header("server-timing"), "");
}
