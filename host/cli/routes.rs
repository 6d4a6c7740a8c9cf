//! `wisr routes`: the route table of a site's folder, without a server.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;
use serde::Serialize;

use super::shadow::shadow;
use super::{source_tree, terminal};
use crate::config::FILE;
use crate::route::{Pattern, Table};

/// Show the routes of a site: which file answers what, in the order in which they are tried.
///
/// Exit codes: 0 no conflicts, 1 a file has no route or conflicts with another, 2 usage.
#[derive(Debug, Args)]
pub struct RoutesArgs {
    /// The site's folder, as `wisr build` makes it.
    #[arg(default_value = ".")]
    pub site: PathBuf,
    /// Print JSON: `{"routes":[…],"problems":[…]}`.
    #[arg(long)]
    pub json: bool,
}

/// Runs `wisr routes`.
///
/// # Errors
/// A folder without `pages/`, or a `wisr.toml` that is not TOML.
pub async fn run(args: RoutesArgs) -> anyhow::Result<ExitCode> {
    let listing = Listing::read(&args.site)?;
    if args.json {
        terminal::data(serde_json::to_string_pretty(&listing)?);
    } else {
        let rows: Vec<_> = listing.routes.iter().map(Row::cells).collect();
        terminal::data(terminal::table(
            ["route", "kind", "file", "wisr.toml"],
            &rows,
        ));
        if rows.is_empty() {
            let pages = args.site.join("pages");
            terminal::say(format!("no modules in `{}`", pages.display()));
        }
        for problem in &listing.problems {
            terminal::say(format!("problem: {problem}"));
        }
    }
    Ok(ExitCode::from(u8::from(!listing.problems.is_empty())))
}

/// The routes of a folder.
#[derive(Debug, Serialize)]
pub struct Listing {
    /// In the order in which they are tried.
    pub routes: Vec<Row>,
    /// Files without a route, conflicts, configuration of routes that are not there.
    pub problems: Vec<String>,
}

/// One route.
#[derive(Debug, Serialize)]
pub struct Row {
    /// The route: `/posts/[id]`.
    pub route: String,
    /// What answers there.
    pub kind: Kind,
    /// The module, relative to `pages/`.
    pub file: String,
    /// What `wisr.toml` sets for this route alone.
    pub config: Option<toml::Table>,
}

/// What a module answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// One path.
    Static,
    /// Many paths.
    Dynamic,
    /// What other paths get: those that have no page, and those whose page fails.
    Error,
    /// Requests of any method, below `/api`.
    Api,
}

impl Kind {
    /// The word for tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Static => "static",
            Kind::Dynamic => "dynamic",
            Kind::Error => "error page",
            Kind::Api => "API route",
        }
    }

    fn of(pattern: &Pattern) -> Self {
        match pattern.as_str() {
            "/404" | "/500" => Kind::Error,
            _ if pattern.is_api() => Kind::Api,
            _ if pattern.is_dynamic() => Kind::Dynamic,
            _ => Kind::Static,
        }
    }
}

impl Row {
    fn cells(&self) -> [String; 4] {
        let config = self.config.as_ref().map(|table| {
            let keys = table.iter().map(|(key, value)| format!("{key} = {value}"));
            keys.collect::<Vec<_>>().join(", ")
        });
        [
            self.route.clone(),
            self.kind.as_str().to_owned(),
            self.file.clone(),
            config.unwrap_or_default(),
        ]
    }
}

impl Listing {
    /// Reads a site's folder.
    ///
    /// # Errors
    /// A folder without `pages/`, or a `wisr.toml` that is not TOML.
    pub fn read(site: &Path) -> anyhow::Result<Self> {
        let pages = site.join("pages");
        if !pages.is_dir() {
            let advice = source_tree(site).unwrap_or_else(|| {
                "a site is what `wisr build SRC -o SITE` makes, or any folder with `pages/*.wasm`".to_owned()
            });
            bail!("no folder `{}`: {advice}", pages.display());
        }
        let mut config = route_tables(&site.join(FILE))?;
        let mut files = Vec::new();
        gather(&pages, Path::new(""), 0, &mut files)
            .with_context(|| format!("cannot read `{}`", pages.display()))?;
        let mut table: Table<String> = Table::new();
        let mut problems = Vec::new();
        for file in files {
            let shown = file.display().to_string();
            let place = place(&mut table, &file);
            problems.extend(place.err().map(|reason| format!("{shown}: {reason}")));
        }
        let row = |(pattern, file): (&Pattern, &String)| Row {
            route: pattern.as_str().to_owned(),
            kind: Kind::of(pattern),
            file: file.clone(),
            config: config
                .remove(pattern.as_str())
                .and_then(|value| match value {
                    toml::Value::Table(table) => Some(table),
                    _ => None,
                }),
        };
        let mut routes: Vec<Row> = table.iter().map(row).collect();
        routes.sort_by(|one, other| precedence(&one.route).cmp(&precedence(&other.route)));
        let told = |(pattern, file)| Some(format!("{file}: {}", shadow(site, pattern)?));
        problems.extend(table.iter().filter_map(told));
        let unused = config.keys();
        problems.extend(
            unused.map(|route| {
                format!("wisr.toml configures `{route}`, but no module has this route")
            }),
        );
        Ok(Self { routes, problems })
    }
}

/// Gives a file its place in the table; of two that claim one, the first has it, as in a server that starts.
fn place(table: &mut Table<String>, file: &Path) -> Result<(), String> {
    let pattern = Pattern::of_file(file).map_err(|error| error.to_string())?;
    let inserted = table.insert(pattern, file.display().to_string());
    inserted.map_err(|conflict| {
        let kept = table.iter().find(|(pattern, _)| **pattern == conflict.kept);
        let file = kept.map_or("", |(_, file)| file.as_str());
        format!("{conflict} (kept: {file})")
    })
}

/// `[routes."…"]` of a configuration file.
fn route_tables(file: &Path) -> anyhow::Result<toml::Table> {
    let text = match fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error).context(format!("cannot read `{}`", file.display())),
    };
    let mut config: toml::Table = text
        .parse()
        .with_context(|| format!("`{}` is not TOML", file.display()))?;
    match config.remove("routes") {
        Some(toml::Value::Table(routes)) => Ok(routes),
        _ => Ok(toml::Table::new()),
    }
}

/// How deep modules may lie: deeper than any address a person would type.
const MAX_DEPTH: usize = 32;

fn gather(
    folder: &Path,
    place: &Path,
    depth: usize,
    files: &mut Vec<PathBuf>,
) -> std::io::Result<()> {
    let mut names: Vec<_> = fs::read_dir(folder)?
        .flatten()
        .map(|entry| entry.file_name())
        .collect();
    names.sort();
    for name in names {
        if name.to_string_lossy().starts_with('.') {
            continue;
        }
        let (below, place) = (folder.join(&name), place.join(&name));
        if below.is_dir() && depth < MAX_DEPTH {
            gather(&below, &place, depth + 1, files)?;
        } else if place
            .extension()
            .is_some_and(|extension| extension == "wasm")
        {
            files.push(place);
        }
    }
    Ok(())
}

/// At each segment a static route comes before `[id]`, that before `[...slug]`, that before `[[...slug]]`.
fn precedence(route: &str) -> Vec<(u8, &str)> {
    let rank = |segment| match segment {
        text if str::starts_with(text, "[[...") => (3, text),
        text if text.starts_with("[...") => (2, text),
        text if text.starts_with('[') => (1, text),
        text => (0, text),
    };
    route.split('/').map(rank).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(files: &[&str], config: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("pages")).unwrap();
        for file in files {
            let path = dir.path().join("pages").join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        fs::write(dir.path().join("wisr.toml"), config).unwrap();
        dir
    }

    #[test]
    fn routes_come_in_the_order_in_which_they_are_tried() {
        let files = [
            "index.wasm",
            "404.wasm",
            "posts/[id].wasm",
            "posts/new.wasm",
            "posts/[...rest].wasm",
            "[[...all]].wasm",
            "api/posts/[id].wasm",
            "notes.txt",
            ".hidden.wasm",
        ];
        // The optional catch-all would claim `/`, too.
        let dir = site(&files[1..], "");
        let listing = Listing::read(dir.path()).unwrap();
        let routes: Vec<_> = listing
            .routes
            .iter()
            .map(|row| (row.route.as_str(), row.kind))
            .collect();
        let expected = [
            ("/404", Kind::Error),
            ("/api/posts/[id]", Kind::Api),
            ("/posts/new", Kind::Static),
            ("/posts/[id]", Kind::Dynamic),
            ("/posts/[...rest]", Kind::Dynamic),
            ("/[[...all]]", Kind::Dynamic),
        ];
        assert_eq!(routes, expected);
        assert!(listing.problems.is_empty(), "{:?}", listing.problems);
    }

    #[test]
    fn a_file_in_the_way_of_a_page_is_named() {
        let dir = site(
            &["about.wasm", "a b.wasm", "[slug].wasm", "docs/index.wasm"],
            "",
        );
        fs::create_dir_all(dir.path().join("public/docs")).unwrap();
        for file in ["about", "a b", "other", "docs/x"] {
            fs::write(dir.path().join("public").join(file), "").unwrap();
        }
        let problems = Listing::read(dir.path()).unwrap().problems;
        assert_eq!(problems.len(), 2, "{problems:?}");
        let about = "about.wasm: `public/about` has the same path";
        assert!(
            problems.iter().any(|problem| problem.starts_with(about)),
            "{problems:?}"
        );
    }

    #[test]
    fn conflicts_name_the_file_and_unused_configuration_its_route() {
        let config = "[routes.\"/about\"]\nrevalidate = 5\n[routes.\"/gone\"]\nrevalidate = 1\n";
        let dir = site(&["about.wasm", "about/index.wasm", "a[b.wasm"], config);
        let listing = Listing::read(dir.path()).unwrap();
        assert_eq!(listing.routes.len(), 1);
        assert_eq!(listing.routes[0].cells()[3], "revalidate = 5");
        let problems = listing.problems.join("\n");
        for part in [
            "about.wasm: ",
            "(kept: about/index.wasm)",
            "a[b.wasm: ",
            "`/gone`",
        ] {
            assert!(problems.contains(part), "{part}: {problems}");
        }
    }
}
