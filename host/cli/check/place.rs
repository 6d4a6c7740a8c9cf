//! `Place`: the site and the route that a module is checked for.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::super::shadow::shadow;
use super::CheckArgs;
use crate::config::{Config, FILE, Overrides};
use crate::guest::{EngineConfig, outbound};
use crate::release::RouteConfig;
use crate::route::Pattern;

/// Where a module stands, and what is said of it there.
pub(super) struct Place {
    /// The site whose configuration counts, if one was found.
    pub(super) site: Option<PathBuf>,
    pub(super) pattern: Pattern,
    /// Whether the route was said, by its place in a site or on the command line; else it is guessed
    /// from the file's name.
    pub(super) is_certain: bool,
    /// The static file of the site that is served in its place.
    pub(super) shadow: Option<String>,
    pub(super) rules: RouteConfig,
    pub(super) engine: EngineConfig,
    pub(super) client: outbound::ClientConfig,
}

/// Where modules are in a site.
const PAGES: &str = "pages";

impl Place {
    /// The place of a file.
    ///
    /// # Errors
    /// When the site's configuration, or the route, cannot be read.
    pub(super) fn of(file: &Path, args: &CheckArgs) -> anyhow::Result<Self> {
        // A file that is not there is told of when it is read.
        let file = fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
        let above = site_above(&file);
        let site = args
            .site
            .clone()
            .or_else(|| above.clone())
            .or_else(|| Path::new(FILE).is_file().then(|| PathBuf::from(".")));
        let config = Config::load(
            site.as_deref().unwrap_or(Path::new(".")),
            &Overrides::of_process(),
        )?;
        let inside = above.and_then(|site| {
            let inside = file.strip_prefix(site.join(PAGES)).ok()?;
            Some(inside.to_owned())
        });
        let name = || PathBuf::from(file.file_name().unwrap_or_default());
        let pattern = match (&args.route, &inside) {
            (Some(route), _) => Pattern::parse(route).context("--route")?,
            (None, Some(inside)) => Pattern::of_file(inside)?,
            // Any file can be a module.
            (None, None) => Pattern::of_file(&name()).or_else(|_| Pattern::parse("/page"))?,
        };
        let is_certain = args.route.is_some() || inside.is_some();
        let certain = site.as_deref().filter(|_| is_certain);
        Ok(Self {
            is_certain,
            shadow: certain.and_then(|site| shadow(site, &pattern)),
            rules: (config.release.routes)(pattern.as_str()),
            engine: config.engine,
            client: config.outbound,
            pattern,
            site,
        })
    }
}

/// The folder that has `pages/` with this file in it.
fn site_above(file: &Path) -> Option<PathBuf> {
    let mut above = file.ancestors();
    let pages = above.find(|folder| folder.file_name().is_some_and(|name| name == PAGES))?;
    Some(pages.parent()?.to_owned())
}
