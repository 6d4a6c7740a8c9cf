//! The example publication, whole: built, served beside its content API, read like a reader would.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::json;
use tempfile::TempDir;

use crate::origin::Origin;
use crate::site::{Running, TOKEN, wisr};
use crate::tools::tool;

/// `wisr content` on a copy of the example's content. Killed on drop.
struct Content {
    process: Child,
    folder: TempDir,
    url: String,
}

impl Content {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        crate::swap::copy(&example().join("content"), folder.path());
        let mut process = Command::new(env!("CARGO_BIN_EXE_wisr"))
            .arg("content")
            .arg(folder.path())
            .args(["--listen", "127.0.0.1:0"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap())
            .lines()
            .map_while(Result::ok);
        let told = lines.find_map(|line| {
            let address = line.split_once("http://")?.1.split_once('/')?.0.to_owned();
            Some(address)
        });
        let url = format!("http://{}", told.expect("it says where it listens"));
        std::thread::spawn(move || lines.for_each(drop));
        Self {
            process,
            folder,
            url,
        }
    }

    /// Changes a file of the content, as an author would.
    fn edit(&self, file: &str, from: &str, to: &str) {
        let file = self.folder.path().join(file);
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.contains(from), "{from:?} in {text}");
        std::fs::write(&file, text.replace(from, to)).unwrap();
    }
}

impl Drop for Content {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn example() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("example-pages")
}

/// The publication, running on `content`.
async fn publication(content: &Content) -> Running {
    let site = tempfile::tempdir().unwrap();
    let (source, out) = (example(), site.path().to_str().unwrap());
    let built = wisr(&source, &["build", ".", "-o", out, "--allow-left-out"]).await;
    assert_eq!(built.code, Some(0), "{}\n{}", built.stdout, built.stderr);
    let file = site.path().join("wisr.toml");
    let text = std::fs::read_to_string(&file)
        .unwrap()
        .replace("http://127.0.0.1:3002", &content.url);
    let mut config: toml::Table = text.parse().unwrap();
    let token = toml::Table::from_iter([("token".to_owned(), TOKEN.into())]);
    config.insert("revalidate".into(), token.into());
    std::fs::write(&file, config.to_string()).unwrap();
    let running = Running::on(site, Origin::start().await).await;
    running.until_ready().await;
    running
}

/// One build serves all of these promises: it takes longer than all of them together.
#[tokio::test]
async fn the_publication_can_be_read_and_edited() {
    let content = Content::start();
    let site = publication(&content).await;
    every_page_is_whole(&site).await;
    feed_and_sitemap_are_xml(&site).await;
    missing_pages_have_a_page(&site).await;
    edits_are_seen(&site, &content).await;
    assert_eq!(site.incidents().await, Vec::<serde_json::Value>::new());
}

/// Every path that a reader may find by following links is a page, and every link leads to one.
async fn every_page_is_whole(site: &Running) {
    let mut found = vec!["/".to_owned()];
    let mut next = 0;
    while next < found.len() {
        let path = found[next].clone();
        next += 1;
        let page = site.get(&path).await;
        if matches!(page.status, 307 | 308) {
            found.push(page.header("location").to_owned());
            continue;
        }
        if page.status == 404 && left_out(&path) {
            continue;
        }
        assert_eq!(page.status, 200, "{path}: {}", page.text());
        assert!(!page.header("content-type").is_empty(), "{path}");
        if !page.header("content-type").starts_with("text/html") {
            continue;
        }
        let html = page.text();
        assert!(
            html.starts_with("<!doctype html>") || html.starts_with("<!DOCTYPE html>"),
            "{path}: {html:.80}"
        );
        assert!(html.contains("<title>") && html.contains("lang="), "{path}");
        for link in links(&html) {
            if !found.contains(&link) {
                found.push(link);
            }
        }
        assert!(
            found.len() < 500,
            "a publication of this size has no more pages: {found:?}"
        );
    }
    for kind in ["/posts/", "/docs/", "/products", "/tags/"] {
        assert!(
            found.iter().any(|path| path.starts_with(kind)),
            "a page below {kind} in {found:?}"
        );
    }
}

/// Whether a page is in a language that this machine may lack; where tools are required, none is.
fn left_out(path: &str) -> bool {
    let (program, install) = match path.split('/').nth(1) {
        Some("authors" | "archive") => ("npm", "apt install nodejs npm"),
        Some("numbers") => ("python3", "apt install python3 python3-venv"),
        Some("tides") => ("wasm-ld", "apt install clang lld wasi-libc"),
        _ => return false,
    };
    tool(program, install).is_none()
}

/// The internal targets of `href` and `src`, without fragment and query.
fn links(html: &str) -> Vec<String> {
    let mut links = Vec::new();
    for attribute in ["href=\"", "src=\""] {
        for rest in html.split(attribute).skip(1) {
            let target = rest.split('"').next().unwrap_or("");
            let path = target.split(['#', '?']).next().unwrap_or("");
            if path.starts_with('/') && !path.starts_with("//") {
                links.push(path.to_owned());
            }
        }
    }
    links
}

/// Feed and sitemap are well-formed and list pages that are there.
async fn feed_and_sitemap_are_xml(site: &Running) {
    for (path, element) in [("/feed.xml", "link"), ("/sitemap.xml", "loc")] {
        let xml = site.get(path).await;
        assert_eq!(xml.status, 200, "{path}");
        assert!(
            xml.header("content-type").contains("xml"),
            "{path}: {:?}",
            xml.headers
        );
        let elements = well_formed(&xml.text());
        assert!(
            elements.iter().any(|name| name == element),
            "{path}: {elements:?}"
        );
        let posts = xml.text().matches("/posts/").count();
        assert!(posts >= 5, "{path} lists the posts: {}", xml.text());
    }
}

/// The names of all elements, or a panic where tags do not nest.
fn well_formed(xml: &str) -> Vec<String> {
    let mut open: Vec<String> = Vec::new();
    let mut all = Vec::new();
    let mut rest = xml;
    while let Some((text, tail)) = rest.split_once('<') {
        assert!(
            !text
                .replace("&amp;", "")
                .replace("&lt;", "")
                .replace("&gt;", "")
                .replace("&quot;", "")
                .replace("&#", "")
                .replace("&apos;", "")
                .contains('&'),
            "unescaped: {text:?}"
        );
        let (end, skip) = match tail {
            comment if comment.starts_with("!--") => ("-->", true),
            data if data.starts_with("![CDATA[") => ("]]>", true),
            head if head.starts_with(['?', '!']) => (">", true),
            _ => (">", false),
        };
        let (tag, after) = tail.split_once(end).expect("every tag ends");
        rest = after;
        if skip {
            continue;
        }
        let name = tag
            .trim_start_matches('/')
            .split([' ', '\n', '/'])
            .next()
            .unwrap()
            .to_owned();
        if tag.starts_with('/') {
            assert_eq!(open.pop().as_deref(), Some(name.as_str()), "tags nest");
        } else {
            all.push(name.clone());
            if !tag.ends_with('/') {
                open.push(name);
            }
        }
    }
    assert!(open.is_empty(), "never closed: {open:?}");
    all
}

async fn missing_pages_have_a_page(site: &Running) {
    for path in ["/nowhere", "/posts/no-such-post", "/docs/no/such/page"] {
        let page = site.get(path).await;
        assert_eq!(page.status, 404, "{path}");
        assert!(page.text().contains("<title>"), "{path}: {}", page.text());
    }
}

/// An edit is seen at once by a reader who comes after a revalidate call, and by others in time.
async fn edits_are_seen(site: &Running, content: &Content) {
    let file = "posts/the-kettle-test.md";
    let path = "/posts/the-kettle-test";
    let title = title_of(&content.folder.path().join(file));
    assert!(site.get(path).await.text().contains(&title));
    content.edit(file, &title, "A title from the test");
    let renewed = site.revalidate(json!({ "paths": [path] })).await;
    assert_eq!(renewed.status, 200, "{}", renewed.text());
    assert!(
        site.get(path)
            .await
            .text()
            .contains("A title from the test")
    );
    content.edit(file, "A title from the test", "Another title");
    let renewed = site.revalidate(json!({ "paths": [path, "/posts"] })).await;
    assert_eq!(renewed.status, 200, "{}", renewed.text());
    assert!(site.get("/posts").await.text().contains("Another title"));
    content.edit(file, "Another title", "A title that expires");
    site.until(path, |answer| {
        answer.text().contains("A title that expires")
    })
    .await;
    let clock = site.get("/clock").await;
    site.until("/clock", |answer| answer.body != clock.body)
        .await;
}

fn title_of(file: &Path) -> String {
    let text = std::fs::read_to_string(file).unwrap();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("title = \""))
        .unwrap();
    line.trim_end_matches('"').to_owned()
}
