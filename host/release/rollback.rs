//! `Releases::rollback` and what a start restores: modules of earlier releases serve again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream;

use crate::page::Digest;
use crate::telemetry::Subject;

use super::history::{Files, History, How, Record};
use super::load::{Lost, digest_of};
use super::publish::Step;
use super::releases::{LOADS, Releases, listed};
use super::routed::Route;
use super::state::{Held, State};

/// Why a rollback changed nothing.
#[derive(Debug, thiserror::Error)]
pub enum RollbackError {
    /// No such release is remembered.
    #[error("release {0} is not remembered: `wisr releases` lists those that are")]
    Unknown(u64),
    /// There is nothing to go back to.
    #[error("there is no release before the current one")]
    NothingBefore,
    /// It would change nothing.
    #[error("the current release, {current}, has the very modules of release {id} already")]
    Already {
        /// The release that was asked for.
        id: u64,
        /// The release that serves.
        current: u64,
    },
    /// A module cannot be had.
    #[error("release {id} cannot serve again: the module of `{}` is lost ({reason})", file.display())]
    Gone {
        /// The release that was asked for.
        id: u64,
        /// The file whose module it is.
        file: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

/// Modules of earlier releases, as far as they could be had.
type Restored = BTreeMap<(PathBuf, Digest), Result<Route, Lost>>;

impl Releases {
    /// Goes back to a release, by default to the one before the current: its modules serve again at
    /// once, as a release of their own, and until the folder changes. Returns that release's id.
    ///
    /// # Errors
    /// [`RollbackError`]; nothing has changed then.
    pub async fn rollback(&self, id: Option<u64>) -> Result<u64, RollbackError> {
        let mut state = self.state.lock().await;
        self.restore(&mut state).await;
        let history = self.history();
        let target = target(&history, id)?;
        let wanted = target.files.iter();
        let wanted = wanted.map(|(file, digest)| (file.clone(), *digest));
        let restored = self.gather(&state, wanted.collect()).await;
        let routes = restored.into_iter().map(|((file, _), route)| {
            route.map_err(|lost| RollbackError::Gone {
                id: target.id,
                file,
                reason: lost.to_string(),
            })
        });
        let routes: Vec<Route> = routes.collect::<Result<_, _>>()?;
        let (pending, refused) = match self.snapshot(&state).await {
            Ok(seen) => (self.pending(state.changes(&seen)).await, seen.refused),
            // Nothing is known to have changed; the next pass says what is wrong.
            Err(_) => Default::default(),
        };
        state.pending = pending;
        let step = Step {
            how: How::Rollback { of: target.id },
            hold: Some((routes.into(), state.folder())),
            refused,
        };
        self.publish(&mut state, step).await;
        let release = self.load().id;
        tracing::warn!(
            release,
            of = target.id,
            "rolled back, until the folder changes"
        );
        Ok(release)
    }

    /// What lies in the folder of the files that changed: their modules, or that they are gone.
    async fn pending(
        &self,
        (changed, gone): (Vec<PathBuf>, Vec<PathBuf>),
    ) -> BTreeMap<PathBuf, Option<Digest>> {
        let pages = self.config().pages.clone();
        let reading = move || {
            let read = changed.into_iter().filter_map(|file| {
                // What cannot be read is no module, and not served for that.
                let digest = digest_of(&pages.join(&file))?;
                Some((file, Some(digest)))
            });
            read.chain(gone.into_iter().map(|file| (file, None)))
                .collect()
        };
        let reading = tokio::task::spawn_blocking(reading).await;
        // The runtime is shutting down.
        reading.unwrap_or_default()
    }

    /// Takes up what an earlier process left, once: the release that it served is served, so that
    /// the first pass over the folder finds what changed since.
    pub(super) async fn restore(&self, state: &mut State) {
        if state.is_restored {
            return;
        }
        let mut history = self.kept_history().await;
        let Some(current) = history.current().cloned() else {
            state.is_restored = true;
            return;
        };
        let saved = history.clone();
        let folder = history.held().unwrap_or(&current.files).clone();
        let all = [&folder, &*current.files, history.trials()];
        let wanted = all
            .into_iter()
            .flatten()
            .map(|(file, digest)| (file.clone(), *digest));
        let restored = self.gather(state, wanted.collect()).await;
        let route = |(file, digest): (&PathBuf, &Digest)| {
            let restored = restored.get(&(file.clone(), *digest))?;
            restored.as_ref().ok().cloned()
        };
        state.files = held_files(&history, &folder, route);
        state.pending.clone_from(history.pending());
        state.device = history.device();
        let served: Vec<Route> = current.files.iter().filter_map(route).collect();
        if history.held().is_some() {
            if served.len() == current.files.len() {
                state.hold = Some(Arc::from(served.as_slice()));
            } else {
                self.give_up(&current, &restored);
                history.set_held(None);
            }
        }
        for ((file, digest), route) in &restored {
            if let Err(lost) = route {
                let (file, module) = (file.display(), digest.short());
                tracing::warn!(%file, module, "a module that served before is lost: {lost}");
            }
        }
        let mut release = state.seat(served, current.at);
        (release.id, release.refused) = (current.id, Vec::new());
        state.seated = release.files().into_keys().collect();
        state.saved = Some(Arc::new(saved));
        let history = Arc::new(history);
        self.history.store(Arc::clone(&history));
        self.announce(&release, &history, BTreeSet::new()).await;
        self.current.store(Arc::new(release));
        self.changed.send_replace(current.id);
        state.is_restored = true;
        self.tidy(state).await;
    }

    async fn kept_history(&self) -> History {
        let Some(archive) = self.loader.archive.clone() else {
            return History::default();
        };
        let reading = tokio::task::spawn_blocking(move || archive.history()).await;
        match reading {
            Ok(Ok(history)) => history.unwrap_or_default(),
            Ok(Err(aside)) => {
                self.record("releases", Subject::Server, aside.to_string());
                History::default()
            }
            // The runtime is shutting down.
            Err(_) => History::default(),
        }
    }

    /// Tells that a rollback cannot be held on to.
    fn give_up(&self, current: &Record, restored: &Restored) {
        for ((file, digest), route) in restored {
            if let Err(lost) = route
                && current.files.get(file) == Some(digest)
            {
                let message = format!(
                    "the rollback of release {} is over: its module is lost ({lost}), and what lies in \
                     the folder is served",
                    current.id
                );
                let file = file.display().to_string();
                self.record("rollback", Subject::Module { file }, message);
            }
        }
    }

    /// The routes of `wanted` modules: those in memory as they are, the others loaded anew.
    async fn gather(&self, state: &State, wanted: BTreeSet<(PathBuf, Digest)>) -> Restored {
        let loads = wanted.into_iter().map(|(file, digest)| {
            let held = state.find(&file, digest);
            async move {
                let route = match held {
                    Some(route) => Ok(route),
                    None => self.loader.restore(&file, digest).await,
                };
                ((file, digest), route)
            }
        });
        let loads: Vec<_> = loads.collect();
        let restored: Restored = stream::iter(loads).buffered(LOADS).collect().await;
        listed(restored.values().flatten()).await;
        restored
    }
}

/// The release to go back to.
fn target(history: &History, id: Option<u64>) -> Result<Record, RollbackError> {
    let record = match id {
        Some(id) => history.find(id).ok_or(RollbackError::Unknown(id))?,
        None => history.before().ok_or(RollbackError::NothingBefore)?,
    };
    match history.current() {
        Some(current) if current.files == record.files => Err(RollbackError::Already {
            id: record.id,
            current: current.id,
        }),
        _ => Ok(record.clone()),
    }
}

/// The files of the folder as an earlier process left them. None of them was looked at yet.
fn held_files(
    history: &History,
    folder: &Files,
    route: impl Fn((&PathBuf, &Digest)) -> Option<Route>,
) -> BTreeMap<PathBuf, Held> {
    let held = |(file, digest): (&PathBuf, &Digest)| {
        let held = Held {
            route: route((file, digest)),
            previous: history.trials().get_key_value(file).and_then(&route),
            fallen: history.fallen().get(file).copied(),
            ..Held::default()
        };
        (file.clone(), held)
    };
    folder.iter().map(held).collect()
}
