//! `Trial`: a new module must render one page before it has failed too often.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use tokio::sync::Notify;

use super::routed::Probation;
use crate::page::{
    Cause, Context, Digest, Document, Failure, FailureKind, Generation, PathList, Pending, Render,
};

/// Failures in a row, without a success before them, after which a route returns to the module
/// that it had: enough that a page or two with bad data do not decide.
const FAILURES: u32 = 5;

/// A module's renderer, and how it has done so far.
pub(super) struct Trial {
    renderer: Arc<dyn Render>,
    failures: AtomicU32,
    passed: AtomicBool,
    fallen: Arc<Notify>,
}

impl Trial {
    /// A module that has shown nothing yet; `fallen` is notified when it falls.
    pub(super) fn new(renderer: Arc<dyn Render>, fallen: Arc<Notify>) -> Self {
        let (failures, passed) = Default::default();
        Self {
            renderer,
            failures,
            passed,
            fallen,
        }
    }

    /// The same module, rendered by `renderer` from now on.
    pub(super) fn after(before: &Self, renderer: Arc<dyn Render>) -> Self {
        Self {
            renderer,
            failures: AtomicU32::new(before.failures.load(Ordering::Relaxed)),
            passed: AtomicBool::new(before.has_passed()),
            fallen: Arc::clone(&before.fallen),
        }
    }

    /// Whether it has rendered a page.
    pub(super) fn has_passed(&self) -> bool {
        self.passed.load(Ordering::Relaxed)
    }

    /// What operators are told of it.
    pub(super) fn probation(&self) -> Probation {
        Probation {
            passed: self.has_passed(),
            failures: self.failures.load(Ordering::Relaxed),
        }
    }

    /// Whether it has done nothing but fail.
    pub(super) fn has_fallen(&self) -> bool {
        !self.has_passed() && self.failures.load(Ordering::Relaxed) >= FAILURES
    }

    /// Counts a generation.
    pub(super) fn note(&self, result: &Result<Generation, Failure>) {
        match result {
            Ok(_) => self.passed.store(true, Ordering::Relaxed),
            // A bug of wisr says nothing of the module.
            Err(failure) if failure.kind == FailureKind::Host => {}
            Err(_) => {
                let failures = self.failures.fetch_add(1, Ordering::Relaxed) + 1;
                // Told once: a route with nothing to return to would cost a pass at each failure.
                if failures == FAILURES && !self.has_passed() {
                    self.fallen.notify_one();
                }
            }
        }
    }
}

impl Render for Trial {
    fn module(&self) -> Digest {
        self.renderer.module()
    }

    fn generate<'a>(
        &'a self,
        context: &'a Context,
        known: Option<Digest>,
    ) -> Pending<'a, Result<Generation, Failure>> {
        Box::pin(async move {
            let result = self.renderer.generate(context, known).await;
            // What an editor has not finished yet says nothing of the module.
            if context.cause != Cause::Draft {
                self.note(&result);
            }
            result
        })
    }

    fn shell<'a>(&'a self, context: &'a Context) -> Pending<'a, Result<Document, Failure>> {
        self.renderer.shell(context)
    }

    fn static_paths(&self, route: Arc<str>) -> Pending<'_, Result<PathList, Failure>> {
        self.renderer.static_paths(route)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use parking_lot::Mutex;

    use super::*;
    use crate::page::{Cost, Lifetime, Outcome};

    /// Fails in one way, or says that there is no such page.
    struct Fickle(Mutex<Option<FailureKind>>);

    impl Render for Fickle {
        fn module(&self) -> Digest {
            Digest::of(b"fickle")
        }

        fn generate<'a>(
            &'a self,
            _: &'a Context,
            _: Option<Digest>,
        ) -> Pending<'a, Result<Generation, Failure>> {
            let outcome = Outcome::NotFound(Lifetime::Never);
            let cost = Cost::default();
            let made = match *self.0.lock() {
                None => Ok(Generation {
                    outcome,
                    tags: Vec::new(),
                    cost,
                }),
                Some(kind) => Err(Failure::new(kind, "render", "it fails")),
            };
            Box::pin(async move { made })
        }

        fn shell<'a>(&'a self, _: &'a Context) -> Pending<'a, Result<Document, Failure>> {
            unreachable!("a trial is about pages")
        }

        fn static_paths(&self, _: Arc<str>) -> Pending<'_, Result<PathList, Failure>> {
            unreachable!("a trial is about pages")
        }
    }

    struct Court {
        fickle: Arc<Fickle>,
        fallen: Arc<Notify>,
        trial: Trial,
    }

    impl Court {
        fn new() -> Self {
            let fickle = Arc::new(Fickle(Mutex::default()));
            let fallen = Arc::new(Notify::new());
            let trial = Trial::new(fickle.clone(), Arc::clone(&fallen));
            Self {
                fickle,
                fallen,
                trial,
            }
        }

        async fn generate(&self, end: Option<FailureKind>, times: u32) {
            self.generate_for(Cause::Stale, end, times).await;
        }

        async fn generate_for(&self, cause: Cause, end: Option<FailureKind>, times: u32) {
            let context = Context {
                route: Arc::from("/"),
                path: "/".to_owned(),
                params: Vec::new(),
                query: Vec::new(),
                cause,
            };
            *self.fickle.0.lock() = end;
            for _ in 0..times {
                let made = self.trial.generate(&context, None).await;
                assert_eq!(made.err().map(|failure| failure.kind), end);
            }
        }

        fn is_told(&self) -> bool {
            self.fallen.notified().now_or_never().is_some()
        }
    }

    #[tokio::test]
    async fn a_module_falls_with_its_fifth_failure_and_that_is_told_once() {
        let court = Court::new();
        court.generate(Some(FailureKind::Trap), FAILURES - 1).await;
        assert!(!court.trial.has_fallen() && !court.is_told());
        court.generate(Some(FailureKind::Wall), 1).await;
        assert!(court.trial.has_fallen() && court.is_told());
        court.generate(Some(FailureKind::Trap), 3 * FAILURES).await;
        assert!(court.trial.has_fallen() && !court.is_told());
    }

    #[tokio::test]
    async fn a_module_that_made_a_page_never_falls() {
        let court = Court::new();
        court.generate(Some(FailureKind::Trap), FAILURES - 1).await;
        court.generate(None, 1).await;
        court.generate(Some(FailureKind::Trap), 2 * FAILURES).await;
        assert!(court.trial.has_passed() && !court.trial.has_fallen() && !court.is_told());
    }

    #[tokio::test]
    async fn a_draft_says_nothing_of_the_module() {
        let court = Court::new();
        let (trap, times) = (Some(FailureKind::Trap), 2 * FAILURES);
        court.generate_for(Cause::Draft, trap, times).await;
        court.generate_for(Cause::Draft, None, 1).await;
        assert!(!court.trial.has_fallen() && !court.trial.has_passed() && !court.is_told());
    }

    #[tokio::test]
    async fn a_bug_of_wisr_is_no_failure_of_the_module() {
        let court = Court::new();
        court.generate(Some(FailureKind::Host), 2 * FAILURES).await;
        assert!(!court.trial.has_fallen() && !court.is_told());
    }
}
