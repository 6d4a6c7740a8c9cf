//! Misdeeds: each ends as it should, and its account says so.

use super::*;

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
        "beyond its 128 MiB (limit `memory`)",
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
        "beyond its 32 MiB",
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
async fn what_the_host_holds_for_a_guest_is_its_memory() {
    use FailureKind::{Memory, Resources};
    let small = Limits {
        memory: 24 << 20,
        ..limits()
    };
    for how in [
        "bodies", "answers", "fields", "lists", "clones", "shares", "trailers", "methods",
        "targets",
    ] {
        let words =
            "in HTTP messages that the host holds for it, beyond its 24 MiB (limit `memory`)";
        let how = format!("hold-{how}");
        let failure = ends(small.clone(), &how, Memory, "static-props", words).await;
        let held = failure.cost.memory;
        assert!(held > 12 << 20 && held <= 24 << 20, "{how}: {held}");
    }
    for how in [
        "hold-options",
        "hold-streams",
        "handles",
        "futures",
        "poll",
        "long-setting",
    ] {
        ends(limits(), how, Resources, "static-props", "").await;
    }
    // Whichever comes first: what is refused is given back as soon as somebody gets round to it.
    let failure = generate(small, "hold-sent").await.unwrap_err();
    assert!(matches!(failure.kind, Memory | Resources), "{failure}");
}

#[tokio::test]
async fn what_a_listing_returns_is_bounded() {
    let engine = Engine::new(EngineConfig {
        max_memory: 1 << 30,
        fast_compile: true,
        ..config()
    });
    let engine = engine.unwrap();
    let module = engine.load(hostile_bytes(WASIP2)).await.unwrap();
    let wide = Limits {
        memory: 1 << 30,
        ..limits()
    };
    let Role::Page(exports) = *module.role() else {
        panic!("not a page")
    };
    let settings = BTreeMap::from([("paths".to_owned(), "vast-list".to_owned())]);
    let grants = Grants {
        settings: Arc::new(settings),
        ..grants(&engine, wide)
    };
    let guest = Guest::new(Arc::clone(&module), exports, grants);
    let failure = guest.static_paths("/a".into()).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Output, "{failure}");
    assert!(failure.message.contains("160 MiB"), "{failure}");
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
async fn a_recursion_is_one_frame() {
    let failure = ends(limits(), "recursion", FailureKind::Trap, "render", "recur").await;
    let [frame, ..] = &failure.frames[..] else {
        panic!("no frames")
    };
    assert!(
        frame.function.contains("recurse (") && frame.function.ends_with(" times)"),
        "{frame:?}"
    );
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
async fn without_a_pool_the_same_limits_hold() {
    // More memories than there is address space for.
    let engine = Engine::new(EngineConfig {
        instances: 1_000_000,
        fast_compile: true,
        ..config()
    })
    .unwrap();
    assert!(
        engine
            .runtime()
            .engine
            .pooling_allocator_metrics()
            .is_none()
    );
    let module = engine.load(hostile_bytes(WASIP2)).await.unwrap();
    let guest = guest_of(&engine, &module, limits());
    assert!(guest.generate(&context("fine"), None).await.is_ok());
    let failure = guest.generate(&context("bomb"), None).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Memory, "{failure}");
}

#[tokio::test]
async fn absurd_limits_are_no_panic() {
    let absurd = Limits {
        cpu: Duration::MAX,
        wall: Duration::MAX,
        memory: u64::MAX,
        page: u64::MAX,
        props: u64::MAX,
        fetches: u32::MAX,
        fetches_in_flight: u32::MAX,
        fetch_bytes: u64::MAX,
    };
    generate(absurd.clone(), "fine").await.unwrap();
    generate(absurd, "fetch").await.unwrap();
    let nothing = Limits {
        cpu: Duration::ZERO,
        wall: Duration::ZERO,
        memory: 0,
        page: 0,
        props: 0,
        fetches: 0,
        fetches_in_flight: 0,
        fetch_bytes: 0,
    };
    generate(nothing, "fine").await.unwrap_err();
}
