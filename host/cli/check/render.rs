//! `Rendering`: what a module made of one path.

use std::sync::Arc;

use anyhow::{Context as _, bail, ensure};

use super::place::Place;
use crate::guest::outbound::Client;
use crate::guest::{Engine, Grants, Guest, Module, Role};
use crate::http::pairs;
use crate::page::{Cause, Context, Failure, Fallback, Generation, Param, Render};
use crate::route::{Path, Pattern, Table};

/// One generation that nobody keeps.
pub(super) struct Rendering {
    pub(super) context: Context,
    /// What a server would do with the path, by what the module lists.
    pub(super) listing: Listing,
    pub(super) made: Result<Generation, Failure>,
}

/// What `static-paths` says of the path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Listing {
    /// It lists nothing, so every path is a page.
    Open,
    /// It is listed, and so made ahead.
    Listed,
    /// It is not, and gets this.
    Unlisted(Fallback),
}

impl Rendering {
    /// Whether there is nothing to show.
    pub(super) fn failed(&self) -> bool {
        self.made.is_err()
    }

    /// The page's body, if it made a page.
    pub(super) fn body(&self) -> Option<&[u8]> {
        match &self.made.as_ref().ok()?.outcome {
            crate::page::Outcome::Page(_, document) => Some(&document.body),
            _ => None,
        }
    }
}

/// Makes the page of `target`, a path with or without a query, as a server would.
///
/// # Errors
/// A path that is none or that the route does not have, a module that makes no pages, or one whose
/// `static-paths` fails.
pub(super) async fn render(
    engine: &Engine,
    module: &Arc<Module>,
    place: &Place,
    target: &str,
) -> anyhow::Result<Rendering> {
    let Role::Page(exports) = module.role() else {
        bail!(
            "--path: it is an API route, which answers requests and renders no path: put it into \
             `pages/api/` of a site, run `wisr serve` and ask it"
        );
    };
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let path = Path::parse(path).ok().with_context(|| {
        format!(
            "--path: `{path}` is no canonical path: it begins with one `/` and ends without one"
        )
    })?;
    let (route, params) = resolve(place, &path)?;
    let rules = &place.rules;
    let query = pairs(query)
        .filter(|(name, _)| rules.query.iter().any(|allowed| allowed == name))
        .map(|(name, value)| (name.into_owned(), value.into_owned()));
    let context = Context {
        route,
        path: path.as_str().to_owned(),
        params,
        query: query.collect(),
        cause: Cause::FirstRequest,
    };
    let grants = Grants {
        engine: engine.clone(),
        limits: rules.limits.clone(),
        outbound: Arc::clone(&rules.outbound),
        client: Client::new(place.client.clone())?,
        settings: Arc::clone(&rules.settings),
        may_revalidate: false,
    };
    let guest = Guest::new(Arc::clone(module), *exports, grants);
    let lists = module.role().exports().contains(&"paths") && place.pattern.is_dynamic();
    let listing = match lists {
        true => listing(&guest, &context).await?,
        false => Listing::Open,
    };
    let made = guest.generate(&context, None).await;
    Ok(Rendering {
        context,
        listing,
        made,
    })
}

/// The route of the path, and its parameters.
fn resolve(place: &Place, path: &Path) -> anyhow::Result<(Arc<str>, Vec<Param>)> {
    let pattern = &place.pattern;
    let mut table = Table::new();
    table.insert(pattern.clone(), ())?;
    if table.matches(path).next().is_some() {
        return Ok((pattern.route(), pattern.params_of(path)));
    }
    ensure!(
        !place.is_certain,
        "--path: the module is for `{pattern}`, which `{path}` does not match (--route says that it is for \
         another)"
    );
    // Where it will stand is not known: then it stands for this path alone.
    let own = Pattern::parse(path.as_str()).with_context(|| {
        format!("--path: no route is named like `{path}`: say which one with --route")
    })?;
    Ok((own.route(), Vec::new()))
}

async fn listing(guest: &Guest, context: &Context) -> anyhow::Result<Listing> {
    let listed = guest.static_paths(context.route.clone()).await;
    let listed = listed.map_err(|failure| anyhow::anyhow!("{failure}"))?;
    Ok(match listed.paths.contains(&context.params) {
        true => Listing::Listed,
        false => Listing::Unlisted(listed.fallback),
    })
}
