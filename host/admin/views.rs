//! What operators see: routes and entries, as JSON.

use std::collections::HashMap;

use serde_json::{Value, json};

use crate::isr::Isr;
use crate::page::{Entry, Freshness, Page};
use crate::release::{ApiRouted, Release, Routed};

/// All routes of a release, API routes apart, and what of the folder is not served.
pub(super) fn routes(release: &Release) -> Value {
    let routes: Vec<Value> = release
        .table
        .iter()
        .map(|(_, routed)| route(routed))
        .collect();
    let apis: Vec<Value> = release.apis.iter().map(|(_, routed)| api(routed)).collect();
    json!({
        "release": release.id,
        "since": release.at,
        "routes": routes,
        "apis": apis,
        "not_found": release.not_found.as_deref().map(route),
        "error": release.error.as_deref().map(route),
        "refused": release.refused,
    })
}

/// The state of the breaker before the shared tier, why it is not closed, and what the other hosts
/// are to be told.
pub(super) fn shared(isr: &Isr) -> Value {
    let health = isr.shared_health();
    json!({
        "breaker": health.as_str(),
        "reason": health.reason(),
        "untold": isr.untold(),
    })
}

fn route(routed: &Routed) -> Value {
    let policy = &routed.page.policy;
    json!({
        "route": routed.page.route,
        "file": routed.file,
        "module": routed.page.renderer.module().short(),
        "revalidate": policy.revalidate,
        "max_stale_seconds": policy.max_stale.as_secs(),
        "concurrency": policy.concurrency,
        "query": routed.config.query,
    })
}

fn api(routed: &ApiRouted) -> Value {
    json!({
        "route": routed.pattern.as_str(),
        "file": routed.file,
        "module": routed.module.digest().short(),
    })
}

/// Entries whose keys begin with `prefix`.
pub(super) async fn entries(isr: &Isr, release: &Release, prefix: &str, limit: usize) -> Value {
    let pages: HashMap<&str, &Page> = release
        .table
        .iter()
        .map(|(_, routed)| &routed.page)
        .chain(
            release
                .not_found
                .iter()
                .chain(&release.error)
                .map(|routed| &routed.page),
        )
        .map(|page| (&*page.route, &**page))
        .collect();
    let entries = isr.entries(prefix, limit).await;
    let told = |entry: &Entry| {
        let page = pages.get(&*entry.route);
        entry_of(entry, page.map(|page| isr.freshness(page, entry)))
    };
    json!({
        "now": isr.now(),
        "entries": entries.iter().map(|entry| told(entry)).collect::<Vec<Value>>(),
    })
}

fn entry_of(entry: &Entry, freshness: Option<Freshness>) -> Value {
    let (state, why) = match &freshness {
        None => ("orphan", Some("route-removed")),
        Some(Freshness::Fresh(_)) => ("fresh", None),
        Some(Freshness::Stale(why)) => ("stale", Some(why.as_str())),
        Some(Freshness::Expired(why)) => ("expired", Some(why.as_str())),
    };
    json!({
        "path": entry.key,
        "route": entry.route,
        "content": entry.content.as_str(),
        "state": state,
        "why": why,
        "generated": entry.stamp.generated,
        "fresh_until": entry.stamp.fresh_until,
        "revalidate": entry.stamp.revalidate,
        "module": entry.stamp.module.short(),
        "tags": entry.stamp.tags,
        "bytes": entry.weight(),
        "cost": entry.cost,
    })
}
