//! A server that is told to stop: what is in flight is finished within the drain time, the rest is
//! cut off, and nothing is left half-written.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::Signal;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::modules;
use crate::origin::Origin;
use crate::site::{Running, Site, wait_for};

/// More than the buffers of a connection hold, and what brotli makes of it too.
const LARGE: usize = 7 << 20;

async fn request(site: &Running, head: &str, body: &str) -> TcpStream {
    let mut stream = TcpStream::connect(site.site()).await.unwrap();
    let text = format!("{head} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{body}");
    stream.write_all(text.as_bytes()).await.unwrap();
    stream
}

/// A reader of the large page who has seen its first byte and reads no further for now.
async fn half_read(site: &Running) -> TcpStream {
    let mut stream = request(site, "GET /large", "\r\n").await;
    let mut first = [0; 1];
    stream.read_exact(&mut first).await.unwrap();
    stream
}

/// A caller of the API route who has sent half of the body.
async fn half_sent(site: &Running) -> TcpStream {
    let mut stream = request(
        site,
        "POST /api/hook",
        "content-length: 8\r\nexpect: 100-continue\r\n\r\n",
    )
    .await;
    let mut line = [0; 12];
    // Told to go on, so it is being answered.
    stream.read_exact(&mut line).await.unwrap();
    assert_eq!(&line, b"HTTP/1.1 100");
    stream.write_all(b"half").await.unwrap();
    stream
}

async fn rest(mut stream: TcpStream) -> Vec<u8> {
    let mut rest = Vec::new();
    // A connection that is cut off may be reset.
    let _ = stream.read_to_end(&mut rest).await;
    rest
}

/// A site with something of every kind to be in the middle of, whose compiled modules are its own.
async fn busy(drain: &str) -> Running {
    let site = Site::new()
        .pages(&["posts/[id]", "large"])
        .module("api/hook", modules::hook())
        .script("/large", json!({ "render": { "huge": LARGE } }))
        .config(&format!(
            "[server]\nartifacts = \".wisr/artifacts\"\ndrain = {drain:?}"
        ));
    let site = site.start().await;
    assert_eq!(site.get("/posts/good").await.status, 200);
    site
}

/// The state folder as the next start must find it, once that has tidied.
fn leftovers(site: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![site.join(".wisr")];
    while let Some(folder) = folders.pop() {
        for file in std::fs::read_dir(folder).unwrap() {
            let path = file.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path
                .extension()
                .is_some_and(|extension| extension == "new" || extension == "tmp")
            {
                found.push(path);
            }
        }
    }
    found
}

/// Whoever goes on reading or sending is served to the end, and who waits for a page gets it.
#[tokio::test]
async fn what_is_in_flight_is_finished() {
    let mut site = busy("60s").await;
    let (download, mut upload) = (half_read(&site).await, half_sent(&site).await);
    site.origin.hold("/posts/1");
    let waiting = site.waiting("/posts/1");
    site.until_calls("/posts/1", 1).await;
    site.terminate();
    site.until_log("stopping").await;
    upload.write_all(b"half").await.unwrap();
    let answer = String::from_utf8_lossy(&rest(upload).await).into_owned();
    assert!(
        answer.contains("200 OK") && answer.contains("halfhalf"),
        "{answer}"
    );
    assert!(rest(download).await.len() > LARGE);
    site.origin.release("/posts/1");
    assert_eq!(waiting.await.unwrap().status, 200);
    assert_eq!(site.ended().await.code(), Some(0));
    assert!(!site.log().contains("still running"), "{}", site.log());
}

/// Who stalls is cut off when the drain time is over; so are generations, a swap with its compiling,
/// and pages that are made ahead. The server still ends well, and starts again with all it had.
#[tokio::test]
async fn what_takes_longer_is_cut_off_and_leaves_nothing_behind() {
    let mut site = busy("300ms").await;
    let (download, upload) = (half_read(&site).await, half_sent(&site).await);
    for path in ["/posts/1", "/ahead"] {
        site.origin.hold(path);
    }
    let mut reader = site.reader();
    let waiting = tokio::spawn(async move { reader.send("GET", "/posts/1", &[], "").await });
    site.until_calls("/posts/1", 1).await;
    site.swap("ahead", modules::puppet());
    site.until_calls("/ahead", 1).await;
    site.swap("posts/[id]", &modules::puppet_version(2));
    site.terminate();
    assert_eq!(site.ended().await.code(), Some(0), "{}", site.log());
    assert!(
        site.log().contains("requests were still running"),
        "{}",
        site.log()
    );
    drop((download, upload));
    let cut_off = waiting.await.unwrap().unwrap_err();
    assert!(cut_off.contains("IncompleteMessage"), "{cut_off}");

    for path in ["/posts/1", "/ahead"] {
        site.origin.release(path);
    }
    site.restart().await;
    assert_eq!(leftovers(site.folder()), Vec::<PathBuf>::new());
    assert_eq!(site.incidents().await, Vec::<serde_json::Value>::new());
    assert!(!site.log().contains("damaged"), "{}", site.log());
    let large = site.get("/large").await;
    assert_eq!((large.verdict(), large.body.len()), ("HIT", LARGE));
    site.until("/posts/good", |answer| {
        answer.header("x-puppet-version") == "0002"
    })
    .await;
    assert_eq!(site.get("/ahead").await.status, 200);
}

/// A second signal ends the server at once, of whichever kind, and the exit code says so.
#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    for second in [Signal::TERM, Signal::INT] {
        let mut site = busy("1h").await;
        site.origin.hold("/posts/1");
        let waiting = site.waiting("/posts/1");
        site.until_calls("/posts/1", 1).await;
        site.terminate();
        site.until_log("stopping").await;
        site.signal(second);
        assert_eq!(site.ended().await.code(), Some(1));
        assert!(site.log().contains("second signal"), "{}", site.log());
        drop(waiting);
        site.restart().await;
        assert_eq!(site.get("/posts/good").await.verdict(), "HIT");
    }
}

/// Ended and waited for even if the test fails.
struct Starting(Child);

impl Drop for Starting {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A server that still compiles its first release stops as well as one that serves, and the next
/// one finds nothing half-written.
#[tokio::test]
async fn a_server_that_starts_can_be_stopped() {
    let site = tempfile::tempdir().unwrap();
    let pages = site.path().join("pages");
    std::fs::create_dir(&pages).unwrap();
    for number in 0..8 {
        std::fs::write(
            pages.join(format!("p{number}.wasm")),
            modules::puppet_version(number),
        )
        .unwrap();
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_wisr"));
    command.arg("serve").arg(site.path()).args([
        "--listen",
        "127.0.0.1:0",
        "--admin",
        "127.0.0.1:0",
    ]);
    let quiet = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut process = Starting(quiet.spawn().unwrap());
    wait_for("it to begin", async || {
        site.path()
            .join(".wisr/artifacts")
            .is_dir()
            .then_some(())
            .ok_or("no artifacts".to_owned())
    })
    .await;
    let pid = rustix::process::Pid::from_child(&process.0);
    rustix::process::kill_process(pid, Signal::TERM).unwrap();
    let status = wait_for("its end", async || {
        process.0.try_wait().unwrap().ok_or("it runs".to_owned())
    })
    .await;
    assert_eq!(status.code(), Some(0));
    let mut said = String::new();
    let mut stdout = process.0.stdout.take().unwrap();
    std::io::Read::read_to_string(&mut stdout, &mut said).unwrap();
    assert_eq!(said, "", "it did not wait for its modules");
    let next = Running::on(site, Origin::start().await).await;
    assert_eq!(leftovers(next.folder()), Vec::<PathBuf>::new());
    assert!(next.log().contains("routes=8"), "{}", next.log());
}
