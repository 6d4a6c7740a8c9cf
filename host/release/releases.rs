//! `Releases`: passes over the folder of modules, each of which may replace the release as a whole.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream;
use parking_lot::RwLock;
use serde::Serialize;
use tokio::sync::{Mutex, Notify, watch};

use crate::guest::{Engine, outbound};
use crate::route::Table;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::{Clock, Incidents, Subject};

use super::archive::Archive;
use super::folder::{FolderError, Snapshot};
use super::history::History;
use super::load::{Loaded, Loader};
use super::plan::{Known, Patience, Plan, needs_second_look, plan};
use super::routed::{Route, RouteRules};
use super::routes::Release;
use super::state::State;

/// Modules read and loaded at once: enough to overlap disk and compiler.
pub(super) const LOADS: usize = 4;

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
    /// The folder that the history and its modules are kept in; none keeps them in memory.
    pub state: Option<PathBuf>,
}

/// What releases stand on.
pub struct Parts {
    /// What runs modules.
    pub engine: Engine,
    /// Outgoing HTTP.
    pub client: outbound::Client,
    /// The time.
    pub clock: Clock,
    /// Where failures are told.
    pub incidents: Arc<Incidents>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Who keeps the pages.
    pub herald: Herald,
}

/// Is told of a release before it is served; what it returns ends when all of it is done.
pub type Herald = Arc<dyn Fn(Change) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

/// What a release means for the pages that were made for those before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The routes that have pages.
    pub served: BTreeSet<Arc<str>>,
    /// The routes whose pages must not come back.
    pub gone: Option<Gone>,
}

/// Routes whose pages are to be forgotten.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gone {
    /// These.
    These(BTreeSet<Arc<str>>),
    /// All but these.
    AllBut(BTreeSet<Arc<str>>),
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
    herald: Herald,
    pub(super) current: ArcSwap<Release>,
    pub(super) history: ArcSwap<History>,
    /// Held for a whole pass: passes are made one after another.
    pub(super) state: Mutex<State>,
    pub(super) changed: watch::Sender<u64>,
    /// Told when something goes before the pass in progress, which is then made anew.
    pub(super) urgent: Notify,
}

impl Releases {
    /// No routes yet: [`Releases::scan`] reads the folder.
    pub fn new(config: Config, parts: Parts) -> Self {
        let clock = parts.clock;
        let empty = Release::new(0, clock.now(), Table::new(), Table::new(), Vec::new());
        let archive = config.state.clone().map(Archive::new);
        Self {
            loader: Loader {
                rules: RwLock::new(Arc::clone(&config.routes)),
                config,
                engine: parts.engine,
                client: parts.client,
                clock,
                incidents: parts.incidents,
                metrics: parts.metrics,
                fallen: Arc::default(),
                archive: archive.map(Arc::new),
                unkept: Default::default(),
            },
            herald: parts.herald,
            current: ArcSwap::from_pointee(empty),
            history: ArcSwap::default(),
            state: Mutex::default(),
            changed: watch::Sender::new(0),
            urgent: Notify::new(),
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

    /// The latest releases.
    pub fn history(&self) -> Arc<History> {
        self.history.load_full()
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
        loop {
            tokio::select! {
                biased;
                () = self.urgent.notified() => {}
                report = self.pass() => return report,
            }
        }
    }

    async fn pass(&self) -> ScanReport {
        let mut state = self.state.lock().await;
        self.restore(&mut state).await;
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
        state.problem = None;
        state.device = Some(seen.device);
        state.refused.clone_from(&seen.refused);
        let swapped = self.settle(&mut state, seen.refused).await;
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

    pub(super) async fn snapshot(&self, state: &State) -> Result<Snapshot, FolderError> {
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
            let before = state.before(file);
            let (file, found) = (file.clone(), Clone::clone(found));
            async move { self.loader.load(&file, found, before).await }
        };
        let loads: Vec<_> = plan.load.iter().map(load).collect();
        let results: Vec<Loaded> = stream::iter(loads).buffered(LOADS).collect().await;
        listed(results.iter().filter_map(|result| match result {
            Loaded::New(route) => Some(route),
            _ => None,
        }))
        .await;
        results
    }

    /// Tells of what will be served, and has pages forgotten.
    pub(super) async fn announce(&self, release: &Release, gone: Option<Gone>) {
        let routes = release.table.iter().map(|(pattern, _)| pattern.route());
        let served = routes.collect();
        (self.herald)(Change { served, gone }).await;
    }

    pub(super) fn record(&self, kind: &'static str, subject: Subject, message: String) {
        let (now, incidents) = (self.loader.clock.now(), &self.loader.incidents);
        incidents.record(now, subject, kind, message, None);
    }

    /// The folder cannot be read: everything stays as it is, and that is said once.
    fn stay(&self, state: &mut State, problem: String) -> ScanReport {
        if state.problem.as_ref() != Some(&problem) {
            self.record("folder", Subject::Server, problem.clone());
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
}

/// Waits a little until modules have listed their paths.
pub(super) async fn listed(routes: impl Iterator<Item = &Route>) {
    let listings = routes.filter_map(|route| match route {
        Route::Page(routed) => Some(routed.ready()),
        Route::Api(_) => None,
    });
    // Not an error: a route whose listing is not known yet makes every page that is asked for.
    let _ = tokio::time::timeout(LISTING_PATIENCE, join_all(listings)).await;
}
