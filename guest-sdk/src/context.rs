//! [`Context`]: which page is being made, and why now.

/// One route parameter with its values: one for `[id]`, any number for `[...slug]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Param {
    /// The name between the brackets of the route.
    pub name: String,
    /// The percent-decoded segments, in the order of the path.
    pub values: Vec<String>,
}

/// Why the page is being made now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cause {
    /// The site is being built, or a release is being warmed.
    Build,
    /// A reader asked for a page that was never made.
    #[default]
    FirstRequest,
    /// The page had outlived its time, or another module made it.
    Stale,
    /// Somebody called the revalidate endpoint.
    OnDemand,
    /// An author looks at a draft; the result is not cached.
    Draft,
}

/// Which page is being made. It holds no header, no cookie and no address of a reader: what a page
/// cannot see, it cannot leak into the cache.
///
/// ```
/// fn title(ctx: &wisr_guest::Context) -> String {
///     format!("Post {}", ctx.param("id").unwrap_or("?"))
/// }
/// ```
#[derive(Clone, Debug)]
pub struct Context {
    /// The route that the module serves, such as `/posts/[id]`.
    pub route: String,
    /// The path that is being made, such as `/posts/1`.
    pub path: String,
    /// Why the page is being made now.
    pub cause: Cause,
    pub(crate) params: Vec<Param>,
    pub(crate) query: Vec<(String, String)>,
}

impl Context {
    /// The first value of a route parameter: `/posts/[id]` at `/posts/1` has `param("id") == Some("1")`.
    #[must_use]
    pub fn param(&self, name: &str) -> Option<&str> {
        self.params(name).first().map(String::as_str)
    }

    /// All values of a route parameter, for catch-all routes: `/docs/[...slug]` at `/docs/a/b` has
    /// `params("slug") == ["a", "b"]`. Empty when the route has no such parameter.
    #[must_use]
    pub fn params(&self, name: &str) -> &[String] {
        self.params
            .iter()
            .find(|param| param.name == name)
            .map_or(&[], |param| &param.values)
    }

    /// The first value of a query parameter. Only the names that the route's configuration allows
    /// arrive here; every other parameter is dropped before the page is looked up.
    #[must_use]
    pub fn query(&self, name: &str) -> Option<&str> {
        self.query
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_by_name() {
        let ctx = Context {
            route: "/[lang]/[...slug]".into(),
            path: "/en/a/b".into(),
            cause: Cause::Stale,
            params: vec![
                Param {
                    name: "lang".into(),
                    values: vec!["en".into()],
                },
                Param {
                    name: "slug".into(),
                    values: vec!["a".into(), "b".into()],
                },
            ],
            query: vec![("q".into(), "1".into()), ("q".into(), "2".into())],
        };
        assert_eq!(ctx.param("lang"), Some("en"));
        assert_eq!(ctx.params("slug"), ["a", "b"]);
        assert_eq!(ctx.param("slug"), Some("a"));
        assert_eq!(ctx.query("q"), Some("1"));
        assert!(
            ctx.param("id").is_none() && ctx.params("id").is_empty() && ctx.query("x").is_none()
        );
    }
}
