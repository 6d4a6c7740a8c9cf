//! `Run`: one cargo at work on the pages of a workspace, and what it says while it works.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::Context;
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::Command;

use super::{Artifact, Profile, Progress, TARGET};

/// cargo's answer about the packages of a workspace.
#[derive(Debug, Deserialize)]
pub(super) struct Metadata {
    pub(super) packages: Vec<Package>,
    pub(super) workspace_root: PathBuf,
}

/// What is wanted of a package.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Package {
    pub(super) name: String,
    pub(super) version: String,
    pub(super) manifest_path: PathBuf,
    pub(super) targets: Vec<Target>,
    pub(super) dependencies: Vec<Dependency>,
}

/// One thing that a package builds.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Target {
    name: String,
    crate_types: Vec<String>,
}

/// A dependency; the path only where it is a folder.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Dependency {
    pub(super) path: Option<PathBuf>,
}

impl Package {
    /// The target that makes the module.
    pub(super) fn page_target(&self) -> Option<&str> {
        let cdylib = |target: &&Target| target.crate_types.iter().any(|kind| kind == "cdylib");
        let target = self.targets.iter().find(cdylib)?;
        Some(target.name.as_str())
    }
}

/// How a cargo ended.
#[derive(Debug, Default)]
pub(super) struct Run {
    /// Modules by manifest and target.
    pub(super) artifacts: BTreeMap<(PathBuf, String), Artifact>,
    /// Rendered errors by manifest.
    pub(super) errors: BTreeMap<PathBuf, String>,
    /// What cargo itself said last, where it failed without an error of the compiler.
    pub(super) said: String,
}

#[derive(Deserialize)]
#[serde(tag = "reason")]
enum Message {
    #[serde(rename = "compiler-artifact")]
    Artifact {
        manifest_path: PathBuf,
        target: Target,
        filenames: Vec<PathBuf>,
        fresh: bool,
    },
    #[serde(rename = "compiler-message")]
    Diagnostic {
        manifest_path: PathBuf,
        message: Diagnostic,
    },
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
struct Diagnostic {
    level: String,
    rendered: Option<String>,
}

/// How much of cargo's own talk is kept, in lines: its errors are its last words.
const KEPT_LINES: usize = 40;

/// How lines begin that say what cargo does, not what went wrong.
const VERBS: [&str; 5] = [
    "Downloading ",
    "Downloaded ",
    "Updating ",
    "Locking ",
    "Finished ",
];

/// Asks cargo about the package in `folder` and those around it; the inner error is cargo's.
pub(super) async fn metadata(folder: &Path) -> anyhow::Result<Result<Metadata, String>> {
    let output = cargo(folder)
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .output()
        .await
        .context(NO_CARGO)?;
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr);
        return Ok(Err(message.trim_end().to_owned()));
    }
    let metadata =
        serde_json::from_slice(&output.stdout).context("cargo metadata: not as known")?;
    Ok(Ok(metadata))
}

/// Builds packages, each `name@version`, of one workspace.
pub(super) async fn build(
    workspace: &Path,
    packages: &[&str],
    profile: Profile,
    target_dir: &Path,
    progress: &Progress,
) -> anyhow::Result<Run> {
    if packages.is_empty() {
        return Ok(Run::default());
    }
    let mut command = cargo(workspace);
    command
        .args(["build", "--target", TARGET, "--message-format", "json"])
        .args(["--keep-going", "--target-dir"])
        .arg(target_dir);
    if profile == Profile::Release {
        command.arg("--release");
    }
    for package in packages {
        command.args(["-p", package]);
    }
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context(NO_CARGO)?;
    let (Some(messages), Some(talk)) = (child.stdout.take(), child.stderr.take()) else {
        anyhow::bail!("cargo cannot be listened to");
    };
    let watch = Watch::new(progress);
    let (messages, said) = tokio::join!(watch.messages(messages), watch.talk(talk));
    child.wait().await.context("cargo did not end")?;
    Ok(Run { said, ..messages })
}

const NO_CARGO: &str =
    "cargo does not start: pages are built with Rust, install it from https://rustup.rs";

fn cargo(folder: &Path) -> Command {
    // Under cargo this names the very one that is running.
    let program = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command = Command::new(program);
    command
        .current_dir(folder)
        .env("CARGO_TERM_COLOR", "never")
        .env("CARGO_TERM_PROGRESS_WHEN", "never")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

/// What is seen of a cargo at work: when each package began.
struct Watch<'a> {
    progress: &'a Progress,
    begun: parking_lot::Mutex<BTreeMap<String, Instant>>,
}

impl<'a> Watch<'a> {
    fn new(progress: &'a Progress) -> Self {
        let begun = parking_lot::Mutex::default();
        Self { progress, begun }
    }

    /// Reads cargo's messages, one JSON value a line.
    async fn messages(&self, from: impl AsyncRead + Unpin) -> Run {
        let mut run = Run::default();
        let mut lines = BufReader::new(from).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            match serde_json::from_str(&line) {
                Ok(Message::Artifact {
                    manifest_path,
                    target,
                    filenames,
                    fresh,
                }) => {
                    let is_wasm =
                        |path: &PathBuf| path.extension().is_some_and(|ext| ext == "wasm");
                    let took = if fresh {
                        Duration::ZERO
                    } else {
                        self.took(&manifest_path)
                    };
                    if let Some(wasm) = filenames.into_iter().find(is_wasm) {
                        let artifact = Artifact { wasm, took };
                        run.artifacts.insert((manifest_path, target.name), artifact);
                    }
                }
                Ok(Message::Diagnostic {
                    manifest_path,
                    message,
                }) if message.level.starts_with("error") => {
                    let text = run.errors.entry(manifest_path).or_default();
                    text.push_str(message.rendered.as_deref().unwrap_or_default());
                }
                // Warnings, build scripts, and what a macro prints.
                Ok(_) | Err(_) => {}
            }
        }
        run
    }

    /// Reads cargo's talk for what is being compiled; returns its last lines.
    async fn talk(&self, from: impl AsyncRead + Unpin) -> String {
        let mut kept = std::collections::VecDeque::new();
        let mut lines = BufReader::new(from).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            if let Some(package) = line.trim_start().strip_prefix("Compiling ") {
                let (name, version) = package.split_once(' ').unwrap_or((package, ""));
                // cargo names the folder of a package that is not from a registry.
                let folder = version
                    .split_once(" (")
                    .map(|(_, rest)| rest.trim_end_matches(')'));
                let key = folder.unwrap_or(name).to_owned();
                self.begun.lock().insert(key, Instant::now());
                self.progress.compiling(name);
            } else if VERBS.iter().any(|verb| line.trim_start().starts_with(verb)) {
                self.progress.doing(line.trim());
            } else {
                kept.push_back(line);
            }
            if kept.len() > KEPT_LINES {
                kept.pop_front();
            }
        }
        Vec::from(kept).join("\n")
    }

    fn took(&self, manifest: &Path) -> Duration {
        let begun = self.begun.lock();
        let folder = manifest.parent().and_then(Path::to_str).unwrap_or_default();
        begun.get(folder).map_or(Duration::ZERO, Instant::elapsed)
    }
}
