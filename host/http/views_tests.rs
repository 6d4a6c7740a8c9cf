//! Views over a real memory tier, looked at from several threads.

use std::sync::mpsc::{Receiver, Sender, channel};

use http::{HeaderMap, Method};
use tokio::runtime::Handle;

use super::super::respond::tests::{document, holding};
use super::*;
use crate::isr;
use crate::page::{
    Context, Digest, Document, Failure, Generation, PathList, Pending, Policy, Render, Revalidate,
    Tag,
};
use crate::store::{self, Mark, Tiers};
use crate::telemetry::Clock;
use crate::telemetry::metrics::Metrics;

const MADE: Timestamp = Timestamp::from_millis(784_111_777_900);

/// The module of the entries that `holding` makes; nothing here is rendered.
struct Unasked;

impl Render for Unasked {
    fn module(&self) -> Digest {
        Digest::of(b"module")
    }

    fn generate<'a>(
        &'a self,
        _: &'a Context,
        _: Option<Digest>,
    ) -> Pending<'a, Result<Generation, Failure>> {
        unreachable!()
    }

    fn shell<'a>(&'a self, _: &'a Context) -> Pending<'a, Result<Document, Failure>> {
        unreachable!()
    }

    fn static_paths(&self, _: Arc<str>) -> Pending<'_, Result<PathList, Failure>> {
        unreachable!()
    }
}

struct Site {
    store: Arc<Tiers>,
    isr: Isr,
    page: Page,
    views: Views,
}

impl Site {
    fn new(memory: usize) -> Self {
        let metrics = Arc::new(Metrics::new());
        let config = store::Config {
            memory,
            folder: None,
            disk: crate::store::Space::default(),
        };
        let store = Tiers::open(config, metrics.clone()).unwrap();
        let parts = isr::Parts {
            store: store.clone(),
            clock: Clock::starting_at(MADE),
            runtime: Handle::current(),
            incidents: Arc::default(),
            metrics,
        };
        let config = isr::Config {
            concurrency: 1,
            queue: 1,
            wait: Duration::ZERO,
            await_module: false,
        };
        let policy = Policy {
            revalidate: Revalidate::Never,
            max_stale: Duration::from_secs(31_536_000),
            render_on_change: false,
            concurrency: 1,
        };
        Self {
            store,
            isr: Isr::new(config, parts),
            page: Page {
                route: Arc::from("/posts/[id]"),
                renderer: Arc::new(Unasked),
                policy,
            },
            views: Views {
                one_in: 1,
                ..Views::default()
            },
        }
    }

    /// What a reader of the page gets so long after it was made.
    fn get(&self, millis: u64, face: Face) -> Option<Response<Body>> {
        let (headers, method) = (HeaderMap::new(), Method::GET);
        self.views.answer(&Asked {
            isr: &self.isr,
            page: &self.page,
            path: "/posts/1",
            query: &[],
            face,
            reader: Reader {
                headers: &headers,
                method: &method,
            },
            now: MADE.plus(Duration::from_millis(millis)),
        })
    }

    fn text(&self) -> Option<String> {
        match self.get(0, Face::Page)?.into_body() {
            Body::Full(bytes) => Some(String::from_utf8_lossy(&bytes[..8]).into_owned()),
            other => panic!("{other:?}"),
        }
    }

    fn put(&self, text: &str, revalidate: Revalidate) {
        self.store.put(holding(document(text), revalidate, MADE));
    }
}

/// Answers for as long as it is asked, on one thread.
fn look(site: &Site, asked: &Receiver<()>, seen: &Sender<Option<String>>) {
    while asked.recv().is_ok() {
        seen.send(site.text()).unwrap();
    }
}

#[tokio::test]
async fn whatever_happens_to_a_page_the_next_reader_on_every_thread_sees_it() {
    let site = &Site::new(1 << 20);
    std::thread::scope(|scope| {
        let threads = [(); 2].map(|()| {
            let ((ask, asked), (see, seen)) = (channel(), channel());
            scope.spawn(move || look(site, &asked, &see));
            (ask, seen)
        });
        let expect = |expected: Option<&str>| {
            // Twice, so that the second answer comes from a view, where there may be one.
            for _ in 0..2 {
                for (ask, seen) in &threads {
                    ask.send(()).unwrap();
                    assert_eq!(seen.recv().unwrap().as_deref(), expected);
                }
            }
        };
        expect(None);
        site.put("first", Revalidate::Never);
        expect(Some("<p>first"));
        site.put("again", Revalidate::Never);
        expect(Some("<p>again"));
        site.store.remove(&PageKey::new("/posts/1", &[]));
        expect(None);
        site.put("third", Revalidate::Never);
        expect(Some("<p>third"));
        site.store.mark([Mark::Tag(Tag::new("other").unwrap())]);
        expect(Some("<p>third"));
        site.store.mark([Mark::Path(PageKey::new("/posts/1", &[]))]);
        expect(None);
    });
}

#[tokio::test]
async fn a_view_tells_each_second_s_age_and_ends_with_the_freshness() {
    let site = Site::new(1 << 20);
    site.put("hello", Revalidate::After(2));
    let told = |millis, face| {
        let headers = site.get(millis, face)?.into_parts().0.headers;
        let told = ["age", "cache-status", "content-type"];
        Some(told.map(|name| headers[name].to_str().unwrap().to_owned()))
    };
    let html = "text/html; charset=utf-8";
    for (millis, age, status) in [
        (0, "0", "wisr; hit; ttl=2"),
        (1, "0", "wisr; hit; ttl=1"),
        (900, "0", "wisr; hit; ttl=1"),
        (1_000, "1", "wisr; hit; ttl=1"),
        (1_999, "1", "wisr; hit; ttl=0"),
    ] {
        for (face, kind) in [(Face::Page, html), (Face::Data, "application/json")] {
            for _ in 0..2 {
                let told = told(millis, face).unwrap();
                assert_eq!(told, [age, status, kind], "{millis} {face:?}");
            }
        }
    }
    assert!(told(2_000, Face::Page).is_none());
}

#[tokio::test]
async fn a_page_that_is_answered_from_views_alone_is_not_the_first_to_be_evicted() {
    let weight = holding(document("hello"), Revalidate::Never, MADE).weight();
    let site = Site::new(weight * 1_000);
    site.put("hello", Revalidate::Never);
    for second in 0..20 {
        assert!(site.get(second * 1_000, Face::Page).is_some(), "{second}");
        for number in 0..200 {
            let path = format!("/posts/{second}-{number}");
            let mut other = holding(document("hello"), Revalidate::Never, MADE);
            Arc::get_mut(&mut other).unwrap().key = PageKey::new(&path, &[]);
            site.store.put(other.clone());
            // A second look, and it is as protected as the page itself.
            site.store.get_hot(&other.key);
        }
    }
}

#[test]
fn packed_headers_are_what_they_were() {
    let mut headers = HeaderMap::new();
    headers.insert("etag", HeaderValue::from_static("\"a\""));
    headers.append("link", HeaderValue::from_static("</a>; rel=preload"));
    headers.append("link", HeaderValue::from_static("</b>; rel=preload"));
    headers.insert("x-empty", HeaderValue::from_static(""));
    headers.insert("vary", HeaderValue::from_static("accept-encoding"));
    assert_eq!(packed(headers.clone()), headers);
}
