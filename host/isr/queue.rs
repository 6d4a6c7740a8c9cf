//! `Queue`: how many generations run at once, and who comes next.
//!
//! The most urgent first; of these, whose route has the fewest generations running; of these, whose
//! route took the least time of the places lately; then whose has the fewest waiting; then who came
//! first. A route whose pages are slow and wanted by many, by mischance or malice, must not
//! keep the others from theirs: so no route takes the last place, unless the configuration names it
//! that many, nor does any work that no reader waits for; a place that is given back goes to a route
//! that has none; and when the queue is full, the route that fills it gives way. A page whose readers have all
//! gone is made when one comes back: after an overload there is nothing left of it to work off.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::telemetry::metrics::Metrics;

/// Who waits for a generation; a later variant comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Priority {
    /// Nobody any more: the readers who wanted the page have gone.
    Left,
    /// Nobody: a stale page is renewed, a listed one made ahead.
    Background,
    /// A caller of the revalidate endpoint.
    OnDemand,
    /// An editor.
    Draft,
    /// A reader without a page.
    Reader,
}

/// How many priorities there are.
const PRIORITIES: usize = Priority::Reader as usize + 1;

/// Who has waited for this long, and whose route has nothing running, waits like a reader: however
/// many readers others have, a route's stale pages are renewed some time.
const AGE: Duration = Duration::from_secs(5);

/// After this long, half of the time that a route took counts no more. A few of the longest
/// generations that the defaults allow: a route with slow pages comes after the others until it
/// has let them go first for about as long.
const HALF_LIFE: Duration = Duration::from_secs(30);

/// Differences between what routes took that are due to chance: below, who came first is first.
const CHANCE: Duration = Duration::from_millis(100);

/// One place of so many is kept for other routes than the one that has all others.
const KEPT: usize = 8;

/// Drafts that wait for their turn: an editor's office, but not a script that keeps reloading.
const DRAFTS: usize = 32;

/// How many of the places a route has, and whatever no reader waits for: all but an eighth, and
/// but one at least. Of a single place everybody has all.
pub fn share(places: usize) -> usize {
    (places - places.div_ceil(KEPT).min(places)).max(1)
}

/// A place in the queue whose priority may rise while it waits, and falls when the readers who
/// waited for it have gone.
#[derive(Debug)]
pub(super) struct Ticket {
    /// What it is without readers.
    lasting: AtomicU8,
    readers: AtomicUsize,
}

/// A reader who waits for what a ticket is for, until dropped.
#[derive(Debug)]
pub(super) struct Reading(Arc<Ticket>);

/// The queue.
pub struct Queue {
    state: Mutex<State>,
    /// Generations at once.
    places: usize,
    /// Generations that wait.
    length: usize,
    /// Where it is told how long the queue is.
    metrics: Option<Arc<Metrics>>,
}

#[derive(Default)]
struct State {
    running: usize,
    /// Of `running`, by what they were when they began.
    priorities: [usize; PRIORITIES],
    /// Grows with the names of routes that come and go, not with how often they do.
    routes: Vec<Share>,
    names: HashMap<Arc<str>, usize>,
    waiting: VecDeque<Waiter>,
}

/// What a route has of the places.
#[derive(Debug)]
struct Share {
    /// How many it may have.
    places: usize,
    running: usize,
    waiting: usize,
    /// The time that its generations took, of which less and less counts.
    took: Duration,
    /// When `took` was what it says.
    at: Instant,
}

struct Waiter {
    ticket: Arc<Ticket>,
    /// Which of the routes.
    route: usize,
    since: Instant,
    grant: oneshot::Sender<Slot>,
}

/// The right to run one generation, until dropped.
pub struct Slot {
    queue: Arc<Queue>,
    route: usize,
    priority: u8,
    since: Instant,
}

/// Why there is no slot.
#[derive(Debug, PartialEq, Eq)]
pub enum NoSlot {
    /// There is no room, not even to wait.
    Full,
    /// Nobody waits for it any more.
    Left,
}

// === impl Ticket ===

impl Ticket {
    pub(super) fn new(priority: Priority) -> Self {
        Self {
            lasting: AtomicU8::new(priority as u8),
            readers: AtomicUsize::new(0),
        }
    }

    pub(super) fn raise(&self, priority: Priority) {
        self.lasting.fetch_max(priority as u8, Ordering::Relaxed);
    }

    /// Raises it to a reader's for as long as the reader waits.
    pub(super) fn read(self: &Arc<Self>) -> Reading {
        self.readers.fetch_add(1, Ordering::Relaxed);
        Reading(self.clone())
    }

    fn urgency(&self) -> u8 {
        match self.readers.load(Ordering::Relaxed) {
            0 => self.lasting.load(Ordering::Relaxed),
            _ => Priority::Reader as u8,
        }
    }

    /// Whether nobody wants what it is for.
    pub(super) fn is_left(&self) -> bool {
        self.urgency() == Priority::Left as u8
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.0.readers.fetch_sub(1, Ordering::Relaxed);
    }
}

// === impl Queue ===

impl Queue {
    /// So many `places`, and `length` for those who wait.
    pub fn new(places: usize, length: usize, metrics: Option<Arc<Metrics>>) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            places,
            length,
            metrics,
        })
    }

    /// How many places each of these routes may have from now on, those who wait included. A route
    /// that is not named has its [`share`].
    pub fn share_out(self: &Arc<Self>, routes: &BTreeMap<Arc<str>, usize>) {
        let now = Instant::now();
        {
            let (mut state, places) = (self.state.lock(), share(self.places));
            for share in &mut state.routes {
                share.places = places;
            }
            for (route, places) in routes {
                let route = state.route(route, self.places, now);
                state.routes[route].places = (*places).max(1);
            }
        }
        self.grant();
    }

    /// Waits for a slot for somebody without an answer.
    ///
    /// # Errors
    /// [`NoSlot::Full`].
    pub async fn turn(self: &Arc<Self>, route: &Arc<str>) -> Result<Slot, NoSlot> {
        let ticket = Arc::new(Ticket::new(Priority::Reader));
        self.enter(&ticket, route).await
    }

    /// Waits for a slot. When the queue is full, the route that waits most gives way to others, and
    /// among equals the least urgent.
    pub(super) async fn enter(
        self: &Arc<Self>,
        ticket: &Arc<Ticket>,
        route: &Arc<str>,
    ) -> Result<Slot, NoSlot> {
        let granted = self.admit(ticket, route)?;
        self.grant();
        granted.await.map_err(|_| match ticket.is_left() {
            true => NoSlot::Left,
            false => NoSlot::Full,
        })
    }

    fn admit(
        &self,
        ticket: &Arc<Ticket>,
        route: &Arc<str>,
    ) -> Result<oneshot::Receiver<Slot>, NoSlot> {
        let mut state = self.state.lock();
        let (grant, granted) = oneshot::channel();
        let since = Instant::now();
        let waiter = Waiter {
            ticket: ticket.clone(),
            route: state.route(route, self.places, since),
            since,
            grant,
        };
        let is_draft = |waiter: &Waiter| waiter.ticket.urgency() == Priority::Draft as u8;
        if state.waiting.len() >= self.length.min(DRAFTS) {
            state.clear();
        }
        let of_all = state.waiting.len() >= self.length.max(1);
        let drafts = state.waiting.iter().filter(|other| is_draft(other)).count();
        let of_drafts = is_draft(&waiter) && drafts >= DRAFTS;
        if of_all || of_drafts {
            let among = |other: &Waiter| !of_drafts || is_draft(other);
            let position = state.who_yields_to(&waiter, among).ok_or(NoSlot::Full)?;
            state.take(position);
        }
        state.routes[waiter.route].waiting += 1;
        state.waiting.push_back(waiter);
        Ok(granted)
    }

    /// Gives free places to the most urgent, first come first.
    fn grant(self: &Arc<Self>) {
        loop {
            let now = Instant::now();
            let next = {
                let mut state = self.state.lock();
                let next = state.next(self.places, now);
                if let Some(metrics) = &self.metrics {
                    metrics.generations_running.set(signed(state.running));
                    metrics.generations_waiting.set(signed(state.waiting.len()));
                }
                next
            };
            let Some((waiter, priority)) = next else {
                return;
            };
            // A waiter who left drops the slot here, outside the lock, which frees it again.
            let _ = waiter.grant.send(Slot {
                queue: self.clone(),
                route: waiter.route,
                priority,
                since: now,
            });
        }
    }
}

impl State {
    /// The route of this name.
    fn route(&mut self, name: &Arc<str>, places: usize, now: Instant) -> usize {
        if let Some(route) = self.names.get(name) {
            return *route;
        }
        let route = self.routes.len();
        self.names.insert(name.clone(), route);
        self.routes.push(Share {
            places: share(places),
            running: 0,
            waiting: 0,
            took: Duration::ZERO,
            at: now,
        });
        route
    }

    fn next(&mut self, places: usize, now: Instant) -> Option<(Waiter, u8)> {
        if self.running >= places {
            return None;
        }
        // Were they given the place, each would pass it on from within the other's: a thousand
        // who left at once would take the stack of a thread.
        self.clear();
        let rank = |waiter: &Waiter| {
            let (share, priority) = (&self.routes[waiter.route], waiter.ticket.urgency());
            let may = share.running < share.places
                && self.priorities[usize::from(priority)] < of_priority(priority, places);
            may.then(|| {
                let took = share.took(now).as_millis() / CHANCE.as_millis();
                let crowd = (
                    Reverse(share.running),
                    Reverse(took),
                    Reverse(share.waiting),
                );
                (waiter.urgency(now, share.running), crowd)
            })
        };
        let mut best = None;
        for (position, waiter) in self.waiting.iter().enumerate() {
            let rank = rank(waiter);
            if rank.is_some() && best.is_none_or(|(_, most)| rank > most) {
                best = Some((position, rank));
            }
        }
        let waiter = self.take(best?.0)?;
        let priority = waiter.ticket.urgency();
        self.running += 1;
        self.priorities[usize::from(priority)] += 1;
        self.routes[waiter.route].running += 1;
        Some((waiter, priority))
    }

    /// Who of those that wait `among` others gives its place up, if anybody: the last of the least
    /// urgent of the route that has most waiting, when the newcomer's has fewer; else that of all,
    /// when the newcomer is more urgent.
    fn who_yields_to(&self, newcomer: &Waiter, among: impl Fn(&Waiter) -> bool) -> Option<usize> {
        let mut crowds: HashMap<usize, usize> = HashMap::new();
        for waiter in self.waiting.iter().filter(|waiter| among(waiter)) {
            *crowds.entry(waiter.route).or_default() += 1;
        }
        let own = crowds.get(&newcomer.route).copied().unwrap_or(0);
        let crowded = crowds.into_iter().max_by_key(|(_, count)| *count);
        let crowded = crowded.filter(|(_, count)| *count > own + 1);
        let least = |route: Option<usize>| {
            let waiting = self.waiting.iter().enumerate().rev();
            waiting
                .filter(|(_, waiter)| among(waiter))
                .filter(|(_, waiter)| route.is_none_or(|route| waiter.route == route))
                .min_by_key(|(_, waiter)| waiter.ticket.urgency())
        };
        match crowded {
            Some((route, _)) => least(Some(route)),
            // The last of the least urgent: those who came first are served first.
            None => least(None)
                .filter(|(_, waiter)| waiter.ticket.urgency() < newcomer.ticket.urgency()),
        }
        .map(|(position, _)| position)
    }

    /// Drops those who are not there any more.
    fn clear(&mut self) {
        let routes = &mut self.routes;
        self.waiting.retain(|waiter| {
            let is_there = waiter.is_there();
            routes[waiter.route].waiting -= usize::from(!is_there);
            is_there
        });
    }

    /// Takes a waiter out of the queue.
    fn take(&mut self, position: usize) -> Option<Waiter> {
        let waiter = self.waiting.remove(position)?;
        self.routes[waiter.route].waiting -= 1;
        Some(waiter)
    }
}

impl Share {
    /// The time that its generations took of late.
    fn took(&self, now: Instant) -> Duration {
        if self.took.is_zero() {
            return self.took;
        }
        let past = now.saturating_duration_since(self.at);
        let halvings = past.as_secs_f64() / HALF_LIFE.as_secs_f64();
        self.took.mul_f64((-halvings).exp2())
    }

    /// Counts a generation that is over.
    fn count(&mut self, took: Duration, now: Instant) {
        self.took = self.took(now) + took;
        self.at = now;
        self.running -= 1;
    }
}

/// How many of the places those of one priority have.
fn of_priority(priority: u8, places: usize) -> usize {
    match priority {
        priority if priority == Priority::Reader as u8 => places,
        // Editors who reload and reload leave readers the others.
        priority if priority == Priority::Draft as u8 => (places / 4).max(1),
        _ => share(places),
    }
}

impl Waiter {
    fn is_there(&self) -> bool {
        !self.grant.is_closed() && !self.ticket.is_left()
    }

    fn urgency(&self, now: Instant, running: usize) -> u8 {
        let urgency = self.ticket.urgency();
        let is_old = now.saturating_duration_since(self.since) >= AGE;
        if running == 0 && is_old {
            Priority::Reader as u8
        } else {
            urgency
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        {
            let now = Instant::now();
            let mut state = self.queue.state.lock();
            state.running -= 1;
            state.priorities[usize::from(self.priority)] -= 1;
            let took = now.saturating_duration_since(self.since);
            state.routes[self.route].count(took, now);
        }
        self.queue.grant();
    }
}

fn signed(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn queue(places: usize, length: usize) -> Arc<Queue> {
        Queue::new(places, length, None)
    }

    fn ticket(priority: Priority) -> Arc<Ticket> {
        Arc::new(Ticket::new(priority))
    }

    /// Queues one after the other, then frees the only place and returns the order of service.
    async fn order(
        queue: &Arc<Queue>,
        arrivals: Vec<(&'static str, Arc<Ticket>)>,
    ) -> Vec<&'static str> {
        let route: Arc<str> = Arc::from("/");
        let held = queue
            .enter(&ticket(Priority::Reader), &route)
            .await
            .unwrap();
        let served = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = Vec::new();
        for (name, ticket) in arrivals {
            let (queue, route, served) = (queue.clone(), route.clone(), served.clone());
            tasks.push(tokio::spawn(async move {
                if let Ok(_slot) = queue.enter(&ticket, &route).await {
                    served.lock().push(name);
                }
            }));
            tokio::task::yield_now().await;
        }
        drop(held);
        for task in tasks {
            task.await.unwrap();
        }
        let served = served.lock();
        served.clone()
    }

    #[tokio::test]
    async fn readers_come_first_then_on_demand_then_background() {
        let arrivals = vec![
            ("background", ticket(Priority::Background)),
            ("on-demand", ticket(Priority::OnDemand)),
            ("reader", ticket(Priority::Reader)),
            ("reader 2", ticket(Priority::Reader)),
        ];
        let served = order(&queue(1, 10), arrivals).await;
        assert_eq!(served, ["reader", "reader 2", "on-demand", "background"]);
    }

    #[tokio::test]
    async fn a_page_that_nobody_waits_for_any_more_is_not_made() {
        let [left, read] = [ticket(Priority::Left), ticket(Priority::Left)];
        drop(left.read());
        let (first, second) = (read.read(), read.read());
        drop(first);
        let stale = ticket(Priority::Background);
        let arrivals = vec![("left", left.clone()), ("stale", stale), ("read", read)];
        let queue = queue(1, 10);
        assert_eq!(order(&queue, arrivals).await, ["read", "stale"]);
        let route = Arc::from("/");
        let held = queue.enter(&second.0, &route).await.unwrap();
        let waiting = queue.enter(&left, &route);
        let (told, ()) = tokio::join!(waiting, async { drop(held) });
        assert_eq!(told.err(), Some(NoSlot::Left));
        drop(second);
    }

    #[tokio::test]
    async fn a_full_queue_drops_the_least_urgent() {
        let arrivals = vec![
            ("background", ticket(Priority::Background)),
            ("reader", ticket(Priority::Reader)),
            ("reader 2", ticket(Priority::Reader)),
            ("reader 3", ticket(Priority::Reader)),
        ];
        assert_eq!(order(&queue(1, 2), arrivals).await, ["reader", "reader 2"]);
    }

    #[tokio::test]
    async fn a_busy_route_leaves_places_for_others() {
        let queue = queue(2, 10);
        let (busy, other): (Arc<str>, Arc<str>) = (Arc::from("/busy"), Arc::from("/other"));
        let reader = ticket(Priority::Reader);
        let first = queue.enter(&reader, &busy).await.unwrap();
        let waiting = tokio::spawn({
            let (queue, reader, busy) = (queue.clone(), reader.clone(), busy.clone());
            async move { queue.enter(&reader, &busy).await.map(drop) }
        });
        tokio::task::yield_now().await;
        let background = ticket(Priority::Background);
        drop(queue.enter(&background, &other).await.unwrap());
        assert!(!waiting.is_finished());
        drop(first);
        waiting.await.unwrap().unwrap();
        assert_eq!(queue.state.lock().running, 0);
        assert!(
            queue
                .state
                .lock()
                .routes
                .iter()
                .all(|share| share.running == 0)
        );
    }

    /// Who asks for a place on `route`, from a task of its own; its name is `served` when it has one.
    async fn ask(
        queue: &Arc<Queue>,
        served: &Arc<Mutex<Vec<String>>>,
        route: &'static str,
        priority: Priority,
    ) -> tokio::task::JoinHandle<bool> {
        let (queue, served) = (queue.clone(), served.clone());
        let asked = tokio::spawn(async move {
            let slot = queue.enter(&ticket(priority), &Arc::from(route)).await;
            if slot.is_ok() {
                served.lock().push(format!("{route} {priority:?}"));
            }
            slot.is_ok()
        });
        tokio::task::yield_now().await;
        asked
    }

    #[tokio::test]
    async fn a_crowded_route_shares_with_others() {
        let (queue, served) = (queue(2, 10), Arc::default());
        let crowded: Arc<str> = Arc::from("/crowded");
        queue.share_out(&[(crowded.clone(), 2)].into());
        let reader = ticket(Priority::Reader);
        let held = queue.enter(&reader, &crowded).await.unwrap();
        let first = queue.enter(&reader, &crowded).await.unwrap();
        let mut asked = Vec::new();
        for route in ["/crowded", "/crowded", "/other"] {
            asked.push(ask(&queue, &served, route, Priority::Reader).await);
        }
        drop(first);
        for asked in asked {
            assert!(asked.await.unwrap());
        }
        assert_eq!(served.lock()[0], "/other Reader");
        drop(held);
    }

    #[tokio::test]
    async fn a_route_that_fills_the_queue_gives_way() {
        let (queue, served) = (queue(1, 4), Arc::default());
        let reader = ticket(Priority::Reader);
        let held = queue.enter(&reader, &Arc::from("/")).await.unwrap();
        let mut crowd = Vec::new();
        for _ in 0..4 {
            crowd.push(ask(&queue, &served, "/crowded", Priority::Reader).await);
        }
        let others = [
            ask(&queue, &served, "/other", Priority::Background).await,
            ask(&queue, &served, "/other", Priority::Reader).await,
        ];
        // It has as many as the others by now: the others' least urgent gives way to a reader.
        let last = ask(&queue, &served, "/crowded", Priority::Reader).await;
        drop(held);
        let mut kept = Vec::new();
        for asked in crowd.into_iter().chain(others).chain([last]) {
            kept.push(asked.await.unwrap());
        }
        assert_eq!(kept, [true, true, false, false, false, true, true]);
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_long_waits_like_a_reader() {
        let (queue, served) = (queue(1, 10), Arc::default());
        let reader = ticket(Priority::Reader);
        let held = queue.enter(&reader, &Arc::from("/")).await.unwrap();
        let stale = ask(&queue, &served, "/a", Priority::Background).await;
        tokio::time::advance(AGE).await;
        let crowd = [
            ask(&queue, &served, "/a", Priority::Background).await,
            ask(&queue, &served, "/a", Priority::Reader).await,
        ];
        drop(held);
        for asked in crowd.into_iter().chain([stale]) {
            assert!(asked.await.unwrap());
        }
        assert_eq!(
            *served.lock(),
            ["/a Background", "/a Reader", "/a Background"]
        );
    }

    #[tokio::test]
    async fn those_who_leave_hold_no_place() {
        let queue = queue(1, 10);
        let route: Arc<str> = Arc::from("/");
        let held = queue
            .enter(&ticket(Priority::Reader), &route)
            .await
            .unwrap();
        let left = tokio::spawn({
            let (queue, route) = (queue.clone(), route.clone());
            async move {
                queue
                    .enter(&ticket(Priority::Reader), &route)
                    .await
                    .map(drop)
            }
        });
        tokio::task::yield_now().await;
        left.abort();
        assert!(left.await.unwrap_err().is_cancelled());
        drop(held);
        queue
            .enter(&ticket(Priority::Background), &route)
            .await
            .unwrap();
    }

    #[tokio::test]
    async fn however_many_have_left_the_next_one_is_served() {
        let queue = queue(1, 100_000);
        let route: Arc<str> = Arc::from("/");
        let first = ticket(Priority::Reader);
        let held = queue.enter(&first, &route).await.unwrap();
        for _ in 0..100_000 {
            let reader = ticket(Priority::Reader);
            assert!(queue.enter(&reader, &route).now_or_never().is_none());
        }
        drop(held);
        let last = ticket(Priority::Background);
        queue.enter(&last, &route).await.unwrap();
    }

    /// Keeps a place, until dropped.
    async fn hold(queue: &Arc<Queue>, route: &str) -> Slot {
        queue.turn(&Arc::from(route)).await.unwrap()
    }

    /// Whether somebody who asks now has a place at once.
    fn has_room(queue: &Arc<Queue>, route: &str, priority: Priority) -> bool {
        let (ticket, route) = (ticket(priority), Arc::from(route));
        let entered = queue.enter(&ticket, &route);
        entered.now_or_never().is_some_and(|slot| slot.is_ok())
    }

    #[test]
    fn a_share_is_all_but_an_eighth() {
        let shares = [1, 2, 3, 4, 8, 9, 16, 64].map(share);
        assert_eq!(shares, [1, 1, 2, 3, 7, 7, 14, 56]);
    }

    #[tokio::test]
    async fn however_much_one_route_asks_another_has_a_place_at_once() {
        for places in [2, 3, 4, 8, 40] {
            let queue = queue(places, 100);
            let mut held = Vec::new();
            while has_room(&queue, "/slow", Priority::Reader) {
                held.push(hold(&queue, "/slow").await);
            }
            assert_eq!(held.len(), share(places));
            for priority in [Priority::Background, Priority::OnDemand, Priority::Draft] {
                assert!(
                    has_room(&queue, "/other", priority),
                    "{places} {priority:?}"
                );
            }
            assert!(has_room(&queue, "/other", Priority::Reader), "{places}");
        }
    }

    #[tokio::test]
    async fn what_no_reader_waits_for_leaves_places_to_readers() {
        for (priority, most) in [
            (Priority::Background, 7),
            (Priority::OnDemand, 7),
            (Priority::Draft, 2),
        ] {
            let queue = queue(8, 100);
            let mut held = Vec::new();
            for route in 0..20 {
                let ticket = ticket(priority);
                let route = Arc::from(format!("/{route}"));
                let entered = queue.enter(&ticket, &route).now_or_never();
                held.extend(entered.map(Result::unwrap));
            }
            assert_eq!(held.len(), most, "{priority:?}");
            assert!(has_room(&queue, "/other", Priority::Reader), "{priority:?}");
        }
    }

    /// Ten routes with slow pages and a crowd before each: who comes last, for another route, has
    /// the next place that is given back, each time.
    #[tokio::test(start_paused = true)]
    async fn a_group_of_slow_routes_leaves_others_the_next_place() {
        for places in [1, 2, 4, 16] {
            let (queue, served) = (queue(places, 1_000), Arc::default());
            let (began, mut slow) = tokio::sync::mpsc::unbounded_channel();
            for number in 0..300 {
                let (queue, began) = (queue.clone(), began.clone());
                let route = Arc::from(format!("/slow/{}", number % 10));
                tokio::spawn(async move { drop(began.send(queue.turn(&route).await)) });
            }
            for (round, name) in ["/a", "/b", "/a", "/b"].into_iter().enumerate() {
                let newcomer = ask(&queue, &served, name, Priority::Reader).await;
                while queue.state.lock().waiting.len() < 300 - round - places + 1 {
                    tokio::task::yield_now().await;
                }
                tokio::time::advance(Duration::from_secs(5)).await;
                assert!(!newcomer.is_finished(), "{places}");
                // The one that began first; another one begins when the newcomer's is over.
                drop(slow.recv().await);
                assert!(newcomer.await.unwrap(), "{places}");
                assert_eq!(queue.state.lock().running, places);
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_route_took_is_forgotten_in_time() {
        let queue = queue(1, 10);
        let slow = hold(&queue, "/slow").await;
        tokio::time::advance(Duration::from_secs(10)).await;
        drop(slow);
        let took = || queue.state.lock().routes[0].took(Instant::now());
        assert_eq!(took(), Duration::from_secs(10));
        tokio::time::advance(HALF_LIFE).await;
        assert_eq!(took(), Duration::from_secs(5));
        tokio::time::advance(10 * HALF_LIFE).await;
        assert!(took() < CHANCE);
    }

    #[tokio::test]
    async fn who_waits_has_the_places_that_are_granted_meanwhile() {
        let (queue, served) = (queue(4, 10), Arc::default());
        let (route, other): (Arc<str>, Arc<str>) = (Arc::from("/a"), Arc::from("/b"));
        queue.share_out(&[(route.clone(), 1)].into());
        let held = hold(&queue, "/a").await;
        let mut asked = Vec::new();
        for _ in 0..3 {
            asked.push(ask(&queue, &served, "/a", Priority::Reader).await);
        }
        assert!(served.lock().is_empty());
        queue.share_out(&[(route.clone(), 4), (other, 1)].into());
        for asked in asked {
            assert!(asked.await.unwrap());
        }
        // Narrowed, it has no further one until those that run are over.
        let second = hold(&queue, "/a").await;
        queue.share_out(&[(route.clone(), 1)].into());
        let waits = ask(&queue, &served, "/a", Priority::Reader).await;
        drop(second);
        tokio::task::yield_now().await;
        assert!(!waits.is_finished());
        drop(held);
        assert!(waits.await.unwrap());
        // A route that is not named any more has its share.
        queue.share_out(&BTreeMap::new());
        assert_eq!(queue.state.lock().routes[0].places, share(4));
    }
}
