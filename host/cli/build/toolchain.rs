//! The toolchain: a Rust that can compile for the WebAssembly target, installed when it is not there.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use tokio::process::Command;

use super::{Progress, TARGET};

/// Makes sure that the toolchain of a workspace has the target; installs it with rustup when not.
///
/// # Errors
/// A machine without Rust, or one whose Rust does not come from rustup; the message names the fix.
pub(super) async fn ensure_target(workspace: &Path, progress: &Progress) -> anyhow::Result<()> {
    if installed(workspace).await? {
        return Ok(());
    }
    progress.say(&format!(
        "the Rust target {TARGET} is missing: running `rustup target add {TARGET}`"
    ));
    let output = Command::new("rustup")
        .args(["target", "add", TARGET])
        .current_dir(workspace)
        .kill_on_drop(true)
        .output()
        .await;
    let output = match output {
        Ok(output) => output,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => bail!(
            "the Rust target {TARGET} is missing and there is no rustup to add it: install the target with what \
             installed Rust here, or Rust from https://rustup.rs and then `rustup target add {TARGET}`"
        ),
        Err(error) => return Err(error).context("rustup does not start"),
    };
    if !output.status.success() {
        bail!(
            "`rustup target add {TARGET}` failed: {}",
            String::from_utf8_lossy(&output.stderr).trim_end()
        );
    }
    Ok(())
}

/// Whether the target's standard library is there. Asked of rustc, which knows it without rustup and heeds
/// a `rust-toolchain.toml` in the workspace.
async fn installed(workspace: &Path) -> anyhow::Result<bool> {
    let output = Command::new("rustc")
        .args(["--print", "target-libdir", "--target", TARGET])
        .current_dir(workspace)
        .kill_on_drop(true)
        .output()
        .await
        .context(
            "rustc does not start: pages are built with Rust, install it from https://rustup.rs",
        )?;
    if !output.status.success() {
        bail!(
            "this Rust does not know the target {TARGET} (Rust 1.82 or newer does): {}",
            String::from_utf8_lossy(&output.stderr).trim_end()
        );
    }
    let folder = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    Ok(folder.is_dir())
}
