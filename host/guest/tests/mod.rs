//! The room tried with real modules: the hostile fixture, and small ones written as text.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use futures_util::FutureExt;

use super::engine::Purpose;
use super::*;
use crate::page::{
    Cause, Context, Digest, Failure, FailureKind, Fallback, Generation, Lifetime, Outcome, Param,
    Render,
};

mod fuzz;
mod loading;
mod misdeeds;

const WASIP2: &str = "wasm32-wasip2";
const WASIP1: &str = "wasm32-wasip1";

/// The hostile fixture, built for `target`.
fn hostile_bytes(target: &str) -> Vec<u8> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let built = root.join("target/fixtures");
    let status = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--release", "--package", "hostile"])
        .args(["--target", target, "--target-dir"])
        .arg(&built)
        .current_dir(root.join("tests/fixtures"))
        .status()
        .unwrap();
    assert!(status.success(), "the hostile fixture does not build");
    std::fs::read(built.join(target).join("release/hostile.wasm")).unwrap()
}

fn config() -> EngineConfig {
    EngineConfig {
        cache: None,
        state: None,
        instances: 8,
        max_memory: 128 << 20,
        compiler: Compiler::InProcess,
        compile: CompileLimits::default(),
        fast_compile: false,
        quick: u64::MAX,
        compile_threads: 2,
    }
}

fn engine() -> Engine {
    Engine::new(config()).unwrap()
}

/// One engine and one compiled fixture for all tests of this process.
fn hostile() -> &'static (Engine, Arc<Module>) {
    static HOSTILE: OnceLock<(Engine, Arc<Module>)> = OnceLock::new();
    HOSTILE.get_or_init(|| {
        // A test's own runtime cannot be blocked on from within.
        let load = || {
            let engine = engine();
            let runtime = tokio::runtime::Runtime::new().unwrap();
            let module = runtime
                .block_on(engine.load(hostile_bytes(WASIP2)))
                .unwrap();
            (engine, module)
        };
        std::thread::spawn(load).join().unwrap()
    })
}

fn grants(engine: &Engine, limits: Limits) -> Grants {
    let settings = BTreeMap::from([
        ("greeting".to_owned(), "hello".to_owned()),
        ("url".to_owned(), "http://127.0.0.1:9/x".to_owned()),
    ]);
    Grants {
        engine: engine.clone(),
        limits,
        outbound: Arc::default(),
        client: outbound::Client::new(outbound::ClientConfig::default()).unwrap(),
        settings: Arc::new(settings),
        may_revalidate: false,
    }
}

/// For modules that have no pages made anew.
fn nobody() -> Revalidate {
    Arc::new(|_| panic!("it calls"))
}

fn guest_of(engine: &Engine, module: &Arc<Module>, limits: Limits) -> Guest {
    match *module.role() {
        Role::Page(exports) => Guest::new(Arc::clone(module), exports, grants(engine, limits)),
        Role::Api(_) => panic!("not a page"),
    }
}

fn guest(limits: Limits) -> Guest {
    let (engine, module) = hostile();
    guest_of(engine, module, limits)
}

/// Limits under which a slow machine still finishes honest work, and wrong ones end soon.
fn limits() -> Limits {
    Limits {
        cpu: Duration::from_secs(5),
        wall: Duration::from_secs(60),
        ..Limits::default()
    }
}

fn context(how: &str) -> Context {
    Context {
        route: Arc::from("/hostile/[how]"),
        path: format!("/hostile/{how}"),
        params: vec![Param {
            name: "how".to_owned(),
            values: vec![how.to_owned()],
        }],
        query: Vec::new(),
        cause: Cause::FirstRequest,
    }
}

async fn generate(limits: Limits, how: &str) -> Result<Generation, Failure> {
    guest(limits).generate(&context(how), None).await
}

async fn props_of(how: &str) -> String {
    match generate(limits(), how).await.unwrap().outcome {
        Outcome::Page(props, _) => serde_json::from_slice(&props.json).unwrap(),
        other => panic!("{other:?}"),
    }
}

/// Runs the misdeed and checks how it ends and that the account says so.
async fn ends(limits: Limits, how: &str, kind: FailureKind, call: &str, words: &str) -> Failure {
    let failure = generate(limits, how).await.expect_err(how);
    assert_eq!(
        (failure.kind, &*failure.call),
        (kind, call),
        "{how}: {failure}"
    );
    assert!(failure.message.contains(words), "{how}: {failure}");
    assert!(failure.cost.wall > Duration::ZERO, "{how}");
    failure
}

#[tokio::test]
async fn a_page_and_its_account() {
    let generation = generate(limits(), "fine").await.unwrap();
    let Outcome::Page(props, document) = generation.outcome else {
        panic!("no page")
    };
    assert_eq!(props.json, "\"fine\"");
    assert_eq!(props.lifetime, Lifetime::Seconds(60));
    let tags: Vec<_> = generation.tags.iter().map(|tag| tag.as_str()).collect();
    assert_eq!(tags, ["a", "b"]);
    assert!(document.body.len() > 8_000 && document.body.starts_with(b"<!doctype html>"));
    let cost = generation.cost;
    assert!(cost.memory >= 1 << 16 && cost.memory < 16 << 20, "{cost:?}");
    assert!(
        cost.cpu > Duration::ZERO && cost.cpu <= cost.wall,
        "{cost:?}"
    );
    assert!(cost.render > Duration::ZERO && cost.static_props > Duration::ZERO);
    assert!(cost.instantiate + cost.static_props + cost.render <= cost.wall);
}

#[tokio::test]
async fn the_cost_in_cpu_time_is_that_of_the_guest() {
    let cost = generate(limits(), "work").await.unwrap().cost;
    // No core runs at more than 6 GHz.
    let least = Duration::from_millis(10);
    assert!(least <= cost.cpu && cost.cpu <= cost.wall, "{cost:?}");
    assert!(least <= cost.static_props, "{cost:?}");
}

#[tokio::test]
async fn lifetimes_absence_and_redirects() {
    let outcome = async |how| generate(limits(), how).await.unwrap().outcome;
    assert!(
        matches!(outcome("never").await, Outcome::Page(props, _) if props.lifetime == Lifetime::Never)
    );
    assert!(
        matches!(outcome("inherit").await, Outcome::Page(props, _) if props.lifetime == Lifetime::Inherit)
    );
    assert!(matches!(
        outcome("gone").await,
        Outcome::NotFound(Lifetime::Seconds(5))
    ));
    assert!(
        matches!(outcome("moved").await, Outcome::Redirect { location, .. } if location == "/fine")
    );
}

#[tokio::test]
async fn the_same_props_need_no_render() {
    let known = Some(Digest::of(b"\"fine\""));
    let generation = guest(limits())
        .generate(&context("fine"), known)
        .await
        .unwrap();
    assert!(matches!(generation.outcome, Outcome::Unchanged(_)));
    assert_eq!(generation.cost.render, Duration::ZERO);
    let generation = guest(limits())
        .generate(&context("never"), known)
        .await
        .unwrap();
    assert!(matches!(generation.outcome, Outcome::Page(..)));
}

#[tokio::test]
async fn paths_and_shell() {
    let list = guest(limits()).static_paths("/a".into()).await.unwrap();
    assert_eq!((list.paths.len(), list.fallback), (2, Fallback::Shell));
    assert_eq!(list.paths[1][0].values, ["gone"]);
    let shell = guest(limits()).shell(&context("fine")).await.unwrap();
    assert_eq!(shell.body, "<p>/hostile/fine is being made</p>");
}

#[tokio::test]
async fn more_generations_than_instances_wait_and_all_succeed() {
    let guest = Arc::new(guest(limits()));
    let one = |number: usize| {
        let guest = Arc::clone(&guest);
        let how = ["fine", "panic", "bomb", "gone"][number % 4];
        tokio::spawn(async move { (how, guest.generate(&context(how), None).await) })
    };
    for task in (0..64).map(one).collect::<Vec<_>>() {
        let (how, ended) = task.await.unwrap();
        match how {
            "fine" | "gone" => assert!(ended.is_ok(), "{ended:?}"),
            "panic" => assert_eq!(ended.unwrap_err().kind, FailureKind::Trap),
            _ => assert_eq!(ended.unwrap_err().kind, FailureKind::Memory),
        }
    }
}

#[tokio::test]
async fn pages_have_places_that_nothing_else_takes() {
    let guest = guest(limits());
    let engine = &hostile().0;
    let mut taken = Vec::new();
    for purpose in [Purpose::Api, Purpose::Trial] {
        while let Some(place) = engine.place(purpose).now_or_never() {
            taken.push(place);
        }
    }
    assert!(guest.static_paths("/a".into()).now_or_never().is_none());
    generate(limits(), "fine").await.unwrap();
}

#[tokio::test]
async fn cancelled_generations_give_their_place_back() {
    let guest = guest(limits());
    let context = context("sleep");
    for _ in 0..100 {
        let work = guest.generate(&context, None);
        assert!(
            tokio::time::timeout(Duration::from_millis(5), work)
                .await
                .is_err()
        );
    }
    generate(limits(), "fine").await.unwrap();
}

/// Not a test: how fast pages are made. `cargo test --release -- --ignored --nocapture speed`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn speed() {
    let guest = Arc::new(guest(Limits::default()));
    for tasks in [1, 4, 8] {
        let start = Instant::now();
        let worker = || {
            let guest = Arc::clone(&guest);
            async move {
                let context = context("fine");
                let mut costs = Vec::new();
                while start.elapsed() < Duration::from_secs(3) {
                    let begun = Instant::now();
                    let cost = guest.generate(&context, None).await.unwrap().cost;
                    costs.push((begun.elapsed(), cost));
                }
                costs
            }
        };
        let workers: Vec<_> = (0..tasks).map(|_| tokio::spawn(worker())).collect();
        let mut costs = Vec::new();
        for worker in workers {
            costs.extend(worker.await.unwrap());
        }
        costs.sort_by_key(|(wall, _)| *wall);
        let (wall, cost) = &costs[costs.len() / 2];
        println!(
            "{tasks} tasks: {}/s, median {wall:?}, p99 {:?}: instantiate {:?}, static-props {:?}, render {:?}",
            costs.len() / 3,
            costs[costs.len() * 99 / 100].0,
            cost.instantiate,
            cost.static_props,
            cost.render
        );
    }
}
