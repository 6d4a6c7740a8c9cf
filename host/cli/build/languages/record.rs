//! `Record`: what a module was made of, so that it is made again only when something of it changed.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::cli::build::install;
use crate::page::Digest;

/// The record's format.
const VERSION: u32 = 1;

/// Stands beside the module.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Record {
    version: u32,
    recipe: String,
    /// The names in the page's folder: a new file may take the place of another.
    names: Vec<String>,
    /// Content by path; none for a file that had changed while the module was made.
    inputs: BTreeMap<PathBuf, Option<String>>,
}

impl Record {
    /// A record of files as they are now; one that changed since the build was `asked` for may have
    /// changed after it was read.
    pub(super) fn new(recipe: &str, entry: &Path, inputs: Vec<PathBuf>, asked: SystemTime) -> Self {
        let settled = |path: &Path| {
            let changed = fs::metadata(path).and_then(|meta| meta.modified());
            changed.is_ok_and(|changed| changed < asked)
        };
        let content = |path: PathBuf| {
            let digest = digest(&path).filter(|_| settled(&path));
            (path, digest)
        };
        Self {
            version: VERSION,
            recipe: recipe.to_owned(),
            names: names_beside(entry),
            inputs: inputs.into_iter().map(content).collect(),
        }
    }

    /// The record of a module. Without one, or with one that is not understood, nothing is known of it.
    pub(super) fn of(module: &Path) -> Self {
        let text = fs::read(beside(module)).unwrap_or_default();
        let record: Self = serde_json::from_slice(&text).unwrap_or_default();
        if record.version == VERSION && module.is_file() {
            record
        } else {
            Self::default()
        }
    }

    /// Whether the module would be made just the same.
    pub(super) fn holds(&self, recipe: &str, entry: &Path) -> bool {
        let same = |(path, content): (&PathBuf, &Option<String>)| {
            content.is_some() && digest(path) == *content
        };
        self.version == VERSION
            && self.recipe == recipe
            && self.names == names_beside(entry)
            && self.inputs.iter().all(same)
    }

    /// From now on nothing is known of the module: it is being made. Returns when that was, by the clock of
    /// the files.
    pub(super) fn begin(module: &Path) -> anyhow::Result<SystemTime> {
        let path = beside(module);
        install::replace(&path, b"")
            .and_then(|()| fs::metadata(&path)?.modified())
            .with_context(|| format!("cannot write `{}`", path.display()))
    }

    pub(super) fn save(&self, module: &Path) -> anyhow::Result<()> {
        let path = beside(module);
        install::replace(&path, &serde_json::to_vec_pretty(self)?)
            .with_context(|| format!("cannot write `{}`", path.display()))
    }
}

fn beside(module: &Path) -> PathBuf {
    module.with_extension("json")
}

fn digest(path: &Path) -> Option<String> {
    Some(Digest::of(&fs::read(path).ok()?).to_string())
}

fn names_beside(entry: &Path) -> Vec<String> {
    let Some(Ok(entries)) = entry.parent().map(fs::read_dir) else {
        return Vec::new();
    };
    let names = entries.flatten().map(|entry| entry.file_name());
    let mut names: Vec<String> = names
        .filter_map(|name| name.into_string().ok())
        // What editors leave behind for a moment.
        .filter(|name| !name.starts_with('.') && !name.ends_with('~'))
        .collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn later() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 40)
    }

    #[test]
    fn a_module_is_current_until_something_of_it_changes() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::create_dir(path("page")).unwrap();
        let (entry, shared, module) = (path("page/page.js"), path("shared.js"), path("x.wasm"));
        for file in [&entry, &shared, &module] {
            fs::write(file, "one").unwrap();
        }
        let inputs = vec![entry.clone(), shared.clone()];
        let record = Record::new("recipe", &entry, inputs.clone(), later());
        record.save(&module).unwrap();
        let holds = |recipe: &str| Record::of(&module).holds(recipe, &entry);
        assert!(holds("recipe") && !holds("another"));
        fs::write(&shared, "two").unwrap();
        assert!(!holds("recipe"));
        fs::write(&shared, "one").unwrap();
        fs::write(path("page/helper.js"), "").unwrap();
        assert!(!holds("recipe"), "a name beside the page is new");
        fs::remove_file(path("page/helper.js")).unwrap();
        assert!(holds("recipe"));
        fs::remove_file(&module).unwrap();
        assert!(!holds("recipe"), "the module is gone");
    }

    #[test]
    fn a_file_that_changed_during_the_build_is_not_trusted() {
        let dir = tempfile::tempdir().unwrap();
        let entry = dir.path().join("page.js");
        fs::write(&entry, "saved while it was built").unwrap();
        let asked = SystemTime::UNIX_EPOCH;
        let record = Record::new("recipe", &entry, vec![entry.clone()], asked);
        assert!(!record.holds("recipe", &entry));
    }

    #[test]
    fn a_record_of_another_version_says_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let module = dir.path().join("x.wasm");
        fs::write(&module, "").unwrap();
        let old = br#"{"version":0,"recipe":"r","names":[],"inputs":{}}"#;
        fs::write(beside(&module), old).unwrap();
        assert!(!Record::of(&module).holds("r", &dir.path().join("page.js")));
    }
}
