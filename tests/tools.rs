//! Programs that tests need and a plain Rust machine lacks: found, or said to be missing.

use std::path::PathBuf;

/// Where a program is. Without it the test says so and returns, unless the environment demands all
/// of them, as the project's own builder does.
#[track_caller]
pub(crate) fn tool(name: &str, install: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|file| file.is_file());
    if found.is_none() {
        let required = std::env::var("WISR_TEST_TOOLS").is_ok_and(|wanted| wanted == "required");
        assert!(!required, "needs {name} ({install})");
        eprintln!("skipped: needs {name} ({install})");
    }
    found
}
