//! Section 6: modules come, change and go while readers read.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use crate::modules;
use crate::site::{Running, Site, wait_for};

async fn posts() -> Running {
    Site::new().pages(&["index", "posts/[id]"]).start().await
}

/// Waits until a page of a path is made by this version.
async fn until_version(site: &Running, path: &str, version: &str) {
    site.until(path, |answer| {
        answer.status == 200 && answer.puppet()["version"] == version
    })
    .await;
}

/// A file that appears is a page that is live.
#[tokio::test]
async fn a_new_file_is_live() {
    let site = posts().await;
    assert_eq!(site.get("/docs/a/b").await.status, 404);
    site.swap("docs/[...slug]", modules::puppet());
    site.until("/docs/a/b", |answer| answer.status == 200).await;
}

/// A file that is replaced by a rename is replaced at once; the others keep what they made.
#[tokio::test]
async fn a_replaced_file_is_live_and_other_routes_keep_their_pages() {
    let site = posts().await;
    site.get("/posts/1").await;
    site.swap("posts/[id]", &modules::puppet_version(1));
    until_version(&site, "/posts/1", "0001").await;
    let index = site.get("/").await;
    assert_eq!((index.verdict(), index.n()), ("HIT", 1));
}

/// A file that is still being written changes nothing until it is whole.
#[tokio::test]
async fn a_half_written_file_changes_nothing_until_it_is_whole() {
    let site = posts().await;
    site.get("/posts/1").await;
    let next = modules::puppet_version(2);
    let file = site.folder().join("pages/posts/[id].wasm");
    std::fs::write(&file, &next[..next.len() / 2]).unwrap();
    site.until_incident("module", "posts/[id].wasm").await;
    for path in ["/posts/1", "/posts/2"] {
        let page = site.get(path).await;
        assert_eq!(
            (page.status, &page.puppet()["version"]),
            (200, &json!("0000")),
            "{path}"
        );
    }
    std::fs::write(&file, &next).unwrap();
    until_version(&site, "/posts/1", "0002").await;
}

/// A module that fails any step changes nothing, and an incident says what is wrong with it.
#[tokio::test]
async fn a_bad_module_changes_nothing_and_says_why() {
    let whole = modules::puppet();
    let cases: [(&str, Vec<u8>, &[&str]); 7] = [
        ("truncated", whole[..whole.len() - 100].to_vec(), &[]),
        (
            "text",
            b"<h1>not a module</h1>".to_vec(),
            &["wasm", "webassembly"],
        ),
        ("another world", modules::wrong_world(), &["wisr:page"]),
        ("empty", Vec::new(), &[]),
        (
            "precompiled",
            modules::precompiled(),
            &["precompiled", "native"],
        ),
        (
            "traps at start",
            modules::trapping_at_start(),
            &["unreachable", "start", "instantiat"],
        ),
        (
            "no component type",
            modules::bare_core(),
            &["component-type", "component type"],
        ),
    ];
    let site = posts().await;
    site.get("/posts/1").await;
    // What is refused in the same words is one incident, under the number of the latest.
    let latest = |incidents: &[Value]| incidents.first().map_or(0, |it| it["id"].as_u64().unwrap());
    let mut known = latest(&site.incidents().await);
    for (name, bytes, words) in cases {
        site.swap("posts/[id]", &bytes);
        let incident = wait_for(&format!("an incident about {name}"), async || {
            let incidents = site.incidents().await;
            if latest(&incidents) > known {
                Ok(incidents[0].clone())
            } else {
                Err(format!("{incidents:?}"))
            }
        })
        .await;
        known = latest(&site.incidents().await);
        let text = incident.to_string().to_lowercase();
        assert!(
            text.contains("posts/[id].wasm"),
            "{name}: the file is named: {incident}"
        );
        let said = words.is_empty() || words.iter().any(|word| text.contains(word));
        assert!(said, "{name}: one of {words:?} in {incident:#}");
        assert_eq!(site.get("/posts/1").await.verdict(), "HIT", "{name}");
        let fresh = site
            .get(&format!("/posts/after-{}", name.replace(' ', "-")))
            .await;
        assert_eq!(
            (fresh.status, fresh.verdict()),
            (200, "MISS"),
            "{name}: the module it had makes pages"
        );
    }
    site.swap("posts/[id]", &modules::puppet_version(3));
    until_version(&site, "/posts/1", "0003").await;
}

/// A bad module among good ones at the start costs only its own route.
#[tokio::test]
async fn a_bad_module_at_the_start_harms_no_other_route() {
    let site = Site::new()
        .pages(&["index"])
        .module("posts/[id]", b"junk")
        .start()
        .await;
    assert_eq!(site.get("/").await.status, 200);
    let answer = site.get("/posts/1").await.status;
    assert!([404, 500, 503].contains(&answer), "{answer}");
    site.until_incident("module", "posts/[id].wasm").await;
    site.swap("posts/[id]", modules::puppet());
    site.until("/posts/1", |answer| answer.status == 200).await;
}

/// Removing a file removes its route and no other.
#[tokio::test]
async fn a_removed_file_is_a_404() {
    let site = posts().await;
    site.get("/posts/1").await;
    site.remove("posts/[id]");
    site.until("/posts/1", |answer| answer.status == 404).await;
    assert_eq!(site.get("/").await.status, 200);
}

/// Entries of the old module are stale, not gone: readers have pages while the new one works.
#[tokio::test]
async fn pages_of_the_old_module_are_served_until_the_new_one_made_them_anew() {
    let site = posts().await;
    site.get("/posts/1").await;
    site.origin.hold("/posts/1");
    site.swap("posts/[id]", &modules::puppet_version(4));
    let stale = site
        .until("/posts/1", |answer| answer.verdict() == "STALE")
        .await;
    assert_eq!(
        (stale.status, &stale.puppet()["version"]),
        (200, &json!("0000"))
    );
    assert!(
        stale.header("cache-status").contains("module-changed"),
        "{:?}",
        stale.headers
    );
    site.origin.release("/posts/1");
    until_version(&site, "/posts/1", "0004").await;
}

/// What began on one module ends on it.
#[tokio::test]
async fn a_generation_in_flight_finishes_on_its_module() {
    let site = posts().await;
    let before = site.admin("/api/routes").await.text();
    site.origin.hold("/posts/1");
    let reader = site.waiting("/posts/1");
    site.until_calls("/posts/1", 1).await;
    site.swap("posts/[id]", &modules::puppet_version(5));
    wait_for("the route to have the new module", async || {
        let routes = site.admin("/api/routes").await.text();
        if routes == before {
            Err(routes)
        } else {
            Ok(())
        }
    })
    .await;
    site.origin.release("/posts/1");
    let page = reader.await.unwrap();
    let version = &page.puppet()["version"];
    assert_eq!(
        (version, &page.puppet()["props"]["version"]),
        (&json!("0000"), &json!("0000"))
    );
    until_version(&site, "/posts/1", "0005").await;
}

/// A module that loads and then only fails never costs a page, and can be replaced in turn.
#[tokio::test]
async fn a_module_that_only_fails_costs_no_page() {
    let site = Site::new().pages(&["hostile/[how]"]).start().await;
    assert_eq!(site.get("/hostile/panic").await.status, 200);
    site.swap("hostile/[how]", &modules::built("wasm32-wasip2", "hostile"));
    wait_for("the new module to fail", async || {
        let answer = site
            .revalidate(json!({ "paths": ["/hostile/panic"] }))
            .await;
        if answer.status == 500 {
            Ok(())
        } else {
            Err(answer.text())
        }
    })
    .await;
    let page = site.get("/hostile/panic").await;
    assert_eq!(
        (page.status, &page.puppet()["version"]),
        (200, &json!("0000"))
    );
    site.swap("hostile/[how]", &modules::puppet_version(6));
    until_version(&site, "/hostile/panic", "0006").await;
}

/// A module that only fails gives its route back to the one before, and that is told.
#[tokio::test]
async fn a_route_returns_from_a_module_that_only_fails() {
    let site = posts().await;
    site.get("/posts/1").await;
    site.origin
        .script("/posts/1", json!({ "outcome": "panic", "only": "0007" }));
    let renew = async || site.revalidate(json!({ "paths": ["/posts/1"] })).await;
    site.swap("posts/[id]", &modules::puppet_version(7));
    wait_for("the new module to fail", async || {
        let answer = renew().await;
        if answer.status == 500 {
            Ok(())
        } else {
            Err(answer.text())
        }
    })
    .await;
    wait_for("the old module to be back", async || {
        let answer = renew().await;
        let page = site.get("/posts/1").await;
        assert_eq!(page.status, 200, "the last good page stays");
        if answer.status == 200 {
            Ok(())
        } else {
            Err(answer.text())
        }
    })
    .await;
    assert_eq!(site.get("/posts/1").await.puppet()["version"], "0000");
    let incidents = site.incidents().await;
    let told = incidents.iter().any(|incident| {
        incident["subject"] != "generation" && incident.to_string().contains("posts/[id]")
    });
    assert!(told, "going back is an incident of its own: {incidents:#?}");
    site.swap("posts/[id]", &modules::puppet_version(8));
    until_version(&site, "/posts/1", "0008").await;
}

/// A thousand swaps under eight hammering readers: no answer fails, and none is a mixture.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_swaps_under_load_fail_and_mix_nothing() {
    const SWAPS: u32 = 1_000;
    const VERSIONS: u32 = 8;
    let site = posts().await;
    let versions: Vec<_> = (1..=VERSIONS).map(modules::puppet_version).collect();
    let done = Arc::new(AtomicBool::new(false));
    let mut readers = tokio::task::JoinSet::new();
    for number in 0..8 {
        let (mut reader, done) = (site.reader(), Arc::clone(&done));
        readers.spawn(async move {
            let mut seen = BTreeSet::new();
            let mut answers = 0_u32;
            while !done.load(Ordering::Relaxed) {
                let path = format!("/posts/{}", (number + answers) % 20);
                let answer = reader.send("GET", &path, &[], "").await.unwrap();
                assert_eq!(answer.status, 200, "{path}: {}", answer.text());
                let page = answer.puppet();
                assert_eq!(answer.header("x-puppet-version"), page["version"], "{path}");
                assert_eq!(
                    page["version"], page["props"]["version"],
                    "{path}: one module made both"
                );
                assert_eq!(page["path"], path, "the page that was asked for");
                seen.insert(page["version"].as_str().unwrap().to_owned());
                answers += 1;
            }
            (seen, answers)
        });
    }
    for swap in 0..SWAPS {
        let version = swap % VERSIONS + 1;
        site.swap("posts/[id]", &versions[version as usize - 1]);
        // Often enough a swap is waited for, so that the watcher cannot skip them all.
        if swap % 25 == 24 {
            until_version(&site, "/posts/watched", &format!("{version:04}")).await;
        }
    }
    done.store(true, Ordering::Relaxed);
    let mut seen = BTreeSet::new();
    for (versions, answers) in readers.join_all().await {
        assert!(answers > 0);
        seen.extend(versions);
    }
    assert!(
        seen.len() > 4,
        "readers saw the versions come and go: {seen:?}"
    );
    assert_eq!(site.incidents().await, Vec::<Value>::new());
}

/// A core module that carries its component type is adapted on load.
#[tokio::test]
async fn a_core_module_is_adapted() {
    let site = Site::new()
        .module("posts/[id]", modules::puppet_core())
        .start()
        .await;
    let page = site.get("/posts/1").await;
    assert_eq!((page.status, page.n()), (200, 1));
    site.swap("posts/[id]", &modules::patched(modules::puppet_core(), 9));
    until_version(&site, "/posts/1", "0009").await;
}

/// The folder may be a symbolic link, and may be exchanged by pointing the link elsewhere.
#[tokio::test]
async fn the_folder_may_be_a_link_that_is_pointed_elsewhere() {
    let mut site = posts().await;
    let [pages, blue, green] = ["pages", "blue", "green"].map(|name| site.folder().join(name));
    site.kill();
    std::fs::rename(&pages, &blue).unwrap();
    copy(&blue, &green);
    std::fs::write(green.join("posts/[id].wasm"), modules::puppet_version(2)).unwrap();
    std::os::unix::fs::symlink(&blue, &pages).unwrap();
    site.restart().await;
    site.swap("posts/[id]", &modules::puppet_version(1));
    until_version(&site, "/posts/1", "0001").await;
    let link = site.folder().join("link");
    std::os::unix::fs::symlink(&green, &link).unwrap();
    std::fs::rename(&link, &pages).unwrap();
    until_version(&site, "/posts/1", "0002").await;
}

/// Copies a folder with all that is in it.
pub(crate) fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// A restart compiles nothing that was compiled before.
#[tokio::test]
async fn a_restart_compiles_nothing() {
    let own = tempfile::tempdir().unwrap();
    let artifacts = own.path().to_str().unwrap();
    let mut site = Site::new()
        .pages(&["posts/[id]"])
        .config(&format!("[server]\nartifacts = {artifacts:?}"))
        .start()
        .await;
    site.get("/posts/1").await;
    let listing = || {
        let files = walk(own.path());
        // Compiling anew would write a new file and rename it: another inode.
        let files = files.into_iter().map(|path| {
            let inode = path.metadata().unwrap().ino();
            (path, inode)
        });
        files.collect::<Vec<_>>()
    };
    let before = listing();
    assert!(!before.is_empty(), "compiled artifacts are kept");
    site.restart().await;
    assert_eq!(site.get("/posts/2").await.status, 200);
    assert_eq!(listing(), before);
}

/// All files below a folder.
pub(crate) fn walk(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(walk(&path));
        } else {
            files.push(path);
        }
    }
    files.sort();
    files
}
