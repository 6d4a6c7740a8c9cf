//! `Releases`: passes over the folder of modules, each of which may replace the release as a whole.
//!
//! A pass looks at the folder, has loaded what changed, and takes up what was loaded since the last
//! one: it never waits for a module.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use futures_util::future::join_all;
use parking_lot::RwLock;
use serde::Serialize;
use tokio::sync::{Mutex, watch};
use tokio::time::Instant;

use crate::guest::{Engine, outbound};
use crate::route::{Pattern, Table};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::{Clock, Incidents, Subject};

use super::archive::Archive;
use super::folder::{FolderError, Snapshot};
use super::history::{History, Modules};
use super::load::{Loaded, Loader};
use super::loads::{Loads, Order};
use super::plan::{Known, Patience, Plan, needs_second_look, plan};
use super::routed::{Route, RouteRules};
use super::routes::Release;
use super::state::State;

/// Modules read and loaded at once: enough to overlap disk and compiler.
pub(super) const LOADS: usize = 4;

/// How long a swap waits for the new modules to list their paths, so that a path that one of them
/// dropped is 404 from the swap on. A listing that takes longer arrives after the swap.
const LISTING_PATIENCE: Duration = Duration::from_secs(1);

/// How long a start that has a release to go on with waits for modules that changed since.
const START_PATIENCE: Duration = Duration::from_secs(10);

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
    /// How much of each route runs at once, API routes included.
    pub concurrency: BTreeMap<Arc<str>, usize>,
    /// The modules whose pages are not shown again, by route: a rollback took them back.
    pub withdrawn: Modules,
    /// The routes whose pages are to be forgotten: they must not come back.
    pub gone: BTreeSet<Arc<str>>,
}

/// What passes did.
#[derive(Debug, Clone, Default, Serialize)]
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
    /// Files that are being loaded; another pass takes them up.
    pub loading: usize,
    /// What is refused now.
    pub refused: usize,
    /// Why the folder could not be read, if so.
    pub problem: Option<String>,
}

/// The current release, and what makes the next one.
pub struct Releases {
    pub(super) loader: Arc<Loader>,
    pub(super) loads: Loads,
    herald: Herald,
    pub(super) current: ArcSwap<Release>,
    pub(super) history: ArcSwap<History>,
    /// Held for a whole pass: passes are made one after another.
    pub(super) state: Mutex<State>,
    pub(super) changed: watch::Sender<u64>,
}

impl Releases {
    /// No routes yet: [`Releases::scan`] reads the folder.
    pub fn new(config: Config, parts: Parts) -> Self {
        let clock = parts.clock;
        let empty = Release::new(0, clock.now(), Table::new(), Table::new(), Vec::new());
        let archive = config.state.clone().map(Archive::new);
        Self {
            loader: Arc::new(Loader {
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
            }),
            loads: Loads::new(),
            herald: parts.herald,
            current: ArcSwap::from_pointee(empty),
            history: ArcSwap::default(),
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

    /// Makes passes over the folder until all that it found is loaded; the sum of them. Cancelled, it
    /// has lost nothing: the next pass goes on.
    pub async fn scan(&self) -> ScanReport {
        let mut sum = ScanReport::default();
        loop {
            let report = self.pass().await;
            sum = ScanReport {
                swapped: sum.swapped || report.swapped,
                loaded: sum.loaded + report.loaded,
                removed: sum.removed + report.removed,
                ..report
            };
            if sum.loading == 0 {
                return sum;
            }
            self.loads.ripe().await;
        }
    }

    /// The first passes over the folder. Where an earlier process left a release, it serves already,
    /// and a module that takes long to load takes its place later.
    pub async fn start(&self) {
        let goes_on = async {
            tokio::time::sleep(START_PATIENCE).await;
            // The sender is this one's own.
            let _ = self.subscribe().wait_for(|release| *release > 0).await;
        };
        tokio::select! {
            _ = self.scan() => {}
            () = goes_on => tracing::info!("modules that changed are still being loaded"),
        }
    }

    /// Makes one pass over the folder: has loaded what changed, drops what is gone, and swaps the
    /// release if that and what was loaded changes its routes. Cancelled, it has changed nothing.
    pub(super) async fn pass(&self) -> ScanReport {
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
        let mut waiting = plan.wait.len();
        self.loads.keep(|file, mark| match mark {
            _ if seen.is_blind_to(file) => mark.is_some(),
            _ => seen.files.get(file).map(|found| found.mark) == mark,
        });
        self.begin(&state, plan);
        let (mut loaded, mut removed) = (0, 0);
        for (file, mark, result) in self.loads.take(Instant::now()) {
            loaded += usize::from(matches!(result, Loaded::New(_)));
            removed += usize::from(matches!(result, Loaded::Gone));
            waiting += usize::from(matches!(result, Loaded::Moving));
            let result = match result {
                // Other rules may have come while it was loaded.
                Loaded::New(route) => Loaded::New(self.loader.renewed(&route).unwrap_or(route)),
                other => other,
            };
            state.note(file, mark, result, self.loader.clock.now());
        }
        state.problem = None;
        state.device = Some(seen.device);
        state.refused.clone_from(&seen.refused);
        let swapped = !self.loads.owe() && self.settle(&mut state, seen.refused).await;
        let release = self.load();
        ScanReport {
            release: release.id,
            swapped,
            loaded,
            removed,
            waiting,
            loading: self.loads.len(),
            refused: release.refused.len(),
            problem: None,
        }
    }

    /// Has done what is planned.
    fn begin(&self, state: &State, plan: Plan) {
        for file in plan.remove {
            // The file had a name that is a route.
            if let Ok(pattern) = Pattern::of_file(&file) {
                self.loads.end_of(file, pattern);
            }
        }
        let history = self.history();
        let current = history.current();
        for (file, found) in plan.load {
            let before = state.before(&file);
            let order = Order {
                seated: state.seated.contains(&file),
                // The first release is whole: what is not in it would be a 404 and lose its pages.
                owed: before.route.is_none()
                    && current.is_none_or(|current| current.files.contains_key(&file)),
                file: file.clone(),
                pattern: found.pattern.clone(),
                mark: Some(found.mark),
            };
            let loader = Arc::clone(&self.loader);
            self.loads.begin(
                order,
                || async move { loader.load(&file, found, before).await },
            );
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

    /// Tells of what will be served, and has pages forgotten.
    pub(super) async fn announce(
        &self,
        release: &Release,
        history: &History,
        gone: BTreeSet<Arc<str>>,
    ) {
        let routes = release.table.iter().map(|(pattern, _)| pattern.route());
        let served = routes.collect();
        let all = release.all();
        let concurrency = all.map(|route| (route.name(), route.config().policy.concurrency));
        (self.herald)(Change {
            served,
            concurrency: concurrency.collect(),
            withdrawn: history.withdrawn().clone(),
            gone,
        })
        .await;
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
        self.loads.end();
        let release = self.load();
        ScanReport {
            release: release.id,
            refused: release.refused.len(),
            problem: Some(problem),
            ..ScanReport::default()
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
