//! `Trial`: a new module must render one page before it has failed too often.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use tokio::sync::Notify;

use crate::page::{
    Context, Digest, Document, Failure, FailureKind, Generation, PathList, Pending, Render,
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

    /// Whether it has rendered a page.
    pub(super) fn has_passed(&self) -> bool {
        self.passed.load(Ordering::Relaxed)
    }

    /// Whether it has done nothing but fail.
    pub(super) fn has_fallen(&self) -> bool {
        !self.has_passed() && self.failures.load(Ordering::Relaxed) >= FAILURES
    }

    fn note(&self, result: &Result<Generation, Failure>) {
        match result {
            Ok(_) => self.passed.store(true, Ordering::Relaxed),
            // A bug of wisr says nothing of the module.
            Err(failure) if failure.kind == FailureKind::Host => {}
            Err(_) => {
                self.failures.fetch_add(1, Ordering::Relaxed);
                if self.has_fallen() {
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
            self.note(&result);
            result
        })
    }

    fn shell<'a>(&'a self, context: &'a Context) -> Pending<'a, Result<Document, Failure>> {
        self.renderer.shell(context)
    }

    fn static_paths(&self) -> Pending<'_, Result<PathList, Failure>> {
        self.renderer.static_paths()
    }
}
