//! Section 8, the durable tier: what lies in its folder, what a leftover costs (nothing), and what
//! becomes of a database that cannot be opened.

use std::path::{Path, PathBuf};

use crate::client::Response;
use crate::site::{Running, Site};

/// Pages of each test.
const PAGES: usize = 12;

/// A site whose pages are on disk, stopped.
async fn stopped() -> Running {
    let mut site = Site::new().pages(&["posts/[id]"]).start().await;
    for page in 0..PAGES {
        site.origin.script(
            &format!("/posts/{page}"),
            serde_json::json!({ "render": { "pad": 30_000 } }),
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
