//! `PageSource`: a folder of the source tree that becomes one page module.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::cargo::{self, Metadata, Package};
use super::languages::Language;
use super::{Failed, rust_sdk};

/// Where a site is made from and where it goes.
#[derive(Debug, Clone)]
pub struct Site {
    /// The source tree: crates where their routes are, `public/`, `wisr.toml`.
    pub src: PathBuf,
    /// The site's folder: `pages/`, `public/`, `wisr.toml`.
    pub out: PathBuf,
}

/// One page to be built.
#[derive(Debug, Clone)]
pub struct PageSource {
    /// The route: `/posts/[id]`.
    pub route: String,
    /// The module, relative to `pages/`: `posts/[id].wasm`.
    pub file: String,
    /// The folder that holds the source.
    pub folder: PathBuf,
    /// What makes a module of it.
    pub(super) maker: Maker,
}

/// What makes the module of a page.
#[derive(Debug, Clone)]
pub(super) enum Maker {
    /// cargo, of a folder with a `Cargo.toml`.
    Cargo {
        /// The cargo workspace it belongs to, which is built by one cargo.
        workspace: PathBuf,
        /// cargo's word for it, `name@version`.
        package: String,
        /// The target whose module is the page.
        target: String,
    },
    /// The tools of another language, of a file such as `page.js`.
    Tools {
        /// The language.
        language: Language,
        /// The file.
        entry: PathBuf,
    },
}

impl PageSource {
    /// What it is written in.
    pub(super) fn language(&self) -> &'static str {
        match &self.maker {
            Maker::Cargo { .. } => "Rust",
            Maker::Tools { language, entry } => language.name(entry),
        }
    }

    /// The module without its extension: `posts/[id]`.
    pub(super) fn place(&self) -> &str {
        self.file.strip_suffix(".wasm").unwrap_or(&self.file)
    }
}

/// What a source tree holds.
#[derive(Debug)]
pub struct Plan {
    /// From where to where.
    pub site: Site,
    /// The pages, by file.
    pub pages: Vec<PageSource>,
    /// Pages of which cargo can make no sense.
    pub broken: Vec<Failed>,
    /// Pages whose tools are not on this machine. The module that they had stays.
    pub left_out: Vec<Failed>,
    /// What a person may have meant otherwise.
    pub warnings: Vec<String>,
    /// Folders outside the source tree that its packages are made of.
    pub beside: Vec<PathBuf>,
}

/// Folders that hold no routes: public files, content, what builds leave behind.
const NOT_ROUTES: [&str; 4] = ["target", "public", "content", "node_modules"];

/// How deep a page may lie: deeper than any address a person would type.
const MAX_DEPTH: usize = 32;

/// Sources in languages that wisr does not build itself.
const OTHER_SOURCES: [&str; 2] = ["page.go", "page.cpp"];

/// How far below a folder sources are looked for: the folder may be anybody's home.
const GLANCE: usize = 3;

/// Whether a folder is, or seems to be, a source tree.
pub(in crate::cli) fn has_sources(folder: &Path) -> bool {
    fn look(folder: &Path, depth: usize) -> bool {
        let holds = |file: &str| folder.join(file).is_file();
        let is_place = |name: &str| !name.starts_with('.') && !NOT_ROUTES.contains(&name);
        let below = || {
            let entries = fs::read_dir(folder).into_iter().flatten().flatten();
            entries.filter(|entry| entry.file_name().to_str().is_some_and(is_place))
        };
        let goes_on = depth < GLANCE;
        holds("Cargo.toml")
            || Language::of(holds).is_some()
            || goes_on && below().any(|entry| look(&entry.path(), depth + 1))
    }
    look(folder, 0)
}

/// A folder that is a page: its place, itself, and what it is made of.
type Found = (String, PathBuf, Option<(&'static str, Language)>);

impl Plan {
    /// Looks through a source tree and asks cargo about the packages it finds.
    ///
    /// # Errors
    /// A tree that cannot be read, or a machine without cargo. What is wrong with one page is in
    /// [`Plan::broken`].
    pub async fn discover(site: Site) -> anyhow::Result<Self> {
        let site = site.resolve()?;
        rust_sdk::lay_down(&site.src)?;
        let mut plan = Self {
            site,
            pages: Vec::new(),
            broken: Vec::new(),
            left_out: Vec::new(),
            warnings: Vec::new(),
            beside: Vec::new(),
        };
        let mut folders = Vec::new();
        plan.walk(&plan.site.src.clone(), "", 0, &mut folders)?;
        let mut known = Known::default();
        for (place, folder, source) in folders {
            match source {
                None => plan.add(place, folder, &mut known).await?,
                Some((source, language)) => plan.pages.push(PageSource {
                    route: route_of(&place),
                    file: format!("{place}.wasm"),
                    maker: Maker::Tools {
                        language,
                        entry: folder.join(source),
                    },
                    folder,
                }),
            }
        }
        plan.leave_out().await;
        plan.beside = known.beside(&plan.site.src);
        plan.pages.sort_by(|one, other| one.file.cmp(&other.file));
        plan.pages.dedup_by(|later, first| {
            let same = later.file == first.file;
            if same {
                let (first, later) = (first.folder.display(), later.folder.display());
                plan.warnings.push(format!(
                    "`{later}` is not built: `{first}` is the same page"
                ));
            }
            same
        });
        Ok(plan)
    }

    fn walk(
        &mut self,
        folder: &Path,
        place: &str,
        depth: usize,
        found: &mut Vec<Found>,
    ) -> anyhow::Result<()> {
        let unreadable = || format!("cannot read the folder `{}`", folder.display());
        let entries = fs::read_dir(folder).with_context(unreadable)?;
        let mut names: Vec<_> = entries.flatten().map(|entry| entry.file_name()).collect();
        names.sort();
        let holds = |file: &str| names.iter().any(|name| name == file);
        if holds("Cargo.toml") {
            if !place.is_empty() {
                found.push((place.to_owned(), folder.to_owned(), None));
            }
        } else if let Some(source) = Language::of(holds) {
            let place = if place.is_empty() { "index" } else { place };
            found.push((place.to_owned(), folder.to_owned(), Some(source)));
        } else if let Some(page) = OTHER_SOURCES.iter().find(|file| holds(file)) {
            let page = if place.is_empty() {
                (*page).to_owned()
            } else {
                format!("{place}/{page}")
            };
            self.warnings.push(format!(
                "`{page}` is not built by this version: build the module yourself and put it into the site's `pages/`"
            ));
        }
        for name in &names {
            let Some(text) = name.to_str() else { continue };
            let below = folder.join(name);
            let skipped = text.starts_with(['_', '.'])
                || NOT_ROUTES.contains(&text)
                || depth == MAX_DEPTH
                || below == self.site.out;
            // Of links only the page is wanted, not a way round in a circle.
            let is_folder = fs::symlink_metadata(&below).is_ok_and(|meta| meta.is_dir());
            if !skipped && is_folder {
                let place = if place.is_empty() {
                    text.to_owned()
                } else {
                    format!("{place}/{text}")
                };
                self.walk(&below, &place, depth + 1, found)?;
            }
        }
        Ok(())
    }

    /// Takes out the pages whose tools are missing, and says so once for each language.
    async fn leave_out(&mut self) {
        let languages: BTreeSet<Language> = self.pages.iter().filter_map(language).collect();
        for spoken in languages {
            let Some(missing) = spoken.missing().await else {
                continue;
            };
            let pages = std::mem::take(&mut self.pages);
            let (left_out, kept): (Vec<_>, Vec<_>) = pages
                .into_iter()
                .partition(|page| language(page) == Some(spoken));
            self.pages = kept;
            let routes: Vec<&str> = left_out.iter().map(|page| page.route.as_str()).collect();
            self.warnings
                .push(format!("not built: {}: needs {missing}", routes.join(", ")));
            self.left_out
                .extend(left_out.into_iter().map(|page| Failed {
                    route: page.route,
                    file: page.file,
                    message: format!("needs {missing}"),
                }));
        }
    }

    async fn add(
        &mut self,
        place: String,
        folder: PathBuf,
        known: &mut Known,
    ) -> anyhow::Result<()> {
        let manifest = folder.join("Cargo.toml");
        let broken = |message| Failed {
            route: route_of(&place),
            file: format!("{place}.wasm"),
            message,
        };
        if !known.packages.contains_key(&manifest) {
            match cargo::metadata(&folder).await? {
                Ok(metadata) => known.add(metadata),
                Err(message) => {
                    self.broken.push(broken(message));
                    return Ok(());
                }
            }
        }
        // A workspace without a package of its own is nobody's page.
        let Some((package, workspace)) = known.packages.get(&manifest) else {
            return Ok(());
        };
        match package.page_target() {
            Some(target) => self.pages.push(PageSource {
                route: route_of(&place),
                file: format!("{place}.wasm"),
                folder,
                maker: Maker::Cargo {
                    workspace: workspace.clone(),
                    package: format!("{}@{}", package.name, package.version),
                    target: target.to_owned(),
                },
            }),
            None => self.warnings.push(format!(
                "`{place}/Cargo.toml` makes no page: add `[lib]` with `crate-type = [\"cdylib\"]`, or let the \
                 folder's name begin with `_` when it is shared code"
            )),
        }
        Ok(())
    }
}

/// What is said of a folder that is not there.
pub(in crate::cli) fn no_tree(src: &Path) -> String {
    let src = src.display();
    format!("no source tree at `{src}` (`wisr new {src}` makes one)")
}

impl Site {
    /// Absolute paths without links, since cargo's answers are compared with them.
    fn resolve(self) -> anyhow::Result<Self> {
        let src = fs::canonicalize(&self.src).with_context(|| no_tree(&self.src))?;
        fs::create_dir_all(&self.out)
            .with_context(|| format!("cannot make the folder `{}`", self.out.display()))?;
        let out = fs::canonicalize(&self.out)?;
        anyhow::ensure!(
            src != out && !src.starts_with(&out),
            "the site cannot be written over its own source: choose another folder than `{}`",
            self.out.display()
        );
        Ok(Self { src, out })
    }
}

/// The packages that cargo told about, by manifest, each with its workspace.
#[derive(Debug, Default)]
struct Known {
    packages: BTreeMap<PathBuf, (Package, PathBuf)>,
}

impl Known {
    fn add(&mut self, metadata: Metadata) {
        let workspace = metadata.workspace_root;
        for package in metadata.packages {
            let manifest = package.manifest_path.clone();
            self.packages.insert(manifest, (package, workspace.clone()));
        }
    }

    fn beside(&self, src: &Path) -> Vec<PathBuf> {
        let paths = self.packages.values().flat_map(|(package, _)| {
            let dependencies = package.dependencies.iter();
            dependencies.filter_map(|dependency| fs::canonicalize(dependency.path.as_ref()?).ok())
        });
        let mut beside: Vec<PathBuf> = paths.filter(|path| !path.starts_with(src)).collect();
        beside.sort();
        beside.dedup();
        beside
    }
}

fn language(page: &PageSource) -> Option<Language> {
    match page.maker {
        Maker::Tools { language, .. } => Some(language),
        Maker::Cargo { .. } => None,
    }
}

/// `posts/[id]` is `/posts/[id]`, and `index` names its folder.
fn route_of(place: &str) -> String {
    let place = match place.strip_suffix("index") {
        Some(before) if before.is_empty() || before.ends_with('/') => before.trim_end_matches('/'),
        _ => place,
    };
    format!("/{place}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(root: &Path, folder: &str, tail: &str) {
        let folder = root.join(folder);
        fs::create_dir_all(folder.join("src")).unwrap();
        let name = folder
            .file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .replace(|c: char| !c.is_alphanumeric(), "");
        let text = format!("[package]\nname = \"p{name}\"\nedition = \"2024\"\n{tail}");
        fs::write(folder.join("Cargo.toml"), text).unwrap();
        fs::write(folder.join("src/lib.rs"), "").unwrap();
    }

    const PAGE: &str = "[lib]\ncrate-type = [\"cdylib\"]\n";

    async fn discover(src: &Path) -> Plan {
        let out = src.join(".wisr/dev");
        let site = Site {
            src: src.to_owned(),
            out,
        };
        Plan::discover(site).await.unwrap()
    }

    fn routes(plan: &Plan) -> Vec<(&str, &str)> {
        let pages = plan.pages.iter();
        pages
            .map(|page| (page.route.as_str(), page.file.as_str()))
            .collect()
    }

    #[tokio::test]
    async fn folders_with_a_cdylib_are_routes() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let members = "[workspace]\nmembers = [\"_shared\", \"api/*\", \"index\", \"posts/*\"]\nresolver = \"3\"\n";
        fs::write(root.join("Cargo.toml"), members).unwrap();
        for page in ["index", "posts/[id]", "api/hook"] {
            package(root, page, PAGE);
        }
        package(root, "_shared", "");
        package(root, "posts/helper", "");
        // A workspace of its own, as far as cargo is concerned.
        package(root, "about", &format!("{PAGE}[workspace]\n"));
        for other in [
            "target/x",
            "public/x",
            "content/x",
            "node_modules/x",
            ".git/x",
        ] {
            package(root, other, PAGE);
        }
        fs::create_dir_all(root.join("shop")).unwrap();
        fs::write(root.join("shop/page.go"), "").unwrap();
        let plan = discover(root).await;
        let expected = [
            ("/about", "about.wasm"),
            ("/api/hook", "api/hook.wasm"),
            ("/", "index.wasm"),
            ("/posts/[id]", "posts/[id].wasm"),
        ];
        assert_eq!(routes(&plan), expected);
        assert!(plan.broken.is_empty(), "{:?}", plan.broken);
        let warnings = plan.warnings.join("\n");
        assert!(warnings.contains("`shop/page.go` is not built by this version"));
        assert!(warnings.contains("`posts/helper/Cargo.toml` makes no page"));
        let workspace = |page: &PageSource| match &page.maker {
            Maker::Cargo { workspace, .. } => workspace.clone(),
            Maker::Tools { .. } => unreachable!("all of these are Rust"),
        };
        let workspaces: Vec<_> = plan.pages.iter().map(workspace).collect();
        assert_eq!(workspaces[1], workspaces[2]);
        assert_ne!(workspaces[0], workspaces[1]);
    }

    #[tokio::test]
    async fn a_broken_manifest_stops_only_its_own_page() {
        let dir = tempfile::tempdir().unwrap();
        package(dir.path(), "good", &format!("{PAGE}[workspace]\n"));
        package(dir.path(), "bad", "oops\n[workspace]\n");
        let plan = discover(dir.path()).await;
        assert_eq!(routes(&plan), [("/good", "good.wasm")]);
        assert_eq!(plan.broken.len(), 1);
        assert_eq!(plan.broken[0].file, "bad.wasm");
        assert!(plan.broken[0].message.contains("Cargo.toml"));
    }

    #[tokio::test]
    async fn a_site_is_not_written_over_its_source() {
        let dir = tempfile::tempdir().unwrap();
        let (src, out) = (dir.path().join("src"), dir.path().to_owned());
        fs::create_dir(&src).unwrap();
        let error = Plan::discover(Site { src, out }).await.unwrap_err();
        assert!(error.to_string().contains("its own source"), "{error}");
    }

    #[test]
    fn index_names_its_folder() {
        let routes = ["index", "a/index", "myindex", "a/b"].map(route_of);
        assert_eq!(routes, ["/", "/a", "/myindex", "/a/b"]);
    }
}
