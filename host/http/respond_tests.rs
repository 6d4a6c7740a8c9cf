//! Responses from entries made by hand.

use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::isr::Served;
use crate::page::{Cost, Digest, Failure, FailureKind, PageKey, Revalidate, Stamp, Timestamp};

const NOW: Timestamp = Timestamp::from_millis(784_111_777_900);
const YEAR: Duration = Duration::from_secs(31_536_000);

/// An entry with this content, for the tests of this folder.
pub(in super::super) fn holding(
    content: Content,
    revalidate: Revalidate,
    at: Timestamp,
) -> Arc<Entry> {
    Arc::new(Entry {
        key: PageKey::new("/posts/1", &[]),
        route: Arc::from("/posts/[id]"),
        stamp: Stamp {
            generated: at,
            revalidate,
            fresh_until: revalidate.fresh_until(at, 0.0),
            module: Digest::of(b"module"),
            sequence: 0,
            tags: Box::default(),
        },
        content,
        cause: None,
        cost: Cost::default(),
    })
}

pub(in super::super) fn document(text: &str) -> Content {
    let kind = HeaderValue::from_static("text/html; charset=utf-8");
    let headers = HeaderMap::from_iter([
        (header::CONTENT_TYPE, kind.clone()),
        (header::CONTENT_LANGUAGE, HeaderValue::from_static("en")),
    ]);
    let json = HeaderValue::from_static("application/json");
    let props = Bytes::from(format!("{{\"text\":{text:?}}}"));
    Content::Document {
        status: StatusCode::OK,
        headers,
        body: Payload::encode(
            Bytes::from(format!("<p>{text}</p>").repeat(100)),
            Some(&kind),
        ),
        props: Digest::of(&props),
        data: Payload::encode(props, Some(&json)),
    }
}

/// A page that was made `at`.
pub(in super::super) fn entry(revalidate: Revalidate, at: Timestamp) -> Arc<Entry> {
    holding(document("hello"), revalidate, at)
}

fn hit(content: Content) -> Served {
    Served::Hit {
        entry: holding(content, Revalidate::After(60), NOW),
        ttl: Some(Duration::from_secs(60)),
    }
}

struct Sent {
    status: u16,
    headers: HeaderMap,
    body: String,
}

impl Sent {
    fn new(response: Response<Body>) -> Self {
        let (parts, body) = response.into_parts();
        let body = match body {
            Body::Empty => String::new(),
            Body::Full(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Body::Stream(_) => panic!("pages are not streamed"),
        };
        Self {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body,
        }
    }

    fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }
}

fn send(asked: &[(header::HeaderName, &str)], served: &Served, face: Face) -> Sent {
    let headers = asked
        .iter()
        .map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap()))
        .collect();
    let reader = Reader {
        headers: &headers,
        method: &Method::GET,
    };
    let showing = Showing::of(served, NOW, YEAR).unwrap();
    Sent::new(match face {
        Face::Page => reader.page(&showing, None),
        Face::Data => reader.data(&showing),
    })
}

fn get(asked: &[(header::HeaderName, &str)], served: &Served) -> Sent {
    send(asked, served, Face::Page)
}

#[test]
fn a_hit_has_every_header_of_the_design() {
    let sent = get(&[], &hit(document("hello")));
    assert_eq!(sent.status, 200);
    for (name, value) in [
        ("x-wisr-cache", "HIT"),
        (
            "cache-control",
            "public, max-age=0, s-maxage=60, stale-while-revalidate=31535940",
        ),
        ("age", "0"),
        ("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT"),
        ("content-length", "1200"),
        ("content-type", "text/html; charset=utf-8"),
        ("content-language", "en"),
        ("vary", "accept-encoding"),
        ("cache-status", "wisr; hit; ttl=60"),
        ("content-encoding", ""),
    ] {
        assert_eq!(sent.header(name), value, "{name}");
    }
    assert_eq!(sent.body.len(), 1200);
    assert_eq!(sent.header("etag").len(), 34);
}

#[test]
fn each_coding_has_its_own_etag_and_length_and_is_known_by_it() {
    let served = hit(document("hello"));
    let mut etags = std::collections::HashSet::new();
    for coding in ["br", "zstd", "gzip", "identity"] {
        let asked = (header::ACCEPT_ENCODING, coding);
        let sent = get(std::slice::from_ref(&asked), &served);
        let named = if coding == "identity" { "" } else { coding };
        assert_eq!(sent.header("content-encoding"), named);
        let etag = sent.header("etag").to_owned();
        let again = get(&[asked, (header::IF_NONE_MATCH, &etag)], &served);
        assert_eq!((again.status, again.body.as_str()), (304, ""));
        assert_eq!(again.header("etag"), etag);
        etags.insert(etag);
    }
    assert_eq!(etags.len(), 4);
}

#[test]
fn a_304_has_what_updates_a_cache_and_no_more() {
    let sent = get(&[(header::IF_NONE_MATCH, "*")], &hit(document("hello")));
    assert_eq!(sent.status, 304);
    for name in [
        "etag",
        "cache-control",
        "vary",
        "age",
        "cache-status",
        "last-modified",
        "x-wisr-cache",
    ] {
        assert!(!sent.header(name).is_empty(), "{name}");
    }
    for name in ["content-type", "content-length", "content-encoding"] {
        assert_eq!(sent.header(name), "", "{name}");
    }
}

#[test]
fn not_found_and_redirects_are_cached_like_pages() {
    let location = HeaderValue::from_static("/new?a=1&b=\"");
    let redirect = hit(Content::Redirect {
        location,
        status: StatusCode::TEMPORARY_REDIRECT,
    });
    let sent = get(&[(header::IF_NONE_MATCH, "*")], &redirect);
    assert_eq!(
        (sent.status, sent.header("location")),
        (307, "/new?a=1&b=\"")
    );
    assert!(sent.body.contains("/new?a=1&amp;b=&quot;"));
    assert!(sent.header("cache-control").contains("s-maxage=60"));

    let absent = hit(Content::NotFound);
    let sent = get(&[(header::IF_NONE_MATCH, "*")], &absent);
    assert_eq!((sent.status, sent.header("x-wisr-cache")), (404, "HIT"));
    assert!(sent.header("cache-control").contains("s-maxage=60"));
    assert!(sent.body.contains("<h1>404"));

    let own = entry(Revalidate::Never, NOW);
    let headers = HeaderMap::new();
    let reader = Reader {
        headers: &headers,
        method: &Method::GET,
    };
    let showing = Showing::of(&absent, NOW, YEAR).unwrap();
    let sent = Sent::new(reader.page(&showing, Some(&own)));
    assert_eq!(
        (sent.status, sent.header("cache-status")),
        (404, "wisr; hit; ttl=60")
    );
    assert!(sent.header("cache-control").contains("s-maxage=60"));
    assert!(sent.body.contains("<p>hello</p>"));
}

#[test]
fn data_tells_the_same_entry_to_programs() {
    let data = |content| send(&[], &hit(content), Face::Data);
    let sent = data(document("hello"));
    assert_eq!(
        (sent.status, sent.body.as_str()),
        (200, "{\"text\":\"hello\"}")
    );
    assert_eq!(sent.header("content-type"), "application/json");
    assert_eq!(sent.header("x-wisr-cache"), "HIT");
    assert!(!sent.header("etag").is_empty());
    let sent = data(Content::NotFound);
    assert_eq!(
        (sent.status, sent.body.as_str()),
        (404, "{\"notFound\":true}")
    );
    assert_eq!(sent.header("content-type"), "application/json");
    let sent = data(Content::Redirect {
        location: HeaderValue::from_static("/new"),
        status: StatusCode::PERMANENT_REDIRECT,
    });
    assert_eq!(sent.status, 200);
    assert_eq!(
        sent.body,
        r#"{"redirect":{"location":"/new","status":308}}"#
    );
}

#[test]
fn errors_are_drawn_by_the_site_and_kept_by_nobody() {
    let own = entry(Revalidate::Never, NOW);
    let failure = Failure::new(FailureKind::Trap, "render", "out of cheese");
    let headers = HeaderMap::from_iter([(header::IF_NONE_MATCH, HeaderValue::from_static("*"))]);
    let reader = Reader {
        headers: &headers,
        method: &Method::GET,
    };
    let problem = Problem::Failed(Arc::new(failure));
    let sent = Sent::new(reader.problem(&problem, Some(&own), false));
    assert_eq!(
        (sent.status, sent.header("cache-control")),
        (500, "private, no-store")
    );
    assert!(sent.body.contains("<p>hello</p>"));
    for name in [
        "etag",
        "age",
        "last-modified",
        "x-wisr-cache",
        "cache-status",
    ] {
        assert_eq!(sent.header(name), "", "{name}");
    }
    let sent = Sent::new(reader.problem(&problem, Some(&own), true));
    assert!(
        sent.body.contains("out of cheese"),
        "its author is shown the failure itself"
    );
}

#[test]
fn a_shell_is_for_one_reader() {
    let shell = Document {
        status: StatusCode::OK,
        headers: HeaderMap::new(),
        body: Bytes::from_static(b"wait"),
    };
    let headers = HeaderMap::new();
    let reader = Reader {
        headers: &headers,
        method: &Method::GET,
    };
    let sent = Sent::new(reader.shell(&Arc::new(shell)));
    assert_eq!(sent.header("x-wisr-cache"), "SHELL");
    assert_eq!(sent.header("cache-control"), "private, no-store");
    assert_eq!(
        (sent.body.as_str(), sent.header("content-length")),
        ("wait", "4")
    );
}
