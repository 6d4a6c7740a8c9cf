//! Section 2, in other languages: what a page can do, it can do in each; builds are incremental, errors are
//! told in the author's files, and a machine without a language still builds the rest.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::site::{Finished, Running, Site, wisr};
use crate::tools::tool;
use crate::{modules, swap};

/// What the pages of a fixture need on the machine: a program, and how it is installed.
pub(crate) const NODE: (&str, &str) = ("node", "apt install nodejs npm");
pub(crate) const PYTHON: (&str, &str) = ("python3", "apt install python3 python3-venv");
pub(crate) const CLANG: (&str, &str) = (
    "wasm-ld",
    "apt install clang lld wasi-libc libclang-rt-14-dev-wasm32",
);

/// A reader who waits for a page instead of being shown the shell.
pub(crate) const WAITS: [(&str, &str); 1] = [("user-agent", "Googlebot/2.1")];

/// A copy of a fixture's source tree, kept between runs with its tools; none where the machine lacks a program.
pub(crate) fn tree(fixture: &str, copy: &str, (program, install): (&str, &str)) -> Option<PathBuf> {
    tool(program, install)?;
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join("languages")
        .join(copy);
    for place in ["x", "_shared"] {
        let _ = fs::remove_dir_all(folder.join(place));
    }
    swap::copy(
        &root.join("tests/fixtures/languages").join(fixture),
        &folder,
    );
    let artifacts = modules::artifacts();
    fs::create_dir_all(&artifacts).unwrap();
    let config = format!("[server]\nartifacts = {artifacts:?}\n");
    fs::write(folder.join("wisr.toml"), config).unwrap();
    Some(folder)
}

pub(crate) async fn build(tree: &Path, site: &Path) -> Finished {
    wisr(tree, &["build", ".", "-o", site.to_str().unwrap()]).await
}

/// The module of a fixture, built.
pub(crate) async fn module(tree: &Path) -> Vec<u8> {
    let site = tempfile::tempdir().unwrap();
    let built = build(tree, site.path()).await;
    assert_eq!(built.code, Some(0), "{}\n{}", built.stdout, built.stderr);
    fs::read(site.path().join("pages/x/[...slug].wasm")).unwrap()
}

/// Everything that the fixtures do. `thrown` are parts of an incident: the error, its function, its file and line.
async fn does_everything(tree: &Path, kind: &str, thrown: &[&str]) {
    let site = Site::new()
        .module("x/[...slug]", &module(tree).await)
        .config("[routes.\"/x/[...slug]\"]\nquery = [\"q\"]")
        .script("/value", json!({ "value": 7 }))
        .start()
        .await;
    props_and_pages(&site).await;
    answers_without_props(&site).await;
    documents(&site).await;
    paths_and_shell(&site).await;
    for path in ["/x/throw", "/x/throw-render"] {
        let failed = site.get_with(path, &WAITS).await;
        assert_eq!(failed.status, 500, "{path}: {}", failed.text());
    }
    for call in ["props", "render"] {
        let incident = site.until_incident(kind, &format!("boom in {call}")).await;
        // A stack is lines to people, and one line to the log.
        let message = incident["message"].as_str().unwrap();
        assert_eq!(message.contains('\n'), kind == "error", "{message:?}");
        assert!(
            site.log().contains(&message.replace('\n', "\\n")),
            "{message:?}"
        );
        for part in thrown {
            let told = incident.to_string();
            assert!(told.contains(part), "{part:?} in {told}");
        }
    }
}

async fn props_and_pages(site: &Running) {
    let page = site.get_with("/x/props/%C3%A4%2F?q=1%20%26", &WAITS).await;
    assert_eq!(page.status, 200, "{}", page.text());
    assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
    let html = page.text();
    assert!(
        html.starts_with("<!doctype html><p>&lt;b&gt;&amp;&quot;&#39; ")
            || html.starts_with("<!doctype html><p>&lt;b&gt;&amp;&quot;&#x27; "),
        "{html}"
    );
    let data = site
        .get("/_wisr/data/x/props/%C3%A4%2F.json?q=1%20%26")
        .await;
    let mut props: Value = serde_json::from_str(&data.text()).unwrap();
    let random = props["random"].take();
    let denied = props["denied"].take();
    assert!(denied.as_str().unwrap().contains("outbound"), "{denied}");
    let expected = json!({
        "slug": ["props", "ä/"], "q": "1 &", "path": "/x/props/%C3%A4%2F", "cause": "first-request", "unset": null,
        "value": 7, "type": "application/json", "posted": 200, "denied": null, "random": null,
    });
    assert_eq!(props, expected);
    site.until_log("a line from the page").await;
    assert_eq!(site.origin.count("/posted"), site.origin.count("/value"));
    let another = site.get_with("/x/another", &WAITS).await;
    assert_eq!(another.status, 200);
    let data = site.get("/_wisr/data/x/another.json").await;
    let another: Value = serde_json::from_str(&data.text()).unwrap();
    assert_ne!(another["random"], random, "each sandbox has its own chance");
    let entries: Value =
        serde_json::from_str(&site.admin("/api/entries?prefix=/x/another").await.text()).unwrap();
    let entry = &entries["entries"][0];
    assert_eq!(entry["revalidate"], 7, "{entry}");
    assert_eq!(tags(entry), ["all", "posts", "read"], "{entry}");
}

fn named(tags: &[&str]) -> Vec<String> {
    tags.iter().map(|tag| (*tag).to_owned()).collect()
}

/// The tags of an entry, in order.
fn tags(entry: &Value) -> Vec<String> {
    let mut tags: Vec<String> = serde_json::from_value(entry["tags"].clone()).unwrap();
    tags.sort();
    tags
}

async fn answers_without_props(site: &Running) {
    let lifetime = async |path: &str| {
        let entries = site.admin(&format!("/api/entries?prefix={path}")).await;
        let entries: Value = serde_json::from_str(&entries.text()).unwrap();
        let entry = &entries["entries"][0];
        (entry["revalidate"].clone(), tags(entry))
    };
    for (path, status, seconds, tags) in [
        ("/x/not-found", 404, json!(5), &["gone", "read"][..]),
        ("/x/redirect", 307, json!(5), &["gone", "read"]),
        ("/x/moved", 308, json!("never"), &["read"]),
    ] {
        let answer = site.get_with(path, &WAITS).await;
        assert_eq!(answer.status, status, "{path}");
        if status != 404 {
            assert_eq!(answer.header("location"), "/elsewhere", "{path}");
        }
        assert_eq!(lifetime(path).await, (seconds, named(tags)), "{path}");
    }
}

async fn documents(site: &Running) {
    let bytes = site.get_with("/x/bytes", &WAITS).await;
    assert_eq!(bytes.header("content-type"), "image/x-test");
    assert_eq!(bytes.body, [0, 255, 1].as_slice());
    let gone = site.get_with("/x/status", &WAITS).await;
    assert_eq!((gone.status, gone.header("x-made")), (410, "yes"));
    assert_eq!(gone.text(), "gone");
}

async fn paths_and_shell(site: &Running) {
    for path in ["/x/listed/a%20b", "/x/7"] {
        let listed = site.get(path).await;
        assert_eq!(listed.header("x-wisr-cache"), "HIT", "{path}: {listed:?}");
    }
    let shell = site.get("/x/unseen").await;
    assert_eq!(shell.header("x-wisr-cache"), "SHELL");
    assert_eq!(shell.text(), "<!doctype html><p>shell of /x/unseen");
}

/// In JavaScript; a thrown error has the file and line of the author.
#[tokio::test]
async fn a_page_in_javascript_does_everything() {
    let Some(tree) = tree("js", "js", NODE) else {
        return;
    };
    does_everything(
        &tree,
        "error",
        &[
            "RangeError",
            "at boom (_shared/boom.js:2",
            "(x/[...slug]/page.js:",
        ],
    )
    .await;
}

/// In TypeScript; lines are those of the source, not of what is made of it.
#[tokio::test]
async fn a_page_in_typescript_does_everything() {
    let Some(tree) = tree("ts", "ts", NODE) else {
        return;
    };
    does_everything(
        &tree,
        "error",
        &[
            "RangeError",
            "at boom (_shared/boom.ts:6",
            "(x/[...slug]/page.ts:",
        ],
    )
    .await;
}

/// In Python; an exception has its traceback.
#[tokio::test]
async fn a_page_in_python_does_everything() {
    let Some(tree) = tree("python", "python", PYTHON) else {
        return;
    };
    let line = "File \\\"_shared/boom.py\\\", line 2, in boom";
    does_everything(&tree, "error", &["ValueError", line, "raise ValueError("]).await;
}

/// In C; an abort has the place of the call, and the frames of the stack.
#[tokio::test]
async fn a_page_in_c_does_everything() {
    let Some(tree) = tree("c", "c", CLANG) else {
        return;
    };
    does_everything(
        &tree,
        "trap",
        &[
            "\"message\":\"aborted: ",
            "_shared/boom.h:4: boom",
            "_shared/boom.h:4\"",
        ],
    )
    .await;
}

/// A path that is not listed by its parameters is told how it is.
#[tokio::test]
async fn a_path_that_cannot_be_listed_is_told_how_it_can() {
    for (language, needs, right, told) in [
        ("js", NODE, "{ params: { slug: 7 } }", "as { params: "),
        ("python", PYTHON, "{\"slug\": 7}", "by its parameters"),
    ] {
        let Some(tree) = tree(language, &format!("listing-{language}"), needs) else {
            continue;
        };
        let page = tree.join("x/[...slug]").join(match language {
            "js" => "page.js",
            _ => "page.py",
        });
        let text = fs::read_to_string(&page).unwrap();
        assert!(text.contains(right), "{text}");
        fs::write(&page, text.replace(right, "\"/x/7\"")).unwrap();
        let site = Site::new().module("x/[...slug]", &module(&tree).await);
        let site = site.start_unready().await;
        let incident = site.until_incident("listing", told).await;
        assert!(incident.to_string().contains("/x/7"), "{incident}");
        assert!(!incident.to_string().contains("(native)"), "{incident}");
    }
}

/// Nothing is built twice, and a change of a shared file builds its pages again.
#[tokio::test]
async fn only_what_changed_is_built() {
    for (language, needs, shared) in [
        ("js", NODE, "_shared/boom.js"),
        ("c", CLANG, "_shared/boom.h"),
        ("python", PYTHON, "_shared/boom.py"),
    ] {
        let Some(tree) = tree(language, &format!("edited-{language}"), needs) else {
            continue;
        };
        let site = tempfile::tempdir().unwrap();
        let line = async || {
            let built = build(&tree, site.path()).await;
            assert_eq!(built.code, Some(0), "{built:?}");
            built.stdout.lines().last().unwrap().to_owned()
        };
        line().await;
        let again = line().await;
        assert!(
            again.contains("same") && again.contains("cached"),
            "{again}"
        );
        let text = fs::read_to_string(tree.join(shared)).unwrap();
        fs::write(tree.join(shared), text.replace("boom in", "crash in")).unwrap();
        let changed = line().await;
        assert!(changed.contains("new"), "{language}: {changed}");
    }
}

/// What does not build is told in the words of the tool, with file and line, and nothing else is harmed.
#[tokio::test]
async fn mistakes_are_told_with_file_and_line() {
    for (language, needs, file, mistake, told) in [
        (
            "js",
            NODE,
            "_shared/boom.js",
            "export const x = ;\n",
            "_shared/boom.js:1:17",
        ),
        (
            "ts",
            NODE,
            "x/[...slug]/page.ts",
            "import \"nowhere\";\n",
            "Could not resolve \"nowhere\"",
        ),
        (
            "python",
            PYTHON,
            "_shared/boom.py",
            "def (:\n",
            "_shared/boom.py\", line 1",
        ),
        (
            "c",
            CLANG,
            "_shared/boom.h",
            "int x = ;\n",
            "_shared/boom.h:1:9: error: expected expression",
        ),
        (
            "c",
            CLANG,
            "x/[...slug]/page.c",
            "#define render rendr\n",
            "undefined symbol: render",
        ),
    ] {
        let Some(tree) = tree(language, &format!("wrong-{language}"), needs) else {
            continue;
        };
        let text = fs::read_to_string(tree.join(file)).unwrap();
        fs::write(tree.join(file), format!("{mistake}{text}")).unwrap();
        let site = tempfile::tempdir().unwrap();
        let built = build(&tree, site.path()).await;
        assert_eq!(built.code, Some(1), "{language}: {built:?}");
        assert!(built.stderr.contains(told), "{told:?} in {}", built.stderr);
        assert!(
            built.stderr.contains("not built: x/[...slug].wasm"),
            "{}",
            built.stderr
        );
    }
}

/// A machine that has none of these languages says once what to install, and exit code 1 unless it was allowed.
#[tokio::test]
async fn a_machine_without_a_language_leaves_its_pages_out() {
    let folder = tempfile::tempdir().unwrap();
    let page = |place: &str| {
        let file = folder.path().join("src").join(place);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, "").unwrap();
    };
    page("one/page.js");
    page("two/page.ts");
    page("three/page.py");
    page("four/page.c");
    fs::create_dir(folder.path().join("empty")).unwrap();
    let build = async |more: &[&str]| {
        let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_wisr"))
            .args(["build", "src", "-o", "site"])
            .args(more)
            .current_dir(folder.path())
            .env("PATH", folder.path().join("empty"))
            .env_remove("WASI_SDK_PATH")
            .output()
            .await
            .unwrap();
        (
            output.status.code(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    let (code, said) = build(&[]).await;
    assert_eq!(code, Some(1), "{said}");
    for part in [
        "not built: /one, /two: needs `node`: install Node.js",
        "not built: /three: needs `python3`",
        "not built: /four: needs clang",
        "0 built, 0 failed, 4 left out",
    ] {
        assert_eq!(said.matches(part).count(), 1, "{part:?} in {said}");
    }
    let (code, said) = build(&["--allow-left-out"]).await;
    assert_eq!(code, Some(0), "{said}");
}
