//! `shadow`: the static file that takes the path of a module.

use std::path::Path;

use crate::route::Pattern;

/// What is served in the place of a module of this route, and what to do about it; none where
/// nothing is. That a file comes before `/[slug]` is what it is there for.
pub(super) fn shadow(site: &Path, pattern: &Pattern) -> Option<String> {
    let path = (!pattern.is_dynamic()).then(|| pattern.path_of(&[]).ok())??;
    let public = site.join("public");
    let file = path.segments().fold(public, |file, name| file.join(name));
    file.is_file().then(|| {
        format!("`public{path}` has the same path, and is served in its place; rename one of them")
    })
}
