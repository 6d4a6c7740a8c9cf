//! `Incident`: something that failed while readers were spared, with what a person needs to act.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use serde::Serialize;

use crate::page::{Failure, Timestamp};

/// What an incident is about.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "subject", rename_all = "kebab-case")]
pub enum Subject {
    /// A generation that made no page.
    Generation {
        /// The route.
        route: Arc<str>,
        /// The page.
        path: String,
        /// The module's short digest.
        module: String,
        /// Why the generation ran.
        cause: &'static str,
    },
    /// A file in the folder of modules that was refused.
    Module {
        /// The file, relative to the folder.
        file: String,
    },
    /// A route whose paths could not be listed.
    Listing {
        /// The route.
        route: Arc<str>,
    },
    /// wisr itself.
    Server,
}

/// One thing that failed.
#[derive(Debug, Clone, Serialize)]
pub struct Incident {
    /// Counts up from 1 since the start.
    pub id: u64,
    /// When it happened.
    pub at: Timestamp,
    /// What it is about.
    #[serde(flatten)]
    pub subject: Subject,
    /// The failure's kind, or `module`, `conflict`, `listing`.
    pub kind: &'static str,
    /// What went wrong and what to do.
    pub message: String,
    /// How the guest ended, if one ran.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<Arc<Failure>>,
}

/// How many incidents are remembered.
const KEPT: usize = 1_000;

/// The latest incidents, newest last.
#[derive(Debug, Default)]
pub struct Incidents {
    state: Mutex<State>,
    total: Counter,
}

#[derive(Debug, Default)]
struct State {
    last_id: u64,
    kept: VecDeque<Arc<Incident>>,
}

impl Incidents {
    /// No incidents yet; `total` counts them.
    pub fn new(total: Counter) -> Self {
        Self {
            state: Mutex::default(),
            total,
        }
    }

    /// Remembers and logs an incident; returns its id.
    pub fn record(
        &self,
        at: Timestamp,
        subject: Subject,
        kind: &'static str,
        message: impl Into<String>,
        failure: Option<Arc<Failure>>,
    ) -> u64 {
        let mut state = self.state.lock();
        state.last_id += 1;
        let id = state.last_id;
        let incident = Incident {
            id,
            at,
            subject,
            kind,
            message: message.into(),
            failure,
        };
        self.total.inc();
        log(&incident);
        state.kept.push_back(Arc::new(incident));
        if state.kept.len() > KEPT {
            state.kept.pop_front();
        }
        id
    }

    /// The latest `limit` incidents, newest first.
    pub fn latest(&self, limit: usize) -> Vec<Arc<Incident>> {
        self.state
            .lock()
            .kept
            .iter()
            .rev()
            .take(limit)
            .cloned()
            .collect()
    }

    /// How many there have been since the start.
    pub fn count(&self) -> u64 {
        self.state.lock().last_id
    }
}

fn log(incident: &Incident) {
    let (id, kind, message) = (incident.id, incident.kind, &incident.message);
    match &incident.subject {
        Subject::Generation {
            route,
            path,
            module,
            cause,
        } => {
            tracing::warn!(id, kind, %route, path, module, cause, "generation failed: {message}");
        }
        Subject::Module { file } => tracing::warn!(id, kind, file, "module refused: {message}"),
        Subject::Listing { route } => {
            tracing::warn!(id, kind, %route, "static-paths failed: {message}");
        }
        Subject::Server => tracing::error!(id, kind, "{message}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_are_kept_and_ids_go_on() {
        let incidents = Incidents::default();
        for round in 0..KEPT + 10 {
            let at = Timestamp::from_millis(round as u64);
            incidents.record(at, Subject::Server, "host", round.to_string(), None);
        }
        assert_eq!(incidents.count(), KEPT as u64 + 10);
        let latest = incidents.latest(usize::MAX);
        assert_eq!(latest.len(), KEPT);
        assert_eq!((latest[0].id, latest[KEPT - 1].id), (KEPT as u64 + 10, 11));
    }
}
