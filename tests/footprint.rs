//! The memory that guests leave behind in the process: none, within moments of their end.

use std::time::Duration;

use serde_json::json;

use crate::modules;
use crate::site::{Running, Site, wait_longer};

/// What may stay of guests that are gone: pages of the allocator, a little of each place in the pool.
const LEFT: u64 = 48 << 20;

/// When it must be gone: a second after the guest is, and what a busy machine adds to that.
const SOON: Duration = Duration::from_secs(5);

/// Guests, one after another: more than the process has places for.
const GUESTS: usize = 14;

/// Small in all but what is measured.
const SMALL: &str = "[store]\nmemory = \"16MiB\"\ndurable = false\n[generations]\nconcurrency = 4\n\
                     [defaults]\ncpu = \"30s\"\nwall = \"60s\"";

async fn settled(site: &Running, base: u64, what: &str) {
    wait_longer(SOON, what, async || {
        let more = site.resident().saturating_sub(base);
        match more <= LEFT {
            true => Ok(()),
            false => Err(format!("{} MiB more than before", more >> 20)),
        }
    })
    .await;
}

/// Guests that take all that they may and are stopped: what they had is given back though no other
/// guest comes after them.
#[tokio::test]
async fn what_a_guest_had_is_given_back_when_it_ends() {
    let hostile = modules::built("wasm32-wasip2", "hostile");
    let site = Site::new()
        .pages(&["about"])
        .module("size/[how]", &hostile)
        .module("api/hook", modules::hook())
        .config(SMALL)
        .start()
        .await;
    site.get("/size/fine").await;
    site.get("/api/hook").await;
    let base = site.resident();
    for round in 0..GUESTS {
        for how in ["bomb", "recursion"] {
            let path = format!("/size/{how}");
            let answer = site.revalidate(json!({ "paths": [path] })).await;
            assert_eq!(answer.status, 500, "{}", answer.text());
        }
        settled(&site, base, &format!("page {round} gone")).await;
        assert_eq!(site.get("/api/hook?do=bomb").await.status, 500);
        settled(&site, base, &format!("API request {round} gone")).await;
    }
    site.until_incident("memory", "/api/hook").await;
}

/// Large pages that succeed pass through the host, and leave no more there than the store keeps.
#[tokio::test]
async fn large_pages_leave_nothing_beside_the_store() {
    let hostile = modules::built("wasm32-wasip2", "hostile");
    let site = Site::new()
        .module("size/[how]", &hostile)
        .config(SMALL)
        .start()
        .await;
    site.get("/size/fine").await;
    let base = site.resident();
    for round in 0..GUESTS / 2 {
        let answer = site
            .revalidate(json!({ "paths": [format!("/size/noise-{round}")] }))
            .await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        // The store's 16 MiB.
        settled(&site, base + (16 << 20), &format!("page {round} left")).await;
    }
}

/// What a guest can have the host hold: how; the kind of the incident, none where it is either, since
/// what is refused is given back as soon as somebody gets round to it, or the words alone are too many.
const HELD: [(&str, &str); 17] = [
    ("hold-bodies", "memory"),
    ("hold-answers", "memory"),
    ("hold-fields", "memory"),
    ("hold-lists", "memory"),
    ("hold-clones", "memory"),
    ("hold-shares", "memory"),
    ("hold-trailers", "memory"),
    ("hold-methods", "memory"),
    ("hold-targets", "memory"),
    ("hold-sent", ""),
    ("hold-options", "resources"),
    ("hold-streams", "resources"),
    ("handles", "resources"),
    ("futures", ""),
    ("poll", "resources"),
    ("long-setting", ""),
    ("vast-log", ""),
];

/// The memory of a page here.
const MEMORY: u64 = 32 << 20;

/// What the manual says that a page takes beside its memory.
const BESIDE: u64 = 36 << 20;

/// Sets back the most memory that the process had (`proc(5)`, clear_refs).
fn forget_peak(site: &Running) {
    let file = format!("/proc/{}/clear_refs", site.pid());
    std::fs::write(file, "5").unwrap();
}

/// Whatever a guest has the host hold counts as its own memory, and the incident says so.
#[tokio::test]
async fn what_the_host_holds_counts_as_the_guests_memory() {
    let hostile = modules::built("wasm32-wasip2", "hostile");
    let site = Site::new()
        .module("size/[how]", &hostile)
        .config(SMALL)
        .config("[defaults]\nmemory = \"32MiB\"")
        .start()
        .await;
    site.get("/size/fine").await;
    let base = site.resident();
    // Of many small things, each thread that makes pages keeps what it freed until it is busy again.
    let kept = std::thread::available_parallelism().unwrap().get() as u64 * MEMORY;
    for (how, kind) in HELD {
        forget_peak(&site);
        let path = format!("/size/{how}");
        let answer = site.revalidate(json!({ "paths": [path] })).await;
        let more = site.peak().saturating_sub(base);
        assert_eq!(answer.status, 500, "{how}: {}", answer.text());
        let incident = site.incident_of(&path).await;
        if !kind.is_empty() {
            assert_eq!(incident["kind"], kind, "{how}: {incident:#}");
        }
        let memory = incident["failure"]["cost"]["memory"].as_u64().unwrap();
        assert!(memory <= MEMORY, "{how}: {incident:#}");
        if kind == "memory" {
            // Nothing that is asked for in one call here is larger than 9 MiB.
            assert!(memory > MEMORY - (10 << 20), "{how}: {incident:#}");
            let message = incident["message"].as_str().unwrap();
            assert!(
                message.contains("the host holds for it"),
                "{how}: {message}"
            );
        }
        assert!(
            more <= MEMORY + BESIDE + LEFT + kept,
            "{how}: {} MiB more than before",
            more >> 20
        );
        settled(&site, base + kept, &format!("{how} gone")).await;
    }
    let crowd = HELD.map(|(how, _)| format!("/size/{how}"));
    forget_peak(&site);
    let answer = site.revalidate(json!({ "paths": crowd })).await;
    assert_eq!(answer.status, 500, "{}", answer.text());
    let more = site.peak().saturating_sub(base);
    assert!(
        more <= 4 * (MEMORY + BESIDE) + LEFT + kept,
        "four at once: {} MiB",
        more >> 20
    );
    settled(&site, base + kept, "all gone").await;
}
