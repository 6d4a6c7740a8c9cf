//! The room tried with real modules: the hostile fixture, and small ones written as text.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use super::*;
use crate::page::{
    Cause, Context, Digest, Failure, FailureKind, Fallback, Generation, Lifetime, Outcome, Param,
    Render,
};

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
        instances: 8,
        max_memory: 128 << 20,
        fast_compile: false,
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

fn guest_of(engine: &Engine, module: &Arc<Module>, limits: Limits) -> Guest {
    let client = outbound::Client::new(outbound::ClientConfig::default()).unwrap();
    let settings = BTreeMap::from([
        ("greeting".to_owned(), "hello".to_owned()),
        ("url".to_owned(), "http://127.0.0.1:9/x".to_owned()),
    ]);
    let module = Arc::clone(module);
    Guest::new(
        engine,
        module,
        limits,
        Arc::default(),
        client,
        Arc::new(settings),
    )
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
        (failure.kind, failure.call),
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
    let tags: Vec<_> = props.tags.iter().map(|tag| tag.as_str()).collect();
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
    assert!(cost.static_props >= Duration::from_millis(200), "{cost:?}");
    assert!(
        cost.cpu <= cost.wall && cost.cpu >= Duration::from_millis(20),
        "{cost:?}"
    );
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
    let list = guest(limits()).static_paths().await.unwrap();
    assert_eq!((list.paths.len(), list.fallback), (2, Fallback::Shell));
    assert_eq!(list.paths[1][0].values, ["gone"]);
    let shell = guest(limits()).shell(&context("fine")).await.unwrap();
    assert_eq!(shell.body, "<p>/hostile/fine is being made</p>");
}

#[tokio::test]
async fn time_is_bounded() {
    let short = Limits {
        cpu: Duration::from_millis(100),
        wall: Duration::from_secs(60),
        ..Limits::default()
    };
    for (how, call) in [("loop", "static-props"), ("render-loop", "render")] {
        let words = "used more than its 100 ms of CPU time (limit `cpu`)";
        let failure = ends(short.clone(), how, FailureKind::Cpu, call, words).await;
        let cpu = failure.cost.cpu;
        assert!(
            cpu >= Duration::from_millis(100) && cpu < Duration::from_secs(1),
            "{cpu:?}"
        );
    }
    let short = Limits {
        wall: Duration::from_millis(300),
        ..limits()
    };
    for (how, call) in [("sleep", "static-props"), ("render-sleep", "render")] {
        let words = "longer than its 300 ms";
        let failure = ends(short.clone(), how, FailureKind::Wall, call, words).await;
        assert!(failure.cost.wall < Duration::from_secs(5));
        assert!(
            failure.cost.cpu < Duration::from_millis(250),
            "{:?}",
            failure.cost
        );
    }
}

#[tokio::test]
async fn a_loop_leaves_the_thread_to_others() {
    let short = Limits {
        cpu: Duration::from_millis(300),
        ..limits()
    };
    let guest = guest(short);
    let context = context("loop");
    let work = guest.generate(&context, None);
    let mut beats = 0;
    let heart = async {
        loop {
            tokio::task::yield_now().await;
            beats += 1;
        }
    };
    // Both on this one thread: without yielding, the heart beats once.
    tokio::select! {
        ended = work => assert_eq!(ended.unwrap_err().kind, FailureKind::Cpu),
        () = heart => unreachable!(),
    }
    assert!(beats > 5, "{beats}");
}

#[tokio::test]
async fn memory_is_bounded() {
    let failure = ends(
        limits(),
        "bomb",
        FailureKind::Memory,
        "static-props",
        "it may have 128 MiB (limit `memory`)",
    )
    .await;
    assert!(failure.cost.memory > 100 << 20 && failure.cost.memory <= 128 << 20);
    assert!(!failure.frames.is_empty());
    let cost = generate(limits(), "greedy").await.unwrap().cost;
    assert!(cost.memory > 64 << 20, "{cost:?}");
    let small = Limits {
        memory: 32 << 20,
        ..limits()
    };
    ends(
        small,
        "greedy",
        FailureKind::Memory,
        "static-props",
        "it may have 32 MiB",
    )
    .await;
}

#[tokio::test]
async fn what_is_returned_is_bounded() {
    use FailureKind::{Output, Resources};
    ends(limits(), "huge-page", Output, "render", "(limit `page`)").await;
    ends(
        limits(),
        "huge-props",
        Output,
        "static-props",
        "(limit `props`)",
    )
    .await;
    ends(
        limits(),
        "vast-page",
        Output,
        "render",
        "returned more than 9 MiB",
    )
    .await;
    ends(
        limits(),
        "many-tags",
        Output,
        "static-props",
        "returned more than 9 MiB",
    )
    .await;
    ends(
        limits(),
        "vast-log",
        Resources,
        "static-props",
        "to the host in one call",
    )
    .await;
    let failure = generate(limits(), "tags").await.unwrap_err();
    assert!(
        matches!(failure.kind, Output | FailureKind::Memory),
        "{failure}"
    );
    let larger = Limits {
        page: 64 << 20,
        ..limits()
    };
    assert!(generate(larger, "vast-page").await.is_ok());
}

#[tokio::test]
async fn what_the_host_holds_for_a_guest_is_bounded() {
    use FailureKind::Resources;
    ends(
        limits(),
        "handles",
        Resources,
        "static-props",
        "at once (fixed)",
    )
    .await;
    ends(
        limits(),
        "fields",
        Resources,
        "static-props",
        "headers (fixed)",
    )
    .await;
    ends(
        limits(),
        "random",
        Resources,
        "static-props",
        "64 KiB of random bytes",
    )
    .await;
}

#[tokio::test]
async fn a_panic_reads_like_an_error_that_one_can_act_on() {
    let failure = ends(
        limits(),
        "panic",
        FailureKind::Trap,
        "render",
        "no such post: 7",
    )
    .await;
    assert!(
        failure
            .message
            .starts_with("panicked at hostile/src/misdeeds.rs:"),
        "{failure}"
    );
    assert!(failure.stderr.contains("no such post: 7"));
    let functions: Vec<_> = failure.frames.iter().map(|frame| &frame.function).collect();
    assert!(
        functions.iter().any(|name| name.contains("hostile")),
        "{functions:?}"
    );
    assert!(
        !functions.iter().any(|name| name.starts_with("core::")),
        "{functions:?}"
    );
    let failure = ends(
        limits(),
        "last-words",
        FailureKind::Trap,
        "static-props",
        "the last words",
    )
    .await;
    assert!(failure.stderr.len() <= 4 << 10);
}

#[tokio::test]
async fn other_bad_ends() {
    use FailureKind::{Error, Exit, Invalid, ServerError, Trap};
    for (how, kind, call, words) in [
        ("recursion", Trap, "render", "recur"),
        ("abort", Trap, "render", "abort"),
        ("error", Error, "static-props", "the database is away"),
        ("exit", Exit, "render", "exit(0)"),
        ("zero", Invalid, "static-props", "at least 1"),
        ("bad-tag", Invalid, "static-props", "control character"),
        ("bad-redirect", Invalid, "static-props", "redirect"),
        ("bad-header", Invalid, "render", "x-page"),
        ("cookie", Invalid, "render", "set-cookie"),
        ("private", Invalid, "render", "private"),
        ("unavailable", ServerError, "render", "503"),
    ] {
        ends(limits(), how, kind, call, words).await;
    }
}

#[tokio::test]
async fn a_talkative_guest_still_makes_its_page() {
    for how in ["stdout", "stderr", "escapes"] {
        let generation = generate(limits(), how).await.unwrap();
        assert!(matches!(generation.outcome, Outcome::Page(..)), "{how}");
    }
}

#[tokio::test]
async fn nothing_is_granted() {
    assert_eq!(props_of("peek").await, "");
    assert_eq!(props_of("settings").await, "hello");
    let generation = generate(limits(), "fetch").await.unwrap();
    let [fetch] = &generation.cost.fetches[..] else {
        panic!("{:?}", generation.cost.fetches)
    };
    assert!(
        fetch.result.is_err() && fetch.url == "http://127.0.0.1:9/x",
        "{fetch:?}"
    );
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

#[tokio::test]
async fn an_artifact_is_kept_and_a_damaged_one_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let engine = || {
        Engine::new(EngineConfig {
            cache: Some(folder.path().to_owned()),
            fast_compile: true,
            ..config()
        })
        .unwrap()
    };
    let bytes = hostile_bytes(WASIP2);
    let fresh = engine().load(bytes.clone()).await.unwrap();
    assert!(fresh.compile_time().is_some() && fresh.compiled_size() > fresh.size());
    let kept = engine().load(bytes.clone()).await.unwrap();
    assert!(kept.compile_time().is_none());
    assert_eq!(
        (kept.digest(), kept.compiled_size()),
        (fresh.digest(), fresh.compiled_size())
    );
    drop(kept);

    for file in std::fs::read_dir(folder.path()).unwrap() {
        // Replaced, not overwritten: `fresh` has it mapped.
        let path = file.unwrap().path();
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, b"garbage").unwrap();
    }
    let again = engine().load(bytes).await.unwrap();
    assert!(again.compile_time().is_some());
    let engine = engine();
    let guest = guest_of(&engine, &again, limits());
    // Another engine's module is refused, not run.
    assert!(guest.generate(&context("fine"), None).await.is_err());
}

#[tokio::test]
async fn a_core_module_is_adapted() {
    let engine = engine();
    let module = engine.load(hostile_bytes(WASIP1)).await.unwrap();
    assert_eq!(module.kind(), ModuleKind::AdaptedCore);
    assert!(module.exports_paths());
    let guest = guest_of(&engine, &module, limits());
    let generation = guest.generate(&context("fine"), None).await.unwrap();
    assert!(matches!(generation.outcome, Outcome::Page(..)));
    let failure = guest.generate(&context("panic"), None).await.unwrap_err();
    assert!(failure.message.contains("no such post: 7"), "{failure}");
}

#[tokio::test]
async fn a_module_tells_what_it_is() {
    let (_, module) = hostile();
    assert_eq!(module.kind(), ModuleKind::Component);
    assert!(module.wants_http() && module.exports_paths());
    assert!(
        module
            .imports()
            .iter()
            .any(|name| name == "wisr:page/host@0.1.0")
    );
    assert_eq!(module.digest(), Digest::of(&hostile_bytes(WASIP2)));
}

async fn refusal(text: &str) -> LoadError {
    let bytes = wat::parse_str(text).unwrap();
    engine().load(bytes).await.expect_err(text)
}

/// A component with a page's names and none of its types, and `core` in its core module.
fn component(core: &str) -> String {
    format!(
        "(component
           (core module $m (func (export \"f\")) {core})
           (core instance $i (instantiate $m))
           (func $f (canon lift (core func $i \"f\")))
           (instance $page (export \"static-props\" (func $f)) (export \"render\" (func $f)))
           (export \"wisr:page/page@0.1.0\" (instance $page)))"
    )
}

#[tokio::test]
async fn files_that_are_no_pages_are_refused_with_a_reason() {
    let refused = async |bytes: &[u8]| engine().load(bytes.to_vec()).await.unwrap_err();
    assert!(matches!(refused(b"<html>").await, LoadError::NotWasm));
    assert!(matches!(refused(b"").await, LoadError::NotWasm));
    assert!(matches!(
        refused(b"\0asm\x0d\0\x01\0\xff\xff").await,
        LoadError::Malformed(_)
    ));
    assert!(matches!(
        refused(b"\0asm\x01\0\0\0\xff\xff").await,
        LoadError::Malformed(_)
    ));
    assert!(matches!(
        refused(&vec![0; (64 << 20) + 1]).await,
        LoadError::TooLarge(_)
    ));
    let native = wasmtime::Engine::default()
        .precompile_component(&wat::parse_str("(component)").unwrap())
        .unwrap();
    assert!(matches!(refused(&native).await, LoadError::Precompiled));
    assert!(matches!(
        refusal("(module)").await,
        LoadError::NoComponentType
    ));
    let error = refusal("(component)").await;
    assert!(
        matches!(&error, LoadError::NoPage(exports) if exports == "nothing"),
        "{error}"
    );
}

#[tokio::test]
async fn modules_that_do_not_fit_are_refused_with_a_reason() {
    let error = refusal(&component("")).await;
    assert!(matches!(error, LoadError::WrongTypes(_)), "{error}");
    let nothing = "(component
        (component $c) (instance $page (instantiate $c))
        (export \"wisr:page/page@0.1.0\" (instance $page)))";
    let error = refusal(nothing).await;
    assert!(
        matches!(&error, LoadError::WrongTypes(why) if why.contains("static-props")),
        "{error}"
    );
    for much in [
        "(memory 4096)",
        "(memory 1) (memory 1) (memory 1) (memory 1) (memory 1)",
        "(table 200000 funcref)",
    ] {
        let error = refusal(&component(much)).await;
        assert!(
            matches!(error, LoadError::NeedsTooMuch(_)),
            "{much}: {error}"
        );
    }
    let error = refusal(
        "(component
           (import \"wasi:http/handler@0.3.0\" (instance (export \"f\" (func))))
           (component $c) (instance $page (instantiate $c))
           (export \"wisr:page/page@0.1.0\" (instance $page)))",
    )
    .await;
    assert!(
        matches!(&error, LoadError::MissingImport(why) if why.contains("wasi:http/handler@0.3.0")),
        "{error}"
    );
}

#[tokio::test]
async fn modules_that_do_not_start_are_refused_with_a_reason() {
    for (core, kind) in [
        ("(start $s) (func $s (loop (br 0)))", FailureKind::Cpu),
        ("(start $s) (func $s unreachable)", FailureKind::Trap),
        (
            "(memory 1) (start $s) (func $s (drop (memory.grow (i32.const 4000))))",
            FailureKind::Memory,
        ),
    ] {
        match refusal(&component(core)).await {
            LoadError::StartUp(failure) => {
                assert_eq!(
                    (failure.kind, failure.call),
                    (kind, "instantiate"),
                    "{failure}"
                );
            }
            other => panic!("{core}: {other}"),
        }
    }
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
