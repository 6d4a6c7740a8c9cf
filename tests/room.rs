//! Section 8: what the kernel lets a server have. Open files that readers would use up are kept for
//! the admin port, the disk and pages; too few threads are told at the start; a file that becomes
//! too large is an error of the disk.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;

use serde_json::json;
use tokio::net::TcpStream;
use tokio::process::Command;

use crate::site::{Site, wait_for};

/// A program that runs another one under a limit; the site's folder, which it gets first, is thrown
/// away.
fn under(limit: &str) -> Vec<String> {
    let script = format!("shift; exec prlimit {limit} -- \"$@\"");
    ["sh", "-c", &script, "sh"].map(str::to_owned).to_vec()
}

/// However many connections readers hold, the admin port answers, pages are made from what they
/// fetch, written to disk and read from it, and static files are sent.
#[tokio::test]
async fn readers_who_use_up_the_open_files_keep_nobody_else_from_theirs() {
    let site = Site::new()
        .pages(&["posts/[id]"])
        .config("[server]\nthreads = 2\n[store]\nmemory = \"1MiB\"")
        .file("public/a.txt", &vec![b'a'; 1 << 20])
        .under(under("--nofile=256:256"))
        .start()
        .await;
    site.until_log("server.connections is").await;
    assert!(
        site.log()
            .contains("of the 256 files that this process may have open")
    );
    let mut reader = site.reader();
    let first = reader.send("GET", "/posts/0", &[], "").await.unwrap();
    assert_eq!(first.status, 200);
    // More than there are files, from readers who say nothing.
    let mut idle = Vec::new();
    for _ in 0..400 {
        let connecting = TcpStream::connect(site.site());
        match tokio::time::timeout(std::time::Duration::from_secs(2), connecting).await {
            Ok(Ok(stream)) => idle.push(stream),
            // The queue is full.
            _ => break,
        }
    }
    assert!(idle.len() > 256, "{}", idle.len());
    for number in 1..40 {
        let path = format!("/posts/{number}");
        site.origin
            .script(&path, json!({ "body": "x".repeat(60_000) }));
        let page = reader.send("GET", &path, &[], "").await.unwrap();
        assert_eq!(page.status, 200, "{}", page.text());
        assert_eq!(site.admin("/livez").await.status, 200);
    }
    assert_eq!(site.admin("/readyz").await.status, 200);
    let file = reader.send("GET", "/a.txt", &[], "").await.unwrap();
    assert_eq!((file.status, file.body.len()), (200, 1 << 20));
    let again = reader.send("GET", "/posts/1", &[], "").await.unwrap();
    assert_eq!((again.status, again.verdict()), (200, "HIT"));
    assert_eq!(site.metric("wisr_store_healthy").await, 1.0);
    drop(idle);
    assert_eq!(site.get("/posts/1").await.status, 200);
}

/// Where next to nothing would be left for readers, the server says so and does not start.
#[tokio::test]
async fn too_few_open_files_are_told_at_the_start() {
    let site = tempfile::tempdir().unwrap();
    let (code, told) = serve(&["--nofile=100:100"], site.path()).await;
    assert_eq!(code, Some(1), "{told}");
    assert!(
        told.contains("too few open files") && told.contains("ulimit -Hn"),
        "{told}"
    );
}

/// Too few threads end the start with a word, at every number.
#[tokio::test]
async fn too_few_threads_are_told_at_the_start() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: needs root, to be another user");
        return;
    }
    // The limit is of a user, of whom nothing else runs.
    let folder = tempfile::tempdir().unwrap();
    let (site, program) = (folder.path().join("site"), folder.path().join("wisr"));
    std::fs::create_dir_all(site.join("pages")).unwrap();
    std::fs::copy(env!("CARGO_BIN_EXE_wisr"), &program).unwrap();
    for path in [folder.path(), &site, &site.join("pages")] {
        std::os::unix::fs::chown(path, Some(54_321), Some(54_321)).unwrap();
    }
    for threads in [1, 2, 4, 8, 16, 24, 32] {
        let output = Command::new("setpriv")
            .args(["--reuid=54321", "--regid=54321", "--clear-groups"])
            .args(["prlimit", &format!("--nproc={threads}"), "--"])
            .arg(&program)
            .args(["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
            .arg(&site)
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{threads}: {told}");
        assert!(
            told.contains("too few threads") && told.contains("pids.max"),
            "{told}"
        );
    }
}

/// A file that may become no larger is an error of the disk, as a full one is, and not the end: pages
/// are shown all the same, and kept when there is room again.
#[tokio::test]
async fn a_limit_of_file_size_is_an_error_of_the_disk() {
    let site = Site::new().pages(&["posts/[id]"]).start().await;
    let limit = |bytes: &str| {
        let pid = site.pid().as_raw_nonzero().to_string();
        let limit = format!("--fsize={bytes}:unlimited");
        let set = std::process::Command::new("prlimit")
            .args(["--pid", &pid, &limit])
            .status();
        assert!(set.unwrap().success());
    };
    let health = async |wanted: f64| {
        wait_for("the health of the store", async || {
            match site.metric("wisr_store_healthy").await {
                healthy if healthy == wanted => Ok(()),
                other => Err(other.to_string()),
            }
        })
        .await;
    };
    site.renew("/posts/1").await;
    limit("65536");
    for number in 2..6 {
        let path = format!("/posts/{number}");
        let noise: String = (0..200_000).map(|_| fastrand::alphanumeric()).collect();
        site.origin
            .script(&path, json!({ "render": { "body": noise } }));
        assert_eq!(site.get(&path).await.status, 200);
    }
    health(0.0).await;
    assert_eq!(site.admin("/livez").await.status, 200);
    assert_eq!(site.get("/posts/2").await.verdict(), "HIT");
    limit("unlimited");
    health(1.0).await;

    let folder = tempfile::tempdir().unwrap();
    let (code, told) = serve(&["--fsize=65536"], folder.path()).await;
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("File too large"), "{told}");
}

/// Serves under a limit until it ends: its code and what it said.
async fn serve(limits: &[&str], site: &Path) -> (Option<i32>, String) {
    let any = SocketAddr::from(([127, 0, 0, 1], 0)).to_string();
    let output = Command::new("prlimit")
        .args(limits)
        .arg("--")
        .arg(env!("CARGO_BIN_EXE_wisr"))
        .args(["serve", "--listen", &any, "--admin", &any])
        .arg(site)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    (
        output.status.code(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}
