//! `Language`: pages in other languages than Rust, each made by the toolchain of its ecosystem.
//!
//! A [`Toolbox`] holds the SDK and the pinned tools of a language below the source tree; a [`Record`] says
//! which files a module was made of, so that it is made again only when one of them changed.

mod c;
mod javascript;
mod python;
mod record;
mod sdk;
mod toolbox;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;

use super::{Artifact, PageSource, Profile, Progress, Site};
use record::Record;
use toolbox::Toolbox;

/// Where modules are kept between builds, below the source tree; each profile has its own.
const MADE: &str = ".wisr/made";

/// A language, by what makes a module of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::cli) enum Language {
    /// JavaScript and TypeScript: esbuild and componentize-qjs.
    JavaScript,
    /// Python: componentize-py.
    Python,
    /// C: clang with wasi-libc.
    C,
}

/// The sources by which a page is known, in the order in which they are looked for.
const SOURCES: [(&str, Language); 6] = [
    ("page.ts", Language::JavaScript),
    ("page.tsx", Language::JavaScript),
    ("page.js", Language::JavaScript),
    ("page.jsx", Language::JavaScript),
    ("page.py", Language::Python),
    ("page.c", Language::C),
];

/// A page that is to be made.
struct Work<'a> {
    page: &'a PageSource,
    entry: PathBuf,
    out: PathBuf,
}

/// What came of one page: the files that its module was made of, or the tool's own words.
type Outcome = Result<Vec<PathBuf>, String>;

impl Language {
    pub(super) const ALL: [Self; 3] = [Self::JavaScript, Self::Python, Self::C];

    /// The page among the names of a folder, and its language.
    pub(super) fn of(holds: impl Fn(&str) -> bool) -> Option<(&'static str, Self)> {
        SOURCES.into_iter().find(|(source, _)| holds(source))
    }

    /// What people call it.
    pub(super) fn name(self, entry: &Path) -> &'static str {
        let typed = entry
            .extension()
            .is_some_and(|ext| ext == "ts" || ext == "tsx");
        match self {
            Self::JavaScript if typed => "TypeScript",
            Self::JavaScript => "JavaScript",
            Self::Python => "Python",
            Self::C => "C",
        }
    }

    /// The tool that is not there and that wisr cannot install, with what installs it.
    pub(super) async fn missing(self) -> Option<String> {
        match self {
            Self::JavaScript => toolbox::lacks(&["node", "npm"]).map(|tool| {
                format!("`{tool}`: install Node.js 20 or newer with npm from https://nodejs.org")
            }),
            Self::Python => toolbox::lacks(&["python3"])
                .map(|_| "`python3`: on Debian `apt install python3 python3-venv`".to_owned()),
            Self::C => c::missing().await,
        }
    }

    fn toolbox(self, src: &Path) -> Toolbox {
        let (name, files) = match self {
            Self::JavaScript => ("js", sdk::JAVASCRIPT),
            Self::Python => ("python", sdk::PYTHON),
            Self::C => ("c", sdk::C),
        };
        Toolbox::new(&src.join(".wisr").join(name), files)
    }
}

/// Makes the pages of one language; the answers stand as the pages do.
///
/// # Errors
/// A folder that cannot be written.
pub(super) async fn build(
    language: Language,
    pages: &[(&PageSource, &Path)],
    site: &Site,
    profile: Profile,
    progress: &Progress,
) -> anyhow::Result<Vec<Result<Artifact, String>>> {
    let toolbox = language.toolbox(&site.src);
    let _lock = toolbox.lock().await?;
    toolbox.unpack()?;
    let made = site.src.join(MADE).join(match profile {
        Profile::Dev => "dev",
        Profile::Release => "release",
    });
    let recipe = toolbox.recipe(&site.src, profile)?;
    let work: Vec<Work<'_>> = pages
        .iter()
        .map(|(page, entry)| Work {
            page,
            entry: (*entry).to_owned(),
            out: made.join(&page.file),
        })
        .collect();
    let current = |work: &&Work<'_>| Record::of(&work.out).holds(&recipe, &work.entry);
    let (fresh, stale): (Vec<&Work<'_>>, Vec<&Work<'_>>) = work.iter().partition(current);
    let mut answers: Vec<(&Path, Result<Artifact, String>)> = Vec::new();
    for work in fresh {
        answers.push((&work.out, Ok(artifact(work, Duration::ZERO))));
    }
    let installed = if stale.is_empty() {
        Ok(())
    } else {
        install(language, &toolbox, &site.src, progress).await?
    };
    if let Err(why) = installed {
        for work in stale {
            answers.push((&work.out, Err(why.clone())));
        }
    } else {
        for work in stale {
            progress.compiling(work.page.place());
            let answer = make(language, &toolbox, work, site, profile, &recipe).await?;
            answers.push((&work.out, answer));
        }
    }
    let mut answer = |work: &Work<'_>| {
        let at = answers.iter().position(|(out, _)| *out == work.out);
        at.map(|at| answers.swap_remove(at).1)
    };
    Ok(work.iter().filter_map(&mut answer).collect())
}

async fn install(
    language: Language,
    toolbox: &Toolbox,
    src: &Path,
    progress: &Progress,
) -> anyhow::Result<Result<(), String>> {
    match language {
        Language::JavaScript => javascript::install(toolbox, progress).await,
        Language::Python => python::install(toolbox, src, progress).await,
        Language::C => Ok(Ok(())),
    }
}

async fn make(
    language: Language,
    toolbox: &Toolbox,
    work: &Work<'_>,
    site: &Site,
    profile: Profile,
    recipe: &str,
) -> anyhow::Result<Result<Artifact, String>> {
    let began = Instant::now();
    if let Some(folder) = work.out.parent() {
        fs::create_dir_all(folder)
            .with_context(|| format!("cannot make the folder `{}`", folder.display()))?;
    }
    let asked = Record::begin(&work.out)?;
    let outcome = match language {
        Language::JavaScript => javascript::make(toolbox, work, &site.src, profile).await?,
        Language::Python => python::make(toolbox, work, &site.src).await?,
        Language::C => c::make(toolbox, work, &site.src, profile).await?,
    };
    Ok(match outcome {
        Ok(inputs) => {
            Record::new(recipe, &work.entry, inputs, asked).save(&work.out)?;
            Ok(artifact(work, began.elapsed()))
        }
        Err(words) => Err(words),
    })
}

fn artifact(work: &Work<'_>, took: Duration) -> Artifact {
    Artifact {
        wasm: work.out.clone(),
        took,
    }
}
