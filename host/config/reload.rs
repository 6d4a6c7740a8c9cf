//! `Reloader`: `wisr.toml`, looked at again while a server runs.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use serde::Serialize;
use serde_json::Value;

use super::file::{FixedTables, LiveTables};
use super::live::{Frame, Live};
use super::said::Said;
use super::{FILE, Overrides};

/// What a running server knows of its file.
#[derive(Clone)]
pub struct Reloader {
    pub(super) site: PathBuf,
    pub(super) overrides: Overrides,
    /// How often the file is looked at though nobody asks.
    pub(super) poll: Duration,
    pub(super) frame: Frame,
    /// As they were at the start.
    pub(super) fixed: FixedTables,
    /// As they are applied.
    pub(super) live: LiveTables,
    /// What the file said last; none if there was no file.
    pub(super) text: Option<String>,
    /// Whether there ever was one, so that it is missed.
    pub(super) is_expected: bool,
}

/// What a look at the file found.
pub enum Reload {
    /// It can be used.
    Changed(Live, Report),
    /// It cannot be used: everything stays as it is.
    Refused(anyhow::Error),
}

/// Which keys changed, by their names alone: values may be secret.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Those that are applied.
    pub applied: Vec<String>,
    /// Those that differ from what the server was started with.
    pub restart: Vec<String>,
}

impl Reloader {
    /// The folder that the file is in.
    pub fn site(&self) -> &Path {
        &self.site
    }

    /// How often the file is looked at though nobody asks.
    pub fn poll(&self) -> Duration {
        self.poll
    }

    /// Whether `text` is what the file said last.
    pub fn knows(&self, text: Option<&str>) -> bool {
        self.text.as_deref() == text
    }

    /// Takes in what the file says, and with it what variables say now: they may name files.
    pub fn take(&mut self, text: Option<String>) -> Reload {
        self.text.clone_from(&text);
        self.is_expected |= text.is_some();
        match self.compare(text) {
            Ok((live, report)) => Reload::Changed(live, report),
            Err(error) => {
                let place = self.site.join(FILE);
                Reload::Refused(error.context(place.display().to_string()))
            }
        }
    }

    fn compare(&mut self, text: Option<String>) -> anyhow::Result<(Live, Report)> {
        if self.is_expected && text.is_none() {
            bail!("the file is gone: put it back; an empty one means that all is as by default");
        }
        let said = Said::by_file(&text.unwrap_or_default())?.and_by(&self.overrides.environment)?;
        let (fixed, tables) = said.all()?.parted();
        let (live, capped) = Live::resolve(&tables, self.frame, &self.overrides)?;
        let mut restart = changes(&self.fixed, &fixed)?;
        // The sandboxes were made for the largest limit of that time.
        restart.extend(capped.into_iter().map(|table| format!("{table}.memory")));
        let mut applied = changes(&self.live, &tables)?;
        // What is given to the program wins over the file, now and after a restart.
        let overridden = |key: &str| match key {
            "revalidate.token" => self.overrides.token.is_some(),
            "server.listen" => self.overrides.listen.is_some(),
            "server.admin" => self.overrides.admin.is_some(),
            _ => false,
        };
        restart.retain(|key| !overridden(key));
        applied.retain(|key| !restart.contains(key) && !overridden(key));
        self.live = tables;
        Ok((live, Report { applied, restart }))
    }
}

/// The keys whose values differ.
fn changes(before: &impl Serialize, after: &impl Serialize) -> anyhow::Result<Vec<String>> {
    let mut keys = Vec::new();
    differ("", &told(before)?, &told(after)?, &mut keys);
    Ok(keys)
}

fn told<T: Serialize>(tables: &T) -> anyhow::Result<Value> {
    serde_json::to_value(tables).context("settings are JSON")
}

fn differ(place: &str, before: &Value, after: &Value, keys: &mut Vec<String>) {
    if before == after {
        return;
    }
    let empty = serde_json::Map::new();
    let (before, after) = match (before, after) {
        (Value::Object(before), Value::Object(after)) => (before, after),
        // A table that is there on one side only.
        (Value::Object(before), Value::Null) => (before, &empty),
        (Value::Null, Value::Object(after)) => (&empty, after),
        _ => return keys.push(place.to_owned()),
    };
    let added = after.keys().filter(|key| !before.contains_key(*key));
    for key in before.keys().chain(added) {
        let is_bare = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        let name = match key.bytes().all(is_bare) && !key.is_empty() {
            true => key.clone(),
            false => format!("{key:?}"),
        };
        let name = match place {
            "" => name,
            place => format!("{place}.{name}"),
        };
        let of = |table: &serde_json::Map<_, _>| table.get(key).cloned().unwrap_or_default();
        differ(&name, &of(before), &of(after), keys);
    }
}

#[cfg(test)]
mod tests {
    use super::super::Config;
    use super::super::file::File;
    use super::*;

    fn started(text: &str) -> Reloader {
        let (fixed, live) = File::parse(text).unwrap().parted();
        let site = Path::new("/site");
        let config = Config::resolve(&fixed, &live, site, &Overrides::default()).unwrap();
        config.reloader
    }

    fn report(reloader: &mut Reloader, text: &str) -> (Vec<String>, Vec<String>) {
        match reloader.take(Some(text.to_owned())) {
            Reload::Changed(_, report) => (report.applied, report.restart),
            Reload::Refused(error) => panic!("{error:#}"),
        }
    }

    #[test]
    fn a_token_that_is_overridden_is_not_applied() {
        let mut reloader = started("");
        reloader.overrides.token = Some("given to the program".to_owned());
        let text = "[revalidate]\ntoken = \"sixteen-or-longer\"";
        let (applied, _) = report(&mut reloader, text);
        assert!(applied.is_empty(), "{applied:?}");
    }

    #[test]
    fn a_mistake_has_its_place_and_shows_no_secret() {
        let text = "[revalidate]\ntoken = \"geheim\n";
        let Reload::Refused(error) = started("").take(Some(text.to_owned())) else {
            panic!("taken");
        };
        let told = format!("{error:#}");
        assert!(told.contains("line 2, column "), "{told}");
        assert!(!told.contains("geheim"), "{told}");
    }

    #[test]
    fn what_is_no_string_is_not_shown_where_a_secret_belongs() {
        for text in [
            "[revalidate]\ntoken = 12345678",
            "[server]\nadmin-token = 1234.5678",
            "[settings]\nkey = 12345678",
            "[defaults.settings]\nkey = 12345678",
        ] {
            let told = format!("{:#}", File::parse(text).unwrap_err());
            assert!(told.contains("write it in quotes"), "{told}");
            assert!(!told.contains("1234"), "{told}");
        }
    }

    #[test]
    fn each_key_is_applied_or_needs_a_restart() {
        let mut reloader = started("[server]\nthreads = 2\n[routes.\"/a\"]\ncpu = \"1s\"");
        let (applied, restart) = report(
            &mut reloader,
            "[server]\nthreads = 3\nlisten = \"127.0.0.1:1\"\n[store]\nmemory = 1\n\
             [revalidate]\ntoken = \"sixteen-or-longer\"\n[shell]\ncrawlers = []\n[defaults]\nrevalidate = 5\n\
             [settings]\n\"a b\" = \"1\"",
        );
        assert_eq!(
            applied,
            [
                "defaults.revalidate",
                "revalidate.token",
                "routes.\"/a\".cpu",
                "settings.\"a b\"",
                "shell.crawlers"
            ]
        );
        assert_eq!(restart, ["server.listen", "server.threads", "store.memory"]);
        // What is applied is applied; what needs a restart goes on needing it.
        let (applied, restart) = report(&mut reloader, "[server]\nthreads = 3");
        assert_eq!(applied.len(), 4, "{applied:?}");
        assert_eq!(restart, ["server.threads"]);
        let (applied, restart) = report(&mut reloader, "[server]\nthreads = 2");
        assert!(applied.is_empty() && restart.is_empty());
    }

    #[test]
    fn an_address_that_is_given_to_the_program_needs_no_restart() {
        let mut reloader = started("");
        let here = "127.0.0.1:1".parse().ok();
        (reloader.overrides.listen, reloader.overrides.admin) = (here, here);
        let text = "[server]\nlisten = \"127.0.0.1:2\"\nadmin = \"127.0.0.1:3\"\nthreads = 9";
        let (applied, restart) = report(&mut reloader, text);
        assert_eq!(
            (applied, restart),
            (vec![], vec!["server.threads".to_owned()])
        );
    }

    #[test]
    fn sandboxes_do_not_grow_beyond_what_they_were_made_for() {
        let mut reloader = started("[defaults]\nmemory = \"64MiB\"");
        let text = "[defaults]\nmemory = \"32MiB\"\n[routes.\"/a\"]\nmemory = \"1GiB\"";
        let Reload::Changed(live, report) = reloader.take(Some(text.to_owned())) else {
            panic!("it is a change")
        };
        assert_eq!(report.applied, ["defaults.memory"]);
        assert_eq!(report.restart, ["routes.\"/a\".memory"]);
        assert_eq!((live.routes)("/a").limits.memory, 64 << 20);
        assert_eq!((live.routes)("/").limits.memory, 32 << 20);
    }

    #[test]
    fn a_file_that_never_was_is_not_missed() {
        let mut reloader = started("");
        assert!(matches!(reloader.take(None), Reload::Changed(..)));
    }

    #[test]
    fn what_cannot_be_used_changes_nothing() {
        let mut reloader = started("[defaults]\ncpu = \"1s\"");
        for (text, part) in [
            (Some("[defaults]\ncpu = 5"), "line 2"),
            (None, "the file is gone"),
            (Some("[routes.\"x\"]"), "begins with `/`"),
        ] {
            let text = text.map(str::to_owned);
            let Reload::Refused(error) = reloader.take(text.clone()) else {
                panic!("it is refused")
            };
            let message = format!("{error:#}");
            assert!(
                message.contains(part) && message.starts_with("/site/wisr.toml"),
                "{message}"
            );
            assert!(reloader.knows(text.as_deref()));
        }
        let (applied, _) = report(&mut reloader, "[defaults]\ncpu = \"2s\"");
        assert_eq!(applied, ["defaults.cpu"]);
    }
}
