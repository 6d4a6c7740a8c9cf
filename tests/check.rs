//! `wisr check`: what is said of a module before anybody serves it.

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::modules;
use crate::origin::Origin;
use crate::site::{Site, wisr};

/// A site with a page and an API route, and the origin behind it.
async fn site() -> (TempDir, Origin) {
    let origin = Origin::start().await;
    let folder = Site::new()
        .pages(&["posts/[id]", "api/misplaced"])
        .module("api/hook", modules::hook())
        .module("misplaced", modules::hook())
        .config("[routes.\"/posts/[id]\"]\nquery = [\"page\"]\ncpu = \"3s\"")
        .script(
            "/posts/1",
            json!({ "tags": ["posts"], "revalidate": 7, "n": 41 }),
        )
        .script("/posts/bad", json!({ "render": { "outcome": "panic" } }))
        .script("/posts/gone", json!({ "outcome": "not-found" }))
        .lay_out(&origin);
    (folder, origin)
}

/// A module whose path a static file has is never served, and what hides it is named.
#[tokio::test]
async fn a_module_behind_a_static_file_is_told() {
    let folder = Site::new()
        .pages(&["about"])
        .lay_out(&Origin::start().await);
    let (public, file) = (folder.path().join("public"), "pages/about.wasm");
    std::fs::create_dir_all(&public).unwrap();
    assert_eq!(wisr(folder.path(), &["check", file]).await.code, Some(0));
    std::fs::write(public.join("about"), "").unwrap();
    let told = wisr(folder.path(), &["check", file]).await;
    assert_eq!(told.code, Some(1), "{told:?}");
    for words in ["would never be served", "`public/about` has the same path"] {
        assert!(told.stdout.contains(words), "{words} in {}", told.stdout);
    }
    let told = wisr(folder.path(), &["check", "--json", file]).await;
    let report: Value = serde_json::from_str(&told.stdout).unwrap();
    assert_eq!(report[0]["served"], false);
    assert!(report[0]["reason"].as_str().unwrap().contains("rename"));
}

/// A path is rendered with the hosts, settings and limits of its route; nothing is kept.
#[tokio::test]
async fn a_path_is_rendered_as_its_site_would() {
    let (site, origin) = site().await;
    let file = "pages/posts/[id].wasm";
    let told = wisr(
        site.path(),
        &["check", file, "--path", "/posts/1?page=2&utm=x"],
    )
    .await;
    assert_eq!(told.code, Some(0), "{told:?}");
    for words in [
        "route           /posts/[id]\n",
        "compiled in",
        "MiB of memory, started in",
        &format!("outgoing HTTP   {}", origin.url()),
        "settings        origin",
        "limits          cpu 3.0 s",
        "/posts/1 as /posts/[id], id = 1",
        "status          200",
        "fresh           for 7 s",
        "tags            posts",
        &format!(
            "fetches         GET {}/posts/1?cause=FirstRequest 200",
            origin.url()
        ),
    ] {
        assert!(told.stdout.contains(words), "{words} in\n{}", told.stdout);
    }
    let body = wisr(
        site.path(),
        &["check", file, "--path", "/posts/1", "--body"],
    )
    .await;
    assert!(body.stdout.starts_with("<!doctype html>"), "{body:?}");
    assert!(body.stderr.contains("would be served"), "{body:?}");
    let arguments = ["check", "--json", file, "--path", "/posts/1?page=2&utm=x"];
    let report: Value = serde_json::from_str(&wisr(site.path(), &arguments).await.stdout).unwrap();
    let outcome = &report[0]["render"]["outcome"];
    assert_eq!(
        (&outcome["status"], &outcome["revalidate"], &outcome["tags"]),
        (&json!(200), &json!(7), &json!(["posts"]))
    );
    let page = outcome["body"].as_str().unwrap();
    assert!(page.contains("page") && !page.contains("utm"), "{page}");
    assert!(!site.path().join(".wisr").exists());
    // From anywhere: the site is the folder above `pages/`.
    let file = site.path().join(file);
    let elsewhere = tempfile::tempdir().unwrap();
    let arguments = ["check", file.to_str().unwrap(), "--path", "/posts/1"];
    let told = wisr(elsewhere.path(), &arguments).await;
    assert_eq!(told.code, Some(0), "{told:?}");
}

/// What fails, is missing or would be refused is told with its reason, and is exit code 1.
#[tokio::test]
async fn what_would_not_work_is_named() {
    let (site, _origin) = site().await;
    for (arguments, words) in [
        (
            &["posts/[id].wasm", "--path", "/posts/bad"][..],
            "the origin wants a panic",
        ),
        (
            &["posts/[id].wasm", "--path", "/about"],
            "`/posts/[id]`, which `/about` does not match",
        ),
        (&["posts/[id].wasm", "--path", "about"], "no canonical path"),
        (&["api/misplaced.wasm"], "move it out of `api/`"),
        (&["misplaced.wasm"], "move it into `api/`"),
        (
            &["api/hook.wasm", "--path", "/api/hook"],
            "answers requests",
        ),
    ] {
        let mut all = vec!["check"];
        let file = format!("pages/{}", arguments[0]);
        all.push(&file);
        all.extend(&arguments[1..]);
        let told = wisr(site.path(), &all).await;
        assert_eq!(told.code, Some(1), "{arguments:?}: {told:?}");
        let said = format!("{}{}", told.stdout, told.stderr);
        assert!(said.contains(words), "{words} in\n{said}");
    }
    for path in ["/posts/gone", "/posts/1"] {
        let fine = ["check", "pages/posts/[id].wasm", "--path", path];
        assert_eq!(wisr(site.path(), &fine).await.code, Some(0), "{path}");
    }
    let hook = wisr(site.path(), &["check", "pages/api/hook.wasm"]).await;
    assert!(hook.stdout.contains("API route, component"), "{hook:?}");
}

/// A module that stands in no site is checked by the defaults, or by what it is said to be for.
#[tokio::test]
async fn a_module_without_a_site_is_checked_by_the_defaults() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("page.wasm"), modules::puppet()).unwrap();
    let told = wisr(folder.path(), &["check", "page.wasm"]).await;
    assert_eq!(told.code, Some(0), "{told:?}");
    assert!(told.stdout.contains("/page, by its name"), "{told:?}");
    assert!(told.stdout.contains("may reach nobody"), "{told:?}");
    let (site, _origin) = site().await;
    let site = site.path().to_str().unwrap();
    let arguments = [
        "check",
        "page.wasm",
        "--site",
        site,
        "--route",
        "/posts/[id]",
    ];
    let path = ["--path", "/posts/1"];
    let told = wisr(folder.path(), &[&arguments[..], &path].concat()).await;
    assert_eq!(told.code, Some(0), "{told:?}");
    assert!(told.stdout.contains("fresh           for 7 s"), "{told:?}");
}
