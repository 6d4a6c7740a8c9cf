//! `Queue`: how many generations run at once, and who comes next.
//!
//! The most urgent first; of these, whose route has the fewest generations running; of these, who
//! came first. A route whose pages are slow and wanted by many, by mischance or malice, must not
//! keep the others from theirs: so a route that waits long enough gets a place, and when the queue is full,
//! the route that fills it gives way. A page whose readers have all gone is made when one comes back:
//! after an overload there is nothing left of it to work off.

use std::cmp::Reverse;
use std::collections::{HashMap, VecDeque};
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
    /// A reader without a page.
    Reader,
}

/// Who has waited for this long, and whose route has nothing running, waits like a reader: however
/// many readers others have, a route's stale pages are renewed some time.
const AGE: Duration = Duration::from_secs(5);

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
pub(super) struct Queue {
    state: Mutex<State>,
    /// Generations at once.
    places: usize,
    /// Generations that wait.
    length: usize,
    metrics: Arc<Metrics>,
}

#[derive(Default)]
struct State {
    running: usize,
    routes: HashMap<Arc<str>, usize>,
    waiting: VecDeque<Waiter>,
}

struct Waiter {
    ticket: Arc<Ticket>,
    route: Arc<str>,
    route_places: usize,
    since: Instant,
    grant: oneshot::Sender<Slot>,
}

/// The right to run one generation, until dropped.
pub(super) struct Slot {
    queue: Arc<Queue>,
    route: Arc<str>,
}

/// Why there is no slot.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NoSlot {
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
    pub(super) fn new(places: usize, length: usize, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            places,
            length,
            metrics,
        })
    }

    /// Waits for a slot. When the queue is full, the route that waits most gives way to others, and
    /// among equals the least urgent.
    pub(super) async fn enter(
        self: &Arc<Self>,
        ticket: &Arc<Ticket>,
        route: &Arc<str>,
        route_places: usize,
    ) -> Result<Slot, NoSlot> {
        let (grant, granted) = oneshot::channel();
        let waiter = Waiter {
            ticket: ticket.clone(),
            route: route.clone(),
            route_places,
            since: Instant::now(),
            grant,
        };
        self.admit(waiter)?;
        self.grant();
        granted.await.map_err(|_| match ticket.is_left() {
            true => NoSlot::Left,
            false => NoSlot::Full,
        })
    }

    fn admit(&self, waiter: Waiter) -> Result<(), NoSlot> {
        let mut state = self.state.lock();
        if state.waiting.len() >= self.length {
            state.waiting.retain(Waiter::is_there);
        }
        if state.waiting.len() >= self.length.max(1) {
            let position = state.who_yields_to(&waiter).ok_or(NoSlot::Full)?;
            state.waiting.remove(position);
        }
        state.waiting.push_back(waiter);
        Ok(())
    }

    /// Gives free places to the most urgent, first come first.
    fn grant(self: &Arc<Self>) {
        loop {
            let next = {
                let mut state = self.state.lock();
                let next = state.next(self.places, Instant::now());
                self.metrics.generations_running.set(signed(state.running));
                self.metrics
                    .generations_waiting
                    .set(signed(state.waiting.len()));
                next
            };
            let Some(waiter) = next else { return };
            // A waiter who left drops the slot here, outside the lock, which frees it again.
            let _ = waiter.grant.send(Slot {
                queue: self.clone(),
                route: waiter.route,
            });
        }
    }
}

impl State {
    fn next(&mut self, places: usize, now: Instant) -> Option<Waiter> {
        if self.running >= places {
            return None;
        }
        // Were they given the place, each would pass it on from within the other's: a thousand
        // who left at once would take the stack of a thread.
        self.waiting.retain(Waiter::is_there);
        let rank = |waiter: &Waiter| {
            let busy = self.routes.get(&waiter.route).copied().unwrap_or(0);
            (busy < waiter.route_places).then(|| (waiter.urgency(now, busy), Reverse(busy)))
        };
        let mut best = None;
        for (position, waiter) in self.waiting.iter().enumerate() {
            let rank = rank(waiter);
            if rank.is_some() && best.is_none_or(|(_, most)| rank > most) {
                best = Some((position, rank));
            }
        }
        let waiter = self.waiting.remove(best?.0)?;
        self.running += 1;
        *self.routes.entry(waiter.route.clone()).or_default() += 1;
        Some(waiter)
    }

    /// Who of those that wait gives its place up, if anybody: the last of the least urgent of the
    /// route that has most waiting, when the newcomer's has fewer; else that of all, when the
    /// newcomer is more urgent.
    fn who_yields_to(&self, newcomer: &Waiter) -> Option<usize> {
        let mut crowds: HashMap<&str, usize> = HashMap::new();
        for waiter in &self.waiting {
            *crowds.entry(&waiter.route).or_default() += 1;
        }
        let own = crowds.get(&*newcomer.route).copied().unwrap_or(0);
        let crowded = crowds.into_iter().max_by_key(|(_, count)| *count);
        let crowded = crowded.filter(|(_, count)| *count > own + 1);
        let least = |route: Option<&str>| {
            let waiting = self.waiting.iter().enumerate().rev();
            waiting
                .filter(|(_, waiter)| route.is_none_or(|route| *waiter.route == *route))
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
}

impl Waiter {
    fn is_there(&self) -> bool {
        !self.grant.is_closed() && !self.ticket.is_left()
    }

    fn urgency(&self, now: Instant, busy: usize) -> u8 {
        let urgency = self.ticket.urgency();
        let is_old = now.saturating_duration_since(self.since) >= AGE;
        if busy == 0 && is_old {
            Priority::Reader as u8
        } else {
            urgency
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        {
            let mut state = self.queue.state.lock();
            state.running -= 1;
            if let Some(busy) = state.routes.get_mut(&self.route) {
                *busy -= 1;
                if *busy == 0 {
                    state.routes.remove(&self.route);
                }
            }
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
        Queue::new(places, length, Arc::new(Metrics::new()))
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
            .enter(&ticket(Priority::Reader), &route, 9)
            .await
            .unwrap();
        let served = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = Vec::new();
        for (name, ticket) in arrivals {
            let (queue, route, served) = (queue.clone(), route.clone(), served.clone());
            tasks.push(tokio::spawn(async move {
                if let Ok(_slot) = queue.enter(&ticket, &route, 9).await {
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
        let held = queue.enter(&second.0, &route, 9).await.unwrap();
        let waiting = queue.enter(&left, &route, 9);
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
        let first = queue.enter(&reader, &busy, 1).await.unwrap();
        let waiting = tokio::spawn({
            let (queue, reader, busy) = (queue.clone(), reader.clone(), busy.clone());
            async move { queue.enter(&reader, &busy, 1).await.map(drop) }
        });
        tokio::task::yield_now().await;
        let background = ticket(Priority::Background);
        drop(queue.enter(&background, &other, 1).await.unwrap());
        assert!(!waiting.is_finished());
        drop(first);
        waiting.await.unwrap().unwrap();
        assert_eq!(queue.state.lock().running, 0);
        assert!(queue.state.lock().routes.is_empty());
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
            let slot = queue.enter(&ticket(priority), &Arc::from(route), 9).await;
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
        let reader = ticket(Priority::Reader);
        let held = queue.enter(&reader, &crowded, 9).await.unwrap();
        let first = queue.enter(&reader, &crowded, 9).await.unwrap();
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
        let held = queue.enter(&reader, &Arc::from("/"), 9).await.unwrap();
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
        let held = queue.enter(&reader, &Arc::from("/"), 9).await.unwrap();
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
            .enter(&ticket(Priority::Reader), &route, 1)
            .await
            .unwrap();
        let left = tokio::spawn({
            let (queue, route) = (queue.clone(), route.clone());
            async move {
                queue
                    .enter(&ticket(Priority::Reader), &route, 1)
                    .await
                    .map(drop)
            }
        });
        tokio::task::yield_now().await;
        left.abort();
        assert!(left.await.unwrap_err().is_cancelled());
        drop(held);
        queue
            .enter(&ticket(Priority::Background), &route, 1)
            .await
            .unwrap();
    }

    #[tokio::test]
    async fn however_many_have_left_the_next_one_is_served() {
        let queue = queue(1, 100_000);
        let route: Arc<str> = Arc::from("/");
        let first = ticket(Priority::Reader);
        let held = queue.enter(&first, &route, 1).await.unwrap();
        for _ in 0..100_000 {
            let reader = ticket(Priority::Reader);
            assert!(queue.enter(&reader, &route, 1).now_or_never().is_none());
        }
        drop(held);
        let last = ticket(Priority::Background);
        queue.enter(&last, &route, 1).await.unwrap();
    }
}
