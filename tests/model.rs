//! A small model of a page's life, and random sequences that the server must agree with.
//!
//! [`World`] is what a reader may expect, by the rules of the design; it is driven beside the
//! server, one step at a time, and every answer is held against it. A sequence that disagrees is
//! shrunk to the few steps that matter. `WISR_MODEL_CASES=500 cargo test --test main model` plays
//! that many sequences.

use std::cell::RefCell;
use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};
use wisr::page::Digest;

use crate::client::Response;
use crate::modules;
use crate::site::{Running, Site, wait_for};

/// Sequences that the suite plays, and the most steps of each.
const CASES: u32 = 20;
const STEPS: usize = 60;

/// Pages of a sequence; the first two share a tag, as do the others.
const PAGES: usize = 4;
const TAGS: [usize; PAGES] = [0, 0, 1, 1];

/// The last is a query variant of the first: what is said of the path concerns both.
const PLAIN: usize = 0;
const VARIANT: usize = PAGES - 1;

/// The lifetime of short-lived pages, and the jitter that expiry may have: 10 %.
const SHORT: Duration = Duration::from_secs(1);
const JITTER: Duration = Duration::from_millis(100);

/// Times are kept in whole milliseconds, and two clocks are compared.
const BLUR: Duration = Duration::from_millis(10);

/// A failing page is left alone for 3 s at least, and it has failed a moment before that shows.
const BACK_OFF: Duration = Duration::from_millis(2_500);

/// The module that serves the pages, and a page of its that no sequence is about.
const MODULE: &str = "m/[id]";
const OTHER: &str = "/m/other";

/// Releases that are remembered.
const REMEMBERED: usize = 10;

#[derive(Debug, Clone)]
enum Step {
    Read(usize, Face),
    /// What the origin says of a page from now on.
    Say(usize, Says, Lifetime),
    Renew(usize),
    MarkStale(usize),
    Tag(usize),
    Purge(usize),
    /// The next generation of a page runs until [`Step::Release`].
    Hold(usize),
    Release(usize),
    /// Time passes until short-lived pages are too old; all are read.
    Expire,
    Swap(u32),
    /// A swap, and all pages are read.
    SwapAndRead(u32),
    Remove,
    /// To the release that many before the current one, or to the one before as a default.
    RollBack(Option<u64>),
    /// A restart that was asked for, and one that was not; all pages are read.
    Stop,
    Kill,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Face {
    Page,
    Data,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Says {
    Document,
    NotFound,
    Redirect,
    Error,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Lifetime {
    Short,
    Endless,
}

/// What a reader may expect.
struct World {
    /// The latest, oldest first: ids, and versions of the module; none when it was removed.
    releases: VecDeque<(u64, Option<u32>)>,
    /// The version in the folder.
    folder: Option<u32>,
    /// Whether a rollback holds: the folder is not served until it changes.
    is_held: bool,
    /// The versions that a rollback took back: what they made is not shown.
    withdrawn: BTreeSet<u32>,
    pages: [Page; PAGES],
    /// Generations that have landed since the server started.
    landed: u64,
}

#[derive(Debug)]
struct Page {
    path: String,
    /// What the origin knows it as.
    source: String,
    says: (Says, Lifetime),
    /// Answers of the origin so far.
    n: u64,
    is_held: bool,
    entry: Option<Entry>,
    flight: Option<Flight>,
    failed: Option<Failed>,
}

/// What is kept of a page.
#[derive(Debug, Clone)]
struct Entry {
    content: Says,
    n: u64,
    version: u32,
    lifetime: Lifetime,
    is_marked: bool,
    /// When it was made: between these.
    made: (Instant, Instant),
}

/// A generation that runs.
#[derive(Debug)]
struct Flight {
    will_be: Entry,
    /// Whether the page was invalidated since it began: then it answers for nobody who came later.
    is_outdated: bool,
    /// Whether what it makes must not be kept.
    is_purged: bool,
    /// The module of the generation that follows it, for those who came later.
    next: Option<u32>,
}

/// The last generation failed.
#[derive(Debug)]
struct Failed {
    version: u32,
    at: Instant,
    /// Before the server's last start.
    was_long_ago: bool,
}

/// A server and the model of it.
struct Play {
    site: Running,
    world: World,
}

// === impl Page ===

impl Page {
    fn new(path: String) -> Self {
        Self {
            source: path.replace("?q=", "~"),
            path,
            says: (Says::Document, Lifetime::Endless),
            n: 0,
            is_held: false,
            entry: None,
            flight: None,
            failed: None,
        }
    }

    /// A generation has begun, not before `since`.
    fn launch(&mut self, version: u32, since: Instant) {
        self.n += 1;
        let will_be = Entry {
            content: self.says.0,
            n: self.n,
            version,
            lifetime: self.says.1,
            is_marked: false,
            made: (since, since),
        };
        self.flight = Some(Flight {
            will_be,
            is_purged: false,
            is_outdated: false,
            next: None,
        });
    }

    /// A reader was shown a stale page: a generation begins, unless one runs.
    fn refresh(&mut self, version: u32, since: Instant) {
        match &mut self.flight {
            None => self.launch(version, since),
            Some(flight) if flight.is_outdated => {
                flight.next.get_or_insert(version);
            }
            Some(_) => {}
        }
    }

    /// The generation ends, and the next one begins. What a withdrawn module makes is not kept.
    fn land(&mut self, withdrawn: &BTreeSet<u32>) {
        let Some(flight) = self.flight.take() else {
            return;
        };
        let since = flight.will_be.made.0;
        let is_void = flight.is_purged || withdrawn.contains(&flight.will_be.version);
        self.settle(flight.will_be, is_void);
        if let Some(version) = flight.next {
            self.launch(version, since);
        }
    }

    /// What a reader may be shown.
    fn shown(&self, withdrawn: &BTreeSet<u32>) -> Option<&Entry> {
        let entry = self.entry.as_ref()?;
        (!withdrawn.contains(&entry.version)).then_some(entry)
    }

    fn settle(&mut self, mut will_be: Entry, is_purged: bool) {
        will_be.made.1 = Instant::now();
        if will_be.content == Says::Error {
            self.failed = Some(Failed {
                version: will_be.version,
                at: will_be.made.1,
                was_long_ago: false,
            });
            return;
        }
        self.failed = None;
        if !is_purged {
            self.entry = Some(will_be);
        }
    }

    /// What was made from data read so far is stale.
    fn mark(&mut self, concerns: impl Fn(&Entry) -> bool) {
        let flying = self.flight.as_mut().map(|flight| &mut flight.will_be);
        for entry in flying.into_iter().chain(&mut self.entry) {
            entry.is_marked |= concerns(entry);
        }
    }

    /// All that was made from data read so far is stale.
    fn mark_all(&mut self) {
        self.mark(|_| true);
        if let Some(flight) = &mut self.flight {
            flight.is_outdated = true;
        }
    }

    fn forget(&mut self) {
        self.entry = None;
        if let Some(flight) = &mut self.flight {
            flight.is_purged = true;
        }
    }

    /// Whether a stale page may be left alone because it has failed; none when it must be.
    fn may_rest(&self, version: u32, told: bool) -> bool {
        let failed = self
            .failed
            .as_ref()
            .filter(|failed| failed.version == version);
        match failed {
            None => !told,
            Some(failed) if failed.was_long_ago || failed.at.elapsed() > BACK_OFF => true,
            Some(_) => told,
        }
    }
}

impl Entry {
    /// Whether it may be shown as fresh, and as stale, to who asked and was answered then.
    fn may_be(&self, version: u32, asked: Instant, answered: Instant) -> (bool, bool) {
        if self.is_marked || self.version != version {
            return (false, true);
        }
        if self.lifetime == Lifetime::Endless {
            return (true, false);
        }
        let expires = (
            self.made.0 + SHORT - BLUR,
            self.made.1 + SHORT + JITTER + BLUR,
        );
        (asked < expires.1, answered > expires.0)
    }

    /// Holds an answer against what it should show.
    #[track_caller]
    fn check(&self, face: Face, answer: &Response) {
        let document = |seen: &Value| {
            assert_eq!(seen["n"], self.n, "the origin's answer: {seen}");
            assert_eq!(seen["version"], format!("{:04}", self.version), "{seen}");
        };
        let location = format!("/from/{}", self.n);
        match (self.content, face) {
            (Says::Document, Face::Page) => document(&answer.whole()["props"]),
            (Says::Document, Face::Data) => document(&answer.json()),
            (Says::NotFound, Face::Page) => assert_eq!(answer.status, 404),
            (Says::NotFound, Face::Data) => assert_eq!(answer.json()["notFound"], true),
            (Says::Redirect, Face::Page) => assert_eq!(answer.header("location"), location),
            (Says::Redirect, Face::Data) => {
                assert_eq!(answer.json()["redirect"]["location"], location);
            }
            (Says::Error, _) => unreachable!("an error is not kept"),
        }
    }
}

// === impl World ===

impl World {
    fn new() -> Self {
        Self {
            releases: [(1, Some(0))].into(),
            folder: Some(0),
            is_held: false,
            withdrawn: BTreeSet::new(),
            pages: std::array::from_fn(|_| Page::new(String::new())),
            landed: 0,
        }
    }

    fn current(&self) -> (u64, Option<u32>) {
        *self.releases.back().unwrap()
    }

    fn version(&self) -> Option<u32> {
        self.current().1
    }

    /// A release, if it is another than the current one.
    fn publish(&mut self, version: Option<u32>) {
        let (current, served) = self.current();
        if served != version {
            self.releases.push_back((current + 1, version));
            if let Some(version) = version {
                self.withdrawn.remove(&version);
            }
        }
        if self.releases.len() > REMEMBERED {
            self.releases.pop_front();
        }
    }

    /// What `/api/releases` tells, in short.
    fn history(&self) -> Value {
        let releases = self.releases.iter().rev();
        let digest = |version| Digest::of(&modules::puppet_version(version)).to_string();
        let line = |(id, version): &(u64, Option<u32>)| json!([id, version.map(digest)]);
        json!([self.is_held, releases.map(line).collect::<Vec<_>>()])
    }
}

// === impl Play ===

impl Play {
    async fn start() -> Self {
        let config = "[routes.\"/m/[id]\"]\nquery = [\"q\"]\nsettings = { variants = \"1\" }";
        let site = Site::new().module(MODULE, modules::puppet()).config(config);
        let site = site.start().await;
        let world = World::new();
        Self { site, world }
    }

    /// A sequence, on pages of its own.
    async fn sequence(&mut self, name: u32, steps: &[Step]) {
        self.world.pages = std::array::from_fn(|page| {
            Page::new(match page {
                VARIANT => format!("/m/{name}-{PLAIN}?q=1"),
                _ => format!("/m/{name}-{page}"),
            })
        });
        for page in 0..PAGES {
            self.say(page);
        }
        for step in steps {
            self.step(step).await;
        }
        for page in 0..PAGES {
            self.release(page).await;
        }
    }

    async fn step(&mut self, step: &Step) {
        match *step {
            Step::Read(page, face) => self.read(page, face).await,
            Step::Say(page, says, lifetime) => {
                self.world.pages[page].says = (says, lifetime);
                self.say(page);
            }
            Step::Renew(page) => self.renew(page).await,
            Step::MarkStale(page) => self.mark(page).await,
            Step::Tag(tag) => self.tag(tag).await,
            Step::Purge(page) => self.purge(page).await,
            Step::Hold(page) => self.hold(page),
            Step::Release(page) => self.release(page).await,
            Step::Expire => {
                tokio::time::sleep(SHORT + JITTER + 2 * BLUR).await;
                self.read_all().await;
            }
            Step::Swap(version) => self.put(Some(version)).await,
            Step::SwapAndRead(version) => {
                self.put(Some(version)).await;
                self.read_all().await;
            }
            Step::Remove => self.put(None).await,
            Step::RollBack(by) => self.roll_back(by).await,
            Step::Stop => self.restart(true).await,
            Step::Kill => self.restart(false).await,
        }
    }

    fn say(&self, number: usize) {
        let page = &self.world.pages[number];
        let outcome = match page.says.0 {
            Says::Document => "props",
            Says::NotFound => "not-found",
            Says::Redirect => "redirect",
            Says::Error => "error",
        };
        let revalidate = match page.says.1 {
            Lifetime::Short => json!(SHORT.as_secs()),
            Lifetime::Endless => json!("never"),
        };
        let tag = format!("{}-{}", page.path.rsplit_once('-').unwrap().0, TAGS[number]);
        self.site.origin.script(
            &page.source,
            json!({
                "outcome": outcome,
                "revalidate": revalidate,
                "tags": [tag],
                "location": "/from/$N",
            }),
        );
    }

    /// The model's page, and the server's answer to a call about it.
    async fn call(&mut self, number: usize, mode: &str) -> (&mut Page, Response) {
        let is_there = self.world.version().is_some();
        let variants = match number {
            PLAIN => Some(self.world.pages[VARIANT].entry.iter().count()),
            VARIANT => None,
            _ => Some(0),
        };
        let body = json!({ "paths": [self.world.pages[number].path], "mode": mode });
        let answer = self.site.revalidate(body).await;
        if is_there {
            let counted = &answer.json()["results"][0]["variants"];
            assert_eq!(*counted, json!(variants), "{}", answer.text());
        }
        if is_there && number == PLAIN {
            let variant = &mut self.world.pages[VARIANT];
            match mode {
                "purge" => variant.forget(),
                _ => variant.mark_all(),
            }
        }
        (&mut self.world.pages[number], answer)
    }

    async fn read(&mut self, number: usize, face: Face) {
        let version = self.world.version();
        let withdrawn = self.world.withdrawn.clone();
        let page = &mut self.world.pages[number];
        let path = match face {
            Face::Page => page.path.clone(),
            Face::Data => match page.path.split_once('?') {
                Some((path, query)) => format!("/_wisr/data{path}.json?{query}"),
                None => format!("/_wisr/data{}.json", page.path),
            },
        };
        let Some(version) = version else {
            let answer = self.site.get(&path).await;
            assert_eq!((answer.status, answer.verdict()), (404, ""));
            return;
        };
        if page.is_held && page.shown(&withdrawn).is_none() {
            // The reader would wait for the release.
            return;
        }
        let asked = Instant::now();
        let answer = self.site.get(&path).await;
        let Some(entry) = page.shown(&withdrawn) else {
            page.launch(version, asked);
            self.land(number).await;
            let page = &self.world.pages[number];
            match page.shown(&withdrawn) {
                None => assert_eq!((answer.status, answer.verdict()), (500, "")),
                Some(entry) => {
                    assert_eq!(answer.verdict(), "MISS");
                    entry.check(face, &answer);
                }
            }
            return;
        };
        entry.check(face, &answer);
        let (fresh, stale) = entry.may_be(version, asked, Instant::now());
        let verdict = answer.verdict();
        assert!(verdict != "HIT" || fresh, "fresh: {page:?}");
        assert!(verdict != "STALE" || stale, "stale: {page:?}");
        if verdict == "HIT" {
            return;
        }
        assert_eq!(verdict, "STALE", "{page:?}");
        let told = answer.header("cache-status").contains("back-off");
        assert!(page.may_rest(version, told), "rests: {told}, {page:?}");
        if !told {
            page.refresh(version, asked);
            self.land(number).await;
        }
    }

    async fn read_all(&mut self) {
        for page in 0..PAGES {
            self.read(page, Face::Page).await;
        }
    }

    async fn renew(&mut self, number: usize) {
        if self.world.pages[number].is_held {
            // The call would wait for the release.
            return;
        }
        let (version, asked) = (self.world.version(), Instant::now());
        let (page, answer) = self.call(number, "regenerate").await;
        let Some(version) = version else {
            assert_eq!(answer.status, 404);
            return;
        };
        page.mark_all();
        page.launch(version, asked);
        let expected = if page.says.0 == Says::Error { 500 } else { 200 };
        assert_eq!(answer.status, expected, "{}", answer.text());
        self.land(number).await;
    }

    async fn mark(&mut self, number: usize) {
        let is_there = self.world.version().is_some();
        let (page, answer) = self.call(number, "stale").await;
        if is_there {
            page.mark_all();
        }
        assert_eq!(answer.status, if is_there { 200 } else { 404 });
    }

    async fn purge(&mut self, number: usize) {
        let is_there = self.world.version().is_some();
        let (page, answer) = self.call(number, "purge").await;
        if !is_there {
            assert_eq!(answer.status, 404);
            return;
        }
        let expected = if page.entry.is_some() {
            "purged"
        } else {
            "absent"
        };
        assert_eq!(answer.json()["results"][0]["status"], expected, "{page:?}");
        page.forget();
        page.failed = None;
    }

    /// Whatever there is has tags.
    async fn tag(&mut self, tag: usize) {
        let prefix = self.world.pages[0].path.rsplit_once('-').unwrap().0;
        let body = json!({ "tags": [format!("{prefix}-{tag}")] });
        assert_eq!(self.site.revalidate(body).await.status, 200);
        for (page, its) in self.world.pages.iter_mut().zip(TAGS) {
            page.mark(|_| its == tag);
        }
    }

    fn hold(&mut self, number: usize) {
        let page = &mut self.world.pages[number];
        if !page.is_held {
            page.is_held = true;
            self.site.origin.hold(&page.source);
        }
    }

    async fn release(&mut self, number: usize) {
        let page = &mut self.world.pages[number];
        if page.is_held {
            page.is_held = false;
            self.site.origin.release(&page.source);
            self.land(number).await;
        }
    }

    /// Waits for all generations of a page to end, unless they are held; there are no others.
    async fn land(&mut self, number: usize) {
        let World {
            pages,
            landed,
            withdrawn,
            ..
        } = &mut self.world;
        let page = &mut pages[number];
        let (site, calls) = (&self.site, |page: &Page| usize::try_from(page.n).unwrap());
        while page.flight.is_some() {
            site.until_calls(&page.source, calls(page)).await;
            if page.is_held {
                break;
            }
            *landed += 1;
            until_landed(site, *landed).await;
            page.land(withdrawn);
        }
        assert_eq!(site.origin.count(&page.source), calls(page), "{page:?}");
        assert_eq!(until_landed(site, *landed).await, *landed, "{page:?}");
    }

    /// Changes the folder, which ends a rollback.
    async fn put(&mut self, version: Option<u32>) {
        let world = &mut self.world;
        if world.folder == version {
            return;
        }
        match version {
            Some(version) => self.site.swap(MODULE, &modules::puppet_version(version)),
            None => self.site.remove(MODULE),
        }
        if version.is_some() && world.version().is_none() && world.folder.is_none() {
            // A route whose file comes back begins empty.
            world.pages.iter_mut().for_each(Page::forget);
        }
        (world.folder, world.is_held) = (version, false);
        world.publish(version);
        self.until_released().await;
    }

    /// Pages stay as they are: those of the module that serves again are fresh, if they were.
    async fn roll_back(&mut self, by: Option<u64>) {
        let world = &mut self.world;
        let (current, served) = world.current();
        let id = by.map(|by| current.saturating_sub(by));
        let wanted = id.unwrap_or(current - 1);
        let mut releases = world.releases.iter();
        let target = releases.find(|(id, _)| *id == wanted).copied();
        let expected = match target {
            None => 404,
            Some((_, version)) if version == served => 409,
            Some((_, version)) => {
                world.is_held = true;
                let (before, after): (Vec<_>, Vec<_>) =
                    world.releases.iter().partition(|(id, _)| *id <= wanted);
                let bad = after
                    .into_iter()
                    .filter(|(_, made)| !before.iter().any(|(_, version)| version == made));
                world
                    .withdrawn
                    .extend(bad.filter_map(|(_, version)| version));
                world.publish(version);
                200
            }
        };
        let (headers, body) = ([("content-type", "application/json")], json!({ "id": id }));
        let door = "/api/releases/rollback";
        let answer = self
            .site
            .admin_post(door, &headers, &body.to_string())
            .await;
        assert_eq!(answer.status, expected, "{}", answer.text());
        assert_eq!(history(&self.site).await, self.world.history());
        self.until_released().await;
    }

    /// Waits until the server has the releases of the model.
    async fn until_released(&mut self) {
        let (site, world) = (&self.site, &mut self.world);
        let expected = json!([world.current().0, world.history()]);
        wait_for(&format!("release {expected}"), async || {
            let routes = site.admin("/api/routes").await.json();
            let seen = json!([routes["release"], history(site).await]);
            if seen == expected {
                Ok(())
            } else {
                Err(seen.to_string())
            }
        })
        .await;
        if world.version().is_some() {
            // It has made a page: failures are not held against it any more.
            site.renew(OTHER).await;
            world.landed += 1;
            until_landed(site, world.landed).await;
        }
    }

    /// Everything that runs is lost, everything that was kept is there.
    async fn restart(&mut self, is_graceful: bool) {
        if is_graceful {
            self.site.terminate();
            self.site.ended().await;
        } else {
            // What is written behind the responses is on disk when a later change is.
            let barrier = json!({ "tags": ["barrier"] });
            assert_eq!(self.site.revalidate(barrier).await.status, 200);
        }
        self.site.restart().await;
        self.world.landed = 0;
        for page in &mut self.world.pages {
            page.flight = None;
            if let Some(failed) = &mut page.failed {
                failed.was_long_ago = true;
            }
            if std::mem::take(&mut page.is_held) {
                self.site.origin.release(&page.source);
            }
        }
        assert_eq!(history(&self.site).await, self.world.history());
        self.until_released().await;
        self.read_all().await;
    }
}

/// As [`World::history`].
async fn history(site: &Running) -> Value {
    let told = site.admin("/api/releases").await.json();
    let releases = told["releases"].as_array().unwrap().iter();
    let file = format!("{MODULE}.wasm");
    let line = |release: &Value| json!([release["id"], release["files"][&file]]);
    json!([told["held"], releases.map(line).collect::<Vec<_>>()])
}

/// Waits until so many generations have landed since the start; how many have.
async fn until_landed(site: &Running, landed: u64) -> u64 {
    wait_for(&format!("{landed} generations"), async || {
        let metrics = site.admin("/metrics").await.text();
        let counts = metrics
            .lines()
            .filter(|line| line.starts_with("wisr_generations_total{"))
            .filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok());
        let counted: u64 = counts.sum();
        if counted >= landed {
            Ok(counted)
        } else {
            Err(counted.to_string())
        }
    })
    .await
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let page = || 0..PAGES;
    let face = prop_oneof![2 => Just(Face::Page), 1 => Just(Face::Data)];
    let says = prop_oneof![
        4 => Just(Says::Document),
        2 => Just(Says::NotFound),
        2 => Just(Says::Redirect),
        3 => Just(Says::Error),
    ];
    let lifetime = prop_oneof![Just(Lifetime::Endless), Just(Lifetime::Short)];
    let step = prop_oneof![
        60 => (page(), face).prop_map(|(page, face)| Step::Read(page, face)),
        26 => (page(), says, lifetime).prop_map(|(page, says, life)| Step::Say(page, says, life)),
        16 => page().prop_map(Step::Renew),
        12 => page().prop_map(Step::MarkStale),
        12 => (0..2_usize).prop_map(Step::Tag),
        12 => page().prop_map(Step::Purge),
        14 => page().prop_map(Step::Hold),
        14 => page().prop_map(Step::Release),
        2 => Just(Step::Expire),
        2 => (0..3_u32).prop_map(Step::Swap),
        3 => (0..3_u32).prop_map(Step::SwapAndRead),
        2 => Just(Step::Remove),
        8 => prop::option::of(0..8_u64).prop_map(Step::RollBack),
        1 => Just(Step::Stop),
        2 => Just(Step::Kill),
    ];
    prop::collection::vec(step, 1..=STEPS)
}

/// Whatever happens in whatever order, readers get what the rules say.
#[test]
fn the_server_agrees_with_the_model() {
    let cases = std::env::var("WISR_MODEL_CASES").map_or(CASES, |text| text.parse().unwrap());
    let config = Config {
        cases,
        failure_persistence: None,
        max_shrink_time: 60_000,
        ..Config::default()
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    // One server plays all sequences; one that disagreed is in no known state.
    let idle: RefCell<Option<Play>> = RefCell::new(None);
    let names = std::cell::Cell::new(0);
    let outcome = TestRunner::new(config).run(&steps(), |steps| {
        let play = idle.take();
        names.set(names.get() + 1);
        let played = runtime.block_on(async {
            let mut play = match play {
                Some(play) => play,
                None => Play::start().await,
            };
            play.sequence(names.get(), &steps).await;
            play
        });
        idle.replace(Some(played));
        Ok(())
    });
    outcome.unwrap();
}
