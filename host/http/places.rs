//! `Places`: how many requests with bodies are in hand at once, how many of them for one route, and how
//! many of one caller.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use parking_lot::Mutex;

use super::address::{Client, Household};

/// Places for requests that are read, wait or are worked on at once, shared out.
pub(super) struct Places {
    all: usize,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    routes: HashMap<Arc<str>, usize>,
    callers: HashMap<Household, usize>,
}

/// A place, until dropped.
pub(super) struct Place {
    places: Arc<Places>,
    route: Arc<str>,
    caller: Option<Household>,
}

impl Places {
    /// So many places.
    pub(super) fn new(all: usize) -> Arc<Self> {
        let taken = Mutex::default();
        Arc::new(Self { all, taken })
    }

    /// A place for a request of `caller` to `route`, while neither has more than its share of what is
    /// free for all. A busy route takes half of the places, two take a third each, and there is
    /// always one for a route that has none. A caller takes a third, so that no bodies that never
    /// come keep others from the route; who is behind an address that everybody may be behind is
    /// not known.
    pub(super) fn take(self: &Arc<Self>, route: Arc<str>, caller: Client) -> Option<Place> {
        let caller = (!caller.is_shared).then_some(caller.household);
        let mut taken = self.taken.lock();
        let free = self.all.saturating_sub(taken.routes.values().sum());
        let of_route = taken.routes.get(&route).copied().unwrap_or(0);
        let of_caller = caller.and_then(|caller| taken.callers.get(&caller).copied());
        if of_route >= free || 2 * of_caller.unwrap_or(0) >= free {
            return None;
        }
        *taken.routes.entry(route.clone()).or_default() += 1;
        if let Some(caller) = caller {
            *taken.callers.entry(caller).or_default() += 1;
        }
        drop(taken);
        Some(Place {
            places: Arc::clone(self),
            route,
            caller,
        })
    }
}

impl Place {
    /// The caller is known to be one who may call: the place no longer counts as theirs.
    pub(super) fn vouch(&mut self) {
        if let Some(caller) = self.caller.take() {
            give_back(&mut self.places.taken.lock().callers, &caller);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.vouch();
        give_back(&mut self.places.taken.lock().routes, &self.route);
    }
}

fn give_back<K: Eq + Hash>(taken: &mut HashMap<K, usize>, key: &K) {
    if let Some(own) = taken.get_mut(key) {
        *own -= 1;
        if *own == 0 {
            taken.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: usize = 256;

    fn client(address: &str) -> Client {
        Client::at(address.parse().unwrap())
    }

    /// As many places as the caller gets for the route.
    fn all_of(places: &Arc<Places>, route: &str, caller: &str) -> Vec<Place> {
        let take = || places.take(route.into(), client(caller));
        std::iter::from_fn(take).collect()
    }

    /// As many places as the route gets.
    fn all(places: &Arc<Places>, route: &str) -> Vec<Place> {
        all_of(places, route, "127.0.0.1")
    }

    #[test]
    fn however_many_one_route_wants_the_next_one_finds_room() {
        let places = Places::new(ALL);
        let slow = all(&places, "/api/slow");
        assert_eq!(slow.len(), ALL / 2);
        let other = all(&places, "/api/other");
        assert_eq!(other.len(), ALL / 4);
        assert_eq!(all(&places, "/api/third").len(), ALL / 8);
        drop(slow);
        assert_eq!(all(&places, "/api/slow").len(), (ALL - other.len()) / 2);
        drop(other);
        assert!(places.taken.lock().routes.is_empty());
    }

    #[test]
    fn there_is_a_place_for_each_of_many_routes() {
        let places = Places::new(ALL);
        let routes: Vec<_> = (0..ALL).map(|number| format!("/api/{number}")).collect();
        let local = client("127.0.0.1");
        let held: Vec<_> = routes
            .iter()
            .filter_map(|route| places.take(route.as_str().into(), local))
            .collect();
        assert_eq!(held.len(), ALL);
        assert!(places.take("/api/more".into(), local).is_none());
    }

    #[test]
    fn however_many_one_caller_wants_the_next_one_finds_room() {
        let places = Places::new(ALL);
        let mut greedy = all_of(&places, "/api/hook", "192.0.2.1");
        assert_eq!(greedy.len(), ALL.div_ceil(3));
        assert!(all_of(&places, "/api/other", "192.0.2.1").is_empty());
        assert!(!all_of(&places, "/api/hook", "192.0.2.2").is_empty());
        // Who may call does not shut itself out.
        greedy.iter_mut().for_each(Place::vouch);
        let more = all_of(&places, "/api/hook", "192.0.2.1");
        assert_eq!(greedy.len() + more.len(), ALL / 2);
        drop((greedy, more));
        let taken = places.taken.lock();
        assert!(taken.routes.is_empty() && taken.callers.is_empty());
    }
}
