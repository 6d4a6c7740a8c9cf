//! Loading: what becomes a module, and why the rest does not.

use super::super::limits::NAME_BYTES;
use super::*;

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
    // What the first start took is remembered: it was not started again.
    assert_eq!(
        kept.start().wall.as_micros(),
        fresh.start().wall.as_micros()
    );
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
}

#[tokio::test]
async fn a_core_module_is_adapted() {
    let engine = engine();
    let module = engine.load(hostile_bytes(WASIP1)).await.unwrap();
    assert_eq!(module.kind(), ModuleKind::AdaptedCore);
    assert_eq!(module.role().exports(), ["page", "paths"]);
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
    assert!(module.wants_http());
    assert_eq!(module.role().exports(), ["page", "paths"]);
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
        matches!(&error, LoadError::NoRole(exports) if exports == "nothing"),
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
    let words = "it needs more than its sandbox has: 256 MiB of memory from the start, where at most \
                 128 MiB are allowed (limit `memory`)";
    let error = refusal(&component("(memory 4096)")).await;
    assert_eq!(error.to_string(), words);
    for (much, words) in [
        (
            "(memory 1)".repeat(5),
            "5 memories, where at most 4 are allowed (fixed): link its parts into one module",
        ),
        (
            "(table 1 funcref)".repeat(17),
            "17 tables, where at most 16 are allowed (fixed): link its parts into one module",
        ),
        (
            "(table 200000 funcref)".to_owned(),
            "a table of 200000 elements, where at most 100000 are allowed (fixed): call fewer \
             functions through pointers",
        ),
    ] {
        let error = refusal(&component(&much)).await;
        assert!(
            matches!(&error, LoadError::NeedsTooMuch(told) if told == words),
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

/// A component whose core module has this function and this `name` section.
fn named(functions: &[(u32, usize)]) -> Vec<u8> {
    let leb = |mut value: usize| {
        let mut bytes = Vec::new();
        while value >= 0x80 {
            bytes.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        bytes.push(value as u8);
        bytes
    };
    let sized = |id: u8, content: Vec<u8>| [vec![id], leb(content.len()), content].concat();
    let mut names = leb(functions.len());
    for (index, length) in functions {
        names.extend(leb(*index as usize));
        names.extend(leb(*length));
        names.extend(vec![b'x'; *length]);
    }
    let section = [vec![4], b"name".to_vec(), sized(1, names)].concat();
    let mut core = wat::parse_str("(module (func) (func))").unwrap();
    core.extend(sized(0, section));
    let head = b"\0asm\x0d\0\x01\0".to_vec();
    [head, sized(1, core)].concat()
}

#[tokio::test]
async fn names_of_functions_are_bounded() {
    let refused = async |functions: &[(u32, usize)]| {
        let error = engine().load(named(functions)).await.unwrap_err();
        error.to_string()
    };
    let told = refused(&[(0, NAME_BYTES + 1)]).await;
    assert!(told.contains("a name of 100001 bytes"), "{told}");
    let told = refused(&[(0, 1), (1, 1), (7, 1)]).await;
    assert!(
        told.contains("names of 3 functions, of which it has 2"),
        "{told}"
    );
    // As many and as long as they may be: it is refused for being no page.
    let told = refused(&[(0, NAME_BYTES), (1, 1)]).await;
    assert!(told.contains("so it is no page"), "{told}");
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
                    (failure.kind, &*failure.call),
                    (kind, "instantiate"),
                    "{failure}"
                );
            }
            other => panic!("{core}: {other}"),
        }
    }
}

#[tokio::test]
async fn handles_of_the_guests_own_making_are_bounded() {
    let hoarder = "(component
        (type $r (resource (rep i32)))
        (core func $new (canon resource.new $r))
        (core module $m
          (import \"\" \"new\" (func $new (param i32) (result i32)))
          (func (export \"f\"))
          (start $s) (func $s (loop (drop (call $new (i32.const 1))) (br 0))))
        (core instance $i (instantiate $m (with \"\" (instance (export \"new\" (func $new))))))
        (func $f (canon lift (core func $i \"f\")))
        (instance $page (export \"static-props\" (func $f)) (export \"render\" (func $f)))
        (export \"wisr:page/page@0.1.0\" (instance $page)))";
    let error = refusal(hoarder).await;
    assert!(
        matches!(&error, LoadError::StartUp(failure) if failure.kind == FailureKind::Resources
            && failure.message.contains("4096 handles")),
        "{error}"
    );
}

/// An API route of WASI `version`, whose handler takes `parameters` and does nothing.
fn handler(version: &str, parameters: &str, core: &str) -> String {
    format!(
        "(component
           (import \"wasi:http/types@{version}\" (instance $types
             (export \"incoming-request\" (type (sub resource)))
             (export \"response-outparam\" (type (sub resource)))))
           (alias export $types \"incoming-request\" (type $request))
           (alias export $types \"response-outparam\" (type $out))
           (core module $m (func (export \"f\") {core}))
           (core instance $i (instantiate $m))
           (func $f {parameters} (canon lift (core func $i \"f\")))
           (instance $handler (export \"handle\" (func $f)))
           (export \"wasi:http/incoming-handler@{version}\" (instance $handler)))"
    )
}

#[tokio::test]
async fn an_api_route_of_any_compatible_version_is_one() {
    let both = "(param \"request\" (own $request)) (param \"response-out\" (own $out))";
    for version in ["0.2.0", "0.2.99"] {
        let engine = engine();
        let bytes = wat::parse_str(handler(version, both, "(param i32 i32)")).unwrap();
        let module = engine.load(bytes).await.unwrap();
        assert_eq!(module.role().exports(), ["incoming-handler"], "{version}");
        let Role::Api(exports) = *module.role() else {
            panic!("not an API route")
        };
        let guest = ApiGuest::new(Arc::clone(&module), exports, grants(&engine, limits()));
        let request = ::http::Request::builder()
            .header("host", "x")
            .body(bytes::Bytes::new())
            .unwrap();
        match guest.answer(Arc::from("/api/x"), request, nobody()).await {
            Err(Unanswered::Failed(failure)) => {
                assert_eq!(
                    (failure.kind, &*failure.call),
                    (FailureKind::Invalid, "handle")
                );
            }
            other => panic!("{version}: {other:?}"),
        }
    }
    let error = refusal(&handler("0.2.0", "(param \"request\" u32)", "(param i32)")).await;
    assert!(matches!(error, LoadError::WrongTypes(_)), "{error}");
}

#[tokio::test]
async fn a_request_that_finds_no_place_is_not_kept_waiting_for_ever() {
    let engine = engine();
    let both = "(param \"request\" (own $request)) (param \"response-out\" (own $out))";
    let bytes = wat::parse_str(handler("0.2.0", both, "(param i32 i32)")).unwrap();
    let module = engine.load(bytes).await.unwrap();
    let Role::Api(exports) = *module.role() else {
        panic!("not an API route")
    };
    let guest = ApiGuest::new(module, exports, grants(&engine, limits()));
    let mut places = Vec::new();
    for _ in 0..config().instances {
        places.push(engine.place(Purpose::Api).await);
    }
    tokio::time::pause();
    let answer = guest.answer(Arc::from("/api/x"), ::http::Request::default(), nobody());
    assert!(matches!(answer.await, Err(Unanswered::Busy)));
}

#[tokio::test]
async fn a_compiler_that_cannot_be_started_is_no_fault_of_the_module() {
    let engine = Engine::new(EngineConfig {
        compiler: Compiler::Child("/nowhere/wisr".into()),
        ..config()
    });
    let bytes = wat::parse_str("(component)").unwrap();
    let error = engine.unwrap().load(bytes).await.unwrap_err();
    assert!(matches!(error, LoadError::NoCompiler(_)), "{error}");
    assert!(error.may_pass_later() && error.to_string().contains("no process could be started"));
}

/// Every module counts as large.
fn hasty() -> Engine {
    Engine::new(EngineConfig {
        quick: 0,
        ..config()
    })
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_module_runs_on_baseline_code_until_it_has_better() {
    let engine = hasty();
    // The turn is taken, so that better code waits.
    let turn = engine.upgrade_turn().await;
    let module = engine.load(hostile_bytes(WASIP2)).await.unwrap();
    assert_eq!(module.tier(), Tier::Baseline);
    let limits = Limits {
        cpu: Duration::from_millis(200),
        ..limits()
    };
    let guest = guest_of(&engine, &module, limits);
    assert!(guest.generate(&context("fine"), None).await.is_ok());
    let failure = guest.generate(&context("loop"), None).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Cpu);
    assert!(
        failure.cost.cpu >= Duration::from_millis(600),
        "{failure:?}"
    );
    assert!(
        failure.message.contains("600 ms") && failure.message.contains("compiled in haste"),
        "{failure}"
    );
    let failure = guest.generate(&context("panic"), None).await.unwrap_err();
    assert!(failure.message.contains("no such post: 7"), "{failure}");
    assert!(!failure.frames.is_empty());
    drop(turn);
    let digest = module.digest();
    let better = async {
        while module.tier() == Tier::Baseline {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), better)
        .await
        .expect("better code");
    assert_eq!(module.digest(), digest);
    assert!(guest.generate(&context("fine"), None).await.is_ok());
    let failure = guest.generate(&context("loop"), None).await.unwrap_err();
    assert!(failure.message.contains("200 ms"), "{failure}");
}

#[tokio::test]
async fn the_baseline_runtime_and_the_work_for_better_code_end_with_the_module() {
    let engine = hasty();
    let turn = engine.upgrade_turn().await;
    let module = engine.load(hostile_bytes(WASIP2)).await.unwrap();
    let runtime = Arc::downgrade(&module.code().runtime);
    assert!(runtime.upgrade().is_some());
    drop(module);
    assert!(runtime.upgrade().is_none());
    // The work that waits for its turn is told now, and gone when it would be its turn.
    tokio::task::yield_now().await;
    drop(turn);
    assert!(engine.upgrade_turn().now_or_never().is_some());
}
