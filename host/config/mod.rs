//! `Config`: everything that can be set, from text to what each room understands.
//!
//! Two stages: [`file`] is what the person wrote, `Config` what it means, every default filled in
//! and every rule checked before anything starts. The rooms own their own structs; none of them
//! has heard of `wisr.toml`.

mod draft;
mod environment;
mod file;
mod force;
#[cfg(test)]
mod fuzz;
mod keys;
mod live;
mod needs;
mod proxies;
pub mod reference;
mod reload;
mod said;
mod secret;
mod shared;
mod units;
mod webhook;

use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};

use crate::guest::outbound;
use crate::guest::{CompileLimits, Compiler, EngineConfig};
use crate::telemetry::access::{AccessConfig, Form, Target};
use crate::telemetry::trace::TraceConfig;
use crate::telemetry::{Clock, Memory};
use crate::{admin, http, isr, release, store};
use file::{AccessFormat, File, FixedTables, LiveTables};
use live::Frame;
use said::Said;

pub use environment::Environment;
pub use file::LogFormat;
pub use force::{InForce, Origin, Setting, in_force};
pub use live::Live;
pub use needs::{Needs, Part, mib};
pub use reload::{Reload, Reloader, Report};
pub use units::address;

/// The name of the file, at the root of a site.
pub const FILE: &str = "wisr.toml";

/// The environment variable that holds the revalidate token, so that it need not be in a file.
pub const TOKEN_VARIABLE: &str = "WISR_TOKEN";

/// The environment variable that holds the token of the admin port, for the server and for who
/// asks it.
pub const ADMIN_TOKEN_VARIABLE: &str = "WISR_ADMIN_TOKEN";

/// What is logged where nobody says anything.
pub const DEFAULT_FILTER: &str = "wisr=info,warn";

/// The environment variable that says what is logged.
pub const LOG_VARIABLE: &str = "WISR_LOG";

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
    /// Where hosts share them, if they do.
    pub shared: Option<store::SharedConfig>,
    /// The sandbox.
    pub engine: EngineConfig,
    /// Bytes that the largest page and its props may have.
    pub returned: u64,
    /// Outgoing HTTP.
    pub outbound: outbound::ClientConfig,
    /// The folder of modules.
    pub release: release::Config,
    /// Threads that generate pages.
    pub generation_threads: usize,
    /// Where spans of requests and generations go.
    pub trace: Option<TraceConfig>,
    /// What tells the server the time.
    pub clock: Clock,
    /// For `wisr dev`.
    pub dev: Dev,
    /// What notices changes of the file.
    pub reloader: Reloader,
    /// What the person may have meant otherwise.
    pub warnings: Vec<String>,
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
    /// What the environment says over the file, and the command line over it.
    pub environment: Environment,
    /// Whether an author is at work: compile fast, explain failures in the browser.
    pub dev: bool,
    /// Where relative paths in `wisr.toml` begin, if not at the site's folder: an author writes it
    /// in the source tree, and a copy is served.
    pub root: Option<PathBuf>,
}

impl Overrides {
    /// Nothing but what the environment of this process says.
    pub fn of_process() -> Self {
        Self {
            environment: Environment::of_process(),
            ..Self::default()
        }
    }
}

/// How to log, which is needed before anything else.
#[derive(Debug, Clone, Default)]
pub struct Logging {
    /// What is logged.
    pub filter: Option<String>,
    /// In which form.
    pub format: Option<LogFormat>,
}

impl Logging {
    /// What the file of the `site` says, if there is one, and over it the environment. Mistakes say nothing
    /// here: whoever loads the configuration is told of them.
    pub fn of(site: Option<&Path>, environment: &Environment) -> Self {
        let text = site.and_then(|site| read(site).ok()?);
        let said =
            Said::by_file(text.as_deref().unwrap_or_default()).or_else(|_| Said::by_file(""));
        let file = said.and_then(|said| said.and_by(environment)?.all());
        file.map_or_else(
            |_| Self::default(),
            |File { log, .. }| Self {
                filter: log.filter,
                format: log.format,
            },
        )
    }
}

/// A shorter pause between two looks would leave a core nothing else to do.
const MIN_POLL: Duration = Duration::from_millis(10);

/// Static files that are held open for readers at once, where there are enough.
const OPEN_FILES: usize = 1024;

/// Modules of more bytes run on quickly made code first: on one core, the optimising compiler
/// takes a second over so many.
const QUICK: u64 = 1 << 20;

impl Config {
    /// Reads the configuration of the site at `site`; a missing file means all defaults.
    ///
    /// # Errors
    /// When the file cannot be read or understood, or a value breaks a rule: the message names
    /// the file, the line or key, and the fix.
    pub fn load(site: &Path, overrides: &Overrides) -> anyhow::Result<Self> {
        let text = read(site)?;
        let place = || site.join(FILE).display().to_string();
        let said = Said::by_file(text.as_deref().unwrap_or_default()).with_context(place)?;
        let said = said.and_by(&overrides.environment)?;
        let resolve = |file: File| {
            let (fixed, live) = file.parted();
            Self::resolve(&fixed, &live, site, overrides)
        };
        let mut config = resolve(said.all()?).map_err(|error| {
            let breaks = |given| said.with(given).and_then(resolve).is_err();
            error.context(match said.given.chunks(1).find(|one| breaks(one)) {
                _ if breaks(&[]) => place(),
                Some(one) => one[0].variable.clone(),
                None => "the environment".to_owned(),
            })
        })?;
        config.reloader.is_expected = text.is_some();
        config.reloader.text = text;
        config.warnings = overrides.environment.strangers();
        if !overrides.dev {
            let shortage = Needs::of(&config).shortage(Memory::now());
            config.warnings.extend(shortage);
        }
        Ok(config)
    }

    fn resolve(
        fixed: &FixedTables,
        live: &LiveTables,
        site: &Path,
        overrides: &Overrides,
    ) -> anyhow::Result<Self> {
        let cores = cores();
        let concurrency = fixed
            .generations
            .concurrency
            .map_or(2 * cores, NonZeroUsize::get);
        let frame = Frame {
            concurrency,
            max_memory: live::max_memory(live),
        };
        let (told, _) = Live::resolve(live, frame, overrides)?;
        let (http, admin) = doors(fixed, told.door, site, overrides, cores)?;
        let root = overrides.root.as_deref().unwrap_or(site);
        let artifacts = match &fixed.server.artifacts {
            Some(folder) => root.join(folder),
            None => site.join(".wisr/artifacts"),
        };
        let poll = poll(fixed)?;
        let engine = EngineConfig {
            cache: Some(artifacts),
            state: Some(site.join(".wisr")),
            instances: u32::try_from(concurrency).unwrap_or(u32::MAX),
            max_memory: frame.max_memory,
            compiler: Compiler::of_this_program(),
            compile: compile(fixed)?,
            fast_compile: overrides.dev,
            quick: fixed.compile.quick.map_or(QUICK, |size| size.0),
            compile_threads: cores.div_ceil(2),
        };
        Ok(Self {
            outbound: outbound(fixed, root),
            http,
            admin,
            isr: generations(fixed, concurrency, overrides),
            store: store(fixed, &site.join(".wisr"), overrides)?,
            returned: live::returned(live),
            shared: shared::resolve(&fixed.store, root, overrides.dev)?,
            engine,
            release: release::Config {
                pages: site.join("pages"),
                poll,
                settle: Duration::from_millis(100),
                routes: told.routes,
                // To an author, yesterday's releases are as confusing as yesterday's pages.
                state: (!overrides.dev).then(|| site.join(".wisr")),
            },
            generation_threads: cores,
            trace: trace(fixed)?,
            clock: Clock::system(),
            dev: dev(fixed, live),
            reloader: Reloader {
                site: site.to_owned(),
                overrides: overrides.clone(),
                poll,
                frame,
                fixed: fixed.clone(),
                live: live.clone(),
                text: None,
                is_expected: false,
            },
            warnings: Vec::new(),
        })
    }
}

/// The text of a site's file; none if there is no file. Blocks.
///
/// # Errors
/// When it is there and cannot be read.
pub fn read(site: &Path) -> anyhow::Result<Option<String>> {
    let path = site.join(FILE);
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// Processors that this process may use.
fn cores() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from)
}

fn store(file: &FixedTables, state: &Path, overrides: &Overrides) -> anyhow::Result<store::Config> {
    // While a site is written, its content changes also when nobody serves it: yesterday's pages
    // would only confuse.
    let is_kept = file.store.durable.unwrap_or(!overrides.dev);
    Ok(store::Config {
        memory: usize::try_from(file.store.memory.map_or(256 << 20, |memory| memory.0))?,
        folder: is_kept.then(|| state.join("store")),
        disk: space(file)?,
    })
}

/// A table below this costs more than it holds; above it, it is memory that no formula counts.
const MEMTABLES: std::ops::RangeInclusive<u64> = 64 << 10..=16 << 20;

fn space(file: &FixedTables) -> anyhow::Result<store::Space> {
    let given = store::Space::default();
    let space = store::Space {
        most: file.store.disk.map_or(given.most, |disk| disk.0),
        memtable: file.store.memtable.map_or(given.memtable, |size| size.0),
    };
    ensure!(
        MEMTABLES.contains(&space.memtable),
        "`store.memtable` is from \"64KiB\" to \"16MiB\""
    );
    Ok(space)
}

fn poll(file: &FixedTables) -> anyhow::Result<Duration> {
    let poll = file.server.poll;
    let poll = poll.map_or(Duration::from_secs(2), |poll| poll.0);
    ensure!(
        poll >= MIN_POLL,
        "[server] poll must be at least \"10ms\": each look reads the whole folder"
    );
    Ok(poll)
}

fn generations(file: &FixedTables, concurrency: usize, overrides: &Overrides) -> isr::Config {
    let wait = file.generations.wait;
    isr::Config {
        concurrency,
        queue: file.generations.queue.unwrap_or(1_000),
        wait: wait.map_or(Duration::from_secs(10), |wait| wait.0),
        await_module: overrides.dev,
    }
}

fn outbound(file: &FixedTables, root: &Path) -> outbound::ClientConfig {
    let roots = file.outbound.extra_roots.as_ref();
    outbound::ClientConfig {
        extra_roots: roots.map(|pem| root.join(pem)),
        ..outbound::ClientConfig::default()
    }
}

fn compile(file: &FixedTables) -> anyhow::Result<CompileLimits> {
    let default = CompileLimits::default();
    let limits = CompileLimits {
        memory: file.compile.memory.map_or(default.memory, |size| size.0),
        cpu: file.compile.cpu.map_or(default.cpu, |span| span.0),
        wall: file.compile.wall.map_or(default.wall, |span| span.0),
    };
    let second = Duration::from_secs(1);
    ensure!(
        limits.cpu >= second && limits.wall >= second,
        "[compile] cpu and wall must be at least \"1s\": the kernel counts whole seconds"
    );
    Ok(limits)
}

fn trace(file: &FixedTables) -> anyhow::Result<Option<TraceConfig>> {
    let sample = file.telemetry.sample.unwrap_or(0.1);
    ensure!(
        (0.0..=1.0).contains(&sample),
        "[telemetry] sample = {sample}: it is the part of requests that are traced, from 0 to 1"
    );
    let service = file.telemetry.service.clone();
    let service = service.unwrap_or_else(|| "wisr".to_owned());
    let config = file.telemetry.otlp.clone().map(|endpoint| TraceConfig {
        endpoint,
        sample,
        service,
    });
    config.as_ref().map(TraceConfig::check).transpose()?;
    Ok(config)
}

/// `root` is where a relative path begins.
fn access(file: &FixedTables, root: &Path) -> Option<AccessConfig> {
    let path = file.log.access.as_ref()?;
    Some(AccessConfig {
        target: match path.to_str() {
            Some("stdout") => Target::Stdout,
            _ => Target::File(root.join(path)),
        },
        form: match file.log.access_format {
            Some(AccessFormat::Json) => Form::Json,
            None | Some(AccessFormat::Combined) => Form::Combined,
        },
    })
}

fn dev(fixed: &FixedTables, live: &LiveTables) -> Dev {
    let address = live
        .settings
        .get("content")
        .and_then(|url| url.strip_prefix("http://"));
    let content_address = address.and_then(|address| address.trim_end_matches('/').parse().ok());
    Dev {
        content: fixed.dev.content.clone(),
        content_address,
    }
}

fn doors(
    file: &FixedTables,
    settings: http::Settings,
    site: &Path,
    overrides: &Overrides,
    cores: usize,
) -> anyhow::Result<(http::Config, admin::Config)> {
    let loopback = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let server = &file.server;
    let drain = server
        .drain
        .map_or(Duration::from_secs(10), |drain| drain.0);
    let max_connections = server.connections.map_or(10_000, NonZeroUsize::get);
    let per_address = match server.connections_per_address {
        Some(most) => http::PerAddress::All(most.get()),
        // Nobody alone shuts the others out; a proxy or a CDN has room.
        None => http::PerAddress::Public((max_connections / 10).max(100)),
    };
    let names = file.dev.hosts.iter().flatten().map(String::as_str);
    let hosts = http::hosts::Hosts::new(names).context("[dev] hosts")?;
    let hosts = overrides.dev.then_some(hosts);
    let public = site.join("public");
    let http = http::Config {
        listen: overrides.listen.or(server.listen).unwrap_or(loopback(3000)),
        threads: server.threads.map_or(cores, NonZeroUsize::get),
        max_connections,
        open_files: OPEN_FILES,
        per_address,
        first_pages: proxies::first_pages(file)?,
        proxies: Arc::new(proxies::resolve(server)?),
        in_flight: usize::try_from(server.in_flight.map_or(128 << 20, |size| size.0))?,
        drain,
        settings,
        public: Some(public),
        access: access(file, overrides.root.as_deref().unwrap_or(site)),
        dev: overrides.dev,
        hosts: hosts.clone(),
    };
    let admin = admin::Config {
        listen: overrides.admin.or(server.admin).unwrap_or(loopback(3001)),
        token: server.admin_token.clone().map(http::Secret::new),
        max_connections: admin::MAX_CONNECTIONS,
        hosts,
    };
    if let Some(token) = &server.admin_token {
        let name = format!("the token ({ADMIN_TOKEN_VARIABLE}, or `server.admin-token`)");
        secret::long_enough(token, &name, "do what an operator can")?;
    }
    admin.check()?;
    Ok((http, admin))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::Limits;
    use crate::page::Revalidate;

    fn parse(text: &str) -> anyhow::Result<Config> {
        parse_for(text, "/site", &Overrides::default())
    }

    fn parse_for(text: &str, site: &str, overrides: &Overrides) -> anyhow::Result<Config> {
        let (fixed, live) = File::parse(text)?.parted();
        Config::resolve(&fixed, &live, Path::new(site), overrides)
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
        let dev = parse_for(text, "/src/.wisr/dev", &overrides).unwrap();
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
        assert!(refused("[revalidate]\ntoken = \"abc\"").contains("at least 16"));
        assert!(refused("[server]\npoll = \"0s\"").contains("[server] poll"));
        assert!(refused("[defaults]\nfetches-in-flight = 0").contains("1 or more"));
        assert!(refused("[server]\nthreads = 0").contains("line 2, column 11"));
        assert!(refused("[server]\nthreads = \"four\"").contains("a whole number"));
        assert!(refused("[defaults]\nquery = \"q\"").contains("[\"one\", \"two\"]"));
        assert!(refused("[compile]\nwall = \"0s\"").contains("[compile] cpu and wall"));
        assert!(refused("[store]\nurl = \"http://x\"").contains("redis://host:6379"));
        assert!(refused("[telemetry]\notlp = \"nonsense\"").contains("http://127.0.0.1:4318"));
        assert!(refused("[server]\nlisten = \"localhost:1\"").contains("127.0.0.1:3000"));
        let shared = "token = \"0123456789abcdef\"";
        let told = refused(&format!("[draft]\n{shared}\n[revalidate]\n{shared}"));
        assert!(told.contains("is that of `[revalidate]`"), "{told}");
    }
}
