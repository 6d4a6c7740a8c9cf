//! `Workshop`: everything that pages are made with, and no door: the modules, the cache, the
//! store, and the threads that make.

use std::net::SocketAddr;
use std::sync::Arc;

use super::threads::GenerationThreads;
use crate::config::Config;
use crate::guest::Engine;
use crate::guest::outbound::{Client, ClientConfig};
use crate::isr::{Isr, Parts, Queue};
use crate::release::{self, Change, Herald, Releases};
use crate::store::{Degraded, Lock, Note, Notes, Tiers};
use crate::telemetry::Incidents;
use crate::telemetry::metrics::Metrics;

/// What pages are made with.
pub(super) struct Workshop {
    pub(super) releases: Arc<Releases>,
    pub(super) isr: Isr,
    /// Where requests to API routes wait for a place.
    pub(super) apis: Arc<Queue>,
    pub(super) store: Arc<Tiers>,
    pub(super) incidents: Arc<Incidents>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) generations: GenerationThreads,
    /// Where no pages are kept: the modules and releases on disk are this process's all the same.
    _lock: Option<Lock>,
}

impl Workshop {
    /// Opens the store and starts the sandbox; no module is loaded yet. Pages cannot reach
    /// `own_addresses`.
    ///
    /// # Errors
    /// When the store cannot be opened, or the machine cannot run the sandbox.
    pub(super) async fn open(
        config: Config,
        own_addresses: Vec<SocketAddr>,
        metrics: Arc<Metrics>,
    ) -> anyhow::Result<Self> {
        let clock = config.clock;
        let generations = GenerationThreads::start(config.generation_threads)?;
        let beside = config.release.state.as_ref();
        let beside = beside.filter(|_| config.store.folder.is_none());
        let lock = beside.map(|state| Lock::beside(&state.join("store")));
        let lock = lock.transpose()?.flatten();
        let store = Tiers::open(config.store, metrics.clone())?;
        // Before the first look at the folder, so that what it finds wrong is kept as well.
        let incidents = Arc::new(recall(&store, &metrics).await);
        store.report_to(incidents.clone(), clock);
        if let Some(mut shared) = config.shared {
            shared.name = name(own_addresses.first());
            let (store, metrics) = (store.clone(), metrics.clone());
            let share = move || store.share(shared, clock, metrics);
            tokio::task::spawn_blocking(share).await??;
        }
        let engine = Engine::new(config.engine)?;
        let client = Client::new(ClientConfig {
            own_addresses,
            ..config.outbound
        })?;
        // The door says how many wait.
        let apis = Queue::new(config.isr.concurrency, usize::MAX, None);
        let isr = Isr::new(
            config.isr,
            Parts {
                store: store.clone(),
                clock,
                runtime: generations.handle(),
                incidents: incidents.clone(),
                metrics: metrics.clone(),
            },
        );
        let releases = Arc::new(Releases::new(
            config.release,
            release::Parts {
                engine,
                client,
                clock,
                incidents: incidents.clone(),
                metrics: metrics.clone(),
                herald: herald(isr.clone(), apis.clone()),
            },
        ));
        Ok(Self {
            releases,
            isr,
            apis,
            store,
            incidents,
            metrics,
            generations,
            _lock: lock,
        })
    }

    /// Ends what is being made, and waits until what was made is on disk.
    ///
    /// # Errors
    /// When the disk fails or hangs.
    pub(super) async fn close(self) -> Result<(), Degraded> {
        drop(self.generations);
        self.store.leave().await;
        self.store.synced().await
    }
}

/// What this host calls itself: the machine, and where its readers connect.
fn name(listens: Option<&SocketAddr>) -> String {
    let system = rustix::system::uname();
    let machine = system.nodename().to_string_lossy();
    match listens {
        Some(listens) => format!("{machine} {listens}"),
        None => machine.into_owned(),
    }
}

/// The incidents of earlier runs, and the store as the keeper of those to come.
async fn recall(store: &Arc<Tiers>, metrics: &Metrics) -> Incidents {
    let read = {
        let store = store.clone();
        tokio::task::spawn_blocking(move || store.notes(Notes::Incidents))
    };
    let earlier = read.await.unwrap_or_else(|error| {
        tracing::error!("the incidents of earlier runs are not shown: {error}");
        Vec::new()
    });
    // The store tells of its own incidents: neither keeps the other from being closed.
    let store = Arc::downgrade(store);
    Incidents::new(metrics.incidents.clone()).kept_by(earlier, move |slot, kept| {
        if let Some(store) = store.upgrade() {
            store.note(Note::Incident(slot), kept);
        }
    })
}

/// Tells the cache, and who gives places, of each release before it is served.
fn herald(isr: Isr, apis: Arc<Queue>) -> Herald {
    Arc::new(move |change: Change| {
        let (isr, apis) = (isr.clone(), apis.clone());
        Box::pin(async move {
            // First: a route that comes back shows nothing of what it had.
            let pages = match change.gone.is_empty() {
                true => 0,
                false => isr.forget_routes(change.gone).await,
            };
            isr.serve_routes(change.served);
            isr.withdraw(change.withdrawn);
            isr.share_out(&change.concurrency);
            apis.share_out(&change.concurrency);
            if pages > 0 {
                tracing::info!(pages, "pages of routes that are gone were forgotten");
            }
        })
    })
}
