//! `wisr check`: what a module is, what it costs, whether it would be served, and what it makes of a
//! path.

mod place;
mod render;
mod show;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, bail};
use clap::Args;

use super::terminal;
use crate::guest::{Engine, EngineConfig, Module};
use crate::release::misplaced;
use place::Place;
use render::Rendering;

/// Say what modules are and cost, whether a server would take them, and what they make of a path.
///
/// Every file goes through the steps that `wisr serve` takes: it is read, validated, made into a component
/// when it is a core module, compiled, and started once in an empty sandbox. What it would be allowed is
/// what the site's wisr.toml says of its route.
///
/// `--path /posts/1` makes that page as a server would, with the limits, hosts and settings of its route,
/// and keeps nothing.
///
/// Exit codes: 0 all would be served and rendered, 1 one would be refused, never be served or failed,
/// 2 usage.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// The modules.
    #[arg(required = true, value_name = "FILE.wasm")]
    pub files: Vec<PathBuf>,
    /// Render this path; a query may follow, of which the page gets what its route allows.
    #[arg(long, value_name = "PATH")]
    pub path: Option<String>,
    /// The site whose wisr.toml counts [default: the folder above `pages/`, else this one].
    #[arg(long, value_name = "DIR")]
    pub site: Option<PathBuf>,
    /// The route that the module is for, such as `/posts/[id]` [default: by its place in `pages/`,
    /// else by the name of its file].
    #[arg(long)]
    pub route: Option<String>,
    /// With `--path`: print the body to stdout, and everything else to stderr.
    #[arg(long, requires = "path", conflicts_with = "json")]
    pub body: bool,
    /// Print a JSON array with one object for each file.
    #[arg(long)]
    pub json: bool,
}

/// A module that would be loaded, where it would be, and what it made of a path.
struct Checked {
    place: Place,
    module: Arc<Module>,
    rendering: Option<Rendering>,
}

impl Checked {
    /// Whether somebody has to do something about it.
    fn failed(&self) -> bool {
        self.place.shadow.is_some() || self.rendering.as_ref().is_some_and(Rendering::failed)
    }
}

/// Runs `wisr check`.
///
/// # Errors
/// A configuration that cannot be read, or a machine on which no module could run.
pub async fn run(args: CheckArgs) -> anyhow::Result<ExitCode> {
    let mut reports = Vec::new();
    let mut failed = false;
    for file in &args.files {
        let place = Place::of(file, &args)?;
        let found = check(file, place, args.path.as_deref()).await;
        failed |= match &found {
            Ok(checked) => checked.failed(),
            Err(_) => true,
        };
        match &found {
            found if args.json => reports.push(show::json(file, found)),
            Ok(checked) => tell(file, checked, args.body),
            Err(error) => terminal::say(format!("{}: refused: {error:#}", file.display())),
        }
    }
    if args.json {
        terminal::data(serde_json::to_string_pretty(&reports)?);
    }
    Ok(ExitCode::from(u8::from(failed)))
}

fn tell(file: &Path, checked: &Checked, only_body: bool) {
    let account = show::account(file, checked);
    match checked.rendering.as_ref().filter(|_| only_body) {
        None => terminal::data(account),
        Some(rendering) => {
            terminal::say(account);
            if let Some(body) = rendering.body() {
                terminal::raw(body);
            }
        }
    }
}

async fn check(file: &Path, place: Place, path: Option<&str>) -> anyhow::Result<Checked> {
    let bytes = tokio::fs::read(file).await.context("cannot be read")?;
    let engine = Engine::new(EngineConfig {
        // What it costs is not what it cost before.
        cache: None,
        state: None,
        quick: u64::MAX,
        instances: INSTANCES,
        ..place.engine.clone()
    })?;
    let module = engine.load(bytes).await?;
    // Without a site, its name says nothing of its place.
    if place.is_certain
        && let Some(wrong) = misplaced(module.role(), &place.pattern)
    {
        bail!(wrong);
    }
    let rendering = match path {
        Some(path) => Some(render::render(&engine, &module, &place, path).await?),
        None => None,
    };
    Ok(Checked {
        place,
        module,
        rendering,
    })
}

/// Instances at once: modules are tried one after the other, and one may be starting while one ends.
const INSTANCES: u32 = 2;
