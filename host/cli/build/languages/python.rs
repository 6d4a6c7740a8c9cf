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

/// The name of the packages' folder as componentize-py looks for it below `VIRTUAL_ENV`.
const PACKAGES: &str = "packages/lib/site-packages";

/// componentize-py without its script, which names its interpreter by an absolute path: a source tree may move.
const COMPONENTIZE: &str = "import sys; from componentize_py import script; sys.exit(script())";

/// What a person may have set for pip, and where it would install into instead.
const ELSEWHERE: [&str; 4] = ["PIP_TARGET", "PIP_USER", "PIP_PREFIX", "PIP_ROOT"];

/// The interpreter of the toolbox, alone: without `PYTHONPATH`, the packages of the person (`-s`) and the
/// folder that it is started in.
fn python(toolbox: &Toolbox) -> Command {
    let mut python = Command::new(toolbox.at("venv/bin/python"));
    python.arg("-I");
    python
}

fn pip(toolbox: &Toolbox, src: &Path, requirements: &Path) -> Command {
    let mut pip = python(toolbox);
    pip.args(["-m", "pip", "install", "--quiet"])
        .args(["--disable-pip-version-check", "--retries=1", "-r"])
        .arg(requirements)
        // Paths in it begin there.
        .current_dir(src);
    for name in ELSEWHERE {
        pip.env_remove(name);
    }
    pip
}

pub(super) async fn install(
    toolbox: &Toolbox,
    src: &Path,
    progress: &Progress,
) -> anyhow::Result<Result<(), String>> {
    let pins = toolbox.at("requirements.txt");
    // The machine's Python may have gone, or become another, since the environment was made of it.
    let works = run(python(toolbox).args(["-c", "import componentize_py"])).await;
    if !matches!(works, Ok(Ok(_))) {
        toolbox.forget("venv");
    }
    let mut venv = Command::new("python3");
    venv.args(["-I", "-m", "venv", "--clear"])
        .arg(toolbox.at("venv"));
    let commands = vec![venv, pip(toolbox, src, &pins)];
    let pinned = fs::read(&pins).unwrap_or_default();
    let what = "componentize-py (pip)";
    let done = toolbox
        .install("venv", &pinned, progress, what, commands)
        .await?;
    if done.is_err() {
        return Ok(done);
    }
    let mut commands = Vec::new();
    let own = src.join("requirements.txt");
    if own.is_file() {
        let mut pip = pip(toolbox, src, &own);
        pip.arg("--target").arg(toolbox.at(PACKAGES));
        commands.push(pip);
    }
    let what = "the packages of requirements.txt (pip)";
    let wanted = requirements(src);
    toolbox
        .install("packages", &wanted, progress, what, commands)
        .await
}

/// What the site's pages need themselves: `requirements.txt`, and the files of the tree that it names.
pub(super) fn requirements(src: &Path) -> Vec<u8> {
    let text = fs::read_to_string(src.join("requirements.txt")).unwrap_or_default();
    let mut all = text.clone().into_bytes();
    let named = text.lines().flat_map(str::split_whitespace);
    for word in named.filter(|word| !word.starts_with('#')) {
        let place = src.join(word.trim_start_matches("file:"));
        if place.is_dir() && word.contains(['.', '/']) {
            for file in install::files_below(&place).unwrap_or_default() {
                all.extend(fs::read(place.join(file)).unwrap_or_default());
            }
        } else {
            all.extend(fs::read(place).unwrap_or_default());
        }
    }
    all
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
    fs::create_dir_all(toolbox.at(PACKAGES)).context("cannot make the folder of packages")?;
    let mut command = python(toolbox);
    command
        .args(["-c", COMPONENTIZE, "--quiet", "-w", "guest", "-d"])
        .arg(toolbox.at("wit"))
        .args(["componentize", "wisr_app", "-o"])
        .arg(&work.out)
        .arg("-p")
        .arg(stage.path().join(place))
        .arg("-p")
        .arg(stage.path())
        .arg("-p")
        .arg(toolbox.at("sdk"))
        // Else it takes in whatever is installed on this machine.
        .env("VIRTUAL_ENV", toolbox.at("packages"))
        .env("RUST_BACKTRACE", "0");
    let done = run(&mut command).await?;
    Ok(done
        .map(|_| inputs)
        .map_err(|said| words(&said, &place.to_string_lossy()))
        .map_err(|words| hinted(words, &toolbox.at(PACKAGES))))
}

/// What is missing, and what to do about it.
fn hinted(words: String, packages: &Path) -> String {
    let missing = words
        .rsplit_once("No module named '")
        .and_then(|(_, rest)| rest.split('\'').next())
        .map(str::to_owned);
    let native = native(packages);
    // A package may hide what it is missing behind an error of its own.
    let imports = |package: &&(String, String)| {
        let name = package.0.as_str();
        let is_it = missing
            .as_deref()
            .and_then(|missing| missing.split('.').next())
            == Some(name);
        is_it || words.contains(&format!("\"/3/{name}/"))
    };
    let told = if let Some((name, file)) = native.iter().find(imports) {
        format!(
            "\nThe package `{name}` has code of this machine's processor ({file}), which a page cannot run. \
             A page can use packages that are all Python."
        )
    } else if let Some(missing) = missing {
        format!(
            "\nA page can import what is in its own folder, in folders of the source tree whose names begin with \
             `_`, and the packages that `requirements.txt` beside wisr.toml lists; nothing else that is installed \
             on this machine. If `{missing}` is a package, list it there."
        )
    } else {
        String::new()
    };
    (words + &told).replace("\"/3/", "\"")
}

/// The packages that hold machine code, each with such a file.
fn native(packages: &Path) -> Vec<(String, String)> {
    let files = install::files_below(packages).unwrap_or_default();
    let native = files.into_iter().filter(|file| {
        let extension = Path::new(file).extension();
        extension.is_some_and(|extension| ["so", "pyd", "dylib"].iter().any(|it| extension == *it))
    });
    let named = native.map(|file| {
        let end = file.find(['/', '.']).unwrap_or(file.len());
        (file[..end].to_owned(), file)
    });
    named.collect()
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
