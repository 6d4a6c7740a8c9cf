//! Section 9, command line: what each command does, says and returns.

use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;

use crate::modules;
use crate::site::{Site, wisr};

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn put(folder: &Path, path: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
    let path = folder.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, bytes).unwrap();
    path
}

/// `wisr --help` names every command, and each explains itself.
#[tokio::test]
async fn help_is_complete() {
    let here = folder();
    let overview = wisr(here.path(), &["--help"]).await;
    assert_eq!(overview.code, Some(0), "{overview:?}");
    for command in [
        "dev",
        "build",
        "prerender",
        "serve",
        "content",
        "check",
        "routes",
        "revalidate",
        "releases",
        "rollback",
    ] {
        let listed = overview
            .stdout
            .lines()
            .any(|line| line.trim_start().starts_with(command));
        assert!(listed, "{command} in\n{}", overview.stdout);
        let help = wisr(here.path(), &[command, "--help"]).await;
        assert_eq!(help.code, Some(0), "{command}: {help:?}");
        assert!(help.stdout.contains("Usage:"), "{command}: {help:?}");
    }
    let version = wisr(here.path(), &["--version"]).await;
    assert_eq!(
        (version.code, version.stdout.starts_with("wisr ")),
        (Some(0), true),
        "{version:?}"
    );
}

/// A call that is no call is told so: exit code 2.
#[tokio::test]
async fn usage_errors_are_exit_code_2() {
    let here = folder();
    for arguments in [
        &["frobnicate"][..],
        &["serve", "--nonsense"],
        &["check"],
        &["build"],
        &["serve", ".", "--listen", "nowhere"],
    ] {
        let done = wisr(here.path(), arguments).await;
        assert_eq!(done.code, Some(2), "{arguments:?}: {done:?}");
        assert!(!done.stderr.is_empty(), "{arguments:?}");
    }
}

/// What cannot be served is named, with the rule, before anything listens.
#[tokio::test]
async fn what_cannot_be_served_is_named() {
    let here = folder();
    let no_site = wisr(
        here.path(),
        &[
            "serve",
            "missing",
            "--listen",
            "127.0.0.1:0",
            "--admin",
            "127.0.0.1:0",
        ],
    )
    .await;
    assert_eq!(no_site.code, Some(1), "{no_site:?}");
    assert!(no_site.stderr.contains("missing"), "{no_site:?}");
    put(here.path(), "src/Cargo.toml", "[workspace]");
    let source = wisr(here.path(), &["routes", "src"]).await;
    assert_eq!(source.code, Some(1), "{source:?}");
    assert!(source.stderr.contains("wisr build src"), "{source:?}");
    put(here.path(), "js/posts/[id]/page.js", "");
    let source = wisr(here.path(), &["routes", "js"]).await;
    assert!(source.stderr.contains("wisr build js"), "{source:?}");
    std::fs::create_dir_all(here.path().join("site/pages")).unwrap();
    for (toml, words) in [
        ("[server]\nlisten = 3000", "listen"),
        ("[defaults]\ncpuu = \"1s\"", "cpuu"),
        ("[defaults]\nrevalidate = \"sometimes\"", "revalidate"),
        ("[defaults]\noutbound = [\"not a url\"]", "not a url"),
        ("[routes.\"posts\"]\nrevalidate = 1", "posts"),
        ("not toml at all", "wisr.toml"),
    ] {
        put(here.path(), "site/wisr.toml", toml);
        let done = wisr(
            here.path(),
            &[
                "serve",
                "site",
                "--listen",
                "127.0.0.1:0",
                "--admin",
                "127.0.0.1:0",
            ],
        )
        .await;
        assert_eq!(done.code, Some(1), "{toml:?}: {done:?}");
        assert!(
            done.stderr.contains("wisr.toml") && done.stderr.contains(words),
            "{toml:?}: {done:?}"
        );
    }
}

/// The admin door does not open to the world without a token.
#[tokio::test]
async fn the_admin_door_refuses_the_world_without_a_token() {
    let here = folder();
    std::fs::create_dir_all(here.path().join("pages")).unwrap();
    let done = wisr(
        here.path(),
        &[
            "serve",
            ".",
            "--listen",
            "127.0.0.1:0",
            "--admin",
            "0.0.0.0:0",
        ],
    )
    .await;
    assert_eq!(done.code, Some(1), "{done:?}");
    assert!(
        done.stderr.contains("token") && done.stderr.contains("0.0.0.0"),
        "{done:?}"
    );
}

/// Two servers cannot have one port, and the second says so.
#[tokio::test]
async fn a_port_in_use_is_said() {
    let site = Site::new().pages(&["index"]).start().await;
    let here = folder();
    std::fs::create_dir_all(here.path().join("pages")).unwrap();
    let taken = site.site().to_string();
    let done = wisr(
        here.path(),
        &["serve", ".", "--listen", &taken, "--admin", "127.0.0.1:0"],
    )
    .await;
    assert_eq!(done.code, Some(1), "{done:?}");
    assert!(
        done.stderr.contains(&taken) && done.stderr.contains("--listen"),
        "{done:?}"
    );
    let done = wisr(
        here.path(),
        &["serve", ".", "--listen", "127.0.0.1:0", "--admin", &taken],
    )
    .await;
    assert_eq!(done.code, Some(1), "{done:?}");
    assert!(
        done.stderr.contains(&taken) && done.stderr.contains("--admin"),
        "{done:?}"
    );
}

/// `check` says what a module is and whether it would be served.
#[tokio::test]
async fn check_tells_good_modules_from_bad_ones() {
    let here = folder();
    put(here.path(), "good.wasm", modules::puppet());
    put(here.path(), "core.wasm", modules::puppet_core());
    put(here.path(), "world.wasm", modules::wrong_world());
    put(here.path(), "bare.wasm", modules::bare_core());
    put(here.path(), "native.wasm", modules::precompiled());
    put(here.path(), "start.wasm", modules::trapping_at_start());
    let good = wisr(here.path(), &["check", "good.wasm", "core.wasm"]).await;
    assert_eq!(good.code, Some(0), "{good:?}");
    assert!(
        good.stdout.contains("good.wasm") && good.stdout.contains("core.wasm"),
        "{good:?}"
    );
    for (file, words) in [
        ("world.wasm", "wisr:page"),
        ("bare.wasm", "component"),
        ("native.wasm", "native"),
        ("start.wasm", "start.wasm"),
        ("none.wasm", "none.wasm"),
    ] {
        let bad = wisr(here.path(), &["check", file]).await;
        assert_eq!(bad.code, Some(1), "{file}: {bad:?}");
        assert!(
            bad.stderr.contains(file) && bad.stderr.contains(words),
            "{file}: {bad:?}"
        );
    }
    let both = wisr(here.path(), &["check", "--json", "good.wasm", "world.wasm"]).await;
    assert_eq!(both.code, Some(1), "{both:?}");
    let report: Value = serde_json::from_str(&both.stdout).unwrap();
    assert_eq!(
        (&report[0]["served"], &report[1]["served"]),
        (&Value::Bool(true), &Value::Bool(false))
    );
}

/// `routes` shows which file answers what, in the order in which they are tried.
#[tokio::test]
async fn routes_shows_the_table() {
    let here = folder();
    for page in [
        "index",
        "about",
        "posts/[id]",
        "posts/new",
        "docs/[...slug]",
    ] {
        put(
            here.path(),
            &format!("pages/{page}.wasm"),
            modules::puppet(),
        );
    }
    let table = wisr(here.path(), &["routes", "."]).await;
    assert_eq!(table.code, Some(0), "{table:?}");
    let place = |route: &str| {
        let found = table
            .stdout
            .lines()
            .position(|line| line.split_whitespace().any(|word| word == route));
        found.unwrap_or_else(|| panic!("{route} in\n{}", table.stdout))
    };
    assert!(place("/posts/new") < place("/posts/[id]"));
    assert!(place("/about") < place("/docs/[...slug]"));
    let json = wisr(here.path(), &["routes", ".", "--json"]).await;
    let listing: Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(listing["routes"].as_array().unwrap().len(), 5, "{listing}");
    put(here.path(), "pages/posts/[slug].wasm", modules::puppet());
    let conflict = wisr(here.path(), &["routes", "."]).await;
    assert_eq!(conflict.code, Some(1), "{conflict:?}");
    assert!(
        conflict.stderr.contains("[id]") && conflict.stderr.contains("[slug]"),
        "{conflict:?}"
    );
}

/// `revalidate` is the call over HTTP from the shell.
#[tokio::test]
async fn revalidate_renews_a_page_from_the_shell() {
    let site = Site::new().pages(&["posts/[id]"]).start().await;
    assert_eq!(site.get("/posts/1").await.n(), 1);
    let url = format!("http://{}", site.site());
    let done = wisr(
        site.folder(),
        &["revalidate", "--url", &url, "--path", "/posts/1"],
    )
    .await;
    assert_eq!(done.code, Some(0), "{done:?}");
    let page = site.get("/posts/1").await;
    assert_eq!((page.verdict(), page.n()), ("HIT", 2));
    // The token may be in a file that the environment names, as it may for a server.
    let token = put(site.folder(), "token", crate::site::TOKEN);
    for (variable, code) in [("WISR_TOKEN_FILE", 0), ("WISR_NO_TOKEN", 2)] {
        let done = tokio::process::Command::new(env!("CARGO_BIN_EXE_wisr"))
            .args(["revalidate", "--url", &url, "--path", "/posts/1"])
            .env_remove("WISR_TOKEN")
            .env(variable, &token)
            .output()
            .await
            .unwrap();
        assert_eq!(done.status.code(), Some(code), "{done:?}");
    }
    site.origin.fail("/posts/1");
    let failed = wisr(
        site.folder(),
        &["revalidate", "--url", &url, "--path", "/posts/1"],
    )
    .await;
    assert_ne!(failed.code, Some(0), "{failed:?}");
    assert!(
        failed.stderr.contains("/posts/1") || failed.stdout.contains("/posts/1"),
        "{failed:?}"
    );
    let nowhere = wisr(
        site.folder(),
        &[
            "revalidate",
            "--url",
            "http://127.0.0.1:9",
            "--path",
            "/posts/1",
        ],
    )
    .await;
    assert_ne!(nowhere.code, Some(0), "{nowhere:?}");
    assert!(nowhere.stderr.contains("127.0.0.1:9"), "{nowhere:?}");
}

/// Enough of it is worth a coding.
const LARGE_STYLE: &str = "body { margin: 0 }\n";

/// A source tree of two pages, one of which may not compile.
pub(crate) fn source(broken: bool) -> TempDir {
    let here = folder();
    let sdk = Path::new(env!("CARGO_MANIFEST_DIR")).join("guest-sdk");
    let manifest = |name: &str| {
        format!(
            "[package]\nname = {name:?}\nversion = \"0.1.0\"\nedition = \"2024\"\n\
             [lib]\npath = \"page.rs\"\ncrate-type = [\"cdylib\"]\n\
             [dependencies]\nwisr-guest = {{ path = {sdk:?} }}\n[workspace]\n\
             [profile.release]\nopt-level = \"s\"\npanic = \"abort\"\n"
        )
    };
    let page = include_str!("fixtures/hello.rs");
    put(here.path(), "src/index/Cargo.toml", manifest("index"));
    put(here.path(), "src/index/page.rs", page);
    put(here.path(), "src/posts/[id]/Cargo.toml", manifest("post"));
    let post = if broken {
        page.replace("props: String", "props: Strin")
    } else {
        page.to_owned()
    };
    put(here.path(), "src/posts/[id]/page.rs", post);
    if broken {
        put(
            here.path(),
            "src/api/post/Cargo.toml",
            manifest("misplaced"),
        );
        put(here.path(), "src/api/post/page.rs", page);
    }
    put(here.path(), "src/public/style.css", "body{}");
    put(here.path(), "src/public/large.css", LARGE_STYLE.repeat(500));
    put(
        here.path(),
        "src/wisr.toml",
        "[defaults]\nrevalidate = 60\n",
    );
    here
}

/// `build` makes a site of a source tree: modules, public files, configuration, and pages if asked to.
#[tokio::test]
async fn build_makes_a_site_of_a_source_tree() {
    let here = source(false);
    let build = ["build", "src", "-o", "site", "--prerender"];
    let done = wisr(here.path(), &build).await;
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(
        done.stderr.contains("1 made, 0 already fresh, 0 failed"),
        "{done:?}"
    );
    for file in [
        "pages/index.wasm",
        "pages/posts/[id].wasm",
        "public/style.css",
        "wisr.toml",
    ] {
        assert!(
            here.path().join("site").join(file).is_file(),
            "{file} in {done:?}"
        );
    }
    let site =
        crate::site::Running::on(move_out(here, "site"), crate::origin::Origin::start().await)
            .await;
    site.until_ready().await;
    let page = site.get("/posts/1").await;
    assert_eq!(
        (page.text().as_str(), page.directive("s-maxage")),
        ("hello from /posts/1", Some("60"))
    );
    assert_eq!(site.get("/style.css").await.text(), "body{}");
    let large = site
        .get_with("/large.css", &[("accept-encoding", "br")])
        .await;
    assert_eq!(large.header("content-encoding"), "br");
    assert_eq!(large.decoded(), LARGE_STYLE.repeat(500).as_bytes());
}

/// The folder `name` of `from` as a temporary folder of its own.
fn move_out(from: TempDir, name: &str) -> TempDir {
    let own = folder();
    std::fs::remove_dir(own.path()).unwrap();
    std::fs::rename(from.path().join(name), own.path()).unwrap();
    own
}

/// A page that does not compile is told with the compiler's words, one that a server would not take
/// in its place with the server's; the others are built.
#[tokio::test]
async fn build_goes_on_past_a_page_that_does_not_compile() {
    let here = source(true);
    let done = wisr(here.path(), &["build", "src", "-o", "site"]).await;
    assert_eq!(done.code, Some(1), "{done:?}");
    assert!(
        done.stderr.contains("Strin") && done.stderr.contains("page.rs"),
        "{done:?}"
    );
    assert!(
        here.path().join("site/pages/index.wasm").is_file(),
        "{done:?}"
    );
    assert!(!here.path().join("site/pages/posts/[id].wasm").exists());
    assert!(
        done.stderr.contains("move it out of `api/`"),
        "a page below `api/`: {done:?}"
    );
    assert!(!here.path().join("site/pages/api/post.wasm").exists());
}
