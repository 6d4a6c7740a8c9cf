//! `Summary`: what an entry is and what it cost, without what it says.

use std::sync::Arc;

use super::{Cause, Content, Cost, Entry, PageKey, Payload, Stamp};

/// An entry as lists tell of it: a thousand of them fit where one body may not.
#[derive(Debug, Clone)]
pub struct Summary {
    /// The page.
    pub key: PageKey,
    /// The route that it was made for.
    pub route: Arc<str>,
    /// What its freshness depends on.
    pub stamp: Stamp,
    /// The word of its [`Content`].
    pub content: &'static str,
    /// Why it was made; none for one that an earlier wisr kept.
    pub cause: Option<Cause>,
    /// What it cost to make.
    pub cost: Cost,
    /// Bytes of the page as it was rendered.
    pub size: usize,
    /// Bytes of the page and its props in all codings.
    pub bytes: usize,
}

impl Entry {
    /// What lists tell of it.
    pub fn summary(&self) -> Summary {
        let (size, bytes) = match &self.content {
            Content::Document { body, data, .. } => (body.size(), bytes(body) + bytes(data)),
            Content::NotFound | Content::Redirect { .. } => (0, 0),
        };
        Summary {
            key: self.key.clone(),
            route: self.route.clone(),
            stamp: self.stamp.clone(),
            content: self.content.as_str(),
            cause: self.cause,
            cost: self.cost.clone(),
            size,
            bytes,
        }
    }
}

fn bytes(payload: &Payload) -> usize {
    let coded = payload.coded().iter().map(|variant| variant.body.len());
    payload.size() + coded.sum::<usize>()
}
