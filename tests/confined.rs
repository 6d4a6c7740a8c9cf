//! A server in exactly the memory that its formula gives, under guests that take all that they can.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::client::Client;
use crate::debug_info;
use crate::http2::Attacker;
use crate::modules;
use crate::site::{Running, Site, wait_longer, wisr};

/// Small where that changes nothing of what is shown, so that a machine of tests has it.
const CONFIG: &str = "[store]\nmemory = \"16MiB\"\n[generations]\nconcurrency = 2\nwait = \"60s\"\n\
                      [server]\nconnections = 200\n[defaults]\nmemory = \"64MiB\"\n\
                      [routes.\"/listed/[how]\"]\nsettings = { paths = \"bomb\" }";

/// What hostile pages do, in turns.
const MISDEEDS: [&str; 16] = [
    "bomb",
    "hold-bodies",
    "hold-answers",
    "hold-fields",
    "hold-lists",
    "hold-clones",
    "hold-shares",
    "hold-trailers",
    "hold-methods",
    "hold-targets",
    "hold-sent",
    "handles",
    "recursion",
    "vast-page",
    "panic",
    "noise",
];

/// What the process keeps once all guests are gone: the store's pages, a few megabytes of each place
/// for the next instance, and what the allocator's threads hold until they are busy again.
const KEPT: u64 = 224 << 20;

/// Pages of a megabyte for readers who take nothing.
const LARGE_PAGES: u32 = 32;

/// A control group for memory, of the version that this machine lets us make one in; gone with it.
struct Group {
    folder: PathBuf,
    is_v2: bool,
}

impl Group {
    fn of(bytes: u64) -> Option<Self> {
        let own = std::fs::read_to_string("/proc/self/cgroup").ok()?;
        let path = |controllers: &str| {
            let of = |line: &&str| line.split(':').nth(1) == Some(controllers);
            let path = own.lines().find(of)?.splitn(3, ':').nth(2)?;
            Some(path.trim_start_matches('/').to_owned())
        };
        let name = format!("wisr-confined-{}", std::process::id());
        let places = [
            (
                path("memory").map(|at| Path::new("/sys/fs/cgroup/memory").join(at)),
                false,
            ),
            (
                path("").map(|at| Path::new("/sys/fs/cgroup").join(at)),
                true,
            ),
        ];
        places.into_iter().find_map(|(parent, is_v2)| {
            let folder = parent?.join(&name);
            std::fs::create_dir(&folder).ok()?;
            let group = Self { folder, is_v2 };
            let limit = if is_v2 {
                "memory.max"
            } else {
                "memory.limit_in_bytes"
            };
            std::fs::write(group.folder.join(limit), bytes.to_string()).ok()?;
            Some(group)
        })
    }

    /// What runs a program inside.
    fn entrance(&self) -> Vec<String> {
        let enter = "echo $$ > \"$0/cgroup.procs\" && shift && exec \"$@\"";
        let folder = self.folder.display().to_string();
        ["sh", "-c", enter, &folder].map(str::to_owned).to_vec()
    }

    /// Bytes that cannot be taken back: page cache can.
    fn used(&self) -> u64 {
        let row = if self.is_v2 { "anon" } else { "total_rss" };
        self.row("memory.stat", row)
    }

    /// Processes that the kernel ended for want of memory.
    fn killed(&self) -> u64 {
        let file = if self.is_v2 {
            "memory.events"
        } else {
            "memory.oom_control"
        };
        self.row(file, "oom_kill")
    }

    fn row(&self, file: &str, name: &str) -> u64 {
        let text = std::fs::read_to_string(self.folder.join(file)).unwrap();
        let mut rows = text.lines().filter_map(|line| line.split_once(' '));
        let (_, value) = rows.find(|(row, _)| *row == name).unwrap();
        value.trim().parse().unwrap()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // The kernel lets a group go when its last process is gone.
        for _ in 0..200 {
            if std::fs::remove_dir(&self.folder).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// What the loads share.
struct Load<'a> {
    site: &'a Running,
    group: Option<&'a Group>,
    over: AtomicBool,
    most: AtomicU64,
}

impl Load<'_> {
    fn goes_on(&self) -> bool {
        !self.over.load(Ordering::Relaxed)
    }

    fn used(&self) -> u64 {
        self.group.map_or_else(|| self.site.resident(), Group::used)
    }

    async fn watch(&self, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.most.fetch_max(self.used(), Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.over.store(true, Ordering::Relaxed);
    }

    /// Reads a page that is in the cache; how long each answer took.
    async fn hits(&self) -> Vec<Duration> {
        let mut reader = self.site.reader();
        let mut took = Vec::new();
        while self.goes_on() {
            let asked = Instant::now();
            let page = reader.send("GET", "/about", &[], "").await.unwrap();
            assert_eq!((page.status, page.verdict()), (200, "HIT"));
            took.push(asked.elapsed());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        took
    }

    /// Reads pages of a route that does nothing wrong for the first time.
    async fn cold(&self) {
        for number in 0.. {
            if !self.goes_on() {
                assert!(number > 0, "no cold page at all");
                return;
            }
            let page = self.site.get(&format!("/posts/{number}")).await;
            assert_eq!(page.status, 200, "cold page {number}: {}", page.text());
        }
    }

    async fn pages(&self, first: usize) {
        for turn in first.. {
            if !self.goes_on() {
                return;
            }
            let how = MISDEEDS[turn % MISDEEDS.len()];
            let how = if how == "noise" {
                format!("noise-{turn}")
            } else {
                how.to_owned()
            };
            let mut reader = self.site.reader();
            let _ = reader.send("GET", &format!("/size/{how}"), &[], "").await;
        }
    }

    async fn requests(&self) {
        let body = "x".repeat(1 << 20);
        while self.goes_on() {
            let mut reader: Client = self.site.reader();
            for how in ["bomb", "big", "huge"] {
                let target = format!("/api/hook?do={how}");
                let _ = reader.send("POST", &target, &[], &body).await;
            }
        }
    }

    /// Readers over HTTP/2 of large pages, who take a byte of each.
    async fn slow_readers(&self) {
        let paths: Vec<String> = (0..LARGE_PAGES)
            .map(|n| format!("/posts/large-{n}"))
            .collect();
        while self.goes_on() {
            let to = self.site.site();
            let readers = (0..4).map(|_| Attacker::taking_nothing(to, &paths));
            let _readers = join_all(readers).await;
            tokio::time::sleep(Duration::from_secs(3)).await;
        }
    }

    /// Pages that fail, of modules with every hostile form of debug information.
    async fn failures(&self) {
        while self.goes_on() {
            for form in &debug_info::FORMS {
                let page = self.site.get(&format!("/debug/{}", form.name)).await;
                assert_eq!(page.status, 500, "{}", form.name);
                if !self.goes_on() {
                    return;
                }
            }
        }
    }

    /// New modules, each of some thousand functions, and some that cannot be listed.
    async fn compilations(&self) {
        for number in 0.. {
            if !self.goes_on() {
                return;
            }
            self.site
                .swap("churn", &modules::puppet_version(number % 10_000));
            self.site.swap("large", &large(number));
            let changed = wait_longer(Duration::from_secs(60), "a new release", async || {
                let page = self.site.get("/churn").await;
                match page.status == 200 || !self.goes_on() {
                    true => Ok(()),
                    false => Err(page.text()),
                }
            });
            changed.await;
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }
}

/// A module whose compilation takes memory, and which is no page.
fn large(number: u32) -> Vec<u8> {
    let function = |index: u32| {
        let sum = format!(
            "(local.set 0 (i64.mul (local.get 0) (i64.const {})))",
            index ^ number
        );
        format!(
            "(func (param i64) (result i64) {} (local.get 0))",
            sum.repeat(40)
        )
    };
    let functions: String = (0..4_000).map(function).collect();
    modules::component(&functions)
}

fn p99(mut took: Vec<Duration>) -> Duration {
    took.sort_unstable();
    took[(took.len() - 1) * 99 / 100]
}

/// What the server says that it may take, in bytes.
async fn formula(folder: &Path) -> u64 {
    let told = wisr(folder, &["config", ".", "--json"]).await;
    let told: Value = serde_json::from_str(&told.stdout).unwrap();
    told["memory"]["sum"].as_u64().unwrap()
}

/// A site of well-meaning and hostile pages, the group that its server is to run in, and the formula.
async fn confined() -> (Site, Option<Group>, u64) {
    let laid_out = Site::new().config(CONFIG);
    let folder = laid_out.lay_out(&crate::origin::Origin::start().await);
    let formula = formula(folder.path()).await;
    let group = Group::of(formula);
    let mut site = Site::new()
        .pages(&["about", "churn", "posts/[id]"])
        .module("size/[how]", &modules::built("wasm32-wasip2", "hostile"))
        .module("listed/[how]", &modules::built("wasm32-wasip2", "hostile"))
        .module("api/hook", modules::hook())
        .config(CONFIG);
    for number in 0..LARGE_PAGES {
        let large = json!({ "props": { "render": { "huge": 1 << 20 } } });
        site = site.script(&format!("/posts/large-{number}"), large);
    }
    for form in &debug_info::FORMS {
        let module = debug_info::with(&debug_info::trapping(), &(form.make)());
        site = site.module(&format!("debug/{}", form.name), &module);
    }
    if let Some(group) = &group {
        site = site.under(group.entrance());
    }
    (site, group, formula)
}

/// The formula holds under every load at once, what was taken is given back, and nobody is kept from
/// a page that is there, nor from one of another route.
#[tokio::test]
async fn guests_cannot_take_more_than_the_formula_says() {
    let time = match std::env::var("WISR_CONFINED") {
        Ok(long) if long == "long" => Duration::from_secs(600),
        _ => Duration::from_secs(20),
    };
    let (site, group, formula) = confined().await;
    let site = site.start().await;
    site.renew("/about").await;
    site.get("/size/fine").await;
    let load = |site| Load {
        site,
        group: group.as_ref(),
        over: AtomicBool::new(false),
        most: AtomicU64::new(0),
    };
    let alone = load(&site);
    let base = site.own();
    let (took, ()) = tokio::join!(alone.hits(), alone.watch(Duration::from_secs(2)));
    let alone = p99(took);

    let beside = load(&site);
    let hostile = join_all((0..6).map(|first| beside.pages(first * 3)));
    let (took, (), _, _, (), (), (), ()) = tokio::join!(
        beside.hits(),
        beside.cold(),
        hostile,
        join_all([beside.requests(), beside.requests()]),
        beside.compilations(),
        beside.failures(),
        beside.slow_readers(),
        beside.watch(time),
    );
    let (most, count) = (beside.most.load(Ordering::Relaxed), took.len());
    eprintln!(
        "in {} MiB ({}): {} MiB at most; {count} hits, p99 {:?} beside and {alone:?} alone",
        formula >> 20,
        group.as_ref().map_or("no group", |_| "a control group"),
        most >> 20,
        p99(took),
    );
    assert!(most <= formula, "{} MiB of {}", most >> 20, formula >> 20);
    wait_longer(
        Duration::from_secs(20),
        "what was taken is given back",
        async || {
            let more = site.own().saturating_sub(base);
            match more < KEPT {
                true => Ok(()),
                false => Err(format!("{} MiB more than before", more >> 20)),
            }
        },
    )
    .await;
    if let Some(group) = &group {
        assert_eq!(group.killed(), 0, "the kernel ended something");
    }
    let page = site.get("/about").await;
    assert_eq!((page.status, page.verdict()), (200, "HIT"));
    drop(site);
}
