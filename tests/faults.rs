//! Section 8: broken files, full disks, missing descriptors, clocks that jump, a second server.
//! Whatever the machine does, readers have pages, operators are told, and it heals by itself.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::net::TcpStream;
use wisr::app::App;
use wisr::config::{Config, Overrides};
use wisr::page::Timestamp;
use wisr::telemetry::Clock;

use crate::client::{Client, Response};
use crate::origin::Origin;
use crate::site::{Running, Site, command, wait_for};
use crate::swap::{copy, walk};

/// A mount name space that outlives the servers in it.
struct Apart {
    keeper: Child,
}

impl Apart {
    /// None, with a word on the terminal, where the kernel gives none.
    fn new() -> Option<Self> {
        let is_root = rustix::process::geteuid().is_root();
        let user = (!is_root).then_some("--map-root-user");
        let mut unshare = Command::new("unshare");
        unshare.arg("--mount").args(user).stdin(Stdio::piped());
        let probe = ["mount", "-t", "tmpfs", "wisr", "/mnt"];
        let refused = match Command::new("unshare")
            .arg("--mount")
            .args(user)
            .args(probe)
            .output()
        {
            Ok(output) if output.status.success() => {
                // Ends with the pipe that it reads from.
                let keeper = unshare.arg("cat").stdout(Stdio::null()).spawn().unwrap();
                return Some(Self { keeper });
            }
            Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
            Err(error) => error.to_string(),
        };
        // Past the harness, which shows nothing of a test that passes.
        let skipped = format!("SKIPPED: this kernel gives no mount name space: {refused}\n");
        let _ = std::io::stderr().write_all(skipped.as_bytes());
        None
    }

    /// Runs a server in it, after `script`, whose `$0` is the site's folder.
    fn after(&self, script: &str) -> Vec<String> {
        let (keeper, script) = (
            self.keeper.id().to_string(),
            format!("{script} && exec \"$@\""),
        );
        let mut words = vec!["nsenter", "--target", &keeper, "--mount"];
        if !rustix::process::geteuid().is_root() {
            words.extend(["--user", "--preserve-credentials"]);
        }
        words.extend(["sh", "-c", &script]);
        words.into_iter().map(str::to_owned).collect()
    }

    /// A path as the servers in it see it.
    fn inside(&self, path: &Path) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{}", self.keeper.id(), path.display()))
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
    }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

/// What the store says of itself.
async fn store(site: &Running) -> String {
    let answer = site.admin("/readyz").await;
    assert_eq!(answer.status, 200, "pages are served all the same");
    answer.json()["store"].as_str().unwrap().to_owned()
}

async fn until_store(site: &Running, wanted: &str) {
    wait_for(&format!("the store to be {wanted}"), async || {
        let health = store(site).await;
        if health == wanted {
            Ok(())
        } else {
            Err(health)
        }
    })
    .await;
}

/// Runs a server that must not start; what it said.
async fn refused(folder: &Path, under: &[String]) -> String {
    let mut command = tokio::process::Command::from(command(folder, under));
    command.arg("serve").arg(folder);
    command.args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
    command.stdin(Stdio::null()).kill_on_drop(true);
    let ended = tokio::time::timeout(Duration::from_secs(60), command.output()).await;
    let output = ended.expect("it does not start").unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A full disk costs no reader a page: all are served and renewed from memory, operators are told
/// once, and what waits is written as soon as there is room again.
#[tokio::test]
async fn a_full_disk_costs_no_page() {
    let Some(apart) = Apart::new() else {
        return;
    };
    let disk = apart
        .after("{ mountpoint -q \"$0/.wisr\" || mount -t tmpfs -o size=24m wisr \"$0/.wisr\"; }");
    let site = Site::new().pages(&["posts/[id]"]).file(".wisr/.keep", b"");
    let mut site = site.under(disk).start().await;
    site.renew("/posts/1").await;
    let ballast = apart.inside(&site.folder().join(".wisr/ballast"));
    fill(&ballast);

    let write = async |site: &Running, turns: std::ops::Range<u64>| {
        for turn in turns {
            site.renew("/posts/1").await;
            let page = site.get("/posts/1").await;
            assert_eq!((page.verdict(), page.n()), ("HIT", turn));
            let new = site.get(&format!("/posts/new-{turn}")).await;
            assert_eq!((new.status, new.verdict()), (200, "MISS"));
        }
    };
    write(&site, 2..20).await;
    until_store(&site, "disk").await;
    assert_eq!(site.metric("wisr_store_healthy").await, 0.0);
    write(&site, 20..40).await;
    let told = site
        .log()
        .matches("pages are served but not kept on disk")
        .count();
    assert_eq!(told, 1, "one line, not a flood");

    std::fs::remove_file(&ballast).unwrap();
    until_store(&site, "ok").await;
    assert_eq!(site.metric("wisr_store_healthy").await, 1.0);
    site.restart().await;
    for turn in 2..40 {
        let kept = site.get(&format!("/posts/new-{turn}")).await;
        assert_eq!((kept.verdict(), kept.n()), ("HIT", 1));
    }
    assert_eq!(site.get("/posts/1").await.n(), 39);
}

/// Writes until the disk refuses the last byte.
fn fill(file: &Path) {
    let mut file = std::fs::File::create(file).unwrap();
    for size in [1 << 20, 4096, 1] {
        while file.write_all(&vec![0; size]).is_ok() {}
    }
}

/// State that cannot be written keeps the server from starting, with the folder and the fix named;
/// pages in memory only are that fix.
#[tokio::test]
async fn a_read_only_folder_is_refused_with_the_fix() {
    let Some(apart) = Apart::new() else {
        return;
    };
    let origin = Origin::start().await;
    let site = Site::new().pages(&["posts/[id]"]).file(".wisr/.keep", b"");
    let folder = site.lay_out(&origin);
    let read_only = apart
        .after("mount --bind \"$0/.wisr\" \"$0/.wisr\" && mount -o remount,bind,ro \"$0/.wisr\"");
    let said = refused(folder.path(), &read_only).await;
    for part in [
        ".wisr/store",
        "Read-only file system",
        "writable",
        "store.durable = false",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let config = folder.path().join("wisr.toml");
    let text = std::fs::read_to_string(&config).unwrap() + "[store]\ndurable = false\n";
    std::fs::write(&config, text).unwrap();
    let site = Running::on(folder, origin).await;
    assert_eq!(site.get("/posts/1").await.status, 200);
}

/// A file in the place of the folder is no folder.
#[tokio::test]
async fn a_file_in_place_of_the_folder_is_refused() {
    let site = Site::new()
        .pages(&["posts/[id]"])
        .file(".wisr/store", b"what is this");
    let folder = site.lay_out(&Origin::start().await);
    let said = refused(folder.path(), &[]).await;
    assert!(
        said.contains(".wisr/store") && said.contains("exists"),
        "{said}"
    );
}

/// A second server on the same folder is told who has it, and does the first no harm.
#[tokio::test]
async fn a_second_server_is_told_who_has_the_folder() {
    let site = Site::new().pages(&["posts/[id]"]).start().await;
    site.renew("/posts/1").await;
    let said = refused(site.folder(), &[]).await;
    let pid = site.pid().as_raw_nonzero().to_string();
    for part in [".wisr/store", &format!("process {pid}"), "stop it"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert_eq!(site.get("/posts/1").await.verdict(), "HIT");
    site.renew("/posts/1").await;
    assert_eq!(store(&site).await, "ok");
}

/// Without descriptors nobody new is let in; who is in goes on reading, and all is well again when
/// some are free.
#[tokio::test]
async fn without_descriptors_readers_who_are_in_go_on() {
    let few = words(&["sh", "-c", "ulimit -n 160 && exec \"$@\""]);
    let mut site = Site::new().pages(&["posts/[id]"]).under(few).start().await;
    site.renew("/posts/1").await;
    let mut inside = site.reader();
    let mut read = async || inside.send("GET", "/posts/1", &[], "").await.unwrap();
    assert_eq!(read().await.verdict(), "HIT");

    let mut crowd = Vec::new();
    for _ in 0..400 {
        crowd.push(TcpStream::connect(site.site()).await.unwrap());
    }
    wait_for("the shortage", async || {
        let log = site.log();
        if log.contains("cannot accept connections") {
            Ok(())
        } else {
            Err(log)
        }
    })
    .await;
    for _ in 0..20 {
        let page = read().await;
        assert_eq!((page.verdict(), page.n()), ("HIT", 1));
    }

    drop(crowd);
    wait_for("a new reader to be let in", async || {
        let answer = site.reader().send("GET", "/posts/1", &[], "").await?;
        if answer.status == 200 {
            Ok(())
        } else {
            Err(answer.text())
        }
    })
    .await;
    site.renew("/posts/1").await;
    until_store(&site, "ok").await;
    site.restart().await;
    let kept = site.get("/posts/1").await;
    assert_eq!((kept.verdict(), kept.n()), ("HIT", 2));
}

/// A site whose server runs in this process, by a clock of the test's.
struct Clocked {
    site: SocketAddr,
    stop: tokio::sync::oneshot::Sender<()>,
    ended: tokio::task::JoinHandle<anyhow::Result<()>>,
}

impl Clocked {
    async fn start(folder: &Path, now: Timestamp) -> Self {
        let any = "127.0.0.1:0".parse().ok();
        let overrides = Overrides {
            listen: any,
            admin: any,
            ..Overrides::default()
        };
        // The server before it ended; its last threads may hold the folder a little longer.
        let app = wait_for("the folder", async || {
            let config = Config::load(folder, &overrides).unwrap();
            let built = App::build(config, None, Clock::starting_at(now)).await;
            built.map_err(|error| format!("{error:#}"))
        })
        .await;
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let site = app.site_addr();
        let ended = tokio::spawn(app.run(async {
            let _ = stopped.await;
        }));
        Self { site, stop, ended }
    }

    async fn get(&self, path: &str) -> Response {
        Client::new(self.site)
            .send("GET", path, &[], "")
            .await
            .unwrap()
    }

    async fn stop(self) {
        self.stop.send(()).unwrap();
        self.ended.await.unwrap().unwrap();
    }
}

/// A clock that is an hour wrong, and then another, costs a renewal where an age is not known, and
/// never a page.
#[tokio::test]
async fn the_clock_may_jump_between_runs() {
    const HOUR: u64 = 3_600_000;
    const NOON: u64 = 1_900_000_000_000;
    let at = Timestamp::from_millis;
    let origin = Origin::start().await;
    let site = Site::new().pages(&["posts/[id]"]);
    let site = site.script("/posts/short", json!({ "revalidate": 600 }));
    let folder = site.lay_out(&origin);
    let run = Clocked::start(folder.path(), at(NOON)).await;
    for path in ["/posts/short", "/posts/endless"] {
        assert_eq!(run.get(path).await.verdict(), "MISS");
        assert_eq!(run.get(path).await.verdict(), "HIT");
    }
    run.stop().await;

    let run = Clocked::start(folder.path(), at(NOON - HOUR)).await;
    for path in ["/posts/short", "/posts/endless"] {
        let page = run.get(path).await;
        assert_eq!(
            (page.verdict(), page.n(), page.header("age")),
            ("STALE", 1, "0")
        );
        assert!(
            page.header("cache-status").contains("clock-changed"),
            "{:?}",
            page.headers
        );
        wait_for("the renewal", async || match run.get(path).await {
            page if page.verdict() == "HIT" && page.n() == 2 => Ok(()),
            page => Err(format!("{page:?}")),
        })
        .await;
    }
    run.stop().await;

    let run = Clocked::start(folder.path(), at(NOON + 30_000)).await;
    let hour = |page: &Response| (3_600..3_660).contains(&page.header("age").parse().unwrap());
    let short = run.get("/posts/short").await;
    assert_eq!(
        (short.verdict(), short.n(), hour(&short)),
        ("STALE", 2, true)
    );
    assert!(
        short.header("cache-status").contains("expired"),
        "{:?}",
        short.headers
    );
    let endless = run.get("/posts/endless").await;
    assert_eq!(
        (endless.verdict(), endless.n(), hour(&endless)),
        ("HIT", 2, true)
    );
    run.stop().await;
}
