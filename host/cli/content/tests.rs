//! The content API over a real socket.

use std::fs;
use std::path::Path;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use super::{Library, bind, serve};
use crate::http::hosts::Hosts;

async fn ask(folder: &Path, requests: &[(&str, &str, &str)]) -> Vec<Response<Bytes>> {
    let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let library = Library::open(folder).unwrap();
    let server = tokio::spawn(serve(library, listener, Hosts::default(), async {
        let _ = stopped.await;
    }));
    let mut responses = Vec::new();
    for (method, path, known) in requests {
        let stream = TokioIo::new(TcpStream::connect(address).await.unwrap());
        let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        let request = Request::builder()
            .method(*method)
            .uri(*path)
            .header("host", "localhost")
            .header("if-none-match", *known)
            .body(Empty::<Bytes>::new())
            .unwrap();
        let (parts, body) = sender.send_request(request).await.unwrap().into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        responses.push(Response::from_parts(parts, body));
    }
    drop(stop);
    server.await.unwrap();
    responses
}

async fn get(folder: &Path, path: &str) -> (StatusCode, Value) {
    let response = ask(folder, &[("GET", path, "")]).await.remove(0);
    let value = serde_json::from_slice(response.body()).unwrap();
    (response.status(), value)
}

fn write(folder: &Path, file: &str, text: &str) {
    let path = folder.join(file);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn library() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    write(root, "secret.md", "above the collections");
    write(root, "docs/guide/a b.md", "+++\ntitle = \"AB\"\n+++\ntext");
    write(
        root,
        "posts/old.md",
        "+++\ndate = \"2026-01-01\"\n+++\nold text",
    );
    write(
        root,
        "posts/new.md",
        "+++\ndate = \"2026-02-01\"\n+++\nnew text",
    );
    write(
        root,
        "posts/soon.md",
        "+++\ndraft = true\n+++\nnot ready to be read",
    );
    write(root, "posts/.hidden.md", "no");
    write(root, "posts/picture.png", "no");
    dir
}

#[tokio::test]
async fn collections_items_and_nested_ids() {
    let dir = library();
    let ok = |value| (StatusCode::OK, value);
    assert_eq!(get(dir.path(), "/").await, ok(json!(["docs", "posts"])));
    let posts = json!([{"id": "new", "date": "2026-02-01"}, {"id": "old", "date": "2026-01-01"}]);
    assert_eq!(get(dir.path(), "/posts").await, ok(posts));
    let docs = json!([{"id": "guide/a b", "title": "AB"}]);
    assert_eq!(get(dir.path(), "/docs").await, ok(docs));
    let item = json!({"id": "guide/a b", "title": "AB", "body": "text"});
    assert_eq!(get(dir.path(), "/docs/guide/a%20b").await, ok(item.clone()));
    assert_eq!(get(dir.path(), "/docs/guide/a%20b?x=1").await, ok(item));
}

#[tokio::test]
async fn what_is_not_there_or_not_ready_is_404_with_a_message() {
    let dir = library();
    for path in [
        "/none",
        "/posts/none",
        "/posts/soon",
        "/posts/.hidden",
        "/posts/picture.png",
        "/posts/../secret",
        "/posts/%2e%2e/secret",
        "/posts/..%2Fsecret",
        "/posts/%2Fetc%2Fpasswd",
        "/posts//new",
        "/%ff",
        "/posts/new%00",
        "/secret",
        "/docs/guide",
    ] {
        let (status, body) = get(dir.path(), path).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{path}");
        assert!(body["message"].is_string(), "{path}");
    }
}

#[cfg(unix)]
#[tokio::test]
async fn a_link_out_of_the_folder_is_not_followed() {
    let dir = library();
    let outside = tempfile::tempdir().unwrap();
    write(outside.path(), "x.md", "outside");
    std::os::unix::fs::symlink(outside.path(), dir.path().join("leak")).unwrap();
    let link = dir.path().join("posts/leak.md");
    std::os::unix::fs::symlink(outside.path().join("x.md"), link).unwrap();
    for path in ["/leak", "/leak/x", "/posts/leak"] {
        assert_eq!(
            get(dir.path(), path).await.0,
            StatusCode::NOT_FOUND,
            "{path}"
        );
    }
    let (_, posts) = get(dir.path(), "/posts").await;
    assert_eq!(posts.as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_saved_file_is_live_and_a_broken_one_names_its_line() {
    let dir = library();
    write(dir.path(), "posts/new.md", "+++\n+++\nchanged");
    assert_eq!(get(dir.path(), "/posts/new").await.1["body"], "changed");
    write(dir.path(), "posts/new.md", "+++\ntitle = oops\n+++\n");
    for path in ["/posts/new", "/posts"] {
        let (status, body) = get(dir.path(), path).await;
        assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
        let message = body["message"].as_str().unwrap();
        assert!(message.starts_with("posts/new.md:2: "), "{message}");
    }
}

#[tokio::test]
async fn headers_and_methods() {
    let dir = library();
    let first = ask(dir.path(), &[("GET", "/posts", "")]).await.remove(0);
    let tag = first.headers()["etag"].to_str().unwrap().to_owned();
    assert_eq!(first.headers()["cache-control"], "no-store");
    assert_eq!(first.headers()["content-type"], "application/json");
    let asked = [
        ("GET", "/posts", tag.as_str()),
        ("HEAD", "/posts", ""),
        ("POST", "/posts", ""),
        ("GET", "/posts", "\"other\""),
    ];
    let answers = ask(dir.path(), &asked).await;
    let statuses: Vec<_> = answers.iter().map(|a| a.status().as_u16()).collect();
    assert_eq!(statuses, [304, 200, 405, 200]);
    assert!(answers[0].body().is_empty() && answers[1].body().is_empty());
    assert_eq!(
        answers[1].headers()["content-length"],
        first.body().len().to_string()
    );
    assert_eq!(answers[2].headers()["allow"], "GET, HEAD");
}

#[tokio::test]
async fn only_loopback() {
    let error = bind("0.0.0.0:0".parse().unwrap()).await.unwrap_err();
    assert!(error.to_string().contains("loopback only"), "{error}");
}
