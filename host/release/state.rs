//! `State`: what is held of each file between two passes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::page::{Digest, Timestamp};

use super::folder::{Mark, Snapshot};
use super::history::{Files, History};
use super::load::{Before, Loaded, Retry};
use super::plan::{Candidate, Known, is_gone, seat};
use super::routed::Route;
use super::routes::{Refusal, Release};

/// When a module is tried again whose failure may have been the machine's.
const RETRY: Duration = Duration::from_secs(30);

/// What the passes so far left behind.
#[derive(Default)]
pub(super) struct State {
    /// What lies in the folder, whether it is served or a rollback holds.
    pub(super) files: BTreeMap<PathBuf, Held>,
    /// The files whose routes are in the current table.
    pub(super) seated: BTreeSet<PathBuf>,
    /// While a rollback holds, the routes that are served in place of the folder's.
    pub(super) hold: Option<Arc<[Route]>>,
    /// Whether a route is back from a fallen module that no release tells of yet.
    pub(super) has_returned: bool,
    /// Changes of the folder from before the rollback that no pass had dealt with: the module of
    /// a file, or that it was gone.
    pub(super) pending: BTreeMap<PathBuf, Option<Digest>>,
    /// Modules of remembered releases that the archive does not have.
    pub(super) spare: BTreeMap<(PathBuf, Digest), Route>,
    /// What of the folder was refused before it was looked into, when it was last read.
    pub(super) refused: Vec<Refusal>,
    /// Refusals that nobody was told of yet.
    pub(super) news: Vec<Refusal>,
    /// The device that the folder was on when it was last read.
    pub(super) device: Option<u64>,
    pub(super) problem: Option<String>,
    /// Whether the history was read.
    pub(super) is_restored: bool,
    /// The history as it lies on disk.
    pub(super) saved: Option<Arc<History>>,
    /// Whether it was told that the archive keeps nothing.
    pub(super) is_unkept: bool,
}

/// A file as the last passes left it.
#[derive(Default)]
pub(super) struct Held {
    pub(super) known: Known,
    /// The newest version that passed every check.
    pub(super) route: Option<Route>,
    /// The version before, until the newest has rendered a page.
    pub(super) previous: Option<Route>,
    /// The version that did nothing but fail, if the route is back from it.
    pub(super) fallen: Option<Digest>,
    /// Why the newest version did not.
    pub(super) refusal: Option<Refusal>,
}

impl State {
    /// What there is to know of a file before it is loaded.
    pub(super) fn before(&self, file: &Path) -> Before {
        let Some(held) = self.files.get(file) else {
            return Before::default();
        };
        Before {
            route: held.route.clone(),
            // Who drops it in again means it; a restart does not.
            fallen: held.fallen.filter(|_| held.known.mark.is_none()),
            refused: held.refusal.as_ref().and(held.known.mark),
        }
    }

    /// Remembers what became of a file. Nothing but a new module takes the place of the old one.
    pub(super) fn note(
        &mut self,
        file: PathBuf,
        mark: Option<Mark>,
        result: Loaded,
        now: Timestamp,
    ) {
        if matches!(result, Loaded::Gone) {
            self.files.remove(&file);
            return;
        }
        let served = self.files.get(&file).and_then(|held| held.route.as_ref());
        let is_void = match &result {
            Loaded::Moving => true,
            // The route has returned to another module meanwhile.
            Loaded::Same(digest) => served.map(Route::digest) != Some(*digest),
            _ => false,
        };
        if is_void {
            return;
        }
        let held = self.files.entry(file.clone()).or_default();
        let is_another = held.known.mark != mark;
        let told = held.refusal.take().filter(|_| !is_another);
        held.known = Known { mark, again: None };
        match result {
            Loaded::New(route) => held.replace(route),
            Loaded::Same(_) => held.fallen = None,
            Loaded::Gone | Loaded::Moving => {}
            Loaded::Fallen => held.refusal = Some(Refusal::fallen(file)),
            Loaded::Refused { message, retry } => {
                held.known.again = match retry {
                    Retry::Never => None,
                    Retry::Later => Some(now.plus(RETRY)),
                    Retry::Soon => Some(now),
                };
                let refusal = Some(Refusal::module(file, message));
                self.news
                    .extend(refusal.clone().filter(|_| refusal != told));
                held.refusal = refusal;
            }
        }
    }

    /// Returns routes from modules that did nothing but fail to those that they had before, and
    /// lets go of those that are no longer needed for that.
    pub(super) fn end_trials(&mut self) {
        for (file, held) in &mut self.files {
            let Some(Route::Page(routed)) = &held.route else {
                continue;
            };
            let trial = &routed.trial;
            if trial.has_passed() {
                held.previous = None;
            } else if trial.has_fallen()
                && let Some(previous) = held.previous.take()
            {
                let refusal = Refusal::fallen(file.clone());
                held.fallen = Some(routed.module.digest());
                held.route = Some(previous);
                self.news.push(refusal.clone());
                // A newer version that was refused meanwhile is what lies in the folder.
                held.refusal.get_or_insert(refusal);
                self.has_returned = true;
            }
        }
    }

    /// The routes of what lies in the folder, if all of them get a place.
    pub(super) fn routes(&self) -> Vec<Route> {
        let routes = self.files.values().filter_map(|held| held.route.clone());
        routes.collect()
    }

    /// Every route that is or may come to be served.
    pub(super) fn routes_mut(&mut self) -> impl Iterator<Item = &mut Route> {
        let held = self.files.values_mut();
        let held = held.flat_map(|held| held.route.iter_mut().chain(&mut held.previous));
        let hold = self.hold.iter_mut().flat_map(Arc::make_mut);
        held.chain(hold).chain(self.spare.values_mut())
    }

    /// What lies in the folder, as far as it passed every check: a file that is refused changes
    /// nothing, and does not end a rollback either.
    pub(super) fn folder(&self) -> Files {
        let digest = |(file, held): (&PathBuf, &Held)| {
            let route = held.route.as_ref()?;
            Some((file.clone(), route.digest()))
        };
        self.files.iter().filter_map(digest).collect()
    }

    /// The files of which a look at the folder shows another version than the one that is held, and
    /// those that are gone. A version that is refused counts, too: it may be taken up later.
    pub(super) fn changes(&self, seen: &Snapshot) -> (Vec<PathBuf>, Vec<PathBuf>) {
        let is_held = |file: &PathBuf, mark: &Mark| {
            let held = self.files.get(file);
            held.is_some_and(|held| held.known.mark == Some(*mark) && held.refusal.is_none())
        };
        let changed = seen.files.iter();
        let changed = changed.filter(|(file, found)| !is_held(file, &found.mark));
        let changed = changed.map(|(file, _)| file.clone());
        let gone = self.files.keys().filter(|file| is_gone(file, seen));
        (changed.collect(), gone.cloned().collect())
    }

    /// What lay in the folder at the rollback, `held`, with those changes that it had by then
    /// though they were found later.
    pub(super) fn folder_at_rollback(&self, mut held: Files) -> Files {
        for (file, change) in &self.pending {
            match (change, self.files.get(file)) {
                (None, None) => drop(held.remove(file)),
                (Some(digest), Some(found)) => {
                    let route = found.route.as_ref();
                    if route.is_some_and(|route| route.digest() == *digest) {
                        held.insert(file.clone(), *digest);
                    }
                }
                _ => {}
            }
        }
        held
    }

    /// What the routes return to whose modules are on trial, and the modules that have fallen.
    pub(super) fn trials(&self) -> (Files, Files) {
        let of = |digest: fn(&Held) -> Option<Digest>| {
            let files = self.files.iter();
            let digests = files.filter_map(|(file, held)| Some((file.clone(), digest(held)?)));
            digests.collect()
        };
        (
            of(|held| Some(held.previous.as_ref()?.digest())),
            of(|held| held.fallen),
        )
    }

    /// The route of `file` by the module `digest`, if it is in memory.
    pub(super) fn find(&self, file: &Path, digest: Digest) -> Option<Route> {
        let held = self.files.get(file);
        let newest = held.and_then(|held| held.route.clone());
        let previous = held.and_then(|held| held.previous.clone());
        let served = self.hold.iter().flat_map(|hold| hold.iter());
        let served = served.filter(|route| route.file() == file).cloned();
        let spare = self.spare.get(&(file.to_owned(), digest)).cloned();
        let mut all = newest
            .into_iter()
            .chain(previous)
            .chain(served)
            .chain(spare);
        all.find(|route| route.digest() == digest)
    }

    /// Gives `routes` their places, each kind in a table of its own, as a release without an id.
    pub(super) fn seat(&self, routes: Vec<Route>, now: Timestamp) -> Release {
        let (mut pages, mut apis) = (Vec::new(), Vec::new());
        for route in routes {
            let seated = self.seated.contains(route.file());
            match route {
                Route::Page(routed) => pages.push(Candidate {
                    seated,
                    file: routed.file.clone(),
                    pattern: routed.pattern.clone(),
                    value: routed,
                }),
                Route::Api(routed) => apis.push(Candidate {
                    seated,
                    file: routed.file.clone(),
                    pattern: routed.pattern.clone(),
                    value: routed,
                }),
            }
        }
        let ((table, mut conflicts), (apis, more)) = (seat(pages), seat(apis));
        conflicts.extend(more);
        Release::new(0, now, table, apis, conflicts)
    }
}

impl Held {
    fn replace(&mut self, route: Route) {
        self.fallen = None;
        let before = self.route.replace(route);
        let Some(Route::Page(before)) = before else {
            return;
        };
        // One that was never asked for a page may be good: after a restart the cache answers.
        let may_be_good = self.previous.is_none() && !before.trial.has_fallen();
        if before.trial.has_passed() || may_be_good {
            self.previous = Some(Route::Page(before));
        }
    }
}
