//! Section 8, the durable tier: what lies in its folder, what a leftover costs (nothing), and what
//! becomes of a database that cannot be opened.

use std::path::{Path, PathBuf};

use serde_json::json;

use crate::client::Response;
use crate::origin::ANY;
use crate::site::{Running, Site, wait_for};

/// Pages of each test.
const PAGES: usize = 12;

/// A site whose pages are on disk, stopped.
async fn stopped() -> Running {
    let mut site = Site::new().pages(&["posts/[id]"]).start().await;
    for page in 0..PAGES {
        site.origin.script(
            &format!("/posts/{page}"),
            json!({ "render": { "pad": 30_000 } }),
        );
        site.renew(&format!("/posts/{page}")).await;
    }
    site.kill();
    site
}

fn state(site: &Running) -> PathBuf {
    site.folder().join(".wisr")
}

fn write(path: &Path, bytes: &[u8]) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, bytes).unwrap();
}

async fn all(site: &Running) -> Vec<Response> {
    let mut answers = Vec::new();
    for page in 0..PAGES {
        answers.push(site.get(&format!("/posts/{page}")).await);
    }
    answers
}

/// All pages are there, as they were.
async fn check_all(site: &Running) {
    for answer in all(site).await {
        let seen = (answer.verdict(), answer.n());
        assert_eq!(seen, ("HIT", 1), "{:?}", answer.headers);
    }
    assert!(!state(site).join("store.damaged").exists());
}

/// A leftover of a crash, of an earlier wisr, of a network file system or of a person's tool never
/// costs a page.
#[tokio::test]
async fn a_leftover_costs_nothing() {
    let mut site = stopped().await;
    let store = state(&site).join("store");
    for leftover in [
        "spare/pages/keyspaces/0/tables/.tmpABC123",
        "spare.old/pages/version",
        "pages/keyspaces/0/tables/.tmpABC123",
        "pages/keyspaces/1/blobs/.tmpABC123",
        "pages/keyspaces/1/.tmpABC123",
        "pages/keyspaces/1/tables/.nfs00000000004a0b7e00000001",
        "pages/keyspaces/1/tables/4.orig",
        "pages/keyspaces/1/tables/old/4",
        "pages/keyspaces/copy/tables/4",
        "pages/copy of 0.jnl",
        "pages/.tmpABC123",
        "pages/0.mended",
        ".tmpABC123",
        "pages.new/version",
        "probe",
    ] {
        write(&store.join(leftover), b"");
    }
    site.restart().await;
    check_all(&site).await;
    for gone in ["spare", "spare.old", "pages.new", "pages/.tmpABC123"] {
        assert!(!store.join(gone).exists(), "{gone}");
    }
}

/// A store that wisr 0.1.0 wrote, with its copies of the database's files beside it, has all of its
/// pages.
#[tokio::test]
async fn a_store_of_0_1_0_opens() {
    let mut site = Site::new().pages(&["posts/[id]"]).start().await;
    site.kill();
    std::fs::remove_dir_all(state(&site)).unwrap();
    unpack(&site);
    std::fs::remove_dir_all(state(&site).join("store.damaged")).unwrap();
    let copies = state(&site).join("store/spare/pages/keyspaces/0/tables");
    std::fs::copy(copies.join("0"), copies.join(".tmpABC123")).unwrap();
    site.restart().await;
    for page in 0..4 {
        let kept = site.get(&format!("/posts/{page}")).await;
        assert!(["HIT", "STALE"].contains(&kept.verdict()), "{kept:?}");
    }
    assert!(!state(&site).join("store/spare").exists());
    assert!(!state(&site).join("store.damaged").exists());
    assert_eq!(site.metric("wisr_store_set_aside_total").await, 0.0);
}

/// Unpacks `.wisr/store` and `.wisr/store.damaged` as 0.1.0 left them: four pages, and the same four in
/// a store that it set aside for a temporary file of its own.
fn unpack(site: &Running) {
    let golden = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/fixtures/store-0.1.0.tar.gz"
    );
    let mut tar = std::process::Command::new("tar");
    tar.args(["-xzf", golden, "-C"]).arg(site.folder());
    assert!(tar.status().unwrap().success());
}

/// Nothing but the database writes below its folder, and wisr keeps little beside it.
#[tokio::test]
async fn what_lies_in_the_folder_of_the_store() {
    let mut site = stopped().await;
    site.restart().await;
    site.renew("/posts/1").await;
    site.kill();
    let store = state(&site).join("store");
    let mut beside: Vec<_> = std::fs::read_dir(&store)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    beside.sort_unstable();
    assert_eq!(beside, ["format", "lock", "pages"]);
    for file in crate::swap::walk(&store.join("pages")) {
        let name = file.file_name().unwrap().to_str().unwrap();
        let number = name.trim_start_matches('v').trim_end_matches(".jnl");
        let is_its_own = ["lock", "version", "current"].contains(&name)
            || number.parse::<u64>().is_ok()
            // What it replaces `current` by, where it was killed just there.
            || (name.starts_with(".tmp") && file.parent().unwrap().ends_with("1"));
        assert!(is_its_own, "{}", file.display());
    }
}

/// A store that cannot be opened is told of in every place where somebody looks, and the site serves.
#[tokio::test]
async fn a_store_that_is_set_aside_is_told_of() {
    let mut site = stopped().await;
    write(&state(&site).join("store/pages/version"), b"rubbish");
    site.restart().await;
    for answer in all(&site).await {
        assert_eq!(answer.status, 200);
    }
    let ready = site.admin("/readyz").await;
    assert_eq!(
        (ready.status, &ready.json()["store"]),
        (200, &"set-aside".into())
    );
    assert_eq!(site.metric("wisr_store_set_aside_total").await, 1.0);
    let incidents = site.admin("/api/incidents").await.text();
    assert!(incidents.contains("store.damaged"), "{incidents}");
    site.restart().await;
    assert_eq!(site.admin("/readyz").await.json()["store"], "ok");
    assert_eq!(site.get("/posts/1").await.verdict(), "HIT");
}

/// What 0.1.0 set aside for a temporary file of its own comes back: no newer page is lost for it, and
/// what was deleted or purged since stays away.
#[tokio::test]
async fn what_0_1_0_set_aside_for_nothing_comes_back() {
    let mut site = Site::new().pages(&["posts/[id]"]).start().await;
    site.kill();
    let _ = std::fs::remove_dir_all(state(&site));
    unpack(&site);
    let aside = state(&site).join("store.damaged");
    let elsewhere = site.folder().join("elsewhere");
    std::fs::rename(&aside, &elsewhere).unwrap();
    std::fs::remove_dir_all(state(&site).join("store")).unwrap();
    site.restart().await;
    // 2 is newer, 3 is gone, and 1 was purged: all since.
    site.renew("/posts/2").await;
    site.renew("/posts/2").await;
    site.origin.script(
        "/posts/3",
        json!({ "outcome": "not-found", "revalidate": 3600 }),
    );
    site.renew("/posts/3").await;
    let purge = json!({ "paths": ["/posts/1"], "mode": "purge" });
    assert_eq!(site.revalidate(purge).await.status, 200);
    site.kill();
    std::fs::rename(&elsewhere, &aside).unwrap();
    // A file that was unpacked is as old as the archive says.
    write(&aside.join("set-aside"), b"");
    for page in 0..4 {
        site.origin.hold(&format!("/posts/{page}"));
    }
    site.restart().await;
    until_taken_back(&site).await;
    let old = site.get("/posts/0").await;
    assert_eq!((old.verdict(), old.n()), ("STALE", 1));
    let newer = site.get("/posts/2").await;
    assert_eq!((newer.verdict(), newer.n()), ("STALE", 2));
    assert_eq!(site.get("/posts/3").await.status, 404);
    let purged = site.waiting("/posts/1");
    for page in 0..4 {
        site.origin.release(&format!("/posts/{page}"));
    }
    assert_eq!(purged.await.unwrap().verdict(), "MISS");
    assert!(!aside.exists());
    let ready = site.admin("/readyz").await.json();
    assert_eq!(ready["store"], "ok");
    site.restart().await;
    assert!(["HIT", "STALE"].contains(&site.get("/posts/0").await.verdict()));
}

async fn until_taken_back(site: &Running) {
    wait_for("pages taken back", async || {
        let incidents = site.admin("/api/incidents").await.text();
        match incidents.contains("pages taken back") {
            true => Ok(()),
            false => Err(incidents),
        }
    })
    .await;
}

/// A journal that a power cut or a disk has changed costs what stood in it from there on; and what was
/// deleted does not come back, though the word of it is lost.
#[tokio::test]
async fn of_a_store_with_a_broken_journal_everything_else_comes_back() {
    let mut site = Site::new().pages(&["posts/[id]"]).start().await;
    for page in 0..PAGES {
        site.renew(&format!("/posts/{page}")).await;
    }
    site.origin
        .script("/posts/1", json!({ "outcome": "not-found" }));
    site.renew("/posts/1").await;
    site.kill();
    let journal = state(&site).join("store/pages/0.jnl");
    let mut bytes = std::fs::read(&journal).unwrap();
    let marker = b"\"path\":\"/posts/9\"";
    let record = bytes
        .windows(12)
        .position(|word| word == b"b/posts/9WIS")
        .or_else(|| bytes.windows(marker.len()).position(|word| word == marker));
    // In a record of the last page but two, before the word that /posts/1 is gone.
    bytes[record.unwrap() + 64] ^= 1;
    std::fs::write(&journal, bytes).unwrap();
    for page in 2..PAGES {
        site.origin
            .script(&format!("/posts/{page}"), json!({ "outcome": "error" }));
    }
    site.restart().await;
    assert_eq!(site.admin("/readyz").await.json()["store"], "set-aside");
    until_taken_back(&site).await;
    // Before it is shown it is made anew, so that nobody sees what is gone.
    assert_eq!(site.get("/posts/1").await.status, 404);
    for page in 2..9 {
        let kept = site.get(&format!("/posts/{page}")).await;
        assert_eq!(
            (kept.status, kept.n()),
            (200, 1),
            "{page}: {:?}",
            kept.headers
        );
    }
    for page in 9..PAGES {
        assert_eq!(site.get(&format!("/posts/{page}")).await.status, 500);
    }
    let renewed = site.get("/posts/0").await;
    assert_eq!((renewed.status, renewed.n()), (200, 2));
}

/// A blocking route that is asked for ever-new paths stays within the bound of the disk, and pages that
/// people read stay.
#[tokio::test]
async fn ever_new_paths_stay_within_the_disk() {
    const BOUND: u64 = 4 << 20;
    let noise: String = std::iter::repeat_with(fastrand::alphanumeric)
        .take(12_000)
        .collect();
    let mut site = Site::new()
        .pages(&["posts/[id]"])
        .script(ANY, json!({ "render": { "body": noise } }))
        .config(&format!(
            "[store]\nmemory = \"2MiB\"\nmemtable = \"64KiB\"\ndisk = \"{BOUND}B\""
        ))
        .start()
        .await;
    let read = |page: usize| format!("/posts/read-{page}");
    for page in 0..5 {
        site.get(&read(page)).await;
    }
    let mut reader = site.reader();
    for number in 0..1_000 {
        let path = format!("/posts/new-{number}");
        reader.send("GET", &path, &[], "").await.unwrap();
        let page = reader
            .send("GET", &read(number % 5), &[], "")
            .await
            .unwrap();
        assert_eq!(page.verdict(), "HIT");
    }
    let records = state(&site).join("store/pages/keyspaces/1");
    wait_for("the bound", async || {
        let files = crate::swap::walk(&records);
        let sizes = files.iter().filter_map(|file| std::fs::metadata(file).ok());
        let taken: u64 = sizes.map(|file| file.len()).sum();
        if taken > BOUND {
            // What is garbage is found as more is written.
            site.renew(&read(0)).await;
            return Err(format!("{taken}"));
        }
        Ok(())
    })
    .await;
    assert!(site.metric("wisr_store_evictions_total").await > 500.0);
    site.restart().await;
    for page in 0..5 {
        assert_eq!(site.get(&read(page)).await.verdict(), "HIT", "{page}");
    }
}
