//! [`set`] aside: what becomes of a folder that cannot be read.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How many days it is kept for who wants to look at it.
pub(super) const DAYS: u64 = 7;

/// The file in it that was made when it was set aside.
const SINCE: &str = "set-aside";

/// Moves the folder out of the way, over what was set aside before.
pub(super) fn set(folder: &Path) -> io::Result<PathBuf> {
    let aside = place(folder);
    std::fs::write(folder.join(SINCE), "")?;
    match std::fs::remove_dir_all(&aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => std::fs::rename(folder, &aside)?,
    }
    Ok(aside)
}

/// Removes what was set aside long ago. By the clock of the files: one that was set back counts as
/// no time.
pub(super) fn clear(folder: &Path) {
    let aside = place(folder);
    let since = std::fs::metadata(aside.join(SINCE)).and_then(|since| since.modified());
    let age = since.ok().and_then(|since| since.elapsed().ok());
    if age.is_some_and(|age| age > Duration::from_hours(DAYS * 24)) {
        let path = aside.display();
        match std::fs::remove_dir_all(&aside) {
            Ok(()) => tracing::info!("{path} was removed: it was set aside {DAYS} days ago"),
            Err(error) => tracing::warn!("{path} cannot be removed: {error}"),
        }
    }
}

fn place(folder: &Path) -> PathBuf {
    folder.with_extension("damaged")
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
            std::fs::create_dir(&folder).unwrap();
            std::fs::write(folder.join(name), "").unwrap();
            set(&folder).unwrap();
        }
        let aside = site.path().join("store.damaged");
        assert!(aside.join("second").exists() && !aside.join("first").exists());
        clear(&folder);
        assert!(aside.exists());
        let since = File::options().write(true).open(aside.join(SINCE)).unwrap();
        let made = since.metadata().unwrap().modified().unwrap();
        let week = Duration::from_hours(DAYS * 24 + 1);
        since
            .set_times(FileTimes::new().set_modified(made - week))
            .unwrap();
        clear(&folder);
        assert!(!aside.exists());
    }
}
