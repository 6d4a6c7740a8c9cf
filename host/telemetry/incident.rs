//! `Incident`: something that failed while readers were spared, with what a person needs to act.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::metrics::IncidentKind;
use crate::page::{Failure, Timestamp};

/// What an incident is about.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
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
        cause: Cow<'static, str>,
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
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Incident {
    /// Counts up from 1, also across restarts where incidents are kept.
    pub id: u64,
    /// When it happened.
    pub at: Timestamp,
    /// What it is about.
    #[serde(flatten)]
    pub subject: Subject,
    /// The failure's kind, or `module`, `conflict`, `listing`.
    pub kind: Cow<'static, str>,
    /// What went wrong and what to do.
    pub message: String,
    /// How the guest ended, if one ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Arc<Failure>>,
}

/// How many incidents are remembered.
const REMEMBERED: usize = 1_000;

/// Bytes of what a guest said and was doing, above which an incident is kept without its backtrace
/// and its outgoing requests. All are bounded one by one, but there may be many of each.
const KEPT_BYTES: usize = 16 << 10;

/// The latest incidents, newest last.
#[derive(Default)]
pub struct Incidents {
    state: Mutex<State>,
    total: Family<IncidentKind, Counter>,
    count: AtomicU64,
    latest: watch::Sender<u64>,
    keeper: Option<Box<Keeper>>,
}

/// Keeps an incident beyond the life of the process, in place of what it kept in that slot.
type Keeper = dyn Fn(usize, &Incident) + Send + Sync;

#[derive(Default)]
struct State {
    last_id: u64,
    kept: VecDeque<Arc<Incident>>,
}

impl Incidents {
    /// No incidents yet; `total` counts them by kind.
    pub fn new(total: Family<IncidentKind, Counter>) -> Self {
        Self {
            total,
            ..Self::default()
        }
    }

    /// Goes on from the incidents of `earlier` runs; `keeper` is told of each further one, and
    /// of the slot that it takes over from the one that is forgotten for it.
    #[must_use]
    pub fn kept_by(
        self,
        mut earlier: Vec<Incident>,
        keeper: impl Fn(usize, &Incident) + Send + Sync + 'static,
    ) -> Self {
        earlier.sort_unstable_by_key(|incident| incident.id);
        let surplus = earlier.len().saturating_sub(REMEMBERED);
        let kept: VecDeque<_> = earlier.into_iter().skip(surplus).map(Arc::new).collect();
        let last_id = kept.back().map_or(0, |incident| incident.id);
        Self {
            state: Mutex::new(State { last_id, kept }),
            keeper: Some(Box::new(keeper)),
            ..self
        }
    }

    /// Remembers and logs an incident; returns its id.
    pub fn record(
        &self,
        at: Timestamp,
        subject: Subject,
        kind: impl Into<Cow<'static, str>>,
        message: impl Into<String>,
        failure: Option<Arc<Failure>>,
    ) -> u64 {
        let mut state = self.state.lock();
        state.last_id += 1;
        let id = state.last_id;
        let incident = Arc::new(Incident {
            id,
            at,
            subject,
            kind: kind.into(),
            message: message.into(),
            failure,
        });
        let kind = incident.kind.clone();
        self.total.get_or_create(&IncidentKind { kind }).inc();
        self.count.fetch_add(1, Ordering::Relaxed);
        log(&incident);
        state.kept.push_back(incident.clone());
        if state.kept.len() > REMEMBERED {
            state.kept.pop_front();
        }
        drop(state);
        if let Some(keep) = &self.keeper {
            let slot = usize::try_from(id % REMEMBERED as u64).unwrap_or(0);
            keep(slot, &incident.brief());
        }
        self.latest.send_replace(id);
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

    /// One that is remembered.
    pub fn find(&self, id: u64) -> Option<Arc<Incident>> {
        let state = self.state.lock();
        let found = state.kept.iter().rev().find(|incident| incident.id == id);
        found.cloned()
    }

    /// The id of the latest one, and of each that follows.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.latest.subscribe()
    }

    /// The latest failure to make the page with this key by this module, if it is remembered.
    pub fn of_page(&self, key: &str, by: &str) -> Option<Arc<Incident>> {
        let is_it = |incident: &&Arc<Incident>| match &incident.subject {
            Subject::Generation { path, module, .. } => path == key && module == by,
            _ => false,
        };
        self.state.lock().kept.iter().rev().find(is_it).cloned()
    }

    /// How many there have been since the start.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }
}

impl Subject {
    /// The route whose page or listing failed.
    pub fn route(&self) -> Option<&Arc<str>> {
        match self {
            Subject::Generation { route, .. } | Subject::Listing { route } => Some(route),
            Subject::Module { .. } | Subject::Server => None,
        }
    }
}

impl Incident {
    /// Itself, or as much of it as is kept beyond the life of the process.
    fn brief(&self) -> Cow<'_, Self> {
        match &self.failure {
            Some(failure) if weight(failure) > KEPT_BYTES => {
                let mut failure = Failure::clone(failure);
                failure.frames.clear();
                failure.cost.fetches.clear();
                Cow::Owned(Self {
                    failure: Some(Arc::new(failure)),
                    ..self.clone()
                })
            }
            _ => Cow::Borrowed(self),
        }
    }
}

/// Bytes of the parts of which there may be many.
fn weight(failure: &Failure) -> usize {
    let frames = failure.frames.iter();
    let frames =
        frames.map(|frame| frame.function.len() + frame.location.as_ref().map_or(0, String::len));
    let fetches = failure.cost.fetches.iter();
    let fetches =
        fetches.map(|fetch| fetch.url.len() + fetch.result.as_ref().err().map_or(0, String::len));
    frames.chain(fetches).sum()
}

fn log(incident: &Incident) {
    let (id, kind) = (incident.id, &*incident.kind);
    // Else a guest could write what looks like the next line of the log.
    let message = incident.message.replace('\n', "\\n");
    match &incident.subject {
        Subject::Generation {
            route,
            path,
            module,
            cause,
        } => {
            let cause = &**cause;
            tracing::warn!(id, kind, %route, path, module, cause, "generation failed: {message}");
        }
        Subject::Module { file } => tracing::warn!(id, kind, file, "module refused: {message}"),
        Subject::Listing { route } => {
            tracing::warn!(id, kind, %route, "static-paths failed: {message}");
        }
        Subject::Server => tracing::error!(id, kind, "{}", incident.message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::{Cost, FailureKind, Fetch, Frame};

    fn record(incidents: &Incidents, message: &str) -> u64 {
        let at = Timestamp::from_millis(7);
        incidents.record(at, Subject::Server, "host", message, None)
    }

    #[test]
    fn the_latest_are_kept_and_ids_go_on() {
        let incidents = Incidents::default();
        for round in 0..REMEMBERED + 10 {
            record(&incidents, &round.to_string());
        }
        assert_eq!(incidents.count(), REMEMBERED as u64 + 10);
        let latest = incidents.latest(usize::MAX);
        assert_eq!(latest.len(), REMEMBERED);
        let ends = (latest[0].id, latest[REMEMBERED - 1].id);
        assert_eq!(ends, (REMEMBERED as u64 + 10, 11));
    }

    #[test]
    fn what_was_kept_comes_back_and_each_slot_holds_one_of_the_latest() {
        let shelf: Arc<Mutex<Vec<Option<Incident>>>> = Arc::default();
        shelf.lock().resize(REMEMBERED, None);
        let open = || {
            let earlier = shelf.lock().iter().flatten().cloned().collect();
            let shelf = shelf.clone();
            Incidents::default().kept_by(earlier, move |slot, incident| {
                shelf.lock()[slot] = Some(incident.clone());
            })
        };
        let first = open();
        for round in 0..REMEMBERED + 5 {
            record(&first, &round.to_string());
        }
        let second = open();
        assert_eq!(second.count(), 0);
        assert_eq!(record(&second, "next"), REMEMBERED as u64 + 6);
        let latest: Vec<u64> = open().latest(usize::MAX).iter().map(|it| it.id).collect();
        let expected: Vec<u64> = (7..=REMEMBERED as u64 + 6).rev().collect();
        assert_eq!(latest, expected);
    }

    /// What this version writes, and so every later one must read.
    const KEPT: &str = r#"{"id":7,"at":1000,"subject":"generation","route":"/posts/[id]","path":"/posts/1","module":"0123456789ab","cause":"stale","kind":"trap","message":"it panicked","failure":{"kind":"trap","call":"render","message":"it panicked","stderr":"panicked at","frames":[{"function":"f","location":"a.rs:1"}],"cost":{"cpu_us":1,"wall_us":2,"instantiate_us":3,"static_props_us":4,"render_us":5,"encode_us":6,"memory":7,"fetches":[{"method":"GET","url":"http://a/","result":{"Err":"refused"},"duration_us":8,"bytes":9}]}}}"#;

    #[test]
    fn kept_incidents_are_read() {
        let incident: Incident = serde_json::from_str(KEPT).unwrap();
        assert_eq!(serde_json::to_string(&incident).unwrap(), KEPT);
        for subject in [
            r#"{"subject":"module","file":"a.wasm","id":1,"at":2,"kind":"module","message":"no"}"#,
            r#"{"subject":"listing","route":"/[id]","id":1,"at":2,"kind":"listing","message":"no"}"#,
            r#"{"subject":"server","id":1,"at":2,"kind":"folder","message":"no"}"#,
        ] {
            let incident: Incident = serde_json::from_str(subject).unwrap();
            assert!(incident.failure.is_none(), "{incident:?}");
        }
    }

    #[test]
    fn an_incident_is_kept_without_what_would_make_it_huge() {
        let mut incident: Incident = serde_json::from_str(KEPT).unwrap();
        assert!(matches!(incident.brief(), Cow::Borrowed(_)));
        let frame = Frame {
            function: "f".repeat(1_000),
            location: None,
        };
        let mut failure = Failure::new(FailureKind::Trap, "render", "it panicked");
        failure.frames = vec![frame; 20];
        failure.cost = Cost {
            memory: 9,
            fetches: Vec::<Fetch>::new(),
            ..Cost::default()
        };
        incident.failure = Some(Arc::new(failure));
        let brief = incident.brief();
        let kept = brief.failure.as_ref().unwrap();
        assert_eq!((kept.frames.len(), kept.cost.memory), (0, 9));
        assert_eq!(kept.message, "it panicked");
    }
}
