//! `wisr.toml` is taken up while the server runs: all that can be, at once, or nothing.

use rustix::process::Signal;
use serde_json::json;

use crate::site::{Running, Site, wait_for};

const POSTS: &str = "[routes.\"/posts/[id]\"]\n";

async fn until_logged(site: &Running, words: &str) {
    wait_for(&format!("{words:?} in the log"), async || {
        let log = site.log();
        log.contains(words).then_some(()).ok_or(log)
    })
    .await;
}

async fn call(site: &Running, token: &str) -> u16 {
    let target = format!("/api/revalidate?secret={token}&path=/posts/1");
    site.get(&target).await.status
}

/// SIGHUP: the rules of routes, the token and the crawlers change in one step; pages stay as fresh
/// as they are; the log names what was applied and what needs a restart, and no value.
#[tokio::test]
async fn a_hangup_applies_what_a_running_server_can_take_up() {
    let site = Site::new()
        .pages(&["posts/[id]", "about"])
        .config("[server]\npoll = \"1h\"");
    let site = site.start().await;
    assert_eq!(site.get("/posts/1?q=a").await.verdict(), "MISS");
    assert_eq!(site.get("/posts/1?q=b").await.verdict(), "HIT");
    let mut reader = site.reader();
    assert_eq!(
        reader.send("GET", "/posts/1", &[], "").await.unwrap().n(),
        1
    );

    site.configure(&format!(
        "[server]\nlisten = \"127.0.0.1:9\"\nthreads = 7\n[revalidate]\ntoken = \"the-next-secret-token\"\n{POSTS}query = [\"q\"]\n\
         revalidate = 77\nsettings = {{ greeting = \"guten Tag\" }}\n"
    ));
    site.signal(Signal::HUP);
    until_logged(&site, "was read again").await;

    // The same entry, on the same connection, under the settings of before its making.
    let answer = reader.send("GET", "/posts/1", &[], "").await.unwrap();
    assert_eq!((answer.verdict(), answer.n()), ("HIT", 1));
    let answer = site.get("/posts/1?q=a").await;
    assert_eq!(
        (answer.verdict(), answer.directive("s-maxage")),
        ("MISS", Some("77"))
    );
    assert_eq!(answer.puppet()["setting"], "guten Tag");
    assert_eq!(site.get("/about").await.verdict(), "HIT");
    assert_eq!(call(&site, crate::site::TOKEN).await, 401);
    assert_eq!(call(&site, "the-next-secret-token").await, 200);

    let log = site.log();
    for key in [
        "revalidate.token",
        "routes.\"/posts/[id]\".query",
        "routes.\"/posts/[id]\".settings.greeting",
    ] {
        assert!(log.contains(key), "{key} in\n{log}");
    }
    assert!(
        log.contains("changes to `server.threads` need a restart"),
        "the address was given to the program: {log}"
    );
    assert!(
        !log.contains("the-next-secret-token") && !log.contains("guten Tag"),
        "{log}"
    );
    assert!(site.incidents().await.is_empty());

    site.signal(Signal::HUP);
    until_logged(&site, "nothing changed").await;
}

/// A token that a variable's file holds can be replaced there, though `wisr.toml` stays as it is.
#[tokio::test]
async fn a_hangup_reads_what_variables_name() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "the-token-of-today").unwrap();
    let site = Site::new()
        .pages(&["posts/[id]"])
        .env("WISR_TOKEN_FILE", file.to_str().unwrap());
    let site = site.start().await;
    assert_eq!(call(&site, "the-token-of-today").await, 200);
    std::fs::write(&file, "the-token-of-tomorrow").unwrap();
    site.signal(Signal::HUP);
    until_logged(&site, "applied: revalidate.token").await;
    assert_eq!(call(&site, "the-token-of-today").await, 401);
    assert_eq!(call(&site, "the-token-of-tomorrow").await, 200);
    std::fs::remove_file(&file).unwrap();
    site.signal(Signal::HUP);
    site.until_incident("config", "WISR_TOKEN_FILE").await;
    assert_eq!(call(&site, "the-token-of-tomorrow").await, 200);
}

/// A change is also found without a signal. A file that cannot be used changes nothing, whatever
/// else stands in it, and is an incident that says what is wrong.
#[tokio::test]
async fn a_file_that_cannot_be_used_changes_nothing() {
    let site = Site::new()
        .pages(&["posts/[id]"])
        .config("[server]\npoll = \"50ms\"");
    let site = site.start().await;
    assert_eq!(site.get("/posts/1").await.n(), 1);

    site.configure(&format!("[defaults]\noutbound = []\n{POSTS}cpu = 5\n"));
    let incident = site.until_incident("config", "wisr.toml").await;
    let message = incident["message"].as_str().unwrap();
    assert!(
        message.contains("`cpu`") && message.contains("\"10s\""),
        "{message}"
    );
    site.renew("/posts/1").await;
    assert_eq!(site.get("/posts/1").await.n(), 2);

    // Mended, it is taken up: the page may not ask its origin any more, and its last good page stays.
    site.configure(&format!("[defaults]\noutbound = []\n{POSTS}cpu = \"5s\"\n"));
    until_logged(
        &site,
        "applied: defaults.outbound, routes.\"/posts/[id]\".cpu",
    )
    .await;
    let answer = site.revalidate(json!({ "paths": ["/posts/1"] })).await;
    assert_eq!(answer.status, 500, "{}", answer.text());
    assert_eq!(site.get("/posts/1").await.n(), 2);

    std::fs::remove_file(site.folder().join("wisr.toml")).unwrap();
    site.until_incident("config", "the file is gone").await;
    assert_eq!(
        call(&site, crate::site::TOKEN).await,
        500,
        "the endpoint is still on"
    );
}

/// Paths are listed anew under other settings; what is listed then is made ahead.
#[tokio::test]
async fn a_module_lists_its_paths_under_the_settings_of_now() {
    let list = |id: &str| json!({ "fallback": "not-found", "paths": [{ "id": [id] }] });
    let site = Site::new()
        .pages(&["posts/[id]"])
        .listed("/posts/[id]", "one", list("1"))
        .script("/@paths/two", list("2"))
        .start()
        .await;
    assert_eq!(site.get("/posts/2").await.status, 404);
    site.configure(&format!("{POSTS}settings = {{ paths = \"two\" }}\n"));
    site.signal(Signal::HUP);
    site.until_calls("/posts/2", 1).await;
    site.until("/posts/2", |answer| answer.status == 200).await;
    assert_eq!(site.get("/posts/1").await.status, 404);
}
