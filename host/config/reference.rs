//! `Reference`: every key of `wisr.toml` with its default and what it means. The README's tables
//! and `wisr config` are made of it; tests hold it to the structs and to what the defaults are.

use std::fmt::Write as _;

/// One key.
pub(super) struct Key {
    /// With its tables: `store.memory`; `*` stands for a name that the person chooses.
    pub(super) name: &'static str,
    pub(super) default: Default,
    /// For people, in Markdown.
    pub(super) meaning: &'static str,
}

/// What holds where nobody says anything.
pub(super) enum Default {
    /// A value in TOML.
    Value(&'static str),
    /// What cannot be said in the file.
    Words(&'static str),
    /// A number that depends on the machine, in words and as it is.
    Machine(&'static str, fn(&Machine) -> String),
}

/// What defaults depend on.
pub(super) struct Machine {
    cores: usize,
    dev: bool,
}

impl Machine {
    pub(super) fn here(dev: bool) -> Self {
        let cores = super::cores();
        Self { cores, dev }
    }
}

impl Default {
    /// For the README.
    fn said(&self) -> String {
        match self {
            Default::Value(value) => format!("`{value}`"),
            Default::Words(words) | Default::Machine(words, _) => (*words).to_owned(),
        }
    }

    /// On this machine.
    pub(super) fn shown(&self, machine: &Machine) -> String {
        match self {
            Default::Value(value) => (*value).to_owned(),
            Default::Words(words) => words.replace('`', ""),
            Default::Machine(_, value) => value(machine),
        }
    }
}

/// The key of that name; keys of a route are those of `defaults`.
pub(super) fn key(path: &[String]) -> Option<&'static Key> {
    let name = path.join(".");
    KEYS.iter().find(|key| key.name == name)
}

/// The reference as the README has it: the keys of the file, then those of routes, in Markdown.
pub fn markdown() -> String {
    let (routes, file): (Vec<_>, Vec<_>) =
        KEYS.iter().partition(|key| key.name.starts_with(DEFAULTS));
    let mut text = String::from(HEAD);
    let mut table = "";
    for Key {
        name,
        default,
        meaning,
    } in file
    {
        let (of, own) = name.split_once('.').unwrap_or(("", name));
        // Of a table whose name the person chooses, the keys have names.
        let (place, own) = match own.strip_prefix("*.") {
            Some(own) => (format!("{of}.NAME"), own.trim_end_matches(".*")),
            None => (of.to_owned(), own),
        };
        if of != table {
            // Writing to a `String` cannot fail.
            let _ = writeln!(text, "| `[{place}]` | | |");
            table = of;
        }
        let own = if own == "*" {
            "any name".to_owned()
        } else {
            format!("`{own}`")
        };
        let _ = writeln!(text, "| {own} | {} | {meaning} |", default.said());
    }
    text.push('\n');
    text.push_str(HEAD);
    for Key {
        name,
        default,
        meaning,
    } in routes
    {
        let own = name.trim_start_matches(DEFAULTS).trim_end_matches(".*");
        let _ = writeln!(text, "| `{own}` | {} | {meaning} |", default.said());
    }
    text
}

const HEAD: &str = "| key | default | meaning |\n|---|---|---|\n";

/// What is said of all routes stands here.
const DEFAULTS: &str = "defaults.";

const fn row(name: &'static str, default: Default, meaning: &'static str) -> Key {
    Key {
        name,
        default,
        meaning,
    }
}

use Default::{Machine as OfMachine, Value, Words};

const KEYS: &[Key] = &[
    row(
        "server.listen",
        Value("\"127.0.0.1:3000\""),
        "where readers connect; HTTP/1.1 and HTTP/2, without TLS",
    ),
    row(
        "server.admin",
        Value("\"127.0.0.1:3001\""),
        "where operators connect",
    ),
    row(
        "server.admin-token",
        Words("none"),
        "`authorization: Bearer …` for the admin port, except `/livez` and `/readyz`; at least 16 characters, required beyond loopback",
    ),
    row(
        "server.threads",
        OfMachine("the number of cores", |machine| machine.cores.to_string()),
        "threads that serve; as many as cores: each stays on one",
    ),
    row(
        "server.connections",
        Value("10000"),
        "open connections; further ones wait",
    ),
    row(
        "server.connections-per-address",
        Words("a tenth of `connections`, for public addresses"),
        "open connections of one address (of IPv6, of 64 bits); unless it or `trusted-proxies` is set, loopback and private addresses, which proxies have, are not counted; those of trusted proxies never are",
    ),
    row(
        "server.trusted-proxies",
        Words("not known: no limit of first generations by client"),
        "addresses and networks of the proxies in front, as `[\"127.0.0.1\", \"10.0.0.0/8\"]`, whose word is taken for [who the client is](#behind-nginx-or-a-cdn); `[]` where there are none",
    ),
    row(
        "server.forwarded-header",
        Words("whichever comes"),
        "`\"x-forwarded-for\"` or `\"forwarded\"`: the one that the proxies write, the other being ignored; unless it is set, of two that disagree neither is believed",
    ),
    row(
        "server.proxy-protocol",
        Value("false"),
        "whether connections begin with the PROXY protocol, version 1 or 2; then only trusted proxies may connect, and a connection without it is closed",
    ),
    row(
        "server.in-flight",
        Value("\"128MiB\""),
        "bytes that requests and responses hold while they are under way, each page once; beyond it those that take longest are broken off",
    ),
    row(
        "server.drain",
        Value("\"10s\""),
        "how long requests in flight may take after the stop signal",
    ),
    row(
        "server.artifacts",
        Words("`SITE/.wisr/artifacts`"),
        "where machine code is kept",
    ),
    row(
        "server.poll",
        Value("\"2s\""),
        "how often `pages/` and `wisr.toml` are looked at even if nothing reports a change",
    ),
    row(
        "revalidate.token",
        Words("none"),
        "turns the endpoint on; at least 16 characters, such as `openssl rand -hex 16` makes",
    ),
    row(
        "store.memory",
        Value("\"256MiB\""),
        "bytes of pages in memory, all that they hold counted; what was used least goes first",
    ),
    row(
        "store.durable",
        OfMachine("`true`, under `dev` `false`", |machine| {
            (!machine.dev).to_string()
        }),
        "whether pages are kept on disk as well",
    ),
    row(
        "store.disk",
        Value("\"50%\""),
        "what pages may take on disk: a size, a part of what is free there and the store has already (64 MiB at least), or `\"unlimited\"`; pages that no route shows go first, then those that say there is none, then those not in memory, the oldest first",
    ),
    row(
        "store.memtable",
        Value("\"16MiB\""),
        "bytes of written pages that wait in memory, three times at most, before they are put in order on disk; from 64 KiB to 16 MiB",
    ),
    row(
        "store.url",
        Words("none"),
        "where hosts share pages: `\"redis://host:6379\"`, `\"rediss://…\"`, or a list of nodes of a Cluster",
    ),
    row(
        "store.user",
        Words("that of `url`"),
        "the ACL user of Redis",
    ),
    row(
        "store.password",
        Words("that of `url`"),
        "its password, better by `WISR_STORE_PASSWORD_FILE` than in a file that others read",
    ),
    row(
        "store.site",
        Value("\"default\""),
        "which site they are of; the same on all its hosts",
    ),
    row(
        "store.timeout",
        Value("\"200ms\""),
        "how long whoever waits for a page waits for Redis",
    ),
    row(
        "store.lease",
        Value("\"5s\""),
        "after how long a silent host that makes a page is taken for dead; at least three times `timeout`, at most `10m`",
    ),
    row(
        "store.keep",
        Value("\"7d\""),
        "how long Redis keeps a page that nobody makes anew or asks for, `1s` to `10years`",
    ),
    row(
        "store.ca",
        Words("the system's"),
        "root certificates (PEM) for `rediss://`",
    ),
    row(
        "generations.concurrency",
        OfMachine("twice the number of cores", |machine| {
            (2 * machine.cores).to_string()
        }),
        "generations at once",
    ),
    row(
        "generations.queue",
        Value("1000"),
        "generations that wait; beyond it a reader without a page gets a 503",
    ),
    row(
        "generations.wait",
        Value("\"10s\""),
        "how long a reader waits for a generation to begin",
    ),
    row(
        "generations.first-per-client",
        Words("`60`, where `server.trusted-proxies` is set; else no limit"),
        "pages that nobody has asked for before and the site does not list, made for one client in a minute; beyond it 429",
    ),
    row(
        "compile.memory",
        Value("\"2GiB\""),
        "address space of one compilation; never more than the memory that is left",
    ),
    row(
        "compile.cpu",
        Value("\"120s\""),
        "its CPU time, summed over its threads",
    ),
    row("compile.wall", Value("\"120s\""), "its time by the clock"),
    row(
        "compile.quick",
        Value("\"1MiB\""),
        "modules of more bytes serve from quickly made code, a few times slower, until better code takes its place",
    ),
    row(
        "shell.crawlers",
        Words("a built-in list"),
        "parts of the `user-agent` of clients that wait for the page instead of getting a shell",
    ),
    row(
        "draft.token",
        Words("none"),
        "turns draft mode on; at least 16 characters, and another than that of `[revalidate]`",
    ),
    row(
        "draft.lifetime",
        Value("\"1h\""),
        "how long an editor sees drafts; at most `\"400d\"`",
    ),
    row(
        "draft.embed",
        Value("false"),
        "whether frames of other sites show drafts (`SameSite=None; Secure; Partitioned`: https only)",
    ),
    row(
        "webhooks.*.secret",
        Words("required"),
        "what the sender proves itself by; at least 16 characters",
    ),
    row(
        "webhooks.*.scheme",
        Value("\"header\""),
        "`\"header\"`, `\"github\"`, `\"stripe\"` or `\"standard-webhooks\"`",
    ),
    row(
        "webhooks.*.header",
        Words("of the scheme"),
        "the header that has the secret or the signature",
    ),
    row(
        "webhooks.*.tolerance",
        Value("\"5m\""),
        "how old a delivery may be that states its time",
    ),
    row(
        "webhooks.*.when.*",
        Words("all deliveries"),
        "which deliveries a rule is for: a header or a JSON pointer, and the value or values it has",
    ),
    row(
        "webhooks.*.paths",
        Value("[]"),
        "paths to revalidate, with `{/a/b}` for what a JSON pointer finds",
    ),
    row(
        "webhooks.*.tags",
        Value("[]"),
        "tags to revalidate, in the same way",
    ),
    row(
        "webhooks.*.mode",
        Words("as of a call"),
        "as of a call to `/api/revalidate`",
    ),
    row(
        "webhooks.*.on",
        Words("none"),
        "further rules, each with `when`, `paths`, `tags` and `mode`",
    ),
    row(
        "outbound.extra-roots",
        Words("none"),
        "a PEM file of certificates that pages trust besides the public ones; `wisr build` does not copy it",
    ),
    row(
        "settings.*",
        Words("none"),
        "a string that pages read with `setting(\"name\")`",
    ),
    row(
        "log.filter",
        Value("\"wisr=info,warn\""),
        "what is logged to stderr, for example `\"warn\"` or `\"wisr=debug\"`; `dev` logs less by default, `prerender` `\"error\"`",
    ),
    row(
        "log.format",
        Words("`\"human\"` on a terminal, else `\"json\"`"),
        "how `serve` logs: lines to read, or one JSON object per line",
    ),
    row(
        "log.access",
        Words("none"),
        "a file, or `\"stdout\"`, to which each request is logged, without its query; when the file is moved away, a new one is begun within a second",
    ),
    row(
        "log.access-format",
        Value("\"combined\""),
        "`\"combined\"`, as nginx and Apache write it, or `\"json\"`",
    ),
    row(
        "telemetry.otlp",
        Words("none"),
        "where traces go: the address of an OpenTelemetry collector (OTLP over HTTP), such as `\"http://127.0.0.1:4318\"`",
    ),
    row(
        "telemetry.sample",
        Value("0.1"),
        "the part of requests that are traced, from 0 to 1, unless their `traceparent` says or `OTEL_TRACES_SAMPLER` is set",
    ),
    row(
        "telemetry.service",
        Value("\"wisr\""),
        "`service.name` of the traces",
    ),
    row(
        "dev.content",
        Words("none"),
        "the folder that `wisr dev` serves as the content API, at the address in `settings.content`, else `127.0.0.1:3002`",
    ),
    row(
        "dev.hosts",
        Words("none"),
        "names besides `localhost` by which `wisr dev` may be called, as `[\"my.test\", \"*.my.test\"]`; addresses always may",
    ),
    row(
        "defaults.revalidate",
        Value("\"never\""),
        "seconds that a page is fresh, where the page itself does not say",
    ),
    row(
        "defaults.paths-revalidate",
        Value("300"),
        "seconds after which a page lists its paths again, or `\"never\"`",
    ),
    row(
        "defaults.max-stale",
        Value("\"365d\""),
        "beyond this age a reader waits for a new page",
    ),
    row(
        "defaults.render",
        Value("\"always\""),
        "`\"when-props-change\"`: skip `render` while the props stay the same",
    ),
    row(
        "defaults.concurrency",
        Words("all but an eighth of `[generations]`, and but one"),
        "generations of this route at once, or requests to this API route",
    ),
    row(
        "defaults.query",
        Value("[]"),
        "query parameters that reach the page and are part of its key",
    ),
    row(
        "defaults.outbound",
        Value("[]"),
        "origins that the page may fetch from",
    ),
    row(
        "defaults.may-revalidate",
        Value("false"),
        "whether an API route may have pages made anew",
    ),
    row(
        "defaults.settings.*",
        Words("none"),
        "settings of this route",
    ),
    row(
        "defaults.cpu",
        Value("\"1s\""),
        "CPU time of one generation",
    ),
    row(
        "defaults.wall",
        Value("\"10s\""),
        "its time by the clock, fetches included",
    ),
    row(
        "defaults.memory",
        Value("\"128MiB\""),
        "its memory, and what the server holds for it: HTTP messages, bodies; at most 4 GiB",
    ),
    row(
        "defaults.page",
        Value("\"8MiB\""),
        "size of the rendered page",
    ),
    row(
        "defaults.props",
        Value("\"1MiB\""),
        "size of the props as JSON",
    ),
    row(
        "defaults.fetches",
        Value("32"),
        "requests of one generation",
    ),
    row("defaults.fetches-in-flight", Value("6"), "requests at once"),
    row(
        "defaults.fetch-bytes",
        Value("\"8MiB\""),
        "bytes of all its requests, and of all their answers",
    ),
];

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::environment::merge;
    use super::super::file::File;
    use super::super::keys;
    use super::super::{Config, DEFAULT_FILTER, Overrides};
    use super::*;

    /// Everything that a file means, as text.
    fn meaning(text: &str) -> String {
        let (fixed, live) = File::parse(text).unwrap().parted();
        let config = Config::resolve(&fixed, &live, Path::new("/site"), &Overrides::default());
        let config = config.unwrap_or_else(|error| panic!("{text}: {error:#}"));
        let route = (config.release.routes)("/a");
        let shared = config.shared.as_ref();
        let shared = shared.map(|it| (&it.site, it.timeout, it.lease, it.keep));
        format!(
            "{:?} {:?} {:?} {:?} {:?} {:?}",
            (&config.http, &config.admin, &config.isr),
            (&config.store, &config.engine, &config.outbound, &shared),
            (config.release.poll, config.generation_threads, &config.dev),
            (&route.policy, &route.limits),
            (
                &route.outbound,
                &route.query,
                &route.settings,
                (route.may_revalidate, route.paths_revalidate)
            ),
            (
                &config.trace,
                fixed.log.filter.as_deref().unwrap_or(DEFAULT_FILTER)
            ),
        )
    }

    #[test]
    fn every_key_of_the_file_is_in_the_reference_and_no_other() {
        let mut known: Vec<String> = keys::KEYS
            .iter()
            .filter(|key| key.kind != keys::Kind::Table && key.path[0] != "routes")
            .map(keys::Key::name)
            .collect();
        let mut told: Vec<String> = KEYS.iter().map(|key| key.name.to_owned()).collect();
        known.sort();
        told.sort();
        assert_eq!(told, known);
    }

    #[test]
    fn routes_have_the_keys_of_the_defaults() {
        let of = |table: &str| -> Vec<Vec<String>> {
            let depth = if table == "routes" { 2 } else { 1 };
            let keys = keys::KEYS.iter();
            keys.filter(|key| key.path[0] == table && key.path.len() > depth)
                .map(|key| key.path[depth..].to_vec())
                .collect()
        };
        assert_eq!(of("routes"), of("defaults"));
    }

    /// Another value of the same kind.
    fn other(default: &str) -> String {
        let others = [
            ("\"wisr=info,warn\"", "\"warn\""),
            ("\"combined\"", "\"json\""),
            ("\"always\"", "\"when-props-change\""),
            ("\"never\"", "7"),
            ("\"wisr\"", "\"other\""),
            ("\"default\"", "\"other\""),
            ("\"header\"", "\"github\""),
            ("false", "true"),
        ];
        match others.iter().find(|(known, _)| *known == default) {
            Some((_, other)) => (*other).to_owned(),
            None if default.contains("127.0.0.1") => "\"127.0.0.1:7\"".to_owned(),
            None if default.starts_with('[') => "[\"https://a.example\"]".to_owned(),
            None => {
                let last = default.rfind(|char: char| char.is_ascii_digit()).unwrap();
                format!("{}3{}", &default[..last], &default[last + 1..])
            }
        }
    }

    #[test]
    fn the_defaults_are_those_of_the_code() {
        let nothing = meaning(BASE);
        for key in KEYS {
            let Default::Value(default) = key.default else {
                continue;
            };
            let said = |value: &str| meaning(&with(key.name, value));
            assert_eq!(said(default), nothing, "{} = {default}", key.name);
            let other = match key.name {
                "webhooks.*.paths" | "webhooks.*.tags" => "[\"/a\"]".to_owned(),
                _ => other(default),
            };
            assert_ne!(
                said(&other),
                nothing,
                "{} = {other} changes nothing",
                key.name
            );
        }
    }

    /// What has no effect without another key.
    const BASE: &str = "telemetry.otlp = \"http://127.0.0.1:1\"\nlog.access = \"stdout\"\n\
        store.url = \"redis://127.0.0.1\"\nserver.trusted-proxies = [\"127.0.0.1\"]\ndraft.token = \"0123456789abcdef\"\n\
        webhooks.cms = { secret = \"0123456789abcdef\", on = [{ tags = [\"a\"] }] }\n";

    fn with(name: &str, value: &str) -> String {
        let mut table: toml::Table = BASE.parse().unwrap();
        let path = name.replace('*', "cms");
        let given = toml::from_str::<toml::Table>(&format!("{path} = {value}"));
        merge(&mut table, given.unwrap());
        table.to_string()
    }

    #[test]
    fn machines_differ() {
        let machine = Machine {
            cores: 3,
            dev: true,
        };
        let shown = |name: &str| {
            let path: Vec<String> = name.split('.').map(str::to_owned).collect();
            key(&path).unwrap().default.shown(&machine)
        };
        assert_eq!(shown("server.threads"), "3");
        assert_eq!(shown("generations.concurrency"), "6");
        assert_eq!(shown("store.durable"), "false");
        assert_eq!(shown("shell.crawlers"), "a built-in list");
    }
}
