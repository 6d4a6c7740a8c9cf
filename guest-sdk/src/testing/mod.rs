//! [`Test`]: renders a page natively, without wasm, a server or a network. [`ApiTest`] does the same
//! for an API route.
//!
//! ```
//! use wisr_guest::{Context, Document, Freshness, Page, Result, StaticProps, fetch, setting};
//! use wisr_guest::testing::Test;
//!
//! struct Post;
//!
//! impl Page for Post {
//!     type Props = String;
//!     fn static_props(ctx: &Context) -> Result<StaticProps<String>> {
//!         let content = setting("content").unwrap_or_default();
//!         let id = ctx.param("id").unwrap_or_default();
//!         let post = fetch::get(format!("{content}/posts/{id}"))?;
//!         if post.status() == 404 {
//!             return Ok(StaticProps::not_found());
//!         }
//!         Ok(StaticProps::new(post.json()?).revalidate(60).tag("posts"))
//!     }
//!     fn render(_: &Context, title: String) -> Result<Document> {
//!         Ok(Document::html(format!("<h1>{title}</h1>")))
//!     }
//! }
//!
//! # fn main() -> Result<()> {
//! let page = Test::<Post>::at("/posts/[id]", "/posts/1")
//!     .setting("content", "http://content")
//!     .fetch("http://content/posts/1", 200, r#""Hello""#)
//!     .render()?;
//! assert_eq!(page.text(), "<h1>Hello</h1>");
//! assert_eq!(page.tags, ["posts"]);
//! assert_eq!(page.revalidate, Freshness::Seconds(60));
//! # Ok(()) }
//! ```

mod api;

use std::cell::RefCell;
use std::marker::PhantomData;

pub use api::{Answered, ApiTest};

use crate::fetch::{Response, Target};
use crate::page::{from_json, to_json};
use crate::revalidate::{Call, Fate, Mode, Report};
use crate::{
    Body, Cause, Context, Document, Freshness, Outcome, Page, Param, Result, StaticPaths, bail,
};

/// One page at one path, with everything that it may ask for. Whatever it asks for beyond that is
/// not there: a setting is `None`, a fetch is an error that names the URL.
#[derive(Clone, Debug)]
#[must_use = "a test does nothing until it renders"]
pub struct Test<P> {
    route: String,
    path: String,
    cause: Cause,
    query: Vec<(String, String)>,
    world: World,
    page: PhantomData<P>,
}

/// What a page made, as the host would get it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered<T> {
    /// The props, or that there is no such page, or where it is instead.
    pub outcome: Outcome<T>,
    /// The document; `None` unless the outcome is props.
    pub document: Option<Document>,
    /// The tags of the page, or of what there is instead.
    pub tags: Vec<String>,
    /// How long the result stays fresh.
    pub revalidate: Freshness,
}

/// What the page under test can see of the outside.
#[derive(Clone, Debug, Default)]
struct World {
    settings: Vec<(String, String)>,
    answers: Vec<Response>,
    /// What the page was tagged with by the way.
    tags: Vec<String>,
    /// What an API route had made anew.
    calls: Vec<Call>,
}

thread_local! {
    static WORLD: RefCell<Option<World>> = const { RefCell::new(None) };
}

/// Puts back the world that was there before, also when the page panics: the test harness uses a
/// thread for more than one test.
struct Scope(Option<World>);

impl<P: Page> Test<P> {
    /// A page at a path of a route: `at("/posts/[id]", "/posts/1")`. The parameters are taken from
    /// the path as the host does it.
    pub fn at(route: impl Into<String>, path: impl Into<String>) -> Self {
        Self {
            route: route.into(),
            path: path.into(),
            cause: Cause::default(),
            query: Vec::new(),
            world: World::default(),
            page: PhantomData,
        }
    }

    /// Adds an allowed query parameter.
    pub fn query(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.query.push((name.into(), value.into()));
        self
    }

    /// Says why the page is made; [`Cause::FirstRequest`] if not said.
    pub fn cause(mut self, cause: Cause) -> Self {
        self.cause = cause;
        self
    }

    /// Adds a setting of the route.
    pub fn setting(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.world.settings.push((key.into(), value.into()));
        self
    }

    /// Adds the answer to a fetch of this URL, by any method.
    pub fn fetch(mut self, url: impl Into<String>, status: u16, body: impl Into<Body>) -> Self {
        self.world.answer(url, status, body);
        self
    }

    /// Makes the page: the props, through JSON as between the two calls of the host, and the document.
    ///
    /// # Errors
    /// What the page returned, and when the path is not one of the route.
    pub fn render(self) -> Result<Rendered<P::Props>> {
        let ctx = self.context()?;
        let _scope = Scope::enter(self.world);
        let found = P::static_props(&ctx)?;
        let (outcome, document) = match found.outcome {
            Outcome::Props(props) => {
                let json = to_json(&props)?;
                let document = P::render(&ctx, from_json(&json)?)?;
                (Outcome::Props(from_json(&json)?), Some(document))
            }
            other => (other, None),
        };
        let given =
            WORLD.with_borrow_mut(|world| world.as_mut().map(|world| world.tags.split_off(0)));
        let mut tags = found.tags;
        tags.extend(given.unwrap_or_default());
        Ok(Rendered {
            outcome,
            document,
            tags,
            revalidate: found.freshness,
        })
    }

    /// Lists the paths of the route.
    ///
    /// # Errors
    /// What the page returned.
    pub fn static_paths(self) -> Result<StaticPaths> {
        let _scope = Scope::enter(self.world);
        P::static_paths()
    }

    /// Renders what a reader sees while the page is being made.
    ///
    /// # Errors
    /// What the page returned, and when the path is not one of the route.
    pub fn shell(self) -> Result<Document> {
        let ctx = self.context()?;
        let _scope = Scope::enter(self.world);
        P::shell(&ctx)
    }

    fn context(&self) -> Result<Context> {
        let Some(params) = params(&self.route, &self.path) else {
            bail!(
                "the path {} is not one of the route {}",
                self.path,
                self.route
            );
        };
        Ok(Context {
            route: self.route.clone(),
            path: self.path.clone(),
            cause: self.cause,
            params,
            query: self.query.clone(),
        })
    }
}

impl<T> Rendered<T> {
    /// The props, when the page has any.
    #[must_use]
    pub fn props(&self) -> Option<&T> {
        match &self.outcome {
            Outcome::Props(props) => Some(props),
            _ => None,
        }
    }

    /// The text of the document; empty when there is none.
    #[must_use]
    pub fn text(&self) -> &str {
        self.document
            .as_ref()
            .and_then(Document::text)
            .unwrap_or_default()
    }
}

impl World {
    fn answer(&mut self, url: impl Into<String>, status: u16, body: impl Into<Body>) {
        let (url, body) = (url.into(), body.into().into_bytes());
        self.answers.push(Response {
            url,
            status,
            headers: Vec::new(),
            body,
        });
    }
}

impl Scope {
    fn enter(world: World) -> Self {
        Self(WORLD.replace(Some(world)))
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        WORLD.set(self.0.take());
    }
}

pub(crate) fn setting(key: &str) -> Option<String> {
    WORLD.with_borrow(|world| {
        let settings = &world.as_ref()?.settings;
        settings
            .iter()
            .find(|(known, _)| known == key)
            .map(|(_, value)| value.clone())
    })
}

pub(crate) fn tag(name: &str) {
    WORLD.with_borrow_mut(|world| {
        if let Some(world) = world {
            world.tags.push(name.to_owned());
        }
    });
}

pub(crate) fn answer(url: &str, target: &Target<'_>) -> Result<Response> {
    WORLD.with_borrow(|world| {
        let Some(world) = world else {
            bail!("a native build has no network: call the page through wisr_guest::testing::Test");
        };
        let given =
            |answer: &&Response| Target::of(&answer.url).is_ok_and(|known| known == *target);
        match world.answers.iter().find(given) {
            Some(answer) => Ok(answer.clone()),
            None => bail!("the test has no answer to it: add .fetch({url:?}, 200, ..)"),
        }
    })
}

/// Notes a call of an API route, all of which is done.
pub(crate) fn revalidate(call: Call) -> Result<Report> {
    let fate = |target: &String, effect| Fate {
        target: target.clone(),
        effect,
        message: None,
        count: None,
    };
    let effect = |mode: Option<Mode>, usual| match mode {
        None => usual,
        Some(Mode::Regenerate) => "regenerated",
        Some(Mode::Stale) => "stale",
        Some(Mode::Purge) => "purged",
    };
    let paths = call.paths.iter();
    let paths = paths.map(|path| fate(path, effect(call.mode, "regenerated")));
    let tags = call
        .tags
        .iter()
        .map(|tag| fate(tag, effect(call.mode, "stale")));
    let report = Report {
        done: true,
        fates: paths.chain(tags).collect(),
        warning: None,
    };
    WORLD.with_borrow_mut(|world| {
        let Some(world) = world else {
            bail!(
                "a native build has no pages: call the route through wisr_guest::testing::ApiTest"
            );
        };
        world.calls.push(call);
        Ok(report)
    })
}

fn calls() -> Vec<Call> {
    WORLD
        .with_borrow_mut(|world| world.as_mut().map(|world| std::mem::take(&mut world.calls)))
        .unwrap_or_default()
}

/// The parameters of a path, or `None` when the path is not one of the route.
fn params(route: &str, path: &str) -> Option<Vec<Param>> {
    let mut segments = path
        .split('/')
        .filter(|segment| !segment.is_empty())
        .map(decode);
    let mut params = Vec::new();
    for part in route.split('/').filter(|part| !part.is_empty()) {
        let Some(name) = part
            .strip_prefix('[')
            .and_then(|part| part.strip_suffix(']'))
        else {
            if segments.next()? != part {
                return None;
            }
            continue;
        };
        let optional = name
            .strip_prefix('[')
            .and_then(|name| name.strip_suffix(']'));
        let param = match optional.unwrap_or(name).strip_prefix("...") {
            Some(rest) => Param {
                name: rest.into(),
                values: segments.by_ref().collect(),
            },
            None => Param {
                name: name.into(),
                values: vec![segments.next()?],
            },
        };
        if param.values.is_empty() && optional.is_none() {
            return None;
        }
        params.push(param);
    }
    segments.next().is_none().then_some(params)
}

fn decode(segment: &str) -> String {
    let mut out = Vec::new();
    let mut rest = segment.as_bytes();
    while let [first, tail @ ..] = rest {
        let hex = tail.get(..2).filter(|_| *first == b'%');
        let byte = hex
            .and_then(|hex| std::str::from_utf8(hex).ok())
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        out.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Fallback, StaticProps, fetch};

    struct Post;

    impl Page for Post {
        type Props = serde_json::Value;

        fn static_paths() -> Result<StaticPaths> {
            let ids: Vec<u32> = fetch::get("http://x/posts")?.json()?;
            Ok(StaticPaths::not_found().paths(ids.into_iter().map(|id| [("id", id)])))
        }

        fn static_props(ctx: &Context) -> Result<StaticProps<Self::Props>> {
            let Some(base) = crate::setting("content") else {
                return Ok(StaticProps::redirect("/setup").revalidate(5));
            };
            let post = fetch::get(format!("{base}/{}", ctx.param("id").unwrap_or_default()))?;
            if post.status() == 404 {
                crate::tag("post-2");
                return Ok(StaticProps::not_found().tag("gone"));
            }
            Ok(StaticProps::new(post.error_for_status()?.json()?)
                .tag("posts")
                .never())
        }

        fn render(ctx: &Context, props: Self::Props) -> Result<Document> {
            Ok(Document::html(format!(
                "{} {props} {:?}",
                ctx.path,
                ctx.query("q")
            )))
        }
    }

    fn at(path: &str) -> Test<Post> {
        Test::at("/posts/[id]", path)
    }

    #[test]
    fn a_page_is_rendered_from_what_the_test_gives() {
        let page = at("/posts/1")
            .setting("content", "http://x")
            .fetch("http://x/1", 200, r#"{"a":1}"#)
            .query("q", "z")
            .render()
            .unwrap();
        assert_eq!(page.props().unwrap()["a"], 1);
        assert_eq!(page.text(), r#"/posts/1 {"a":1} Some("z")"#);
        assert_eq!(page.tags, ["posts"]);
        assert_eq!(page.revalidate, Freshness::Never);
    }

    #[test]
    fn a_missing_page_and_a_redirect_have_no_document() {
        let missing = at("/posts/2")
            .setting("content", "http://x")
            .fetch("http://x/2", 404, "");
        let missing = missing.render().unwrap();
        assert_eq!(missing.tags, ["gone", "post-2"]);
        assert_eq!(
            (missing.outcome, missing.document),
            (Outcome::NotFound, None)
        );
        let moved = at("/posts/2").render().unwrap();
        let location = String::from("/setup");
        assert_eq!(
            moved.outcome,
            Outcome::Redirect {
                location,
                status: 307
            }
        );
        assert_eq!(
            (moved.text(), moved.revalidate),
            ("", Freshness::Seconds(5))
        );
    }

    #[test]
    fn what_the_test_does_not_give_is_not_there() {
        let error = at("/posts/3")
            .setting("content", "http://x")
            .render()
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("GET http://x/3") && error.contains("no answer"),
            "{error}"
        );
        // The world of one test is gone when the next one asks.
        let error = fetch::get("http://x/1").unwrap_err().to_string();
        assert!(
            error.contains("no network") && crate::setting("content").is_none(),
            "{error}"
        );
    }

    #[test]
    fn paths_and_shell_see_the_same_world() {
        let listed = at("/posts/1")
            .fetch("http://x/posts", 200, "[1,2]")
            .static_paths()
            .unwrap();
        assert_eq!(
            (listed.fallback, listed.paths.len()),
            (Fallback::NotFound, 2)
        );
        assert_eq!(at("/posts/1").shell().unwrap(), crate::document::loading());
    }

    #[test]
    fn a_path_of_another_route_is_an_error() {
        let error = at("/users/1").render().unwrap_err().to_string();
        assert!(
            error.contains("/users/1") && error.contains("/posts/[id]"),
            "{error}"
        );
    }

    #[test]
    fn params_are_taken_from_the_path() {
        let values = |route: &str, path: &str| {
            let params = params(route, path)?;
            Some(
                params
                    .into_iter()
                    .map(|param| (param.name, param.values))
                    .collect::<Vec<_>>(),
            )
        };
        let one = |name: &str, values: &[&str]| {
            (
                name.to_owned(),
                values.iter().map(ToString::to_string).collect::<Vec<_>>(),
            )
        };
        assert_eq!(values("/", "/"), Some(vec![]));
        assert_eq!(
            values("/posts/[id]", "/posts/a%2Fb%20%"),
            Some(vec![one("id", &["a/b %"])])
        );
        assert_eq!(
            values("/[lang]/[...slug]", "/en/a/b"),
            Some(vec![one("lang", &["en"]), one("slug", &["a", "b"])])
        );
        assert_eq!(values("/docs/[...slug]", "/docs"), None);
        assert_eq!(
            values("/docs/[[...slug]]", "/docs"),
            Some(vec![one("slug", &[])])
        );
        assert_eq!(
            values("/docs/[[...slug]]", "/docs/a"),
            Some(vec![one("slug", &["a"])])
        );
        assert_eq!(values("/posts/[id]", "/posts"), None);
        assert_eq!(values("/posts/[id]", "/posts/1/2"), None);
    }
}
