//! [`remove`]: what lies in the folder of the store and is not the database's.
//!
//! A process that ends in the midst of something leaves files behind, and so do network file systems,
//! people and wisr 0.1.0, which wrote its own files among those of the database. fjall opens nothing
//! where one of its folders has a file of another name: a leftover would cost all pages. So leftovers
//! are taken out before fjall looks, and of what fjall itself wrote nothing is ever touched.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// What 0.1.0 kept beside the database: copies of its files, and databases that it made anew.
const OURS: [&str; 4] = ["spare", "spare.old", "pages.new", "probe"];

/// Where files go that are neither wisr's nor the database's: somebody may miss them.
const STRAY: &str = "stray";

/// Removes what a process has left in the folder of a store, and moves away what somebody else put
/// into the database's folder; the names of the latter.
///
/// # Errors
/// When the file system refuses.
pub(super) fn remove(folder: &Path) -> io::Result<Vec<String>> {
    let (pages, replaced) = (folder.join("pages"), folder.join("pages.old"));
    if replaced.exists() {
        // 0.1.0 was killed while it put one database in place of another: it was this one's turn.
        if pages.exists() {
            fs::remove_dir_all(&replaced)?;
        } else {
            fs::rename(&replaced, &pages)?;
        }
    }
    for name in OURS {
        remove_any(&folder.join(name))?;
    }
    let mut strays = Vec::new();
    for path in entries(folder)? {
        if is_temporary(name(&path)) {
            remove_any(&path)?;
        }
    }
    for path in entries(&pages)? {
        take_out(&path, is_of_the_database, folder, &mut strays)?;
    }
    for keyspace in entries(&pages.join("keyspaces"))? {
        if !keyspace.is_dir() {
            continue;
        }
        if !is_numbered(name(&keyspace)) {
            take_out(&keyspace, |_| false, folder, &mut strays)?;
            continue;
        }
        for path in entries(&keyspace)? {
            take_out(&path, |_| true, folder, &mut strays)?;
        }
        for records in ["tables", "blobs"] {
            for path in entries(&keyspace.join(records))? {
                let is_one = |path: &Path| is_numbered(name(path)) && !path.is_dir();
                take_out(&path, is_one, folder, &mut strays)?;
            }
        }
    }
    Ok(strays)
}

/// Removes a temporary file, and moves away what the database would stumble over.
fn take_out(
    path: &Path,
    is_known: impl Fn(&Path) -> bool,
    folder: &Path,
    strays: &mut Vec<String>,
) -> io::Result<()> {
    if is_temporary(name(path)) {
        return remove_any(path);
    }
    if is_known(path) {
        return Ok(());
    }
    let told = path.strip_prefix(folder).unwrap_or(path).to_string_lossy();
    let place = folder.join(STRAY);
    fs::create_dir_all(&place)?;
    let place = place.join(told.replace('/', "-"));
    remove_any(&place)?;
    fs::rename(path, place)?;
    strays.push(told.into_owned());
    Ok(())
}

/// Whether the database can live with a file beside its journals: it asks that every name is text,
/// and that of a journal a number.
fn is_of_the_database(path: &Path) -> bool {
    let Some(text) = name(path).to_str() else {
        return false;
    };
    let is_journal = Path::new(text)
        .extension()
        .is_some_and(|end| end.eq_ignore_ascii_case("jnl"));
    !is_journal || (journal_number(path).is_some() && !path.is_dir())
}

/// The number of a journal, by the name of its file.
pub(super) fn journal_number(path: &Path) -> Option<u64> {
    let number = name(path).to_str()?.strip_suffix(".jnl")?;
    is_numbered(OsStr::new(number))
        .then(|| number.parse().ok())
        .flatten()
}

fn is_numbered(name: &OsStr) -> bool {
    let number = name.to_str().and_then(|name| name.parse::<u64>().ok());
    number.is_some_and(|number| name == number.to_string().as_str())
}

/// Whether a file was on its way to its name: those of 0.1.0 and of fjall begin alike. (0.1.0 wrote
/// journals anew under another ending.)
fn is_temporary(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    name.starts_with(".tmp") || name.ends_with(".mended")
}

fn name(path: &Path) -> &OsStr {
    path.file_name().unwrap_or_default()
}

/// What is in a folder; nothing, where there is none.
pub(super) fn entries(folder: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        entries => entries?.map(|entry| Ok(entry?.path())).collect(),
    }
}

/// Removes a file or a folder, if it is there.
pub(super) fn remove_any(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_database_wrote_stays_and_everything_else_goes() {
        let folder = tempfile::tempdir().unwrap();
        let put = |name: &str| {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, name).unwrap();
        };
        let its_own = [
            "format",
            "lock",
            "pages/0.jnl",
            "pages/keyspaces/0/current",
            "pages/keyspaces/0/tables/0",
            "pages/keyspaces/1/blobs/12",
            "pages/keyspaces/1/v7",
            "pages/lock",
            "pages/version",
        ];
        let temporary = [
            ".tmpABC",
            "pages/.tmpABC",
            "pages/0.mended",
            "pages/keyspaces/0/.tmpABC",
            "pages/keyspaces/0/tables/.tmpABC",
            "pages.new/version",
            "probe",
            "spare/pages/keyspaces/0/tables/.tmpABC",
            "spare.old/format",
        ];
        let strays = [
            "pages/copy.jnl",
            "pages/07.jnl",
            "pages/keyspaces/1/blobs/.nfs0001",
            "pages/keyspaces/1/tables/+4",
            "pages/keyspaces/copy",
        ];
        for name in its_own.iter().chain(&temporary).chain(&strays[..4]) {
            put(name);
        }
        put("pages/keyspaces/copy/current");
        let mut moved = remove(folder.path()).unwrap();
        moved.sort_unstable();
        let mut expected = strays;
        expected.sort_unstable();
        assert_eq!(moved, expected);
        let mut left = Vec::new();
        let mut folders = vec![folder.path().to_owned()];
        while let Some(next) = folders.pop() {
            for path in entries(&next).unwrap() {
                if path.is_dir() {
                    folders.push(path);
                } else {
                    let name = path.strip_prefix(folder.path()).unwrap();
                    left.push(name.to_string_lossy().into_owned());
                }
            }
        }
        left.retain(|name| !name.starts_with(STRAY));
        left.sort_unstable();
        assert_eq!(left, its_own);
        assert_eq!(remove(folder.path()).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn a_database_that_0_1_0_was_replacing_is_not_lost() {
        let folder = tempfile::tempdir().unwrap();
        let old = folder.path().join("pages.old");
        fs::create_dir(&old).unwrap();
        fs::write(old.join("version"), "3").unwrap();
        remove(folder.path()).unwrap();
        assert!(folder.path().join("pages/version").exists());
        fs::create_dir(&old).unwrap();
        remove(folder.path()).unwrap();
        assert!(!old.exists() && folder.path().join("pages/version").exists());
    }
}
