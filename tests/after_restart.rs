//! Section 8, the durable tier: what failed before a restart is still known after it.

use serde_json::json;

use crate::modules;
use crate::site::Site;

/// A page in back-off is not asked for before its time, however the server ended, unless another
/// module has taken its place; and the incident can still be read.
#[tokio::test]
async fn a_crash_ends_no_back_off_and_hides_no_incident() {
    let mut site = Site::new().pages(&["posts/[id]"]).start().await;
    site.get("/posts/1").await;
    site.origin.script("/posts/1", json!({"outcome": "error"}));
    // The answer comes once everything about it is on disk.
    let answer = site.revalidate(json!({"paths": ["/posts/1"]})).await;
    assert_eq!(answer.status, 500, "{}", answer.text());
    let before = site.until_incident("error", "/posts/1").await;
    let calls = site.origin.count("/posts/1");
    site.restart().await;
    let after = site.until_incident("error", "/posts/1").await;
    assert_eq!(after, before);
    site.origin.heal("/posts/1");
    let held = site.get("/posts/1").await;
    assert_eq!(held.headers["x-wisr-cache"], "STALE");
    let status = held.headers["cache-status"].to_str().unwrap();
    assert!(status.contains("back-off"), "{status}");
    // A generation that it had started would be through before this one.
    site.get("/posts/2").await;
    assert_eq!(site.origin.count("/posts/1"), calls);
    // Ids go on.
    site.origin.script("/posts/3", json!({"outcome": "error"}));
    assert_eq!(site.get("/posts/3").await.status, 500);
    let next = site.until_incident("error", "/posts/3").await;
    assert!(next["id"].as_u64() > before["id"].as_u64(), "{next}");
    site.swap("posts/[id]", &modules::puppet_version(2));
    let renewed = |answer: &crate::client::Response| {
        answer.headers["x-wisr-cache"] == "HIT" && answer.headers["x-puppet-version"] == "0002"
    };
    site.until("/posts/1", renewed).await;
}
