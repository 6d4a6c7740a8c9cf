//! `File`: `wisr.toml` as written. Every key has a default; unknown keys are errors.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::ops::Range;
use std::path::PathBuf;

use anyhow::anyhow;
use serde::{Deserialize, Serialize};

use super::draft::Draft;
use super::secret::{secret, secrets};
use super::shared::Urls;
use super::units::{Disk, Lifetime, Size, Span, listen};
use super::webhook::Webhook;
use crate::http::Header;

/// The whole file.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(super) struct File {
    pub(super) server: Server,
    pub(super) revalidate: Revalidate,
    pub(super) store: Store,
    pub(super) generations: Generations,
    pub(super) compile: Compile,
    pub(super) shell: Shell,
    pub(super) draft: Draft,
    pub(super) webhooks: BTreeMap<String, Webhook>,
    pub(super) outbound: Outbound,
    pub(super) defaults: Route,
    pub(super) routes: BTreeMap<String, Route>,
    #[serde(deserialize_with = "secrets")]
    pub(super) settings: BTreeMap<String, String>,
    pub(super) log: Log,
    pub(super) telemetry: Telemetry,
    pub(super) dev: Dev,
}

/// `[server]`
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(super) struct Server {
    #[serde(deserialize_with = "listen")]
    pub(super) listen: Option<SocketAddr>,
    #[serde(deserialize_with = "listen")]
    pub(super) admin: Option<SocketAddr>,
    #[serde(deserialize_with = "secret")]
    pub(super) admin_token: Option<String>,
    pub(super) threads: Option<NonZeroUsize>,
    pub(super) connections: Option<NonZeroUsize>,
    pub(super) connections_per_address: Option<NonZeroUsize>,
    pub(super) trusted_proxies: Option<Vec<String>>,
    pub(super) forwarded_header: Option<Header>,
    pub(super) proxy_protocol: Option<bool>,
    pub(super) in_flight: Option<Size>,
    pub(super) drain: Option<Span>,
    pub(super) artifacts: Option<PathBuf>,
    pub(super) poll: Option<Span>,
}

/// `[revalidate]`
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(super) struct Revalidate {
    #[serde(deserialize_with = "secret")]
    pub(super) token: Option<String>,
}

/// `[store]`
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(super) struct Store {
    pub(super) memory: Option<Size>,
    pub(super) disk: Option<Disk>,
    pub(super) memtable: Option<Size>,
    pub(super) durable: Option<bool>,
    pub(super) url: Option<Urls>,
    pub(super) user: Option<String>,
    #[serde(deserialize_with = "secret")]
    pub(super) password: Option<String>,
    pub(super) site: Option<String>,
    pub(super) timeout: Option<Span>,
    pub(super) lease: Option<Span>,
    pub(super) keep: Option<Span>,
    pub(super) ca: Option<PathBuf>,
}

/// `[generations]`
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(super) struct Generations {
    pub(super) concurrency: Option<NonZeroUsize>,
    pub(super) queue: Option<usize>,
    pub(super) wait: Option<Span>,
    pub(super) first_per_client: Option<NonZeroU32>,
}

/// `[compile]`
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(super) struct Compile {
    pub(super) memory: Option<Size>,
    pub(super) cpu: Option<Span>,
    pub(super) wall: Option<Span>,
    pub(super) quick: Option<Size>,
}

/// `[shell]`
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(super) struct Shell {
    pub(super) crawlers: Option<Vec<String>>,
}

/// `[outbound]`
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(super) struct Outbound {
    pub(super) extra_roots: Option<PathBuf>,
}

/// `[defaults]` and `[routes."/…"]`
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(super) struct Route {
    pub(super) revalidate: Option<Lifetime>,
    pub(super) max_stale: Option<Span>,
    pub(super) render: Option<RenderWhen>,
    pub(super) concurrency: Option<NonZeroUsize>,
    pub(super) cpu: Option<Span>,
    pub(super) wall: Option<Span>,
    pub(super) memory: Option<Size>,
    pub(super) page: Option<Size>,
    pub(super) props: Option<Size>,
    pub(super) fetches: Option<u32>,
    pub(super) fetches_in_flight: Option<NonZeroU32>,
    pub(super) fetch_bytes: Option<Size>,
    pub(super) outbound: Option<Vec<String>>,
    pub(super) query: Option<Vec<String>>,
    pub(super) paths_revalidate: Option<Lifetime>,
    pub(super) may_revalidate: Option<bool>,
    #[serde(deserialize_with = "secrets")]
    pub(super) settings: BTreeMap<String, String>,
}

/// `render = …`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum RenderWhen {
    Always,
    WhenPropsChange,
}

/// `[log]`
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(super) struct Log {
    pub(super) filter: Option<String>,
    pub(super) format: Option<LogFormat>,
    pub(super) access: Option<PathBuf>,
    pub(super) access_format: Option<AccessFormat>,
}

/// `log.format = …`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// Lines for a person.
    Human,
    /// One JSON object per line, for a program.
    Json,
}

/// `log.access-format = …`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum AccessFormat {
    Combined,
    Json,
}

/// `[telemetry]`
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(super) struct Telemetry {
    pub(super) otlp: Option<String>,
    pub(super) sample: Option<f64>,
    pub(super) service: Option<String>,
}

/// `[dev]`
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(super) struct Dev {
    pub(super) content: Option<PathBuf>,
    pub(super) hosts: Option<Vec<String>>,
}

/// The tables that hold from the start to the end of a server.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct FixedTables {
    pub(super) server: Server,
    pub(super) store: Store,
    pub(super) generations: Generations,
    pub(super) compile: Compile,
    pub(super) outbound: Outbound,
    pub(super) log: Log,
    pub(super) telemetry: Telemetry,
    pub(super) dev: Dev,
}

/// The tables that a running server takes up when they change.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct LiveTables {
    pub(super) revalidate: Revalidate,
    pub(super) shell: Shell,
    pub(super) draft: Draft,
    pub(super) webhooks: BTreeMap<String, Webhook>,
    pub(super) defaults: Route,
    pub(super) routes: BTreeMap<String, Route>,
    pub(super) settings: BTreeMap<String, String>,
}

impl File {
    /// Parts what holds until the server is started again from what it takes up while it runs. All
    /// tables are named, so that a table more must be given its side before anything compiles.
    pub(super) fn parted(self) -> (FixedTables, LiveTables) {
        let Self {
            server,
            revalidate,
            store,
            generations,
            compile,
            shell,
            draft,
            webhooks,
            outbound,
            defaults,
            routes,
            settings,
            log,
            telemetry,
            dev,
        } = self;
        let fixed = FixedTables {
            server,
            store,
            generations,
            compile,
            outbound,
            log,
            telemetry,
            dev,
        };
        let live = LiveTables {
            revalidate,
            shell,
            draft,
            webhooks,
            defaults,
            routes,
            settings,
        };
        (fixed, live)
    }

    /// Reads the text of the file.
    ///
    /// # Errors
    /// What is wrong and in which line; of a misspelt word, also which one was meant.
    pub(super) fn parse(text: &str) -> anyhow::Result<Self> {
        toml::from_str(text).map_err(|error: toml::de::Error| {
            let place = place(text, error.span());
            anyhow!("{place}{}", explain(error.message()))
        })
    }
}

/// What serde expects, in the words of whoever writes the file.
const EXPECTED: [(&str, &str); 7] = [
    ("usize", "a whole number, 0 or more"),
    ("u32", "a whole number, 0 or more"),
    ("a nonzero usize", "a whole number, 1 or more"),
    ("a nonzero u32", "a whole number, 1 or more"),
    ("f64", "a number"),
    ("a sequence", "a list, as in [\"one\", \"two\"]"),
    ("path string", "a path in quotes"),
];

/// What is wrong, and of a misspelt word which one was meant.
pub(super) fn explain(message: &str) -> String {
    let in_words = || {
        let (found, expected) = message.rsplit_once(", expected ")?;
        let (_, words) = EXPECTED.iter().find(|(serde, _)| *serde == expected)?;
        Some(format!("{found}, expected {words}"))
    };
    match meant(message) {
        None => in_words().unwrap_or_else(|| message.to_owned()),
        Some(word) => format!("{message}\ndid you mean `{word}`?"),
    }
}

/// Where a mistake is, and in which key. The line itself is not shown: this goes to the log and to
/// the incidents, and the line may hold a token.
fn place(text: &str, span: Option<Range<usize>>) -> String {
    let Some(before) = span.and_then(|span| text.get(..span.start)) else {
        return String::new();
    };
    let line = before.rsplit('\n').next().unwrap_or_default();
    let (row, column) = (before.matches('\n').count() + 1, line.chars().count() + 1);
    // Where the text is no TOML, what stands before a `=` may be anything.
    let is_toml = || text.parse::<toml::Table>().is_ok();
    let is_bare = |key: &str| {
        key.chars()
            .all(|c| c.is_ascii_alphanumeric() || "_-".contains(c))
    };
    let key = line.split_once('=').map(|(key, _)| key.trim());
    match key.filter(|key| is_bare(key) && is_toml()) {
        Some(key) => format!("line {row}, column {column}, `{key}`: "),
        None => format!("line {row}, column {column}: "),
    }
}

/// More typing errors than these are another word.
pub(super) const MAX_TYPOS: usize = 2;

/// The known word nearest to an unknown one, from serde's message: "unknown field `a`, expected one
/// of `b`, `c`".
fn meant(message: &str) -> Option<&str> {
    let mut words = message
        .strip_prefix("unknown ")?
        .split('`')
        .skip(1)
        .step_by(2);
    let written = words.next()?;
    words
        .map(|word| (strsim::osa_distance(written, word), word))
        .filter(|(typos, _)| *typos <= MAX_TYPOS)
        .min_by_key(|(typos, _)| *typos)
        .map(|(_, word)| word)
}

impl Route {
    /// What this table says, and where it is silent what `defaults` says.
    pub(super) fn over(&self, defaults: &Route) -> Route {
        let mut settings = defaults.settings.clone();
        settings.extend(self.settings.clone());
        Route {
            revalidate: self.revalidate.or(defaults.revalidate),
            max_stale: self.max_stale.or(defaults.max_stale),
            render: self.render.or(defaults.render),
            concurrency: self.concurrency.or(defaults.concurrency),
            cpu: self.cpu.or(defaults.cpu),
            wall: self.wall.or(defaults.wall),
            memory: self.memory.or(defaults.memory),
            page: self.page.or(defaults.page),
            props: self.props.or(defaults.props),
            fetches: self.fetches.or(defaults.fetches),
            fetches_in_flight: self.fetches_in_flight.or(defaults.fetches_in_flight),
            fetch_bytes: self.fetch_bytes.or(defaults.fetch_bytes),
            outbound: self.outbound.clone().or_else(|| defaults.outbound.clone()),
            query: self.query.clone().or_else(|| defaults.query.clone()),
            paths_revalidate: self.paths_revalidate.or(defaults.paths_revalidate),
            may_revalidate: self.may_revalidate.or(defaults.may_revalidate),
            settings,
        }
    }
}
