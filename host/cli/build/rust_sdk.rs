//! The crate `wisr-guest`, as it is laid down below a source tree that was made by `wisr new`.

use std::fs;
use std::path::Path;

use toml::{Table, Value};

use super::install;

/// Where it is, below the source tree; the site's `Cargo.toml` names it.
pub(in crate::cli) const RUST_SDK: &str = ".wisr/rust";

/// The manifest in this repository, which shares some keys with the repository's own.
const MANIFEST: &str = include_str!("../../../guest-sdk/Cargo.toml");
const REPOSITORY: &str = include_str!("../../../Cargo.toml");

macro_rules! files {
    ($($place:literal),* $(,)?) => {
        [$(($place, include_str!(concat!("../../../guest-sdk/", $place)))),*]
    };
}

const FILES: [(&str, &str); 20] = files![
    "wit/page.wit",
    "wit/revalidate.wit",
    "src/api.rs",
    "src/bindings.rs",
    "src/context.rs",
    "src/document.rs",
    "src/error.rs",
    "src/export.rs",
    "src/fetch.rs",
    "src/host.rs",
    "src/html.rs",
    "src/lib.rs",
    "src/log.rs",
    "src/outcome.rs",
    "src/outgoing.rs",
    "src/page.rs",
    "src/revalidate.rs",
    "src/serve.rs",
    "src/testing/api.rs",
    "src/testing/mod.rs",
];

/// Lays it down where the site's `Cargo.toml` looks for it there.
///
/// # Errors
/// A folder that cannot be written.
pub(in crate::cli) fn lay_down(src: &Path) -> anyhow::Result<()> {
    let named = fs::read_to_string(src.join("Cargo.toml")).is_ok_and(|it| it.contains(RUST_SDK));
    if !named {
        return Ok(());
    }
    let folder = src.join(RUST_SDK);
    let manifest = manifest()?;
    let files = FILES.into_iter().chain([("Cargo.toml", manifest.as_str())]);
    for (place, text) in files {
        // cargo would compile again what is written again.
        install::put(&folder.join(place), text.as_bytes())?;
    }
    Ok(())
}

/// The manifest with nothing in it that the repository around it would have to say.
fn manifest() -> anyhow::Result<String> {
    let mut manifest: Table = MANIFEST.parse()?;
    let repository: Table = REPOSITORY.parse()?;
    let shared = &repository["workspace"]["package"];
    if let Some(package) = manifest.get_mut("package").and_then(Value::as_table_mut) {
        for (key, value) in package.iter_mut() {
            if value.get("workspace").is_some() {
                *value = shared[key].clone();
            }
        }
    }
    manifest.remove("lints");
    Ok(toml::to_string(&manifest)?)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_file_of_the_crate_is_left_out() {
        let crate_ = Path::new(env!("CARGO_MANIFEST_DIR")).join("guest-sdk");
        for folder in ["src", "wit"] {
            let files = install::files_below(&crate_.join(folder)).unwrap();
            let there: BTreeSet<String> = files
                .iter()
                .map(|file| format!("{folder}/{file}"))
                .collect();
            let laid: BTreeSet<String> = FILES
                .iter()
                .map(|(place, _)| (*place).to_owned())
                .filter(|place| place.starts_with(folder))
                .collect();
            assert_eq!(laid, there);
        }
    }

    #[test]
    fn its_manifest_stands_alone() {
        let manifest: Table = manifest().unwrap().parse().unwrap();
        assert_eq!(
            manifest["package"]["version"].as_str(),
            Some(env!("CARGO_PKG_VERSION"))
        );
        assert!(!toml::to_string(&manifest).unwrap().contains("workspace"));
    }
}
