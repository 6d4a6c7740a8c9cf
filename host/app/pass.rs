//! `Pass`: the pages that one release lists, made ahead of their readers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::sync::SetOnce;

use crate::isr::{Ask, Count, Isr, Retry, Tally};
use crate::page::{Failure, PageKey};
use crate::release::{Release, Routed};
use crate::route::Path;

/// The making of what one release lists.
pub struct Pass {
    release: Arc<Release>,
    tally: Tally,
    began: Instant,
    /// How long it took.
    over: SetOnce<Duration>,
}

impl Pass {
    /// A pass that has made nothing yet.
    pub(super) fn over(release: Arc<Release>) -> Self {
        Self {
            release,
            tally: Tally::default(),
            began: Instant::now(),
            over: SetOnce::new(),
        }
    }

    /// How far it has come.
    pub fn count(&self) -> Count {
        self.tally.count()
    }

    /// The first pages that could not be made, and why: 1,000 at most.
    pub fn failures(&self) -> Vec<(PageKey, Arc<Failure>)> {
        self.tally.failures()
    }

    /// Waits until everything that could be listed at once is made; how long that took. A pass
    /// that a newer release overtakes never ends.
    pub async fn ended(&self) -> Duration {
        *self.over.wait().await
    }

    /// Makes what is listed. Returns the routes whose module could not list its paths when it was
    /// asked first: one that never can must not keep the others from being called ready.
    pub(super) async fn make(&self, isr: &Isr, retry: Retry) -> Vec<&Arc<Routed>> {
        let routes = self.release.table.iter().map(|(_, routed)| routed);
        let passes = routes.map(async |routed| {
            routed.tried().await;
            match routed.is_listed() {
                true => {
                    self.make_route(routed, isr, retry).await;
                    None
                }
                false => Some(routed),
            }
        });
        let late: Vec<_> = join_all(passes).await.into_iter().flatten().collect();
        let Count {
            made,
            fresh,
            failed,
            ..
        } = self.count();
        let (release, late_routes) = (self.release.id, late.len());
        let span = self.began.elapsed();
        // A swap that leaves every page as it is says nothing but that.
        if made + failed > 0 || late_routes > 0 {
            let milliseconds = span.as_millis();
            tracing::info!(
                release,
                made,
                fresh,
                failed,
                late_routes,
                milliseconds,
                "prerendered"
            );
        }
        // Nobody else sets it.
        let _ = self.over.set(span);
        late
    }

    /// Makes the pages of routes that could not list them at first, as soon as they can.
    pub(super) async fn make_late(&self, late: Vec<&Arc<Routed>>, isr: &Isr) {
        let passes = late.into_iter().map(async |routed| {
            routed.ready().await;
            self.make_route(routed, isr, Retry::WhenDue).await;
        });
        join_all(passes).await;
    }

    async fn make_route(&self, routed: &Arc<Routed>, isr: &Isr, retry: Retry) {
        let paths = routed.paths();
        self.tally.list(paths.len() as u64);
        // `/posts/[id]` may list `new` while `/posts/new` is a page of its own.
        let owns = |path: &Path| {
            let owner = self.release.table.matches(path).next();
            owner.is_some_and(|owner| Arc::ptr_eq(owner.value, routed))
        };
        let asks = paths.filter_map(|(path, params)| {
            if owns(&path) {
                let page = routed.page.clone();
                return Some(Ask::new(page, path.as_str(), params, Vec::new()));
            }
            self.tally.strike();
            None
        });
        isr.prerender(asks, retry, &self.tally).await;
    }
}
