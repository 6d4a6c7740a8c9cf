//! `Listing`: what a module's `static-paths` said, asked again from time to time and when somebody
//! calls.

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use futures_util::FutureExt;
use tokio::sync::{SetOnce, watch};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::page::{Failure, FailureKind, Fallback, Param, PathList, Render, Revalidate};
use crate::route::{ParamsError, Path, Pattern};
use crate::telemetry::{Clock, Incidents, Subject};

/// The pause after the first failure; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// Long enough to leave an API that is down alone, short enough to notice that it is back.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// From the begin of one listing to the next, however often it is called for: all who call
/// meanwhile share it.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);

/// How long a call waits for a listing: as long as for a generation to begin.
const PATIENCE: Duration = Duration::from_secs(30);

/// Failures of one module that become incidents: the next differ only in numbers and times.
const INCIDENTS: usize = 16;

/// The paths that a module listed, once it is known. Dropping it ends the asking.
pub struct Listing {
    latest: Arc<Latest>,
    /// How often it was called for; none where there is nothing to ask.
    calls: Option<watch::Sender<u64>>,
    task: Option<AbortHandle>,
}

/// What a path is to a listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// It is listed.
    Listed,
    /// It is not, and this is what it gets.
    Unlisted(Fallback),
}

/// What is known so far.
#[derive(Default)]
struct Latest {
    /// The last list: of this module, or until it has answered, of the one before it.
    known: ArcSwapOption<Known>,
    /// Whether the module has answered itself.
    answered: SetOnce<()>,
    /// Whether it was asked, whatever came of it.
    tried: SetOnce<()>,
    /// How many of the calls are dealt with, and what became of the last one.
    dealt: watch::Sender<(u64, Option<String>)>,
}

struct Known {
    /// Sorted, for look-up.
    paths: Arc<[Path]>,
    fallback: Fallback,
}

/// All that the asking needs.
struct Asking {
    renderer: Arc<dyn Render>,
    pattern: Pattern,
    lifetime: Revalidate,
    clock: Clock,
    incidents: Arc<Incidents>,
    latest: Arc<Latest>,
    calls: watch::Receiver<u64>,
}

/// Why there is no list yet.
enum Trouble {
    Failed(Arc<Failure>),
    Unfit(ParamsError),
}

impl Listing {
    /// The listing of a route without parameters: its one path.
    pub(super) fn of_static() -> Self {
        let latest = Latest {
            answered: SetOnce::new_with(Some(())),
            tried: SetOnce::new_with(Some(())),
            ..Latest::default()
        };
        latest.known.store(Some(Arc::new(Known {
            paths: Arc::default(),
            fallback: Fallback::Blocking,
        })));
        Self {
            latest: Arc::new(latest),
            calls: None,
            task: None,
        }
    }

    /// Asks a module for its paths until it answers, and again when its list is older than
    /// `lifetime`.
    pub(super) fn ask(
        renderer: Arc<dyn Render>,
        pattern: Pattern,
        lifetime: Revalidate,
        clock: Clock,
        incidents: Arc<Incidents>,
    ) -> Self {
        let latest = Arc::new(Latest::default());
        let (calls, called) = watch::channel(0);
        let asking = Asking {
            renderer,
            pattern,
            lifetime,
            clock,
            incidents,
            latest: Arc::clone(&latest),
            calls: called,
        };
        let task = tokio::spawn(asking.run()).abort_handle();
        Self {
            latest,
            calls: Some(calls),
            task: Some(task),
        }
    }

    /// Goes by what the route's listing was before, until the module answers.
    pub(super) fn follow(&self, before: &Listing) {
        let none: Option<Arc<Known>> = None;
        let before = before.latest.known.load_full();
        self.latest.known.compare_and_swap(&none, before);
    }

    /// What `path`, which the route matches, is to the listing; nothing while it is not known.
    pub fn of(&self, path: &Path) -> Option<Place> {
        let known = self.latest.known.load();
        let known = known.as_ref()?;
        Some(if known.paths.binary_search(path).is_ok() {
            Place::Listed
        } else {
            Place::Unlisted(known.fallback)
        })
    }

    /// The listed paths, sorted; none while they are not known.
    pub fn paths(&self) -> Arc<[Path]> {
        let known = self.latest.known.load();
        known
            .as_ref()
            .map_or_else(Arc::default, |known| Arc::clone(&known.paths))
    }

    /// What a path that is not listed gets, once that is known.
    pub fn fallback(&self) -> Option<Fallback> {
        let known = self.latest.known.load();
        known.as_ref().map(|known| known.fallback)
    }

    /// Has the module list its paths once more, and waits for it. Whoever calls meanwhile shares
    /// the next one.
    ///
    /// # Errors
    /// Why it could not: the list stays as it was.
    pub async fn renew(&self) -> Result<(), String> {
        let Some(calls) = &self.calls else {
            return Ok(());
        };
        let mut call = 0;
        let mut dealt = self.latest.dealt.subscribe();
        calls.send_modify(|calls| {
            *calls += 1;
            call = *calls;
        });
        let waiting = dealt.wait_for(|(dealt, _)| *dealt >= call);
        match tokio::time::timeout(PATIENCE, waiting).await {
            Ok(Ok(dealt)) => dealt.1.clone().map_or(Ok(()), Err),
            Ok(Err(_)) | Err(_) => Err("static-paths takes too long".to_owned()),
        }
    }

    /// Waits until the module was asked once, whatever came of it.
    pub async fn tried(&self) {
        self.latest.tried.wait().await;
    }

    /// Whether the module has answered.
    pub fn is_known(&self) -> bool {
        self.latest.answered.get().is_some()
    }

    /// Waits until the module has answered.
    pub async fn ready(&self) {
        self.latest.answered.wait().await;
    }
}

impl Drop for Listing {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

impl Asking {
    async fn run(mut self) {
        let mut pause = FIRST_PAUSE;
        let mut told = BTreeSet::new();
        loop {
            let (began, called) = (Instant::now(), *self.calls.borrow_and_update());
            let wait = match self.list().await {
                Ok(known) => {
                    self.latest.known.store(Some(Arc::new(known)));
                    // Later rounds find it set.
                    let _ = self.latest.answered.set(());
                    self.latest.dealt.send_replace((called, None));
                    told.clear();
                    pause = FIRST_PAUSE;
                    self.age()
                }
                Err(trouble) => {
                    let failed = Some(trouble.message());
                    self.tell(trouble, &mut told);
                    self.latest.dealt.send_replace((called, failed));
                    let wait = pause;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                    Some(wait)
                }
            };
            // Later rounds find it set.
            let _ = self.latest.tried.set(());
            let due = async {
                match wait {
                    Some(wait) => tokio::time::sleep(wait).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = due => {}
                // The listing that holds the sender aborts this when it goes.
                _ = self.calls.changed() => tokio::time::sleep_until(began + SHORTEST_PAUSE).await,
            }
        }
    }

    /// How long the list may be gone by; for ever, if none. At random a little longer, so that
    /// those of many routes do not end at once.
    fn age(&self) -> Option<Duration> {
        match self.lifetime {
            Revalidate::Never => None,
            Revalidate::After(seconds) => {
                let lifetime = Duration::from_secs(seconds.into());
                Some(lifetime.mul_f64(1.0 + fastrand::f64() / 10.0))
            }
        }
    }

    async fn list(&self) -> Result<Known, Trouble> {
        // A bug of wisr is told of like one of the module's.
        let asked = AssertUnwindSafe(async {
            let route = self.pattern.route();
            self.renderer.static_paths(route).await
        });
        let answer = asked.catch_unwind().await.unwrap_or_else(|_| {
            let message = "wisr panicked: please report it, with what stderr says";
            Err(Failure::new(FailureKind::Host, "static-paths", message))
        });
        let answer = answer.map_err(|failure| Trouble::Failed(Arc::new(failure)));
        self.read(answer?)
    }

    fn read(&self, list: PathList) -> Result<Known, Trouble> {
        let path_of = |params: Vec<Param>| self.pattern.path_of(&params);
        // Each is given up as it is read: there may be a million.
        let mut paths: Vec<Path> = list
            .paths
            .into_iter()
            .map(path_of)
            .collect::<Result<_, _>>()
            .map_err(Trouble::Unfit)?;
        paths.sort_unstable();
        paths.dedup();
        Ok(Known {
            paths: paths.into(),
            fallback: list.fallback,
        })
    }

    fn tell(&self, trouble: Trouble, told: &mut BTreeSet<String>) {
        let message = trouble.message();
        let failure = match trouble {
            Trouble::Failed(failure) => Some(failure),
            Trouble::Unfit(_) => None,
        };
        if told.len() < INCIDENTS && told.insert(message.clone()) {
            let route = self.pattern.route();
            let subject = Subject::Listing { route };
            let now = self.clock.now();
            self.incidents
                .record(now, subject, "listing", message, failure);
        }
    }
}

impl Trouble {
    fn message(&self) -> String {
        match self {
            Trouble::Failed(failure) => failure.to_string(),
            Trouble::Unfit(error) => format!("static-paths: {error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;
    use parking_lot::Mutex;

    use super::*;
    use crate::page::{Context, Digest, Document, Generation, Pending, Timestamp};

    const LIFETIME: Revalidate = Revalidate::After(100);

    /// Answers `static-paths` from a script, last answer first.
    struct Scripted(Mutex<Vec<Result<PathList, &'static str>>>);

    impl Render for Scripted {
        fn module(&self) -> Digest {
            Digest::of(b"scripted")
        }

        fn generate<'a>(
            &'a self,
            _: &'a Context,
            _: Option<Digest>,
        ) -> Pending<'a, Result<Generation, Failure>> {
            unreachable!("a listing renders nothing")
        }

        fn shell<'a>(&'a self, _: &'a Context) -> Pending<'a, Result<Document, Failure>> {
            unreachable!("a listing renders nothing")
        }

        fn static_paths(&self, _: Arc<str>) -> Pending<'_, Result<PathList, Failure>> {
            let answer = self
                .0
                .lock()
                .pop()
                .expect("not asked after the last answer");
            let failed = |message| Failure::new(FailureKind::Error, "static-paths", message);
            Box::pin(async move { answer.map_err(failed) })
        }
    }

    fn list(name: &str, values: &[&str], fallback: Fallback) -> PathList {
        let params = |value: &&str| {
            vec![Param {
                name: name.to_owned(),
                values: vec![value.to_string()],
            }]
        };
        PathList {
            paths: values.iter().map(params).collect(),
            fallback,
        }
    }

    fn ask(mut script: Vec<Result<PathList, &'static str>>) -> (Listing, Arc<Incidents>) {
        script.reverse();
        let incidents = Arc::new(Incidents::default());
        let renderer = Arc::new(Scripted(Mutex::new(script)));
        let pattern = Pattern::parse("/posts/[id]").unwrap();
        let clock = Clock::starting_at(Timestamp::from_millis(0));
        (
            Listing::ask(renderer, pattern, LIFETIME, clock, Arc::clone(&incidents)),
            incidents,
        )
    }

    fn place(listing: &Listing, path: &str) -> Option<Place> {
        listing.of(&Path::parse(path).unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn paths_are_listed_once_they_are_known() {
        let listed = list("id", &["b", "a/b", "b"], Fallback::NotFound);
        let (listing, incidents) = ask(vec![Ok(listed)]);
        assert_eq!(place(&listing, "/posts/b"), None);
        listing.ready().await;
        assert_eq!(place(&listing, "/posts/b"), Some(Place::Listed));
        assert_eq!(place(&listing, "/posts/a%2fb"), Some(Place::Listed));
        assert_eq!(
            place(&listing, "/posts/c"),
            Some(Place::Unlisted(Fallback::NotFound))
        );
        assert_eq!(listing.paths().len(), 2);
        assert_eq!(incidents.count(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn other_rules_leave_the_paths_as_they_are_until_they_are_listed_anew() {
        let (first, _) = ask(vec![Ok(list("id", &["a"], Fallback::NotFound))]);
        first.ready().await;
        let (second, _) = ask(vec![Err("down"), Err("down")]);
        second.follow(&first);
        second.tried().await;
        let listed = list("id", &["b"], Fallback::Blocking);
        let (third, _) = ask(vec![Ok(listed)]);
        third.follow(&second);
        for listing in [&second, &third] {
            assert_eq!(place(listing, "/posts/a"), Some(Place::Listed));
            let other = Some(Place::Unlisted(Fallback::NotFound));
            assert_eq!(place(listing, "/posts/b"), other);
        }
        third.ready().await;
        assert_eq!(place(&third, "/posts/b"), Some(Place::Listed));
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_is_told_of_like_a_failure() {
        let (listing, incidents) = ask(Vec::new());
        listing.tried().await;
        let told = incidents.latest(9);
        assert!(
            told.len() == 1 && told[0].message.contains("wisr panicked"),
            "{told:?}"
        );
        assert!(!listing.is_known());
    }

    #[tokio::test(start_paused = true)]
    async fn a_failing_module_is_asked_again_ever_more_rarely() {
        let mut script = vec![Err("down"); 8];
        script.push(Ok(list("slug", &["a"], Fallback::Shell)));
        script.push(Ok(list("id", &["a"], Fallback::Shell)));
        let started = tokio::time::Instant::now();
        let (listing, incidents) = ask(script);
        listing.ready().await;
        let waited: u64 = [1, 2, 4, 8, 16, 32, 60, 60, 60].iter().sum();
        assert_eq!(started.elapsed().as_secs(), waited);
        let told: Vec<_> = incidents
            .latest(9)
            .iter()
            .map(|incident| incident.message.clone())
            .collect();
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[0].contains("needs the parameter \"id\""), "{told:?}");
        assert!(told[1].contains("down"), "{told:?}");
        assert_eq!(listing.fallback(), Some(Fallback::Shell));
    }

    #[tokio::test(start_paused = true)]
    async fn the_asking_ends_with_the_listing() {
        let (listing, _) = ask(vec![Err("down")]);
        let known = Arc::downgrade(&listing.latest);
        tokio::time::sleep(Duration::from_millis(500)).await;
        drop(listing);
        // Well within the first pause, in which the asking would still be held.
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert!(known.upgrade().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_list_is_read_again_when_it_is_old_and_stays_when_that_fails() {
        let first = list("id", &["a"], Fallback::NotFound);
        let second = list("id", &["a", "b"], Fallback::NotFound);
        let (listing, incidents) = ask(vec![Ok(first), Err("down"), Err("down"), Ok(second)]);
        listing.ready().await;
        let gone = Some(Place::Unlisted(Fallback::NotFound));
        // The lifetime, a tenth of it by chance, and two pauses.
        for (seconds, expected) in [(99, 0), (12, 1)] {
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            assert_eq!(incidents.count(), expected, "{seconds}");
            if expected == 0 {
                assert_eq!(place(&listing, "/posts/b"), gone);
            }
        }
        tokio::time::sleep(Duration::from_secs(4)).await;
        assert_eq!(place(&listing, "/posts/b"), Some(Place::Listed));
        assert_eq!(listing.paths().len(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn all_who_call_share_the_next_listing_and_hear_why_it_failed() {
        let lists = ["a", "b"].map(|id| Ok(list("id", &[id], Fallback::NotFound)));
        let [first, second] = lists;
        let (listing, _) = ask(vec![first, second, Err("down")]);
        listing.ready().await;
        let all = join_all((0..100).map(|_| listing.renew())).await;
        assert!(all.iter().all(Result::is_ok), "{all:?}");
        assert_eq!(place(&listing, "/posts/b"), Some(Place::Listed));
        let began = Instant::now();
        let failed = listing.renew().await.unwrap_err();
        assert!(failed.contains("down"), "{failed}");
        assert_eq!(began.elapsed(), SHORTEST_PAUSE);
        assert_eq!(place(&listing, "/posts/b"), Some(Place::Listed));
        assert!(Listing::of_static().renew().await.is_ok());
    }
}
