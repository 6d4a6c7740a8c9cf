//! `Releases`: passes over the folder of modules, each of which may replace the release as a whole.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream;
use parking_lot::RwLock;
use serde::Serialize;
use tokio::sync::{Mutex, watch};

use crate::guest::{Engine, outbound};
use crate::route::Table;
use crate::telemetry::{Clock, Incidents, Subject};

use super::folder::{FolderError, Snapshot};
use super::load::{Loaded, Loader};
use super::plan::{Known, Patience, Plan, needs_second_look, plan, seat};
use super::routed::{Route, RouteRules};
use super::routes::{Refusal, Release};
use super::state::State;

/// Modules read and loaded at once: enough to overlap disk and compiler.
const LOADS: usize = 4;

/// How long a swap waits for the new modules to list their paths, so that a path that one of them
/// dropped is 404 from the swap on. A listing that takes longer arrives after the swap.
pub(super) const LISTING_PATIENCE: Duration = Duration::from_secs(1);

/// Where the modules are and how they are served.
#[derive(Clone)]
pub struct Config {
    /// The folder of modules.
    pub pages: PathBuf,
    /// How often the folder is looked at though nothing reported a change.
    pub poll: Duration,
    /// How long a file stays untouched before it counts as written.
    pub settle: Duration,
    /// What the site's configuration says of a route, until [`Releases::reconfigure`].
    pub routes: RouteRules,
}

/// What a pass did.
#[derive(Debug, Clone, Serialize)]
pub struct ScanReport {
    /// The release after it.
    pub release: u64,
    /// Whether the routes changed.
    pub swapped: bool,
    /// New modules.
    pub loaded: usize,
    /// Files that are gone.
    pub removed: usize,
    /// Files that are still being written; another pass is needed.
    pub waiting: usize,
    /// What is refused now.
    pub refused: usize,
    /// Why the folder could not be read, if so.
    pub problem: Option<String>,
}

/// The current release, and what makes the next one.
pub struct Releases {
    pub(super) loader: Loader,
    current: ArcSwap<Release>,
    /// Held for a whole pass: passes are made one after another.
    pub(super) state: Mutex<State>,
    changed: watch::Sender<u64>,
}

impl Releases {
    /// No routes yet: [`Releases::scan`] reads the folder.
    pub fn new(
        config: Config,
        engine: Engine,
        client: outbound::Client,
        clock: Clock,
        incidents: Arc<Incidents>,
    ) -> Self {
        let empty = Release::new(0, clock.now(), Table::new(), Table::new(), Vec::new());
        Self {
            loader: Loader {
                rules: RwLock::new(Arc::clone(&config.routes)),
                config,
                engine,
                client,
                clock,
                incidents,
                fallen: Arc::default(),
            },
            current: ArcSwap::from_pointee(empty),
            state: Mutex::default(),
            changed: watch::Sender::new(0),
        }
    }

    /// The current release, to keep.
    pub fn current(&self) -> Arc<Release> {
        self.current.load_full()
    }

    /// The current release, to look something up in: cheaper, and not to be held across an await.
    pub fn load(&self) -> Guard<Arc<Release>> {
        self.current.load()
    }

    /// The id of the current release, and of each that follows.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Ends when a module has done nothing but fail, which the next pass deals with.
    pub(super) async fn fallen(&self) {
        self.loader.fallen.notified().await;
    }

    pub(super) fn config(&self) -> &Config {
        &self.loader.config
    }

    /// Makes one pass over the folder: loads what changed, drops what is gone, and swaps the
    /// release if that changed its routes. A pass that is cancelled changes nothing.
    pub async fn scan(&self) -> ScanReport {
        let mut state = self.state.lock().await;
        let known = state
            .files
            .iter()
            .map(|(file, held)| (file.clone(), held.known))
            .collect();
        let (plan, seen) = match self.look(&known, &state).await {
            Ok(looked) => looked,
            Err(error) => return self.stay(&mut state, error.to_string()),
        };
        let (removed, mut waiting) = (plan.remove.len(), plan.wait.len());
        let results = self.load_all(&plan, &state).await;
        for file in &plan.remove {
            state.files.remove(file);
        }
        let mut loaded = 0;
        for ((file, found), result) in plan.load.into_iter().zip(results) {
            loaded += usize::from(matches!(result, Loaded::New(_)));
            waiting += usize::from(matches!(result, Loaded::Moving));
            state.note(file, found.mark, result, self.loader.clock.now());
        }
        state.end_trials();
        state.problem = None;
        let is_first = state.device.replace(seen.device).is_none();
        let swapped = self.publish(&mut state, seen.refused, is_first);
        let release = self.load();
        ScanReport {
            release: release.id,
            swapped,
            loaded,
            removed,
            waiting,
            refused: release.refused.len(),
            problem: None,
        }
    }

    /// Looks at the folder, twice where once does not tell, and plans.
    async fn look(
        &self,
        known: &BTreeMap<PathBuf, Known>,
        state: &State,
    ) -> Result<(Plan, Snapshot), FolderError> {
        let settle = self.loader.config.settle;
        let now = self.loader.clock.now();
        let patience = Patience { now, settle };
        let first = self.snapshot(state).await?;
        if !needs_second_look(known, &first, patience) {
            return Ok((plan(known, &first, &first, patience), first));
        }
        tokio::time::sleep(settle).await;
        let second = self.snapshot(state).await?;
        Ok((plan(known, &first, &second, patience), second))
    }

    async fn snapshot(&self, state: &State) -> Result<Snapshot, FolderError> {
        let folder = self.loader.config.pages.clone();
        let looking = tokio::task::spawn_blocking(move || Snapshot::take(&folder)).await;
        let pages = || self.loader.config.pages.clone();
        let seen = looking.unwrap_or_else(|lost| {
            let error = std::io::Error::other(lost);
            Err(FolderError::Unreadable(pages(), error))
        })?;
        if seen.is_mount_point_of(state.device) && !state.files.is_empty() {
            return Err(FolderError::Unmounted(pages()));
        }
        Ok(seen)
    }

    /// Loads what the plan says, in its order, and waits a little for listings.
    async fn load_all(&self, plan: &Plan, state: &State) -> Vec<Loaded> {
        let load = |(file, found): &(PathBuf, _)| {
            let held = state.files.get(file).and_then(|held| held.route.clone());
            let (file, found) = (file.clone(), Clone::clone(found));
            async move { self.loader.load(&file, found, held.as_ref()).await }
        };
        let loads: Vec<_> = plan.load.iter().map(load).collect();
        let results: Vec<Loaded> = stream::iter(loads).buffered(LOADS).collect().await;
        let listings = results.iter().filter_map(|result| match result {
            Loaded::New(Route::Page(routed)) => Some(routed.ready()),
            _ => None,
        });
        // Not an error: a route whose listing is not known yet makes every page that is asked for.
        let _ = tokio::time::timeout(LISTING_PATIENCE, join_all(listings)).await;
        results
    }

    /// The folder cannot be read: everything stays as it is, and that is said once.
    fn stay(&self, state: &mut State, problem: String) -> ScanReport {
        if state.problem.as_ref() != Some(&problem) {
            let now = self.loader.clock.now();
            let incidents = &self.loader.incidents;
            incidents.record(now, Subject::Server, "folder", problem.clone(), None);
            state.problem = Some(problem.clone());
        }
        let release = self.load();
        ScanReport {
            release: release.id,
            swapped: false,
            loaded: 0,
            removed: 0,
            waiting: 0,
            refused: release.refused.len(),
            problem: Some(problem),
        }
    }

    /// Makes the next release of what is held and swaps it in. Whether the routes changed.
    fn publish(&self, state: &mut State, mut refused: Vec<Refusal>, is_first: bool) -> bool {
        let now = self.loader.clock.now();
        let (table, conflicts) = seat(state.pages());
        refused.extend(conflicts);
        let (apis, conflicts) = seat(state.apis());
        refused.extend(conflicts);
        refused.extend(state.files.values().filter_map(|held| held.refusal.clone()));
        refused.sort_unstable();
        let current = self.current();
        for refusal in refused
            .iter()
            .filter(|refusal| !current.refused.contains(refusal))
        {
            let file = refusal.file.display().to_string();
            let (kind, message) = (refusal.kind, refusal.message.clone());
            let subject = Subject::Module { file };
            self.loader
                .incidents
                .record(now, subject, kind, message, None);
        }
        let is_same = !is_first && current.has_routes_of(&table, &apis);
        if is_same && refused == current.refused {
            return false;
        }
        let pages = table.iter().map(|(_, routed)| &routed.file);
        let files = pages.chain(apis.iter().map(|(_, routed)| &routed.file));
        state.seated = files.cloned().collect();
        let (id, at) = if is_same {
            (current.id, current.at)
        } else {
            (current.id + 1, now)
        };
        let release = Release::new(id, at, table, apis, refused);
        tracing::info!(release = id, routes = release.len(), "release");
        self.current.store(Arc::new(release));
        if !is_same {
            self.changed.send_replace(id);
        }
        !is_same
    }
}
