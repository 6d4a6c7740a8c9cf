//! One generation: joined or started, run in a task of its own, landed, stored or told of.

use std::sync::Arc;
use std::time::Duration;

use super::flight::{Claim, Landing, Permit, Wait};
use super::queue::Priority;
use super::share::Claimed;
use super::{Ask, Inner, Refused, make};
use crate::page::{Cause, Entry, Failure, Revalidate};
use crate::telemetry::Subject;
use crate::telemetry::metrics::Ending;

/// What is known of the entry before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Before {
    /// It is to be looked for.
    Unknown,
    /// It was looked for, and there was none: one that was made since is still in memory.
    Nothing,
}

impl Inner {
    /// Joins or starts a generation that reads its data after the invalidation `least`; whether
    /// it was started.
    pub(super) fn launch(
        self: &Arc<Self>,
        ask: Ask,
        least: u64,
        priority: Priority,
        cause: Cause,
    ) -> (Wait, bool) {
        self.launch_after(Before::Unknown, ask, least, priority, cause)
    }

    /// The same by who has looked for the entry.
    pub(super) fn launch_after(
        self: &Arc<Self>,
        before: Before,
        ask: Ask,
        least: u64,
        priority: Priority,
        cause: Cause,
    ) -> (Wait, bool) {
        match self.flights.claim(&ask.key, least, priority) {
            Claim::Follow(wait) => (wait, false),
            Claim::Lead(permit) => {
                let wait = permit.wait();
                self.parts
                    .runtime
                    .spawn(self.clone().fly(permit, ask, cause, before));
                (wait, true)
            }
        }
    }

    pub(super) fn overloaded(&self) -> Refused {
        let retry_after = self.config.wait.max(Duration::from_secs(1));
        Refused::Overloaded { retry_after }
    }

    pub(super) async fn landed(
        &self,
        mut wait: Wait,
        patience: Duration,
    ) -> Result<Arc<Entry>, Refused> {
        if tokio::time::timeout(patience, wait.begun()).await.is_err() {
            return Err(self.overloaded());
        }
        match wait.landed().await {
            Landing::Stored(entry) => Ok(entry),
            Landing::Failed(failure) => Err(Refused::Failed(failure)),
            Landing::Overloaded => Err(self.overloaded()),
        }
    }

    /// One generation, from its turn to its landing.
    async fn fly(self: Arc<Self>, mut permit: Permit, ask: Ask, cause: Cause, before: Before) {
        permit.turn().await;
        let forgotten = self.routes.forgotten();
        let lease = match self.claim_of_all(&permit, &ask, before).await {
            Claimed::Lead(lease) => Some(lease),
            Claimed::Alone => None,
            Claimed::Made(entry) => return self.land_made(permit, &ask, forgotten, entry),
        };
        let places = ask.page.policy.concurrency;
        let entered = self
            .queue
            .enter(permit.ticket(), &ask.page.route, places)
            .await;
        let Ok(slot) = entered else {
            return permit.land(|| Landing::Overloaded);
        };
        let sequence = permit.begin(|| self.parts.store.sequence());
        let previous = match before {
            Before::Unknown => self.find(&ask).await,
            Before::Nothing => self.parts.store.get_hot(&ask.key),
        };
        if let Some(fresh) = previous
            .as_ref()
            .filter(|entry| self.is_fresh(&ask.page, entry))
        {
            // Another generation landed between the look at the entry and the claim.
            let fresh = fresh.clone();
            return permit.land(|| Landing::Stored(fresh));
        }
        let clock = &self.parts.clock;
        let started = tokio::time::Instant::now();
        let made = make::make(&ask, cause, sequence, previous.as_deref(), clock).await;
        drop(slot);
        self.parts
            .metrics
            .generation_seconds
            .observe(started.elapsed().as_secs_f64());
        let made = self.shared(lease, made).await.map_err(Arc::new);
        let outcome = made
            .as_ref()
            .map_or_else(|f| f.kind.as_str(), |e| e.content.as_str());
        let ending = Ending {
            cause: cause.as_str(),
            outcome,
        };
        if let Err(failure) = &made {
            self.report(&ask, cause, failure);
        }
        let lifetime = previous.map(|entry| entry.stamp.revalidate);
        permit.land(|| self.settle(&ask, forgotten, lifetime, made));
        // Last: who sees the count also sees what came of the generation.
        self.parts.metrics.generations.get_or_create(&ending).inc();
    }

    /// Stores what came out. Nobody can claim or purge the page meanwhile. `began` is what was
    /// forgotten before; `lifetime` is that of the last good page.
    fn settle(
        &self,
        ask: &Ask,
        began: u64,
        lifetime: Option<Revalidate>,
        made: Result<Arc<Entry>, Arc<Failure>>,
    ) -> Landing {
        match made {
            Ok(entry) => {
                self.backoffs.forget(&ask.key);
                self.routes
                    .unless_forgotten(&ask.page.route, began, || match lifetime {
                        Some(_) => self.parts.store.replace(entry.clone()),
                        None => self.parts.store.put(entry.clone()),
                    });
                Landing::Stored(entry)
            }
            Err(failure) => {
                let (module, now) = (ask.page.renderer.module(), self.parts.clock.now());
                let revalidate = lifetime.unwrap_or(ask.page.policy.revalidate);
                let jitter = fastrand::f64();
                self.backoffs
                    .failed(&ask.key, module, revalidate, now, &failure, jitter);
                Landing::Failed(failure)
            }
        }
    }

    pub(super) fn report(&self, ask: &Ask, cause: Cause, failure: &Arc<Failure>) {
        let subject = Subject::Generation {
            route: ask.page.route.clone(),
            path: ask.key.to_string(),
            module: ask.page.renderer.module().short(),
            cause: cause.as_str().into(),
        };
        let (kind, message) = (failure.kind.as_str(), failure.to_string());
        let now = self.parts.clock.now();
        self.parts
            .incidents
            .record(now, subject, kind, message, Some(failure.clone()));
    }
}
