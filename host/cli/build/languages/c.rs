//! C: clang and wasi-libc make a core module of WASI preview 1, which wisr adapts when it loads it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::{env, fs};

use anyhow::Context;
use tokio::process::Command;

use super::toolbox::{Toolbox, run};
use super::{Outcome, Work};
use crate::cli::build::Profile;

/// The sources of the SDK that are compiled into each page.
const SDK: [&str; 4] = ["wisr.c", "fetch.c", "text.c", "guest.c"];

/// What every compilation and link gets. The names of frames and the lines stay in both profiles: an abort is
/// told by them.
const FLAGS: [&str; 7] = [
    "--target=wasm32-wasi",
    "-mexec-model=reactor",
    "-fno-color-diagnostics",
    "-gline-tables-only",
    "-Werror=implicit-function-declaration",
    // A page that forgets to return would be whatever lies in memory.
    "-Werror=return-type",
    "-Wno-unused-command-line-argument",
];

/// The stack comes first, so that it overflows into a trap, not into data; lld's 64 KiB are little for C.
const LINK: [&str; 2] = ["-Wl,--stack-first", "-Wl,-z,stack-size=1048576"];

/// What is missing to compile C for WASI, found out by compiling.
pub(super) async fn missing() -> Option<String> {
    let mut probe = Command::new(clang());
    probe.args(FLAGS).args(LINK).args([
        "-x",
        "c",
        "-include",
        "stdio.h",
        "/dev/null",
        "-o",
        "/dev/null",
    ]);
    let why = match run(&mut probe).await {
        Ok(Ok(_)) => return None,
        Ok(Err(words)) => words.lines().next().unwrap_or_default().to_owned(),
        Err(error) => format!("{error:#}"),
    };
    Some(format!(
        "clang with lld and wasi-libc: on Debian `apt install clang lld wasi-libc libclang-rt-14-dev-wasm32` \
         (with 14 as `clang --version` has it), or wasi-sdk and WASI_SDK_PATH ({why})"
    ))
}

pub(super) async fn make(
    toolbox: &Toolbox,
    work: &Work<'_>,
    src: &Path,
    profile: Profile,
) -> anyhow::Result<Outcome> {
    let stage = tempfile::tempdir_in(toolbox.at("")).context("cannot make a folder to build in")?;
    let folder = &work.page.folder;
    let mut objects = vec![toolbox.at("guest_component_type.o")];
    for name in SDK {
        let object = toolbox.at(&format!("{name}.{profile:?}.o"));
        let source = toolbox.at(name);
        let mut command = compile(toolbox, src, profile, &source);
        if newer(&source, &object)
            && let Err(words) = run(command.arg("-o").arg(&object)).await?
        {
            return Ok(Err(words));
        }
        objects.push(object);
    }
    let mut inputs = Vec::new();
    for source in sources(folder)? {
        let name = source.file_name().unwrap_or_default();
        let object = stage.path().join(name).with_extension("o");
        let depends = object.with_extension("d");
        let mut command = compile(toolbox, src, profile, &source);
        // Where WISR_EMBED looks for its files.
        command
            .current_dir(folder)
            .arg("-MMD")
            .arg("-MF")
            .arg(&depends);
        if let Err(words) = run(command.arg("-o").arg(&object)).await? {
            return Ok(Err(words.replace(&format!("{}/", src.display()), "")));
        }
        inputs.extend(dependencies(&depends, folder, &toolbox.at(""))?);
        objects.push(object);
    }
    let embedded: Vec<PathBuf> = inputs
        .iter()
        .flat_map(|file| embeds(file, folder))
        .collect();
    inputs.extend(embedded);
    let mut link = Command::new(clang());
    link.args(FLAGS)
        .args(LINK)
        .args(&objects)
        .arg("-o")
        .arg(&work.out);
    Ok(run(&mut link).await?.map(|_| inputs))
}

/// That of wasi-sdk, where it is; else the system's.
fn clang() -> OsString {
    env::var_os("WASI_SDK_PATH").map_or_else(
        || OsString::from("clang"),
        |sdk| PathBuf::from(sdk).join("bin/clang").into_os_string(),
    )
}

fn compile(toolbox: &Toolbox, src: &Path, profile: Profile, source: &Path) -> Command {
    let mut command = Command::new(clang());
    let level = match profile {
        Profile::Dev => "-O1",
        Profile::Release => "-O2",
    };
    command
        .args(FLAGS)
        .arg(level)
        .arg("-I")
        .arg(toolbox.at(""))
        // Places as the author knows them, in messages and in frames.
        .arg("-fdebug-compilation-dir=.")
        .arg(format!("-ffile-prefix-map={}/=", src.display()))
        .arg("-c")
        .arg(source)
        .stdin(Stdio::null());
    // Headers of this machine are none of WASI's.
    for name in ["CPATH", "C_INCLUDE_PATH"] {
        command.env_remove(name);
    }
    command
}

fn newer(source: &Path, object: &Path) -> bool {
    let changed = |path: &Path| fs::metadata(path).and_then(|meta| meta.modified());
    match (changed(source), changed(object)) {
        (Ok(source), Ok(object)) => source > object,
        _ => true,
    }
}

fn sources(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder)
        .with_context(|| format!("cannot read the folder `{}`", folder.display()))?;
    let paths = entries.flatten().map(|entry| entry.path());
    let mut sources: Vec<PathBuf> = paths
        .filter(|path| path.extension().is_some_and(|extension| extension == "c"))
        .collect();
    sources.sort();
    Ok(sources)
}

/// The files that clang wrote down as a rule of make, but for the SDK's.
fn dependencies(rule: &Path, folder: &Path, sdk: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let text = fs::read_to_string(rule).context("clang wrote no list of what it read")?;
    let list = text.split_once(": ").map_or("", |(_, list)| list);
    let mut files = Vec::new();
    let mut file = String::new();
    let mut chars = list.chars();
    while let Some(char) = chars.next() {
        match char {
            // Before a line's end it only joins lines.
            '\\' => file.extend(chars.next().filter(|next| *next != '\n')),
            ' ' | '\n' if !file.is_empty() => files.push(folder.join(std::mem::take(&mut file))),
            ' ' | '\n' => {}
            other => file.push(other),
        }
    }
    files.extend((!file.is_empty()).then(|| folder.join(&file)));
    files.retain(|file| !file.starts_with(sdk));
    Ok(files)
}

/// The files that a source takes in by `WISR_EMBED(name, "file")`, of which clang says nothing.
fn embeds(source: &Path, folder: &Path) -> Vec<PathBuf> {
    let text = fs::read_to_string(source).unwrap_or_default();
    let calls = text.split("WISR_EMBED(").skip(1);
    let files = calls.filter_map(|call| call.split(')').next()?.split('"').nth(1));
    files.map(|file| folder.join(file)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_clang_read_is_known_by_its_rule() {
        let dir = tempfile::tempdir().unwrap();
        let rule = dir.path().join("page.d");
        let text = "out.o: /src/a\\ b/page.c \\\n  ../_shared/x.h \\\n  /sdk/wisr.h\n";
        fs::write(&rule, text).unwrap();
        let files = dependencies(&rule, Path::new("/src/a b"), Path::new("/sdk")).unwrap();
        let expected = ["/src/a b/page.c", "/src/a b/../_shared/x.h"].map(PathBuf::from);
        assert_eq!(files, expected);
    }

    #[test]
    fn embedded_files_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let source = dir.path().join("page.c");
        fs::write(&source, "WISR_EMBED(frame, \"../f.html\");\nint x;\n").unwrap();
        let expected = vec![PathBuf::from("/p/../f.html")];
        assert_eq!(embeds(&source, Path::new("/p")), expected);
    }
}
