//! Section 6: what was served before can be served again, by hand and by itself, over restarts.

use std::time::Duration;

use serde_json::{Value, json};
use wisr::page::Digest;

use crate::modules;
use crate::site::{Finished, Running, Site, wait_for, wisr};

const JSON: (&str, &str) = ("content-type", "application/json");

async fn posts() -> Running {
    Site::new().pages(&["posts/[id]"]).start().await
}

/// What the server tells of its releases.
async fn history(site: &Running) -> Value {
    site.admin("/api/releases").await.json()
}

/// How each release came about, oldest first: `1 folder`, `3 rollback 1`.
async fn story(site: &Running) -> Vec<String> {
    let history = history(site).await;
    let releases = history["releases"].as_array().unwrap().iter().rev();
    let line = |release: &Value| {
        let of = release.get("of").map(|of| format!(" {of}"));
        let how = release["how"].as_str().unwrap();
        format!("{} {how}{}", release["id"], of.unwrap_or_default())
    };
    releases.map(line).collect()
}

/// Waits until this release serves.
async fn until_release(site: &Running, id: u64) {
    wait_for(&format!("release {id}"), async || {
        let current = history(site).await["current"].clone();
        if current == id {
            Ok(())
        } else {
            Err(current.to_string())
        }
    })
    .await;
}

async fn command(site: &Running, arguments: &[&str]) -> Finished {
    let url = site.admin_url();
    let arguments = [arguments, &["--admin", &url]].concat();
    wisr(site.folder(), &arguments).await
}

#[track_caller]
fn version(site: &crate::client::Response) -> Value {
    site.puppet()["version"].clone()
}

/// The pages of the release that is gone back to are fresh again where they are still there; who
/// asks for one that the other module made meanwhile waits for a new one.
#[tokio::test]
async fn a_rollback_brings_modules_and_pages_back_at_once() {
    let site = posts().await;
    for path in ["/posts/1", "/posts/2"] {
        site.get(path).await;
    }
    site.swap("posts/[id]", &modules::puppet_version(1));
    until_release(&site, 2).await;
    site.renew("/posts/1").await;
    let done = command(&site, &["rollback"]).await;
    assert_eq!(
        (done.code, done.stdout.as_str()),
        (Some(0), "release 3: rollback to 1\n"),
        "{done:?}"
    );
    let kept = site.get("/posts/2").await;
    assert_eq!(
        (kept.verdict(), kept.n(), version(&kept)),
        ("HIT", 1, json!("0000"))
    );
    let other = site.get("/posts/1").await;
    assert_eq!((other.verdict(), version(&other)), ("MISS", json!("0000")));
    assert_eq!(site.incidents().await, Vec::<Value>::new());

    let table = command(&site, &["releases"]).await;
    assert_eq!(table.code, Some(0), "{table:?}");
    let lines: Vec<&str> = table.stdout.lines().collect();
    assert!(
        lines[0].starts_with("release") && lines.len() == 4,
        "{table:?}"
    );
    assert!(
        lines[1].starts_with("3 *") && lines[1].contains("rollback to 1"),
        "{table:?}"
    );
    assert!(lines[2].ends_with("~posts/[id].wasm"), "{table:?}");
    assert!(table.stderr.contains("a rollback holds"), "{table:?}");
    let told = command(&site, &["releases", "--json"]).await;
    let told: Value = serde_json::from_str(&told.stdout).unwrap();
    assert_eq!(told, history(&site).await);

    // There and back, and to one by its number.
    assert_eq!(command(&site, &["rollback"]).await.code, Some(0));
    assert_eq!(version(&site.get("/posts/new").await), "0001");
    assert_eq!(command(&site, &["rollback", "1"]).await.code, Some(0));
    assert_eq!(version(&site.get("/posts/newer").await), "0000");
    let expected = [
        "1 folder",
        "2 folder",
        "3 rollback 1",
        "4 rollback 2",
        "5 rollback 1",
    ];
    assert_eq!(story(&site).await, expected);
}

/// A rollback holds over `kill -9`, and ends when the folder changes: then all of it is served.
#[tokio::test]
async fn a_rollback_holds_over_restarts_until_the_folder_changes() {
    let mut site = Site::new().pages(&["posts/[id]", "other"]).start().await;
    site.swap("posts/[id]", &modules::puppet_version(1));
    until_release(&site, 2).await;
    assert_eq!(command(&site, &["rollback", "1"]).await.code, Some(0));
    site.restart().await;
    assert_eq!(version(&site.get("/posts/1").await), "0000");
    assert_eq!(history(&site).await["held"], true);
    assert_eq!(story(&site).await, ["1 folder", "2 folder", "3 rollback 1"]);
    // The bytes that lie there already, and what is no module, are no change.
    site.swap("posts/[id]", &modules::puppet_version(1));
    site.swap("junk", b"junk");
    site.until_incident("module", "junk.wasm").await;
    assert_eq!(history(&site).await["current"], 3);
    site.swap("other", &modules::puppet_version(2));
    until_release(&site, 4).await;
    assert_eq!(version(&site.get("/posts/2").await), "0001");
    // It was made before, so it may be shown once more first.
    site.until("/other", |page| version(page) == "0002").await;
    assert_eq!(history(&site).await["held"], false);
    let routes = site.admin("/api/routes").await.json();
    assert_eq!(routes["refused"][0]["file"], "junk.wasm");
    assert_eq!(routes["release"], 4);
}

/// A restart over the same folder is the same release, and what changed meanwhile is one more.
#[tokio::test]
async fn release_ids_go_on_over_restarts() {
    let mut site = posts().await;
    let before = history(&site).await;
    site.restart().await;
    assert_eq!(history(&site).await, before);
    site.kill();
    site.swap("posts/[id]", &modules::puppet_version(1));
    site.swap("more", modules::puppet());
    site.restart().await;
    assert_eq!(story(&site).await, ["1 folder", "2 folder"]);
    assert_eq!(version(&site.get("/posts/1").await), "0001");
}

/// A removed route keeps its pages for a rollback; one that comes back with its file begins empty.
#[tokio::test]
async fn a_removed_route_comes_back_empty_but_by_a_rollback_with_its_pages() {
    let mut site = Site::new().pages(&["posts/[id]", "other"]).start().await;
    let gone = async |site: &Running| {
        site.until("/posts/1", |answer| answer.status == 404).await;
    };
    assert_eq!(site.get("/posts/1").await.n(), 1);
    site.remove("posts/[id]");
    gone(&site).await;
    assert_eq!(command(&site, &["rollback"]).await.code, Some(0));
    let page = site.get("/posts/1").await;
    assert_eq!((page.verdict(), page.n()), ("HIT", 1));
    // Back to the folder, where it is not; and then it is.
    assert_eq!(command(&site, &["rollback"]).await.code, Some(0));
    gone(&site).await;
    site.swap("posts/[id]", modules::puppet());
    site.until("/posts/1", |answer| answer.status == 200).await;
    assert_eq!(site.get("/posts/1").await.n(), 2);
    // Also while nobody serves.
    site.remove("posts/[id]");
    gone(&site).await;
    site.kill();
    site.swap("posts/[id]", modules::puppet());
    site.restart().await;
    let page = site.get("/posts/1").await;
    assert_eq!((page.verdict(), page.n()), ("MISS", 3));
}

/// A route under another name is another route, though its module and its addresses are the same.
#[tokio::test]
async fn a_renamed_route_shows_no_page_of_the_old_name() {
    let site = posts().await;
    site.get("/posts/1").await;
    let [old, new] =
        ["[id]", "[slug]"].map(|name| site.folder().join(format!("pages/posts/{name}.wasm")));
    std::fs::rename(old, new).unwrap();
    wait_for("the new name", async || {
        let routes = site.admin("/api/routes").await.json();
        let route = routes["routes"][0]["route"].clone();
        if route == "/posts/[slug]" {
            Ok(())
        } else {
            Err(routes.to_string())
        }
    })
    .await;
    let page = site.get("/posts/1").await;
    assert_eq!((page.verdict(), page.n()), ("MISS", 2));
    assert_eq!(page.puppet()["params"], json!({ "slug": ["1"] }));
}

/// A module that did nothing but fail is not tried again by a restart, but by a change of its file.
#[tokio::test]
async fn a_return_is_remembered_over_restarts() {
    let mut site = posts().await;
    site.get("/posts/1").await;
    site.origin
        .script("/posts/1", json!({ "outcome": "panic", "only": "0007" }));
    site.swap("posts/[id]", &modules::puppet_version(7));
    until_release(&site, 2).await;
    for _ in 0..5 {
        let answer = site.revalidate(json!({ "paths": ["/posts/1"] })).await;
        assert_eq!(answer.status, 500, "{}", answer.text());
    }
    until_release(&site, 3).await;
    site.until_incident("returned", "posts/[id].wasm").await;
    site.restart().await;
    assert_eq!(story(&site).await, ["1 folder", "2 folder", "3 returned"]);
    assert_eq!(version(&site.get("/posts/2").await), "0000");
    let refused = site.admin("/api/routes").await.json()["refused"].clone();
    assert_eq!(
        (&refused[0]["file"], &refused[0]["kind"]),
        (&json!("posts/[id].wasm"), &json!("returned"))
    );
    let table = command(&site, &["releases"]).await;
    assert!(table.stderr.contains("posts/[id].wasm"), "{table:?}");
    site.swap("posts/[id]", &modules::puppet_version(8));
    until_release(&site, 4).await;
    assert_eq!(version(&site.get("/posts/3").await), "0008");
}

/// API routes go back with the rest.
#[tokio::test]
async fn api_routes_roll_back_too() {
    let site = Site::new()
        .module("api/hook", modules::hook())
        .start()
        .await;
    let before = site.get("/api/hook").await.text();
    site.swap("api/hook", &modules::hook_version(4));
    let after = site
        .until("/api/hook", |answer| answer.text() != before)
        .await
        .text();
    assert_eq!(command(&site, &["rollback"]).await.code, Some(0));
    assert_eq!(site.get("/api/hook").await.text(), before);
    assert_eq!(command(&site, &["rollback"]).await.code, Some(0));
    assert_eq!(site.get("/api/hook").await.text(), after);
}

/// What cannot be done is refused with its reason, and changes nothing.
#[tokio::test]
async fn a_rollback_that_cannot_be_is_refused() {
    const ROLLBACK: &str = "/api/releases/rollback";
    let mut site = posts().await;
    for number in 1..=2 {
        site.swap("posts/[id]", &modules::puppet_version(number));
        until_release(&site, u64::from(number) + 1).await;
        // It made a page, and needs the way back to the module before no more.
        site.get(&format!("/posts/{number}")).await;
    }
    // Nothing of the first release is in memory after a restart.
    site.restart().await;
    let digest = history(&site).await["releases"][2]["files"]["posts/[id].wasm"].clone();
    let module = format!(".wisr/modules/{}.wasm", digest.as_str().unwrap());
    std::fs::write(site.folder().join(module), b"damaged").unwrap();
    let evil = ("origin", "http://evil.example");
    let cross = ("sec-fetch-site", "cross-site");
    for (headers, body, status, words) in [
        (&[JSON][..], r#"{"id":9}"#, 404, "release 9"),
        (&[JSON], r#"{"id":3}"#, 409, "already"),
        (&[JSON], r#"{"id":1}"#, 409, "posts/[id].wasm"),
        (&[JSON], r#"{"id":"1"}"#, 400, "{\"id\": N}"),
        (&[JSON], r#"{"to":1}"#, 400, "unknown field"),
        (&[JSON], "", 400, "{\"id\": N}"),
        (&[], "{}", 415, "application/json"),
        (&[JSON, evil], "{}", 403, "other sites"),
        (&[JSON, cross], "{}", 403, "other sites"),
        (&[JSON, ("host", "evil.example")], "{}", 421, "localhost"),
    ] {
        let answer = site.admin_post(ROLLBACK, headers, body).await;
        let message = answer.json()["message"].as_str().unwrap().to_owned();
        assert_eq!(
            (answer.status, message.contains(words)),
            (status, true),
            "{body}: {message}"
        );
    }
    let shown = site.admin(ROLLBACK).await;
    assert_eq!((shown.status, shown.header("allow")), (405, "POST"));
    let posted = site.admin_post("/api/releases", &[JSON], "{}").await;
    assert_eq!((posted.status, posted.header("allow")), (405, "GET, HEAD"));
    let done = command(&site, &["rollback", "9"]).await;
    assert_eq!(
        (done.code, done.stderr.contains("release 9")),
        (Some(1), true),
        "{done:?}"
    );
    assert_eq!(story(&site).await, ["1 folder", "2 folder", "3 folder"]);

    let nobody = wisr(
        site.folder(),
        &["rollback", "--admin", "http://127.0.0.1:9"],
    )
    .await;
    assert_eq!(nobody.code, Some(2), "{nobody:?}");
    assert!(
        nobody.stderr.contains("127.0.0.1:9") && nobody.stderr.contains("wisr serve"),
        "{nobody:?}"
    );
}

/// Where the admin port has a token, it is wanted for releases as for everything else.
#[tokio::test]
async fn releases_are_behind_the_token_of_the_admin_port() {
    let site = Site::new()
        .pages(&["index"])
        .config("[server]\nadmin-token = \"correct-horse-battery\"");
    let site = site.start().await;
    for arguments in [&["releases"][..], &["rollback"]] {
        let refused = command(&site, arguments).await;
        assert_eq!(
            (refused.code, refused.stderr.contains("WISR_ADMIN_TOKEN")),
            (Some(2), true),
            "{refused:?}"
        );
    }
    let listed = command(&site, &["releases", "--token", "correct-horse-battery"]).await;
    assert_eq!(
        (listed.code, listed.stdout.lines().count()),
        (Some(0), 2),
        "{listed:?}"
    );
    let nothing = command(&site, &["rollback", "--token", "correct-horse-battery"]).await;
    assert_eq!(
        (nothing.code, nothing.stderr.contains("no release before")),
        (Some(1), true),
        "{nothing:?}"
    );
}

/// `kill -9` at any moment of a swap or a rollback leaves a history that is whole, and modules for
/// all of it.
#[tokio::test]
async fn killed_at_any_moment_the_history_is_whole() {
    let mut site = posts().await;
    let versions: Vec<_> = (1..=3).map(modules::puppet_version).collect();
    let mut last = 1;
    for round in 0..10_u64 {
        for version in &versions {
            site.swap("posts/[id]", version);
            let done = site
                .admin_post("/api/releases/rollback", &[JSON], "{}")
                .await;
            // What was acknowledged is there after the kill; the first has nothing to go back to.
            if done.status == 200 {
                last = done.json()["release"]["id"].as_u64().unwrap();
            }
        }
        tokio::time::sleep(std::time::Duration::from_millis(round * 17 % 90)).await;
        site.restart().await;
        assert_eq!(site.incidents().await, Vec::<Value>::new());
        let told = history(&site).await;
        let ids = told["releases"].as_array().unwrap().iter().rev();
        let ids: Vec<u64> = ids.map(|release| release["id"].as_u64().unwrap()).collect();
        assert!(
            ids.is_sorted() && ids.len() <= 10 && ids[ids.len() - 1] >= last,
            "{ids:?}"
        );
        last = ids[ids.len() - 1];
        assert_eq!(site.get(&format!("/posts/{round}")).await.status, 200);
        for release in told["releases"].as_array().unwrap() {
            for (file, digest) in release["files"].as_object().unwrap() {
                let path = format!(".wisr/modules/{}.wasm", digest.as_str().unwrap());
                let bytes = std::fs::read(site.folder().join(path)).unwrap();
                assert_eq!(blake3::hash(&bytes).to_string(), *digest, "{file}");
            }
        }
    }
}

/// What the releases made that a rollback took back is shown to nobody: no page, no data, no 404,
/// over `kill -9`, also not where the old module fails, or where it was still being made. It is
/// kept, for whoever takes the rollback back.
#[tokio::test]
async fn what_a_rollback_took_back_is_not_shown_once_more() {
    let mut site = posts().await;
    let old = site.get("/posts/old").await;
    site.swap("posts/[id]", &modules::puppet_version(1));
    until_release(&site, 2).await;
    site.origin
        .script("/posts/404", json!({"outcome": "not-found"}));
    for path in [
        "/posts/old",
        "/posts/data",
        "/posts/disk",
        "/posts/fails",
        "/posts/404",
    ] {
        site.renew(path).await;
    }
    site.origin.heal("/posts/404");
    site.origin.hold("/posts/late");
    let early = site.waiting("/posts/late");
    site.until_calls("/posts/late", 1).await;
    assert_eq!(command(&site, &["rollback"]).await.code, Some(0));
    let late = site.waiting("/posts/late");

    let page = site.get("/posts/old").await;
    assert_eq!((page.verdict(), version(&page)), ("MISS", version(&old)));
    let data = site.get("/_wisr/data/posts/data.json").await;
    assert_eq!(
        (data.verdict(), &data.json()["version"]),
        ("MISS", &json!("0000"))
    );
    let page = site.get("/posts/404").await;
    assert_eq!((page.status, page.verdict()), (200, "MISS"));
    site.origin
        .script("/posts/fails", json!({"outcome": "error"}));
    assert_eq!(site.get("/posts/fails").await.status, 500);
    site.origin.release("/posts/late");
    assert_eq!(version(&late.await.unwrap()), "0000");
    early.await.unwrap();
    let page = site.get("/posts/late").await;
    assert_eq!((page.verdict(), version(&page)), ("HIT", json!("0000")));

    site.restart().await;
    assert_eq!(site.get("/posts/fails").await.status, 500);
    let page = site.get("/posts/disk").await;
    assert_eq!((page.verdict(), version(&page)), ("MISS", json!("0000")));
    // Nor when the folder has changed since.
    site.origin.heal("/posts/fails");
    assert_eq!(command(&site, &["rollback", "2"]).await.code, Some(0));
    let page = site.get("/posts/fails").await;
    assert_eq!((page.verdict(), version(&page)), ("HIT", json!("0001")));
    assert_eq!(command(&site, &["rollback", "1"]).await.code, Some(0));
    site.swap("posts/[id]", &modules::puppet_version(2));
    until_release(&site, 6).await;
    let page = site.get("/posts/fails").await;
    assert_eq!((page.verdict(), version(&page)), ("MISS", json!("0002")));
}

/// A rollback that was acknowledged holds over `kill -9`, also where a newer module was seen
/// before it and is compiled only after the restart. `WISR_ROLLBACK_ROUNDS=24` tries as many moments.
#[tokio::test]
async fn a_rollback_holds_over_a_kill_while_a_newer_module_is_compiled() {
    let rounds = std::env::var("WISR_ROLLBACK_ROUNDS");
    let rounds: u64 = rounds.map_or(2, |rounds| rounds.parse().unwrap());
    let mut site = posts().await;
    let mut versions: Vec<u32> = (1_000..9_999).collect();
    fastrand::shuffle(&mut versions);
    for round in 0..rounds {
        site.swap(
            "posts/[id]",
            &modules::puppet_version(versions.pop().unwrap()),
        );
        wait_for("a release of the folder", async || {
            let history = history(&site).await;
            let current = &history["releases"][0]["how"];
            (history["held"] == false && *current == "folder" && history["current"] != 1)
                .then_some(())
                .ok_or(history.to_string())
        })
        .await;
        // Nobody has compiled it, which takes a while.
        let newer = versions.pop().unwrap();
        site.swap("posts/[id]", &modules::puppet_version(newer));
        // From before it is seen to after it is compiled.
        let moment = Duration::from_millis(1_500 * (round + 1) / (rounds + 1));
        tokio::time::sleep(moment).await;
        let first = history(&site).await["releases"].as_array().unwrap().len();
        let first = history(&site).await["releases"][first - 1]["id"].to_string();
        let done = command(&site, &["rollback", &first]).await;
        assert_eq!(done.code, Some(0), "{done:?}");
        site.strike();
        site.restart().await;
        let held = async |site: &Running| {
            let told = history(site).await;
            assert_eq!(
                (&told["held"], &told["releases"][0]["how"]),
                (&json!(true), &json!("rollback")),
                "{moment:?} {told}"
            );
        };
        held(&site).await;
        let page = site.get(&format!("/posts/{round}")).await;
        assert_eq!(version(&page), "0000");
        // Two modules are remembered; the third is the newer one, unless it was served by then.
        let loads = "wisr_module_load_seconds_count{outcome=\"ok\"}";
        let served = history(&site).await["releases"].to_string();
        let digest = Digest::of(&modules::puppet_version(newer)).to_string();
        let wanted = if served.contains(&digest) { 2.0 } else { 3.0 };
        site.until_metric(loads, wanted).await;
        held(&site).await;
        let page = site.get(&format!("/posts/{round}-later")).await;
        assert_eq!(version(&page), "0000");
    }
}
