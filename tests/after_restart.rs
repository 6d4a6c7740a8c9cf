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

/// Pages are forgotten when their route is known to be gone, and not because nobody knows it at the
/// moment: the history of releases is lost, or damaged, or the modules with it, and the file that
/// lies there is refused.
#[tokio::test]
async fn a_route_that_nobody_knows_at_a_start_keeps_its_pages() {
    let mut site = Site::new().pages(&["index", "posts/[id]"]).start().await;
    assert_eq!(site.get("/posts/1").await.n(), 1);
    let state = site.folder().join(".wisr");
    for round in 1..=3 {
        site.swap("posts/[id]", &modules::puppet_version(0));
        let page = site.until("/posts/1", |page| page.status == 200).await;
        assert_eq!((page.verdict(), page.n()), ("HIT", 1), "{round}");
        site.revalidate(json!({"tags": ["barrier"]})).await;
        site.kill();
        for file in ["releases.json", "releases.copy.json"] {
            match round {
                1 => std::fs::remove_file(state.join(file)).unwrap(),
                2 => std::fs::write(state.join(file), "{}").unwrap(),
                _ => {}
            }
        }
        if round == 3 {
            std::fs::remove_dir_all(state.join("modules")).unwrap();
        }
        site.swap("posts/[id]", b"no module");
        site.restart().await;
        site.until_incident("module", "posts/[id].wasm").await;
        assert_eq!(site.get("/posts/1").await.status, 404, "{round}");
        assert_eq!(site.get("/").await.verdict(), "HIT");
    }
    site.swap("posts/[id]", &modules::puppet_version(1));
    let page = site.until("/posts/1", |page| page.status == 200).await;
    assert_eq!((page.verdict(), page.n()), ("STALE", 1));
}

/// A folder that is mounted later than the server starts is not one that was emptied.
#[tokio::test]
async fn a_folder_that_is_not_there_yet_at_a_start_costs_no_page() {
    let mut site = Site::new().pages(&["posts/[id]"]).start().await;
    assert_eq!(site.get("/posts/1").await.n(), 1);
    site.revalidate(json!({"tags": ["barrier"]})).await;
    site.kill();
    // Another disk, which the folder is on from now on.
    let disk = tempfile::tempdir_in("/dev/shm").unwrap();
    let (pages, mount) = (site.folder().join("pages"), site.folder().join("mount"));
    std::fs::create_dir(disk.path().join("posts")).unwrap();
    let file = "posts/[id].wasm";
    std::fs::copy(pages.join(file), disk.path().join(file)).unwrap();
    std::fs::remove_dir_all(&pages).unwrap();
    std::os::unix::fs::symlink(disk.path(), &pages).unwrap();
    site.restart().await;
    assert_eq!(site.get("/posts/1").await.verdict(), "HIT");
    site.kill();
    std::fs::create_dir(&mount).unwrap();
    let turn = |to: &std::path::Path| {
        std::fs::remove_file(&pages).unwrap();
        std::os::unix::fs::symlink(to, &pages).unwrap();
    };
    turn(&mount);
    site.restart().await;
    site.until_incident("folder", "mount").await;
    assert_eq!(site.get("/posts/1").await.verdict(), "HIT");
    turn(disk.path());
    site.restart().await;
    let page = site.get("/posts/1").await;
    assert_eq!((page.verdict(), page.n()), ("HIT", 1));
}
