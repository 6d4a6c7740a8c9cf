//! What every [`Store`] must hold, and the entries that the tests of this room are made of.

use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use tokio::runtime::Handle;

use super::durable::Durable;
use super::{Brief, Config, Memory, Store, Tiers, Unkept, Window};
use crate::page::{
    Cause, Content, Cost, Digest, Entry, PageKey, Payload, Revalidate, Stamp, Summary, Tag,
    Timestamp,
};
use crate::telemetry::metrics::Metrics;

/// A document made at `generated`, of the route `/posts/[id]`.
pub(super) fn document(path: &str, generated: u64, text: &str) -> Entry {
    let html = HeaderValue::from_static("text/html; charset=utf-8");
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, html.clone());
    headers.append("x-two", HeaderValue::from_static("1"));
    headers.append("x-two", HeaderValue::from_static("2"));
    let json = Bytes::from(format!("{{\"text\":{text:?}}}"));
    let content = Content::Document {
        status: StatusCode::OK,
        headers,
        body: Payload::encode(Bytes::from(text.to_owned()), Some(&html)),
        props: Digest::of(&json),
        data: Payload::encode(json, Some(&HeaderValue::from_static("application/json"))),
    };
    entry(path, generated, content)
}

/// An entry made at `generated`, of the route `/posts/[id]`.
pub(super) fn entry(path: &str, generated: u64, content: Content) -> Entry {
    let generated = Timestamp::from_millis(generated);
    let revalidate = Revalidate::After(60);
    Entry {
        key: PageKey::new(path, &[]),
        route: Arc::from("/posts/[id]"),
        stamp: Stamp {
            generated,
            revalidate,
            fresh_until: revalidate.fresh_until(generated, 0.5),
            module: Digest::of(b"module"),
            sequence: 0,
            tags: [Tag::new("posts").unwrap(), Tag::new("größe").unwrap()].into(),
        },
        content,
        cause: Some(Cause::Stale),
        cost: Cost {
            cpu: std::time::Duration::from_micros(1_234),
            memory: 65_536,
            ..Cost::default()
        },
    }
}

/// All that an entry says, to compare entries.
pub(super) fn told(entry: Option<Arc<Entry>>) -> String {
    entry.map_or_else(|| "none".to_owned(), |entry| format!("{entry:?}"))
}

/// `settle` waits until what was put is where it stays, or does not.
fn conforms(store: &dyn Store, settle: impl Fn()) {
    let key = |path: &str| PageKey::new(path, &[]);
    let put = |entry: Entry| {
        let entry = Arc::new(entry);
        store.put(entry.clone()).unwrap();
        settle();
        told(Some(entry))
    };
    assert_eq!(told(store.get(&key("/posts/1"))), "none");

    // The newest wins, whatever its kind, and says what it said.
    for content in [None, Some(Content::NotFound), None, Some(redirect())] {
        let made = match content {
            Some(content) => entry("/posts/1", 1_000, content),
            None => document("/posts/1", 2_000, &"long enough to be coded ".repeat(40)),
        };
        let expected = put(made);
        assert_eq!(told(store.get(&key("/posts/1"))), expected);
    }

    // Listed in the order of their keys, none twice, at most as many as asked for.
    for path in ["/posts/3", "/posts/2", "/posts/2?q=1", "/other"] {
        put(document(path, 1, path));
    }
    let paths = |prefix: &str, limit| -> Vec<String> {
        let listed = store.list(&Window::new(prefix, limit)).into_iter();
        listed.map(|entry| entry.key.to_string()).collect()
    };
    assert_eq!(
        paths("/posts/", 9),
        ["/posts/1", "/posts/2", "/posts/2?q=1", "/posts/3"]
    );
    assert_eq!(paths("/", 2), ["/other", "/posts/1"]);
    assert_eq!(paths("/posts/9", 9), [""; 0]);
    assert_eq!(paths("", 0), [""; 0]);
    is_listed_in_parts(store);

    // Gone is gone.
    assert!(store.remove(&key("/posts/2")));
    assert!(!store.remove(&key("/posts/2")));
    assert_eq!(told(store.get(&key("/posts/2"))), "none");
    assert_eq!(paths("/posts/2", 9), ["/posts/2?q=1"]);

    is_looked_through(store);

    // What is removed may be made again.
    let expected = put(document("/posts/2", 3, "again"));
    assert_eq!(told(store.get(&key("/posts/2"))), expected);
    assert!(store.remove(&key("/posts/2")));

    // A route takes its pages with it, and no others: a page is of the route that made it last.
    put(document("/posts/9", 1, "one"));
    let mut of_another = document("/posts/9", 1, "another");
    of_another.route = Arc::from("/posts/9");
    let expected = put(of_another);
    let is_gone = |route: &str| route == "/posts/[id]";
    assert_eq!(store.remove_routes(&is_gone), 4);
    assert_eq!(store.remove_routes(&is_gone), 0);
    assert_eq!(paths("", 9), ["/posts/9"]);
    assert_eq!(told(store.get(&key("/posts/9"))), expected);
}

/// Whoever writes at the same time, each page is one that was put, whole and under its own key.
fn keeps_pages_apart(store: &dyn Store) {
    let work = |worker: u64| {
        for turn in 0..300 {
            let path = format!("/apart/{}", (turn + worker * 7) % 5);
            let key = PageKey::new(&path, &[]);
            if turn % 3 == 2 {
                store.remove(&key);
            } else {
                store.put(Arc::new(document(&path, turn, &path))).unwrap();
            }
            if let Some(entry) = store.get(&key) {
                let as_put = document(&path, entry.stamp.generated.as_millis(), &path);
                assert_eq!(told(Some(entry)), told(Some(Arc::new(as_put))));
            }
        }
    };
    std::thread::scope(|scope| {
        for worker in 0..4 {
            scope.spawn(move || work(worker));
        }
    });
}

/// Looked through, each is seen once, and nothing more once enough was seen.
fn is_looked_through(store: &dyn Store) {
    let mut seen = Vec::new();
    store.survey(&mut |brief| {
        seen.push((brief.key.to_owned(), brief.is_document));
        assert_eq!(brief.route, "/posts/[id]");
        ControlFlow::Continue(())
    });
    seen.sort();
    let all = [
        ("/other", true),
        ("/posts/1", false),
        ("/posts/2?q=1", true),
        ("/posts/3", true),
    ];
    assert_eq!(
        seen,
        all.map(|(key, is_document)| (key.to_owned(), is_document))
    );
    let mut count = 0;
    store.survey(&mut |_| {
        count += 1;
        ControlFlow::Break(())
    });
    assert_eq!(count, 1);
}

/// A list goes on where another one ended, and tells of each what it is.
fn is_listed_in_parts(store: &dyn Store) {
    for (after, expected) in [
        ("/posts/1", &["/posts/2", "/posts/2?q=1"][..]),
        ("/posts/2", &["/posts/2?q=1", "/posts/3"]),
        ("/posts/2?q=1", &["/posts/3"]),
        ("/posts/3", &[]),
        ("/a", &["/posts/1", "/posts/2"]),
        ("/z", &[]),
    ] {
        let window = Window {
            after: Some(after.to_owned()),
            ..Window::new("/posts/", 2)
        };
        let listed = store.list(&window);
        let shown: Vec<_> = listed.iter().map(|entry| entry.key.as_str()).collect();
        assert_eq!(shown, expected, "after {after}");
    }
    let listed = store.list(&Window::new("/posts/2", 1));
    let entry = store.get(&PageKey::new("/posts/2", &[])).unwrap();
    assert_eq!(format!("{:?}", listed[0]), format!("{:?}", entry.summary()));
}

fn redirect() -> Content {
    Content::Redirect {
        location: HeaderValue::from_static("/new"),
        status: StatusCode::PERMANENT_REDIRECT,
    }
}

/// All tiers as what they are together: a store.
struct Together(Arc<Tiers>, Handle);

impl Store for Together {
    fn get(&self, key: &PageKey) -> Option<Arc<Entry>> {
        self.1.block_on(self.0.find(key))
    }

    fn put(&self, entry: Arc<Entry>) -> Result<(), Unkept> {
        self.0.put(entry);
        Ok(())
    }

    fn remove(&self, key: &PageKey) -> bool {
        let was_there = self.get(key).is_some();
        self.0.remove(key);
        was_there
    }

    fn remove_routes(&self, is_gone: &dyn Fn(&str) -> bool) -> usize {
        let routes = ["/posts/[id]", "/posts/9"].map(|route| (route, is_gone(route)));
        let is_gone = move |route: &str| routes.contains(&(route, true));
        self.1.block_on(self.0.remove_routes(is_gone))
    }

    /// By a tag that all entries of these tests have.
    fn survey(&self, visit: &mut dyn FnMut(Brief<'_>) -> ControlFlow<()>) {
        let posts = [Tag::new("posts").unwrap()];
        let tagged = self.1.block_on(self.0.tagged(&posts, usize::MAX));
        let entries = tagged.iter().filter_map(|key| self.get(key));
        for entry in entries {
            if visit(Brief::of(&entry)).is_break() {
                return;
            }
        }
    }

    fn list(&self, window: &Window) -> Vec<Summary> {
        self.1.block_on(self.0.list(window.clone()))
    }
}

#[test]
fn memory_conforms() {
    let memory = Memory::new(1 << 20, Arc::new(Metrics::new()));
    conforms(&memory, || {});
    keeps_pages_apart(&memory);
}

/// Whether its pages wait to be written or are on disk.
#[tokio::test]
async fn durable_conforms() {
    let handle = Handle::current();
    let tested = tokio::task::spawn_blocking(move || {
        for is_written in [false, true] {
            let folder = tempfile::tempdir().unwrap();
            let metrics = Arc::new(Metrics::new());
            let (durable, _) =
                Durable::open(folder.path(), 1 << 20, Default::default(), metrics).unwrap();
            conforms(&durable, || {
                if is_written {
                    handle.block_on(durable.committed()).unwrap();
                }
            });
            keeps_pages_apart(&durable);
        }
    });
    tested.await.unwrap();
}

/// Together, with room for all pages in memory, for some, for none, and without a disk.
#[tokio::test]
async fn tiers_conform() {
    let some = document("/posts/1", 1, "").weight() * 3;
    for (memory, has_disk) in [(1 << 20, true), (some, true), (1, true), (1 << 20, false)] {
        let folder = tempfile::tempdir().unwrap();
        let config = Config {
            memory,
            folder: has_disk.then(|| folder.path().to_owned()),
            disk: crate::store::Space::default(),
        };
        let tiers = Tiers::open(config, Arc::new(Metrics::new())).unwrap();
        let together = Together(tiers, Handle::current());
        let tested = tokio::task::spawn_blocking(move || {
            conforms(&together, || {
                let persisted = together.0.persisted();
                together.1.block_on(persisted).unwrap();
            });
            keeps_pages_apart(&together);
        });
        tested.await.unwrap();
    }
}
