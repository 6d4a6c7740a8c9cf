//! JavaScript and TypeScript: `build.mjs` of the SDK, run by node, which tells what it does as lines of JSON.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::Context;
use serde::Deserialize;
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::toolbox::Toolbox;
use super::{Outcome, Work, sdk};
use crate::cli::build::{Profile, Progress};

/// What `build.mjs` says of the page.
#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Answer {
    Inputs(Vec<PathBuf>),
    Error(String),
}

pub(super) async fn install(
    toolbox: &Toolbox,
    progress: &Progress,
) -> anyhow::Result<Result<(), String>> {
    let mut npm = Command::new("npm");
    npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"])
        // Who is offline is told so at once, not after minutes of trying.
        .args(["--fetch-retries=1", "--fetch-retry-mintimeout=1000"])
        .arg("--prefix")
        .arg(toolbox.at(""))
        .current_dir(toolbox.at(""));
    let pins = sdk::JAVASCRIPT
        .iter()
        .find(|(place, _)| *place == "package-lock.json");
    let pins = pins.map_or(&[][..], |(_, bytes)| bytes);
    let what = "esbuild and componentize-qjs (npm)";
    let place = "node_modules";
    toolbox
        .install(place, pins, progress, what, vec![npm])
        .await
}

pub(super) async fn make(
    toolbox: &Toolbox,
    work: &Work<'_>,
    src: &Path,
    profile: Profile,
) -> anyhow::Result<Outcome> {
    let order = json!({
        "root": src,
        "entry": work.entry,
        "out": work.out,
        "release": profile == Profile::Release,
    });
    let mut node = Command::new("node")
        .arg(toolbox.at("build.mjs"))
        .current_dir(src)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("`node` does not start")?;
    if let Some(mut stdin) = node.stdin.take() {
        // One that has ended before it read its order says why on stderr.
        let _ = stdin.write_all(order.to_string().as_bytes()).await;
    }
    let output = node.wait_with_output().await.context("node did not end")?;
    Ok(match serde_json::from_slice(&output.stdout) {
        Ok(Answer::Inputs(inputs)) => Ok(inputs),
        Ok(Answer::Error(words)) => Err(words),
        Err(_) => {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            Err(format!("error: node failed:\n{said}"))
        }
    })
}
