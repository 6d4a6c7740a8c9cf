//! Section 7: what a page may use, and that it can harm only itself.

use serde_json::{Value, json};

use crate::modules;
use crate::site::{CANARY, Running, Site};

/// Small sizes, so that they are reached soon; ample times, so that nothing else is.
const LIMITS: &str = "[defaults]\ncpu = \"30s\"\nwall = \"60s\"\nmemory = \"32MiB\"\n\
                      page = \"64KiB\"\nprops = \"16KiB\"\nfetches = 4\nfetch-bytes = \"32KiB\"";

async fn limited() -> Running {
    limited_to("").await
}

async fn limited_to(config: &str) -> Running {
    Site::new()
        .pages(&["about", "posts/[id]"])
        .config(LIMITS)
        .config(config)
        .start()
        .await
}

/// A good page turns bad: it stays up, the incident names the kind, and nobody else notices.
async fn a_page_turns_bad(script: Value, kind: &str, words: &str) {
    a_page_turns_bad_on(limited().await, script, kind, words).await;
}

async fn a_page_turns_bad_on(site: Running, script: Value, kind: &str, words: &str) {
    assert_eq!(site.get("/posts/1").await.n(), 1);
    site.origin.script("/posts/1", script);
    let answer = site.revalidate(json!({ "paths": ["/posts/1"] })).await;
    assert_eq!(answer.status, 500, "{}", answer.text());
    let page = site.get("/posts/1").await;
    assert_eq!(
        (page.status, page.n()),
        (200, 1),
        "the last good page stays"
    );
    let incident = site.until_incident(kind, "/posts/1").await;
    let said = incident.to_string();
    assert!(said.contains(words), "{words:?} in {incident:#}");
    assert_eq!(site.get("/about").await.verdict(), "HIT");
    assert_eq!(
        site.get("/posts/2").await.verdict(),
        "MISS",
        "the route goes on making pages"
    );
}

/// A page that counts for ever before it has props.
#[tokio::test]
async fn endless_static_props_are_cut_off_by_cpu_time() {
    let site = limited_to("[defaults]\ncpu = \"300ms\"").await;
    a_page_turns_bad_on(site, json!({ "outcome": "spin" }), "cpu", "300").await;
}

/// A page that counts for ever while it renders.
#[tokio::test]
async fn an_endless_render_is_cut_off_by_cpu_time() {
    let site = limited_to("[defaults]\ncpu = \"300ms\"").await;
    let script = json!({ "render": { "outcome": "spin" } });
    a_page_turns_bad_on(site, script, "cpu", "300").await;
}

/// A page that waits for ever.
#[tokio::test]
async fn a_sleeping_page_is_cut_off_by_wall_time() {
    let site = limited_to("[defaults]\nwall = \"2s\"").await;
    a_page_turns_bad_on(site, json!({ "outcome": "sleep" }), "wall", "2").await;
}

/// A page that wants all the memory there is.
#[tokio::test]
async fn a_greedy_page_is_stopped_at_the_allocation() {
    a_page_turns_bad(json!({ "outcome": "memory" }), "memory", "32").await;
}

/// A page without end is not sent, nor are props.
#[tokio::test]
async fn an_oversized_page_is_refused() {
    a_page_turns_bad(json!({ "render": { "huge": 70_000 } }), "output", "64").await;
}

/// Props have a limit of their own.
#[tokio::test]
async fn oversized_props_are_refused() {
    a_page_turns_bad(json!({ "huge": 20_000 }), "output", "16").await;
}

/// A stack overflow is a trap of the guest, not of the server.
#[tokio::test]
async fn an_endless_recursion_is_a_trap() {
    a_page_turns_bad(
        json!({ "render": { "outcome": "stack" } }),
        "trap",
        "recursion",
    )
    .await;
}

/// `exit(0)` is not success: there is no page.
#[tokio::test]
async fn exiting_is_a_failure() {
    a_page_turns_bad(json!({ "outcome": "exit" }), "exit", "exit").await;
}

/// A flood of stderr is bounded, and its end, where the reason is, is kept.
#[tokio::test]
async fn a_flood_of_words_is_bounded_and_its_end_is_kept() {
    let flood = json!({ "outcome": "stderr" });
    let site = Site::new()
        .pages(&["posts/[id]"])
        .config("[defaults]\ncpu = \"30s\"\nwall = \"60s\"")
        .start()
        .await;
    site.origin.script("/posts/1", flood);
    assert_eq!(site.get("/posts/1").await.status, 500);
    let incident = site.until_incident("trap", "the last words").await;
    assert!(
        incident.to_string().len() < 200_000,
        "an incident is for people"
    );
    assert!(
        site.log().len() < 2_000_000,
        "the log is bounded: {} bytes",
        site.log().len()
    );
}

/// A hung origin holds a page up for no longer than its wall time, and frees the slot.
#[tokio::test]
async fn a_hung_origin_never_pins_a_page() {
    let site = Site::new()
        .pages(&["posts/[id]"])
        .config("[defaults]\nwall = \"2s\"\n[generations]\nconcurrency = 1")
        .start()
        .await;
    site.origin.hold("/posts/1");
    assert_eq!(site.get("/posts/1").await.status, 500);
    site.until_incident("wall", "/posts/1").await;
    site.origin.release("/posts/1");
    assert_eq!(site.get("/posts/1").await.status, 200);
}

/// An incident reads like an error that a person can act on.
#[tokio::test]
async fn an_incident_has_the_message_the_frames_and_the_fetches() {
    let site = limited().await;
    site.origin
        .script("/posts/1", json!({ "render": { "outcome": "panic" } }));
    site.get("/posts/1").await;
    let incident = site.until_incident("trap", "/posts/1").await;
    let failure = &incident["failure"];
    assert_eq!(failure["call"], "render", "{incident:#}");
    assert!(
        failure["stderr"]
            .as_str()
            .unwrap()
            .contains("the origin wants a panic"),
        "{incident:#}"
    );
    let frames = failure["frames"].to_string();
    assert!(
        frames.contains("puppet") || frames.contains("Puppet"),
        "demangled names: {incident:#}"
    );
    let fetch = &failure["cost"]["fetches"][0];
    let url = fetch["url"].as_str().unwrap();
    assert!(
        url.starts_with(&site.origin.url()) && url.contains("/posts/1"),
        "{incident:#}"
    );
    assert!(fetch.to_string().contains("200"), "{fetch}");
}

/// Each generation may fetch so often and so much; beyond that the page is told.
#[tokio::test]
async fn fetches_are_counted_and_measured() {
    let site = limited().await;
    let url = |path: &str| format!("{}/{path}", site.origin.url());
    let urls = ["a", "b", "c", "d", "e"].map(url);
    site.origin.script("/posts/many", json!({ "fetch": urls }));
    let page = site.get("/posts/many").await;
    assert_eq!(page.status, 200, "{}", page.text());
    let fetched = page.puppet()["props"]["fetched"]
        .as_array()
        .unwrap()
        .clone();
    let done = fetched.iter().filter(|result| **result == 200).count();
    assert_eq!(
        done, 3,
        "four in all, with the one for the props: {fetched:?}"
    );
    assert_eq!(
        site.origin
            .all_calls()
            .iter()
            .filter(|call| call.path.len() == 2)
            .count(),
        3
    );
    site.origin
        .script("/big", json!({ "props": { "x": "x".repeat(40_000) } }));
    site.origin
        .script("/posts/big", json!({ "fetch": [url("big")] }));
    let page = site.get("/posts/big").await;
    assert_eq!(page.status, 200, "{}", page.text());
    assert!(
        page.puppet()["props"]["fetched"][0].is_string(),
        "{}",
        page.text()
    );
}

/// Nothing can be reached that the route does not name, in any spelling.
#[tokio::test]
async fn only_named_origins_can_be_reached() {
    let site = Site::new().pages(&["posts/[id]"]).start().await;
    let port = site.origin.port();
    let admin_port = site.site().port();
    let urls = [
        format!("http://127.0.0.1:{admin_port}/secret"),
        format!("http://[::1]:{port}/secret"),
        format!("http://[64:ff9b::7f00:1]:{port}/secret"),
        format!("http://2130706433:{port}/secret"),
        format!("http://user@127.0.0.1:{port}/secret"),
        format!("http://0.0.0.0:{port}/secret"),
        format!("http://127.0.0.2:{port}/secret"),
        format!("https://127.0.0.1:{port}/secret"),
        "http://10.0.0.1/secret".to_owned(),
        "http://192.168.0.1/secret".to_owned(),
        "http://example.com/secret".to_owned(),
    ];
    site.origin.script("/posts/1", json!({ "fetch": urls }));
    let page = site.get("/posts/1").await;
    assert_eq!(page.status, 200, "{}", page.text());
    let fetched = page.puppet()["props"]["fetched"]
        .as_array()
        .unwrap()
        .clone();
    for (url, result) in urls.iter().zip(&fetched) {
        assert!(result.is_string(), "{url} was answered: {result}");
    }
    assert_eq!(site.origin.count("/secret"), 0, "{fetched:#?}");
}

/// A name that leads to this machine is refused, though the name itself is allowed: else whoever
/// has the name decides what a page can reach.
#[tokio::test]
async fn an_allowed_name_that_leads_inside_is_refused() {
    let origin = "[defaults]\noutbound = [\"http://localhost:ORIGIN-PORT\"]\n\
                  [settings]\norigin = \"http://localhost:ORIGIN-PORT\"";
    let site = Site::new()
        .pages(&["posts/[id]"])
        .config(origin)
        .start()
        .await;
    assert_eq!(site.get("/posts/1").await.status, 500);
    assert_eq!(site.origin.count("/posts/1"), 0);
    site.until_incident("error", "loopback").await;
}

/// The metadata service of a cloud is out of reach of a page that was not given it.
#[tokio::test]
async fn the_metadata_service_is_denied() {
    let site = limited().await;
    let urls = [
        "http://169.254.169.254/latest/meta-data/",
        "http://[fd00:ec2::254]/",
        "http://metadata.google.internal/",
    ];
    site.origin.script("/posts/1", json!({ "fetch": urls }));
    let page = site.get("/posts/1").await;
    let fetched = &page.puppet()["props"]["fetched"];
    assert!(
        fetched.as_array().unwrap().iter().all(Value::is_string),
        "{fetched}"
    );
}

/// A route may have its own list of origins: another route's list does not count.
#[tokio::test]
async fn every_route_has_its_own_list_of_origins() {
    let site = Site::new()
        .pages(&["about", "posts/[id]"])
        .config("[routes.\"/posts/[id]\"]\noutbound = []")
        .start()
        .await;
    assert_eq!(site.get("/about").await.status, 200);
    assert_eq!(site.get("/posts/1").await.status, 500);
    assert_eq!(site.origin.count("/posts/1"), 0);
}

/// A site whose one route is the hostile page.
async fn hostile(config: &str) -> Running {
    let hostile = modules::built("wasm32-wasip2", "hostile");
    Site::new()
        .pages(&["about"])
        .module("hostile/[how]", &hostile)
        .config(config)
        .start()
        .await
}

/// Nothing of the machine can be seen from inside.
#[tokio::test]
async fn no_file_no_environment_and_no_socket_is_seen() {
    let site = hostile("").await;
    let seen = site.get("/_wisr/data/hostile/peek.json").await;
    assert_eq!((seen.status, seen.json()), (200, json!("")));
    assert!(!seen.text().contains(CANARY.1));
    assert!(!std::path::Path::new("/tmp/wisr-was-here").exists());
}

/// Every other misdeed ends as its own kind of incident, and the server goes on.
#[tokio::test]
async fn every_misdeed_has_its_kind() {
    let site = hostile("[defaults]\ncpu = \"30s\"\nwall = \"60s\"").await;
    for (how, kinds) in [
        ("abort", &["trap"][..]),
        ("handles", &["resources"]),
        ("fields", &["resources"]),
        ("random", &["resources"]),
        ("vast-log", &["resources", "memory"]),
        ("vast-page", &["output", "memory"]),
        ("tags", &["memory", "output"]),
        ("many-tags", &["output", "invalid"]),
        ("bad-tag", &["invalid"]),
        ("zero", &["invalid"]),
    ] {
        let path = format!("/hostile/{how}");
        // Under its shell a failure would not show: an on-demand call waits and tells.
        let answer = site.revalidate(json!({ "paths": [path] })).await;
        assert_eq!(answer.status, 500, "{how}: {}", answer.text());
        let incidents = site.incidents().await;
        let found = incidents
            .iter()
            .find(|incident| incident["path"] == path.as_str());
        let kind =
            found.unwrap_or_else(|| panic!("no incident of {how}: {incidents:#?}"))["kind"].clone();
        assert!(
            kinds.contains(&kind.as_str().unwrap()),
            "{how} ended as {kind}: {found:#?}"
        );
        assert_eq!(site.get("/about").await.verdict(), "HIT", "{how}");
    }
    assert_eq!(site.get("/hostile/fine").await.status, 200);
}

/// What a guest says goes to the log without its control characters: a log is read on terminals.
#[tokio::test]
async fn control_characters_do_not_reach_the_log() {
    let site = hostile("").await;
    site.renew("/hostile/escapes").await;
    crate::site::wait_for("the guest's words in the log", async || {
        let log = site.log();
        if log.contains("cleared") {
            Ok(())
        } else {
            Err(log)
        }
    })
    .await;
    assert!(
        !site
            .log()
            .contains(['\x1b', '\x07', '\u{202e}', '\u{2028}', '\u{e0041}']),
        "{}",
        site.log()
    );
}
