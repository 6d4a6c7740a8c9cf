//! `Supervisor`: keeps what runs in the background running.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;

use crate::telemetry::{Clock, Incidents, Subject};

/// The pause before a new start: a bug that comes back at once must not fill the log.
const PAUSE: Duration = Duration::from_secs(10);

/// Where panics in the background are told.
#[derive(Clone)]
pub(super) struct Supervisor {
    clock: Clock,
    incidents: Arc<Incidents>,
}

impl Supervisor {
    pub(super) fn new(clock: Clock, incidents: &Arc<Incidents>) -> Self {
        Self {
            clock,
            incidents: Arc::clone(incidents),
        }
    }

    /// Runs what `begin` makes until it ends of itself. A panic is an incident and a new start:
    /// without it, the server would go on with nobody watching, and nobody would know.
    pub(super) async fn keep<F: Future<Output = ()>>(
        self,
        what: &'static str,
        mut begin: impl FnMut() -> F,
    ) {
        while AssertUnwindSafe(begin()).catch_unwind().await.is_err() {
            let message =
                format!("wisr panicked while {what} (please report it, with what stderr says)");
            self.incidents
                .record(self.clock.now(), Subject::Server, "host", message, None);
            tokio::time::sleep(PAUSE).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_panic_is_an_incident_and_a_new_start() {
        let incidents = Arc::new(Incidents::default());
        let mut starts = 0;
        let work = || {
            starts += 1;
            let attempt = starts;
            async move { assert!(attempt == 3, "told to") }
        };
        let supervisor = Supervisor::new(Clock::system(), &incidents);
        supervisor.keep("counting", work).await;
        assert_eq!((starts, incidents.count()), (3, 2));
        assert!(incidents.latest(1)[0].message.contains("while counting"));
    }
}
