//! `wisr new`: what it makes builds, passes `wisr check` and is served.

use std::path::Path;

use tempfile::TempDir;

use crate::origin::Origin;
use crate::site::{Running, wisr};
use crate::tools::tool;

/// Runs a command of wisr that must do.
async fn done(folder: &Path, arguments: &[&str]) -> String {
    let ended = wisr(folder, arguments).await;
    assert_eq!(ended.code, Some(0), "{arguments:?}: {ended:?}");
    ended.stdout
}

/// The routes of a new site, each with a page of it and that page's heading.
const ROUTES: [(&str, &str, &str); 3] = [
    ("posts/[id]", "/posts/a%26b", "<h1>a&amp;b</h1>"),
    ("/", "/", "<h1>Home</h1>"),
    (
        "[lang]/[...slug]",
        "/example/hello/world",
        "<h1>hello/world</h1>",
    ),
];

/// From an empty folder to pages of these routes that are served.
async fn from_nothing(language: &str, routes: &[(&str, &str, &str)]) {
    let (src, site) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for (route, _, _) in routes {
        let new = ["new", "--lang", language, "--route", route];
        done(src.path(), &new).await;
    }
    let is_typed = src.path().join("tsconfig.json").exists();
    assert_eq!(is_typed, language == "ts");
    let out = site.path().to_str().unwrap();
    done(src.path(), &["build", ".", "-o", out]).await;
    for (route, _, _) in routes {
        let module = if *route == "/" { "index" } else { route };
        done(site.path(), &["check", &format!("pages/{module}.wasm")]).await;
    }
    let running = Running::on(site, Origin::start().await).await;
    running.until_ready().await;
    for (_, path, heading) in routes {
        let page = running.get(path).await;
        assert_eq!(page.status, 200, "{language} {path}: {}", running.log());
        assert!(page.text().contains(heading), "{}", page.text());
    }
    assert_eq!(running.get("/posts/missing").await.status, 404);
    assert_eq!(running.get("/style.css").await.status, 200);
}

#[tokio::test]
async fn a_site_in_rust() {
    from_nothing("rust", &ROUTES).await;
}

#[tokio::test]
async fn a_site_in_javascript_and_typescript() {
    if tool("npm", "https://nodejs.org").is_some() {
        from_nothing("js", &ROUTES).await;
        from_nothing("ts", &ROUTES).await;
    }
}

#[tokio::test]
async fn a_site_in_python() {
    if tool("python3", "apt install python3 python3-venv").is_some() {
        // Each module takes half a minute of one core to compile.
        from_nothing("python", &ROUTES[..1]).await;
    }
}

#[tokio::test]
async fn a_site_in_c() {
    let packages = "apt install clang lld wasi-libc libclang-rt-14-dev-wasm32";
    if tool("clang", packages).is_some() {
        from_nothing("c", &ROUTES).await;
    }
}

/// Whatever is there stays as it was, and the answer names it.
#[tokio::test]
async fn nothing_is_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let refused = async |arguments: &[&str], words: &str| {
        let ended = wisr(folder.path(), arguments).await;
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.stderr.contains(words), "{ended:?}");
    };
    done(folder.path(), &["new", "--lang", "c"]).await;
    let page = folder.path().join("index/page.c");
    std::fs::write(&page, "mine").unwrap();
    refused(&["new"], "say which page to make").await;
    refused(&["new", "--lang", "c", "--route", "/"], "is a page of").await;
    done(
        folder.path(),
        &["new", "--lang", "c", "--route", "posts/[id]"],
    )
    .await;
    let again = ["new", "--lang", "js", "--route", "posts/[slug]"];
    refused(&again, "`/posts/[id]` is a page of").await;
    refused(&["new", "--route", "a/[...b]/c"], "/a/[...b]/c").await;
    assert_eq!(std::fs::read_to_string(page).unwrap(), "mine");
    let manifest = folder.path().join("Cargo.toml");
    std::fs::write(&manifest, "[package]\nname = \"mine\"").unwrap();
    refused(&["new", "--route", "about"], "is not the workspace").await;
    assert!(!folder.path().join("about").exists());
}

/// A crate of pages that is there already goes on as it was, with one more member.
#[tokio::test]
async fn a_workspace_keeps_what_its_author_wrote() {
    let folder: TempDir = tempfile::tempdir().unwrap();
    done(folder.path(), &["new"]).await;
    let manifest = folder.path().join("Cargo.toml");
    let text = std::fs::read_to_string(&manifest).unwrap();
    let mine = text.replace("resolver = \"3\"", "resolver = \"3\" # mine");
    std::fs::write(&manifest, &mine).unwrap();
    done(folder.path(), &["new", "--route", "about"]).await;
    let after = std::fs::read_to_string(&manifest).unwrap();
    let expected = mine.replace("[\"index\"]", "[\"index\", \"about\"]");
    assert_eq!(after, expected);
}
