//! `Releases::settle`: from what is held of the folder to the release that is served.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use crate::telemetry::Subject;

use super::archive::Tidied;
use super::history::{Files, History, How, Record, page_of};
use super::releases::Releases;
use super::routed::Route;
use super::routes::{Refusal, Release};
use super::state::State;

/// What the next release is made of.
pub(super) struct Step {
    pub(super) how: How,
    /// While a rollback holds: what is served for it, and what lay in the folder when it began.
    pub(super) hold: Option<(Arc<[Route]>, Files)>,
    /// What of the folder was refused before it was looked into.
    pub(super) refused: Vec<Refusal>,
}

impl Releases {
    /// Makes what is held after a look at the folder the current release. Whether the routes
    /// changed.
    pub(super) async fn settle(&self, state: &mut State, refused: Vec<Refusal>) -> bool {
        let held = self.history().held().cloned();
        let held = held.map(|held| state.folder_at_rollback(held));
        let hold = state.hold.clone().zip(held);
        // Until the folder changes; a refused file changes nothing.
        let hold = hold.filter(|(_, held)| *held == state.folder());
        if hold.is_none() {
            state.end_trials();
        }
        let how = match state.has_returned {
            true => How::Returned,
            false => How::Folder,
        };
        self.publish(state, Step { how, hold, refused }).await
    }

    /// Makes the next release and swaps it in, if it is another than the current one. Whether the
    /// routes changed. Cancelled, it has changed nothing, except that pages that the next release
    /// does not have may be forgotten already.
    pub(super) async fn publish(&self, state: &mut State, step: Step) -> bool {
        let Step { how, hold, refused } = step;
        let (hold, held) = hold.unzip();
        let mut next = self.assemble(state, hold.as_deref(), refused);
        self.tell(state, &next);
        let before = self.history();
        let mut history = History::clone(&before);
        history.set_pending(match held {
            Some(_) => state.pending.clone(),
            None => BTreeMap::new(),
        });
        history.set_held(held);
        history.set_device(state.device);
        let (trials, fallen) = state.trials();
        history.set_trials(trials, fallen);
        let files = next.files();
        let is_same = before
            .current()
            .is_some_and(|record| *record.files == files);
        let current = self.current();
        let is_served = is_same && current.has_routes_of(&next);
        let mut forgotten = BTreeSet::new();
        if !is_same {
            if let How::Rollback { of } = how {
                history.withdraw(of);
            }
            let dropped = history.push(next.at, how, files);
            // Also what is refused: its file is there.
            let present = state
                .files
                .keys()
                .filter_map(|file| page_of(file))
                .collect();
            forgotten = gone(&before, &mut history, dropped.as_ref(), &present);
        }
        if !is_served {
            self.announce(&next, &history, forgotten).await;
        }
        if let Some(record) = history.current() {
            (next.id, next.at) = (record.id, record.at);
        }
        let history = Arc::new(history);
        self.save(state, &history).await;
        self.history.store(history);
        if hold.is_none() {
            state.pending.clear();
        }
        state.hold = hold;
        state.has_returned = false;
        if is_served && current.refused == next.refused {
            return false;
        }
        state.seated = next.files().into_keys().collect();
        let (release, routes, how) = (next.id, next.len(), how.as_str());
        self.current.store(Arc::new(next));
        if !is_served {
            self.changed.send_replace(release);
        }
        if is_same {
            return false;
        }
        tracing::info!(release, routes, how, "release");
        let spare = current.all();
        let spare = spare.map(|route| ((route.file().clone(), route.digest()), route));
        state.spare.extend(spare);
        self.tidy(state).await;
        true
    }

    /// The next release, without an id.
    fn assemble(&self, state: &State, hold: Option<&[Route]>, refused: Vec<Refusal>) -> Release {
        let routes = hold.map_or_else(|| state.routes(), <[Route]>::to_vec);
        let mut next = state.seat(routes, self.loader.clock.now());
        next.refused.extend(refused);
        let own = state.files.values().filter_map(|held| held.refusal.clone());
        next.refused.extend(own);
        next.refused.sort_unstable();
        next
    }

    /// Tells of what is refused for the first time.
    fn tell(&self, state: &mut State, next: &Release) {
        let current = self.load();
        let own: BTreeSet<&Refusal> = state
            .files
            .values()
            .flat_map(|held| &held.refusal)
            .collect();
        let others = next.refused.iter().filter(|refusal| !own.contains(refusal));
        let others = others.filter(|refusal| !current.refused.contains(refusal));
        for refusal in others.chain(&state.news) {
            let file = refusal.file.display().to_string();
            self.record(
                refusal.kind,
                Subject::Module { file },
                refusal.message.clone(),
            );
        }
        state.news.clear();
    }

    /// Writes the history, if it is another than the one on disk. A disk that fails keeps nothing
    /// from being served; that is told once, and tried again at each pass.
    async fn save(&self, state: &mut State, history: &Arc<History>) {
        let Some(archive) = self.loader.archive.clone() else {
            return;
        };
        let mut trouble = self.loader.unkept.lock().take();
        if state.saved.as_ref() != Some(history) {
            let written = Arc::clone(history);
            // Who is cancelled here leaves it open which one is on disk.
            state.saved = None;
            let writing = tokio::task::spawn_blocking(move || archive.keep_history(&written));
            match writing.await {
                Ok(Ok(())) => state.saved = Some(Arc::clone(history)),
                Ok(Err(unkept)) => trouble = Some(unkept),
                // The runtime is shutting down.
                Err(_) => return,
            }
        }
        match trouble {
            Some(trouble) if !state.is_unkept => {
                state.is_unkept = true;
                let message = format!(
                    "releases are not kept on disk: {trouble}. They are served all the same; until \
                     the folder can be written to, the way back to a module is in memory only"
                );
                self.record("releases", Subject::Server, message);
            }
            None if state.is_unkept => {
                state.is_unkept = false;
                tracing::info!("the history of releases is kept on disk again");
            }
            _ => {}
        }
    }

    /// Removes the modules that no remembered release needs, and holds those in memory that the
    /// archive does not have.
    pub(super) async fn tidy(&self, state: &mut State) {
        let needed = self.history().modules();
        let (archive, engine) = (self.loader.archive.clone(), self.loader.engine.clone());
        let tidying = tokio::task::spawn_blocking(move || {
            let compiled = engine.tidy(&needed);
            let tidied = match archive {
                Some(archive) => archive.tidy(&needed),
                None => Tidied {
                    missing: needed,
                    removed: (0, 0),
                },
            };
            (tidied, compiled)
        });
        // The runtime is shutting down.
        let Ok((tidied, compiled)) = tidying.await else {
            return;
        };
        let (modules, bytes) = tidied.removed;
        if modules + compiled.0 > 0 {
            let (artifacts, bytes) = (compiled.0, bytes + compiled.1);
            tracing::info!(modules, artifacts, bytes, "removed what no release needs");
        }
        let missing = tidied.missing;
        let is_missing = |(_, digest): &(PathBuf, _)| missing.contains(digest);
        state.spare.retain(|key, _| is_missing(key));
    }
}

/// Whose pages the next release must not show again: a route whose file was gone and comes back
/// begins empty, and a route that no remembered release has, nor the folder, is gone for good.
/// Of routes that nobody remembers it is not known that they are gone.
fn gone(
    before: &History,
    after: &mut History,
    dropped: Option<&Record>,
    present: &BTreeSet<Arc<str>>,
) -> BTreeSet<Arc<str>> {
    let mut gone = BTreeSet::new();
    if let Some(next) = after.current()
        && !matches!(next.how, How::Rollback { .. })
    {
        gone.extend(next.routes().filter(|route| before.gone().contains(route)));
    }
    after.note_gone(before.current(), present);
    if let Some(dropped) = dropped {
        let kept = after.routes();
        let lost = dropped.routes();
        gone.extend(lost.filter(|route| !kept.contains(route) && !present.contains(route)));
    }
    gone
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::{Digest, Timestamp};

    /// Publishes the routes of these files, which are all that the folder has, and says whose
    /// pages go.
    fn next(history: &mut History, how: How, names: &[&str]) -> BTreeSet<Arc<str>> {
        next_of(history, how, names, names)
    }

    /// The same where the folder has other files.
    fn next_of(
        history: &mut History,
        how: How,
        names: &[&str],
        folder: &[&str],
    ) -> BTreeSet<Arc<str>> {
        let file = |name: &&str| PathBuf::from(format!("{name}.wasm"));
        let files = names
            .iter()
            .map(|name| (file(name), Digest::of(name.as_bytes())));
        let before = history.clone();
        let dropped = history.push(Timestamp::from_millis(0), how, files.collect());
        let present = folder.iter().filter_map(|name| page_of(&file(name)));
        gone(&before, history, dropped.as_ref(), &present.collect())
    }

    fn these(routes: &[&str]) -> BTreeSet<Arc<str>> {
        routes.iter().map(|route| Arc::from(*route)).collect()
    }

    #[test]
    fn a_route_begins_empty_when_its_file_comes_back() {
        let mut history = History::default();
        next(&mut history, How::Folder, &["a", "b", "api/x"]);
        assert_eq!(next(&mut history, How::Folder, &["a"]), these(&[]));
        // One that was never there has nothing to forget.
        assert_eq!(next(&mut history, How::Folder, &["a", "c"]), these(&[]));
        let back = next(&mut history, How::Folder, &["a", "b", "api/x"]);
        assert_eq!(back, these(&["/b"]));
        // It is known once.
        assert_eq!(next(&mut history, How::Folder, &["a", "b"]), these(&[]));
    }

    #[test]
    fn a_route_whose_file_is_refused_keeps_its_pages() {
        let mut history = History::default();
        next(&mut history, How::Folder, &["a", "b"]);
        for round in 2..=12 {
            let added = format!("c{round}");
            let (served, folder) = (["a", &added], ["a", "b", &added]);
            let gone = next_of(&mut history, How::Folder, &served, &folder);
            assert!(!gone.contains("/b"), "{round}");
        }
        let back = next(&mut history, How::Folder, &["a", "b", "c12"]);
        assert!(!back.contains("/b"), "{back:?}");
    }

    #[test]
    fn a_rollback_brings_pages_back() {
        let mut history = History::default();
        next(&mut history, How::Folder, &["a", "b"]);
        next(&mut history, How::Folder, &["a"]);
        let rollback = How::Rollback { of: 1 };
        let back = next_of(&mut history, rollback, &["a", "b"], &["a"]);
        assert_eq!(back, these(&[]));
        // It takes nothing from the folder's own routes.
        next(&mut history, How::Folder, &["a", "c"]);
        next_of(&mut history, rollback, &["a", "b"], &["a", "c"]);
        let back = next(&mut history, How::Folder, &["a", "c"]);
        assert_eq!(back, these(&[]));
    }

    #[test]
    fn a_route_is_gone_for_good_with_the_last_release_that_has_it() {
        let mut history = History::default();
        next(&mut history, How::Folder, &["a", "b"]);
        for round in 2..=10 {
            let added = format!("c{round}");
            let gone = next(&mut history, How::Folder, &["a", &added]);
            assert_eq!(gone, these(&[]), "{round}");
        }
        let eleventh = next(&mut history, How::Folder, &["a"]);
        assert_eq!(eleventh, these(&["/b"]));
    }

    #[test]
    fn the_first_release_does_not_know_which_routes_are_gone() {
        let first = next(&mut History::default(), How::Folder, &["a", "api/x"]);
        assert_eq!(first, these(&[]));
    }
}
