//! `Routes`: which routes have pages, and which had theirs forgotten.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::RwLock;

use crate::page::Digest;

/// What the cache knows of routes.
#[derive(Default)]
pub(super) struct Routes {
    served: ArcSwap<BTreeSet<Arc<str>>>,
    /// Modules that a rollback took back, by route.
    withdrawn: ArcSwap<BTreeMap<Arc<str>, Vec<Digest>>>,
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

    pub(super) fn withdraw(&self, modules: BTreeMap<Arc<str>, Vec<Digest>>) {
        self.withdrawn.store(Arc::new(modules));
    }

    /// Whether what the module made of the route's pages is not to be shown.
    pub(super) fn is_withdrawn(&self, route: &str, module: Digest) -> bool {
        let withdrawn = self.withdrawn.load();
        let modules = withdrawn.get(route);
        modules.is_some_and(|modules| modules.contains(&module))
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

    /// Stores what a generation made, unless its route was forgotten after `began`, or a rollback
    /// has taken its module back meanwhile: what there was before is better.
    pub(super) fn unless_forgotten(
        &self,
        (route, module): (&str, Digest),
        began: u64,
        store: impl FnOnce(),
    ) {
        let forgotten = self.forgotten.read();
        let is_kept = forgotten.routes.get(route).is_none_or(|at| *at <= began);
        if is_kept && !self.is_withdrawn(route, module) {
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
        let module = Digest::of(b"module");
        routes.unless_forgotten((route, module), began, || stored = true);
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

    #[test]
    fn what_a_module_makes_that_was_taken_back_is_not_stored() {
        let (routes, module) = (Routes::default(), Digest::of(b"module"));
        routes.withdraw([(Arc::from("/a"), vec![module])].into());
        let now = routes.forgotten();
        assert!(!stores(&routes, "/a", now) && stores(&routes, "/b", now));
        routes.withdraw(BTreeMap::new());
        assert!(stores(&routes, "/a", now));
    }
}
