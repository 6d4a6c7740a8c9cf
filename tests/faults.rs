//! Section 8: broken files, full disks, missing descriptors, clocks that jump, a second server.
//! Whatever the machine does, readers have pages, operators are told, and it heals by itself.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use data_encoding::BASE64;
use serde_json::json;
use tokio::net::TcpStream;
use wisr::app::App;
use wisr::config::{Config, Overrides};
use wisr::page::Timestamp;
use wisr::telemetry::Clock;

use crate::client::{Client, Response};
use crate::origin::Origin;
use crate::site::{Running, Site, TOKEN, command, wait_for};
use crate::swap::{copy, walk};
use crate::webhooks::{CMS, signed};

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
                // Ends with the pipe that it reads from, and speaks once it is apart: whoever
                // entered before would mount for the whole machine.
                let echo = unshare.args(["sh", "-c", "echo && exec cat"]);
                let mut keeper = echo.stdout(Stdio::piped()).spawn().unwrap();
                let said = keeper.stdout.as_mut().unwrap().read_exact(&mut [0]);
                said.expect("a mount name space, as the probe had one");
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

/// The disk that is filled.
const DISK_BYTES: u64 = 24 << 20;

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
    let disk = apart.after(&format!(
        "{{ mountpoint -q \"$0/.wisr\" || mount -t tmpfs -o size={DISK_BYTES} wisr \"$0/.wisr\"; }}"
    ));
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
    // Each attempt puts a file into the folder for a moment.
    let folder = apart.inside(&site.folder().join(".wisr/store"));
    let touched = || std::fs::metadata(&folder).unwrap().modified().unwrap();
    for attempt in 0..2 {
        let before = touched();
        wait_for(&format!("attempt {attempt} to write"), async || {
            let now = touched();
            if now == before {
                Err(format!("{now:?}"))
            } else {
                Ok(())
            }
        })
        .await;
    }
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

/// Writes until the disk refuses the last byte. No more than a small disk holds: the machine's own
/// is not to be filled.
fn fill(file: &Path) {
    let mut file = std::fs::File::create(file).unwrap();
    for size in [1 << 20, 4096, 1] {
        while file.write_all(&vec![0; size]).is_ok() {
            let written = file.metadata().unwrap().len();
            assert!(written < DISK_BYTES, "this is not the small disk");
        }
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

/// Also where no pages are kept: what is beside them is, and two would spoil it.
#[tokio::test]
async fn a_second_server_is_refused_where_no_pages_are_kept() {
    let site = Site::new().pages(&["posts/[id]"]);
    let site = site.config("[store]\ndurable = false").start().await;
    let said = refused(site.folder(), &[]).await;
    let pid = site.pid().as_raw_nonzero().to_string();
    assert!(said.contains(&format!("process {pid}")), "{said}");
}

/// Where there are few descriptors, readers have no more than leave the server enough: nobody new is
/// let in; who is in goes on reading and calling, and all is well again when some are free.
#[tokio::test]
async fn with_few_descriptors_readers_who_are_in_go_on() {
    const THREADS: usize = 2;
    let few = ["sh", "-c", "ulimit -n 160 && exec \"$@\""].map(str::to_owned);
    let site = Site::new().pages(&["posts/[id]"]).under(few.into());
    let threads = format!("[server]\nthreads = {THREADS}");
    let mut site = site.config(&threads).start().await;
    site.renew("/posts/1").await;
    let (mut reader, mut author) = (site.reader(), site.reader());
    let mut read = async || reader.send("GET", "/posts/1", &[], "").await.unwrap();
    let endpoint = format!("/api/revalidate?secret={TOKEN}&path=/posts/1");
    let mut renew = async || author.send("POST", &endpoint, &[], "").await.unwrap();
    assert_eq!(renew().await.status, 200);
    assert_eq!(read().await.verdict(), "HIT");

    let mut crowd = Vec::new();
    for _ in 0..400 {
        crowd.push(TcpStream::connect(site.site()).await.unwrap());
    }
    site.until_log("server.connections is 34 instead of").await;
    site.until_metric("wisr_connections", 34.0).await;
    let mut newest = 2;
    for _ in 0..20 {
        let page = read().await;
        assert_eq!((page.status, page.n()), (200, newest));
        assert_eq!(renew().await.status, 200);
        newest = site.origin.count("/posts/1") as u64;
    }
    wait_for("the shortage to last", async || match read().await {
        page if page.header("age") == "0" => Err("0 s".to_owned()),
        _ => Ok(()),
    })
    .await;
    assert!(!site.log().contains("cannot accept connections"));

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
    let (kept, made) = (site.get("/posts/1").await, site.origin.count("/posts/1"));
    assert_eq!((kept.verdict(), kept.n()), ("HIT", made as u64));
}

/// A site whose server runs in this process, by a clock of the test's.
struct Clocked {
    site: SocketAddr,
    stop: tokio::sync::oneshot::Sender<()>,
    ended: tokio::task::JoinHandle<anyhow::Result<()>>,
}

impl Clocked {
    async fn start(folder: &Path, now: Timestamp) -> Self {
        Self::by(folder, Clock::starting_at(now)).await
    }

    async fn by(folder: &Path, clock: Clock) -> Self {
        let any = "127.0.0.1:0".parse().ok();
        let overrides = Overrides {
            listen: any,
            admin: any,
            ..Overrides::default()
        };
        // The server before it ended; its last threads may hold the folder a little longer.
        let app = wait_for("the folder", async || {
            let mut config = Config::load(folder, &overrides).unwrap();
            config.clock = clock;
            let built = App::build(config, None).await;
            built.map_err(|error| format!("{error:#}"))
        })
        .await;
        let (end, stopped) = tokio::sync::oneshot::channel();
        let site = app.site_addr();
        let stop = async {
            let _ = stopped.await;
        };
        let ended = tokio::spawn(app.run(stop, None));
        Self {
            site,
            stop: end,
            ended,
        }
    }

    async fn get(&self, path: &str) -> Response {
        self.send("GET", path, &[], "").await
    }

    async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Response {
        let answer = Client::new(self.site)
            .send(method, path, headers, body)
            .await;
        answer.unwrap()
    }

    /// A call of a content system whose own clock is right, which says `time`.
    async fn called(&self, time: u64, id: &str) -> u16 {
        let (time, body) = (
            (time / 1_000).to_string(),
            json!({ "type": "none" }).to_string(),
        );
        let seal = signed(b"secret of the cms", &format!("{id}.{time}.{body}"));
        let seal = format!("v1,{}", BASE64.encode(&seal));
        let headers = [
            ("webhook-id", id),
            ("webhook-timestamp", &*time),
            ("webhook-signature", &*seal),
        ];
        self.send("POST", "/api/webhooks/cms", &headers, &body)
            .await
            .status
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
    compiled().await;
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

/// Has the program compile the pages' module: a server in this process has no program to do it.
async fn compiled() {
    drop(Site::new().pages(&["posts/[id]"]).start().await);
}

/// The short page, once it was made anew.
async fn renewed(run: &Clocked, count: u64) -> Response {
    wait_for("the renewal", async || {
        match run.get("/posts/short").await {
            page if page.verdict() == "HIT" && page.n() == count => Ok(page),
            page => Err(format!("{page:?}")),
        }
    })
    .await
}

fn modified(page: &Response) -> String {
    page.header("last-modified").to_owned()
}

/// A clock that is set while the server runs is followed, both ways, as after a machine slept: pages
/// age, signed calls are taken, and no date or validator says of a page that it is another.
#[tokio::test]
async fn the_clock_may_jump_while_it_runs() {
    const HOUR: u64 = 3_600_000;
    const NOON: u64 = 1_900_000_000_000;
    let time: &AtomicU64 = Box::leak(Box::new(AtomicU64::new(NOON)));
    let set = |to: u64| time.store(to, Ordering::Relaxed);
    compiled().await;
    let origin = Origin::start().await;
    let site = Site::new().pages(&["posts/[id]"]).config(CMS);
    let site = site.script("/posts/short", json!({ "revalidate": 600 }));
    let folder = site.lay_out(&origin);
    let run = Clocked::by(folder.path(), Clock::told_by(time)).await;
    let date = |millis: u64| httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_millis(millis));
    let since = async |date: &str| {
        let condition = [("if-modified-since", date)];
        run.send("GET", "/posts/short", &condition, "").await.status
    };
    assert_eq!(run.get("/posts/short").await.verdict(), "MISS");
    let first = run.get("/posts/short").await;
    assert_eq!(run.called(NOON, "a").await, 200);
    assert_eq!(since(&modified(&first)).await, 304);

    // It slept for an hour.
    set(NOON + HOUR);
    assert_eq!(run.called(NOON + HOUR, "b").await, 200);
    let old = run.get("/posts/short").await;
    assert_eq!((old.verdict(), old.header("age")), ("STALE", "3600"));
    let second = renewed(&run, 2).await;
    assert_eq!(modified(&second), date(NOON + HOUR));
    assert_eq!(since(&modified(&first)).await, 200);

    // It was an hour fast.
    set(NOON);
    assert_eq!(run.called(NOON, "c").await, 200);
    assert_eq!(run.called(NOON + HOUR, "d").await, 401);
    let ahead = run.get("/posts/short").await;
    assert_eq!((ahead.verdict(), ahead.header("age")), ("STALE", "0"));
    assert_eq!(modified(&ahead), date(NOON), "never of the future");
    let third = renewed(&run, 3).await;
    assert_eq!(modified(&third), date(NOON));
    assert_eq!(
        since(&modified(&second)).await,
        200,
        "the reader has another"
    );
    set(NOON + HOUR / 2);
    assert_eq!(run.get("/posts/short").await.header("age"), "1800");
    run.stop().await;
}

/// Two pages of one second are not the same by their date.
#[tokio::test]
async fn a_date_of_two_pages_is_of_neither() {
    const NOON: u64 = 1_900_000_000_000;
    let time: &AtomicU64 = Box::leak(Box::new(AtomicU64::new(NOON)));
    compiled().await;
    let origin = Origin::start().await;
    let folder = Site::new().pages(&["posts/[id]"]).lay_out(&origin);
    let run = Clocked::by(folder.path(), Clock::told_by(time)).await;
    run.get("/posts/1").await;
    let mut dates = Vec::new();
    for n in 1..=3 {
        let page = run.get("/posts/1").await;
        assert_eq!((page.verdict(), page.n()), ("HIT", n));
        dates.push(page.header("last-modified").to_owned());
        let token = format!("Bearer {TOKEN}");
        let headers = [
            ("authorization", &*token),
            ("content-type", "application/json"),
        ];
        let call = json!({ "paths": ["/posts/1"] }).to_string();
        assert_eq!(
            run.send("POST", "/api/revalidate", &headers, &call)
                .await
                .status,
            200
        );
        for date in &dates {
            let answer = run
                .send("GET", "/posts/1", &[("if-modified-since", &**date)], "")
                .await;
            assert_eq!((answer.status, answer.n()), (200, n + 1), "{date}");
        }
    }
    run.stop().await;
}

/// A stopped site whose state has files of every kind, and its pages as they were, each made once.
/// `/posts/stale` is invalidated.
async fn with_files_of_all_kinds() -> (Running, BTreeMap<&'static str, String>) {
    let mut site = Site::new()
        .pages(&["posts/[id]"])
        .config("[server]\nartifacts = \".wisr/artifacts\"\n[defaults]\nprops = \"4MiB\"")
        .script("/posts/stale", json!({ "tags": ["stale"] }))
        .script(
            "/posts/gone",
            json!({ "outcome": "not-found", "revalidate": "never" }),
        );
    // Enough that cannot be compressed for tables and body files beside the journal.
    let large = ["/posts/large-0", "/posts/large-1", "/posts/large-2"];
    for path in large {
        let body = std::iter::repeat_with(fastrand::alphanumeric).take(2 << 20);
        let orders = json!({ "body": body.collect::<String>() });
        site = site.script(path, json!({ "render": orders }));
    }
    let mut site = site.start().await;
    let mut paths = vec!["/posts/first", "/posts/stale", "/posts/gone"];
    paths.extend(large);
    paths.push("/posts/last");
    let mut pages = BTreeMap::new();
    for path in paths {
        site.renew(path).await;
        pages.insert(path, site.get(path).await.text());
    }
    let answer = site.revalidate(json!({ "tags": ["stale"] })).await;
    assert_eq!(answer.status, 200);
    site.restart().await;
    until_in_tables(&site).await;
    site.kill();
    for path in large {
        site.origin.heal(path);
    }
    (site, pages)
}

/// Waits until records lie in tables and bodies in files of their own, beside the journal.
async fn until_in_tables(site: &Running) {
    let records = site.folder().join(".wisr/store/pages/keyspaces/1");
    wait_for("tables and body files", async || {
        let is_full = |name: &str| !walk(&records.join(name)).is_empty();
        match (is_full("tables"), is_full("blobs")) {
            (true, true) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

/// The kind of a file of the state: its place without what numbers it among its like.
fn kind(file: &Path) -> String {
    let folder = file.parent().unwrap().to_str().unwrap();
    let name = file.file_name().unwrap().to_str().unwrap();
    let extension = file.extension().and_then(|extension| extension.to_str());
    match extension {
        Some(extension) if ["artifacts", "modules"].contains(&folder) => extension.to_owned(),
        _ => {
            let name: String = name.chars().filter(|char| !char.is_ascii_digit()).collect();
            format!("{folder}/{name}")
        }
    }
}

/// What damage to the state cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cost {
    /// So many pages, whose records cannot be read.
    Pages(usize),
    /// The trust in the disk tier: it was set aside, `back` pages came back, and so many were made
    /// anew before they were shown.
    Aside { back: usize, anew: usize },
}

/// Starts the server on damaged state: it shows what it had or makes it anew, says what it lost,
/// and keeps what it makes.
async fn survive(site: &mut Running, pages: &BTreeMap<&str, String>, damage: &str) -> Cost {
    site.restart().await;
    let back = match &*store(site).await {
        "ok" => None,
        "set-aside" => Some(taken_back(site).await),
        other => panic!("{damage}: {other}"),
    };
    let all_are_old = site.log().contains("all pages on disk count as stale") || back.is_some();
    let mut lost = Vec::new();
    for (path, whole) in pages {
        let before = site.origin.count(path);
        let page = site.get(path).await;
        let is_gone = *path == "/posts/gone";
        let expected = if is_gone { 404 } else { 200 };
        assert_eq!(page.status, expected, "{damage}: {path}");
        if page.verdict() == "MISS" {
            lost.push(*path);
            let made = site.origin.count(path);
            assert_eq!(made, before + 1, "{damage}: {path}");
            assert!(is_gone || page.n() == made as u64, "{damage}: {path}");
            continue;
        }
        let is_old = all_are_old || *path == "/posts/stale";
        let verdict = if is_old { "STALE" } else { "HIT" };
        assert_eq!(page.verdict(), verdict, "{damage}: {path}");
        assert!(page.text() == *whole, "{damage}: {path} is another page");
    }
    if back.is_none() {
        for path in &lost {
            // Incidents that differ in numbers only are one.
            let told = path.trim_end_matches(|char: char| char.is_ascii_digit());
            site.until_incident("store", told).await;
        }
    }
    site.renew("/posts/kept").await;
    let kept = site.get("/posts/kept").await.n();
    site.restart().await;
    assert_eq!(store(site).await, "ok", "{damage}");
    let page = site.get("/posts/kept").await;
    assert_ne!(page.verdict(), "MISS", "{damage}");
    assert_eq!(page.n(), kept, "{damage}");
    site.kill();
    match back {
        Some(back) => Cost::Aside {
            back,
            anew: lost.len(),
        },
        None => Cost::Pages(lost.len()),
    }
}

/// How many pages came back from a store that was set aside, once that is done.
async fn taken_back(site: &Running) -> usize {
    let aside = site.folder().join(".wisr/store.damaged");
    site.until_incident("store", "It was moved to").await;
    assert_eq!(site.metric("wisr_store_set_aside_total").await, 1.0);
    let closed = std::fs::read_to_string(aside.join("closed"));
    if closed.is_ok_and(|why| why == "nothing of it can be read") {
        return 0;
    }
    let told = site.until_incident("store", "pages taken back from").await;
    let message = told["message"].as_str().unwrap();
    let (_, back) = message.split_once("store.damaged: ").unwrap();
    back.split(';').next().unwrap().parse().unwrap()
}

/// A record costs its page, a block its records; a journal, what stood in it from there on; the
/// database's own lists, all that it finds by them.
fn true_costs(all: usize) -> BTreeMap<&'static str, Vec<Cost>> {
    let [format, lists] = [(all, 0), (0, all)].map(|(back, anew)| Cost::Aside { back, anew });
    // A removal may be lost with it: what came back is made anew before it is shown.
    let journal = |back| Cost::Aside { back, anew: all };
    let mut expected = BTreeMap::from([
        ("store/format", vec![format; 3]),
        ("store/pages/.jnl", vec![journal(5), journal(5), journal(7)]),
        ("store/pages/version", vec![lists; 3]),
        (
            "store/pages/keyspaces/1/blobs/",
            [1, 1, 0].map(Cost::Pages).to_vec(),
        ),
        (
            "store/pages/keyspaces/1/tables/",
            [5, 5, 0].map(Cost::Pages).to_vec(),
        ),
        (
            "store/pages/keyspaces/0/tables/",
            vec![lists, lists, Cost::Pages(0)],
        ),
    ]);
    for (kind, places) in [
        ("store/pages/keyspaces/0/v", 2),
        ("store/pages/keyspaces/1/v", 2),
        ("store/pages/keyspaces/0/current", 1),
        ("store/pages/keyspaces/1/current", 1),
    ] {
        let mut cost = vec![Cost::Pages(0); 3];
        cost[..places].fill(lists);
        expected.insert(kind, cost);
    }
    for kind in [
        "code",
        "sum",
        "passed",
        "wasm",
        "/releases.json",
        "/releases.copy.json",
        "store/lock",
    ] {
        expected.insert(kind, vec![Cost::Pages(0); 3]);
    }
    expected
}

/// Wherever the disk flips a byte, the server starts, shows no wrong page, makes anew what is lost,
/// and says what it lost.
#[tokio::test]
async fn a_byte_flipped_in_any_kind_of_file_is_survived() {
    let (mut site, pages) = with_files_of_all_kinds().await;
    let (state, whole) = (site.folder().join(".wisr"), site.folder().join("whole"));
    std::fs::rename(&state, &whole).unwrap();
    let files = walk(&whole).into_iter();
    let files: BTreeMap<String, PathBuf> = files
        .map(|file| file.strip_prefix(&whole).unwrap().to_owned())
        .map(|file| (kind(&file), file))
        .collect();
    let mut costs = BTreeMap::new();
    for (kind, file) in &files {
        let bytes = std::fs::read(whole.join(file)).unwrap();
        let end = bytes.len().saturating_sub(1);
        let mut cost = Vec::new();
        // Of an empty one there is no byte.
        for place in [0, end / 2, end] {
            let mut bytes = bytes.clone();
            let Some(byte) = bytes.get_mut(place) else {
                continue;
            };
            *byte ^= 0x10;
            let _ = std::fs::remove_dir_all(&state);
            copy(&whole, &state);
            std::fs::write(state.join(file), bytes).unwrap();
            let damage = format!("{kind} at {place} of {end}");
            cost.push(survive(&mut site, &pages, &damage).await);
        }
        costs.insert(&**kind, cost);
    }
    costs.retain(|_, cost| !cost.is_empty());
    assert_eq!(costs, true_costs(pages.len()));

    // A folder with nothing in it is a cold start, which says nothing.
    std::fs::remove_dir_all(&state).unwrap();
    std::fs::create_dir_all(state.join("store")).unwrap();
    site.restart().await;
    assert_eq!(site.get("/posts/first").await.verdict(), "MISS");
    assert!(!site.log().contains("was moved to"));
}

/// A journal that ends early costs what was at its end.
#[tokio::test]
async fn a_journal_cut_short_costs_what_was_cut() {
    let mut site = Site::new().pages(&["posts/[id]"]).start().await;
    site.renew("/posts/first").await;
    site.renew("/posts/last").await;
    site.kill();
    let journals = walk(&site.folder().join(".wisr/store/pages"));
    let journal = journals
        .iter()
        .find(|file| file.extension().is_some_and(|end| end == "jnl"));
    let journal = journal.unwrap();
    let mut bytes = std::fs::read(journal).unwrap();
    let written = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    bytes.truncate(written - 10);
    std::fs::write(journal, bytes).unwrap();
    site.restart().await;
    assert_eq!(site.get("/posts/first").await.verdict(), "HIT");
    let page = site.get("/posts/last").await;
    assert_eq!((page.verdict(), page.n()), ("MISS", 2));
    site.renew("/posts/last").await;
    site.restart().await;
    assert_eq!(site.get("/posts/last").await.n(), 3);
}
