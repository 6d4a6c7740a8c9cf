//! Python: componentize-py, in a virtual environment of its own.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use tokio::process::Command;

use super::toolbox::{Toolbox, run};
use super::{Outcome, Work};
use crate::cli::build::{Progress, install};

/// Sources of other languages, which a Python page is not made of.
const FOREIGN: [&str; 8] = ["rs", "js", "jsx", "ts", "tsx", "c", "h", "pyc"];

pub(super) async fn install(
    toolbox: &Toolbox,
    src: &Path,
    progress: &Progress,
) -> anyhow::Result<Result<(), String>> {
    let pins = toolbox.at("requirements.txt");
    let mut venv = Command::new("python3");
    venv.args(["-m", "venv", "--clear"]).arg(toolbox.at("venv"));
    let pip = |requirements: &Path| {
        let mut pip = Command::new(toolbox.at("venv/bin/pip"));
        pip.args([
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--retries=1",
            "-r",
        ])
        .arg(requirements);
        pip
    };
    let mut commands = vec![venv, pip(&pins)];
    let mut pinned = fs::read(&pins).unwrap_or_default();
    // What the site's pages need themselves.
    let own = src.join("requirements.txt");
    if let Ok(text) = fs::read(&own) {
        commands.push(pip(&own));
        pinned.extend(text);
    }
    let what = "componentize-py (pip)";
    toolbox
        .install("venv", &pinned, progress, what, commands)
        .await
}

/// componentize-py sees a copy of the page's folder and of the folders whose names begin with `_`, since it
/// looks through all that it is given.
pub(super) async fn make(
    toolbox: &Toolbox,
    work: &Work<'_>,
    src: &Path,
) -> anyhow::Result<Outcome> {
    let stage = tempfile::tempdir_in(toolbox.at("")).context("cannot make a folder to build in")?;
    let mut inputs = Vec::new();
    let folder = &work.page.folder;
    copy(src, folder, stage.path(), false, &mut inputs)?;
    for entry in fs::read_dir(src)?.flatten() {
        if entry.file_name().to_string_lossy().starts_with('_') && entry.path().is_dir() {
            copy(src, &entry.path(), stage.path(), true, &mut inputs)?;
        }
    }
    let place = folder.strip_prefix(src)?;
    let named = serde_json::to_string(&place.to_string_lossy())?;
    fs::write(
        stage.path().join("wisr_place.py"),
        format!("PLACE = {named}\n"),
    )?;
    let mut command = Command::new(toolbox.at("venv/bin/componentize-py"));
    command
        .args(["--quiet", "-w", "guest", "-d"])
        .arg(toolbox.at("wit"))
        .args(["componentize", "wisr_app", "-o"])
        .arg(&work.out)
        .arg("-p")
        .arg(stage.path().join(place))
        .arg("-p")
        .arg(stage.path())
        .arg("-p")
        .arg(toolbox.at("sdk"))
        .env_remove("VIRTUAL_ENV")
        .env("RUST_BACKTRACE", "0");
    let done = run(&mut command).await?;
    Ok(done
        .map(|_| inputs)
        .map_err(|said| words(&said, &place.to_string_lossy())))
}

fn copy(
    src: &Path,
    folder: &Path,
    stage: &Path,
    deep: bool,
    inputs: &mut Vec<PathBuf>,
) -> anyhow::Result<()> {
    let files = if deep {
        install::files_below(folder)?
    } else {
        let entries = fs::read_dir(folder)?.flatten();
        let files = entries.filter(|entry| entry.path().is_file());
        files
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect()
    };
    for file in files {
        let from = folder.join(&file);
        let foreign = from
            .extension()
            .is_some_and(|extension| FOREIGN.iter().any(|foreign| extension == *foreign));
        let skipped = |part: &str| {
            ["__pycache__", "Cargo.toml", "Cargo.lock"].contains(&part) || part.starts_with('.')
        };
        if foreign || file.split('/').any(skipped) {
            continue;
        }
        let to = stage.join(from.strip_prefix(src)?);
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::copy(&from, &to).with_context(|| format!("cannot read `{}`", from.display()))?;
        inputs.push(from);
    }
    Ok(())
}

/// The traceback of the page alone, with files as their author knows them.
fn words(said: &str, place: &str) -> String {
    let from = said
        .rfind("AssertionError: ")
        .map_or(said, |at| &said[at + 16..]);
    let traceback = from.split("\nCaused by:").next().unwrap_or(from).trim_end();
    let mut lines = Vec::new();
    let mut ours = false;
    for line in traceback.lines() {
        if line.trim_start().starts_with("File \"") {
            ours = line.contains("\"/2/");
        } else if !line.starts_with(' ') {
            ours = false;
        }
        if !ours {
            lines.push(line);
        }
    }
    let text = lines.join("\n").replace("\"/0/", &format!("\"{place}/"));
    format!("error: {}", text.replace("\"/1/", "\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traceback_shows_the_authors_files_only() {
        let said = "Traceback (most recent call last):\n  File \"/v/bin/componentize-py\", line 8, in <module>\n    \
                    sys.exit(script())\n             ^^^^^^^^\nAssertionError: Traceback (most recent call last):\n  \
                    File \"/2/wisr_app.py\", line 13, in <module>\n    import page as source\n  \
                    File \"/0/page.py\", line 22\n    def de eper(props):\n           ^^^^\n\
                    SyntaxError: expected '('\n\n\nCaused by:\n    SyntaxError: expected '(' (page.py, line 22)";
        let expected = "error: Traceback (most recent call last):\n  File \"numbers/page.py\", line 22\n    \
                        def de eper(props):\n           ^^^^\nSyntaxError: expected '('";
        assert_eq!(words(said, "numbers"), expected);
    }

    #[test]
    fn what_is_no_traceback_is_told_as_it_is() {
        assert_eq!(words("no such world\n", "x"), "error: no such world");
    }
}
