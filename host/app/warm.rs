//! `Warmer`: after each new release, makes the pages that it lists and forgets those of routes
//! that are gone.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::future::join_all;
use tokio::sync::watch;

use crate::isr::{Ask, Isr, Prerendered};
use crate::release::{Release, Releases, Routed};
use crate::route::Path;
use crate::telemetry::metrics::Metrics;

/// Keeps the pages of the current release made.
pub(super) struct Warmer {
    pub(super) releases: Arc<Releases>,
    pub(super) isr: Isr,
    pub(super) metrics: Arc<Metrics>,
    /// Becomes true once the first release's pages were made, as far as modules could list them.
    pub(super) ready: watch::Sender<bool>,
}

impl Warmer {
    /// Runs until dropped.
    pub(super) async fn keep_warm(self) {
        let mut changes = self.releases.subscribe();
        let mut routes = BTreeSet::new();
        loop {
            changes.borrow_and_update();
            self.metrics.releases.inc();
            let release = self.releases.current();
            let now: BTreeSet<Arc<str>> = release
                .table
                .iter()
                .map(|(_, routed)| routed.page.route.clone())
                .collect();
            self.isr.serve_routes(now.clone());
            for gone in routes.difference(&now) {
                let pages = self.isr.remove_route(gone).await;
                tracing::info!(route = %gone, pages, "route removed");
            }
            routes = now;
            let pass = async {
                let late = prerender(&release, &self.isr).await;
                self.ready.send_replace(true);
                let passes = late.into_iter().map(async |routed| {
                    routed.ready().await;
                    prerender_route(&release, routed, &self.isr).await
                });
                join_all(passes).await;
                std::future::pending::<()>().await;
            };
            // A newer release overtakes the pass: what it still had to make may be gone by now.
            tokio::select! {
                () = pass => {}
                changed = changes.changed() => if changed.is_err() { return },
            }
        }
    }
}

/// Makes what is listed. Returns the routes whose module could not list its paths when it was
/// asked first: one that never can must not keep the others from being called ready.
async fn prerender<'a>(release: &'a Release, isr: &Isr) -> Vec<&'a Arc<Routed>> {
    let routes = release.table.iter().map(|(_, routed)| routed);
    let passes = routes.map(async |routed| {
        routed.tried().await;
        match routed.is_listed() {
            true => Ok(prerender_route(release, routed, isr).await),
            false => Err(routed),
        }
    });
    let mut total = Prerendered::default();
    let mut late = Vec::new();
    for report in join_all(passes).await {
        match report {
            Ok(report) => {
                total.made += report.made;
                total.fresh += report.fresh;
                total.failed.extend(report.failed);
            }
            Err(routed) => late.push(routed),
        }
    }
    let (made, fresh, failed) = (total.made, total.fresh, total.failed.len());
    let late_routes = late.len();
    tracing::info!(
        release = release.id,
        made,
        fresh,
        failed,
        late_routes,
        "prerendered"
    );
    late
}

async fn prerender_route(release: &Release, routed: &Arc<Routed>, isr: &Isr) -> Prerendered {
    // `/posts/[id]` may list `new` while `/posts/new` is a page of its own.
    let owns = |path: &Path| {
        let owner = release.table.matches(path).next();
        owner.is_some_and(|owner| Arc::ptr_eq(owner.value, routed))
    };
    let paths = routed.paths().into_iter().filter(|(path, _)| owns(path));
    let asks = paths
        .map(|(path, params)| Ask::new(routed.page.clone(), path.as_str(), params, Vec::new()));
    isr.prerender(asks).await
}
