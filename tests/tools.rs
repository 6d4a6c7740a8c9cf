//! [`tool`]: programs that a machine with Rust alone does not have.

use std::path::PathBuf;

/// A program in the search path. Where it is missing, says so and returns none: the test that needs
/// it is skipped; under `WISR_TEST_TOOLS=required` it fails.
#[track_caller]
pub(crate) fn tool(name: &str, install: &str) -> Option<PathBuf> {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&folders)
        .map(|folder| folder.join(name))
        .find(|program| program.is_file());
    if found.is_none() {
        let skipped = format!("skipped: needs {name} ({install})");
        let is_required = std::env::var_os("WISR_TEST_TOOLS").is_some_and(|it| it == "required");
        assert!(!is_required, "{skipped}");
        eprintln!("{skipped}");
    }
    found
}
