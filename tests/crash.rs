//! Section 8: `kill -9` at any moment loses nothing that was acknowledged.
//!
//! One site over one folder is killed again and again under readers, renewals, invalidations,
//! purges, pages that turn into redirects and back, swaps and removals of modules. The [`Ledger`]
//! has what the server acknowledged; after each restart all pages are held against it.
//!
//! Another site is killed while its database flushes tables, compacts them and writes bodies, and all
//! of its pages are counted before and after.
//!
//! `WISR_CRASH_ROUNDS=100 cargo test --test main crash` kills that often, `WISR_CRASH_PAGES=100000`
//! makes the second site a gigabyte; `WISR_CRASH_SEED` makes the choices of an earlier run, whose seed
//! stands in its output.

use std::cell::Cell;
use std::time::Duration;

use fastrand::Rng;
use futures_util::future::join_all;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::client::{Client, Response};
use crate::modules;
use crate::origin::ANY;
use crate::site::{Running, Site, TOKEN};

/// How often the suite kills.
const ROUNDS: u64 = 10;

/// Authors at once, each of whom changes pages of its own, and how many these are.
const AUTHORS: usize = 6;
const PAGES: usize = 4;

const TAGS: usize = 3;
const VERSIONS: u32 = 3;

/// The page behind the route that comes and goes.
const DOOR: &str = "/door/1";

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Document,
    NotFound,
    Redirect,
}

/// What may be shown of a page.
#[derive(Debug, Clone)]
struct Page {
    path: String,
    tag: String,
    /// More than one between a change and its acknowledgement.
    may_be: Vec<Kind>,
    /// What was made from an earlier answer of the origin must not be shown.
    oldest: u64,
    /// What was made from this answer or an earlier one must not be shown as fresh.
    stale_to: u64,
    /// An entry is on disk: nobody waits for the page.
    is_kept: bool,
}

/// What the server acknowledged.
struct Ledger {
    pages: Mutex<Vec<Page>>,
    /// The version of the module in the folder.
    version: Cell<u32>,
    /// Answers of the origin for [`DOOR`] when its removal was seen.
    door_closed: Cell<u64>,
    was_struck: Cell<bool>,
    /// The next acknowledgement is the last.
    is_armed: Cell<bool>,
}

/// Somebody with a connection of their own, until the server dies.
struct Author<'a> {
    ledger: &'a Ledger,
    site: &'a Running,
    client: Client,
    random: Rng,
}

/// The transport failed: the server is dead.
type Alive<T> = Result<T, String>;

// === impl Page ===

impl Page {
    fn script(&self, kind: Kind) -> Value {
        let outcome = match kind {
            Kind::Document => "props",
            Kind::NotFound => "not-found",
            Kind::Redirect => "redirect",
        };
        json!({
            "outcome": outcome,
            "revalidate": 1,
            "tags": [self.tag],
            "location": "/from/$N",
            "render": { "pad": 12_000 },
        })
    }

    /// Holds what was shown against what was acknowledged before it was asked for.
    #[track_caller]
    fn check(&self, answer: &Response) {
        let (kind, n) = shown(answer);
        let told = || format!("{kind:?} {n} {:?}\n{self:#?}", answer.headers);
        assert!(
            self.may_be.contains(&kind),
            "what it no longer is: {}",
            told()
        );
        if kind != Kind::NotFound {
            assert!(n >= self.oldest, "older than acknowledged: {}", told());
        }
        if kind == Kind::Document {
            assert_eq!(answer.whole()["path"], self.path, "another page");
            let is_fresh = answer.verdict() == "HIT";
            assert!(!is_fresh || n > self.stale_to, "fresh: {}", told());
        }
    }
}

/// What kind of page this is, and from which of the origin's answers it was made, where that shows.
#[track_caller]
fn shown(answer: &Response) -> (Kind, u64) {
    assert!(!answer.verdict().is_empty(), "no page: {answer:?}");
    match answer.status {
        200 => (
            Kind::Document,
            answer.whole()["props"]["n"].as_u64().unwrap(),
        ),
        404 => (Kind::NotFound, 0),
        307 => {
            let n = answer.header("location").strip_prefix("/from/");
            (Kind::Redirect, n.unwrap().parse().unwrap())
        }
        _ => panic!("{answer:?}"),
    }
}

// === impl Author ===

impl Author<'_> {
    async fn get(&mut self, path: &str, coding: &str) -> Alive<Response> {
        let headers = [("accept-encoding", coding)];
        self.client.send("GET", path, &headers, "").await
    }

    /// A call that the server acknowledged.
    async fn call(&mut self, body: Value) -> Alive<()> {
        let (token, text) = (format!("Bearer {TOKEN}"), body.to_string());
        let headers = [("authorization", &*token)];
        let endpoint = "/api/revalidate";
        let answer = self.client.send("POST", endpoint, &headers, &text).await?;
        assert_eq!(answer.status, 200, "{body}: {}", answer.text());
        if self.ledger.is_armed.take() {
            self.ledger.strike(self.site);
        }
        Ok(())
    }

    fn answers(&self, path: &str) -> u64 {
        self.site.origin.count(path) as u64
    }

    /// One act on the page of this number.
    async fn act(&mut self, number: usize) -> Alive<()> {
        let page = self.ledger.page(number);
        let path = &*page.path;
        match self.random.u8(..10) {
            0..4 => {
                let coding = *self
                    .random
                    .choice(&["br", "zstd", "gzip", "identity"])
                    .unwrap();
                page.check(&self.get(path, coding).await?);
            }
            4..7 => self.turn(number, &page).await?,
            7 => {
                let before = self.answers(path);
                self.call(json!({ "paths": [path], "mode": "stale" }))
                    .await?;
                self.ledger
                    .change(number, |page| page.stale_to = page.stale_to.max(before));
            }
            8 => {
                self.ledger.change(number, |page| page.is_kept = false);
                let before = self.answers(path);
                self.call(json!({ "paths": [path], "mode": "purge" }))
                    .await?;
                self.ledger.change(number, |page| page.oldest = before + 1);
            }
            _ => self.tag(&page.tag).await?,
        }
        Ok(())
    }

    /// Has the page made anew, perhaps as something else.
    async fn turn(&mut self, number: usize, page: &Page) -> Alive<()> {
        let kinds = [
            Kind::Document,
            Kind::Document,
            Kind::NotFound,
            Kind::Redirect,
        ];
        let kind = *self.random.choice(&kinds).unwrap();
        self.ledger.change(number, |page| page.may_be.push(kind));
        self.site.origin.script(&page.path, page.script(kind));
        let before = self.answers(&page.path);
        self.call(json!({ "paths": [page.path] })).await?;
        self.ledger.change(number, |page| {
            page.may_be = vec![kind];
            page.oldest = before + 1;
            page.is_kept = true;
        });
        Ok(())
    }

    async fn tag(&mut self, tag: &str) -> Alive<()> {
        let pages = self.ledger.pages.lock().clone();
        let before: Vec<u64> = pages.iter().map(|page| self.answers(&page.path)).collect();
        self.call(json!({ "tags": [tag] })).await?;
        for (number, before) in before.into_iter().enumerate() {
            self.ledger.change(number, |page| {
                if page.tag == tag {
                    page.stale_to = page.stale_to.max(before);
                }
            });
        }
        Ok(())
    }

    /// Replaces the module of all pages.
    async fn swap(&mut self) -> Alive<()> {
        tokio::time::sleep(Duration::from_millis(self.random.u64(20..200))).await;
        let version = self.random.u32(..VERSIONS);
        self.site.swap("p/[id]", &modules::puppet_version(version));
        self.ledger.version.set(version);
        self.get("/p/0", "identity").await.map(drop)
    }

    /// Removes the module of [`DOOR`] or puts it back, and waits until readers see that.
    async fn slam(&mut self) -> Alive<()> {
        if !self.ledger.is_door_open(self.site) {
            self.site.swap("door/[id]", modules::puppet());
            let page = self.until_door(200).await?;
            self.ledger.check_door(&page);
            return Ok(());
        }
        self.site.remove("door/[id]");
        self.until_door(404).await?;
        self.ledger.door_closed.set(self.answers(DOOR));
        Ok(())
    }

    async fn until_door(&mut self, status: u16) -> Alive<Response> {
        loop {
            let answer = self.get(DOOR, "identity").await?;
            if answer.status == status {
                return Ok(answer);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

// === impl Ledger ===

impl Ledger {
    fn new() -> Self {
        let page = |number: usize| Page {
            path: format!("/p/{number}"),
            tag: format!("tag-{}", number % TAGS),
            may_be: vec![Kind::Document],
            oldest: 0,
            stale_to: 0,
            is_kept: false,
        };
        Self {
            pages: Mutex::new((0..AUTHORS * PAGES).map(page).collect()),
            version: Cell::new(0),
            door_closed: Cell::new(0),
            was_struck: Cell::new(false),
            is_armed: Cell::new(false),
        }
    }

    fn page(&self, number: usize) -> Page {
        self.pages.lock()[number].clone()
    }

    fn change(&self, number: usize, change: impl FnOnce(&mut Page)) {
        change(&mut self.pages.lock()[number]);
    }

    fn is_door_open(&self, site: &Running) -> bool {
        site.folder().join("pages/door/[id].wasm").exists()
    }

    /// The page of a module that was removed never comes back with the module.
    #[track_caller]
    fn check_door(&self, answer: &Response) {
        let (_, n) = shown(answer);
        assert!(n > self.door_closed.get(), "{n} came back: {answer:?}");
    }

    /// Everybody at work, until the server is killed under them: at a random moment, or just after
    /// it acknowledged something.
    async fn round(&self, site: &Running, random: &mut Rng) {
        self.was_struck.set(false);
        let mut author = || Author {
            ledger: self,
            site,
            client: site.reader(),
            random: random.fork(),
        };
        let (mut swapper, mut porter) = (author(), author());
        let authors: Vec<_> = (0..AUTHORS).map(|_| author()).collect();
        let work = authors
            .into_iter()
            .enumerate()
            .map(async |(number, mut author)| {
                self.until_dead(async || {
                    let page = number * PAGES + author.random.usize(..PAGES);
                    author.act(page).await
                })
                .await;
            });
        let moment = Duration::from_millis(random.u64(..700));
        let is_next = random.bool();
        let strike = async {
            tokio::time::sleep(moment).await;
            self.is_armed.set(is_next);
            if !is_next {
                self.strike(site);
            }
        };
        tokio::join!(
            join_all(work),
            self.until_dead(async || swapper.swap().await),
            self.until_dead(async || porter.slam().await),
            strike,
        );
    }

    fn strike(&self, site: &Running) {
        self.was_struck.set(true);
        site.strike();
    }

    async fn until_dead(&self, mut act: impl AsyncFnMut() -> Alive<()>) {
        loop {
            if let Err(error) = act().await {
                assert!(self.was_struck.get(), "the server died: {error}");
                return;
            }
        }
    }

    /// After a restart: everything that was acknowledged holds. The origin is held, so that what is
    /// shown is what was kept.
    async fn audit(&self, site: &Running) {
        let pages = self.pages.lock().clone();
        for page in &pages {
            site.origin.hold(&page.path);
        }
        let (kept, others): (Vec<_>, Vec<_>) = pages.iter().partition(|page| page.is_kept);
        for page in kept {
            self.audit_page(site, page).await;
        }
        for page in &pages {
            site.origin.release(&page.path);
        }
        for page in others {
            page.check(&site.get(&page.path).await);
        }
        let door = site.get(DOOR).await;
        if self.is_door_open(site) {
            self.check_door(&door);
        } else {
            assert_eq!((door.status, door.verdict()), (404, ""));
        }
        for word in ["counts as missing", "was moved to", "panicked"] {
            assert!(!site.log().contains(word), "{word}");
        }
    }

    async fn audit_page(&self, site: &Running, page: &Page) {
        let answer = site.get(&page.path).await;
        page.check(&answer);
        let verdict = answer.verdict();
        assert!(
            ["HIT", "STALE"].contains(&verdict),
            "not kept: {page:?}, {answer:?}"
        );
        let (kind, n) = shown(&answer);
        let data = site.get(&format!("/_wisr/data{}.json", page.path)).await;
        let props = data.json();
        match kind {
            Kind::NotFound => assert_eq!(props, json!({ "notFound": true })),
            Kind::Redirect => assert_eq!(props["redirect"]["location"], format!("/from/{n}")),
            Kind::Document => {
                let seen = answer.whole();
                let version = format!("{:04}", self.version.get());
                assert!(verdict != "HIT" || seen["version"] == version, "{seen}");
                for name in ["n", "version"] {
                    assert_eq!(props[name], seen["props"][name], "{props}");
                }
                for coding in ["br", "zstd", "gzip"] {
                    let coded = site
                        .get_with(&page.path, &[("accept-encoding", coding)])
                        .await;
                    assert_eq!(coded.header("content-encoding"), coding);
                    assert_eq!(coded.decoded(), answer.body, "{coding}");
                    let known = [
                        ("if-none-match", coded.header("etag")),
                        ("accept-encoding", coding),
                    ];
                    assert_eq!(site.get_with(&page.path, &known).await.status, 304);
                }
            }
        }
    }
}

/// What the environment says, or else `default`.
fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect(name))
}

/// Nothing that was acknowledged is lost, nothing comes back, nothing is mixed.
#[tokio::test]
async fn killed_at_any_moment_it_keeps_what_it_acknowledged() {
    let seed = setting("WISR_CRASH_SEED", fastrand::u64(..));
    eprintln!("WISR_CRASH_SEED={seed}");
    let mut random = Rng::with_seed(seed);
    let ledger = Ledger::new();
    let mut site = Site::new()
        .pages(&["p/[id]"])
        .config("[store]\nmemory = \"400KiB\"");
    for page in &*ledger.pages.lock() {
        site = site.script(&page.path, page.script(Kind::Document));
    }
    let mut site = site.start().await;
    for _ in 0..setting("WISR_CRASH_ROUNDS", ROUNDS) {
        ledger.round(&site, &mut random).await;
        site.restart().await;
        ledger.audit(&site).await;
    }
}

/// A store that is written without pause while it is killed.
struct Worn {
    pages: usize,
    /// The number of the origin's answer that each page was acknowledged to be made from.
    made: Mutex<Vec<u64>>,
}

impl Worn {
    fn path(page: usize) -> String {
        format!("/w/{page}")
    }

    /// Every page made for the first time.
    async fn fill(&self, site: &Running) {
        join_all((0..WRITERS).map(async |writer| {
            let mut client = site.reader();
            for page in (writer..self.pages).step_by(WRITERS) {
                let path = Self::path(page);
                let answer = client.send("GET", &path, &[], "").await.unwrap();
                assert_eq!((answer.status, answer.verdict()), (200, "MISS"), "{path}");
                self.made.lock()[page] = 1;
            }
        }))
        .await;
        // What is only in memory may go with the process.
        let synced = json!({ "paths": [Self::path(0)] });
        assert_eq!(site.revalidate(synced).await.status, 200);
    }

    /// Pages made anew, some at once, until the server dies.
    async fn write(&self, site: &Running, random: &mut Rng) {
        let (mut client, headers) = (site.reader(), format!("Bearer {TOKEN}"));
        loop {
            let first = random.usize(..self.pages);
            let pages: Vec<usize> = (first..self.pages.min(first + BATCH)).collect();
            let paths: Vec<String> = pages.iter().map(|page| Self::path(*page)).collect();
            let before: Vec<u64> = paths
                .iter()
                .map(|path| site.origin.count(path) as u64)
                .collect();
            let body = json!({ "paths": paths }).to_string();
            let headers = [("authorization", &*headers)];
            let sent = client
                .send("POST", "/api/revalidate", &headers, &body)
                .await;
            let Ok(answer) = sent else {
                return;
            };
            assert_eq!(answer.status, 200, "{}", answer.text());
            let mut made = self.made.lock();
            for (page, before) in pages.into_iter().zip(before) {
                made[page] = made[page].max(before + 1);
            }
        }
    }

    /// All pages are there, none older than it was acknowledged to be.
    async fn count(&self, site: &Running) {
        let made = self.made.lock().clone();
        let mut client = site.reader();
        for (page, made) in made.into_iter().enumerate() {
            let path = Self::path(page);
            let answer = client.send("GET", &path, &[], "").await.unwrap();
            let text = answer.text();
            let is_there = ["HIT", "STALE"].contains(&answer.verdict());
            assert!(is_there, "{path} is lost: {:?}", answer.headers);
            let n = text
                .strip_prefix("<p>")
                .and_then(|text| text.split_once('<'));
            let n: u64 = n.unwrap().0.parse().unwrap();
            assert!(n >= made, "{path} is older than acknowledged: {n}, {made}");
        }
        let state = std::fs::read_dir(site.folder().join(".wisr")).unwrap();
        for entry in state {
            let name = entry.unwrap().file_name().into_string().unwrap();
            assert!(!name.starts_with("store."), "{name}");
        }
        assert_eq!(site.metric("wisr_store_set_aside_total").await, 0.0);
        assert_eq!(site.admin("/readyz").await.json()["store"], "ok");
        for word in ["counts as missing", "was moved to", "panicked"] {
            assert!(!site.log().contains(word), "{word}");
        }
    }
}

/// Calls at once, and pages of each.
const WRITERS: usize = 4;
const BATCH: usize = 25;

/// Pages of the suite; `WISR_CRASH_PAGES=100000` makes a gigabyte of them.
const WORN: u64 = 400;

/// A database that flushes, compacts and writes bodies while it is killed loses no page: a small
/// memory table has it do so all the time.
#[tokio::test]
async fn killed_while_the_database_works_it_keeps_every_page() {
    let seed = setting("WISR_CRASH_SEED", fastrand::u64(..));
    eprintln!("WISR_CRASH_SEED={seed}");
    let mut random = Rng::with_seed(seed);
    let pages = usize::try_from(setting("WISR_CRASH_PAGES", WORN)).unwrap();
    let worn = Worn {
        pages,
        made: Mutex::new(vec![0; pages]),
    };
    let mut site = Site::new().pages(&["w/[id]"]).config(
        "[store]\nmemory = \"1MiB\"\nmemtable = \"256KiB\"\n[generations]\nconcurrency = 4",
    );
    // What does not get smaller, so that it is a body of its own on disk.
    let noise: String = std::iter::repeat_with(|| random.alphanumeric())
        .take(12_000)
        .collect();
    let body = format!("<p>$N<!--{noise}-->");
    site = site.script(ANY, json!({ "render": { "body": body } }));
    let mut site = site.start().await;
    worn.fill(&site).await;
    for _ in 0..setting("WISR_CRASH_ROUNDS", ROUNDS) {
        worn.count(&site).await;
        let moment = Duration::from_millis(random.u64(50..800));
        let strike = async {
            tokio::time::sleep(moment).await;
            site.strike();
        };
        let mut writers: Vec<Rng> = (0..WRITERS).map(|_| random.fork()).collect();
        let work = join_all(writers.iter_mut().map(|random| worn.write(&site, random)));
        tokio::join!(work, strike);
        site.restart().await;
        worn.count(&site).await;
    }
    let keyspace = site.folder().join(".wisr/store/pages/keyspaces/1");
    let newest = |folder: &str| {
        let files = std::fs::read_dir(keyspace.join(folder)).unwrap();
        let numbers =
            files.filter_map(|file| file.unwrap().file_name().to_str()?.parse::<u64>().ok());
        numbers.max()
    };
    // Numbers go up with each table and each file of bodies: it was at work.
    assert!(newest("tables") > Some(10) && newest("blobs") > Some(5));
}

/// What a removed module made never comes back with it, not even what it was still making.
#[tokio::test]
async fn pages_of_a_removed_module_do_not_come_back_with_it() {
    let site = Site::new().pages(&["door/[id]"]).start().await;
    site.get("/door/kept").await;
    site.origin.hold("/door/made");
    let reader = site.waiting("/door/made");
    site.until_calls("/door/made", 1).await;
    site.remove("door/[id]");
    site.until("/door/kept", |answer| answer.status == 404)
        .await;
    site.origin.release("/door/made");
    reader.await.unwrap();
    site.swap("door/[id]", modules::puppet());
    let made = site
        .until("/door/made", |answer| answer.status == 200)
        .await;
    assert_eq!((made.verdict(), made.n()), ("MISS", 2));
    let kept = site.get("/door/kept").await;
    assert_eq!((kept.verdict(), kept.n()), ("MISS", 2));
}
