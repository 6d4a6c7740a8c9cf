//! [`tool`]: programs that a plain Rust machine may lack.

use std::path::PathBuf;

/// Says that a missing program is a failure, as where all of them were installed.
const REQUIRED: (&str, &str) = ("WISR_TEST_TOOLS", "required");

/// The program `name` of `PATH`. Where it is missing, one line says how to `install` it, and the
/// test is skipped unless the environment requires the tools.
pub(crate) fn tool(name: &str, install: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|file| file.is_file());
    if found.is_none() {
        let required = std::env::var(REQUIRED.0).is_ok_and(|value| value == REQUIRED.1);
        assert!(!required, "{name} is missing ({install})");
        eprintln!("skipped: needs {name} ({install})");
    }
    found
}
