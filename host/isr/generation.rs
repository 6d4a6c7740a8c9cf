//! One generation: joined or started, run in a task of its own, landed, stored or told of.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::flight::{Claim, Landing, Permit, Wait};
use super::queue::{NoSlot, Priority, Slot};
use super::share::{Audience, Claimed};
use super::{Ask, Inner, Refused, make};
use crate::page::{Cause, Entry, Failure, Revalidate};
use crate::telemetry::metrics::{Ending, Phase};
use crate::telemetry::trace::Caller;

/// Waiting for a turn, which is no part of what it cost.
const QUEUE: Phase = Phase { phase: "queue" };

/// How often a generation is asked for whose module turns out to be taken back: by this host, and
/// by others that make the page at the same time.
const TRIES: usize = 3;

/// A turn to generate.
pub(super) struct Turn {
    pub(super) slot: Slot,
    /// Since when it was waited for.
    pub(super) queued: Instant,
    /// On whose behalf.
    pub(super) caller: Caller,
    pub(super) audience: Audience,
}

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
                self.parts.runtime.spawn(self.clone().fly(
                    permit,
                    ask,
                    cause,
                    before,
                    Caller::here(),
                ));
                (wait, true)
            }
        }
    }

    /// What a generation made that reads its data after the invalidation `least`, waited for; and
    /// whether it was started. One that began before a rollback took its module back is not it.
    pub(super) async fn make(
        self: &Arc<Self>,
        before: Before,
        ask: &Ask,
        least: u64,
        (priority, cause): (Priority, Cause),
        patience: Duration,
    ) -> Result<(Arc<Entry>, bool), Refused> {
        for _ in 0..TRIES {
            let (wait, led) = self.launch_after(before, ask.clone(), least, priority, cause);
            let entry = self.landed(wait, patience).await?;
            if !self.is_withdrawn(ask, &entry) {
                return Ok((entry, led));
            }
        }
        Err(self.overloaded())
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
    async fn fly(
        self: Arc<Self>,
        mut permit: Permit,
        ask: Ask,
        cause: Cause,
        before: Before,
        caller: Caller,
    ) {
        let metrics = &self.parts.metrics;
        permit.turn().await;
        let queued = Instant::now();
        let forgotten = self.routes.forgotten();
        let lease = match self.claim_of_all(&permit, &ask, before).await {
            Claimed::Lead(lease) => Some(lease),
            Claimed::Alone => None,
            Claimed::Made(entry) => {
                // Another host has made it: it was there.
                ask.toll.iter().for_each(|toll| toll.give_back());
                return self.land_made(permit, &ask, forgotten, entry);
            }
        };
        permit.asked();
        let slot = loop {
            let route = &ask.page.route;
            match self.queue.enter(permit.ticket(), route).await {
                Ok(slot) => break slot,
                Err(NoSlot::Full) => {
                    metrics.generations_refused.inc();
                    ask.toll.iter().for_each(|toll| toll.give_back());
                    return permit.land(|| Landing::Overloaded);
                }
                Err(NoSlot::Left) if permit.leave() => return,
                // Somebody has joined it since.
                Err(NoSlot::Left) => {}
            }
        };
        let phase = metrics.generation_phase_seconds.get_or_create_owned(&QUEUE);
        phase.observe(queued.elapsed().as_secs_f64());
        let sequence = permit.begin(|| self.parts.store.sequence());
        let previous = match before {
            Before::Unknown => self.known(&ask).await,
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
        let turn = Turn {
            slot,
            queued,
            caller,
            audience: Audience::Everybody(lease),
        };
        let made = self.generate(&ask, cause, sequence, previous.as_deref(), turn);
        let (made, ending) = made.await;
        let lifetime = previous.map(|entry| entry.stamp.revalidate);
        permit.land(|| self.settle(&ask, forgotten, lifetime, made));
        // Last: who sees the count also sees what came of the generation.
        metrics.generations.get_or_create(&ending).inc();
    }

    /// Has the page made in its turn, and tells of it. The ending is to be counted once everything
    /// that follows from it has happened.
    pub(super) async fn generate(
        &self,
        ask: &Ask,
        cause: Cause,
        sequence: u64,
        previous: Option<&Entry>,
        turn: Turn,
    ) -> (Result<Arc<Entry>, Arc<Failure>>, Ending) {
        let started = Instant::now();
        let mut made = make::make(ask, cause, sequence, previous, &self.parts.clock).await;
        drop(turn.slot);
        let ended = Instant::now();
        match &mut made {
            Ok(entry) => entry.cost.queue = started - turn.queued,
            Err(failure) => failure.cost.queue = started - turn.queued,
        }
        let made = self.shared(turn.audience, made).await.map_err(Arc::new);
        let moments = [turn.queued, started, ended];
        let ending = self.account(ask, cause, &turn.caller, moments, &made);
        (made, ending)
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
                let by = (&*ask.page.route, entry.stamp.module);
                self.routes.unless_forgotten(by, began, || match lifetime {
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
}
