//! `Setting`: what is in force for one key, and who said so: for `wisr config`.

use std::fmt;
use std::path::Path;

use serde::Serialize;
use toml::de::{DeTable, DeValue};
use toml::{Table, Value};

use super::environment::{Given, variable};
use super::keys::{ANY, KEYS, Kind};
use super::reference::{Machine, key};
use super::said::Said;
use super::{Config, FILE, Needs, Overrides, read};

/// Stands for a value that nothing may show.
const HIDDEN: &str = "(hidden)";

/// One key's value, and where it comes from.
#[derive(Debug, Serialize)]
pub struct Setting {
    /// The key with its tables, as `wisr.toml` has it: `store.memory`.
    pub key: String,
    /// The value in TOML, or words where there is no single one; a secret is hidden.
    pub value: String,
    /// Who said so.
    pub origin: Origin,
    /// The variable that sets it, where one can.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variable: Option<String>,
}

impl Setting {
    /// Whether anybody has set it.
    pub fn is_set(&self) -> bool {
        self.origin != Origin::Default
    }
}

/// Where a value comes from; what stands later here wins over what stands before.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "from", rename_all = "kebab-case")]
pub enum Origin {
    /// Nobody said anything.
    Default,
    /// `wisr.toml`.
    File {
        /// The line, from 1.
        line: usize,
    },
    /// The environment.
    Environment {
        /// The variable.
        variable: String,
    },
    /// The command line.
    Flag {
        /// The flag.
        flag: &'static str,
    },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File { line } => write!(f, "{FILE}:{line}"),
            Origin::Environment { variable } => f.write_str(variable),
            Origin::Flag { flag } => f.write_str(flag),
        }
    }
}

/// What is in force, and what it comes to.
#[derive(Debug, Serialize)]
pub struct InForce {
    /// Key by key, in the order of the reference.
    pub settings: Vec<Setting>,
    /// The memory that it may take.
    pub memory: Needs,
    /// What the person should be told besides.
    pub warnings: Vec<String>,
}

/// What is in force on the site at `site`, key by key in the order of the reference, and what the
/// person should be told besides.
///
/// # Errors
/// What would keep a server from starting: see [`Config::load`].
pub fn in_force(site: &Path, overrides: &Overrides) -> anyhow::Result<InForce> {
    let config = Config::load(site, overrides)?;
    let text = read(site)?.unwrap_or_default();
    let said = Said::by_file(&text)?.and_by(&overrides.environment)?;
    let lines = DeTable::parse(&text)?;
    let view = View {
        merged: Value::Table(said.merged(&said.given)),
        lines: Lines {
            text: &text,
            table: lines.get_ref(),
        },
        said: &said,
        overrides,
        machine: Machine::here(overrides.dev),
    };
    let mut settings = Vec::new();
    for known in KEYS.iter().filter(|key| key.kind != Kind::Table) {
        for path in named(&view.merged, &known.path) {
            settings.extend(view.setting(&path, &known.path, known.kind == Kind::Secret));
        }
    }
    Ok(InForce {
        settings,
        memory: Needs::of(&config),
        warnings: config.warnings,
    })
}

struct View<'a> {
    merged: Value,
    lines: Lines<'a>,
    said: &'a Said,
    overrides: &'a Overrides,
    machine: Machine,
}

impl View<'_> {
    /// What is in force at `path`; none where a route says nothing, for which `defaults` stands.
    fn setting(&self, path: &[String], known: &[String], is_secret: bool) -> Option<Setting> {
        let (value, origin) = match (self.flag(path), look(&self.merged, path)) {
            (Some((flag, value)), _) => (value, Origin::Flag { flag }),
            (None, Some(value)) => (masked(value).to_string(), self.origin(path)),
            (None, None) => (key(known)?.default.shown(&self.machine), Origin::Default),
        };
        let is_hidden = is_secret && origin != Origin::Default;
        Some(Setting {
            key: shown(path),
            value: if is_hidden { HIDDEN.to_owned() } else { value },
            origin,
            variable: variable(known),
        })
    }

    fn flag(&self, path: &[String]) -> Option<(&'static str, String)> {
        let overrides = self.overrides;
        let address =
            |address: Option<std::net::SocketAddr>| Some(format!("{:?}", address?.to_string()));
        let (flag, value) = match path.join(".").as_str() {
            "server.listen" => ("--listen", address(overrides.listen)),
            "server.admin" => ("--admin", address(overrides.admin)),
            "revalidate.token" => ("--token", overrides.token.clone()),
            _ => return None,
        };
        Some((flag, value?))
    }

    /// The last who said something about `path`, or about a part of what stands there.
    fn origin(&self, path: &[String]) -> Origin {
        let concerns = |given: &&Given| {
            let depth = given.path.len();
            depth <= path.len()
                && given.path == path[..depth]
                && look(&given.value, &path[depth..]).is_some()
        };
        match self.said.given.iter().rev().find(concerns) {
            Some(given) => Origin::Environment {
                variable: given.variable.clone(),
            },
            None => Origin::File {
                line: self.lines.of(path).unwrap_or(1),
            },
        }
    }
}

/// What stands at `path` below `value`.
fn look<'a>(value: &'a Value, path: &[String]) -> Option<&'a Value> {
    path.iter().try_fold(value, |value, part| value.get(part))
}

/// The same without the passwords of URLs, wherever they stand in it.
fn masked(value: &Value) -> Value {
    match value {
        Value::String(text) => Value::String(without_password(text)),
        Value::Array(list) => Value::Array(list.iter().map(masked).collect()),
        Value::Table(table) => {
            let masked = table
                .iter()
                .map(|(key, value)| (key.clone(), masked(value)));
            Value::Table(masked.collect())
        }
        other => other.clone(),
    }
}

/// `redis://user:password@host` with its password hidden. What stands before the last `@` may be
/// one, however badly it is written.
fn without_password(text: &str) -> String {
    let parts = || {
        let (scheme, rest) = text.split_once("://")?;
        let (before, host) = rest.rsplit_once('@')?;
        let (user, _) = before.split_once(':')?;
        Some(format!("{scheme}://{user}:{HIDDEN}@{host}"))
    };
    parts().unwrap_or_else(|| text.to_owned())
}

/// The places that a key with [`ANY`] in it stands for, as far as there is something.
fn named(merged: &Value, known: &[String]) -> Vec<Vec<String>> {
    let Some(place) = known.iter().position(|part| part == ANY) else {
        return vec![known.to_vec()];
    };
    let siblings = look(merged, &known[..place]).and_then(Value::as_table);
    let names = siblings.into_iter().flat_map(Table::keys);
    names
        .flat_map(|name| {
            let mut path = known.to_vec();
            path[place].clone_from(name);
            named(merged, &path)
        })
        .collect()
}

/// A path as TOML writes it: what is no bare key stands in quotes.
fn shown(path: &[String]) -> String {
    let is_bare = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    let part = |part: &String| match part.bytes().all(is_bare) && !part.is_empty() {
        true => part.clone(),
        false => format!("{part:?}"),
    };
    path.iter().map(part).collect::<Vec<_>>().join(".")
}

/// In which line of the file a key stands.
struct Lines<'a> {
    text: &'a str,
    table: &'a DeTable<'a>,
}

impl Lines<'_> {
    fn of(&self, path: &[String]) -> Option<usize> {
        let (last, tables) = path.split_last()?;
        let table = tables.iter().try_fold(self.table, |table, part| {
            match table.get(part.as_str())?.get_ref() {
                DeValue::Table(table) => Some(table),
                _ => None,
            }
        })?;
        let (key, _) = table.iter().find(|(key, _)| key.get_ref() == last)?;
        let before = self.text.get(..key.span().start)?;
        Some(before.matches('\n').count() + 1)
    }
}
