//! `build`: from a source tree to a folder of modules that can be served.
//!
//! A [`Plan`] says which folders are pages; one cargo builds those of each workspace, the tools of their
//! languages the others; what they made goes into the site's folder by rename, so that a server that watches the
//! folder never sees half a module.

mod cargo;
mod command;
mod install;
mod languages;
mod precompress;
mod progress;
mod rust_sdk;
mod source;
mod toolchain;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;

pub(super) use command::show_failures;
pub use command::{BuildArgs, run};
pub use progress::Progress;
pub(super) use rust_sdk::{RUST_SDK, lay_down as lay_down_rust_sdk};
pub use source::{PageSource, Plan, Site};
pub(super) use source::{has_sources, no_tree};

use cargo::Run;
use install::Installed;
use languages::Language;
use precompress::{is_worth_it, precompress};
use source::Maker;

use crate::config::FILE;
use crate::guest::Engine;
use crate::page::Coding;
use crate::release::misplaced;
use crate::route::Pattern;

/// What pages are compiled for: components with WASI 0.2.
const TARGET: &str = "wasm32-wasip2";

/// Where cargo keeps what it built, below the source tree.
const TARGET_DIR: &str = ".wisr/target";

/// How much the compiler is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// Quick to compile.
    Dev,
    /// Quick to run.
    Release,
}

/// A page that was built.
#[derive(Debug, Clone)]
pub struct Built {
    /// The route.
    pub route: String,
    /// The module, relative to `pages/`.
    pub file: String,
    /// What it is written in.
    pub language: &'static str,
    /// Its size.
    pub bytes: u64,
    /// Whether the site's folder had another one before.
    pub changed: bool,
    /// How long its source compiled; zero when it was up to date.
    pub duration: Duration,
    /// Its machine code, where an engine tried it.
    pub native: Option<Native>,
}

/// A module that was made of a source.
#[derive(Debug)]
struct Artifact {
    wasm: PathBuf,
    /// How long it compiled; none when it was up to date.
    took: Duration,
}

/// What an engine made of a module.
#[derive(Debug, Clone, Copy)]
pub struct Native {
    /// The size of the machine code.
    pub bytes: u64,
    /// How long the module compiled; zero when it had been compiled before.
    pub duration: Duration,
}

/// A page that was not built; the module it had before stays.
#[derive(Debug, Clone)]
pub struct Failed {
    /// The route.
    pub route: String,
    /// The module, relative to `pages/`.
    pub file: String,
    /// The compiler's words, as it renders them.
    pub message: String,
}

/// How a build ended.
#[derive(Debug, Default)]
pub struct BuildReport {
    /// In the order of their files.
    pub built: Vec<Built>,
    /// In the order of their files.
    pub failed: Vec<Failed>,
    /// Files of earlier builds that no source makes any more, relative to the site's folder.
    pub removed: Vec<String>,
}

/// What the page in this file needs that is not on this machine and that wisr cannot install, with
/// what installs it.
pub(super) async fn missing(source: &str) -> Option<String> {
    let (_, language) = Language::of(|name| name == source)?;
    language.missing().await
}

/// Builds the pages of a plan, or `only` some of them, and copies `public/` and `wisr.toml`. With an engine,
/// a module that a server would refuse has failed, too, and does not take the place of the one before.
///
/// # Errors
/// What stops all pages: no Rust, a folder that cannot be written. A page that does not compile is in the
/// report, and the others are built.
pub async fn build(
    plan: &Plan,
    profile: Profile,
    only: Option<&[PageSource]>,
    engine: Option<&Engine>,
    progress: &Progress,
) -> anyhow::Result<BuildReport> {
    let mut installed = Installed::read(&plan.site.out);
    let mut report = BuildReport {
        failed: plan.broken.clone(),
        ..BuildReport::default()
    };
    let pages = only.unwrap_or(&plan.pages);
    let mut made = rust(plan, pages, profile, progress).await?;
    for language in Language::ALL {
        let of_it = pages.iter().filter_map(|page| match &page.maker {
            Maker::Tools {
                language: it,
                entry,
            } if *it == language => Some((page, &**entry)),
            _ => None,
        });
        let of_it: Vec<_> = of_it.collect();
        if !of_it.is_empty() {
            let answers = languages::build(language, &of_it, &plan.site, profile, progress).await?;
            made.extend(of_it.into_iter().map(|(page, _)| page).zip(answers));
        }
    }
    for (page, artifact) in made {
        progress.doing(&format!("checking {}", page.file));
        match collect(page, artifact, engine, &mut installed).await? {
            Ok(built) => report.built.push(built),
            Err(failed) => report.failed.push(failed),
        }
    }
    report.removed = finish(plan, profile, &mut installed)?;
    report.built.sort_by(|one, other| one.file.cmp(&other.file));
    report
        .failed
        .sort_by(|one, other| one.file.cmp(&other.file));
    Ok(report)
}

/// What came of a page: its module, or the words of what should have made it.
type Made<'a> = (&'a PageSource, Result<Artifact, String>);

/// Has one cargo for each workspace build the pages that are crates.
async fn rust<'a>(
    plan: &Plan,
    pages: &'a [PageSource],
    profile: Profile,
    progress: &Progress,
) -> anyhow::Result<Vec<Made<'a>>> {
    let mut groups: BTreeMap<&Path, Vec<Crate<'a>>> = BTreeMap::new();
    for page in pages {
        if let Maker::Cargo {
            workspace,
            package,
            target,
        } = &page.maker
        {
            let page = Crate {
                page,
                package,
                target,
            };
            groups.entry(workspace).or_default().push(page);
        }
    }
    let target_dir = plan.site.src.join(TARGET_DIR);
    let mut made = Vec::new();
    for (workspace, crates) in groups {
        toolchain::ensure_target(workspace, progress).await?;
        let crates = without_twins(crates, &mut made);
        let packages: Vec<&str> = crates.iter().map(|it| it.package).collect();
        let mut run = cargo::build(workspace, &packages, profile, &target_dir, progress).await?;
        for Crate { page, target, .. } in crates {
            let manifest = page.folder.join("Cargo.toml");
            let artifact = run.artifacts.remove(&(manifest.clone(), target.to_owned()));
            made.push((page, artifact.ok_or_else(|| why(&manifest, &run))));
        }
    }
    Ok(made)
}

/// A page that cargo builds.
struct Crate<'a> {
    page: &'a PageSource,
    package: &'a str,
    target: &'a str,
}

/// Copies `public/` and `wisr.toml`, takes away what has gone, and writes the record; returns what went.
/// In release, coded forms of the files are put beside them.
///
/// # Errors
/// A file that cannot be read or written.
pub fn copy_files(plan: &Plan, profile: Profile) -> anyhow::Result<Vec<String>> {
    finish(plan, profile, &mut Installed::read(&plan.site.out))
}

fn finish(plan: &Plan, profile: Profile, installed: &mut Installed) -> anyhow::Result<Vec<String>> {
    let Site { src, out } = &plan.site;
    // A server watches this folder also before the first page compiles.
    fs::create_dir_all(out.join("pages")).context("cannot make the folder of pages")?;
    let public = copy_public(src, profile, installed)?;
    let config = src.join(FILE);
    let mut removed = Vec::new();
    if config.is_file() {
        installed.put(FILE, &read(&config)?)?;
    } else {
        removed.extend(installed.remove(FILE));
    }
    let pages = plan.pages.iter().map(|page| &page.file);
    let others = plan.broken.iter().chain(&plan.left_out);
    let pages = pages
        .chain(others.map(|failed| &failed.file))
        .map(|file| format!("pages/{file}"));
    removed.extend(installed.keep_only("pages", &pages.collect()));
    removed.extend(installed.keep_only("public", &public));
    installed.save()?;
    Ok(removed)
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read `{}`", path.display()))
}

/// Copies `public/`, in release with coded forms of its files; returns what is there then.
fn copy_public(
    src: &Path,
    profile: Profile,
    installed: &mut Installed,
) -> anyhow::Result<BTreeSet<String>> {
    let files = install::files_below(&src.join("public"))?;
    let names = files.iter().map(|file| format!("public/{file}"));
    let mut public: BTreeSet<String> = names.collect();
    for name in public.clone() {
        let bytes = read(&src.join(&name))?;
        let changed = installed.put(&name, &bytes)?;
        if profile == Profile::Dev || !is_worth_it(&name, &bytes) {
            continue;
        }
        for coding in [Coding::Brotli, Coding::Zstd, Coding::Gzip] {
            let coded = format!("{name}{}", coding.extension());
            // One that lies in the source is its author's own.
            if public.contains(&coded) {
                continue;
            }
            if changed || !installed.has(&coded) {
                let Some(bytes) = precompress(coding, &bytes) else {
                    continue;
                };
                installed.put(&coded, &bytes)?;
            }
            public.insert(coded);
        }
    }
    Ok(public)
}

/// Pages whose modules would overwrite each other in cargo's folder, apart from the first.
fn without_twins<'a>(crates: Vec<Crate<'a>>, made: &mut Vec<Made<'a>>) -> Vec<Crate<'a>> {
    let mut taken: BTreeMap<String, &PageSource> = BTreeMap::new();
    let mut kept = Vec::new();
    for it in crates {
        let module = it.target.replace('-', "_");
        if let Some(first) = taken.get(&module) {
            let message = format!(
                "error: `{}` and `{}` both make `{module}.wasm`: give one package (or its [lib]) another name",
                first.folder.display(),
                it.page.folder.display()
            );
            made.push((it.page, Err(message)));
        } else {
            taken.insert(module, it.page);
            kept.push(it);
        }
    }
    kept
}

async fn collect(
    page: &PageSource,
    artifact: Result<Artifact, String>,
    engine: Option<&Engine>,
    installed: &mut Installed,
) -> anyhow::Result<Result<Built, Failed>> {
    let artifact = match artifact {
        Ok(artifact) => artifact,
        Err(message) => return Ok(Err(fail(page, message))),
    };
    let bytes = fs::read(&artifact.wasm)
        .with_context(|| format!("cannot read `{}`", artifact.wasm.display()))?;
    let native = match engine {
        None => None,
        Some(engine) => match load(page, engine, bytes.clone()).await {
            Ok(native) => Some(native),
            Err(reason) => {
                let message = format!("error: a server would refuse this module: {reason}");
                return Ok(Err(fail(page, message)));
            }
        },
    };
    let changed = installed.put(&format!("pages/{}", page.file), &bytes)?;
    Ok(Ok(Built {
        route: page.route.clone(),
        file: page.file.clone(),
        language: page.language(),
        bytes: bytes.len() as u64,
        changed,
        duration: artifact.took,
        native,
    }))
}

/// Loads a module as a server would, in its place.
async fn load(page: &PageSource, engine: &Engine, bytes: Vec<u8>) -> Result<Native, String> {
    let module = engine
        .load(bytes)
        .await
        .map_err(|error| error.to_string())?;
    let pattern = Pattern::of_file(Path::new(&page.file)).map_err(|error| error.to_string())?;
    match misplaced(module.role(), &pattern) {
        Some(wrong) => Err(wrong.to_owned()),
        None => Ok(Native {
            bytes: module.compiled_size(),
            duration: module.compile_time().unwrap_or_default(),
        }),
    }
}

/// Its own errors; else those of the code that it shares; else what cargo said.
fn why(manifest: &Path, run: &Run) -> String {
    let all = || run.errors.values().map(String::as_str).collect::<String>();
    let message = match run.errors.get(manifest) {
        Some(own) => own.clone(),
        None if run.errors.is_empty() => run.said.clone(),
        None => all(),
    };
    message.trim_end().to_owned()
}

fn fail(page: &PageSource, message: String) -> Failed {
    Failed {
        route: page.route.clone(),
        file: page.file.clone(),
        message,
    }
}
