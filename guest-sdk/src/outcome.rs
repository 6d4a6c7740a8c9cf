//! [`StaticProps`] and [`StaticPaths`]: what a page answers before anything is rendered.

use crate::context::Param;

/// How long a result stays fresh.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Freshness {
    /// What the route's configuration says, and if it says nothing, the server's default.
    #[default]
    Inherit,
    /// Until somebody revalidates it on demand, or the module changes.
    Never,
    /// For this many seconds; after that the next reader still gets it at once, and it is made anew.
    Seconds(u32),
}

/// What [`Page::static_props`](crate::Page::static_props) found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome<P> {
    /// The page exists: render it with these props.
    Props(P),
    /// There is no such page: the reader gets a 404, cached like a page.
    NotFound,
    /// The page is elsewhere: the reader is sent there, from the cache.
    Redirect {
        /// The target, as it goes into the `location` header.
        location: String,
        /// 307 or 308.
        status: u16,
    },
}

/// The props of a page, or that there is none, and how long this stays true.
///
/// ```
/// use wisr_guest::StaticProps;
/// let props = StaticProps::new("Hello").revalidate(60).tag("posts").tags(["front", "blog"]);
/// let gone = StaticProps::<String>::not_found().revalidate(300).tag("posts");
/// let moved = StaticProps::<String>::permanent_redirect("/blog").never();
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct StaticProps<P> {
    pub(crate) outcome: Outcome<P>,
    pub(crate) freshness: Freshness,
    pub(crate) tags: Vec<String>,
}

impl<P> StaticProps<P> {
    /// The page exists and is rendered with `props`.
    pub fn new(props: P) -> Self {
        Self::from(Outcome::Props(props))
    }

    /// There is no such page: 404. Without [`revalidate`](Self::revalidate) it is looked for again
    /// after the server's default for missing pages (60 s).
    pub fn not_found() -> Self {
        Self::from(Outcome::NotFound)
    }

    /// The page is elsewhere for now: 307 (RFC 9110, section 15.4.8).
    pub fn redirect(location: impl Into<String>) -> Self {
        Self::from(Outcome::Redirect {
            location: location.into(),
            status: 307,
        })
    }

    /// The page has moved for good: 308 (RFC 9110, section 15.4.9).
    pub fn permanent_redirect(location: impl Into<String>) -> Self {
        Self::from(Outcome::Redirect {
            location: location.into(),
            status: 308,
        })
    }

    /// Fresh for this many seconds; also for a missing page and for a redirect.
    pub fn revalidate(mut self, seconds: u32) -> Self {
        self.freshness = Freshness::Seconds(seconds);
        self
    }

    /// Fresh until revalidated on demand, whatever the configuration says.
    pub fn never(mut self) -> Self {
        self.freshness = Freshness::Never;
        self
    }

    /// Marks the page with a tag: revalidating the tag revalidates every page that carries it. A
    /// missing page and a redirect carry tags too, beside those of the page that they replaced.
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.tags.push(tag.into());
        self
    }

    /// Marks the page with several tags, see [`tag`](Self::tag).
    pub fn tags<T: Into<String>>(mut self, tags: impl IntoIterator<Item = T>) -> Self {
        self.tags.extend(tags.into_iter().map(Into::into));
        self
    }
}

impl<P> From<Outcome<P>> for StaticProps<P> {
    fn from(outcome: Outcome<P>) -> Self {
        Self {
            outcome,
            freshness: Freshness::Inherit,
            tags: Vec::new(),
        }
    }
}

/// What a reader gets at a path that was not listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fallback {
    /// A 404: the list is complete.
    NotFound,
    /// The page, once it is made.
    Blocking,
    /// The [shell](crate::Page::shell) at once, while the page is being made.
    Shell,
}

/// The paths of a dynamic route that are made ahead of time, and what happens at the others.
///
/// ```
/// use wisr_guest::StaticPaths;
/// let posts = StaticPaths::not_found().path([("id", 1)]).path([("id", 2)]);
/// let years = StaticPaths::blocking().paths((2020..2026).map(|year| [("year", year)]));
/// let docs = StaticPaths::shell().catch_all("slug", ["guide", "install"]);
/// assert_eq!(posts.paths.len() + years.paths.len() + docs.paths.len(), 9);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct StaticPaths {
    /// What happens at a path that is not listed.
    pub fallback: Fallback,
    /// One list of parameters for each path.
    pub paths: Vec<Vec<Param>>,
}

impl StaticPaths {
    /// A path that is not listed is made while its first reader waits.
    pub fn blocking() -> Self {
        Self {
            fallback: Fallback::Blocking,
            paths: Vec::new(),
        }
    }

    /// A path that is not listed is a 404.
    pub fn not_found() -> Self {
        Self {
            fallback: Fallback::NotFound,
            paths: Vec::new(),
        }
    }

    /// A path that is not listed shows the [shell](crate::Page::shell) while it is made.
    pub fn shell() -> Self {
        Self {
            fallback: Fallback::Shell,
            paths: Vec::new(),
        }
    }

    /// Lists one path by its parameters; a number will do as a value.
    pub fn path<N: Into<String>, V: ToString>(
        self,
        params: impl IntoIterator<Item = (N, V)>,
    ) -> Self {
        self.path_of_lists(params.into_iter().map(|(name, value)| (name, [value])))
    }

    /// Lists several paths, each by its parameters.
    pub fn paths<N: Into<String>, V: ToString, P: IntoIterator<Item = (N, V)>>(
        self,
        paths: impl IntoIterator<Item = P>,
    ) -> Self {
        paths.into_iter().fold(self, Self::path)
    }

    /// Lists one path of a catch-all route: `catch_all("slug", ["a", "b"])` is `/docs/a/b` for the
    /// route `/docs/[...slug]`. No values at all is `/docs` for `/docs/[[...slug]]`.
    pub fn catch_all<V: ToString>(
        self,
        name: impl Into<String>,
        values: impl IntoIterator<Item = V>,
    ) -> Self {
        self.path_of_lists([(name, values)])
    }

    /// Lists one path where every parameter is a list, for routes that mix both kinds:
    /// `path_of_lists([("lang", vec!["en"]), ("slug", vec!["a", "b"])])` for `/[lang]/[...slug]`.
    pub fn path_of_lists<N: Into<String>, V: ToString, L: IntoIterator<Item = V>>(
        mut self,
        params: impl IntoIterator<Item = (N, L)>,
    ) -> Self {
        let params = params.into_iter().map(|(name, values)| Param {
            name: name.into(),
            values: values.into_iter().map(|value| value.to_string()).collect(),
        });
        self.paths.push(params.collect());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn param(name: &str, values: &[&str]) -> Param {
        Param {
            name: name.into(),
            values: values.iter().map(ToString::to_string).collect(),
        }
    }

    #[test]
    fn the_last_word_on_freshness_wins() {
        assert_eq!(StaticProps::new(()).freshness, Freshness::Inherit);
        assert_eq!(
            StaticProps::new(()).never().revalidate(9).freshness,
            Freshness::Seconds(9)
        );
        assert_eq!(
            StaticProps::<()>::not_found()
                .revalidate(9)
                .never()
                .freshness,
            Freshness::Never
        );
    }

    #[test]
    fn redirects_keep_the_method() {
        let status = |props: StaticProps<()>| match props.outcome {
            Outcome::Redirect { location, status } => (location, status),
            other => panic!("{other:?}"),
        };
        assert_eq!(status(StaticProps::redirect("/a")), ("/a".into(), 307));
        assert_eq!(
            status(StaticProps::permanent_redirect("/a")),
            ("/a".into(), 308)
        );
    }

    #[test]
    fn tags_add_up() {
        let props = StaticProps::new(())
            .tag("a")
            .tags(["b", "c"])
            .tag(String::from("d"));
        assert_eq!(props.tags, ["a", "b", "c", "d"]);
    }

    #[test]
    fn paths_are_listed_in_order() {
        let listed = StaticPaths::blocking()
            .path([("id", "1")])
            .paths([[("id", 2)], [("id", 3)]])
            .catch_all("slug", ["a", "b"])
            .path_of_lists([("lang", vec!["en"]), ("slug", vec!["a", "b"])]);
        assert_eq!(listed.fallback, Fallback::Blocking);
        assert_eq!(
            listed.paths,
            [
                vec![param("id", &["1"])],
                vec![param("id", &["2"])],
                vec![param("id", &["3"])],
                vec![param("slug", &["a", "b"])],
                vec![param("lang", &["en"]), param("slug", &["a", "b"])],
            ]
        );
    }
}
