//! [`Press`]: pages by the million, each with bytes of its own, for one thing's sake: to fill stores.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use wisr::page::{
    Content, Cost, Digest, Entry, PageKey, Payload, Revalidate, Stamp, Tag, Timestamp, Variant,
};

/// Pages that differ in text and size; the others are copies of these.
const PLATES: usize = 64;

/// Bytes of a page before it is compressed.
const LEAST: usize = 5 << 10;
const MOST: usize = 20 << 10;

/// The tag that all pages have.
pub(crate) const TAG: &str = "everything";

/// The route of all pages.
pub(crate) const ROUTE: &str = "/p/[id]";

const WORDS: [&str; 16] = [
    "ash", "birch", "cedar", "elm", "fir", "hazel", "juniper", "larch", "maple", "oak", "pine",
    "rowan", "spruce", "willow", "yew", "walnut",
];

/// Makes entries as a generation leaves them, compression and all, at the cost of a copy.
pub(crate) struct Press {
    plates: Vec<(Payload, Payload, Digest)>,
    route: Arc<str>,
    headers: HeaderMap,
    module: Digest,
    now: Timestamp,
}

impl Press {
    /// Pages made by `module` at `now`.
    pub(crate) fn new(module: Digest, now: Timestamp) -> Self {
        let html = HeaderValue::from_static("text/html; charset=utf-8");
        let json = HeaderValue::from_static("application/json");
        let mut random = fastrand::Rng::with_seed(1);
        let plates = (0..PLATES).map(|plate| {
            let size = LEAST + (MOST - LEAST) * plate / (PLATES - 1);
            let (page, props) = text(&mut random, size);
            let digest = Digest::of(props.as_bytes());
            let body = Payload::encode(Bytes::from(page), Some(&html));
            (
                body,
                Payload::encode(Bytes::from(props), Some(&json)),
                digest,
            )
        });
        Self {
            plates: plates.collect(),
            route: Arc::from(ROUTE),
            headers: HeaderMap::from_iter([(header::CONTENT_TYPE, html.clone())]),
            module,
            now,
        }
    }

    /// The page of number `number`, at the invalidation number `sequence`.
    pub(crate) fn page(&self, number: usize, sequence: u64) -> Arc<Entry> {
        // Neighbours differ in size.
        let (body, data, props) = &self.plates[number * 37 % PLATES];
        let content = Content::Document {
            status: StatusCode::OK,
            headers: self.headers.clone(),
            body: copy(body),
            data: copy(data),
            props: *props,
        };
        Arc::new(Entry {
            key: key(number),
            route: self.route.clone(),
            stamp: Stamp {
                generated: self.now,
                revalidate: Revalidate::Never,
                fresh_until: None,
                module: self.module,
                sequence,
                tags: [Tag::new(TAG).expect("a short word is a tag")].into(),
            },
            cause: None,
            content,
            cost: Cost::default(),
        })
    }
}

/// The key of a page.
pub(crate) fn key(number: usize) -> PageKey {
    PageKey::new(&format!("/p/{number}"), &[])
}

/// Copies the bytes too: shared ones would weigh nothing.
fn copy(payload: &Payload) -> Payload {
    let copy = |variant: &Variant| {
        let body = Bytes::copy_from_slice(&variant.body);
        Variant::new(variant.coding, variant.hash, body)
    };
    let coded = payload.coded().iter().map(copy).collect();
    Payload::from_variants(copy(payload.identity()), coded).expect("it was one")
}

/// A page of about `size` bytes, and its props.
fn text(random: &mut fastrand::Rng, size: usize) -> (String, String) {
    let mut page = String::from("<!doctype html><html lang=\"en\"><head></head><body><ul>");
    let mut props = String::from("[");
    while page.len() < size {
        let mut words = || -> Vec<&str> {
            let words = (0..12).map(|_| WORDS[random.usize(..WORDS.len())]);
            words.collect()
        };
        let words = words().join(" ");
        let price = random.u32(100..100_000);
        page.push_str(&format!(
            "<li class=\"product\" id=\"p{price}\"><b class=\"price\">{price} EUR</b><p>{words}</p></li>"
        ));
        props.push_str(&format!("{{\"cents\":{price},\"blurb\":\"{words}\"}},"));
    }
    page.push_str("</ul></body></html>");
    props.push_str("null]");
    (page, props)
}
