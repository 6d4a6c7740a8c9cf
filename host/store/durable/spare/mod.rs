//! `Spares`: second copies of what finds the records on disk.
//!
//! A record tells itself whether it is whole. What says where records are does not, and without one
//! byte of it fjall opens nothing, or, worse, an older state. It is small, and nothing of it changes
//! once it is written: so there is a copy of each part with a checksum, and where a part differs
//! from its copy, it is put back.
//!
//! | below the folder of the store | copied |
//! |---|---|
//! | `format`, `pages/version` | whole |
//! | `pages/keyspaces/0/tables/*`, which name the keyspace | whole |
//! | `pages/keyspaces/*/vN`, which list tables and body files | whole, of the N that `current` names |
//! | `pages/keyspaces/1/{tables,blobs}/*` | what follows the records: index, filter, summary |
//!
//! `current` holds the number and the checksum of `vN`, which fjall writes and does not compare: an
//! older list would bring deleted pages back. It is compared here. A list that changed is put back
//! only if no later one was begun since; otherwise nothing is guessed, and the store counts as
//! unreadable.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use super::open::remove;

/// What a copy begins with, and the version of its layout.
const MAGIC: [u8; 5] = *b"WISs\x01";

/// Bytes of a checksum, XXH3 of 128 bits, with which a copy ends.
const CHECKSUM: usize = 16;

/// Bytes of what comes before the part in its copy.
const HEADER: usize = MAGIC.len() + 8 + 8 + 8;

/// Bytes at the beginning of a file by which it is known again: the first record's checksum is
/// among them.
const HEAD: u64 = 64;

/// The keyspace of names, which fjall keeps for itself.
const NAMES: &str = "pages/keyspaces/0";

/// The copies of one store.
pub(super) struct Spares {
    folder: PathBuf,
    kept: Mutex<Kept>,
}

/// What has been copied since the database was opened.
#[derive(Default)]
struct Kept {
    /// What each `current` said when everything was.
    named: Vec<Vec<u8>>,
    /// The files. None gets the name of another that is gone, as long as the database is open.
    names: BTreeSet<PathBuf>,
}

/// A part of a file that does not change.
struct Part {
    known: Known,
    /// Where it begins; it goes on to the end of the file.
    from: u64,
    bytes: Vec<u8>,
}

/// By what a file is known again.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Known {
    /// Its bytes.
    size: u64,
    /// A hash of the first of them.
    head: u64,
}

/// Why what changed cannot be put back.
#[derive(Debug, thiserror::Error)]
pub(super) enum SpareError {
    /// The file system refuses.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// There is no copy of its latest state.
    #[error("{} changed, and there is no copy of it", .0.display())]
    Lost(PathBuf),
}

impl Spares {
    /// The copies of the store in `folder`.
    pub(super) fn of(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            kept: Mutex::default(),
        }
    }

    fn place(&self) -> PathBuf {
        self.folder.join("spare")
    }

    /// Where copies are of what another run of the database wrote.
    fn former(&self) -> PathBuf {
        self.folder.join("spare.old")
    }

    /// Forgets all copies: what they are of is replaced.
    ///
    /// # Errors
    /// When they cannot be removed.
    pub(super) fn forget(&self) -> io::Result<()> {
        let mut kept = self.kept.lock();
        *kept = Kept::default();
        remove(&self.former())?;
        remove(&self.place())
    }

    // === putting back ===

    /// Puts back what changed, before the database is opened; which files that were. What the
    /// database itself tells when it is opened is left to [`Spares::put_bodies_back`].
    ///
    /// # Errors
    /// When a list changed that there is no copy of, or the file system refuses.
    pub(super) fn put_back(&self) -> Result<Vec<String>, SpareError> {
        let mut kept = self.kept.lock();
        let mut mended = put_all_back(&self.place(), &self.folder, |name| {
            list_number(name).is_none() && !is_body(name)
        })?;
        for keyspace in self.keyspaces()? {
            if self.put_list_back(&keyspace)? {
                mended.push(told(&within(&keyspace, &self.folder).join("current")));
            }
        }
        // Who opens the database may give the name of a file that is gone to another.
        *kept = Kept::default();
        if self.place().exists() {
            remove(&self.former())?;
            std::fs::rename(self.place(), self.former())?;
        }
        Ok(mended)
    }

    /// Puts back what follows the bodies in their files, after [`Spares::put_back`], where that did
    /// not suffice; which files those were.
    ///
    /// # Errors
    /// When the file system refuses.
    pub(super) fn put_bodies_back(&self) -> io::Result<Vec<String>> {
        let _alone = self.kept.lock();
        put_all_back(&self.former(), &self.folder, is_body)
    }

    /// Puts back which list is in force in a keyspace, and that list; whether one of them changed.
    fn put_list_back(&self, keyspace: &Path) -> Result<bool, SpareError> {
        let current = keyspace.join("current");
        if list_in_force(keyspace, &std::fs::read(&current)?)?.is_some() {
            return Ok(false);
        }
        let lost = || SpareError::Lost(current.clone());
        let latest = |folder: &Path| -> io::Result<Option<u64>> {
            let numbers = entries(folder)?;
            Ok(numbers.iter().filter_map(|list| list_number(list)).max())
        };
        let copies = self.place().join(within(keyspace, &self.folder));
        let number = latest(&copies)?.ok_or_else(lost)?;
        if latest(keyspace)?.is_some_and(|begun| begun > number) {
            return Err(lost());
        }
        let list = format!("v{number}");
        let part = Part::read(&copies.join(&list))?.ok_or_else(lost)?;
        replace(&keyspace.join(&list), &part.bytes)?;
        // A power cut must not leave the name of a list that is not there.
        File::open(keyspace)?.sync_all()?;
        replace(&current, &naming(number, &part.bytes))?;
        Ok(true)
    }

    // === keeping ===

    /// Copies what has come since the last time. Where nothing has, that costs a look at two small
    /// files.
    ///
    /// # Errors
    /// When the file system refuses; what there was is still a copy.
    pub(super) fn keep(&self) -> io::Result<()> {
        let mut kept = self.kept.lock();
        let keyspaces = self.keyspaces()?;
        let named = keyspaces
            .iter()
            .map(|one| std::fs::read(one.join("current")));
        let named = named.collect::<io::Result<Vec<_>>>()?;
        if kept.named == named {
            return Ok(());
        }
        remove(&self.former())?;
        let mut names = BTreeSet::from(["format", "pages/version"].map(PathBuf::from));
        for (keyspace, named) in keyspaces.iter().zip(&named) {
            let Some(number) = list_in_force(keyspace, named)? else {
                // Another came into force just now, or it changed: what was copied stays.
                return Ok(());
            };
            let mut originals = vec![keyspace.join(format!("v{number}"))];
            originals.extend(entries(&keyspace.join("tables"))?);
            originals.extend(entries(&keyspace.join("blobs"))?);
            names.extend(originals.iter().map(|path| within(path, &self.folder)));
        }
        let mut copied = BTreeSet::new();
        for name in names {
            let copy = self.place().join(&name);
            let is_copied = kept.names.remove(&name)
                || copy_of(&self.folder.join(&name), &copy, is_whole(&name))?;
            if is_copied {
                copied.insert(name);
            }
        }
        for gone in std::mem::replace(&mut kept.names, copied) {
            std::fs::remove_file(self.place().join(gone))?;
        }
        kept.named = named;
        Ok(())
    }

    /// The folders of all keyspaces that were made to the end.
    fn keyspaces(&self) -> io::Result<Vec<PathBuf>> {
        let mut folders = entries(&self.folder.join("pages/keyspaces"))?;
        folders.retain(|folder| folder.join("current").exists());
        Ok(folders)
    }
}

/// Puts parts of those files below `folder` back whose names are `chosen`; which changed.
fn put_all_back(
    copies: &Path,
    folder: &Path,
    chosen: impl Fn(&Path) -> bool,
) -> io::Result<Vec<String>> {
    let mut changed = Vec::new();
    for copy in files(copies)? {
        let name = within(&copy, copies);
        if !chosen(&name) {
            continue;
        }
        // One that changed itself, or was never written to its end, is none.
        if let Some(part) = Part::read(&copy)?
            && part.put_into(&folder.join(&name))?
        {
            changed.push(told(&name));
        }
    }
    Ok(changed)
}

fn told(name: &Path) -> String {
    name.display().to_string()
}

/// Copies a file, or what follows the records in it; whether it is there, and written to its end.
fn copy_of(original: &Path, copy: &Path, is_whole: bool) -> io::Result<bool> {
    let mut file = match File::open(original) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        file => file?,
    };
    let known = Part::known(&file)?;
    let from = if is_whole {
        0
    } else {
        let Ok(contents) = sfa::Reader::from_reader(&mut file) else {
            return Ok(false);
        };
        let records = contents.toc().section(b"data");
        records.map_or(0, |records| records.pos() + records.len())
    };
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(from))?;
    file.read_to_end(&mut bytes)?;
    Part { known, from, bytes }.write(copy)?;
    Ok(true)
}

// === lists ===

/// The number of the list that `named`, the content of `current`, puts into force; none where one
/// of them is not as it was written.
fn list_in_force(keyspace: &Path, named: &[u8]) -> io::Result<Option<u64>> {
    let Some(number) = named
        .first_chunk()
        .map(|number| u64::from_le_bytes(*number))
    else {
        return Ok(None);
    };
    let list = match std::fs::read(keyspace.join(format!("v{number}"))) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        list => list?,
    };
    // What follows the checksum is its kind, at which nobody looks.
    let is_it = named.starts_with(&naming(number, &list)[..NAMING - 1]);
    Ok(is_it.then_some(number))
}

/// Bytes of `current`: a number, a checksum, and the kind of the checksum.
const NAMING: usize = 8 + 16 + 1;

/// What `current` says of a list.
fn naming(number: u64, list: &[u8]) -> [u8; NAMING] {
    let mut naming = [0; NAMING];
    naming[..8].copy_from_slice(&number.to_le_bytes());
    naming[8..24].copy_from_slice(&xxh3_128(list).to_le_bytes());
    naming
}

/// The number of a list, by the name of its file.
fn list_number(path: &Path) -> Option<u64> {
    path.file_name()?.to_str()?.strip_prefix('v')?.parse().ok()
}

// === parts ===

impl Part {
    /// By what a file is known again.
    fn known(file: &File) -> io::Result<Known> {
        let mut head = Vec::new();
        let mut file = file;
        file.seek(SeekFrom::Start(0))?;
        file.take(HEAD).read_to_end(&mut head)?;
        Ok(Known {
            size: file.metadata()?.len(),
            head: xxh3_64(&head),
        })
    }

    /// Reads a copy; none where it is not as it was written.
    fn read(copy: &Path) -> io::Result<Option<Self>> {
        let mut bytes = std::fs::read(copy)?;
        let Some((whole, sum)) = bytes.split_last_chunk::<CHECKSUM>() else {
            return Ok(None);
        };
        if !whole.starts_with(&MAGIC) || xxh3_128(whole).to_le_bytes() != *sum {
            return Ok(None);
        }
        let field = |at: usize| {
            let field = whole
                .get(at..at + 8)
                .and_then(|field| field.try_into().ok());
            field.map(u64::from_le_bytes)
        };
        let at = MAGIC.len();
        let (Some(size), Some(head), Some(from)) = (field(at), field(at + 8), field(at + 16))
        else {
            return Ok(None);
        };
        bytes.truncate(whole.len());
        bytes.drain(..HEADER);
        Ok(Some(Self {
            known: Known { size, head },
            from,
            bytes,
        }))
    }

    fn write(&self, copy: &Path) -> io::Result<()> {
        let mut out = self.known.header();
        out.extend(self.from.to_le_bytes());
        out.extend(&self.bytes);
        out.extend(xxh3_128(&out).to_le_bytes());
        // One that a power cut leaves half is not taken for a copy.
        replace(copy, &out)
    }

    /// Puts the part into its file; whether it was not there.
    fn put_into(&self, original: &Path) -> io::Result<bool> {
        if self.from == 0 {
            let is_there = std::fs::read(original).is_ok_and(|found| found == self.bytes);
            if !is_there {
                replace(original, &self.bytes)?;
            }
            return Ok(!is_there);
        }
        let file = match File::options().read(true).write(true).open(original) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            file => file?,
        };
        // Another file may have got the name of one that was removed.
        if Self::known(&file)? != self.known {
            return Ok(false);
        }
        let mut found = vec![0; self.bytes.len()];
        file.read_exact_at(&mut found, self.from)?;
        if found == self.bytes {
            return Ok(false);
        }
        file.write_all_at(&self.bytes, self.from)?;
        file.sync_all()?;
        Ok(true)
    }
}

impl Known {
    /// What its copy begins with.
    fn header(self) -> Vec<u8> {
        [
            &MAGIC[..],
            &self.size.to_le_bytes(),
            &self.head.to_le_bytes(),
        ]
        .concat()
    }
}

// === files ===

/// Whether nothing of a file is a record.
fn is_whole(name: &Path) -> bool {
    let is_record = ["tables", "blobs"]
        .iter()
        .any(|folder| name.parent().is_some_and(|parent| parent.ends_with(folder)));
    !is_record || name.starts_with(NAMES)
}

fn is_body(name: &Path) -> bool {
    name.parent()
        .is_some_and(|parent| parent.ends_with("blobs"))
}

fn within(path: &Path, folder: &Path) -> PathBuf {
    path.strip_prefix(folder).unwrap_or(path).to_owned()
}

/// What is in a folder; nothing, where there is none.
fn entries(folder: &Path) -> io::Result<Vec<PathBuf>> {
    match std::fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        entries => entries?.map(|entry| Ok(entry?.path())).collect(),
    }
}

/// All files below a folder.
fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for path in entries(folder)? {
        if path.is_dir() {
            found.extend(files(&path)?);
        } else {
            found.push(path);
        }
    }
    Ok(found)
}

/// Writes a file in place of another, or not at all.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(path);
    std::fs::create_dir_all(folder)?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

#[cfg(test)]
mod tests;
