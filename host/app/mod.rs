//! `App`: the one place where the rooms are wired together.

mod threads;
mod warm;

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::sync::watch;

use crate::config::Config;
use crate::guest::Engine;
use crate::guest::outbound::Client;
use crate::http::listen::Bound;
use crate::http::{Overlay, Site};
use crate::isr::{Isr, Parts};
use crate::release::Releases;
use crate::store::Tiers;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::{Clock, Incidents};
use crate::{admin, http};
use threads::GenerationThreads;
use warm::Warmer;

/// A server, bound to its ports and ready to run.
pub struct App {
    site: (Bound, Arc<Site>),
    admin: (Bound, Arc<admin::Admin>),
    releases: Arc<Releases>,
    warmer: Warmer,
    store: Arc<Tiers>,
    generations: GenerationThreads,
}

impl App {
    /// Binds the ports, starts the sandbox and loads the first release. Readers who connect
    /// meanwhile wait; none is refused.
    ///
    /// # Errors
    /// When a port cannot be had, or the machine cannot run the sandbox. A module that cannot be
    /// loaded is an incident, not an error.
    pub async fn build(config: Config, overlay: Option<Arc<Overlay>>) -> anyhow::Result<Self> {
        raise_open_files();
        let metrics = Arc::new(Metrics::new());
        let incidents = Arc::new(Incidents::new(metrics.incidents.clone()));
        let clock = Clock::system();
        let site_port = Bound::bind(config.http.listener(&metrics))
            .context("the site's port (`--listen`, or `server.listen` in wisr.toml)")?;
        let admin_port = Bound::bind(config.admin.listener())
            .context("the admin port (`--admin`, or `server.admin` in wisr.toml)")?;
        let generations = GenerationThreads::start(config.generation_threads)?;

        let engine = Engine::new(config.engine)?;
        let own_addresses = vec![site_port.addr(), admin_port.addr()];
        let client = Client::new(crate::guest::outbound::ClientConfig {
            own_addresses,
            ..config.outbound
        })?;
        let releases = Arc::new(Releases::new(
            config.release,
            engine,
            client,
            clock,
            incidents.clone(),
        ));
        releases.scan().await;

        let store = Tiers::open(config.store, metrics.clone()).context("cannot keep pages on disk (store.durable = false in wisr.toml keeps them in memory only)")?;
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
        let (ready, is_ready) = watch::channel(false);
        let warmer = Warmer {
            releases: releases.clone(),
            isr: isr.clone(),
            metrics: metrics.clone(),
            ready,
        };
        let site = Site::new(
            config.http,
            releases.clone(),
            isr.clone(),
            generations.handle(),
            overlay,
        );
        let admin = admin::Admin::new(
            config.admin,
            admin::Parts {
                releases: releases.clone(),
                isr: isr.clone(),
                incidents,
                metrics,
                is_ready,
            },
        );
        Ok(Self {
            site: (site_port, Arc::new(site)),
            admin: (admin_port, Arc::new(admin)),
            releases,
            warmer,
            store,
            generations,
        })
    }

    /// Where readers connect.
    pub fn site_addr(&self) -> SocketAddr {
        self.site.0.addr()
    }

    /// Where operators connect.
    pub fn admin_addr(&self) -> SocketAddr {
        self.admin.0.addr()
    }

    /// The releases that are served.
    pub fn releases(&self) -> &Arc<Releases> {
        &self.releases
    }

    /// Becomes true once the pages that the first release lists are made, as `/readyz` does.
    pub fn ready(&self) -> watch::Receiver<bool> {
        self.warmer.ready.subscribe()
    }

    /// Serves until `stop`, then finishes what is in flight.
    ///
    /// # Errors
    /// When a serving thread died.
    pub async fn run(self, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
        let (stopping, stopped) = watch::channel(false);
        let (site_port, site) = self.site;
        let (admin_port, admin) = self.admin;
        let site = site_port.serve(site, stopped.clone());
        let admin = admin_port.serve(admin, stopped.clone());
        let ended = http::listen::stopped(stopped.clone());
        let watcher = tokio::spawn({
            let releases = self.releases.clone();
            async move { releases.watch(ended).await }
        });
        let warmer = tokio::spawn(self.warmer.keep_warm());
        stop.await;
        tracing::info!("stopping: requests in flight are finished");
        stopping.send_replace(true);
        warmer.abort();
        let ends = (site.join().await, admin.join().await);
        // The watcher ends with the stop signal, unless a module is compiling, which nothing waits for.
        watcher.abort();
        drop(self.generations);
        if let Err(degraded) = self.store.synced().await {
            tracing::error!("the latest pages are not on disk: {}", degraded.as_str());
        }
        ends.0.and(ends.1).context("a serving thread died")
    }
}

/// As many open files as the operator allows at all: the usual limit of 1024 is there for programs
/// that still call `select`, and is used up by a tenth of the connections that a server takes.
fn raise_open_files() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "the limit of open files stays as it is (ulimit -n)");
    }
}
