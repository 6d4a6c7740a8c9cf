//! `Places`: how many requests to API routes are in hand at once, and how many of one route.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

/// Requests that are read, wait for an instance or run at once, so that their bodies have a bound.
const ALL: usize = 256;

/// The places, shared out.
#[derive(Default)]
pub(super) struct Places {
    taken: Mutex<HashMap<Arc<str>, usize>>,
}

/// A place, until dropped.
pub(super) struct Place {
    places: Arc<Places>,
    route: Arc<str>,
}

impl Places {
    /// A place for a request to `route`, while that has no more than are free for all: one busy route
    /// takes half of them, two take a third each, and there is always one for a route that has none.
    pub(super) fn take(self: &Arc<Self>, route: Arc<str>) -> Option<Place> {
        let mut taken = self.taken.lock();
        let free = ALL.saturating_sub(taken.values().sum());
        if taken.get(&route).copied().unwrap_or(0) >= free {
            return None;
        }
        *taken.entry(route.clone()).or_default() += 1;
        drop(taken);
        let places = Arc::clone(self);
        Some(Place { places, route })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken.lock();
        if let Some(own) = taken.get_mut(&self.route) {
            *own -= 1;
            if *own == 0 {
                taken.remove(&self.route);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As many places as the route gets.
    fn all(places: &Arc<Places>, route: &str) -> Vec<Place> {
        std::iter::from_fn(|| places.take(route.into())).collect()
    }

    #[test]
    fn however_many_one_route_wants_the_next_one_finds_room() {
        let places = Arc::default();
        let slow = all(&places, "/api/slow");
        assert_eq!(slow.len(), ALL / 2);
        let other = all(&places, "/api/other");
        assert_eq!(other.len(), ALL / 4);
        assert!(places.take("/api/third".into()).is_some());
        drop(slow);
        assert_eq!(all(&places, "/api/slow").len(), (ALL - other.len()) / 2);
        drop(other);
        assert!(places.taken.lock().is_empty());
    }

    #[test]
    fn there_is_a_place_for_each_of_many_routes() {
        let places = Arc::new(Places::default());
        let routes: Vec<_> = (0..ALL).map(|number| format!("/api/{number}")).collect();
        let held: Vec<_> = routes
            .iter()
            .filter_map(|route| places.take(route.as_str().into()))
            .collect();
        assert_eq!(held.len(), ALL);
        assert!(places.take("/api/more".into()).is_none());
    }
}
