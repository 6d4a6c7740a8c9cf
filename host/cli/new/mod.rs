//! `wisr new`: a site or a page to begin with.

mod language;
mod place;
mod rust;
mod site;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;

use super::build::{Plan, Site};
use super::terminal;
use language::Language;
use place::Place;

/// Make a site or a page to begin with.
///
/// In a folder that does not exist or is empty, it makes a site with one page. In a site, it makes
/// a page for the route: a folder with its source, which `wisr dev` and `wisr build` find. What is
/// there already is never changed, but for the list of crates in the site's `Cargo.toml`.
#[derive(Debug, Args)]
pub struct NewArgs {
    /// The source tree of the site.
    #[arg(value_name = "SRC", default_value = ".")]
    src: PathBuf,
    /// What the page is written in.
    #[arg(long, value_enum, default_value_t)]
    lang: Language,
    /// The route of the page: `about`, `posts/[id]`, `docs/[...slug]` [default: the home page, in a
    /// new site].
    #[arg(long)]
    route: Option<String>,
}

/// By it editors and `tsc` know what a page imports.
const TSCONFIG: &str = "tsconfig.json";

/// Runs `wisr new`.
///
/// # Errors
/// A route that is none or is taken, a folder that is no source tree or cannot be written.
pub async fn run(args: NewArgs) -> anyhow::Result<ExitCode> {
    let src = args.src;
    let is_new = is_empty(&src)?;
    let route = match args.route {
        Some(route) => route,
        None if is_new => "/".to_owned(),
        None => bail!(
            "`{}` is not empty: say which page to make in it with `--route about`, or name a folder that is to become \
             a site",
            src.display()
        ),
    };
    let place = Place::parse(&route)?;
    let mut made = Vec::new();
    if is_new {
        made.extend(site::lay_out(&src)?);
    } else {
        refuse_taken(&src, &place).await?;
    }
    made.extend(add(&src, &place, args.lang)?);
    for path in made {
        let path = path.strip_prefix(".").unwrap_or(&path);
        terminal::data(format!("made {}", path.display()));
    }
    let (dir, path) = (src.display(), place.path());
    let said = if src == Path::new(".") {
        "wisr dev".to_owned()
    } else {
        format!("wisr dev {dir}")
    };
    terminal::say(format!(
        "now run `{said}` and open http://127.0.0.1:3000{path}"
    ));
    if let Some(missing) = args.lang.missing().await {
        terminal::say(format!(
            "warning: {} pages need {missing}",
            args.lang.name()
        ));
    }
    Ok(ExitCode::SUCCESS)
}

/// Whether a folder has nothing that anybody would miss.
fn is_empty(src: &Path) -> anyhow::Result<bool> {
    if !src.exists() {
        return Ok(true);
    }
    let names = fs::read_dir(src)
        .with_context(|| format!("cannot read `{}`", src.display()))?
        .collect::<Result<Vec<_>, _>>()
        .with_context(|| format!("cannot read `{}`", src.display()))?;
    Ok(names
        .iter()
        .all(|entry| entry.file_name().to_string_lossy().starts_with('.')))
}

/// A page for the same paths is there already, perhaps under another name of the parameter.
async fn refuse_taken(src: &Path, place: &Place) -> anyhow::Result<()> {
    let folder = src.join(place.folder());
    if folder.join("page.rs").exists() || folder.join("Cargo.toml").exists() {
        bail!("`{}` is a page already", folder.display());
    }
    let site = Site {
        src: src.to_owned(),
        out: src.join(".wisr/site"),
    };
    let plan = Plan::discover(site).await?;
    let broken = plan.broken.iter().chain(&plan.left_out);
    let taken = plan
        .pages
        .iter()
        .map(|page| &page.route)
        .chain(broken.map(|page| &page.route))
        .find(|route| place.is_like(route));
    match taken {
        Some(route) => bail!(
            "`{route}` is a page of `{}` already, for the same addresses as `{}`",
            src.display(),
            place.route()
        ),
        None => Ok(()),
    }
}

/// Writes the page; the files that were made.
fn add(src: &Path, place: &Place, language: Language) -> anyhow::Result<Vec<PathBuf>> {
    let folder = src.join(place.folder());
    let mut made = Vec::new();
    if language == Language::Rust {
        made.extend(rust::enlist(src, place)?);
        made.push(write(&folder, "Cargo.toml", &rust::manifest(place))?);
    }
    if language == Language::Ts && !src.join(TSCONFIG).exists() {
        made.push(write(
            src,
            TSCONFIG,
            include_str!("templates/tsconfig.json"),
        )?);
    }
    made.push(write(&folder, language.source(), &language.page(place))?);
    Ok(made)
}

/// A new file; one that is there stays as it is.
fn write(folder: &Path, name: &str, text: &str) -> anyhow::Result<PathBuf> {
    let path = folder.join(name);
    let made = fs::create_dir_all(path.parent().unwrap_or(folder))
        .and_then(|()| fs::File::create_new(&path))
        .and_then(|mut file| std::io::Write::write_all(&mut file, text.as_bytes()));
    made.with_context(|| format!("cannot make `{}`", path.display()))?;
    Ok(path)
}
