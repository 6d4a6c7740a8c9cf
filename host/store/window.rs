//! `Window`: which entries a list shows.

use std::collections::BTreeMap;

use crate::page::PageKey;

/// A stretch of all entries in the order of their keys.
#[derive(Debug, Clone, Default)]
pub struct Window {
    /// What their keys begin with.
    pub prefix: String,
    /// The key that they come after: the last one of the window before.
    pub after: Option<String>,
    /// How many, at most.
    pub limit: usize,
}

impl Window {
    /// The first `limit` entries whose keys begin with `prefix`.
    pub fn new(prefix: &str, limit: usize) -> Self {
        Self {
            prefix: prefix.to_owned(),
            after: None,
            limit,
        }
    }

    /// Whether the entry of this key would be in it, were there no limit.
    pub(super) fn covers(&self, key: &str) -> bool {
        let is_after = self.after.as_deref().is_none_or(|after| key > after);
        is_after && key.starts_with(&self.prefix)
    }

    /// Adds to `found`, which holds no more than the window shows, whatever is seen.
    pub(super) fn collect<T>(&self, found: &mut BTreeMap<PageKey, T>, key: &PageKey, value: T) {
        found.insert(key.clone(), value);
        if found.len() > self.limit {
            found.pop_last();
        }
    }
}
