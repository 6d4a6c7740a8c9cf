//! `Releases::reconfigure`: the same modules under other rules, without a look at the folder.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::api::ApiRouted;
use super::load::Loader;
use super::releases::{Releases, listed};
use super::routed::{Route, RouteRules, Routed};
use super::trial::Trial;
use crate::guest::{ApiGuest, Guest, Role};
use crate::page::Render;

impl Releases {
    /// Asks `rules` about every route, from this moment on, and swaps in routes of the same
    /// modules if they say anything new. Entries stay as fresh as they are; a generation in
    /// progress ends under the rules that it began with.
    pub async fn reconfigure(&self, rules: RouteRules) {
        let mut state = self.state.lock().await;
        *self.loader.rules.write() = rules;
        // One that serves and may be gone back to as well stays one.
        let mut renewed = BTreeMap::new();
        for route in state.routes_mut() {
            let key = (route.file().clone(), route.digest());
            let new = renewed
                .entry(key)
                .or_insert_with(|| self.loader.renewed(route));
            if let Some(new) = new {
                *route = new.clone();
            }
        }
        listed(renewed.values().flatten()).await;
        // Before the first release there is nothing to renew.
        if self.history().current().is_some() {
            let refused = state.refused.clone();
            self.settle(&mut state, refused).await;
        }
    }
}

impl Loader {
    /// The route under the rules of now; none if these are the ones that it is under.
    pub(super) fn renewed(&self, route: &Route) -> Option<Route> {
        match route {
            Route::Page(routed) => self.renewed_page(routed).map(Route::Page),
            Route::Api(routed) => self.renewed_api(routed).map(Route::Api),
        }
    }

    fn renewed_page(&self, routed: &Routed) -> Option<Arc<Routed>> {
        let config = self.rules(&routed.pattern);
        let Role::Page(exports) = *routed.module.role() else {
            return None;
        };
        if config == routed.config {
            return None;
        }
        let guest = Guest::new(Arc::clone(&routed.module), exports, self.grants(&config));
        let renderer: Arc<dyn Render> = Arc::new(guest);
        // Other rules are no other module: what it has shown so far counts.
        let trial = Trial::after(&routed.trial, renderer);
        let renewed = self.routed(
            &routed.file,
            routed.pattern.clone(),
            Arc::clone(&routed.module),
            config,
            trial,
        );
        renewed.listing.follow(&routed.listing);
        Some(Arc::new(renewed))
    }

    fn renewed_api(&self, routed: &ApiRouted) -> Option<Arc<ApiRouted>> {
        let config = self.rules(&routed.pattern);
        let Role::Api(exports) = *routed.module.role() else {
            return None;
        };
        if config == routed.config {
            return None;
        }
        let module = Arc::clone(&routed.module);
        Some(Arc::new(ApiRouted {
            file: routed.file.clone(),
            guest: ApiGuest::new(Arc::clone(&module), exports, self.grants(&config)),
            module,
            config,
            pattern: routed.pattern.clone(),
            clock: self.clock,
            incidents: Arc::clone(&self.incidents),
        }))
    }
}
