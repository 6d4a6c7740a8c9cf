//! The files of a new site beside its pages.

use std::path::{Path, PathBuf};

use super::write;

const FILES: [(&str, &str); 3] = [
    ("wisr.toml", include_str!("templates/wisr.toml")),
    ("public/style.css", include_str!("templates/style.css")),
    (".gitignore", include_str!("templates/gitignore")),
];

/// Makes those that are not there.
pub(super) fn lay_out(src: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let missing = FILES.iter().filter(|(name, _)| !src.join(name).exists());
    missing.map(|(name, text)| write(src, name, text)).collect()
}
