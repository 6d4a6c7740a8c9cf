//! The room tried with a real folder and real modules, as small as modules get.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use wit_component::StringEncoding;

use super::*;
use crate::guest::{CompileLimits, Compiler, Engine, EngineConfig, Limits, outbound};
use crate::page::{
    Cause, Context, Cost, FailureKind, Generation, Lifetime, Outcome, Policy, Revalidate, Timestamp,
};
use crate::route;
use crate::telemetry::{Clock, Incidents};

/// A module whose `static-paths` lists `id` = `listed` and nothing else. It cannot render.
fn module(listed: &str) -> Vec<u8> {
    const BASE: u32 = 1024;
    let words: [u32; 12] = [
        // result: ok; path-list: one path at 16, not-found
        0,
        BASE + 16,
        1,
        0,
        // path: one parameter at 24; parameter: the name at 48, one value at 40
        BASE + 24,
        1,
        BASE + 48,
        2,
        BASE + 40,
        1,
        BASE + 50,
        u32::try_from(listed.len()).unwrap(),
    ];
    let mut data = String::new();
    for byte in words
        .iter()
        .flat_map(|word| word.to_le_bytes())
        .chain(*b"id")
        .chain(listed.bytes())
    {
        write!(data, "\\{byte:02x}").unwrap();
    }
    let context = "i32 ".repeat(9);
    let text = format!(
        r#"(module
             (memory (export "memory") 1)
             (data (i32.const {BASE}) "{data}")
             (func (export "wisr:page/page@0.1.0#static-props") (param {context}) (result i32) unreachable)
             (func (export "wisr:page/page@0.1.0#render") (param {context} i32 i32) (result i32) unreachable)
             (func (export "wisr:page/paths@0.1.0#static-paths") (result i32) (i32.const {BASE}))
             (func (export "wisr:page/paths@0.1.0#shell") (param {context}) (result i32) unreachable)
             (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 8192)))"#
    );
    let mut bytes = wat::parse_str(text).unwrap();
    let mut wit = wit_parser::Resolve::default();
    let contract = concat!(env!("CARGO_MANIFEST_DIR"), "/guest-sdk/wit/page.wit");
    let package = wit.push_file(contract).unwrap();
    let world = wit.select_world(&[package], Some("dynamic-page")).unwrap();
    wit_component::embed_component_metadata(&mut bytes, &wit, world, StringEncoding::UTF8).unwrap();
    bytes
}

fn engine() -> Engine {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    let config = EngineConfig {
        cache: None,
        instances: 8,
        max_memory: 128 << 20,
        state: None,
        compiler: Compiler::InProcess,
        compile: CompileLimits::default(),
        fast_compile: true,
        quick: u64::MAX,
        compile_threads: 2,
    };
    ENGINE.get_or_init(|| Engine::new(config).unwrap()).clone()
}

fn of_route(_: &str) -> RouteConfig {
    RouteConfig {
        policy: Policy {
            revalidate: Revalidate::Never,
            max_stale: Duration::from_secs(60),
            render_on_change: false,
            concurrency: 1,
        },
        limits: Limits {
            cpu: Duration::from_secs(10),
            wall: Duration::from_secs(60),
            ..Limits::default()
        },
        outbound: Arc::default(),
        settings: Arc::new(BTreeMap::new()),
        query: Vec::new(),
        paths_revalidate: Revalidate::Never,
        may_revalidate: false,
    }
}

struct Site {
    folder: Arc<tempfile::TempDir>,
    incidents: Arc<Incidents>,
    releases: Arc<Releases>,
    /// The routes whose pages were forgotten, one line for each time.
    gone: Arc<Mutex<Vec<String>>>,
}

impl Site {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("pages")).unwrap();
        let state = folder.path().join("state");
        Self::on(Arc::new(folder), Some(state))
    }

    /// Another process on the same folders, after this one.
    fn restarted(&self) -> Self {
        Self::on(
            Arc::clone(&self.folder),
            Some(self.folder.path().join("state")),
        )
    }

    fn on(folder: Arc<tempfile::TempDir>, state: Option<PathBuf>) -> Self {
        let incidents = Arc::new(Incidents::default());
        let config = Config {
            pages: folder.path().join("pages"),
            poll: Duration::from_millis(200),
            settle: Duration::from_millis(20),
            routes: Arc::new(of_route),
            state,
        };
        let gone = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&gone);
        let herald: Herald = Arc::new(move |change: Change| {
            let routes: Vec<_> = change.gone.iter().map(|route| route.to_string()).collect();
            if !routes.is_empty() {
                told.lock().push(routes.join(" "));
            }
            Box::pin(std::future::ready(()))
        });
        let parts = Parts {
            engine: engine(),
            client: outbound::Client::new(outbound::ClientConfig::default()).unwrap(),
            // A clock of another age than the files': only looking twice tells that they are whole.
            clock: Clock::starting_at(Timestamp::from_millis(1_000)),
            incidents: Arc::clone(&incidents),
            metrics: Arc::default(),
            herald,
        };
        Self {
            folder,
            incidents,
            releases: Arc::new(Releases::new(config, parts)),
            gone,
        }
    }

    fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join("pages").join(file)
    }

    fn put(&self, file: &str, bytes: &[u8]) {
        fs::create_dir_all(self.path(file).parent().unwrap()).unwrap();
        fs::write(self.path(file), bytes).unwrap();
    }

    fn routes(&self) -> Vec<String> {
        let release = self.releases.current();
        let mut routes: Vec<_> = release
            .table
            .iter()
            .map(|(route, _)| route.to_string())
            .collect();
        routes.sort();
        routes
    }

    fn routed(&self, path: &str) -> Arc<Routed> {
        let release = self.releases.current();
        let found = release
            .table
            .matches(&route::Path::parse(path).unwrap())
            .next();
        Arc::clone(found.unwrap_or_else(|| panic!("no route for {path}")).value)
    }

    fn refused(&self) -> Vec<(PathBuf, &'static str)> {
        let release = self.releases.current();
        release
            .refused
            .iter()
            .map(|refusal| (refusal.file.clone(), refusal.kind))
            .collect()
    }
}

#[tokio::test]
async fn a_swap_touches_nothing_but_what_changed() {
    let site = Site::new();
    site.put("index.wasm", &module("index"));
    site.put("404.wasm", &module("404"));
    let report = site.releases.scan().await;
    assert_eq!(
        (report.release, report.swapped, report.loaded),
        (1, true, 2)
    );
    let (index, not_found) = (site.routed("/"), site.routed("/404"));
    assert!(Arc::ptr_eq(
        site.releases.current().not_found.as_ref().unwrap(),
        &not_found
    ));
    assert!(site.releases.load().error.is_none());
    assert_eq!(index.paths().len(), 1);

    site.put("404.wasm", &module("404 again"));
    // The same bytes at another time are the same module.
    site.put("index.wasm", &module("index"));
    let report = site.releases.scan().await;
    assert_eq!(
        (report.release, report.swapped, report.loaded),
        (2, true, 1)
    );
    assert!(Arc::ptr_eq(&site.routed("/"), &index));
    assert_ne!(
        site.routed("/404").module.digest(),
        not_found.module.digest()
    );

    let report = site.releases.scan().await;
    assert_eq!(
        (report.release, report.swapped, report.loaded),
        (2, false, 0)
    );
    assert_eq!(site.incidents.count(), 0);
}

#[tokio::test]
async fn a_module_that_fails_changes_nothing_and_is_told_once() {
    let site = Site::new();
    site.put("a.wasm", &module("a"));
    site.put("b.wasm", b"half a mod");
    site.releases.scan().await;
    assert_eq!(site.routes(), ["/a"]);
    let good = site.routed("/a");
    site.put("a.wasm", b"<html>");
    for _ in 0..3 {
        let report = site.releases.scan().await;
        assert_eq!((report.release, report.refused), (1, 2));
    }
    assert!(Arc::ptr_eq(&site.routed("/a"), &good));
    assert_eq!(
        site.refused(),
        [("a.wasm".into(), "module"), ("b.wasm".into(), "module")]
    );
    assert_eq!(site.incidents.count(), 2);

    site.put("a.wasm", &module("a"));
    site.put("b.wasm", &module("b"));
    assert_eq!(site.releases.scan().await.loaded, 1);
    assert!(Arc::ptr_eq(&site.routed("/a"), &good));
    assert_eq!((site.routes().len(), site.refused()), (2, vec![]));
}

#[tokio::test]
async fn of_two_modules_for_one_place_the_first_keeps_it_until_it_goes() {
    let site = Site::new();
    site.put("x/index.wasm", &module("x"));
    site.releases.scan().await;
    site.put("x.wasm", &module("other"));
    for _ in 0..2 {
        site.releases.scan().await;
        assert_eq!(site.routed("/x").file, Path::new("x/index.wasm"));
        assert_eq!(site.refused(), [("x.wasm".into(), "conflict")]);
    }
    assert_eq!(site.incidents.count(), 1);
    fs::remove_file(site.path("x/index.wasm")).unwrap();
    let report = site.releases.scan().await;
    assert_eq!((report.loaded, report.removed), (0, 1));
    assert_eq!(site.routed("/x").file, Path::new("x.wasm"));
    assert_eq!(site.refused(), []);
}

#[tokio::test]
async fn an_emptied_folder_has_no_routes_but_a_lost_one_keeps_them() {
    let site = Site::new();
    site.put("a.wasm", &module("a"));
    site.releases.scan().await;
    let (pages, away) = (site.path(""), site.folder.path().join("away"));
    fs::rename(&pages, &away).unwrap();
    for _ in 0..2 {
        let report = site.releases.scan().await;
        assert!(report.problem.unwrap().contains("cannot be read"));
        assert_eq!(site.routes(), ["/a"]);
    }
    assert_eq!(site.incidents.count(), 1);
    fs::rename(&away, &pages).unwrap();
    assert_eq!(site.releases.scan().await.problem, None);
    fs::remove_file(site.path("a.wasm")).unwrap();
    assert_eq!(site.releases.scan().await.removed, 1);
    assert!(site.releases.load().table.is_empty());
}

#[tokio::test]
async fn a_dropped_path_is_gone_from_the_swap_on() {
    let site = Site::new();
    site.put("posts/[id].wasm", &module("one"));
    site.releases.scan().await;
    let admits = |path: &str| site.routed(path).admits(&route::Path::parse(path).unwrap());
    assert_eq!(
        (admits("/posts/one"), admits("/posts/two")),
        (Admission::Page, Admission::No)
    );
    let routed = site.routed("/posts/one");
    let listed: Vec<_> = routed.paths().collect();
    assert_eq!(listed[0].0.as_str(), "/posts/one");
    assert_eq!(listed[0].1[0].values, ["one"]);
    site.put("posts/[id].wasm", &module("two"));
    site.releases.scan().await;
    assert_eq!(
        (admits("/posts/one"), admits("/posts/two")),
        (Admission::No, Admission::Page)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_watch_makes_releases_until_it_is_stopped() {
    let site = Site::new();
    let mut changes = site.releases.subscribe();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let releases = Arc::clone(&site.releases);
    let watching = tokio::spawn(async move {
        releases.watch(async { drop(stopped.await) }).await;
    });
    let mut next = async || {
        let patience = Duration::from_secs(60);
        tokio::time::timeout(patience, changes.changed())
            .await
            .unwrap()
            .unwrap();
        *changes.borrow_and_update()
    };
    assert_eq!(next().await, 1);
    site.put("new/a.wasm", &module("a"));
    assert_eq!(next().await, 2);
    assert_eq!(site.routes(), ["/new/a"]);
    site.put(".part", &module("b"));
    fs::rename(site.path(".part"), site.path("new/a.wasm")).unwrap();
    assert_eq!(next().await, 3);
    fs::remove_dir_all(site.path("new")).unwrap();
    assert_eq!(next().await, 4);
    assert!(site.routes().is_empty());
    drop(stop);
    watching.await.unwrap();
}

fn context(routed: &Routed) -> Context {
    Context {
        route: Arc::clone(&routed.page.route),
        path: "/a".to_owned(),
        params: Vec::new(),
        query: Vec::new(),
        cause: Cause::Stale,
    }
}

/// Has the module of `/a` fail `times` times: those of these tests can do nothing else.
async fn fail(site: &Site, times: usize) {
    let routed = site.routed("/a");
    for _ in 0..times {
        let made = routed.page.renderer.generate(&context(&routed), None).await;
        assert_eq!(made.unwrap_err().kind, FailureKind::Trap);
    }
}

fn succeed(routed: &Routed) {
    routed.trial.note(&Ok(Generation {
        outcome: Outcome::NotFound(Lifetime::Never),
        tags: Vec::new(),
        cost: Cost::default(),
    }));
}

#[tokio::test]
async fn a_module_that_only_fails_gives_its_route_back_and_may_try_again() {
    let site = Site::new();
    site.put("a.wasm", &module("good"));
    site.releases.scan().await;
    let good = site.routed("/a");
    site.put("a.wasm", &module("bad"));
    site.releases.scan().await;
    fail(&site, 4).await;
    assert!(!site.releases.scan().await.swapped);
    fail(&site, 1).await;
    site.releases.fallen().await;
    let report = site.releases.scan().await;
    assert_eq!((report.release, report.swapped), (3, true));
    assert!(Arc::ptr_eq(&site.routed("/a"), &good));
    assert_eq!(site.refused(), [("a.wasm".into(), "returned")]);
    assert_eq!(site.incidents.count(), 1);
    assert!(!site.releases.scan().await.swapped);

    site.put("a.wasm", &module("bad"));
    let report = site.releases.scan().await;
    assert_eq!((report.loaded, report.refused), (1, 0));
    assert!(!Arc::ptr_eq(&site.routed("/a"), &good));
    // Its earlier failures are those of another trial.
    fail(&site, 4).await;
    assert!(!site.releases.scan().await.swapped);
    fail(&site, 1).await;
    assert!(site.releases.scan().await.swapped);
    assert!(Arc::ptr_eq(&site.routed("/a"), &good));
    assert_eq!(site.incidents.count(), 2);
}

#[tokio::test]
async fn of_two_unproven_modules_the_proven_one_before_them_is_kept() {
    let site = Site::new();
    site.put("a.wasm", &module("good"));
    site.releases.scan().await;
    let good = site.routed("/a");
    succeed(&good);
    for unproven in ["one", "two"] {
        site.put("a.wasm", &module(unproven));
        site.releases.scan().await;
    }
    fail(&site, 5).await;
    site.releases.scan().await;
    assert!(Arc::ptr_eq(&site.routed("/a"), &good));
}

#[tokio::test]
async fn the_module_before_is_let_go_once_the_new_one_has_made_a_page() {
    let site = Site::new();
    site.put("a.wasm", &module("old"));
    site.releases.scan().await;
    let old = Arc::downgrade(&site.routed("/a"));
    site.put("a.wasm", &module("new"));
    site.releases.scan().await;
    assert!(old.upgrade().is_some());
    succeed(&site.routed("/a"));
    site.releases.scan().await;
    assert!(old.upgrade().is_none());
    fail(&site, 6).await;
    assert!(!site.releases.scan().await.swapped);
    assert_eq!(site.refused(), []);
}

#[tokio::test]
async fn a_module_that_only_failed_is_nothing_to_return_to() {
    let site = Site::new();
    site.put("a.wasm", &module("bad"));
    site.releases.scan().await;
    fail(&site, 5).await;
    site.releases.scan().await;
    site.put("a.wasm", &module("newer"));
    site.releases.scan().await;
    let newer = site.routed("/a");
    fail(&site, 5).await;
    assert!(!site.releases.scan().await.swapped);
    assert!(Arc::ptr_eq(&site.routed("/a"), &newer));
}

impl Site {
    /// Drops the module in and makes the next release of it.
    async fn drop_in(&self, file: &str, listed: &str) -> ScanReport {
        self.put(file, &module(listed));
        self.releases.scan().await
    }

    /// The digest behind each route, by what its module lists.
    fn serves(&self, file: &str, listed: &str) -> bool {
        let digest = crate::page::Digest::of(&module(listed));
        self.releases.current().files().get(Path::new(file)) == Some(&digest)
    }

    fn history(&self) -> Vec<(u64, How)> {
        let history = self.releases.history();
        history
            .releases()
            .map(|record| (record.id, record.how))
            .collect()
    }

    fn archived(&self, listed: &str) -> PathBuf {
        let digest = crate::page::Digest::of(&module(listed));
        self.folder
            .path()
            .join(format!("state/modules/{digest}.wasm"))
    }
}

#[tokio::test]
async fn a_rollback_holds_until_the_folder_changes_also_over_a_restart() {
    let site = Site::new();
    site.put("b.wasm", &module("b"));
    site.drop_in("a.wasm", "one").await;
    site.drop_in("a.wasm", "two").await;
    assert_eq!(site.releases.rollback(None).await.unwrap(), 3);
    assert!(site.serves("a.wasm", "one") && site.serves("b.wasm", "b"));
    // The same bytes at another time, and a file that is refused, are no change.
    site.put("a.wasm", &module("two"));
    site.put("c.wasm", b"junk");
    assert!(!site.releases.scan().await.swapped);
    assert!(site.serves("a.wasm", "one"));
    assert_eq!(site.refused(), [("c.wasm".into(), "module")]);

    let site = site.restarted();
    let report = site.releases.scan().await;
    assert_eq!(
        (report.release, report.swapped, report.loaded),
        (3, false, 0)
    );
    assert!(site.serves("a.wasm", "one"));
    assert_eq!(site.refused(), [("c.wasm".into(), "module")]);
    assert!(site.releases.history().held().is_some());

    let report = site.drop_in("c.wasm", "c").await;
    assert_eq!((report.release, report.swapped), (4, true));
    assert!(site.serves("a.wasm", "two") && site.serves("c.wasm", "c"));
    assert!(site.releases.history().held().is_none());
    let expected = [
        How::Folder,
        How::Folder,
        How::Rollback { of: 1 },
        How::Folder,
    ];
    assert_eq!(site.history(), (1..).zip(expected).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_folder_that_changed_while_nobody_served_ends_a_rollback() {
    let site = Site::new();
    site.drop_in("a.wasm", "one").await;
    site.drop_in("a.wasm", "two").await;
    site.releases.rollback(Some(1)).await.unwrap();
    site.put("a.wasm", &module("three"));
    let site = site.restarted();
    let report = site.releases.scan().await;
    assert_eq!((report.release, report.swapped), (4, true));
    assert!(site.serves("a.wasm", "three"));
}

#[tokio::test]
async fn two_rollbacks_in_a_row_are_there_and_back() {
    let site = Site::new();
    site.drop_in("a.wasm", "one").await;
    site.drop_in("a.wasm", "two").await;
    let newest = site.routed("/a");
    site.releases.rollback(None).await.unwrap();
    assert_eq!(site.releases.rollback(None).await.unwrap(), 4);
    // It was in memory all the time.
    assert!(Arc::ptr_eq(&site.routed("/a"), &newest));
    let refused = site.releases.rollback(Some(2)).await.unwrap_err();
    assert!(
        matches!(refused, RollbackError::Already { id: 2, current: 4 }),
        "{refused}"
    );
    let refused = site.releases.rollback(Some(9)).await.unwrap_err();
    assert!(matches!(refused, RollbackError::Unknown(9)), "{refused}");
    let nothing = Site::new();
    nothing.drop_in("a.wasm", "one").await;
    let refused = nothing.releases.rollback(None).await.unwrap_err();
    assert!(matches!(refused, RollbackError::NothingBefore), "{refused}");
}

#[tokio::test]
async fn what_lay_in_the_folder_before_the_rollback_waits_with_the_rest() {
    let site = Site::new();
    site.drop_in("a.wasm", "one").await;
    site.put("b.wasm", &module("b"));
    site.drop_in("a.wasm", "two").await;
    // No pass has seen these yet: to whoever goes back they are there already.
    site.put("a.wasm", &module("three"));
    site.put("c.wasm", &module("c"));
    fs::remove_file(site.path("b.wasm")).unwrap();
    site.releases.rollback(Some(1)).await.unwrap();
    for _ in 0..2 {
        assert!(!site.releases.scan().await.swapped);
        assert_eq!(site.routes(), ["/a"]);
        assert!(site.serves("a.wasm", "one"));
    }
    site.drop_in("a.wasm", "four").await;
    assert_eq!(site.routes(), ["/a", "/c"]);
}

#[tokio::test]
async fn a_rollback_does_not_wait_for_what_is_being_loaded() {
    let site = Site::new();
    site.drop_in("a.wasm", "one").await;
    site.drop_in("a.wasm", "two").await;
    site.put("a.wasm", &module("three"));
    let releases = Arc::clone(&site.releases);
    let scanning = tokio::spawn(async move { releases.scan().await });
    while site.releases.loads.len() == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(site.releases.rollback(None).await.unwrap(), 3);
    assert!(site.serves("a.wasm", "one"));
    let report = scanning.await.unwrap();
    assert_eq!((report.release, report.swapped), (3, false));
}

#[tokio::test]
async fn a_lost_module_keeps_a_release_from_serving_and_changes_nothing() {
    let site = Site::new();
    site.drop_in("a.wasm", "one").await;
    for listed in ["two", "three"] {
        site.drop_in("a.wasm", listed).await;
        succeed(&site.routed("/a"));
        site.releases.scan().await;
    }
    fs::write(site.archived("one"), b"damaged").unwrap();
    let refused = site
        .releases
        .rollback(Some(1))
        .await
        .unwrap_err()
        .to_string();
    assert!(
        refused.contains("`a.wasm`") && refused.contains("damaged"),
        "{refused}"
    );
    assert_eq!(site.releases.load().id, 3);
    assert!(site.releases.history().held().is_none());
    site.releases.rollback(Some(2)).await.unwrap();
    assert!(site.serves("a.wasm", "two"));
}

#[tokio::test]
async fn a_restart_goes_on_with_the_release_that_served() {
    let site = Site::new();
    site.put("b.wasm", &module("b"));
    site.drop_in("a.wasm", "one").await;
    site.put("b.wasm", b"junk");
    site.put("api/x.wasm", &module("no api route"));
    site.drop_in("a.wasm", "two").await;
    let site = site.restarted();
    let report = site.releases.scan().await;
    // A file that is refused keeps the module that it had.
    assert_eq!(
        (report.release, report.swapped, report.loaded),
        (2, false, 0)
    );
    assert!(site.serves("a.wasm", "two") && site.serves("b.wasm", "b"));
    assert_eq!(
        site.refused(),
        [("api/x.wasm".into(), "module"), ("b.wasm".into(), "module")]
    );

    // What happens while nobody serves is one release.
    site.put("c.wasm", &module("c"));
    fs::remove_file(site.path("a.wasm")).unwrap();
    let site = site.restarted();
    let report = site.releases.scan().await;
    assert_eq!(
        (report.release, report.swapped, report.removed),
        (3, true, 1)
    );
    assert_eq!(site.routes(), ["/b", "/c"]);
    assert_eq!(*site.gone.lock(), Vec::<String>::new());

    // A folder that is not there is no reason not to serve.
    fs::rename(site.path(""), site.folder.path().join("away")).unwrap();
    let site = site.restarted();
    assert!(site.releases.scan().await.problem.is_some());
    assert_eq!((site.releases.load().id, site.routes().len()), (3, 2));
    site.put("a.wasm", &module("two"));
    site.releases.scan().await;
    assert_eq!(*site.gone.lock(), ["/a"]);
}

#[tokio::test]
async fn a_fallen_module_stays_down_over_a_restart() {
    let site = Site::new();
    site.drop_in("a.wasm", "good").await;
    site.drop_in("a.wasm", "bad").await;
    fail(&site, 5).await;
    site.releases.scan().await;
    assert_eq!(site.history().last(), Some(&(3, How::Returned)));
    let site = site.restarted();
    let report = site.releases.scan().await;
    assert_eq!(
        (report.release, report.swapped, report.loaded),
        (3, false, 0)
    );
    assert!(site.serves("a.wasm", "good"));
    assert_eq!(site.refused(), [("a.wasm".into(), "returned")]);
    // The module in place has nothing to return to.
    fail(&site, 5).await;
    assert!(!site.releases.scan().await.swapped);
    let report = site.drop_in("a.wasm", "better").await;
    assert_eq!((report.loaded, site.refused()), (1, vec![]));
    assert!(site.serves("a.wasm", "better"));
}

#[tokio::test]
async fn a_trial_goes_on_over_a_restart_and_ends_with_a_page() {
    let site = Site::new();
    site.drop_in("a.wasm", "good").await;
    succeed(&site.routed("/a"));
    site.drop_in("a.wasm", "bad").await;
    let site = site.restarted();
    site.releases.scan().await;
    fail(&site, 5).await;
    assert!(site.releases.scan().await.swapped);
    assert!(site.serves("a.wasm", "good"));

    site.drop_in("a.wasm", "next").await;
    succeed(&site.routed("/a"));
    site.releases.scan().await;
    let site = site.restarted();
    site.releases.scan().await;
    fail(&site, 5).await;
    assert!(!site.releases.scan().await.swapped);
    assert!(site.serves("a.wasm", "next"));
}

#[tokio::test]
async fn a_broken_file_in_the_pass_of_a_fall_is_told_beside_it() {
    let site = Site::new();
    site.drop_in("a.wasm", "good").await;
    site.drop_in("a.wasm", "bad").await;
    fail(&site, 5).await;
    site.put("a.wasm", b"junk");
    assert!(site.releases.scan().await.swapped);
    assert!(site.serves("a.wasm", "good"));
    assert_eq!(site.refused(), [("a.wasm".into(), "module")]);
    let told = || -> Vec<_> {
        let incidents = site.incidents.latest(9);
        incidents
            .iter()
            .map(|incident| (incident.kind.to_string(), incident.count))
            .collect()
    };
    let returned = || ("returned".to_owned(), 1);
    assert_eq!(told(), [("module".to_owned(), 1), returned()]);
    // Other junk is another incident of the same kind.
    site.put("a.wasm", b"more junk");
    site.releases.scan().await;
    assert_eq!(told(), [("module".to_owned(), 2), returned()]);
}

#[tokio::test]
async fn without_a_folder_to_keep_them_in_modules_stay_in_memory() {
    let kept = Site::new();
    let in_memory = Site::on(Arc::clone(&kept.folder), None);
    let unwritable = {
        let site = Site::new();
        fs::write(site.folder.path().join("state"), b"a file").unwrap();
        site
    };
    for (site, incidents) in [(in_memory, 0), (unwritable, 1)] {
        for listed in ["one", "two", "three"] {
            site.drop_in("a.wasm", listed).await;
            succeed(&site.routed("/a"));
            site.releases.scan().await;
        }
        assert_eq!(site.releases.rollback(Some(1)).await.unwrap(), 4);
        assert!(site.serves("a.wasm", "one"));
        assert_eq!(site.incidents.count(), incidents);
    }
}

/// Changes a file as a broken disk does.
fn flip_a_bit(file: &Path) {
    let mut bytes = fs::read(file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(file, bytes).unwrap();
}

#[tokio::test]
async fn a_history_that_changed_on_disk_is_read_from_its_copy() {
    let site = Site::new();
    site.drop_in("a.wasm", "one").await;
    site.drop_in("a.wasm", "two").await;
    let file = site.folder.path().join("state/releases.json");
    flip_a_bit(&file);
    let site = site.restarted();
    site.releases.scan().await;
    let ids = |site: &Site| -> Vec<u64> {
        let history = site.releases.history();
        history.releases().map(|record| record.id).collect()
    };
    assert_eq!(ids(&site), [1, 2]);
    assert!(site.archived("one").exists() && site.archived("two").exists());
    // It is whole again.
    fs::write(file.with_extension("copy.json"), "").unwrap();
    let site = site.restarted();
    site.releases.scan().await;
    assert_eq!(ids(&site), [1, 2]);
}

#[tokio::test]
async fn a_damaged_history_begins_anew() {
    let site = Site::new();
    site.drop_in("a.wasm", "one").await;
    site.drop_in("a.wasm", "two").await;
    let file = site.folder.path().join("state/releases.json");
    flip_a_bit(&file);
    fs::remove_file(file.with_extension("copy.json")).unwrap();
    let site = site.restarted();
    let report = site.releases.scan().await;
    assert_eq!((report.release, report.swapped), (1, true));
    assert!(site.serves("a.wasm", "two"));
    assert!(
        site.incidents.latest(1)[0]
            .message
            .contains("releases.damaged.json")
    );
    // Which routes there were is not known, nor that they are gone.
    assert!(site.gone.lock().is_empty());
    assert!(!site.archived("one").exists() && site.archived("two").exists());
}

#[tokio::test]
async fn modules_are_kept_as_long_as_a_release_needs_them() {
    let site = Site::new();
    let names: Vec<String> = (1..=history::KEPT + 1)
        .map(|number| number.to_string())
        .collect();
    for listed in &names {
        site.drop_in("a.wasm", listed).await;
        succeed(&site.routed("/a"));
    }
    let there: Vec<bool> = names
        .iter()
        .map(|name| site.archived(name).exists())
        .collect();
    assert_eq!((there[0], there[1..].contains(&false)), (false, false));
    let files = fs::read_dir(site.folder.path().join("state/modules")).unwrap();
    assert_eq!(files.count(), history::KEPT);
}

#[tokio::test]
async fn a_conflict_is_settled_for_what_is_served() {
    let site = Site::new();
    site.drop_in("x.wasm", "x").await;
    fs::remove_file(site.path("x.wasm")).unwrap();
    site.drop_in("x/index.wasm", "other").await;
    assert_eq!(site.routed("/x").file, Path::new("x/index.wasm"));
    site.releases.rollback(None).await.unwrap();
    assert_eq!(site.routed("/x").file, Path::new("x.wasm"));
    assert_eq!(site.refused(), []);
    // Both are there: the one that serves keeps its place.
    site.drop_in("x.wasm", "x").await;
    assert_eq!(site.routed("/x").file, Path::new("x.wasm"));
    assert_eq!(site.refused(), [("x/index.wasm".into(), "conflict")]);
    let site = site.restarted();
    site.releases.scan().await;
    assert_eq!(site.routed("/x").file, Path::new("x.wasm"));
}

#[tokio::test]
async fn a_rollback_whose_module_is_lost_is_over_with_the_next_start() {
    let site = Site::new();
    site.drop_in("a.wasm", "one").await;
    site.drop_in("a.wasm", "two").await;
    site.releases.rollback(None).await.unwrap();
    fs::remove_file(site.archived("one")).unwrap();
    let site = site.restarted();
    let report = site.releases.scan().await;
    assert_eq!((report.release, report.swapped), (4, true));
    assert!(site.serves("a.wasm", "two"));
    let told = site.incidents.latest(9);
    assert_eq!((told.len(), &*told[0].kind), (1, "rollback"));
}

#[tokio::test]
async fn a_module_that_is_lost_is_taken_from_the_folder() {
    let site = Site::new();
    site.put("b.wasm", &module("b"));
    site.drop_in("a.wasm", "one").await;
    site.drop_in("a.wasm", "two").await;
    site.releases.rollback(None).await.unwrap();
    fs::remove_dir_all(site.folder.path().join("state/modules")).unwrap();
    site.put("a.wasm", &module("one"));
    let site = site.restarted();
    let report = site.releases.scan().await;
    assert_eq!((report.release, site.routes().len()), (3, 2));
    assert!(site.serves("a.wasm", "one"));
    assert_eq!(site.incidents.count(), 0);
    assert!(site.archived("one").exists() && site.archived("b").exists());
}

#[tokio::test]
async fn refused_files_stay_reported_over_a_rollback() {
    let site = Site::new();
    site.put("a.wasm", b"junk");
    site.put("b.wasm", &module("b"));
    site.releases.scan().await;
    assert_eq!(site.refused(), [("a.wasm".into(), "module")]);
    site.releases.rollback(None).await.unwrap_err();
    site.drop_in("b.wasm", "b again").await;
    site.put("_wisr/x.wasm", b"");
    site.releases.scan().await;
    let refused = [("_wisr".into(), "module"), ("a.wasm".into(), "module")];
    assert_eq!(site.refused(), refused);
    let told = site.incidents.count();
    site.releases.rollback(None).await.unwrap();
    assert_eq!(
        (site.refused(), site.incidents.count()),
        (refused.to_vec(), told)
    );
}

#[tokio::test]
async fn other_rules_are_swapped_in_under_the_same_modules() {
    let site = Site::new();
    for file in ["a.wasm", "b.wasm", "posts/[id].wasm"] {
        site.put(file, &module(file));
    }
    site.releases.scan().await;
    let (a, b, posts) = (
        site.routed("/a"),
        site.routed("/b"),
        site.routed("/posts/1"),
    );
    succeed(&a);
    let rules: RouteRules = Arc::new(|route: &str| {
        let mut config = of_route(route);
        if route != "/b" {
            config.query = vec!["q".to_owned()];
        }
        config
    });
    site.releases.reconfigure(Arc::clone(&rules)).await;
    assert_eq!(site.releases.load().id, 1, "a release is its modules");
    assert!(
        Arc::ptr_eq(&site.routed("/b"), &b),
        "nothing new is said of it"
    );
    for (path, before) in [("/a", a), ("/posts/1", posts)] {
        let now = site.routed(path);
        assert!(Arc::ptr_eq(&now.module, &before.module));
        assert_eq!(now.config.query, ["q"]);
        assert!(now.paths().eq(before.paths()));
    }
    assert!(
        site.routed("/a").trial.has_passed(),
        "it is the same module"
    );

    let now = site.routed("/a");
    site.releases.reconfigure(rules).await;
    assert!(Arc::ptr_eq(&site.routed("/a"), &now));
    site.put("a.wasm", &module("next"));
    site.releases.scan().await;
    assert_eq!(site.routed("/a").config.query, ["q"]);

    let pages = site.folder.path().join("pages");
    fs::rename(&pages, pages.with_extension("away")).unwrap();
    assert!(site.releases.scan().await.problem.is_some());
    site.releases.reconfigure(Arc::new(of_route)).await;
    assert!(
        site.routed("/a").config.query.is_empty(),
        "the folder has no say in it"
    );
}

#[tokio::test]
async fn a_module_to_return_to_returns_under_the_rules_of_now() {
    let site = Site::new();
    site.put("a.wasm", &module("good"));
    site.releases.scan().await;
    let good = site.routed("/a");
    site.put("a.wasm", &module("bad"));
    site.releases.scan().await;
    fail(&site, 4).await;
    let rules = |route: &str| RouteConfig {
        query: vec!["q".to_owned()],
        ..of_route(route)
    };
    site.releases.reconfigure(Arc::new(rules)).await;
    // One more: the failures under the rules before count.
    fail(&site, 1).await;
    site.releases.scan().await;
    let returned = site.routed("/a");
    assert_eq!(returned.module.digest(), good.module.digest());
    assert_eq!(returned.config.query, ["q"]);
}
