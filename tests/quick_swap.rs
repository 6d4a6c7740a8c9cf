//! A large module is live before the optimising compiler is done with it, and stays the same module
//! when it is.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::json;

use crate::modules;
use crate::site::{Running, Site, wait_longer};

/// How long better code may take: it is made at the lowest priority there is, beside all other tests.
const COMPILING: Duration = Duration::from_secs(120);

/// Every module counts as large, and none was compiled before.
const QUICK: &str = "[compile]\nquick = \"1B\"\n[server]\nartifacts = \".wisr/artifacts\"";

/// What the server says when a module has the code that it keeps, where it is asked to.
const DONE: &str = "module runs on optimised code now";
const LOG: &str = "wisr=info,wisr::guest::upgrade=debug";

/// Waits until the server has said so for this many modules.
async fn until_optimised(site: &Running, count: usize) {
    until_logged(site, DONE, count).await;
}

async fn until_logged(site: &Running, words: &str, count: usize) {
    wait_longer(COMPILING, words, async || {
        let log = site.log();
        match log.matches(words).count() == count {
            true => Ok(()),
            false => Err(log),
        }
    })
    .await;
}

/// Better code takes the place of the first without a failed request, a stale page or a release.
#[tokio::test]
async fn better_code_takes_its_place_unnoticed() {
    let site = Arc::new(
        Site::new()
            .pages(&["posts/[id]"])
            .config(QUICK)
            .logging(LOG)
            .start()
            .await,
    );
    until_optimised(&site, 1).await;
    site.get("/posts/kept").await;
    let over = Arc::new(AtomicBool::new(false));
    let readers = (0..4).map(|reader| {
        let (site, over) = (site.clone(), over.clone());
        tokio::spawn(async move {
            let mut seen = 0;
            while !over.load(Ordering::Relaxed) {
                // A page that nobody has: each of them is made.
                let page = site.get(&format!("/posts/{reader}-{seen}")).await;
                assert_eq!(page.status, 200, "{}", page.text());
                seen += 1;
            }
            seen
        })
    });
    let readers: Vec<_> = readers.collect();
    site.swap("posts/[id]", &modules::puppet_version(1));
    site.until("/posts/kept", |page| {
        page.puppet()["version"] == json!("0001")
    })
    .await;
    let made = site
        .until("/posts/kept", |page| page.verdict() == "HIT")
        .await;
    until_optimised(&site, 2).await;
    over.store(true, Ordering::Relaxed);
    for reader in readers {
        assert!(reader.await.unwrap() > 0);
    }
    let after = site.get("/posts/kept").await;
    assert_eq!(
        (after.verdict(), after.header("etag")),
        ("HIT", made.header("etag"))
    );
    let releases = site.admin("/api/releases").await.json();
    assert_eq!(
        releases["releases"].as_array().map(Vec::len),
        Some(2),
        "{releases}"
    );
    assert_eq!(
        site.get("/posts/new").await.puppet()["version"],
        json!("0001")
    );
}

/// A restart finds the code that was kept, and makes none in haste.
#[tokio::test]
async fn a_restart_compiles_nothing() {
    let site = Site::new().pages(&["about"]).config(QUICK).logging(LOG);
    let mut site = site.start().await;
    until_optimised(&site, 1).await;
    site.restart().await;
    assert_eq!(site.get("/about").await.status, 200);
    assert!(!site.log().contains(DONE), "{}", site.log());
}

/// What the baseline compiler does not know is compiled by the other one, and the log says why.
#[tokio::test]
async fn what_cannot_be_made_in_haste_is_made_well() {
    let tail_call = "(func $callee) (func (return_call $callee))";
    let site = Site::new()
        .module("about", &modules::good_beside(tail_call))
        .config(QUICK)
        .logging(LOG)
        .start()
        .await;
    assert_eq!(site.get("/about").await.status, 200);
    site.until_log("not compiled in haste").await;
    assert!(site.log().contains("tail call"), "{}", site.log());
    assert!(!site.log().contains(DONE), "{}", site.log());
}

/// A module that the optimising compiler has no room for goes on as it is, and the log says why.
#[tokio::test]
async fn without_better_code_a_module_goes_on() {
    let site = Site::new()
        .module("about", &modules::good_beside(&modules::explosion()))
        .config(QUICK)
        .config("[compile]\nmemory = \"768MiB\"")
        .start()
        .await;
    until_logged(&site, "module stays on code compiled in haste", 1).await;
    assert!(
        site.log().contains("(limit `compile.memory`)"),
        "{}",
        site.log()
    );
    assert_eq!(site.get("/about").await.status, 200);
    assert_eq!(site.incidents().await.len(), 0);
}
