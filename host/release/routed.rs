//! `Routed`: a route with its module, its rules and its listing.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::Serialize;

use crate::guest::outbound;
use crate::guest::{Limits, Module};
use crate::page::{Digest, Fallback, Page, Param, Policy, Revalidate};
use crate::route::{Path, Pattern};

use super::api::ApiRouted;
use super::listing::{Listing, Place};
use super::trial::Trial;

/// What the site's configuration says of each route, by its text.
pub type RouteRules = Arc<dyn Fn(&str) -> RouteConfig + Send + Sync>;

/// What the site's configuration says of one route.
#[derive(Clone, PartialEq)]
pub struct RouteConfig {
    /// How its pages age.
    pub policy: Policy,
    /// What one generation may use.
    pub limits: Limits,
    /// Which hosts it may reach.
    pub outbound: Arc<outbound::Policy>,
    /// What `host.setting` returns.
    pub settings: Arc<BTreeMap<String, String>>,
    /// The query parameters that are part of the key and reach the page.
    pub query: Vec<String>,
    /// How long a list of paths is gone by.
    pub paths_revalidate: Revalidate,
    /// Whether an API route may have pages made anew.
    pub may_revalidate: bool,
}

/// A route of a release. While its file stays the same, releases share it.
pub struct Routed {
    /// The route as the cache sees it.
    pub page: Arc<Page>,
    /// The module's file, relative to the folder.
    pub file: PathBuf,
    /// The module.
    pub module: Arc<Module>,
    /// The rules that it was loaded under.
    pub config: RouteConfig,
    /// Which paths it matches.
    pub pattern: Pattern,
    /// Which of them are pages.
    pub listing: Listing,
    /// Whether it has rendered anything yet.
    pub(super) trial: Arc<Trial>,
}

/// A route of either kind. A file's kind never changes: its place decides it.
#[derive(Clone)]
pub(super) enum Route {
    Page(Arc<Routed>),
    Api(Arc<ApiRouted>),
}

/// What a reader of a path may get that a route matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// The page, once it is made.
    Page,
    /// The shell, while there is no page.
    Shell,
    /// Nothing: try the next route that matches.
    No,
}

/// How a new module has done so far: until it made a page, its route may return to the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Probation {
    /// Whether it has made a page.
    pub passed: bool,
    /// Generations that failed before that.
    pub failures: u32,
}

impl Routed {
    /// How its module has done so far.
    pub fn probation(&self) -> Probation {
        self.trial.probation()
    }

    /// What a reader of `path`, which the route matches, may get. While the listing is not known,
    /// every path is a page.
    pub fn admits(&self, path: &Path) -> Admission {
        match self.listing.of(path) {
            None | Some(Place::Listed | Place::Unlisted(Fallback::Blocking)) => Admission::Page,
            Some(Place::Unlisted(Fallback::Shell)) => Admission::Shell,
            Some(Place::Unlisted(Fallback::NotFound)) => Admission::No,
        }
    }

    /// The paths to make ahead of time, with their parameters: the one of a static route, or those
    /// listed so far (see [`Routed::ready`]).
    pub fn paths(&self) -> impl ExactSizeIterator<Item = (Path, Vec<Param>)> {
        let alone = match self.pattern.is_dynamic() {
            true => None,
            false => self.pattern.path_of(&[]).ok(),
        };
        // One after the other: with their parameters, a million would take some 400 MB.
        let listed = self.listing.paths();
        let count = listed.len() + usize::from(alone.is_some());
        (0..count).map(move |place| {
            let path = alone.as_ref().unwrap_or_else(|| &listed[place]);
            (path.clone(), self.pattern.params_of(path))
        })
    }

    /// Has the module list its paths once more, if `path` is none of them and gets nothing for it.
    ///
    /// # Errors
    /// Why it could not: the list stays as it was.
    pub async fn renew_listing(&self, path: &Path) -> Result<(), String> {
        match self.admits(path) {
            Admission::No => self.listing.renew().await,
            Admission::Page | Admission::Shell => Ok(()),
        }
    }

    /// Waits until the module was asked once for its paths, whatever came of it.
    pub async fn tried(&self) {
        self.listing.tried().await;
    }

    /// Whether [`Routed::paths`] is complete.
    pub fn is_listed(&self) -> bool {
        self.listing.is_known()
    }

    /// Waits until [`Routed::paths`] is complete. A module whose `static-paths` fails is asked
    /// again, so this may take for ever.
    pub async fn ready(&self) {
        self.listing.ready().await;
    }
}

impl Route {
    /// Its pattern's text.
    pub(super) fn name(&self) -> Arc<str> {
        match self {
            Route::Page(routed) => routed.pattern.route(),
            Route::Api(routed) => routed.pattern.route(),
        }
    }

    pub(super) fn config(&self) -> &RouteConfig {
        match self {
            Route::Page(routed) => &routed.config,
            Route::Api(routed) => &routed.config,
        }
    }

    pub(super) fn digest(&self) -> Digest {
        match self {
            Route::Page(routed) => routed.module.digest(),
            Route::Api(routed) => routed.module.digest(),
        }
    }

    pub(super) fn file(&self) -> &PathBuf {
        match self {
            Route::Page(routed) => &routed.file,
            Route::Api(routed) => &routed.file,
        }
    }
}
