//! `Incident`: something that failed while readers were spared, with what a person needs to act.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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

/// Something that failed, once or often: the latest time, and how often there were others like it.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Incident {
    /// Counts up from 1 with each failure, also across restarts where incidents are kept.
    pub id: u64,
    /// When it happened last.
    pub at: Timestamp,
    /// How often it happened: what is alike in route, kind and message is one.
    #[serde(default = "once")]
    pub count: u64,
    /// When it happened first. 0.1.0 kept each on its own, without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first: Option<Timestamp>,
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

/// Bytes of what a guest said and was doing, above which an incident is kept without its backtrace
/// and its outgoing requests. All are bounded one by one, but there may be many of each.
const KEPT_BYTES: usize = 16 << 10;

/// Bytes of a message by which incidents are told apart: beyond it, what differs is a detail.
const ALIKE_BYTES: usize = 300;

/// What has not failed for so long is news when it fails again.
const QUIET: Duration = Duration::from_secs(3_600);

fn once() -> u64 {
    1
}

impl Subject {
    /// The route whose page or listing failed.
    pub fn route(&self) -> Option<&Arc<str>> {
        match self {
            Subject::Generation { route, .. } | Subject::Listing { route } => Some(route),
            Subject::Module { .. } | Subject::Server => None,
        }
    }

    /// What is failing: a route's pages, its list, a file, wisr.
    pub(super) fn place(&self) -> (&'static str, &str) {
        match self {
            Subject::Generation { route, .. } => ("generation", route),
            Subject::Module { file } => ("module", file),
            Subject::Listing { route } => ("listing", route),
            Subject::Server => ("server", ""),
        }
    }
}

impl Incident {
    /// What its message says, but for numbers: a time, an address or the number of a row makes no
    /// other incident of it.
    pub(super) fn gist(&self) -> String {
        let end = self.message.floor_char_boundary(ALIKE_BYTES);
        let mut gist = String::with_capacity(end);
        for part in self.message[..end].split_inclusive(|char: char| !char.is_alphanumeric()) {
            let word = part.trim_end_matches(|char: char| !char.is_alphanumeric());
            if word.contains(|char: char| char.is_ascii_digit()) {
                gist.push('#');
                gist.push_str(&part[word.len()..]);
            } else {
                gist.push_str(part);
            }
        }
        gist
    }

    /// The same thing failed again: `later` is the latest from here on.
    pub(super) fn again(&self, later: Self) -> Self {
        Self {
            count: self.count.saturating_add(later.count),
            first: Some(self.first.unwrap_or(self.at)),
            ..later
        }
    }

    /// Whether the log has it: the first, and after that the tenth, the hundredth and so on, so that
    /// a flood is a few lines; and who comes back after an hour.
    pub(super) fn is_told(&self, before: Option<&Self>) -> bool {
        let power = self.count.checked_ilog10().map_or(0, |log| 10_u64.pow(log));
        self.count == power || before.is_some_and(|before| self.at.since(before.at) > QUIET)
    }

    /// Itself, or as much of it as is kept beyond the life of the process.
    pub(super) fn brief(&self) -> Cow<'_, Self> {
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

/// One line.
pub(super) fn log(incident: &Incident) {
    let (id, kind) = (incident.id, &*incident.kind);
    // Else a guest could write what looks like the next line of the log.
    let mut message = incident.message.replace('\n', "\\n");
    if incident.count > 1 {
        message = format!("{message} ({} times so far)", incident.count);
    }
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
        Subject::Server => tracing::error!(id, kind, "{message}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::{Cost, FailureKind, Fetch, Frame};

    /// What 0.1.0 wrote.
    const OLD: &str = r#"{"id":7,"at":1000,"subject":"generation","route":"/","path":"/","module":"0123456789ab","cause":"stale","kind":"trap","message":"it panicked"}"#;

    /// What this version writes, and so every later one must read.
    const KEPT: &str = r#"{"id":7,"at":1000,"count":3,"first":900,"subject":"generation","route":"/posts/[id]","path":"/posts/1","module":"0123456789ab","cause":"stale","kind":"trap","message":"it panicked","failure":{"kind":"trap","call":"render","message":"it panicked","stderr":"panicked at","frames":[{"function":"f","location":"a.rs:1"}],"cost":{"cpu_us":1,"wall_us":2,"instantiate_us":3,"static_props_us":4,"render_us":5,"encode_us":6,"memory":7,"fetches":[{"method":"GET","url":"http://a/","result":{"Err":"refused"},"duration_us":8,"bytes":9}]}}}"#;

    #[test]
    fn kept_incidents_are_read() {
        let incident: Incident = serde_json::from_str(KEPT).unwrap();
        assert_eq!(serde_json::to_string(&incident).unwrap(), KEPT);
        let incident: Incident = serde_json::from_str(OLD).unwrap();
        assert_eq!((incident.count, incident.first), (1, None));
        for subject in [
            r#"{"subject":"module","file":"a.wasm","id":1,"at":2,"kind":"module","message":"no"}"#,
            r#"{"subject":"listing","route":"/[id]","id":1,"at":2,"kind":"listing","message":"no"}"#,
            r#"{"subject":"server","id":1,"at":2,"kind":"folder","message":"no"}"#,
        ] {
            let incident: Incident = serde_json::from_str(subject).unwrap();
            assert!(incident.failure.is_none(), "{incident:?}");
        }
    }

    fn saying(message: &str) -> Incident {
        Incident {
            message: message.to_owned(),
            ..serde_json::from_str(OLD).unwrap()
        }
    }

    #[test]
    fn numbers_make_no_other_incident_of_it() {
        let alike = saying("render: aborted: row 17 of /posts/7 at 0x1f3a (12.5 ms)").gist();
        assert_eq!(
            alike,
            saying("render: aborted: row 4 of /posts/812 at 0x9 (1.25 ms)").gist()
        );
        assert_ne!(
            alike,
            saying("render: aborted: row 17 of /authors/7 at 0x1f3a (12.5 ms)").gist()
        );
        let long = "é".repeat(ALIKE_BYTES);
        assert_eq!(saying(&format!("{long}a")).gist(), saying(&long).gist());
    }

    #[test]
    fn a_flood_is_a_few_lines() {
        let mut last = saying("x");
        let mut told = vec![last.is_told(None)];
        for step in 1..=1_100 {
            let mut next = saying("x");
            next.at = Timestamp::from_millis(1_000 + step);
            let next = last.again(next);
            told.push(next.is_told(Some(&last)));
            last = next;
        }
        assert_eq!(
            (last.count, last.first),
            (1_101, Some(Timestamp::from_millis(1_000)))
        );
        let lines: Vec<usize> = (1..)
            .zip(told)
            .filter_map(|(count, told)| told.then_some(count))
            .collect();
        assert_eq!(lines, [1, 10, 100, 1_000]);
        let mut late = saying("x");
        late.at = last.at.plus(QUIET + Duration::from_secs(1));
        assert!(last.again(late).is_told(Some(&last)));
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
