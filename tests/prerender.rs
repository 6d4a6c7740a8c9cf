//! Sections 8 and 9, `wisr prerender`: pages made before anybody serves them, and only once.

use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};
use tokio::process::{Child, Command};

use crate::origin::Origin;
use crate::site::{Finished, Running, Site, wait_for, wisr};

/// Listed pages of the big route: enough that a run can be interrupted in its middle.
const PAGES: usize = 40;

fn path(number: usize) -> String {
    format!("/posts/{number:02}")
}

fn listed(numbers: impl IntoIterator<Item = usize>) -> Value {
    let id = |number: usize| json!({"id": format!("{number:02}")});
    json!({ "paths": numbers.into_iter().map(id).collect::<Vec<_>>() })
}

fn start(folder: &Path) -> Child {
    Command::new(env!("CARGO_BIN_EXE_wisr"))
        .args(["prerender", "--json"])
        .arg(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

fn report(done: &Finished) -> Value {
    serde_json::from_str(&done.stdout).unwrap_or_else(|error| panic!("{error}: {done:?}"))
}

async fn finish(folder: &Path) -> (Option<i32>, Value) {
    let done = wisr(folder, &["prerender", ".", "--json"]).await;
    (done.code, report(&done))
}

/// However a run ends, the next one makes only what is not there yet.
#[tokio::test]
async fn an_interrupted_run_is_resumed() {
    let origin = Origin::start().await;
    let folder = Site::new()
        .pages(&["posts/[id]"])
        .listed("/posts/[id]", "posts", listed(0..PAGES))
        // One after the other, so that it is known what is made when one is held.
        .config("[generations]\nconcurrency = 1")
        .lay_out(&origin);
    let (middle, late) = (path(PAGES / 2), path(PAGES - 5));
    origin.hold(&middle);
    let mut killed = start(folder.path());
    wait_for("the middle", async || {
        (origin.count(&middle) == 1)
            .then_some(())
            .ok_or(String::new())
    })
    .await;
    killed.kill().await.unwrap();
    origin.release(&middle);
    let before = origin.all_calls().len();

    origin.hold(&late);
    let interrupted = start(folder.path());
    wait_for("a late page", async || {
        (origin.count(&late) == 1)
            .then_some(())
            .ok_or(String::new())
    })
    .await;
    let pid = interrupted.id().and_then(|id| i32::try_from(id).ok());
    let pid = pid.and_then(rustix::process::Pid::from_raw).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let output = interrupted.wait_with_output().await.unwrap();
    assert_eq!(output.status.code(), Some(130), "{output:?}");
    let second: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(second["interrupted"], true);
    assert_eq!(second["listed"], PAGES);
    let fresh = second["fresh"].as_u64().unwrap();
    assert!(fresh > 0, "the first run kept nothing: {second}");
    // Beside those made there is the question for the list, and the page that was held; and the one
    // before it may have been on its way into the store.
    let calls = origin.all_calls().len() - before;
    let beside = calls as u64 - second["made"].as_u64().unwrap();
    assert!((2..=3).contains(&beside), "{calls} calls: {second}");

    origin.release(&late);
    let (code, third) = finish(folder.path()).await;
    assert_eq!(code, Some(0), "{third}");
    let made = third["made"].as_u64().unwrap();
    let kept = fresh + second["made"].as_u64().unwrap();
    assert_eq!(third["fresh"], kept, "{third}");
    assert_eq!(made + kept, PAGES as u64);
    let (code, fourth) = finish(folder.path()).await;
    assert_eq!(
        (code, &fourth["made"], &fourth["fresh"]),
        (Some(0), &json!(0), &json!(PAGES))
    );
}

/// What cannot be made is named and stops nothing else; what is made is served at once.
#[tokio::test]
async fn failures_are_named_and_what_is_made_is_served() {
    let origin = Origin::start().await;
    let folder = Site::new()
        .pages(&["index", "posts/[id]", "down/[id]"])
        .module("broken", b"no module")
        .listed("/posts/[id]", "posts", listed(0..4))
        .listed("/down/[id]", "down", json!({"outcome": "error"}))
        .script(&path(2), json!({"outcome": "panic"}))
        .lay_out(&origin);
    let folder_path = folder.path().to_owned();
    let done = wisr(&folder_path, &["prerender", "--json"]).await;
    assert_eq!(done.code, Some(3), "{done:?}");
    let told = report(&done);
    assert_eq!((&told["made"], &told["failed"]), (&json!(4), &json!(1)));
    assert_eq!(told["failures"][0]["path"], path(2));
    assert_eq!(told["failures"][0]["kind"], "trap");
    assert_eq!(told["unlisted"][0]["route"], "/down/[id]");
    assert_eq!(told["refused"][0]["file"], "broken.wasm");
    for words in [
        "not made: /posts/02: static-props: ",
        "not listed: the pages of /down/[id]: ",
        "not loaded: broken.wasm: ",
        "4 made, 0 already fresh, 1 failed",
    ] {
        assert!(done.stderr.contains(words), "{words:?} in {}", done.stderr);
    }
    // A person who mended it does not wait for its back-off.
    origin.heal(&path(2));
    origin.heal("/@paths/down");
    std::fs::remove_file(folder_path.join("pages/broken.wasm")).unwrap();
    let (code, again) = finish(&folder_path).await;
    assert_eq!(
        (code, &again["made"], &again["fresh"]),
        (Some(0), &json!(1), &json!(4))
    );

    let calls = origin.all_calls().len();
    let site = Running::on(folder, origin).await;
    for path in ["/", "/posts/00", "/posts/02"] {
        assert_eq!(
            site.get(path).await.headers["x-wisr-cache"],
            "HIT",
            "{path}"
        );
    }
    let asked = site.origin.all_calls().split_off(calls);
    let pages = asked.iter().filter(|call| call.cause != "paths").count();
    assert_eq!(pages, 0, "{asked:?}");

    let refused = wisr(&folder_path, &["prerender"]).await;
    assert_eq!(refused.code, Some(1), "{refused:?}");
    for words in [
        "a server on this site makes its pages by itself",
        "in use by process",
    ] {
        assert!(refused.stderr.contains(words), "{refused:?}");
    }
}

/// Where nothing is kept, there is nothing to make ahead; and a source tree is no site.
#[tokio::test]
async fn what_cannot_be_prerendered_is_told() {
    let origin = Origin::start().await;
    let folder = Site::new()
        .pages(&["index"])
        .config("[store]\ndurable = false")
        .lay_out(&origin);
    let done = wisr(folder.path(), &["prerender"]).await;
    assert_eq!(done.code, Some(1), "{done:?}");
    assert!(done.stderr.contains("store.durable = false"), "{done:?}");
    let empty = tempfile::tempdir().unwrap();
    std::fs::write(empty.path().join("Cargo.toml"), "[workspace]").unwrap();
    let done = wisr(empty.path(), &["prerender"]).await;
    assert_eq!(done.code, Some(1), "{done:?}");
    assert!(done.stderr.contains("is a source tree"), "{done:?}");
}
