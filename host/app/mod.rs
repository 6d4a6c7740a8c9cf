//! `App`: the one place where the rooms are wired together.
//!
//! A `Workshop` is what pages are made with; an [`App`] puts doors to it, a [`Prerender`] makes
//! what is listed and ends.

mod pass;
mod prerender;
mod reload;
mod room;
mod supervise;
mod threads;
mod warm;
mod workshop;

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use tokio::runtime::Handle;
use tokio::signal::unix::Signal;
use tokio::sync::{Mutex, watch};

pub use pass::Pass;
pub use prerender::{Prerender, Report};

use crate::config::Config;
use crate::http::listen::Bound;
use crate::http::{Dev, Site, Watch};
use crate::release::Releases;
use crate::store::OpenError;
use crate::telemetry::access::AccessLog;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::trace::Tracing;
use crate::{admin, http};
use reload::Reloading;
pub(crate) use room::{outlive_large_files, threads as room_for_threads};
use supervise::Supervisor;
pub(crate) use threads::{THREADS_STAY, lower_priority};
use warm::Warmer;
use workshop::Workshop;

/// A server, bound to its ports and ready to run.
pub struct App {
    site: (Bound, Arc<Site>),
    admin: (Bound, Arc<admin::Admin>),
    warmer: Warmer,
    workshop: Workshop,
    supervisor: Supervisor,
    reloading: Reloading,
    tracing: Option<Tracing>,
}

impl App {
    /// Binds the ports, starts the sandbox and loads the first release. Readers who connect
    /// meanwhile wait; none is refused.
    ///
    /// # Errors
    /// When a port cannot be had, the store cannot be opened, or the machine cannot run the
    /// sandbox. A module that cannot be loaded is an incident, not an error.
    pub async fn build(config: Config, dev: Option<Dev>) -> anyhow::Result<Self> {
        let mut config = config;
        room::share_open_files(&mut config)?;
        let tracing = config.trace.as_ref();
        let tracing = tracing.map(|trace| Tracing::start(trace, &config.clock, Handle::current()));
        let tracing = tracing.transpose()?;
        let metrics = Arc::new(Metrics::new());
        let (site_port, admin_port) = bind(&config, &metrics)?;
        let own_addresses = vec![site_port.addr(), admin_port.addr()];
        let (doors, clock) = ((config.http.clone(), config.admin.clone()), config.clock);
        let reloader = config.reloader.clone();
        let workshop = Workshop::open(config, own_addresses, metrics).await;
        let workshop = workshop.map_err(|error| match error.downcast_ref::<OpenError>() {
            Some(OpenError::InUse { .. }) | None => error,
            Some(_) => error.context("cannot keep pages on disk (store.durable = false in wisr.toml keeps them in memory only)"),
        })?;
        let supervisor = Supervisor::new(clock, &workshop.incidents);
        workshop.releases.start().await;
        // What was acknowledged while this host was away holds for its first reader.
        workshop.isr.joined().await;

        let (ready, is_ready) = watch::channel(false);
        let warmer = Warmer {
            releases: workshop.releases.clone(),
            isr: workshop.isr.clone(),
            metrics: workshop.metrics.clone(),
            ready,
            passes: watch::Sender::new(None),
        };
        let site = Arc::new(Site::new(
            doors.0,
            workshop.releases.clone(),
            workshop.isr.clone(),
            (workshop.generations.handle(), workshop.apis.clone()),
            dev,
            workshop.incidents.clone(),
        ));
        let reloading = Reloading::new(
            reloader,
            &workshop.releases,
            &site,
            &workshop.incidents,
            clock,
        );
        let admin = admin::Admin::new(
            doors.1,
            admin::Parts {
                releases: workshop.releases.clone(),
                isr: workshop.isr.clone(),
                incidents: workshop.incidents.clone(),
                metrics: workshop.metrics.clone(),
                is_ready,
            },
        );
        Ok(Self {
            site: (site_port, site),
            admin: (admin_port, Arc::new(admin)),
            warmer,
            workshop,
            supervisor,
            reloading,
            tracing,
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
        &self.workshop.releases
    }

    /// Becomes true once the pages that the first release lists are made, as `/readyz` does.
    pub fn ready(&self) -> watch::Receiver<bool> {
        self.warmer.ready.subscribe()
    }

    /// The pages that are being made ahead of their readers, release by release.
    pub fn passes(&self) -> watch::Receiver<Option<Arc<Pass>>> {
        self.warmer.passes.subscribe()
    }

    /// Serves until `stop`, then finishes what is in flight. Changes of `wisr.toml` are taken up
    /// from time to time, and at once when `hangup` is received.
    ///
    /// # Errors
    /// When a serving thread died.
    pub async fn run(
        self,
        stop: impl Future<Output = ()>,
        hangup: Option<Signal>,
    ) -> anyhow::Result<()> {
        let (stopping, stopped) = watch::channel(false);
        let (site_port, site) = self.site;
        let (admin_port, admin) = self.admin;
        let site = site_port.serve(site, stopped.clone());
        let sampling = self.supervisor.clone().keep("watching what goes on", {
            let (admin, stopped) = (admin.clone(), stopped.clone());
            move || {
                let (admin, stopped) = (admin.clone(), stopped.clone());
                async move { admin.watch(http::listen::stopped(stopped)).await }
            }
        });
        let sampler = tokio::spawn(sampling);
        let admin = admin_port.serve(admin, stopped.clone());
        let watching = self.supervisor.clone().keep("watching the folder", {
            let releases = self.workshop.releases.clone();
            move || {
                let (releases, stopped) = (releases.clone(), stopped.clone());
                async move { releases.watch(http::listen::stopped(stopped)).await }
            }
        });
        let watcher = tokio::spawn(watching);
        let reloading = Arc::new(Mutex::new((self.reloading, hangup)));
        let reloading =
            tokio::spawn(self.supervisor.clone().keep("reading wisr.toml", move || {
                let reloading = reloading.clone();
                async move {
                    let (reloading, hangup) = &mut *reloading.lock().await;
                    reloading.watch(hangup).await;
                }
            }));
        let (supervisor, warmer) = (self.supervisor, self.warmer);
        let warmer = tokio::spawn(async move {
            let begin = || warmer.keep_warm();
            supervisor.keep("making pages ahead", begin).await;
        });
        stop.await;
        tracing::info!("stopping: requests in flight are finished");
        stopping.send_replace(true);
        warmer.abort();
        reloading.abort();
        sampler.abort();
        let ends = (site.join().await, admin.join().await);
        // The watcher ends with the stop signal, unless a module is compiling, which nothing waits for.
        watcher.abort();
        if let Err(degraded) = self.workshop.close().await {
            tracing::error!("the latest pages are not on disk: {}", degraded.as_str());
        }
        if let Some(tracing) = self.tracing {
            // Nobody waits for a panic there.
            let _ = tokio::task::spawn_blocking(|| tracing.close()).await;
        }
        ends.0.and(ends.1).context("a serving thread died")
    }
}

/// Takes both ports.
fn bind(config: &Config, metrics: &Metrics) -> anyhow::Result<(Bound, Bound)> {
    let access = config.http.access.as_ref();
    let access = access.map(|access| AccessLog::open(access, metrics.access_lines_dropped.clone()));
    let access = access
        .transpose()
        .context("the access log (`log.access` in wisr.toml)")?;
    let watch = Watch::new(metrics, access, config.clock, config.http.proxies.clone());
    let site = Bound::bind(config.http.listener(metrics, watch))
        .context("the site's port (`--listen`, or `server.listen` in wisr.toml)")?;
    let admin = Bound::bind(config.admin.listener())
        .context("the admin port (`--admin`, or `server.admin` in wisr.toml)")?;
    Ok((site, admin))
}
