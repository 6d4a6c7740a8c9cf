//! What entries hold of the process's memory, in a process of its own: nothing else may allocate
//! meanwhile, and the allocator is the program's.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]
#![expect(unsafe_code, reason = "an allocator is unsafe by its nature")]

use std::alloc::{GlobalAlloc, Layout};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use mimalloc::MiMalloc;
use wisr::page::{
    Cause, Content, Cost, Digest, Entry, Fetch, PageKey, Payload, Revalidate, Stamp, Tag, Timestamp,
};
use wisr::store::{Config, Tiers};
use wisr::telemetry::metrics::Metrics;

/// The program's allocator, which tells how much it has given out.
struct Counting;

/// Bytes given out and not yet taken back, with what the allocator adds to each.
static HELD: AtomicUsize = AtomicUsize::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: every call is mimalloc's; what is added only counts.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as the caller promises; what was given out is mimalloc's.
        unsafe {
            let given = MiMalloc.alloc(layout);
            HELD.fetch_add(MiMalloc.usable_size(given), Ordering::Relaxed);
            given
        }
    }

    unsafe fn dealloc(&self, given: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises: it was given out by `alloc`.
        unsafe {
            HELD.fetch_sub(MiMalloc.usable_size(given), Ordering::Relaxed);
            MiMalloc.dealloc(given, layout);
        }
    }
}

/// Enough that what the tier itself holds, and what the allocator keeps for later, is a small part.
const ENTRIES: u64 = 6_000;

/// What is counted is as much as is held, and at most so many percent more: a quarter of it is for
/// what an allocator cannot use again.
const MORE: u64 = 40;

type Make = fn(u64) -> Entry;

fn entry(number: u64, content: Content) -> Entry {
    let generated = Timestamp::from_millis(1_900_000_000_000 + number);
    Entry {
        key: PageKey::new(&format!("/posts/{number}"), &[]),
        route: Arc::from("/posts/[id]"),
        stamp: Stamp {
            generated,
            revalidate: Revalidate::After(60),
            fresh_until: Revalidate::After(60).fresh_until(generated, 0.5),
            module: Digest::of(b"module"),
            sequence: 0,
            tags: [Tag::new("posts").unwrap()].into(),
        },
        content,
        cause: Some(Cause::FirstRequest),
        cost: Cost::default(),
    }
}

/// A page of `size` bytes that compresses as text does, with its props.
fn document(number: u64, size: usize) -> Content {
    let mut random = fastrand::Rng::with_seed(number);
    let mut words = String::new();
    while words.len() < size {
        words.extend(std::iter::repeat_with(|| random.alphanumeric()).take(6));
        words.push_str(" and so on it went with <em>words</em> of a page ");
    }
    words.truncate(size);
    // As guests hand them over.
    let words = words.into_boxed_str().into_string();
    let html = HeaderValue::from_static("text/html; charset=utf-8");
    let json = HeaderValue::from_static("application/json");
    let props = Bytes::from(format!(
        "{{\"id\":{number},\"title\":{:?}}}",
        &words[..size / 20]
    ));
    Content::Document {
        status: StatusCode::OK,
        headers: HeaderMap::from_iter([(header::CONTENT_TYPE, html.clone())]),
        body: Payload::encode(Bytes::from(words), Some(&html)),
        props: Digest::of(&props),
        data: Payload::encode(props, Some(&json)),
    }
}

/// As many headers as a page may have, each with a value of its own.
fn with_headers(content: Content) -> Content {
    let Content::Document {
        status,
        body,
        data,
        props,
        ..
    } = content
    else {
        unreachable!("a document");
    };
    let header = |number: u32| {
        let name = HeaderName::try_from(format!("x-{number}")).unwrap();
        let value = HeaderValue::try_from(format!("value {number}")).unwrap();
        (name, value)
    };
    let headers = (0..64).map(header).collect();
    Content::Document {
        status,
        headers,
        body,
        data,
        props,
    }
}

fn held() -> u64 {
    HELD.load(Ordering::Relaxed) as u64
}

fn fill(tiers: &Tiers, numbers: Range<u64>, make: Make) {
    for number in numbers {
        tiers.put(Arc::new(make(number)));
    }
}

#[test]
fn the_budget_counts_what_entries_hold() {
    let kinds: [(&str, Make); 8] = [
        ("not found", |n| entry(n, Content::NotFound)),
        ("redirect", |n| {
            let location = HeaderValue::from_static("/elsewhere");
            let status = StatusCode::FOUND;
            entry(n, Content::Redirect { location, status })
        }),
        ("small page", |n| entry(n, document(n, 400))),
        ("page of 4 KB", |n| entry(n, document(n, 4_000))),
        ("page of 20 KB", |n| entry(n, document(n, 20_000))),
        ("page of many headers", |n| {
            entry(n, with_headers(document(n, 400)))
        }),
        ("page of many tags", |n| {
            let mut entry = entry(n, document(n, 400));
            let tags = (0..64).map(|tag| Tag::new(&format!("tag-{tag}")).unwrap());
            entry.stamp.tags = tags.collect();
            entry
        }),
        ("page of many requests", |n| {
            let mut entry = entry(n, document(n, 400));
            let fetch = |n: u64| Fetch {
                method: "GET".to_owned(),
                url: format!("http://127.0.0.1:3000/posts/{n}.json"),
                result: Ok(200),
                began: Duration::ZERO,
                duration: Duration::ZERO,
                bytes: 100,
            };
            entry.cost.fetches = (0..32).map(fetch).collect();
            entry
        }),
    ];
    for (kind, make) in kinds {
        let metrics = Arc::new(Metrics::new());
        let config = Config {
            memory: 1 << 30,
            folder: None,
            disk: wisr::store::Space::default(),
        };
        let tiers = Tiers::open(config, metrics.clone()).unwrap();
        fill(&tiers, 0..ENTRIES / 6, make);
        let (before, counted) = (held(), metrics.memory_bytes.get());
        fill(&tiers, ENTRIES / 6..ENTRIES, make);
        let held = held() - before;
        let counted = u64::try_from(metrics.memory_bytes.get() - counted).unwrap();
        let told = format!("{kind}: {held} bytes are held, {counted} counted");
        assert!(held > 0 && counted >= held, "{told}");
        assert!(counted * 100 <= held * (100 + MORE), "{told}");
    }
}
