//! `Environment`: the variables that say something over `wisr.toml`.
//!
//! `WISR_STORE_MEMORY` is `store.memory`: the tables and the key in upper case, joined by `_`, with
//! `_` for `-`. With `_FILE` added the variable names a file that holds the value. An empty
//! variable says nothing. A table may be given as a whole, in TOML: paths do not fit the name of
//! a variable, so that `WISR_ROUTES` is how routes are said.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use anyhow::{Context, bail};
use serde::Deserialize;
use toml::{Table, Value};

use super::file::{File, MAX_TYPOS, explain};
use super::keys::{ANY, KEYS, Key, Kind};

/// The variables of wisr begin with this.
const PREFIX: &str = "WISR_";

/// Added to a variable's name, it says that the value is the name of a file.
const IN_FILE: &str = "_FILE";

/// What the variable of a webhook's secret begins with: `WISR_WEBHOOK_CMS_SECRET`.
const WEBHOOK: &str = "WISR_WEBHOOK";

/// Names that were there first, or that a standard gives; they win over those of the rule.
const SHORT: [(&str, &str); 5] = [
    (super::TOKEN_VARIABLE, "revalidate.token"),
    (super::ADMIN_TOKEN_VARIABLE, "server.admin-token"),
    (super::LOG_VARIABLE, "log.filter"),
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "telemetry.otlp"),
    ("OTEL_SERVICE_NAME", "telemetry.service"),
];

/// The variables that may concern wisr, by name. None of them is shown by `Debug`.
#[derive(Clone, Default)]
pub struct Environment(BTreeMap<String, String>);

/// What one variable says.
#[derive(Clone)]
pub(super) struct Given {
    pub(super) variable: String,
    pub(super) path: Vec<String>,
    pub(super) value: Value,
}

/// Which key a variable is for.
struct Meant {
    path: Vec<String>,
    kind: Kind,
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl FromIterator<(String, String)> for Environment {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(variables: I) -> Self {
        let concerns = |name: &str| {
            name.starts_with(PREFIX)
                || SHORT
                    .iter()
                    .any(|(short, _)| name.strip_suffix(IN_FILE).unwrap_or(name) == *short)
        };
        let told = variables
            .into_iter()
            .filter(|(name, value)| concerns(name) && !value.is_empty());
        Self(told.collect())
    }
}

impl Environment {
    /// That of this process; what is not Unicode says nothing.
    pub fn of_process() -> Self {
        let variables = std::env::vars_os();
        variables
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect()
    }

    /// What `variable` says, or the file that it names with `_FILE`: for whoever calls a server and
    /// has no `wisr.toml` to ask.
    ///
    /// # Errors
    /// When both are set, or the file cannot be read.
    pub fn value(&self, variable: &str) -> anyhow::Result<Option<String>> {
        let in_file = format!("{variable}{IN_FILE}");
        match (self.0.get(variable), self.0.get(&in_file)) {
            (Some(_), Some(_)) => bail!(twice(variable, &in_file)),
            (Some(text), None) => Ok(Some(text.clone())),
            (None, Some(path)) => contents(Path::new(path)).context(in_file).map(Some),
            (None, None) => Ok(None),
        }
    }

    /// What it says, in the order in which it holds: of two that say the same, the last. `file` is
    /// what stands in `wisr.toml`, where the names of settings may be written otherwise.
    ///
    /// # Errors
    /// When a value cannot be used: the message names the variable, the key and the fix.
    pub(super) fn says(&self, file: &Table) -> anyhow::Result<Vec<Given>> {
        let mut all = Vec::new();
        for (name, text) in &self.0 {
            let Some((meant, in_file)) = meaning(name, file) else {
                continue;
            };
            let bare = name.strip_suffix(IN_FILE).filter(|_| in_file);
            if let Some(bare) = bare.filter(|bare| self.0.contains_key(*bare)) {
                bail!(twice(bare, name));
            }
            let key = meant.path.join(".");
            let value = match in_file {
                true => contents(Path::new(text)).and_then(|text| understand(&meant, &text)),
                false => understand(&meant, text),
            };
            all.push(Given {
                value: value.with_context(|| format!("{name} (`{key}`)"))?,
                variable: name.clone(),
                path: meant.path,
            });
        }
        // Tables first, so that a key of one wins over the whole; short names last.
        all.sort_by_key(|given| (given.path.len(), is_short(&given.variable)));
        Ok(all)
    }

    /// Variables that look like wisr's and are not, each with the one that may be meant. Others may
    /// have their own: Kubernetes makes `WISR_PORT` and the like for a service of that name.
    pub(super) fn strangers(&self) -> Vec<String> {
        let known: Vec<String> = variables().collect();
        let stranger = |name: &String| {
            if meaning(name, &Table::new()).is_some() {
                return None;
            }
            let near = known
                .iter()
                .map(|known| (strsim::osa_distance(name, known), known));
            let (typos, near) = near.min()?;
            (typos <= MAX_TYPOS)
                .then(|| format!("the variable {name} is not known: did you mean {near}?"))
        };
        self.0.keys().filter_map(stranger).collect()
    }
}

/// The variable of a key, unless its name is for a person to choose.
pub(super) fn variable(path: &[String]) -> Option<String> {
    let name = path.join(".");
    if let Some((short, _)) = SHORT.iter().find(|(_, key)| *key == name) {
        return Some((*short).to_owned());
    }
    let is_free = |name: &String| SHORT.iter().all(|(short, _)| short != name);
    let is_named = !path.iter().any(|part| part == ANY);
    is_named.then(|| long(path)).filter(is_free)
}

/// Puts what variables say over what the file says.
pub(super) fn overlay(table: &mut Table, given: &[Given]) {
    for Given { path, value, .. } in given {
        merge(table, nested(path, value.clone()));
    }
}

fn is_short(variable: &str) -> bool {
    let variable = variable.strip_suffix(IN_FILE).unwrap_or(variable);
    SHORT.iter().any(|(short, _)| *short == variable)
}

/// All variables whose names are known.
fn variables() -> impl Iterator<Item = String> {
    let long = KEYS.iter().filter_map(|key| variable(&key.path));
    long.chain(SHORT.map(|(short, _)| short.to_owned()))
}

fn long(path: &[String]) -> String {
    let parts: Vec<String> = path.iter().map(|part| shout(part)).collect();
    format!("{PREFIX}{}", parts.join("_"))
}

/// A name as it stands in a variable.
fn shout(name: &str) -> String {
    let spelt = name.chars().map(|char| match char {
        letter if letter.is_ascii_alphanumeric() => letter.to_ascii_uppercase(),
        _ => '_',
    });
    spelt.collect()
}

/// What a variable is for, and whether its value is in a file.
fn meaning(name: &str, file: &Table) -> Option<(Meant, bool)> {
    let whole = key_of(name, file).map(|meant| (meant, false));
    whole.or_else(|| {
        let bare = name.strip_suffix(IN_FILE)?;
        key_of(bare, file).map(|meant| (meant, true))
    })
}

fn key_of(name: &str, file: &Table) -> Option<Meant> {
    let short = SHORT.iter().find(|(short, _)| *short == name);
    let exact = |key: &&Key| match short {
        Some((_, meant)) => key.name() == *meant,
        None => !key.path.iter().any(|part| part == ANY) && long(&key.path) == name,
    };
    if let Some(key) = KEYS.iter().find(exact) {
        let (path, kind) = (key.path.clone(), key.kind);
        return Some(Meant { path, kind });
    }
    // A secret's file must not be taken for a setting of that name.
    if name.ends_with(IN_FILE) {
        return None;
    }
    KEYS.iter()
        .filter(|key| key.kind != Kind::Table)
        .find_map(|key| chosen(key, name, file))
}

/// The key that a variable means where part of its name is for a person to choose. A path, which
/// the names of routes are, does not fit.
fn chosen(key: &Key, name: &str, file: &Table) -> Option<Meant> {
    let place = key.path.iter().position(|part| part == ANY)?;
    if key.path[0] == "routes" {
        return None;
    }
    let (before, after) = (&key.path[..place], &key.path[place + 1..]);
    // A webhook's secret is said in the singular, and of a webhook that there is.
    let singular = || {
        let is_secret = key.name() == "webhooks.*.secret";
        name.strip_prefix(WEBHOOK).filter(|_| is_secret)
    };
    let plural = name.strip_prefix(&long(before));
    let rest = plural.or_else(singular)?.strip_prefix('_')?;
    let after: String = after
        .iter()
        .map(|part| format!("_{}", shout(part)))
        .collect();
    let written = rest.strip_suffix(&after).filter(|name| !name.is_empty())?;
    let siblings = before
        .iter()
        .try_fold(file, |table, part| table.get(part)?.as_table());
    let known = siblings.and_then(|table| table.keys().find(|name| shout(name) == written));
    if known.is_none() && plural.is_none() {
        return None;
    }
    let mut path = key.path.clone();
    path[place] = known
        .cloned()
        .unwrap_or_else(|| written.to_ascii_lowercase());
    let kind = key.kind;
    Some(Meant { path, kind })
}

fn twice(bare: &str, in_file: &str) -> String {
    format!("{bare} and {in_file} are both set: leave one of them out")
}

/// The value in a file, without the line end that editors and `echo` leave there.
fn contents(path: &Path) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(path);
    let text = text.with_context(|| format!("cannot read {}", path.display()))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// The value of a variable's text: words as they are, else TOML (`4096`, `true`, `["a", "b"]`), and
/// where a list is expected also words between commas.
fn understand(meant: &Meant, text: &str) -> anyhow::Result<Value> {
    let toml = format!("value = {text}").parse::<Table>();
    let mut toml = toml.map(|mut table| table.remove("value"));
    if meant.kind == Kind::Table {
        let value =
            toml.map_err(|_| anyhow::anyhow!("a table in TOML is expected: {{ key = value, … }}"))?;
        let value = value.unwrap_or_else(|| Value::Table(Table::new()));
        return check(meant, value);
    }
    let said = match check(meant, Value::String(text.to_owned())) {
        Ok(value) => return Ok(value),
        Err(error) => error,
    };
    let typed = toml
        .as_mut()
        .ok()
        .and_then(Option::take)
        .map(|value| check(meant, value));
    let words = text
        .split(',')
        .map(|word| Value::String(word.trim().to_owned()));
    match (typed, check(meant, Value::Array(words.collect()))) {
        (Some(Ok(value)), _) | (_, Ok(value)) => Ok(value),
        // That it is no string says less than what is wrong with the number that it is.
        (Some(Err(typed)), _) if said.to_string().starts_with("invalid type") => Err(typed),
        _ => Err(said),
    }
}

/// The value, if the file could say it at that place.
fn check(meant: &Meant, value: Value) -> anyhow::Result<Value> {
    let alone = Value::Table(nested(&meant.path, value.clone()));
    match File::deserialize(alone) {
        Ok(_) => Ok(value),
        Err(error) => bail!(explain(error.message())),
    }
}

fn nested(path: &[String], value: Value) -> Table {
    let inner = path.iter().rev().fold(value, |value, part| {
        Value::Table(Table::from_iter([(part.clone(), value)]))
    });
    match inner {
        Value::Table(table) => table,
        _ => Table::new(),
    }
}

/// Puts what `from` says over what `into` says, key by key.
pub(super) fn merge(into: &mut Table, from: Table) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(Value::Table(into)), Value::Table(from)) => merge(into, from),
            (_, value) => drop(into.insert(key, value)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(variables: &[(&str, &str)]) -> Environment {
        let owned = variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        owned.collect()
    }

    /// What the variables make of a file that says `file`, as TOML.
    fn said(file: &str, variables: &[(&str, &str)]) -> Table {
        let mut table: Table = file.parse().unwrap();
        let given = environment(variables).says(&table).unwrap();
        overlay(&mut table, &given);
        table
    }

    fn refused(variables: &[(&str, &str)]) -> String {
        let refused = environment(variables).says(&Table::new());
        format!("{:#}", refused.err().expect("it cannot be used"))
    }

    #[test]
    fn every_key_but_those_of_named_things_has_a_variable() {
        let without: Vec<String> = KEYS
            .iter()
            .filter(|key| variable(&key.path).is_none())
            .map(Key::name)
            .collect();
        // `WISR_LOG` has been the filter since before there was a table.
        let is_known = |name: &String| name.contains(ANY) || name == "log";
        assert!(without.iter().all(is_known), "{without:?}");
        let mut names: Vec<String> = KEYS.iter().filter_map(|key| variable(&key.path)).collect();
        let all = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), all, "two keys have one variable");
    }

    #[test]
    fn values_are_words_or_toml_or_lists() {
        let table = said(
            "[store]\nmemory = 1\ndisk = 2",
            &[
                ("WISR_STORE_MEMORY", "512MiB"),
                ("WISR_SERVER_THREADS", "3"),
                ("WISR_STORE_DURABLE", "false"),
                (
                    "WISR_DEFAULTS_OUTBOUND",
                    "https://a.example, https://b.example",
                ),
                ("WISR_DEFAULTS_QUERY", "[\"lang\"]"),
                ("WISR_DEFAULTS_REVALIDATE", "60"),
                ("WISR_TOKEN", "123456789"),
                ("WISR_SETTINGS_API", "true"),
                ("WISR_SERVER_DRAIN", ""),
            ],
        );
        let expected: Table = r#"
            store = { memory = "512MiB", disk = 2, durable = false }
            server = { threads = 3 }
            revalidate = { token = "123456789" }
            settings = { api = "true" }
            [defaults]
            outbound = ["https://a.example", "https://b.example"]
            query = ["lang"]
            revalidate = 60
        "#
        .parse()
        .unwrap();
        assert_eq!(table, expected);
    }

    #[test]
    fn names_of_settings_are_those_of_the_file() {
        let file = "[settings]\n\"Api-Key\" = \"a\"";
        let variables = [
            ("WISR_SETTINGS_API_KEY", "b"),
            ("WISR_SETTINGS_OTHER_ONE", "c"),
        ];
        let expected = "[settings]\n\"Api-Key\" = \"b\"\nother_one = \"c\"";
        assert_eq!(said(file, &variables), expected.parse().unwrap());
    }

    #[test]
    fn a_table_can_be_given_whole_and_a_key_of_it_wins() {
        let file = "[routes.\"/a\"]\ncpu = \"1s\"\nfetches = 1";
        let variables = [
            (
                "WISR_ROUTES",
                "{ \"/a\" = { cpu = \"2s\" }, \"/b\" = { cpu = \"3s\" } }",
            ),
            ("WISR_STORE", "{ memory = 1, disk = 2 }"),
            ("WISR_STORE_DISK", "3"),
        ];
        let expected = "[routes.\"/a\"]\ncpu = \"2s\"\nfetches = 1\n[routes.\"/b\"]\ncpu = \"3s\"\n\
                        [store]\nmemory = 1\ndisk = \"3\"";
        assert_eq!(said(file, &variables), expected.parse().unwrap());
    }

    #[test]
    fn a_short_name_wins_over_the_long_one() {
        let variables = [
            ("WISR_TOKEN", "short name"),
            ("WISR_REVALIDATE_TOKEN", "long name"),
        ];
        let expected = "[revalidate]\ntoken = \"short name\"".parse().unwrap();
        assert_eq!(said("", &variables), expected);
    }

    #[test]
    fn a_file_holds_the_value() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        std::fs::write(&file, "from the file\n").unwrap();
        let name = file.to_str().unwrap();
        let expected = "[revalidate]\ntoken = \"from the file\"".parse().unwrap();
        assert_eq!(said("", &[("WISR_TOKEN_FILE", name)]), expected);
        let both = refused(&[("WISR_TOKEN_FILE", name), ("WISR_TOKEN", "another")]);
        assert!(
            both.contains("WISR_TOKEN and WISR_TOKEN_FILE are both set"),
            "{both}"
        );
        let asked = |variables: &[(&str, &str)]| environment(variables).value("WISR_TOKEN");
        assert_eq!(asked(&[]).unwrap(), None);
        let told = asked(&[("WISR_TOKEN_FILE", name)]).unwrap();
        assert_eq!(told.as_deref(), Some("from the file"));
        let both = asked(&[("WISR_TOKEN_FILE", name), ("WISR_TOKEN", "another")]);
        assert!(both.unwrap_err().to_string().contains("both set"));
        let gone = refused(&[("WISR_TOKEN_FILE", "/nowhere/token")]);
        assert!(
            gone.contains("WISR_TOKEN_FILE") && gone.contains("/nowhere/token"),
            "{gone}"
        );
    }

    #[test]
    fn mistakes_name_the_variable_and_the_fix() {
        for (name, value, part) in [
            ("WISR_STORE_MEMORY", "lots", "128MiB"),
            ("WISR_SERVER_THREADS", "-1", "a whole number, 1 or more"),
            ("WISR_DEFAULTS_CPU", "5", "10s"),
            ("WISR_LOG_FORMAT", "jsn", "did you mean `json`?"),
            ("WISR_ROUTES", "cpu", "a table in TOML"),
            (
                "WISR_ROUTES",
                "{ \"/a\" = { cpuu = 1 } }",
                "did you mean `cpu`?",
            ),
        ] {
            let told = refused(&[(name, value)]);
            assert!(told.starts_with(name) && told.contains(part), "{told}");
        }
    }

    #[test]
    fn strangers_are_told_of_only_where_they_look_like_a_mistake() {
        let strangers = environment(&[
            ("WISR_STROE_MEMORY", "1"),
            ("WISR_PORT_3000_TCP", "tcp://10.0.0.1:3000"),
            ("WISR_SERVICE_HOST", "10.0.0.1"),
            ("WISR_STORE_MEMORY", "1"),
            ("WISR_TOKEN_FILE", "x"),
        ])
        .strangers();
        let expected =
            "the variable WISR_STROE_MEMORY is not known: did you mean WISR_STORE_MEMORY?";
        assert_eq!(strangers, [expected]);
    }

    #[test]
    fn no_value_is_shown() {
        let shown = format!("{:?}", environment(&[("WISR_TOKEN", "geheim")]));
        assert!(
            shown.contains("WISR_TOKEN") && !shown.contains("geheim"),
            "{shown}"
        );
    }
}
