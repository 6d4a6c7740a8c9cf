//! What is told of a generation that has ended: to the incidents, the metrics and the trace.

use std::sync::Arc;

use tokio::time::Instant;

use super::{Ask, Inner};
use crate::page::{Cause, Entry, Failure};
use crate::telemetry::Subject;
use crate::telemetry::metrics::{Ending, OfRoute, RouteOutcome};
use crate::telemetry::trace::{Caller, Made};

impl Inner {
    /// Tells of a generation. `moments` are when it began to wait for its turn, when it began, and
    /// when it ended. What is returned remains to be counted.
    pub(super) fn account(
        &self,
        ask: &Ask,
        cause: Cause,
        caller: &Caller,
        moments: [Instant; 3],
        made: &Result<Arc<Entry>, Arc<Failure>>,
    ) -> Ending {
        let (outcome, cost, failure) = match made {
            Ok(entry) => (entry.content.as_str(), &entry.cost, None),
            Err(failure) => (failure.kind.as_str(), &failure.cost, Some(failure)),
        };
        if let Some(failure) = failure {
            self.report(ask, cause, failure);
        }
        let [_, began, ended] = moments;
        tracing::debug!(
            target: "wisr::cache",
            "generated {} ({}): {outcome} in {} ms",
            ask.key,
            cause.as_str(),
            (ended - began).as_millis()
        );
        let (metrics, seconds) = (&self.parts.metrics, (ended - began).as_secs_f64());
        metrics.generation_seconds.observe(seconds);
        metrics.spent(&ask.page.route, cost);
        let route = ask.page.route.clone();
        let of_route = metrics
            .route_generation_seconds
            .get_or_create_owned(&OfRoute { route });
        of_route.inc_by(seconds);
        let ending = RouteOutcome {
            route: ask.page.route.clone(),
            outcome: if failure.is_some() { "failed" } else { "ok" },
        };
        metrics.route_generations.get_or_create(&ending).inc();
        let told = Made {
            caller,
            route: &ask.page.route,
            path: &ask.path,
            module: ask.page.renderer.module().short(),
            cause: cause.as_str(),
            outcome,
            moments,
            cost,
            failure: failure.map(|failure| &**failure),
        };
        told.tell();
        let cause = cause.as_str();
        Ending { cause, outcome }
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
