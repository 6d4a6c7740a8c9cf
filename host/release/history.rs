//! `History`: the latest releases, each as the files that its routes came from and the digests of
//! their modules. Pure data, and its form on disk.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::page::{Digest, Timestamp};
use crate::route::Pattern;

/// Releases that are remembered, with their modules: a day of busy work can be undone, and the
/// disk holds each module at most this often.
pub(super) const KEPT: usize = 10;

/// The form on disk.
const FORMAT: u32 = 1;

/// Files of the folder, each with the digest of its module.
pub type Files = BTreeMap<PathBuf, Digest>;

/// Modules by route.
pub type Modules = BTreeMap<Arc<str>, Vec<Digest>>;

/// One release that was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Record {
    /// Counts up from 1, over restarts too.
    pub id: u64,
    /// When it took over.
    pub at: Timestamp,
    /// What made it.
    #[serde(flatten)]
    pub how: How,
    /// What its routes come from.
    pub files: Arc<Files>,
}

/// What makes a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "how", rename_all = "kebab-case")]
pub enum How {
    /// The folder changed.
    Folder,
    /// Somebody went back to the release `of`.
    Rollback {
        /// The release whose modules serve again.
        of: u64,
    },
    /// A module did nothing but fail, and its route is back to the one before.
    Returned,
}

/// The latest releases, and what else must outlive the process to go on as before.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// Oldest first; the last one is current.
    releases: VecDeque<Record>,
    /// While a rollback holds: what lies in the folder and is not served for it.
    held: Option<Files>,
    /// Modules that did nothing but fail, and are not tried again until their files change.
    fallen: Files,
    /// What the routes return to whose modules have made no page yet.
    trials: Files,
    /// While a rollback holds: what had changed in the folder by then and was not dealt with, as the
    /// module of a file, or that it was gone.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pending: BTreeMap<PathBuf, Option<Digest>>,
    /// Routes of remembered releases whose files were seen to be gone from the folder.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    gone: BTreeSet<Arc<str>>,
    /// Modules that a rollback took back, by route: what they made is not shown again.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    withdrawn: Modules,
    /// The device that the folder was on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    device: Option<u64>,
}

/// Why there is no history in a file.
#[derive(Debug, thiserror::Error)]
pub(super) enum HistoryError {
    /// A later wisr wrote it.
    #[error("it has format {0}, and this wisr reads up to {FORMAT}: a newer wisr wrote it")]
    Newer(u32),
    /// It is not what was written.
    #[error("it is damaged ({0})")]
    Damaged(String),
}

impl How {
    /// The word for logs, tables and JSON.
    pub fn as_str(&self) -> &'static str {
        match self {
            How::Folder => "folder",
            How::Rollback { .. } => "rollback",
            How::Returned => "returned",
        }
    }
}

impl Record {
    /// The routes of its pages. API routes leave nothing behind that could be forgotten.
    pub(super) fn routes(&self) -> impl Iterator<Item = Arc<str>> {
        self.files.keys().filter_map(|file| page_of(file))
    }

    /// The routes of its pages, each with its module.
    fn pages(&self) -> impl Iterator<Item = (Arc<str>, Digest)> {
        let files = self.files.iter();
        files.filter_map(|(file, digest)| Some((page_of(file)?, *digest)))
    }
}

/// The route of a file, if it is a page's. A name that is no route got no place in any release.
pub(super) fn page_of(file: &Path) -> Option<Arc<str>> {
    let pattern = Pattern::of_file(file).ok()?;
    (!pattern.is_api()).then(|| pattern.route())
}

impl History {
    /// The releases, oldest first.
    pub fn releases(&self) -> impl DoubleEndedIterator<Item = &Record> + ExactSizeIterator {
        self.releases.iter()
    }

    /// The release that serves; none before the first.
    pub fn current(&self) -> Option<&Record> {
        self.releases.back()
    }

    /// The release before the one that serves.
    pub fn before(&self) -> Option<&Record> {
        self.releases.iter().rev().nth(1)
    }

    /// A release that is remembered.
    pub fn find(&self, id: u64) -> Option<&Record> {
        self.releases.iter().find(|record| record.id == id)
    }

    /// While a rollback holds: what lies in the folder and waits for it to change.
    pub fn held(&self) -> Option<&Files> {
        self.held.as_ref()
    }

    /// Modules that did nothing but fail, by file.
    pub fn fallen(&self) -> &Files {
        &self.fallen
    }

    pub(super) fn trials(&self) -> &Files {
        &self.trials
    }

    /// Adds a release, and returns the one that is remembered no longer for it.
    pub(super) fn push(&mut self, at: Timestamp, how: How, files: Files) -> Option<Record> {
        let id = self.current().map_or(0, |current| current.id) + 1;
        let files = Arc::new(files);
        self.releases.push_back(Record { id, at, how, files });
        let dropped = (self.releases.len() > KEPT)
            .then(|| self.releases.pop_front())
            .flatten();
        self.reinstate();
        dropped
    }

    pub(super) fn set_held(&mut self, held: Option<Files>) {
        self.held = held;
    }

    /// What had changed in the folder when the rollback began, and was not dealt with.
    pub(super) fn pending(&self) -> &BTreeMap<PathBuf, Option<Digest>> {
        &self.pending
    }

    pub(super) fn set_pending(&mut self, pending: BTreeMap<PathBuf, Option<Digest>>) {
        self.pending = pending;
    }

    /// The device that the folder was on.
    pub(super) fn device(&self) -> Option<u64> {
        self.device
    }

    pub(super) fn set_device(&mut self, device: Option<u64>) {
        self.device = device;
    }

    /// Routes of remembered releases whose files were seen to be gone.
    pub(super) fn gone(&self) -> &BTreeSet<Arc<str>> {
        &self.gone
    }

    /// Notes which routes of `before` the current release lacks because their files are gone:
    /// those that are not `present` in the folder.
    pub(super) fn note_gone(&mut self, before: Option<&Record>, present: &BTreeSet<Arc<str>>) {
        let served: BTreeSet<_> = self
            .current()
            .into_iter()
            .flat_map(Record::routes)
            .collect();
        let lost = before.into_iter().flat_map(Record::routes);
        self.gone.extend(lost);
        let known = self.routes();
        self.gone.retain(|route| {
            !served.contains(route) && !present.contains(route) && known.contains(route)
        });
    }

    /// Modules that a rollback took back, by route.
    pub(super) fn withdrawn(&self) -> &Modules {
        &self.withdrawn
    }

    /// Takes back the modules of the releases after `of` that none up to it had. Call it before the
    /// rollback's own release is added.
    pub(super) fn withdraw(&mut self, of: u64) {
        let (before, after): (Vec<_>, Vec<_>) =
            self.releases.iter().partition(|record| record.id <= of);
        let good: BTreeSet<_> = before.into_iter().flat_map(Record::pages).collect();
        let bad = after.into_iter().flat_map(Record::pages);
        let bad: BTreeSet<_> = bad.filter(|page| !good.contains(page)).collect();
        for (route, module) in bad {
            let modules = self.withdrawn.entry(route).or_default();
            modules.retain(|known| *known != module);
            modules.push(module);
            // As many as releases are remembered: older pages were made anew long ago.
            if modules.len() > KEPT {
                modules.remove(0);
            }
        }
    }

    /// What serves now is not withdrawn; nor does it matter what routes made that nobody remembers.
    fn reinstate(&mut self) {
        let served: BTreeSet<_> = self.current().into_iter().flat_map(Record::pages).collect();
        let known = self.routes();
        self.withdrawn.retain(|route, modules| {
            modules.retain(|module| !served.contains(&(route.clone(), *module)));
            !modules.is_empty() && known.contains(route)
        });
    }

    pub(super) fn set_trials(&mut self, trials: Files, fallen: Files) {
        (self.trials, self.fallen) = (trials, fallen);
    }

    /// The routes of all pages that a remembered release has.
    pub(super) fn routes(&self) -> BTreeSet<Arc<str>> {
        self.releases.iter().flat_map(Record::routes).collect()
    }

    /// Every module that may be needed again.
    pub(super) fn modules(&self) -> BTreeSet<Digest> {
        let releases = self.releases.iter().map(|record| &*record.files);
        let all = releases.chain(&self.held).chain([&self.trials]);
        all.flat_map(BTreeMap::values).copied().collect()
    }

    /// Its form on disk.
    pub(super) fn to_json(&self) -> serde_json::Result<String> {
        let history = serde_json::value::to_raw_value(self)?;
        let sum = Digest::of(history.get().as_bytes());
        let file = File {
            format: FORMAT,
            sum,
            history,
        };
        serde_json::to_string(&file)
    }

    /// Reads what [`History::to_json`] wrote.
    ///
    /// # Errors
    /// [`HistoryError`].
    pub(super) fn from_json(text: &[u8]) -> Result<Self, HistoryError> {
        let damaged = |error: serde_json::Error| HistoryError::Damaged(error.to_string());
        let Format { format } = serde_json::from_slice(text).map_err(damaged)?;
        if format > FORMAT {
            return Err(HistoryError::Newer(format));
        }
        let file: File = serde_json::from_slice(text).map_err(damaged)?;
        if file.format != FORMAT || Digest::of(file.history.get().as_bytes()) != file.sum {
            return Err(HistoryError::Damaged(
                "its format or its sum is wrong".to_owned(),
            ));
        }
        serde_json::from_str(file.history.get()).map_err(damaged)
    }
}

/// All of the file. The sum is over the bytes of `history`: a single wrong digit in them would
/// still be JSON, and another history.
#[derive(Serialize, Deserialize)]
struct File {
    format: u32,
    sum: Digest,
    history: Box<RawValue>,
}

/// What is read of the file first: the rest of a later format may have any shape.
#[derive(Deserialize)]
struct Format {
    format: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(list: &[(&str, &str)]) -> Files {
        let file =
            |(file, module): &(&str, &str)| (PathBuf::from(file), Digest::of(module.as_bytes()));
        list.iter().map(file).collect()
    }

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn sample() -> History {
        let mut history = History::default();
        history.push(at(1_000), How::Folder, files(&[("index.wasm", "one")]));
        let two = files(&[("index.wasm", "two"), ("api/hook.wasm", "hook")]);
        history.push(at(2_000), How::Folder, two.clone());
        history.push(
            at(3_000),
            How::Returned,
            files(&[("index.wasm", "one"), ("api/hook.wasm", "hook")]),
        );
        history.push(
            at(4_000),
            How::Rollback { of: 1 },
            files(&[("index.wasm", "one")]),
        );
        history.set_held(Some(two));
        history.set_trials(
            files(&[("a.wasm", "before")]),
            files(&[("index.wasm", "two")]),
        );
        history
    }

    /// Format 1, as it lies on disks.
    const GOLDEN: &str = include_str!("history.golden.json");

    #[test]
    fn format_1_is_read_and_written() {
        assert_eq!(
            History::from_json(GOLDEN.trim_end().as_bytes()).unwrap(),
            sample()
        );
        assert_eq!(sample().to_json().unwrap(), GOLDEN.trim_end());
    }

    #[test]
    fn what_was_added_to_format_1_is_read_and_written() {
        let mut history = sample();
        history.withdraw(1);
        assert_eq!(
            history.withdrawn(),
            &[(Arc::from("/"), vec![Digest::of(b"two")])].into()
        );
        let pending = [(PathBuf::from("a.wasm"), None)];
        history.set_pending(pending.into());
        history.set_device(Some(7));
        history.push(at(5_000), How::Folder, files(&[("a.wasm", "a")]));
        history.note_gone(sample().current(), &BTreeSet::new());
        assert_eq!(history.gone(), &[Arc::from("/")].into());
        let json = history.to_json().unwrap();
        assert_eq!(History::from_json(json.as_bytes()).unwrap(), history);
        // What serves again is not withdrawn any more.
        history.push(at(6_000), How::Folder, files(&[("index.wasm", "two")]));
        assert!(history.withdrawn().is_empty());
    }

    #[test]
    fn a_wrong_byte_anywhere_is_damage_and_a_later_format_is_named() {
        let golden = GOLDEN.trim_end().as_bytes();
        for place in 0..golden.len() {
            let mut bytes = golden.to_vec();
            bytes[place] ^= 1;
            assert!(History::from_json(&bytes).is_err(), "byte {place}");
        }
        assert!(History::from_json(b"").is_err());
        let later = br#"{"format":2,"anything":true}"#;
        let error = History::from_json(later).unwrap_err();
        assert!(matches!(error, HistoryError::Newer(2)), "{error}");
    }

    #[test]
    fn ten_are_remembered_and_ids_go_on() {
        let mut history = History::default();
        assert!(history.current().is_none() && history.before().is_none());
        for id in 1..=12_u64 {
            let file = format!("{id}.wasm");
            let dropped = history.push(at(id), How::Folder, files(&[(&file, &file)]));
            assert_eq!(
                dropped.map(|record| record.id),
                id.checked_sub(10).filter(|id| *id > 0)
            );
        }
        let ids: Vec<u64> = history.releases().map(|record| record.id).collect();
        assert_eq!(ids, (3..=12).collect::<Vec<_>>());
        assert_eq!(history.current().map(|record| record.id), Some(12));
        assert_eq!(history.before().map(|record| record.id), Some(11));
        assert!(history.find(2).is_none() && history.find(3).is_some());
        assert_eq!(history.routes().len(), 10);
    }

    #[test]
    fn what_may_be_needed_again_is_named() {
        let history = sample();
        let expected = ["one", "two", "hook", "before"].map(|name| Digest::of(name.as_bytes()));
        assert_eq!(history.modules(), expected.into_iter().collect());
        // API routes have no pages.
        assert_eq!(history.routes(), [Arc::from("/")].into());
    }
}
