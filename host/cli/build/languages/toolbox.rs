//! `Toolbox`: the folder below a source tree that holds the SDK and the tools of one language.

use std::env;
use std::fs::{self, File as Opened};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::Context;
use tokio::process::Command;

use super::sdk::File;
use crate::cli::build::{Profile, Progress, install};
use crate::page::Digest;

/// How modules are made: another wisr may do it otherwise.
const MAKERS: [&str; 3] = [
    include_str!("c.rs"),
    include_str!("javascript.rs"),
    include_str!("python.rs"),
];

/// A folder such as `SRC/.wisr/js`. It may be deleted; the next build lays it down again.
#[derive(Debug)]
pub(super) struct Toolbox {
    folder: PathBuf,
    files: &'static [File],
}

impl Toolbox {
    pub(super) fn new(folder: &Path, files: &'static [File]) -> Self {
        Self {
            folder: folder.to_owned(),
            files,
        }
    }

    /// A place inside.
    pub(super) fn at(&self, place: &str) -> PathBuf {
        self.folder.join(place)
    }

    /// Waits until no other wisr builds with it; nobody else does before the answer is dropped.
    pub(super) async fn lock(&self) -> anyhow::Result<Opened> {
        let path = self.at("lock");
        fs::create_dir_all(&self.folder)
            .and_then(|()| Opened::create(&path))
            .with_context(|| format!("cannot write `{}`", path.display()))
            .map(|file| tokio::task::spawn_blocking(move || file.lock().map(|()| file)))?
            .await?
            .with_context(|| format!("cannot lock `{}`", path.display()))
    }

    /// Lays down the files of the SDK that are not there as they should be.
    pub(super) fn unpack(&self) -> anyhow::Result<()> {
        for (place, bytes) in self.files {
            install::put(&self.at(place), bytes)?;
        }
        Ok(())
    }

    /// What besides its sources makes a module what it is.
    pub(super) fn recipe(&self, src: &Path, profile: Profile) -> anyhow::Result<String> {
        let mut all = format!("{profile:?} {} {MAKERS:?}", src.display()).into_bytes();
        for (place, bytes) in self.files {
            all.extend(place.bytes());
            all.extend(*bytes);
        }
        all.extend(super::python::requirements(src));
        all.extend(fs::read(src.join("tsconfig.json")).unwrap_or_default());
        Ok(Digest::of(&all).to_string())
    }

    /// The next install into `place` installs, whatever is there.
    pub(super) fn forget(&self, place: &str) {
        // It may never have been there.
        let _ = fs::remove_file(self.at(place).join(".wisr"));
    }

    /// Runs the commands that install the tools into `place`, unless what they `pin` is there.
    pub(super) async fn install(
        &self,
        place: &str,
        pins: &[u8],
        progress: &Progress,
        what: &str,
        commands: Vec<Command>,
    ) -> anyhow::Result<Result<(), String>> {
        let mark = self.at(place).join(".wisr");
        let wanted = Digest::of(pins).to_string();
        if fs::read_to_string(&mark).is_ok_and(|installed| installed == wanted) {
            return Ok(Ok(()));
        }
        if !commands.is_empty() {
            progress.say(&format!("installing {what} into {}", self.folder.display()));
        }
        // What an earlier one left there is no part of it.
        let folder = self.at(place);
        if folder.exists() {
            fs::remove_dir_all(&folder)
                .with_context(|| format!("cannot remove `{}`", folder.display()))?;
        }
        for mut command in commands {
            let said = command
                .as_std()
                .get_program()
                .to_string_lossy()
                .into_owned();
            let done = run(&mut command).await?;
            if let Err(words) = done {
                return Ok(Err(format!(
                    "error: {what} cannot be installed into `{}`: `{said}` says:\n{words}",
                    self.folder.display()
                )));
            }
        }
        fs::create_dir_all(&folder)
            .and_then(|()| fs::write(&mark, wanted))
            .with_context(|| format!("cannot write `{}`", mark.display()))?;
        Ok(Ok(()))
    }
}

/// The first of these programs that is not in PATH.
pub(super) fn lacks<'a>(programs: &[&'a str]) -> Option<&'a str> {
    let paths = env::var_os("PATH").unwrap_or_default();
    let there = |program: &&str| env::split_paths(&paths).any(|path| path.join(program).is_file());
    programs.iter().find(|program| !there(program)).copied()
}

/// Runs a command to its end: what it printed to stdout, or what it said when it failed.
///
/// # Errors
/// A program that does not start.
pub(super) async fn run(command: &mut Command) -> anyhow::Result<Result<String, String>> {
    let name = command
        .as_std()
        .get_program()
        .to_string_lossy()
        .into_owned();
    let output = command
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .with_context(|| format!("`{name}` does not start"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() {
        return Ok(Ok(text(&output.stdout)));
    }
    let said = [text(&output.stdout), text(&output.stderr)];
    Ok(Err(said.join("\n").trim().to_owned()))
}
