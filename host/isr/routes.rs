//! `Routes`: which routes have pages, and which had theirs forgotten.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::RwLock;

/// What the cache knows of routes.
#[derive(Default)]
pub(super) struct Routes {
    served: ArcSwap<BTreeSet<Arc<str>>>,
    forgotten: RwLock<Forgotten>,
}

/// When pages were forgotten, by a count of its own. It grows with the names of routes that come
/// and go, not with how often they do.
#[derive(Default)]
struct Forgotten {
    latest: u64,
    routes: HashMap<Arc<str>, u64>,
}

impl Routes {
    pub(super) fn serve(&self, routes: BTreeSet<Arc<str>>) {
        self.served.store(Arc::new(routes));
    }

    /// Whether the route has pages.
    pub(super) fn has(&self, route: &str) -> bool {
        self.served.load().contains(route)
    }

    /// How often pages were forgotten so far. Read it before a generation begins.
    pub(super) fn forgotten(&self) -> u64 {
        self.forgotten.read().latest
    }

    /// Forgets what generations that are under way will make of these routes. What they have
    /// stored is all there is when this returns.
    pub(super) fn forget(&self, routes: &BTreeSet<Arc<str>>) {
        let mut forgotten = self.forgotten.write();
        forgotten.latest += 1;
        let latest = forgotten.latest;
        let forget = routes.iter().map(|route| (route.clone(), latest));
        forgotten.routes.extend(forget);
    }

    /// Stores what a generation made, unless its route was forgotten after `began`.
    pub(super) fn unless_forgotten(&self, route: &str, began: u64, store: impl FnOnce()) {
        let forgotten = self.forgotten.read();
        if forgotten.routes.get(route).is_none_or(|at| *at <= began) {
            store();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(routes: &[&str]) -> BTreeSet<Arc<str>> {
        routes.iter().map(|route| Arc::from(*route)).collect()
    }

    fn stores(routes: &Routes, route: &str, began: u64) -> bool {
        let mut stored = false;
        routes.unless_forgotten(route, began, || stored = true);
        stored
    }

    #[test]
    fn what_began_before_its_route_was_forgotten_is_not_stored() {
        let routes = Routes::default();
        let before = routes.forgotten();
        assert!(stores(&routes, "/a", before));
        routes.forget(&set(&["/a"]));
        assert!(!stores(&routes, "/a", before) && stores(&routes, "/b", before));
        let after = routes.forgotten();
        routes.forget(&set(&["/b"]));
        assert!(stores(&routes, "/a", after) && !stores(&routes, "/b", after));
    }
}
