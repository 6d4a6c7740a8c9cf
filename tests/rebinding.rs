//! Section 9: a page on the web that has its own name resolve to an author's machine reads nothing
//! there, on none of the ports of `wisr dev`; nor on that of `wisr content`.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;

use bytes::Bytes;
use http_body_util::Empty;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::client::{Client, raw};
use crate::site::{Site, wait_for};

/// What a name is answered with: the status, and what is said.
async fn called(to: SocketAddr, name: &str, path: &str) -> (u16, String) {
    let answer = Client::new(to)
        .send("GET", path, &[("host", name)], "")
        .await;
    let answer = answer.unwrap_or_else(|error| panic!("{name} {path}: {error}"));
    (answer.status, answer.text())
}

/// The same over HTTP/2, where the name is the request's `:authority`.
async fn called_over_http_2(to: SocketAddr, name: &str, path: &str) -> u16 {
    let stream = TcpStream::connect(to).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    tokio::spawn(connection);
    let request = http::Request::get(format!("http://{name}{path}"));
    let request = request.body(Empty::<Bytes>::new()).unwrap();
    sender
        .send_request(request)
        .await
        .unwrap()
        .status()
        .as_u16()
}

/// Runs a command that prints the addresses that it listens on.
async fn start(arguments: &[&str], folder: &Path, count: usize) -> (Child, Vec<SocketAddr>) {
    let mut process = Command::new(env!("CARGO_BIN_EXE_wisr"))
        .args(arguments)
        .arg(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
    let mut addresses = Vec::new();
    while addresses.len() < count {
        let line = lines.next_line().await.unwrap().expect("it started");
        let (_, address) = line.split_once(" on http://").unwrap();
        addresses.push(address.parse().unwrap());
    }
    (process, addresses)
}

/// A source tree without pages, with content and a name of its own.
fn tree() -> (tempfile::TempDir, SocketAddr) {
    let folder = tempfile::tempdir().unwrap();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let content = free.local_addr().unwrap();
    let config = format!(
        "[dev]\ncontent = \"content\"\nhosts = [\"my.test\", \"*.my.test\"]\n\
         [settings]\ncontent = \"http://{content}\"\n"
    );
    for (name, text) in [
        ("wisr.toml", &*config),
        ("public/style.css", "body {}"),
        ("content/posts/one.md", "the one"),
    ] {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    (folder, content)
}

#[tokio::test]
async fn an_author_s_server_answers_to_its_own_names_only() {
    let (folder, content) = tree();
    let arguments = ["dev", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
    let (_dev, ports) = start(&arguments, folder.path(), 2).await;
    let (site, admin) = (ports[0], ports[1]);
    let places = [
        (site, "/style.css"),
        (site, "/_wisr/dev/failure?page=/"),
        (site, "/_wisr/dev/nothing"),
        (site, "/api/draft"),
        (site, "/nothing"),
        (admin, "/"),
        (admin, "/api/incidents"),
        (admin, "/livez"),
        (content, "/posts/one"),
    ];
    wait_for("the content API", async || {
        let connected = TcpStream::connect(content).await;
        connected.map(drop).map_err(|error| error.to_string())
    })
    .await;
    for (to, path) in places {
        for name in [
            "evil.example",
            &format!("evil.example:{}", to.port()),
            "localhost.evil.example",
            "127.0.0.1.nip.io",
            "notmy.test",
        ] {
            let (status, text) = called(to, name, path).await;
            assert_eq!(status, 421, "{name} {path}: {text}");
            assert!(text.contains("[dev]") && text.contains("hosts"), "{text}");
            assert!(
                !text.contains("the one") && !text.contains("body {}"),
                "{text}"
            );
        }
        for name in [
            "localhost",
            &format!("LOCALHOST.:{}", to.port()),
            "a.localhost",
            "127.0.0.1",
            &format!("[::1]:{}", to.port()),
            "192.168.1.7",
            "my.test",
            "a.b.My.Test:80",
        ] {
            let (status, text) = called(to, name, path).await;
            assert_ne!(status, 421, "{name} {path}: {text}");
        }
    }
    for (to, path) in [(site, "/style.css"), (admin, "/livez")] {
        assert_eq!(called_over_http_2(to, "evil.example", path).await, 421);
        assert_eq!(called_over_http_2(to, "localhost", path).await, 200);
        // The target's name counts, and who names none has no page.
        for request in [
            format!("GET http://evil.example{path} HTTP/1.1\r\nhost: localhost\r\n"),
            format!("GET {path} HTTP/1.0\r\n"),
        ] {
            let answer = raw(to, format!("{request}connection: close\r\n\r\n").as_bytes()).await;
            assert!(answer.contains(" 421 "), "{request}: {answer}");
        }
    }
}

#[tokio::test]
async fn the_content_api_alone_answers_to_its_own_names_only() {
    let (folder, _) = tree();
    let arguments = ["content", "--listen", "127.0.0.1:0", "--host", "cms.test"];
    let (process, told) = content(&arguments, &folder.path().join("content")).await;
    for (name, expected) in [
        ("evil.example", 421),
        ("cms.test", 200),
        ("localhost:1", 200),
    ] {
        let (status, text) = called(told, name, "/posts/one").await;
        assert_eq!(status, expected, "{name}: {text}");
    }
    drop(process);
}

/// Of the content API the address is told on stderr.
async fn content(arguments: &[&str], folder: &Path) -> (Child, SocketAddr) {
    let mut process = Command::new(env!("CARGO_BIN_EXE_wisr"))
        .args(arguments)
        .arg(folder)
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
    let line = lines.next_line().await.unwrap().expect("it started");
    let (_, address) = line.split_once(" on http://").unwrap();
    let (address, _) = address.split_once('/').unwrap();
    (process, address.parse().unwrap())
}

/// A server for readers has any name that they call it by.
#[tokio::test]
async fn readers_call_a_server_as_they_like() {
    let site = Site::new().pages(&["index"]).start().await;
    assert_eq!(called(site.site(), "shop.example", "/").await.0, 200);
}
