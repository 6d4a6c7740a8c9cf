//! `State`: what is held of each file between two passes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::page::Timestamp;

use super::folder::Mark;
use super::load::{Loaded, Retry};
use super::plan::{Candidate, Known};
use super::routed::Routed;
use super::routes::Refusal;

/// When a module is tried again whose failure may have been the machine's.
const RETRY: Duration = Duration::from_secs(30);

/// What the passes so far left behind.
#[derive(Default)]
pub(super) struct State {
    pub(super) files: BTreeMap<PathBuf, Held>,
    /// The files whose routes are in the current table.
    pub(super) seated: BTreeSet<PathBuf>,
    /// The device that the folder was on when it was last read.
    pub(super) device: Option<u64>,
    pub(super) problem: Option<String>,
}

/// A file as the last passes left it.
pub(super) struct Held {
    pub(super) known: Known,
    /// The newest version that passed every check.
    pub(super) routed: Option<Arc<Routed>>,
    /// Why the newest version did not.
    pub(super) refusal: Option<Refusal>,
}

impl State {
    /// Remembers what became of a file. Nothing but a new module takes the place of the old one.
    pub(super) fn note(&mut self, file: PathBuf, mark: Mark, result: Loaded, now: Timestamp) {
        if matches!(result, Loaded::Moving) {
            return;
        }
        let held = self.files.entry(file.clone()).or_insert_with(|| Held {
            known: Known {
                mark: None,
                again: None,
            },
            routed: None,
            refusal: None,
        });
        held.known = Known {
            mark: Some(mark),
            again: None,
        };
        held.refusal = None;
        match result {
            Loaded::New(routed) => held.routed = Some(routed),
            Loaded::Same | Loaded::Moving => {}
            Loaded::Refused { message, retry } => {
                held.known.again = match retry {
                    Retry::Never => None,
                    Retry::Later => Some(now.plus(RETRY)),
                    Retry::Soon => Some(now),
                };
                held.refusal = Some(Refusal::module(file, message));
            }
        }
    }

    /// The modules that ask for a place in the table.
    pub(super) fn candidates(&self) -> Vec<Candidate<Arc<Routed>>> {
        let candidate = |(file, held): (&PathBuf, &Held)| {
            let routed = Arc::clone(held.routed.as_ref()?);
            Some(Candidate {
                seated: self.seated.contains(file),
                file: file.clone(),
                pattern: routed.pattern.clone(),
                value: routed,
            })
        };
        self.files.iter().filter_map(candidate).collect()
    }
}
