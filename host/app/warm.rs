//! `keep_warm`: after each new release, makes the pages that it lists and forgets those of routes
//! that are gone.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::future::join_all;
use tokio::sync::watch;

use crate::isr::{Ask, Isr, Prerendered};
use crate::release::{Release, Releases, Routed};

/// Runs until dropped. `ready` becomes true once the first release's pages were made.
pub(super) async fn keep_warm(releases: Arc<Releases>, isr: Isr, ready: watch::Sender<bool>) {
    let mut changes = releases.subscribe();
    let mut routes = BTreeSet::new();
    loop {
        changes.borrow_and_update();
        let release = releases.current();
        let now: BTreeSet<Arc<str>> = release
            .table
            .iter()
            .map(|(_, routed)| routed.page.route.clone())
            .collect();
        for gone in routes.difference(&now) {
            let pages = isr.remove_route(gone);
            tracing::info!(route = %gone, pages, "route removed");
        }
        routes = now;
        let pass = async {
            prerender(&release, &isr).await;
            ready.send_replace(true);
            std::future::pending::<()>().await;
        };
        // A newer release overtakes the pass: what it still had to make may be gone by now.
        tokio::select! {
            () = pass => {}
            changed = changes.changed() => if changed.is_err() { return },
        }
    }
}

async fn prerender(release: &Release, isr: &Isr) {
    let passes = release
        .table
        .iter()
        .map(|(_, routed)| prerender_route(routed, isr));
    let mut total = Prerendered::default();
    for report in join_all(passes).await {
        total.made += report.made;
        total.fresh += report.fresh;
        total.failed.extend(report.failed);
    }
    let (made, fresh, failed) = (total.made, total.fresh, total.failed.len());
    tracing::info!(release = release.id, made, fresh, failed, "prerendered");
}

async fn prerender_route(routed: &Arc<Routed>, isr: &Isr) -> Prerendered {
    routed.ready().await;
    let asks = routed
        .paths()
        .into_iter()
        .map(|(path, params)| Ask::new(routed.page.clone(), path.as_str(), params, Vec::new()));
    isr.prerender(asks).await
}
