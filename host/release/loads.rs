//! `Loads`: the modules that are on their way, beside the passes, until a release takes them up.
//!
//! A module may compile for minutes. It must keep neither the others from their readers nor a pass
//! from seeing what else happens to the folder; and yet what was done together should be one release.
//! So who is ready waits a moment for the others, and no longer; so does the end of a file.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::folder::Mark;
use super::load::{Loaded, Retry};
use super::releases::{LOADS, listed};
use crate::route::{Pattern, Table};

/// How long a module that is ready waits for those that are not. It doubles with each release that
/// was made since it was begun: a folder of a thousand modules makes few releases, and what comes
/// while an older change is still loading waits no longer than if it had come alone.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// However many were made, nobody waits longer than this.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// The modules that are on their way. Dropping it ends their loading.
pub(super) struct Loads {
    shared: Arc<Shared>,
    places: Arc<Semaphore>,
}

#[derive(Default)]
struct Shared {
    batch: Mutex<Batch>,
    changed: Notify,
}

/// From the first module that is begun until there is none.
#[derive(Default)]
struct Batch {
    loads: BTreeMap<PathBuf, Load>,
    /// How often some were taken while others were still running.
    taken: u32,
}

struct Load {
    order: Order,
    /// [`Batch::taken`] when it was begun.
    begun: u32,
    stage: Stage,
}

enum Stage {
    Running(AbortHandle),
    Ready(Instant, Loaded),
}

/// What happened to a file.
pub(super) struct Order {
    pub(super) file: PathBuf,
    pub(super) pattern: Pattern,
    /// The version to load; none if it is gone.
    pub(super) mark: Option<Mark>,
    /// Its file has its place in the table: it gives way to nobody.
    pub(super) seated: bool,
    /// The next release cannot do without it: without the module that served, the route would be
    /// gone and its pages with it.
    pub(super) owed: bool,
}

impl Loads {
    pub(super) fn new() -> Self {
        Self {
            shared: Arc::default(),
            places: Arc::new(Semaphore::new(LOADS)),
        }
    }

    /// Has a file loaded, unless this very version of it is on its way.
    pub(super) fn begin<F>(&self, order: Order, load: impl FnOnce() -> F)
    where
        F: Future<Output = Loaded> + Send + 'static,
    {
        let (file, mark) = (order.file.clone(), order.mark);
        // Held until the load is noted: it may land before `spawn` returns.
        let mut batch = self.shared.batch.lock();
        if batch.has(&file, mark) {
            return;
        }
        let (shared, places) = (Arc::clone(&self.shared), Arc::clone(&self.places));
        let (load, landing) = (load(), (file.clone(), mark));
        let task = tokio::spawn(async move {
            let place = places.acquire_owned().await;
            // A bug of wisr costs this version of the file.
            let loaded = AssertUnwindSafe(load).catch_unwind().await;
            let loaded = loaded.unwrap_or_else(|_| Loaded::Refused {
                message: "wisr panicked: please report it, with what stderr says".to_owned(),
                retry: Retry::Later,
            });
            drop(place);
            if let Loaded::New(route) = &loaded {
                listed([route].into_iter()).await;
            }
            shared.land(&landing, loaded);
        });
        batch.put(order, Stage::Running(task.abort_handle()));
    }

    /// Has a file's end come with the next release.
    pub(super) fn end_of(&self, file: PathBuf, pattern: Pattern) {
        let mut batch = self.shared.batch.lock();
        if batch.has(&file, None) {
            return;
        }
        let order = Order {
            file,
            pattern,
            mark: None,
            seated: true,
            owed: false,
        };
        batch.put(order, Stage::Ready(Instant::now(), Loaded::Gone));
    }

    /// Gives up those that are not wanted any more.
    pub(super) fn keep(&self, is_wanted: impl Fn(&Path, Option<Mark>) -> bool) {
        let mut batch = self.shared.batch.lock();
        let unwanted = batch
            .loads
            .extract_if(.., |file, load| !is_wanted(file, load.order.mark));
        unwanted.for_each(|(_, load)| load.end());
        batch.rest();
        drop(batch);
        self.shared.changed.notify_waiters();
    }

    /// Gives all of them up.
    pub(super) fn end(&self) {
        self.keep(|_, _| false);
    }

    /// Takes those whose time has come.
    pub(super) fn take(&self, now: Instant) -> Vec<(PathBuf, Option<Mark>, Loaded)> {
        let taken = self.shared.batch.lock().take(now);
        // Somebody else may wait for them.
        self.shared.changed.notify_waiters();
        taken
    }

    /// Whether one is on its way that the next release cannot do without.
    pub(super) fn owe(&self) -> bool {
        self.shared.batch.lock().owes()
    }

    /// How many are on their way.
    pub(super) fn len(&self) -> usize {
        self.shared.batch.lock().loads.len()
    }

    /// Ends when there are some to take, or when none is on its way.
    pub(super) async fn ripe(&self) {
        loop {
            let changed = self.shared.changed.notified();
            let due = {
                let batch = self.shared.batch.lock();
                if batch.loads.is_empty() {
                    return;
                }
                batch.due()
            };
            match due {
                None => changed.await,
                Some(due) => tokio::select! {
                    () = tokio::time::sleep_until(due) => return,
                    () = changed => {}
                },
            }
        }
    }
}

impl Drop for Loads {
    fn drop(&mut self) {
        self.end();
    }
}

impl Shared {
    fn land(&self, (file, mark): &(PathBuf, Option<Mark>), loaded: Loaded) {
        let mut batch = self.batch.lock();
        let load = batch.loads.get_mut(file);
        // Unless a newer version has taken its place.
        if let Some(load) = load.filter(|load| load.order.mark == *mark) {
            load.stage = Stage::Ready(Instant::now(), loaded);
        }
        drop(batch);
        self.changed.notify_waiters();
    }
}

impl Batch {
    fn has(&self, file: &Path, mark: Option<Mark>) -> bool {
        let load = self.loads.get(file);
        load.is_some_and(|load| load.order.mark == mark)
    }

    fn put(&mut self, order: Order, stage: Stage) {
        let load = Load {
            begun: self.taken,
            order,
            stage,
        };
        if let Some(older) = self.loads.insert(load.order.file.clone(), load) {
            older.end();
        }
    }

    fn running(&self) -> impl Iterator<Item = &Order> {
        let loads = self.loads.values();
        loads.filter_map(|load| matches!(load.stage, Stage::Running(_)).then_some(&load.order))
    }

    fn owes(&self) -> bool {
        self.running().any(|order| order.owed)
    }

    /// The files that may be taken, each with the time when it is to be. Of two that claim
    /// one place, the one that sorts first gets it, whichever compiles faster; and the paths of a
    /// file that is gone are not to be 404 while a module that has some of them is on its way.
    fn free(&self) -> Vec<(PathBuf, Instant)> {
        let mut claims = Table::new();
        for order in self.running() {
            // Of those that claim one place, the first is enough to know.
            let _ = claims.insert(order.pattern.clone(), &order.file);
        }
        let must_wait = |order: &Order| match order.mark {
            None => self
                .running()
                .any(|other| other.pattern.meets(&order.pattern)),
            Some(_) if order.seated => false,
            Some(_) => {
                let rival = claims.rival(&order.pattern);
                rival.is_some_and(|rival| **rival < order.file)
            }
        };
        let ready = self.loads.values().filter_map(|load| match load.stage {
            Stage::Ready(since, _) if !must_wait(&load.order) => {
                Some((load.order.file.clone(), since + self.pause(load)))
            }
            _ => None,
        });
        ready.collect()
    }

    /// When to take those that are ready; never while there are none, or one is owed.
    fn due(&self) -> Option<Instant> {
        if self.owes() {
            return None;
        }
        self.free().into_iter().map(|(_, due)| due).min()
    }

    fn pause(&self, load: &Load) -> Duration {
        let releases = self.taken.saturating_sub(load.begun);
        match self.running().next() {
            Some(_) => LONGEST_PAUSE.min(FIRST_PAUSE * (1 << releases.min(16))),
            None => Duration::ZERO,
        }
    }

    fn take(&mut self, now: Instant) -> Vec<(PathBuf, Option<Mark>, Loaded)> {
        if self.due().is_none_or(|due| due > now) {
            return Vec::new();
        }
        let free = self.free().into_iter();
        let taken: Vec<_> = free
            .filter_map(|(file, _)| self.loads.remove_entry(&file))
            .filter_map(|(file, load)| match load.stage {
                Stage::Ready(_, loaded) => Some((file, load.order.mark, loaded)),
                Stage::Running(_) => None,
            })
            .collect();
        self.taken += 1;
        self.rest();
        taken
    }

    /// The next one begins anew.
    fn rest(&mut self) {
        if self.loads.is_empty() {
            self.taken = 0;
        }
    }
}

impl Load {
    fn end(self) {
        if let Stage::Running(task) = self.stage {
            task.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::page::{Digest, Timestamp};

    const MOMENT: Duration = Duration::from_millis(10);

    fn order(file: &str) -> Order {
        let file = PathBuf::from(file);
        Order {
            pattern: Pattern::of_file(&file).unwrap(),
            mark: Some(Mark::made_up(1, Timestamp::from_millis(0))),
            file,
            seated: false,
            owed: false,
        }
    }

    /// A file that takes so long to load.
    fn begin(loads: &Loads, order: Order, takes: Duration) {
        loads.begin(order, || async move {
            tokio::time::sleep(takes).await;
            Loaded::Same(Digest::of(b""))
        });
    }

    fn taken(loads: &Loads) -> Vec<String> {
        let taken = loads.take(Instant::now()).into_iter();
        taken.map(|(file, ..)| file.display().to_string()).collect()
    }

    /// What is taken next, and how long that took.
    async fn next(loads: &Loads) -> (Vec<String>, Duration) {
        let began = Instant::now();
        loads.ripe().await;
        (taken(loads), began.elapsed())
    }

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_ready_waits_for_the_others_a_moment_and_no_longer() {
        let loads = Loads::new();
        begin(&loads, order("a.wasm"), MOMENT);
        begin(&loads, order("b.wasm"), 2 * MOMENT);
        begin(&loads, order("slow.wasm"), seconds(100));
        let (first, took) = next(&loads).await;
        assert_eq!(first, ["a.wasm", "b.wasm"]);
        assert_eq!(took, FIRST_PAUSE + MOMENT);
        // Whatever comes while it is still loading waits no longer.
        begin(&loads, order("c.wasm"), MOMENT);
        let (second, took) = next(&loads).await;
        assert_eq!(second, ["c.wasm"]);
        assert_eq!(took, FIRST_PAUSE + MOMENT);
        let (last, _) = next(&loads).await;
        assert_eq!((last, loads.len()), (vec!["slow.wasm".to_owned()], 0));
        // Nobody is left to wait for.
        begin(&loads, order("d.wasm"), MOMENT);
        assert_eq!(next(&loads).await, (vec!["d.wasm".to_owned()], MOMENT));
    }

    #[tokio::test(start_paused = true)]
    async fn a_thousand_modules_make_few_releases() {
        let loads = Loads::new();
        for number in 0..1000 {
            begin(&loads, order(&format!("{number}.wasm")), seconds(1));
        }
        let mut releases = 0;
        while loads.len() > 0 {
            assert_ne!(next(&loads).await.0.len(), 0);
            releases += 1;
        }
        assert_eq!(releases, 10, "in 250 s");
    }

    #[tokio::test(start_paused = true)]
    async fn of_two_that_claim_one_place_the_first_gets_it_however_long_it_takes() {
        let loads = Loads::new();
        begin(&loads, order("x/[a].wasm"), seconds(50));
        begin(&loads, order("x/[b].wasm"), MOMENT);
        begin(&loads, order("y.wasm"), MOMENT);
        assert_eq!(next(&loads).await.0, ["y.wasm"]);
        assert_eq!(next(&loads).await.0, ["x/[a].wasm", "x/[b].wasm"]);
        // The one that has the place need not wait for who will not get it.
        begin(&loads, order("x/[a].wasm"), seconds(50));
        let seated = Order {
            seated: true,
            ..order("x/[b].wasm")
        };
        begin(&loads, seated, MOMENT);
        assert_eq!(next(&loads).await.0, ["x/[b].wasm"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_that_is_gone_serves_until_what_may_follow_it_is_there() {
        let loads = Loads::new();
        let end_of = |file: &str| {
            let file = PathBuf::from(file);
            let pattern = Pattern::of_file(&file).unwrap();
            loads.end_of(file, pattern);
        };
        begin(&loads, order("docs/[...slug].wasm"), seconds(50));
        end_of("docs/a.wasm");
        end_of("other.wasm");
        assert_eq!(
            next(&loads).await,
            (vec!["other.wasm".to_owned()], FIRST_PAUSE)
        );
        let (both, _) = next(&loads).await;
        assert_eq!(both, ["docs/[...slug].wasm", "docs/a.wasm"]);
        end_of("last.wasm");
        assert_eq!(next(&loads).await.1, Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_next_release_cannot_do_without_is_waited_for() {
        let loads = Loads::new();
        begin(&loads, order("a.wasm"), MOMENT);
        let owed = Order {
            owed: true,
            ..order("b.wasm")
        };
        begin(&loads, owed, seconds(50));
        let (all, took) = next(&loads).await;
        assert_eq!((all.len(), took), (2, seconds(50)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_newer_version_takes_the_place_of_one_on_its_way() {
        let loads = Loads::new();
        begin(&loads, order("a.wasm"), seconds(50));
        // The same version is loaded once.
        loads.begin(order("a.wasm"), || async {
            unreachable!("it is on its way")
        });
        let mut newer = order("a.wasm");
        newer.mark = Some(Mark::made_up(2, Timestamp::from_millis(0)));
        begin(&loads, newer, MOMENT);
        assert_eq!(next(&loads).await, (vec!["a.wasm".to_owned()], MOMENT));
        // And one that is gone is given up.
        begin(&loads, order("a.wasm"), seconds(50));
        loads.keep(|_, _| false);
        assert_eq!(loads.len(), 0);
        assert!(loads.ripe().now_or_never().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_bug_of_wisr_is_a_refusal() {
        let loads = Loads::new();
        loads.begin(order("a.wasm"), || async { panic!("a bug") });
        loads.ripe().await;
        let taken = loads.take(Instant::now());
        assert!(matches!(taken[0].2, Loaded::Refused { .. }));
    }
}
