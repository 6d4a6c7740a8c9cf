//! `Entry`: one cached result, ready to be sent.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, StatusCode};

use super::{Cause, Cost, Digest, PageKey, Payload, Stamp};

/// What a successful generation left behind. Immutable; readers share it.
#[derive(Debug)]
pub struct Entry {
    /// The page it is the result for.
    pub key: PageKey,
    /// The route that it was made for.
    pub route: Arc<str>,
    /// What its freshness depends on.
    pub stamp: Stamp,
    /// What is sent.
    pub content: Content,
    /// Why it was made; none for one that an earlier wisr kept.
    pub cause: Option<Cause>,
    /// What it cost to make.
    pub cost: Cost,
}

/// What an entry says.
#[derive(Debug, Clone)]
pub enum Content {
    /// A page and the props it was rendered from: one generation, one age.
    Document {
        /// The page's status.
        status: StatusCode,
        /// The page's own headers, `content-type` among them.
        headers: HeaderMap,
        /// The rendered body.
        body: Payload,
        /// The props, as JSON.
        data: Payload,
        /// The hash of the props, to tell whether the next ones differ.
        props: Digest,
    },
    /// There is no such page; the error page is shown.
    NotFound,
    /// The page is elsewhere.
    Redirect {
        /// A valid `Location` value.
        location: HeaderValue,
        /// 301, 302, 303, 307 or 308.
        status: StatusCode,
    },
}

impl Content {
    /// The word for tables and JSON.
    pub fn as_str(&self) -> &'static str {
        match self {
            Content::Document { .. } => "document",
            Content::NotFound => "not-found",
            Content::Redirect { .. } => "redirect",
        }
    }
}

/// What an entry holds beside its bodies and headers: the structures, those of the tier, the hash
/// table's slot. 800 bytes were measured, and a quarter is for the allocator, as with bodies;
/// `tests/memory.rs` holds the figures to what is.
const OVERHEAD: usize = 1_000;

/// What a header map holds for each header that there is room for: name, value, links, index.
const HEADER: usize = 120;

/// What the allocator, or a count of who shares it, adds to a small text.
const TEXT: usize = 16;

/// An entry's route and what its freshness depends on.
pub type Stamped = (Arc<str>, Stamp);

impl Entry {
    /// What tells whether it may be shown.
    pub fn stamped(&self) -> Stamped {
        (self.route.clone(), self.stamp.clone())
    }

    /// The bytes it holds in memory, for budgets.
    pub fn weight(&self) -> usize {
        let content = match &self.content {
            Content::Document {
                headers,
                body,
                data,
                ..
            } => {
                let texts = headers.iter();
                let texts = texts.map(|(n, v)| n.as_str().len() + v.len() + 2 * TEXT);
                headers.capacity() * HEADER + texts.sum::<usize>() + body.weight() + data.weight()
            }
            Content::NotFound => 0,
            Content::Redirect { location, .. } => location.len(),
        };
        let tags: usize = self
            .stamp
            .tags
            .iter()
            .map(|tag| size_of_val(tag) + tag.as_str().len() + 2 * TEXT)
            .sum();
        let names = self.key.as_str().len() + self.route.len();
        OVERHEAD + names + tags + content + self.cost.weight()
    }
}
