//! `State`: what is held of each file between two passes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::page::Timestamp;
use crate::route::Pattern;

use super::api::ApiRouted;
use super::folder::Mark;
use super::load::{Loaded, Retry};
use super::plan::{Candidate, Known};
use super::routed::{Route, Routed};
use super::routes::Refusal;

/// When a module is tried again whose failure may have been the machine's.
const RETRY: Duration = Duration::from_secs(30);

/// What the passes so far left behind.
#[derive(Default)]
pub(super) struct State {
    pub(super) files: BTreeMap<PathBuf, Held>,
    /// The files whose routes are in the current table.
    pub(super) seated: BTreeSet<PathBuf>,
    /// The device that the folder was on when it was last read.
    pub(super) device: Option<u64>,
    pub(super) problem: Option<String>,
}

/// A file as the last passes left it.
pub(super) struct Held {
    pub(super) known: Known,
    /// The newest version that passed every check.
    pub(super) route: Option<Route>,
    /// The version before, until the newest has rendered a page.
    previous: Option<Route>,
    /// Why the newest version did not.
    pub(super) refusal: Option<Refusal>,
}

impl State {
    /// Remembers what became of a file. Nothing but a new module takes the place of the old one.
    pub(super) fn note(&mut self, file: PathBuf, mark: Mark, result: Loaded, now: Timestamp) {
        if matches!(result, Loaded::Moving) {
            return;
        }
        let held = self.files.entry(file.clone()).or_insert_with(|| Held {
            known: Known {
                mark: None,
                again: None,
            },
            route: None,
            previous: None,
            refusal: None,
        });
        held.known = Known {
            mark: Some(mark),
            again: None,
        };
        held.refusal = None;
        match result {
            Loaded::New(route) => held.replace(route),
            Loaded::Same | Loaded::Moving => {}
            Loaded::Refused { message, retry } => {
                held.known.again = match retry {
                    Retry::Never => None,
                    Retry::Later => Some(now.plus(RETRY)),
                    Retry::Soon => Some(now),
                };
                held.refusal = Some(Refusal::module(file, message));
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
                held.route = Some(previous);
                held.refusal = Some(Refusal::fallen(file.clone()));
            }
        }
    }

    /// Every route that is or may come to be served.
    pub(super) fn routes_mut(&mut self) -> impl Iterator<Item = &mut Route> {
        let held = self.files.values_mut();
        held.flat_map(|held| held.route.iter_mut().chain(&mut held.previous))
    }

    /// The pages' modules that ask for a place in their table.
    pub(super) fn pages(&self) -> Vec<Candidate<Arc<Routed>>> {
        self.candidates(|route| match route {
            Route::Page(routed) => Some((&routed.pattern, routed)),
            Route::Api(_) => None,
        })
    }

    /// The API routes' modules that ask for a place in theirs.
    pub(super) fn apis(&self) -> Vec<Candidate<Arc<ApiRouted>>> {
        self.candidates(|route| match route {
            Route::Page(_) => None,
            Route::Api(routed) => Some((&routed.pattern, routed)),
        })
    }

    fn candidates<T>(
        &self,
        of_kind: impl Fn(&Route) -> Option<(&Pattern, &Arc<T>)>,
    ) -> Vec<Candidate<Arc<T>>> {
        let candidate = |(file, held): (&PathBuf, &Held)| {
            let (pattern, routed) = of_kind(held.route.as_ref()?)?;
            Some(Candidate {
                seated: self.seated.contains(file),
                file: file.clone(),
                pattern: pattern.clone(),
                value: Arc::clone(routed),
            })
        };
        self.files.iter().filter_map(candidate).collect()
    }
}

impl Held {
    fn replace(&mut self, route: Route) {
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
