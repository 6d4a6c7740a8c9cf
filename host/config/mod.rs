//! `Config`: everything that can be set, from text to what each room understands.
//!
//! Two stages: [`file`] is what the person wrote, `Config` what it means, every default filled in
//! and every rule checked before anything starts. The rooms own their own structs; none of them
//! has heard of `wisr.toml`.

mod file;
mod units;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};

use crate::guest::outbound;
use crate::guest::{EngineConfig, Limits};
use crate::page::{Policy, Revalidate};
use crate::release::RouteConfig;
use crate::route::Pattern;
use crate::{admin, http, isr, release, store};
use file::{File, RenderWhen, Route};

/// The name of the file, at the root of a site.
pub const FILE: &str = "wisr.toml";

/// The environment variable that holds the revalidate token, so that it need not be in a file.
pub const TOKEN_VARIABLE: &str = "WISR_TOKEN";

/// Shorter tokens can be guessed.
const MIN_TOKEN: usize = 6;

/// All that a server needs to know.
pub struct Config {
    /// The public door.
    pub http: http::Config,
    /// The admin door.
    pub admin: admin::Config,
    /// The cache.
    pub isr: isr::Config,
    /// Where entries live.
    pub store: store::Config,
    /// The sandbox.
    pub engine: EngineConfig,
    /// Outgoing HTTP.
    pub outbound: outbound::ClientConfig,
    /// The folder of modules.
    pub release: release::Config,
    /// Threads that generate pages.
    pub generation_threads: usize,
    /// For `wisr dev`.
    pub dev: Dev,
}

/// What only `wisr dev` uses.
#[derive(Debug, Clone, Default)]
pub struct Dev {
    /// The folder that the content API serves, relative to the source tree.
    pub content: Option<PathBuf>,
    /// The address that `settings.content` names, where the content API is expected.
    pub content_address: Option<SocketAddr>,
}

/// What the command line says over the file.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// The public address.
    pub listen: Option<SocketAddr>,
    /// The admin address.
    pub admin: Option<SocketAddr>,
    /// The revalidate token.
    pub token: Option<String>,
    /// Whether an author is at work: compile fast, explain failures in the browser.
    pub dev: bool,
    /// Where relative paths in `wisr.toml` begin, if not at the site's folder: an author writes it
    /// in the source tree, and a copy is served.
    pub root: Option<PathBuf>,
}

impl Config {
    /// Reads the configuration of the site at `site`; a missing file means all defaults.
    ///
    /// # Errors
    /// When the file cannot be read or understood, or a value breaks a rule: the message names
    /// the file, the line or key, and the fix.
    pub fn load(site: &Path, overrides: &Overrides) -> anyhow::Result<Self> {
        let path = site.join(FILE);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", path.display()));
            }
        };
        Self::parse(&text, site, overrides).with_context(|| path.display().to_string())
    }

    fn parse(text: &str, site: &Path, overrides: &Overrides) -> anyhow::Result<Self> {
        let file = File::parse(text)?;
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        let concurrency = file.generations.concurrency.unwrap_or(2 * cores).max(1);
        let routes = Routes::resolve(&file, concurrency)?;
        let (http, admin) = doors(&file, site, overrides, cores)?;
        let root = overrides.root.as_deref().unwrap_or(site);
        let artifacts = match &file.server.artifacts {
            Some(folder) => root.join(folder),
            None => site.join(".wisr/artifacts"),
        };
        let engine = EngineConfig {
            cache: Some(artifacts),
            // The listings and dry runs of a new release come on top of the generations.
            instances: u32::try_from(concurrency + cores).unwrap_or(u32::MAX),
            max_memory: routes.max_memory(),
            fast_compile: overrides.dev,
            compile_threads: cores.div_ceil(2),
        };
        let release = release::Config {
            pages: site.join("pages"),
            poll: file
                .server
                .poll
                .map_or(Duration::from_secs(2), |poll| poll.0),
            settle: Duration::from_millis(100),
            routes: Arc::new(move |route: &str| routes.of(route)),
        };
        Ok(Self {
            outbound: outbound::ClientConfig {
                extra_roots: file.outbound.extra_roots.as_ref().map(|pem| root.join(pem)),
                ..outbound::ClientConfig::default()
            },
            http,
            admin,
            isr: isr::Config {
                concurrency,
                queue: file.generations.queue.unwrap_or(1_000),
                wait: file
                    .generations
                    .wait
                    .map_or(Duration::from_secs(10), |wait| wait.0),
                await_module: overrides.dev,
            },
            store: store(&file, &site.join(".wisr"), overrides)?,
            engine,
            release,
            generation_threads: cores,
            dev: dev(&file),
        })
    }
}

fn store(file: &File, state: &Path, overrides: &Overrides) -> anyhow::Result<store::Config> {
    // While a site is written, its content changes also when nobody serves it: yesterday's pages
    // would only confuse.
    let is_kept = file.store.durable.unwrap_or(!overrides.dev);
    Ok(store::Config {
        memory: usize::try_from(file.store.memory.map_or(256 << 20, |memory| memory.0))?,
        folder: is_kept.then(|| state.join("store")),
        disk: file.store.disk.map(|disk| disk.0),
    })
}

fn dev(file: &File) -> Dev {
    let address = file
        .settings
        .get("content")
        .and_then(|url| url.strip_prefix("http://"));
    let content_address = address.and_then(|address| address.trim_end_matches('/').parse().ok());
    Dev {
        content: file.dev.content.clone(),
        content_address,
    }
}

fn doors(
    file: &File,
    site: &Path,
    overrides: &Overrides,
    cores: usize,
) -> anyhow::Result<(http::Config, admin::Config)> {
    let loopback = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let server = &file.server;
    let token = overrides
        .token
        .clone()
        .or_else(|| file.revalidate.token.clone());
    if let Some(token) = &token {
        ensure!(
            token.len() >= MIN_TOKEN,
            "the token ({TOKEN_VARIABLE}, or `revalidate.token`) has {} characters: use at least \
             {MIN_TOKEN}, better 32 random ones",
            token.len()
        );
    }
    let drain = server
        .drain
        .map_or(Duration::from_secs(10), |drain| drain.0);
    let max_connections = server.connections.unwrap_or(10_000).max(1);
    let per_address = match server.connections_per_address {
        Some(most) => http::PerAddress::All(most.max(1)),
        // Nobody alone shuts the others out; a proxy or a CDN has room.
        None => http::PerAddress::Public((max_connections / 10).max(100)),
    };
    let public = site.join("public");
    let http = http::Config {
        listen: overrides.listen.or(server.listen).unwrap_or(loopback(3000)),
        threads: server.threads.unwrap_or(cores).max(1),
        max_connections,
        per_address,
        drain,
        token: token.map(http::Secret::new),
        public: Some(public),
        crawlers: file.shell.crawlers.clone(),
        dev: overrides.dev,
    };
    let admin = admin::Config {
        listen: overrides.admin.or(server.admin).unwrap_or(loopback(3001)),
        token: server.admin_token.clone().map(http::Secret::new),
    };
    admin.check()?;
    Ok((http, admin))
}

/// The configuration of every route.
struct Routes {
    named: BTreeMap<String, RouteConfig>,
    others: RouteConfig,
}

impl Routes {
    fn resolve(file: &File, concurrency: usize) -> anyhow::Result<Self> {
        let shared = Route {
            settings: file.settings.clone(),
            ..Route::default()
        };
        let defaults = file.defaults.over(&shared);
        let others = resolve(&defaults, concurrency).context("[defaults]")?;
        let mut named = BTreeMap::new();
        for (route, table) in &file.routes {
            let place = || format!("[routes.{route:?}]");
            Pattern::parse(route).with_context(place)?;
            let config = resolve(&table.over(&defaults), concurrency).with_context(place)?;
            named.insert(route.clone(), config);
        }
        Ok(Self { named, others })
    }

    fn of(&self, route: &str) -> RouteConfig {
        self.named.get(route).unwrap_or(&self.others).clone()
    }

    fn max_memory(&self) -> u64 {
        let all = self.named.values().chain([&self.others]);
        all.map(|route| route.limits.memory).max().unwrap_or(0)
    }
}

fn resolve(table: &Route, concurrency: usize) -> anyhow::Result<RouteConfig> {
    let limits = limits(table)?;
    let outbound = table.outbound.as_deref().unwrap_or_default();
    let policy = Policy {
        revalidate: table
            .revalidate
            .map_or(Revalidate::Never, |lifetime| lifetime.0),
        max_stale: table
            .max_stale
            .map_or(Duration::from_secs(31_536_000), |span| span.0),
        render_on_change: table.render == Some(RenderWhen::WhenPropsChange),
        concurrency: table.concurrency.unwrap_or(concurrency).max(1),
    };
    Ok(RouteConfig {
        policy,
        limits,
        outbound: Arc::new(outbound::Policy::parse(outbound)?),
        settings: Arc::new(table.settings.clone()),
        query: table.query.clone().unwrap_or_default(),
    })
}

fn limits(table: &Route) -> anyhow::Result<Limits> {
    let default = Limits::default();
    let limits = Limits {
        cpu: table.cpu.map_or(default.cpu, |span| span.0),
        wall: table.wall.map_or(default.wall, |span| span.0),
        memory: table.memory.map_or(default.memory, |size| size.0),
        page: table.page.map_or(default.page, |size| size.0),
        props: table.props.map_or(default.props, |size| size.0),
        fetches: table.fetches.unwrap_or(default.fetches),
        fetches_in_flight: table.fetches_in_flight.unwrap_or(default.fetches_in_flight),
        fetch_bytes: table.fetch_bytes.map_or(default.fetch_bytes, |size| size.0),
    };
    if limits.cpu.is_zero() || limits.wall.is_zero() {
        bail!("cpu and wall must be longer than 0: a page needs time to run");
    }
    // The pool reserves this much address space for each instance.
    ensure!(
        limits.memory <= 4 << 30,
        "memory = {}: a guest has at most 4 GiB",
        limits.memory
    );
    Ok(limits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> anyhow::Result<Config> {
        Config::parse(text, Path::new("/site"), &Overrides::default())
    }

    fn refused(text: &str) -> String {
        format!("{:#}", parse(text).err().expect("a rule is broken"))
    }

    #[test]
    fn an_empty_file_means_the_documented_defaults() {
        let config = parse("").unwrap();
        assert_eq!(config.http.listen.to_string(), "127.0.0.1:3000");
        assert_eq!(config.admin.listen.to_string(), "127.0.0.1:3001");
        assert_eq!(config.store.memory, 256 << 20);
        assert_eq!(
            config.store.folder.as_deref(),
            Some(Path::new("/site/.wisr/store"))
        );
        let route = (config.release.routes)("/posts/[id]");
        assert_eq!(route.policy.revalidate, Revalidate::Never);
        assert_eq!(route.limits, Limits::default());
        assert!(route.outbound.is_empty() && route.query.is_empty());
    }

    #[test]
    fn a_route_says_more_than_the_defaults_and_those_more_than_nothing() {
        let config = parse(
            r#"
            [settings]
            a = "site"
            b = "site"
            [defaults]
            revalidate = 60
            cpu = "2s"
            outbound = ["https://api.example.com"]
            [routes."/posts/[id]"]
            revalidate = "never"
            memory = "64MiB"
            query = ["lang"]
            render = "when-props-change"
            settings = { b = "route" }
            "#,
        )
        .unwrap();
        let post = (config.release.routes)("/posts/[id]");
        let other = (config.release.routes)("/");
        assert_eq!(post.policy.revalidate, Revalidate::Never);
        assert_eq!(other.policy.revalidate, Revalidate::After(60));
        assert!(post.policy.render_on_change && !other.policy.render_on_change);
        assert_eq!(
            (post.limits.memory, post.limits.cpu),
            (64 << 20, Duration::from_secs(2))
        );
        assert_eq!(
            (&*post.settings["a"], &*post.settings["b"]),
            ("site", "route")
        );
        assert_eq!(
            (&*other.settings["b"], post.query.as_slice()),
            ("site", &["lang".to_owned()][..])
        );
        assert_eq!(post.outbound.entries().len(), 1);
    }

    #[test]
    fn nobody_alone_takes_all_connections() {
        for (text, expected) in [
            ("", http::PerAddress::Public(1_000)),
            ("connections = 500", http::PerAddress::Public(100)),
            ("connections-per-address = 7", http::PerAddress::All(7)),
            ("connections-per-address = 0", http::PerAddress::All(1)),
        ] {
            let config = parse(&format!("[server]\n{text}")).unwrap();
            assert_eq!(config.http.per_address, expected, "{text}");
        }
    }

    #[test]
    fn paths_begin_at_the_site_or_at_the_source_tree() {
        let text = "[server]\nartifacts = \"../shared\"\n[outbound]\nextra-roots = \"ca.pem\"";
        let paths = |config: Config| {
            let paths = [config.engine.cache, config.outbound.extra_roots];
            paths.map(|path| path.unwrap().display().to_string())
        };
        assert_eq!(
            paths(parse(text).unwrap()),
            ["/site/../shared", "/site/ca.pem"]
        );
        let overrides = Overrides {
            root: Some("/src".into()),
            ..Overrides::default()
        };
        let dev = Config::parse(text, Path::new("/src/.wisr/dev"), &overrides).unwrap();
        assert_eq!(paths(dev), ["/src/../shared", "/src/ca.pem"]);
        let absolute = text.replace("../shared", "/a").replace("ca.pem", "/ca.pem");
        assert_eq!(paths(parse(&absolute).unwrap()), ["/a", "/ca.pem"]);
        let default = parse("").unwrap().engine.cache.unwrap();
        assert_eq!(default, Path::new("/site/.wisr/artifacts"));
    }

    #[test]
    fn a_misspelt_word_is_answered_with_the_nearest() {
        assert!(refused("[revalidat]").ends_with("did you mean `revalidate`?"));
        assert!(refused("[defaults]\ncpuu = \"1s\"").ends_with("did you mean `cpu`?"));
        assert!(refused("[routes.\"/\"]\nfecthes = 1").ends_with("did you mean `fetches`?"));
        assert!(refused("[defaults]\nrender = \"alway\"").ends_with("did you mean `always`?"));
        assert!(!refused("[defaults]\ntimeout = \"1s\"").contains("did you mean"));
    }

    #[test]
    fn mistakes_name_the_place_and_the_fix() {
        assert!(refused("[server]\nlisten = \"here\"").contains("line 2"));
        assert!(refused("[sever]").contains("unknown field `sever`"));
        assert!(refused("[defaults]\ncpu = \"10\"").contains("\"10s\""));
        assert!(refused("[defaults]\ncpu = 5").contains("\"10s\""));
        assert!(refused("[defaults]\nrevalidate = 0").contains("at least 1"));
        assert!(refused("[defaults]\nwall = \"0s\"").contains("longer than 0"));
        assert!(refused("[routes.\"posts\"]").contains("[routes.\"posts\"]"));
        assert!(refused("[defaults]\noutbound = [\"example.com\"]").contains("example.com"));
        assert!(refused("[revalidate]\ntoken = \"abc\"").contains("at least 6"));
    }
}
