//! `locate`: from a path to the page that owns it, in one release.

use std::borrow::Cow;
use std::sync::Arc;

use percent_encoding::percent_decode_str;

use crate::isr::{Ask, Patience};
use crate::release::{Admission, Place, Release, Routed};
use crate::route::Path;

/// A page that a path leads to. Borrowed: a hit needs no more of it.
pub(super) struct Located<'a> {
    pub(super) routed: &'a Arc<Routed>,
    pub(super) path: &'a Path,
    pub(super) query: Vec<(String, String)>,
    /// What a reader gets who finds no entry.
    pub(super) patience: Patience,
}

impl Located<'_> {
    /// Whether it is a page that nobody may ask for.
    pub(super) fn is_error_page(&self) -> bool {
        is_error_page(self.routed)
    }

    /// Whether it is one of those that the site itself names: so many and no more.
    pub(super) fn is_named(&self) -> bool {
        let place = || self.routed.listing.of(self.path);
        let is_alone = !self.routed.pattern.is_dynamic();
        self.query.is_empty() && (is_alone || place() == Some(Place::Listed))
    }

    /// What to ask the cache for.
    pub(super) fn ask(self) -> Ask {
        let params = self.routed.pattern.params_of(self.path);
        Ask::new(
            self.routed.page.clone(),
            self.path.as_str(),
            params,
            self.query,
        )
    }
}

/// Error pages answer for others; they have no address of their own.
pub(super) fn is_error_page(routed: &Routed) -> bool {
    matches!(&*routed.page.route, "/404" | "/500")
}

/// The best route that has the page; the query counts as far as that route allows it.
pub(super) fn locate<'a>(
    release: &'a Release,
    path: &'a Path,
    query: Option<&str>,
) -> Option<Located<'a>> {
    release.table.matches(path).find_map(|found| {
        let routed = found.value;
        let patience = match routed.admits(path) {
            Admission::Page => Patience::Wait,
            Admission::Shell => Patience::Shell,
            Admission::No => return None,
        };
        let query = query.map_or_else(Vec::new, |query| allowed(query, &routed.config.query));
        Some(Located {
            routed,
            path,
            query,
            patience,
        })
    })
}

/// The allowed parameters of a query, in the order of `names`, so that `?a=1&b=2` and `?b=2&a=1`
/// are one page. Of a repeated one the first counts, as `URLSearchParams.get` has it.
pub(super) fn allowed(query: &str, names: &[String]) -> Vec<(String, String)> {
    names
        .iter()
        .filter_map(|name| {
            let value = pairs(query).find(|(key, _)| key == name)?.1;
            Some((name.clone(), value.into_owned()))
        })
        .collect()
}

/// The pairs of a query (URL standard, section 5.1). Bytes that are no UTF-8 become U+FFFD.
pub fn pairs(query: &str) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(name), decode(value))
        })
}

fn decode(text: &str) -> Cow<'_, str> {
    if !text.contains(['+', '%']) {
        return Cow::Borrowed(text);
    }
    let spaced = text.replace('+', " ");
    Cow::Owned(percent_decode_str(&spaced).decode_utf8_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_cut_down_to_what_the_route_allows() {
        let names = ["page".to_owned(), "q".to_owned()];
        let told = |query| {
            let pairs = allowed(query, &names).into_iter();
            pairs
                .map(|(name, value)| format!("{name}={value}"))
                .collect::<Vec<_>>()
                .join("&")
        };
        for (query, expected) in [
            ("q=a&page=2", "page=2&q=a"),
            ("page=2&utm_source=x&q=a", "page=2&q=a"),
            ("q=a%20b+c", "q=a b c"),
            ("%71=a", "q=a"),
            ("q=1&q=2", "q=1"),
            ("q", "q="),
            ("q=%ff", "q=\u{fffd}"),
            ("q=a=b", "q=a=b"),
            ("Q=1&&=", ""),
        ] {
            assert_eq!(told(query), expected, "{query}");
        }
    }
}
