//! Crates of pages: the site's workspace, and what a page in Rust needs to be one of it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use toml_edit::{DocumentMut, InlineTable, Item, Value};

use super::place::Place;
use crate::cli::build;

const WORKSPACE: &str = include_str!("templates/rust.workspace.toml.in");
const PACKAGE: &str = include_str!("templates/rust.Cargo.toml.in");

/// The manifest of a page.
pub(super) fn manifest(place: &Place) -> String {
    PACKAGE.replace("@CRATE@", &place.package())
}

/// Adds the page to the workspace of the site, which is made if there is none; the files that were
/// made.
pub(super) fn enlist(src: &Path, place: &Place) -> anyhow::Result<Vec<PathBuf>> {
    let path = src.join("Cargo.toml");
    let is_new = !path.exists();
    let text = if is_new {
        WORKSPACE.to_owned()
    } else {
        fs::read_to_string(&path).with_context(|| format!("cannot read `{}`", path.display()))?
    };
    let mut manifest: DocumentMut = text
        .parse()
        .with_context(|| format!("`{}` is not TOML", path.display()))?;
    let Some(members) = members(&mut manifest) else {
        bail!(
            "`{}` is not the workspace of a site's pages: give it `[workspace]` with `members = []`",
            path.display()
        );
    };
    members.push(place.folder());
    if let Some(dependencies) = manifest["workspace"].as_table_mut().map(|workspace| {
        workspace
            .entry("dependencies")
            .or_insert(toml_edit::table())
    }) && dependencies.get("wisr-guest").is_none()
    {
        let own = InlineTable::from_iter([("path", Value::from(build::RUST_SDK))]);
        dependencies["wisr-guest"] = Item::Value(own.into());
    }
    fs::create_dir_all(src)
        .and_then(|()| fs::write(&path, manifest.to_string()))
        .with_context(|| format!("cannot write `{}`", path.display()))?;
    build::lay_down_rust_sdk(src)?;
    Ok(if is_new { vec![path] } else { Vec::new() })
}

fn members(manifest: &mut DocumentMut) -> Option<&mut toml_edit::Array> {
    let workspace = manifest.get_mut("workspace")?.as_table_mut()?;
    let members = workspace
        .entry("members")
        .or_insert(toml_edit::value(toml_edit::Array::new()));
    members.as_array_mut()
}
