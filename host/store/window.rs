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

    /// Adds to `found`, which holds no more than the window shows, whatever is seen and in
    /// whichever order. Most of a million entries have no place there, and cost one comparison.
    pub(super) fn collect<T>(
        &self,
        found: &mut BTreeMap<PageKey, T>,
        key: &PageKey,
        value: impl FnOnce() -> T,
    ) {
        if found.len() >= self.limit {
            match found.last_entry() {
                Some(last) if key < last.key() => last.remove(),
                _ => return,
            };
        }
        found.insert(key.clone(), value());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_all_are_found_whatever_their_order() {
        let numbers = (0..100).map(|number| number * 37 % 100);
        for limit in [0, 1, 7, 100, 1_000] {
            let (window, mut found) = (Window::new("/", limit), BTreeMap::new());
            for number in numbers.clone() {
                let key = PageKey::new(&format!("/{number:02}"), &[]);
                window.collect(&mut found, &key, || number);
            }
            let expected: Vec<i32> = (0..100).take(limit).collect();
            assert_eq!(found.into_values().collect::<Vec<_>>(), expected);
        }
    }
}
