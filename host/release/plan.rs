//! `Plan`: what a look at the folder asks for. Pure: values in, decisions out.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::page::Timestamp;
use crate::route::{Pattern, Table};

use super::folder::{Found, Mark, Snapshot};
use super::routes::Refusal;

/// What the last passes learnt of a file.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Known {
    /// The version that was examined last, whether it passed or not.
    pub(super) mark: Option<Mark>,
    /// When to examine that version again: it failed for what may have been a passing reason.
    pub(super) again: Option<Timestamp>,
}

/// What to do with the files of a snapshot.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// Read, check and load these.
    pub(super) load: Vec<(PathBuf, Found)>,
    /// Drop these and their routes.
    pub(super) remove: Vec<PathBuf>,
    /// These are still being written, or were gone only once: look again soon.
    pub(super) wait: Vec<PathBuf>,
}

/// When a file counts as written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// Now, by the host's clock.
    pub(super) now: Timestamp,
    /// A file untouched for this long is whole.
    pub(super) settle: Duration,
}

impl Patience {
    fn is_over(self, mark: &Mark) -> bool {
        let touched = mark.touched();
        // A file from the future is from another machine's clock: that says nothing of its age.
        touched <= self.now && self.now.since(touched) >= self.settle
    }
}

impl Known {
    fn needs(&self, mark: &Mark, now: Timestamp) -> bool {
        self.mark.as_ref() != Some(mark) || self.again.is_some_and(|again| again <= now)
    }
}

/// Whether a plan can be made only after a second look, a settling time later: a file is young, or
/// one is gone, which may be one half of its replacement.
pub(super) fn needs_second_look(
    known: &BTreeMap<PathBuf, Known>,
    seen: &Snapshot,
    patience: Patience,
) -> bool {
    let young = |(file, found): (&PathBuf, &Found)| {
        let is_new = known
            .get(file)
            .is_none_or(|known| known.needs(&found.mark, patience.now));
        is_new && !patience.is_over(&found.mark)
    };
    seen.files.iter().any(young) || known.keys().any(|file| is_gone(file, seen))
}

/// Compares what is known with two looks, a settling time apart unless [`needs_second_look`] said
/// that one is enough.
pub(super) fn plan(
    known: &BTreeMap<PathBuf, Known>,
    first: &Snapshot,
    second: &Snapshot,
    patience: Patience,
) -> Plan {
    let mut plan = Plan::default();
    for (file, found) in &second.files {
        let held = known.get(file);
        if held.is_some_and(|known| !known.needs(&found.mark, patience.now)) {
            continue;
        }
        let was_seen = first
            .files
            .get(file)
            .is_some_and(|before| before.mark == found.mark);
        if was_seen || patience.is_over(&found.mark) {
            plan.load.push((file.clone(), found.clone()));
        } else {
            plan.wait.push(file.clone());
        }
    }
    for file in known.keys().filter(|file| is_gone(file, second)) {
        if is_gone(file, first) {
            plan.remove.push(file.clone());
        } else {
            plan.wait.push(file.clone());
        }
    }
    plan
}

pub(super) fn is_gone(file: &Path, seen: &Snapshot) -> bool {
    !seen.files.contains_key(file) && !seen.is_blind_to(file)
}

/// A module that asks for its place in the table.
pub(super) struct Candidate<T> {
    /// Whether it has the place now: then nobody takes it away.
    pub(super) seated: bool,
    pub(super) file: PathBuf,
    pub(super) pattern: Pattern,
    pub(super) value: T,
}

/// Gives every route its place; of two that claim one, the one that has it keeps it, or else the
/// one whose file sorts first gets it.
pub(super) fn seat<T>(mut candidates: Vec<Candidate<T>>) -> (Table<T>, Vec<Refusal>) {
    candidates.sort_by(|one, two| (!one.seated, &one.file).cmp(&(!two.seated, &two.file)));
    let mut table = Table::new();
    let mut files: HashMap<Pattern, PathBuf> = HashMap::new();
    let mut refused = Vec::new();
    for candidate in candidates {
        match table.insert(candidate.pattern.clone(), candidate.value) {
            Ok(()) => drop(files.insert(candidate.pattern, candidate.file)),
            Err(conflict) => {
                let beside = files
                    .get(&conflict.kept)
                    .map(|file| file.display().to_string());
                let message = format!("{conflict} (kept: {})", beside.unwrap_or_default());
                refused.push(Refusal::conflict(candidate.file, message));
            }
        }
    }
    (table, refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_000_000);
    const PATIENCE: Patience = Patience {
        now: NOW,
        settle: Duration::from_millis(100),
    };

    fn old(len: u64) -> Mark {
        Mark::made_up(len, Timestamp::from_millis(500_000))
    }

    fn young(len: u64) -> Mark {
        Mark::made_up(len, Timestamp::from_millis(999_950))
    }

    fn snapshot(files: &[(&str, Mark)]) -> Snapshot {
        let found = |&(file, mark): &(&str, Mark)| {
            let file = PathBuf::from(file);
            let pattern = Pattern::of_file(&file).unwrap();
            (file, Found { mark, pattern })
        };
        Snapshot {
            files: files.iter().map(found).collect(),
            ..Snapshot::default()
        }
    }

    fn known(files: &[(&str, Mark)]) -> BTreeMap<PathBuf, Known> {
        let known = |&(file, mark): &(&str, Mark)| {
            let (mark, again) = (Some(mark), None);
            (PathBuf::from(file), Known { mark, again })
        };
        files.iter().map(known).collect()
    }

    /// The names of what is loaded, removed and waited for.
    fn decide(
        known: &BTreeMap<PathBuf, Known>,
        first: &Snapshot,
        second: &Snapshot,
    ) -> [String; 3] {
        let plan = plan(known, first, second, PATIENCE);
        let load: Vec<PathBuf> = plan.load.into_iter().map(|(file, _)| file).collect();
        [load, plan.remove, plan.wait].map(|files| {
            let names: Vec<_> = files.iter().map(|file| file.to_str().unwrap()).collect();
            names.join(" ")
        })
    }

    #[test]
    fn only_what_changed_is_loaded() {
        let known = known(&[("a.wasm", old(1)), ("b.wasm", old(1))]);
        let seen = snapshot(&[("a.wasm", old(1)), ("b.wasm", old(2)), ("c.wasm", old(1))]);
        assert!(!needs_second_look(&known, &seen, PATIENCE));
        assert_eq!(decide(&known, &seen, &seen), ["b.wasm c.wasm", "", ""]);
    }

    #[test]
    fn a_growing_file_waits_until_it_is_seen_the_same_twice() {
        let known = known(&[("a.wasm", old(1))]);
        let (half, whole) = (
            snapshot(&[("a.wasm", young(2))]),
            snapshot(&[("a.wasm", young(3))]),
        );
        assert!(needs_second_look(&known, &half, PATIENCE));
        assert_eq!(decide(&known, &half, &whole), ["", "", "a.wasm"]);
        assert_eq!(decide(&known, &whole, &whole), ["a.wasm", "", ""]);
        // A clock ahead of ours must not make a half-written file look old, nor wait for ever.
        let ahead = Mark::made_up(4, Timestamp::from_millis(9_000_000));
        let ahead = snapshot(&[("a.wasm", ahead)]);
        assert_eq!(decide(&known, &whole, &ahead), ["", "", "a.wasm"]);
        assert_eq!(decide(&known, &ahead, &ahead), ["a.wasm", "", ""]);
    }

    #[test]
    fn a_file_is_removed_when_it_is_gone_twice() {
        let known = known(&[("a.wasm", old(1)), ("b.wasm", old(1))]);
        let (with, without) = (
            snapshot(&[("a.wasm", old(1)), ("b.wasm", old(1))]),
            snapshot(&[("b.wasm", old(1))]),
        );
        assert!(needs_second_look(&known, &without, PATIENCE));
        assert_eq!(decide(&known, &without, &without), ["", "a.wasm", ""]);
        assert_eq!(decide(&known, &with, &without), ["", "", "a.wasm"]);
        assert_eq!(decide(&known, &without, &with), ["", "", ""]);
        let replaced = snapshot(&[("a.wasm", young(2)), ("b.wasm", old(1))]);
        assert_eq!(decide(&known, &without, &replaced), ["", "", "a.wasm"]);
    }

    #[test]
    fn what_cannot_be_seen_is_not_gone() {
        let known = known(&[
            ("a.wasm", old(1)),
            ("docs/b.wasm", old(1)),
            ("c.wasm", old(1)),
        ]);
        let mut seen = snapshot(&[]);
        seen.refused
            .push(Refusal::module(PathBuf::from("a.wasm"), "too large"));
        seen.unread.push(PathBuf::from("docs"));
        assert_eq!(decide(&known, &seen, &seen), ["", "c.wasm", ""]);
    }

    #[test]
    fn a_passing_failure_is_tried_again_when_its_time_has_come() {
        let at = |again| {
            let mut known = known(&[("a.wasm", old(1))]);
            known.get_mut(Path::new("a.wasm")).unwrap().again = again;
            let seen = snapshot(&[("a.wasm", old(1))]);
            decide(&known, &seen, &seen)[0].clone()
        };
        assert_eq!(at(None), "");
        assert_eq!(at(Some(NOW)), "a.wasm");
        assert_eq!(at(Some(NOW.plus(Duration::from_millis(1)))), "");
    }

    fn candidate(seated: bool, file: &str) -> Candidate<()> {
        let file = PathBuf::from(file);
        Candidate {
            seated,
            pattern: Pattern::of_file(&file).unwrap(),
            file,
            value: (),
        }
    }

    #[test]
    fn a_newcomer_takes_nobody_s_place() {
        let (table, refused) = seat(vec![
            candidate(false, "posts/[a].wasm"),
            candidate(false, "x.wasm"),
            candidate(true, "posts/[id].wasm"),
            candidate(true, "x/index.wasm"),
            candidate(false, "y.wasm"),
        ]);
        let routes: Vec<_> = table.iter().map(|(pattern, ())| pattern.as_str()).collect();
        assert_eq!(routes, ["/posts/[id]", "/x", "/y"]);
        let named: Vec<_> = refused
            .iter()
            .map(|refusal| refusal.file.to_str().unwrap())
            .collect();
        assert_eq!(named, ["posts/[a].wasm", "x.wasm"]);
        assert!(
            refused[0].message.contains("posts/[id].wasm"),
            "{}",
            refused[0].message
        );
        assert!(
            refused[1].message.contains("x/index.wasm"),
            "{}",
            refused[1].message
        );
    }
}
