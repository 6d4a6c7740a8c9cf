//! `Brief`: what an entry is, without what it says.

use crate::page::{Content, Entry, PageKey, Stamp};

/// What is told of an entry where a million are looked through.
#[derive(Debug)]
pub(super) struct Brief<'a> {
    /// The page.
    pub(super) key: &'a str,
    /// Its route.
    pub(super) route: &'a str,
    /// When it was made, and from what.
    pub(super) stamp: &'a Stamp,
    /// Whether there is a page, and not only the word that there is none or that it is elsewhere.
    pub(super) is_document: bool,
}

impl<'a> Brief<'a> {
    pub(super) fn of(entry: &'a Entry) -> Self {
        Self {
            key: entry.key.as_str(),
            route: &entry.route,
            stamp: &entry.stamp,
            is_document: matches!(entry.content, Content::Document { .. }),
        }
    }

    /// The page's key.
    pub(super) fn page_key(&self) -> PageKey {
        PageKey::new(self.key, &[])
    }
}
