//! The style, the script and the icon of the dashboard, under names that change with them.

use std::sync::LazyLock;

use crate::page::Digest;

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("live.js");
const ICON: &str = include_str!("icon.svg");

/// Where each of them is.
pub(super) static PATHS: LazyLock<Paths> = LazyLock::new(|| Paths {
    style: format!("/assets/{}.css", Digest::of(STYLE.as_bytes()).short()),
    script: format!("/assets/{}.js", Digest::of(SCRIPT.as_bytes()).short()),
    icon: format!("/assets/{}.svg", Digest::of(ICON.as_bytes()).short()),
});

/// Addresses.
pub(super) struct Paths {
    pub(super) style: String,
    pub(super) script: String,
    pub(super) icon: String,
}

/// The content type and the text of what is at a path.
pub(super) fn find(path: &str) -> Option<(&'static str, &'static str)> {
    let paths = &*PATHS;
    let all = [
        (&paths.style, "text/css; charset=utf-8", STYLE),
        (&paths.script, "text/javascript; charset=utf-8", SCRIPT),
        (&paths.icon, "image/svg+xml", ICON),
    ];
    let found = all.into_iter().find(|(own, ..)| *own == path);
    found.map(|(_, kind, text)| (kind, text))
}
