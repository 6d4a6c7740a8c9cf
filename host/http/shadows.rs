//! `Shadows`: routes whose path has a static file, which is what readers get.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::release::{Release, Releases};
use crate::route::Path;

/// Tells of the modules that a file takes the path of, once of each.
pub(super) struct Shadows {
    releases: Arc<Releases>,
    told: BTreeSet<String>,
}

impl Shadows {
    pub(super) fn of(releases: Arc<Releases>) -> Self {
        Self {
            releases,
            told: BTreeSet::new(),
        }
    }

    /// Looks which routes have a file now.
    pub(super) fn look(&mut self, has_file: &dyn Fn(&Path) -> bool) {
        let shadowed: BTreeSet<String> = shadowed(&self.releases.current(), has_file).collect();
        for text in shadowed.difference(&self.told) {
            tracing::warn!("{text}");
        }
        self.told = shadowed;
    }
}

/// Routes with parameters are left out: that a file comes before `/[slug]` is what it is there for.
fn shadowed(release: &Release, has_file: &dyn Fn(&Path) -> bool) -> impl Iterator<Item = String> {
    let pages = release.table.iter();
    let pages = pages.map(|(pattern, routed)| (pattern, &routed.file));
    let apis = release.apis.iter();
    let apis = apis.map(|(pattern, routed)| (pattern, &routed.file));
    let fixed = pages
        .chain(apis)
        .filter(|(pattern, _)| !pattern.is_dynamic());
    fixed.filter_map(move |(pattern, module)| {
        let path = pattern.path_of(&[]).ok()?;
        has_file(&path).then(|| {
            let module = module.display();
            format!(
                "`public{path}` and `pages/{module}` have one path, `{path}`: the file is served, and \
                 the module never is. Rename one of them"
            )
        })
    })
}
