//! `Render`: what the cache asks of a page module, in words that know nothing of WebAssembly.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use schemars::JsonSchema;
use serde::Serialize;

use super::{Cost, Digest, Document, Failure, Policy, Tag};

/// A boxed future: renderers are chosen at run time, so their futures cannot be named.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// One module that renders one route. Each call runs in a fresh instance.
pub trait Render: Send + Sync + 'static {
    /// The content hash of the module.
    fn module(&self) -> Digest;

    /// Runs `static-props` and, unless its props have the digest `known`, `render`.
    fn generate<'a>(
        &'a self,
        context: &'a Context,
        known: Option<Digest>,
    ) -> Pending<'a, Result<Generation, Failure>>;

    /// What to show while the page is being made. Called only under [`Fallback::Shell`].
    fn shell<'a>(&'a self, context: &'a Context) -> Pending<'a, Result<Document, Failure>>;

    /// The paths of `route` to make ahead of time, and what any other path gets.
    fn static_paths(&self, route: Arc<str>) -> Pending<'_, Result<PathList, Failure>>;
}

/// A route as the cache sees it: who renders it, under which rules.
pub struct Page {
    /// The route, `/posts/[id]`.
    pub route: Arc<str>,
    /// The module that renders it.
    pub renderer: Arc<dyn Render>,
    /// How its entries age.
    pub policy: Policy,
}

/// Why a generation runs; the page is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// Prerendering, at build or start-up.
    Build,
    /// A reader asked and there was no entry.
    FirstRequest,
    /// The entry was stale.
    Stale,
    /// The revalidate endpoint was called.
    OnDemand,
    /// A draft, never stored.
    Draft,
}

impl Cause {
    /// The word for logs, metrics and incidents.
    pub fn as_str(self) -> &'static str {
        match self {
            Cause::Build => "build",
            Cause::FirstRequest => "first-request",
            Cause::Stale => "stale",
            Cause::OnDemand => "on-demand",
            Cause::Draft => "draft",
        }
    }
}

/// One route parameter; a catch-all has several values, or none.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Param {
    /// The name between the brackets.
    pub name: String,
    /// The percent-decoded segments.
    pub values: Vec<String>,
}

/// All that a page learns of what it is to render.
#[derive(Debug, Clone)]
pub struct Context {
    /// The route, `/posts/[id]`.
    pub route: Arc<str>,
    /// The canonical path, `/posts/1`.
    pub path: String,
    /// The route's parameters.
    pub params: Vec<Param>,
    /// The query parameters that the route allows.
    pub query: Vec<(String, String)>,
    /// Why this generation runs.
    pub cause: Cause,
}

/// How long a result stays fresh, as the page said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifetime {
    /// As the route's configuration says.
    Inherit,
    /// Until it is invalidated.
    Never,
    /// This many seconds; at least one.
    Seconds(u32),
}

/// What `static-props` returned for a page.
#[derive(Debug, Clone)]
pub struct Props {
    /// The JSON text.
    pub json: Bytes,
    /// How long the page stays fresh.
    pub lifetime: Lifetime,
}

/// The result of one successful generation.
#[derive(Debug)]
pub enum Outcome {
    /// A rendered page.
    Page(Props, Document),
    /// The same props as before: the stored document is still right.
    Unchanged(Props),
    /// There is no such page.
    NotFound(Lifetime),
    /// The page is elsewhere.
    Redirect {
        /// A valid `Location` value.
        location: http::HeaderValue,
        /// 301, 302, 303, 307 or 308.
        status: StatusCode,
        /// How long the redirect stays fresh.
        lifetime: Lifetime,
    },
}

/// A finished generation and what it cost.
#[derive(Debug)]
pub struct Generation {
    /// What came out.
    pub outcome: Outcome,
    /// What it was made from, whatever came out.
    pub tags: Vec<Tag>,
    /// What it took.
    pub cost: Cost,
}

/// What `static-paths` returned.
#[derive(Debug, Clone)]
pub struct PathList {
    /// The parameters of each listed path.
    pub paths: Vec<Vec<Param>>,
    /// What any other path gets.
    pub fallback: Fallback,
}

/// What a path that is not listed gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fallback {
    /// 404, after the next matching route was tried.
    NotFound,
    /// The page, once it is made.
    Blocking,
    /// The shell at once; the page from the next request on.
    Shell,
}

impl Fallback {
    /// The word for tables and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Fallback::NotFound => "not-found",
            Fallback::Blocking => "blocking",
            Fallback::Shell => "shell",
        }
    }
}
