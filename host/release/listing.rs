//! `Listing`: what a module's `static-paths` said, asked once for each module.

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::SetOnce;
use tokio::task::AbortHandle;

use crate::page::{Failure, FailureKind, Fallback, Param, PathList, Render};
use crate::route::{ParamsError, Path, Pattern};
use crate::telemetry::{Clock, Incidents, Subject};

/// The pause after the first failure; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// Long enough to leave an API that is down alone, short enough to notice that it is back.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Failures of one module that become incidents: the next differ only in numbers and times.
const INCIDENTS: usize = 16;

/// The paths that a module listed, once it is known. Dropping it ends the asking.
pub struct Listing {
    known: Arc<SetOnce<Known>>,
    /// What the module listed under other rules, until it has answered under these.
    before: Option<Arc<SetOnce<Known>>>,
    tried: Arc<SetOnce<()>>,
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

struct Known {
    /// Sorted, for look-up.
    paths: Box<[Path]>,
    fallback: Fallback,
}

/// All that the asking needs.
struct Asking {
    renderer: Arc<dyn Render>,
    pattern: Pattern,
    clock: Clock,
    incidents: Arc<Incidents>,
    known: Arc<SetOnce<Known>>,
    tried: Arc<SetOnce<()>>,
}

/// Why there is no list yet.
enum Trouble {
    Failed(Arc<Failure>),
    Unfit(ParamsError),
}

impl Listing {
    /// The listing of a route without parameters: its one path.
    pub(super) fn of_static() -> Self {
        let known = Known {
            paths: Box::default(),
            fallback: Fallback::Blocking,
        };
        Self {
            known: Arc::new(SetOnce::new_with(Some(known))),
            before: None,
            tried: Arc::new(SetOnce::new_with(Some(()))),
            task: None,
        }
    }

    /// Asks a module for its paths until it answers.
    pub(super) fn ask(
        renderer: Arc<dyn Render>,
        pattern: Pattern,
        clock: Clock,
        incidents: Arc<Incidents>,
    ) -> Self {
        let known = Arc::new(SetOnce::new());
        let tried = Arc::new(SetOnce::new());
        let asking = Asking {
            renderer,
            pattern,
            clock,
            incidents,
            known: Arc::clone(&known),
            tried: Arc::clone(&tried),
        };
        let task = tokio::spawn(asking.run()).abort_handle();
        Self {
            known,
            before: None,
            tried,
            task: Some(task),
        }
    }

    /// Goes by what the same module listed before, until it answers.
    pub(super) fn follow(&mut self, before: &Listing) {
        self.before = match before.known.get() {
            Some(_) => Some(Arc::clone(&before.known)),
            None => before.before.clone(),
        };
    }

    fn latest(&self) -> Option<&Known> {
        let before = || self.before.as_ref()?.get();
        self.known.get().or_else(before)
    }

    /// What `path`, which the route matches, is to the listing; nothing while it is not known.
    pub fn of(&self, path: &Path) -> Option<Place> {
        let known = self.latest()?;
        Some(if known.paths.binary_search(path).is_ok() {
            Place::Listed
        } else {
            Place::Unlisted(known.fallback)
        })
    }

    /// The listed paths, sorted; none while they are not known.
    pub fn paths(&self) -> &[Path] {
        self.latest().map_or(&[], |known| &known.paths)
    }

    /// What a path that is not listed gets, once that is known.
    pub fn fallback(&self) -> Option<Fallback> {
        self.latest().map(|known| known.fallback)
    }

    /// Waits until the module was asked once, whatever came of it.
    pub async fn tried(&self) {
        self.tried.wait().await;
    }

    /// Whether the module has answered.
    pub fn is_known(&self) -> bool {
        self.known.get().is_some()
    }

    /// Waits until the module has answered.
    pub async fn ready(&self) {
        self.known.wait().await;
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
    async fn run(self) {
        let mut pause = FIRST_PAUSE;
        let mut told = BTreeSet::new();
        loop {
            // A bug of wisr is told of like one of the module's.
            let asked = AssertUnwindSafe(async {
                let route = self.pattern.route();
                self.renderer.static_paths(route).await
            });
            let answer = asked.catch_unwind().await.unwrap_or_else(|_| {
                let message = "wisr panicked: please report it, with what stderr says";
                Err(Failure::new(FailureKind::Host, "static-paths", message))
            });
            match answer
                .map_err(|failure| Trouble::Failed(Arc::new(failure)))
                .and_then(|list| self.read(list))
            {
                Ok(known) => {
                    // Nobody else sets it: each listing has one asking.
                    let _ = self.known.set(known);
                    let _ = self.tried.set(());
                    return;
                }
                Err(trouble) => self.tell(trouble, &mut told),
            }
            // Later rounds find it set.
            let _ = self.tried.set(());
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
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
            paths: paths.into_boxed_slice(),
            fallback: list.fallback,
        })
    }

    fn tell(&self, trouble: Trouble, told: &mut BTreeSet<String>) {
        let (message, failure) = match trouble {
            Trouble::Failed(failure) => (failure.to_string(), Some(failure)),
            Trouble::Unfit(error) => (format!("static-paths: {error}"), None),
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

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::*;
    use crate::page::{Context, Digest, Document, Generation, Pending, Timestamp};

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
            Listing::ask(renderer, pattern, clock, Arc::clone(&incidents)),
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
        let (mut second, _) = ask(vec![Err("down"), Err("down")]);
        second.follow(&first);
        second.tried().await;
        let listed = list("id", &["b"], Fallback::Blocking);
        let (mut third, _) = ask(vec![Ok(listed)]);
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
        let known = Arc::downgrade(&listing.known);
        tokio::time::sleep(Duration::from_millis(500)).await;
        drop(listing);
        // Well within the first pause, in which the asking would still be held.
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert!(known.upgrade().is_none());
    }
}
