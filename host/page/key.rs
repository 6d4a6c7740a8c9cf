//! `PageKey`: what identifies one cached page.

use std::borrow::{Borrow, Cow};
use std::fmt;
use std::sync::Arc;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use schemars::JsonSchema;
use serde::Serialize;

/// RFC 3986 section 2.3: these never need escaping, so every other spelling folds into one.
const QUERY: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// The canonical path and the allowed query parameters: `/search?q=rust`.
///
/// Nothing else of a request is part of it, so nothing else that a client sends can split or
/// poison the cache. Cloning costs a reference count.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(transparent)]
pub struct PageKey(Arc<str>);

impl PageKey {
    /// The key of a canonical path (see `route::Path`) and the query parameters that its route
    /// allows, in the order given.
    pub fn new(path: &str, query: &[(String, String)]) -> Self {
        Self(Arc::from(Self::text(path, query)))
    }

    /// The text of that key: enough to look for what is kept under it.
    pub fn text<'a>(path: &'a str, query: &[(String, String)]) -> Cow<'a, str> {
        if query.is_empty() {
            return Cow::Borrowed(path);
        }
        let mut key = String::from(path);
        for (position, (name, value)) in query.iter().enumerate() {
            key.push(if position == 0 { '?' } else { '&' });
            key.extend(utf8_percent_encode(name, QUERY));
            key.push('=');
            key.extend(utf8_percent_encode(value, QUERY));
        }
        Cow::Owned(key)
    }

    /// The key as text, which is also the URL of the page.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The path without the query.
    pub fn path(&self) -> &str {
        self.0.split_once('?').map_or(&*self.0, |(path, _)| path)
    }
}

/// Keys are compared and hashed by their text.
impl Borrow<str> for PageKey {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PageKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for PageKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn query_values_cannot_imitate_another_key() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let forged = PageKey::new("/s", &[pair("q", "a&page=2")]);
        let honest = PageKey::new("/s", &[pair("q", "a"), pair("page", "2")]);
        assert_ne!(forged, honest);
        assert_eq!(honest.as_str(), "/s?q=a&page=2");
        assert_eq!(honest.path(), "/s");
    }
}
