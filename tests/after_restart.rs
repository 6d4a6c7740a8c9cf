//! Section 8, the durable tier: what was there before a restart, and what failed, is known after it.

use serde_json::json;

use crate::client::Client;
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

/// A path, further headers, and the status that it is answered with.
type Asked<'a> = (&'a str, &'a [(&'a str, &'a str)], u16);

/// The first request of a connection takes the long way, and the others the short one: a reader
/// does not see which, wherever the page comes from.
#[tokio::test]
async fn a_page_on_disk_is_the_same_by_either_way() {
    let mut site = Site::new().pages(&["index", "posts/[id]"]).start().await;
    for (path, script) in [
        ("/posts/plain", json!({"render": {"pad": 20_000}})),
        (
            "/posts/br",
            json!({"render": {"pad": 20_000}, "revalidate": 3600}),
        ),
        ("/posts/known", json!({})),
        ("/posts/none", json!({"outcome": "not-found"})),
        (
            "/posts/away",
            json!({"outcome": "redirect", "location": "/"}),
        ),
    ] {
        site.origin.script(path, script);
    }
    let known = site.get("/posts/known").await.header("etag").to_owned();
    let asked: [Asked<'_>; 5] = [
        ("/posts/plain", &[], 200),
        ("/posts/br", &[("accept-encoding", "br")], 200),
        ("/posts/known", &[("if-none-match", &known)], 304),
        ("/posts/none", &[], 404),
        ("/posts/away", &[], 307),
    ];
    for (path, ..) in asked {
        site.get(path).await;
    }
    let mut ways = Vec::new();
    for is_short in [false, true] {
        site.restart().await;
        let mut client = Client::new(site.site());
        let mut way = Vec::new();
        for (path, headers, status) in asked {
            if is_short {
                client.send("GET", "/", &[], "").await.unwrap();
            } else {
                client = Client::new(site.site());
            }
            let mut answer = client.send("GET", path, headers, "").await.unwrap();
            assert_eq!((answer.status, answer.verdict()), (status, "HIT"), "{path}");
            for passing in ["date", "age", "cache-status"] {
                answer.headers.remove(passing).expect(passing);
            }
            way.push((path, answer.headers, answer.body));
        }
        ways.push(way);
    }
    assert_eq!(ways[0], ways[1]);
    for (path, ..) in asked {
        assert_eq!(site.origin.count(path), 1, "{path}");
    }
}
