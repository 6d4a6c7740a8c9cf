//! `Release`: one immutable set of routes, and what was refused a place among them.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::Serialize;

use crate::page::Timestamp;
use crate::route::Table;

use super::api::ApiRouted;
use super::history::Files;
use super::routed::{Route, Routed};

/// One immutable set of routes.
pub struct Release {
    /// Counts the changes of routes, over restarts too; 0 before the folder was read.
    pub id: u64,
    /// When it took over.
    pub at: Timestamp,
    /// The routes of pages.
    pub table: Table<Arc<Routed>>,
    /// The API routes. A table of their own: `/api` is theirs alone, so the two never meet.
    pub apis: Table<Arc<ApiRouted>>,
    /// What makes the page for paths without one: `404.wasm`.
    pub not_found: Option<Arc<Routed>>,
    /// What makes the page for failures: `500.wasm`.
    pub error: Option<Arc<Routed>>,
    /// What lies in the folder and is not served, or only in an older version.
    pub refused: Vec<Refusal>,
}

/// Something in the folder that changes no route.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
pub struct Refusal {
    /// Where it is, relative to the folder.
    pub file: PathBuf,
    /// `module`, `conflict` or `returned`.
    pub kind: &'static str,
    /// Why, and what to do.
    pub message: String,
}

impl Refusal {
    pub(super) fn module(file: PathBuf, message: impl Into<String>) -> Self {
        Self {
            file,
            kind: "module",
            message: message.into(),
        }
    }

    pub(super) fn fallen(file: PathBuf) -> Self {
        let message = "it failed 5 times in a row and never made a page, so its route is back to \
                       the module before it: see the incidents of its pages, mend it, and drop it in again";
        Self {
            file,
            kind: "returned",
            message: message.to_owned(),
        }
    }

    pub(super) fn conflict(file: PathBuf, message: String) -> Self {
        Self {
            file,
            kind: "conflict",
            message,
        }
    }
}

impl Release {
    pub(super) fn new(
        id: u64,
        at: Timestamp,
        table: Table<Arc<Routed>>,
        apis: Table<Arc<ApiRouted>>,
        refused: Vec<Refusal>,
    ) -> Self {
        let of_route = |route: &str| {
            let mut routes = table.iter();
            let found = routes.find(|(pattern, _)| pattern.as_str() == route);
            found.map(|(_, routed)| Arc::clone(routed))
        };
        Self {
            id,
            at,
            not_found: of_route("/404"),
            error: of_route("/500"),
            table,
            apis,
            refused,
        }
    }

    /// All routes, of both kinds.
    pub(super) fn all(&self) -> impl Iterator<Item = Route> {
        let pages = self
            .table
            .iter()
            .map(|(_, routed)| Route::Page(Arc::clone(routed)));
        let apis = self
            .apis
            .iter()
            .map(|(_, routed)| Route::Api(Arc::clone(routed)));
        pages.chain(apis)
    }

    /// What the routes come from.
    pub(super) fn files(&self) -> Files {
        self.all()
            .map(|route| (route.file().clone(), route.digest()))
            .collect()
    }

    /// How many routes there are, of both kinds.
    pub fn len(&self) -> usize {
        self.table.len() + self.apis.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the routes are these very ones: the same modules under the same rules.
    pub(super) fn has_routes_of(&self, other: &Self) -> bool {
        holds_same(&self.table, &other.table) && holds_same(&self.apis, &other.apis)
    }
}

fn holds_same<T>(one: &Table<Arc<T>>, other: &Table<Arc<T>>) -> bool {
    let own: HashSet<_> = one.iter().map(|(_, routed)| Arc::as_ptr(routed)).collect();
    let is_own = |routed: &Arc<T>| own.contains(&Arc::as_ptr(routed));
    own.len() == other.len() && other.iter().all(|(_, routed)| is_own(routed))
}
