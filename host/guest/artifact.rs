//! `Artifacts`: the folder of compiled modules, so that a restart compiles nothing.
//!
//! An artifact is native code, which the process runs with its own rights. So the folder is the
//! owner's alone, a name says which component and which exact compiler it was made from, a sum
//! beside it says that it is whole, and a file is never written to once it has its name.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File};
use std::hash::{Hash, Hasher};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Timespec, Timestamps, UTIME_NOW};
use serde::{Deserialize, Serialize};
use wasmtime::component::Component;

use super::compile::Made;
use super::symbols::DebugInfo;
use crate::page::{Cost, Digest};

/// A folder of compiled modules that belongs to this process's user alone.
#[derive(Debug)]
pub(super) struct Artifacts {
    folder: PathBuf,
}

/// The extension of a module's debug information, beside its code.
const DEBUG: &str = "debug";

/// The extension of the note that it passed its first start.
const PASSED: &str = "passed";

/// The version of that note. Another one is no note: the module is tried again.
const PASSED_VERSION: u32 = 1;

/// That an artifact passed its first start.
#[derive(Debug, Serialize, Deserialize)]
struct Passed {
    version: u32,
    /// What that took.
    start: Cost,
}

impl Passed {
    fn parse(record: &[u8]) -> Option<Cost> {
        let passed: Self = serde_json::from_slice(record).ok()?;
        (passed.version == PASSED_VERSION).then_some(passed.start)
    }
}

/// Bytes of artifacts that outlive a restart: those of thousands of Rust pages, or of a hundred in
/// JavaScript or Python.
const FOLDER_BYTES: u64 = 4 << 30;

/// The present, as the kernel sees it.
const NOW: Timestamps = Timestamps {
    last_access: Timespec {
        tv_sec: 0,
        tv_nsec: UTIME_NOW,
    },
    last_modification: Timespec {
        tv_sec: 0,
        tv_nsec: UTIME_NOW,
    },
};

/// What names an artifact: its module, what made a component of it and checked it, and all of the
/// compiler that shows in the code, the patch version included, since patches mend the code that is
/// made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fingerprint(Digest);

/// A compiled module.
pub(super) enum Compiled {
    /// In a file of the folder.
    Kept(PathBuf),
    /// Fresh from the compiler and kept nowhere.
    Fresh(Made),
}

impl Fingerprint {
    /// The fingerprint of what `engine` makes from `module`.
    pub(super) fn of(engine: &wasmtime::Engine, module: &[u8]) -> Self {
        Self::of_digest(engine, Digest::of(module))
    }

    /// The fingerprint of what `engine` makes from the module of this digest.
    pub(super) fn of_digest(engine: &wasmtime::Engine, module: Digest) -> Self {
        let mut hasher = Blake(blake3::Hasher::new());
        hasher.0.update(module.as_bytes());
        // The versions of the adapter and of the validator are those that wisr was built with.
        env!("CARGO_PKG_VERSION").hash(&mut hasher);
        engine.precompile_compatibility_hash().hash(&mut hasher);
        Self(Digest::from(*hasher.0.finalize().as_bytes()))
    }
}

impl std::fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// The standard library's view of BLAKE3: all of the hash, where `finish` would leave 64 bits.
struct Blake(blake3::Hasher);

impl Hasher for Blake {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = *self.0.finalize().as_bytes();
        u64::from_le_bytes([a, b, c, d, e, f, g, h])
    }
}

impl Artifacts {
    /// Opens the folder, which is made if need be.
    ///
    /// # Errors
    /// When it cannot be made, belongs to somebody else, or cannot be closed to others.
    pub(super) fn open(folder: PathBuf) -> io::Result<Self> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder)?;
        let meta = fs::metadata(&folder)?;
        if meta.uid() != rustix::process::geteuid().as_raw() {
            return Err(io::Error::other("it belongs to another user"));
        }
        if meta.mode() & 0o077 != 0 {
            fs::set_permissions(&folder, fs::Permissions::from_mode(0o700))?;
        }
        // Sums tell damage, not deceit: what others could have put there is not run.
        let budget = if meta.mode() & 0o022 == 0 {
            FOLDER_BYTES
        } else {
            0
        };
        let artifacts = Self { folder };
        // Half-written by an earlier process.
        for (path, _) in artifacts.files("new")? {
            remove_file(&path);
        }
        artifacts.tidy(budget, &HashSet::new())?;
        Ok(artifacts)
    }

    /// Removes the artifacts that have gone unused for longest, until the rest fit the folder's
    /// budget, but none that is needed. Returns how many went, and their bytes.
    pub(super) fn keep_to_budget(&self, needed: impl Iterator<Item = Fingerprint>) -> (usize, u64) {
        let needed = needed.map(|name| self.path(name)).collect();
        // A folder that cannot be read is told of when something is to be kept in it.
        self.tidy(FOLDER_BYTES, &needed).unwrap_or_default()
    }

    fn tidy(&self, budget: u64, needed: &HashSet<PathBuf>) -> io::Result<(usize, u64)> {
        let mut artifacts = Vec::new();
        for (path, meta) in self.files("code")? {
            let debug = fs::metadata(path.with_extension(DEBUG)).map_or(0, |meta| meta.len());
            let size = meta.len() + debug;
            artifacts.push((needed.contains(&path), meta.modified()?, size, path));
        }
        artifacts.sort();
        let (mut held, mut count, mut removed) = (0_u64, 0, 0);
        for (is_needed, _, size, path) in artifacts.into_iter().rev() {
            held = held.saturating_add(size);
            if held > budget && !is_needed {
                remove(&path);
                (count, removed) = (count + 1, removed + size);
            }
        }
        Ok((count, removed))
    }

    /// The files with this extension. Another process may be tidying too: what is gone already is
    /// no trouble.
    fn files(&self, extension: &str) -> io::Result<Vec<(PathBuf, fs::Metadata)>> {
        let mut found = Vec::new();
        for file in fs::read_dir(&self.folder)? {
            let file = file?;
            let path = file.path();
            if path.extension().and_then(OsStr::to_str) == Some(extension)
                && let Ok(meta) = file.metadata()
            {
                found.push((path, meta));
            }
        }
        Ok(found)
    }

    /// The artifact of this name, if it is there and whole.
    pub(super) fn find(&self, name: Fingerprint) -> Option<Compiled> {
        let path = self.path(name);
        let sum = fs::read(path.with_extension("sum")).ok()?;
        let mut hasher = blake3::Hasher::new();
        io::copy(&mut File::open(&path).ok()?, &mut hasher).ok()?;
        if sum != hasher.finalize().as_bytes() {
            tracing::warn!(path = %path.display(), "compiled module is damaged: compiling again");
            self.remove(name);
            return None;
        }
        // When it was last of use, for `tidy`; if that cannot be noted, it goes a little early.
        let _ = rustix::fs::utimensat(rustix::fs::CWD, &path, &NOW, AtFlags::empty());
        Some(Compiled::Kept(path))
    }

    /// Keeps an artifact, if that is possible.
    pub(super) fn keep(&self, name: Fingerprint, made: Made) -> Compiled {
        let path = self.path(name);
        match self.write_all(&path, &made) {
            Ok(()) => Compiled::Kept(path),
            Err(error) => {
                let path = path.display();
                tracing::warn!(%path, "compiled module was not kept, a restart compiles it again: {error}");
                Compiled::Fresh(made)
            }
        }
    }

    /// What the first start of an artifact took, if it passed.
    pub(super) fn passed(&self, name: Fingerprint) -> Option<Cost> {
        let record = fs::read(self.path(name).with_extension(PASSED)).ok()?;
        Passed::parse(&record)
    }

    /// Remembers that an artifact passed its first start, if that is possible.
    pub(super) fn note_passed(&self, name: Fingerprint, start: &Cost) {
        let path = self.path(name).with_extension(PASSED);
        let record = Passed {
            version: PASSED_VERSION,
            start: start.clone(),
        };
        let written = serde_json::to_vec(&record).map_err(io::Error::other);
        let written = written.and_then(|json| self.write(&path, &*json));
        if let Err(error) = written {
            let path = path.display();
            tracing::debug!(%path, "a restart will try this module again: {error}");
        }
    }

    /// Forgets an artifact. Whoever has it mapped keeps it.
    pub(super) fn remove(&self, name: Fingerprint) {
        remove(&self.path(name));
    }

    fn path(&self, name: Fingerprint) -> PathBuf {
        self.folder.join(name.to_string()).with_extension("code")
    }

    fn write_all(&self, path: &Path, made: &Made) -> io::Result<()> {
        if let Some(debug) = made.debug() {
            self.write(&path.with_extension(DEBUG), debug)?;
        }
        // The sum before the code: code without one is not trusted.
        let mut hasher = blake3::Hasher::new();
        io::copy(&mut made.code(), &mut hasher)?;
        let sum = hasher.finalize();
        self.write(&path.with_extension("sum"), sum.as_bytes().as_slice())?;
        self.write(path, made.code())
    }

    fn write(&self, path: &Path, mut bytes: impl Read) -> io::Result<()> {
        // A name by chance, and never one that is there: processes in containers that share the
        // folder have the same id, and would write to each other's files.
        let mut file = tempfile::Builder::new()
            .suffix(".new")
            .tempfile_in(&self.folder)?;
        io::copy(&mut bytes, &mut file)?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        Ok(())
    }
}

fn remove(artifact: &Path) {
    // The code goes first, so that there is never code without its sum.
    remove_file(artifact);
    remove_file(&artifact.with_extension("sum"));
    remove_file(&artifact.with_extension(DEBUG));
    remove_file(&artifact.with_extension(PASSED));
}

fn remove_file(path: &Path) {
    if let Err(error) = fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(path = %path.display(), "compiled module was not removed: {error}");
    }
}

impl Compiled {
    /// Its size in bytes, for tables.
    pub(super) fn size(&self) -> u64 {
        match self {
            Compiled::Kept(path) => fs::metadata(path).map_or(0, |meta| meta.len()),
            Compiled::Fresh(made) => made.size(),
        }
    }

    /// Where the module's debug information is, for who asks where in its author's files it failed.
    pub(super) fn debug(&self) -> DebugInfo {
        match self {
            Compiled::Kept(path) => {
                let path = path.with_extension(DEBUG);
                match path.exists() {
                    true => DebugInfo::Kept(path),
                    false => DebugInfo::None,
                }
            }
            Compiled::Fresh(made) => made.held_debug(),
        }
    }

    /// Makes it runnable.
    ///
    /// # Errors
    /// When it is of another engine, or needs more than the engine's pool has.
    pub(super) fn open(&self, engine: &wasmtime::Engine) -> wasmtime::Result<Component> {
        let mut fresh = Vec::new();
        if let Compiled::Fresh(made) = self {
            made.code().read_to_end(&mut fresh)?;
        }
        #[expect(unsafe_code, reason = "loading native code is what an artifact is for")]
        // SAFETY: the code comes from this engine's compiler: either just now, out of a file without
        // a name that only the compiling child could write to and that was read after its end; or in
        // a file whose sum was checked, in a folder that only this user may write to. Files in it are
        // replaced by renaming and removed by unlinking, never written to, so a mapped one stays as
        // it is. That the code is of this very version and configuration is checked by wasmtime.
        unsafe {
            match self {
                Compiled::Kept(path) => Component::deserialize_file(engine, path),
                Compiled::Fresh(_) => Component::deserialize(engine, &fresh),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn engine() -> wasmtime::Engine {
        wasmtime::Engine::default()
    }

    #[test]
    fn what_is_kept_is_found_until_it_is_damaged() {
        let folder = tempfile::tempdir().unwrap();
        let artifacts = Artifacts::open(folder.path().join("a/b")).unwrap();
        let mode = fs::metadata(folder.path().join("a/b")).unwrap().mode();
        assert_eq!(mode & 0o777, 0o700);
        let name = Fingerprint::of(&engine(), b"component");
        assert!(artifacts.find(name).is_none());
        artifacts.keep(name, Made::of_code(b"code"));
        let Some(Compiled::Kept(path)) = artifacts.find(name) else {
            panic!("not kept")
        };
        fs::write(&path, b"c0de").unwrap();
        assert!(artifacts.find(name).is_none());
        assert!(!path.exists());
    }

    #[test]
    fn that_a_module_passed_is_read_as_it_was_written() {
        let kept = br#"{"version":1,"start":{"cpu_us":1,"wall_us":2,"instantiate_us":3,"static_props_us":0,"render_us":0,"encode_us":0,"memory":7,"fetches":[]}}"#;
        assert_eq!(Passed::parse(kept).map(|start| start.memory), Some(7));
        let later = String::from_utf8_lossy(kept).replace("\"version\":1", "\"version\":2");
        assert!(Passed::parse(later.as_bytes()).is_none());
        let folder = tempfile::tempdir().unwrap();
        let artifacts = Artifacts::open(folder.path().join("own")).unwrap();
        let name = Fingerprint::of(&engine(), b"component");
        assert!(artifacts.passed(name).is_none());
        artifacts.keep(name, Made::of_code(b"code"));
        artifacts.note_passed(name, &Cost::default());
        assert!(artifacts.passed(name).is_some());
        artifacts.remove(name);
        assert!(artifacts.passed(name).is_none());
    }

    #[test]
    fn the_longest_unused_go_first() {
        let folder = tempfile::tempdir().unwrap();
        let artifacts = Artifacts::open(folder.path().to_owned()).unwrap();
        let names = [b"a", b"b", b"c"].map(|bytes| Fingerprint::of(&engine(), bytes));
        for (name, age) in names.into_iter().zip([30, 20, 10]) {
            artifacts.keep(name, Made::of_code(&[0; 100]));
            let file = File::options()
                .write(true)
                .open(artifacts.path(name))
                .unwrap();
            let made = file.metadata().unwrap().modified().unwrap();
            file.set_modified(made - Duration::from_secs(age)).unwrap();
        }
        fs::write(folder.path().join("1-1.new"), "half").unwrap();
        let artifacts = Artifacts::open(folder.path().to_owned()).unwrap();
        assert!(artifacts.find(names[0]).is_some());
        assert_eq!(artifacts.tidy(200, &HashSet::new()).unwrap(), (1, 100));
        let left = names.map(|name| artifacts.path(name).exists());
        assert_eq!(left, [true, false, true]);
        // The two that are left, and their sums.
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 4);
        // What is needed stays, though it was used before the other, or takes too much.
        let needed = [artifacts.path(names[2])].into();
        assert_eq!(artifacts.tidy(100, &needed).unwrap(), (1, 100));
        assert_eq!(artifacts.tidy(0, &needed).unwrap(), (0, 0));
        assert!(artifacts.find(names[2]).is_some());
    }

    #[test]
    fn the_compiler_is_part_of_the_name() {
        let slow = wasmtime::Engine::new(wasmtime::Config::new().epoch_interruption(true)).unwrap();
        let name = Fingerprint::of(&engine(), b"component");
        assert!(name == Fingerprint::of(&engine(), b"component"));
        assert!(name != Fingerprint::of(&slow, b"component"));
        assert!(name != Fingerprint::of(&engine(), b"another"));
    }

    #[test]
    fn a_folder_that_others_may_write_to_is_closed() {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
        Artifacts::open(folder.path().to_owned()).unwrap();
        assert_eq!(fs::metadata(folder.path()).unwrap().mode() & 0o777, 0o700);
    }

    #[test]
    fn what_others_could_have_written_is_not_run() {
        let folder = tempfile::tempdir().unwrap();
        let name = Fingerprint::of(&engine(), b"component");
        let mode = |mode| {
            let mode = fs::Permissions::from_mode(mode);
            fs::set_permissions(folder.path(), mode).unwrap();
            let artifacts = Artifacts::open(folder.path().to_owned()).unwrap();
            let is_there = artifacts.find(name).is_some();
            artifacts.keep(name, Made::of_code(b"code"));
            is_there
        };
        mode(0o700);
        assert!(mode(0o755), "others could only read it");
        assert!(!mode(0o720));
        assert!(!mode(0o702));
    }

    #[test]
    fn no_file_of_another_process_is_written_to() {
        let folder = tempfile::tempdir().unwrap();
        let artifacts = Artifacts::open(folder.path().to_owned()).unwrap();
        // Of a process of the same id, in another container.
        let theirs = [0, 1].map(|turn| format!("{}-{turn}.new", std::process::id()));
        for file in &theirs {
            fs::write(folder.path().join(file), "theirs").unwrap();
        }
        let name = Fingerprint::of(&engine(), b"component");
        artifacts.keep(name, Made::of_code(b"code"));
        for file in &theirs {
            let left = fs::read_to_string(folder.path().join(file));
            assert_eq!(left.unwrap_or_default(), "theirs");
        }
        assert!(artifacts.find(name).is_some());
    }
}
