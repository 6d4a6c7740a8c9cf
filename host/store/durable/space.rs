//! `Space`: how much of a disk pages may take.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::leftovers::entries;

/// Written pages wait in memory up to this, then in a second such table while the first goes to
/// disk.
pub(super) const MEMTABLE: u64 = 16 << 20;

/// Bytes of pages below which a store is of no use: a disk that is nearly full leaves it these.
const LEAST: u64 = 64 << 20;

/// The part of what is free that pages may take, in per cent: whoever asks for ever-new paths must not
/// fill a disk that has other uses, and half of it is more than nearly all sites need.
const DEFAULT_PART: u8 = 50;

/// What pages may take on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Most {
    /// So many bytes.
    Bytes(u64),
    /// So many per cent of what the file system has for the store: what is free, and what the store
    /// has already.
    Part(u8),
    /// All there is.
    Unlimited,
}

/// How a store uses its disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// What pages may take, garbage included. First go pages that no route shows, then those that say
    /// there is none, then those that memory does not hold, of equals the oldest. The journal takes
    /// up to 128 MiB more.
    pub most: Most,
    /// Bytes of written pages that wait in memory for their table.
    pub memtable: u64,
}

impl Default for Space {
    fn default() -> Self {
        Self {
            most: Most::Part(DEFAULT_PART),
            memtable: MEMTABLE,
        }
    }
}

impl Most {
    /// In bytes, for the store in `folder`, which is there; none without a limit.
    ///
    /// # Errors
    /// When the file system does not tell what it has.
    pub(super) fn bytes(self, folder: &Path) -> io::Result<Option<u64>> {
        match self {
            Most::Bytes(bytes) => Ok(Some(bytes)),
            Most::Unlimited => Ok(None),
            Most::Part(percent) => {
                let system = rustix::fs::statvfs(folder)?;
                let free = system.f_bavail.saturating_mul(system.f_frsize);
                let all = free.saturating_add(taken(folder)?);
                Ok(Some((all / 100 * u64::from(percent)).max(LEAST)))
            }
        }
    }
}

/// Bytes that a folder takes on its disk.
fn taken(folder: &Path) -> io::Result<u64> {
    let mut taken = 0_u64;
    for path in entries(folder)? {
        taken += match fs::symlink_metadata(&path) {
            Ok(found) if found.is_dir() => self::taken(&path)?,
            // In blocks of 512 bytes, whatever the file system's are (stat(2)).
            Ok(found) => found.blocks() * 512,
            // The database removes files as it goes.
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(error),
        };
    }
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_the_disk_does_not_shrink_as_the_store_grows() {
        let folder = tempfile::tempdir().unwrap();
        let part = || Most::Part(50).bytes(folder.path()).unwrap().unwrap();
        let before = part();
        fs::create_dir(folder.path().join("pages")).unwrap();
        fs::write(folder.path().join("pages/0"), vec![1; 8 << 20]).unwrap();
        assert_eq!(taken(folder.path()).unwrap() >> 20, 8);
        // Others write to this disk too.
        let other = before.abs_diff(part());
        assert!(other < before / 10, "{before} {other}");
        assert_eq!(Most::Bytes(7).bytes(folder.path()).unwrap(), Some(7));
        assert_eq!(Most::Unlimited.bytes(folder.path()).unwrap(), None);
        assert_eq!(Most::Part(0).bytes(folder.path()).unwrap(), Some(LEAST));
    }
}
