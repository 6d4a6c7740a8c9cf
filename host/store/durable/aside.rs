//! [`set`] aside: what becomes of a store that cannot be opened, and how far its pages have come back.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::leftovers::{entries, remove_any};
use super::open::Damage;

/// How many days it is kept for who wants to look at it.
const DAYS: u64 = 7;

/// How many are kept: a disk that damages each store must not be filled with them.
const AT_MOST: usize = 3;

/// The file in it that was made when it was set aside, and says why. 0.1.0 left it empty.
const SINCE: &str = "set-aside";

/// The file in it that says how its pages come back, once all that was there counts as stale.
const BEGUN: &str = "begun";

/// The file in it that says that nothing of it is waited for any more.
const CLOSED: &str = "closed";

/// How far pages that come back are trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trust {
    /// What was removed is known: they are shown once more, and renewed.
    Stale,
    /// A removal may be lost: each is made anew before it is shown, and shown only if that fails.
    Doubted,
}

impl Trust {
    fn as_str(self) -> &'static str {
        match self {
            Trust::Stale => "stale",
            Trust::Doubted => "doubted",
        }
    }
}

/// Moves the folder out of the way; where to.
///
/// # Errors
/// When the file system refuses.
pub(super) fn set(folder: &Path, damage: &Damage) -> io::Result<PathBuf> {
    let mut earlier = all(folder)?;
    while earlier.len() >= AT_MOST {
        remove_any(&earlier.remove(0))?;
    }
    let place = (1..).map(|number| place(folder, number));
    let place = place.into_iter().find(|place| !place.exists());
    let place = place.unwrap_or_else(|| folder.with_extension("damaged"));
    for state in [BEGUN, CLOSED] {
        remove_any(&folder.join(state))?;
    }
    if *damage == Damage::JournalCut {
        // What it has lost does not show any more when it is opened again.
        begin(folder, Trust::Doubted)?;
    }
    fs::write(folder.join(SINCE), format!("{damage}\n"))?;
    fs::rename(folder, &place)?;
    Ok(place)
}

/// What was set aside of late, and whose pages have not come back yet; the newest first.
///
/// # Errors
/// When the file system refuses.
pub(super) fn pending(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = all(folder)?;
    found.retain(|aside| age(aside) <= WEEK && !aside.join(CLOSED).exists());
    found.reverse();
    Ok(found)
}

/// Whether this wisr or a later one set it aside: then more than leftovers was wrong.
pub(super) fn is_ours(aside: &Path) -> bool {
    fs::metadata(aside.join(SINCE)).is_ok_and(|since| since.len() > 0)
}

/// How pages of it come back, if that was begun.
pub(super) fn trust(aside: &Path) -> Option<Trust> {
    let begun = fs::read_to_string(aside.join(BEGUN)).ok()?;
    let all = [Trust::Stale, Trust::Doubted];
    let trust = all.into_iter().find(|trust| trust.as_str() == begun);
    Some(trust.unwrap_or(Trust::Doubted))
}

/// Notes how pages of it come back.
///
/// # Errors
/// When the file system refuses.
pub(super) fn begin(aside: &Path, trust: Trust) -> io::Result<()> {
    fs::write(aside.join(BEGUN), trust.as_str())
}

/// Notes that nothing of it is waited for any more.
///
/// # Errors
/// When the file system refuses.
pub(super) fn close(aside: &Path, why: &str) -> io::Result<()> {
    fs::write(aside.join(CLOSED), why)
}

/// Removes what was set aside long ago. By the clock of the files: one that was set back counts as
/// no time.
pub(super) fn clear(folder: &Path) {
    let found = all(folder).unwrap_or_default();
    for aside in found.iter().filter(|aside| age(aside) > WEEK) {
        let path = aside.display();
        match fs::remove_dir_all(aside) {
            Ok(()) => tracing::info!("{path} was removed: it was set aside {DAYS} days ago"),
            Err(error) => tracing::warn!("{path} cannot be removed: {error}"),
        }
    }
}

const WEEK: Duration = Duration::from_hours(DAYS * 24);

/// All that was set aside, the oldest first.
fn all(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let stem = place(folder, 1);
    let mut found = entries(folder.parent().unwrap_or(folder))?;
    found.retain(|path| {
        let begins = |name: &str| name.starts_with(&*stem.to_string_lossy());
        path.is_dir() && begins(&path.to_string_lossy()) && path.join(SINCE).exists()
    });
    found.sort_by_key(|path| std::cmp::Reverse(age(path)));
    Ok(found)
}

fn age(aside: &Path) -> Duration {
    let since = fs::metadata(aside.join(SINCE)).and_then(|since| since.modified());
    let age = since.ok().and_then(|since| since.elapsed().ok());
    age.unwrap_or_default()
}

fn place(folder: &Path, number: usize) -> PathBuf {
    match number {
        1 => folder.with_extension("damaged"),
        number => folder.with_extension(format!("damaged-{number}")),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{File, FileTimes};

    use super::*;

    #[test]
    fn what_was_set_aside_is_kept_for_a_week() {
        let site = tempfile::tempdir().unwrap();
        let folder = site.path().join("store");
        for name in ["first", "second"] {
            fs::create_dir(&folder).unwrap();
            fs::write(folder.join(name), "").unwrap();
            set(&folder, &Damage::JournalGone).unwrap();
        }
        let [first, second] =
            ["store.damaged", "store.damaged-2"].map(|name| site.path().join(name));
        assert!(first.join("first").exists() && second.join("second").exists());
        clear(&folder);
        assert!(first.exists() && second.exists());
        let since = File::options().write(true).open(first.join(SINCE)).unwrap();
        let made = since.metadata().unwrap().modified().unwrap();
        let week = WEEK + Duration::from_hours(1);
        since
            .set_times(FileTimes::new().set_modified(made - week))
            .unwrap();
        clear(&folder);
        assert!(!first.exists() && second.exists());
    }

    #[test]
    fn a_disk_that_damages_every_store_is_not_filled_with_them() {
        let site = tempfile::tempdir().unwrap();
        let folder = site.path().join("store");
        for _ in 0..9 {
            fs::create_dir(&folder).unwrap();
            set(&folder, &Damage::JournalGone).unwrap();
        }
        assert_eq!(all(&folder).unwrap().len(), AT_MOST);
    }
}
