//! What every [`Store`] must hold, and the entries that the tests of this room are made of.

use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};

use super::durable::Durable;
use super::{Memory, Store};
use crate::page::{
    Content, Cost, Digest, Entry, PageKey, Payload, Revalidate, Stamp, Tag, Timestamp,
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

fn conforms(store: &dyn Store) {
    let key = |path: &str| PageKey::new(path, &[]);
    let put = |entry: Entry| {
        let entry = Arc::new(entry);
        store.put(entry.clone()).unwrap();
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
        let listed = store.list(prefix, limit).into_iter();
        listed.map(|entry| entry.key.to_string()).collect()
    };
    assert_eq!(
        paths("/posts/", 9),
        ["/posts/1", "/posts/2", "/posts/2?q=1", "/posts/3"]
    );
    assert_eq!(paths("/", 2), ["/other", "/posts/1"]);
    assert_eq!(paths("/posts/9", 9), [""; 0]);
    assert_eq!(paths("", 0), [""; 0]);

    // Gone is gone.
    assert!(store.remove(&key("/posts/2")));
    assert!(!store.remove(&key("/posts/2")));
    assert_eq!(told(store.get(&key("/posts/2"))), "none");
    assert_eq!(paths("/posts/2", 9), ["/posts/2?q=1"]);

    is_looked_through(store);

    // A route takes its pages with it, and no others.
    let mut of_another = document("/posts/9", 1, "another");
    of_another.route = Arc::from("/posts/9");
    let expected = put(of_another);
    let is_gone = |route: &str| route == "/posts/[id]";
    assert_eq!(store.remove_routes(&is_gone), 4);
    assert_eq!(store.remove_routes(&is_gone), 0);
    assert_eq!(paths("", 9), ["/posts/9"]);
    assert_eq!(told(store.get(&key("/posts/9"))), expected);
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

fn redirect() -> Content {
    Content::Redirect {
        location: HeaderValue::from_static("/new"),
        status: StatusCode::PERMANENT_REDIRECT,
    }
}

#[test]
fn memory_conforms() {
    conforms(&Memory::new(1 << 20, Arc::new(Metrics::new())));
}

#[test]
fn durable_conforms() {
    let folder = tempfile::tempdir().unwrap();
    let metrics = Arc::new(Metrics::new());
    let (durable, _) = Durable::open(folder.path(), 1 << 20, None, metrics).unwrap();
    conforms(&durable);
}
