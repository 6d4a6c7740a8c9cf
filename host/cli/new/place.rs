//! `Place`: the route of a new page, and the names that follow from it.

use std::sync::Arc;

use anyhow::bail;

use crate::route::Pattern;

/// Where a new page goes.
#[derive(Debug)]
pub(super) struct Place {
    /// `/posts/[id]`.
    route: Arc<str>,
}

/// A parameter of a route.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Param<'a> {
    pub(super) name: &'a str,
    pub(super) kind: Kind,
}

/// How many segments a parameter stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// `[id]`.
    One,
    /// `[...slug]`.
    Many,
    /// `[[...slug]]`.
    Any,
}

/// What the parameters of the example page are: the last, and those before it.
pub(super) const EXAMPLE: &str = "hello";
pub(super) const EXAMPLES: [&str; 2] = ["hello", "world"];
pub(super) const OTHER: &str = "example";

impl Place {
    /// Reads a route, with or without its first slash.
    pub(super) fn parse(text: &str) -> anyhow::Result<Self> {
        let route = format!("/{}", text.trim_matches('/'));
        let route = if route == "/index" { "/" } else { &route };
        let pattern = Pattern::parse(route)?;
        let known = |byte: u8| byte.is_ascii_alphanumeric() || b"/[].-_~".contains(&byte);
        if let Some(other) = route
            .chars()
            .find(|char| !known(*char as u8) || !char.is_ascii())
        {
            bail!(
                "route {route}: {other:?} is not for names of folders; use letters, digits and `.-_~`"
            );
        }
        if let Some(hidden) = route.split('/').find(|name| name.starts_with(['_', '.'])) {
            bail!("route {route}: a folder whose name begins like `{hidden}` holds no pages");
        }
        if pattern.is_api() {
            bail!(
                "route {route}: below `/api` are API routes, which are components of wasi:http/proxy; `wisr new` makes \
                 pages only"
            );
        }
        Ok(Self {
            route: pattern.route(),
        })
    }

    pub(super) fn route(&self) -> &str {
        &self.route
    }

    /// Its folder in the source tree: `posts/[id]`, `index`.
    pub(super) fn folder(&self) -> &str {
        match &self.route[1..] {
            "" => "index",
            folder => folder,
        }
    }

    pub(super) fn params(&self) -> Vec<Param<'_>> {
        let segments = self.route.split('/');
        segments.filter_map(Param::of).collect()
    }

    /// A path of the route, which the template lists.
    pub(super) fn path(&self) -> String {
        let last = self.params().pop().map(|param| param.name);
        let segments = self
            .route
            .split('/')
            .map(|segment| match Param::of(segment) {
                None => segment.to_owned(),
                Some(param) if Some(param.name) != last => OTHER.to_owned(),
                Some(param) if param.kind == Kind::One => EXAMPLE.to_owned(),
                Some(_) => EXAMPLES.join("/"),
            });
        segments.collect::<Vec<_>>().join("/")
    }

    /// What the example page of a dynamic route is called.
    pub(super) fn name(&self) -> String {
        match self.params().last() {
            Some(param) if param.kind != Kind::One => EXAMPLES.join("/"),
            _ => EXAMPLE.to_owned(),
        }
    }

    /// Whether two routes stand for the same paths.
    pub(super) fn is_like(&self, route: &str) -> bool {
        let shape = |route: &str| {
            let segments = route.split('/').map(|segment| match Param::of(segment) {
                None => segment.to_owned(),
                Some(param) => format!("[{:?}]", param.kind),
            });
            segments.collect::<Vec<_>>()
        };
        shape(&self.route) == shape(route)
    }

    /// The words of the route, without signs.
    fn words(&self) -> impl Iterator<Item = &str> {
        self.folder()
            .split(|char: char| !char.is_ascii_alphanumeric())
            .filter(|word| !word.is_empty())
    }

    /// A name for a crate: `page-posts-id`.
    pub(super) fn package(&self) -> String {
        let words: Vec<String> = self.words().map(str::to_ascii_lowercase).collect();
        format!("page-{}", words.join("-"))
    }

    /// A name for a type: `PostsIdPage`.
    pub(super) fn type_name(&self) -> String {
        let name: String = self.words().map(capitalised).collect();
        let digit = name.starts_with(|char: char| char.is_ascii_digit());
        format!("{}{name}Page", if digit { "The" } else { "" })
    }

    /// A heading for people: `Home`, `About us`.
    pub(super) fn title(&self) -> String {
        if &*self.route == "/" {
            return "Home".to_owned();
        }
        let last = self.folder().rsplit('/').next().unwrap_or_default();
        capitalised(&last.replace(['-', '_'], " "))
    }
}

impl<'a> Param<'a> {
    fn of(segment: &'a str) -> Option<Self> {
        let inner = segment.strip_prefix('[')?.strip_suffix(']')?;
        let (name, kind) = match inner.strip_prefix('[') {
            Some(optional) => (
                optional.trim_end_matches(']').strip_prefix("...")?,
                Kind::Any,
            ),
            None => match inner.strip_prefix("...") {
                Some(name) => (name, Kind::Many),
                None => (inner, Kind::One),
            },
        };
        Some(Self { name, kind })
    }
}

fn capitalised(word: &str) -> String {
    let mut chars = word.chars();
    let first = chars.next().map(|first| first.to_ascii_uppercase());
    first.into_iter().chain(chars).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_from_the_route() {
        for (text, folder, path, package, type_name, title) in [
            ("/", "index", "/", "page-index", "IndexPage", "Home"),
            ("index", "index", "/", "page-index", "IndexPage", "Home"),
            (
                "about-us",
                "about-us",
                "/about-us",
                "page-about-us",
                "AboutUsPage",
                "About us",
            ),
            ("404", "404", "/404", "page-404", "The404Page", "404"),
            (
                "feed.xml",
                "feed.xml",
                "/feed.xml",
                "page-feed-xml",
                "FeedXmlPage",
                "Feed.xml",
            ),
            (
                "/[lang]/posts/[id]/",
                "[lang]/posts/[id]",
                "/example/posts/hello",
                "page-lang-posts-id",
                "LangPostsIdPage",
                "[id]",
            ),
            (
                "docs/[[...slug]]",
                "docs/[[...slug]]",
                "/docs/hello/world",
                "page-docs-slug",
                "DocsSlugPage",
                "[[...slug]]",
            ),
        ] {
            let place = Place::parse(text).unwrap();
            assert_eq!(place.folder(), folder);
            assert_eq!(place.path(), path);
            assert_eq!(place.package(), package);
            assert_eq!(place.type_name(), type_name);
            assert_eq!(place.title(), title);
        }
    }

    #[test]
    fn the_same_paths_are_one_place() {
        let place = Place::parse("posts/[id]").unwrap();
        assert!(place.is_like("/posts/[slug]"));
        assert!(!place.is_like("/posts/[...slug]"));
        assert!(!place.is_like("/posts/id"));
    }

    #[test]
    fn what_is_no_folder_of_a_page_is_refused() {
        for (text, rule) in [
            ("posts/[id", "route /posts/[id"),
            ("a/[...b]/c", "nothing can stand after it"),
            ("a b", "' ' is not for names of folders"),
            ("é", "'é' is not"),
            ("_layout", "holds no pages"),
            ("../up", "cannot be a part of a path"),
            ("api/hook", "API routes"),
        ] {
            let error = Place::parse(text).unwrap_err().to_string();
            assert!(error.contains(rule), "{text}: {error}");
        }
    }
}
