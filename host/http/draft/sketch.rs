//! `sketch`: a page as an editor sees it: made for them, whatever is listed or cached.

use std::sync::Arc;

use super::super::locate::{allowed, is_error_page};
use crate::isr::{Ask, Isr, Refused};
use crate::page::{Content, Entry};
use crate::release::Release;
use crate::route::Path;

/// The page of the first route that has one, if any has. What `static-paths` lists does not
/// matter: what is being written is not listed yet.
///
/// # Errors
/// When a route fails before, or there is no room to make it.
pub(in crate::http) async fn sketch(
    isr: &Isr,
    release: &Release,
    path: &Path,
    query: Option<&str>,
) -> Result<Option<Arc<Entry>>, Refused> {
    let mut missing = None;
    for found in release.table.matches(path) {
        let routed = found.value;
        if is_error_page(routed) {
            continue;
        }
        let query = query.map_or_else(Vec::new, |query| allowed(query, &routed.config.query));
        let params = routed.pattern.params_of(path);
        let ask = Ask::new(routed.page.clone(), path.as_str(), params, query);
        let entry = isr.draft(ask).await?;
        match entry.content {
            Content::NotFound => missing = missing.or(Some(entry)),
            Content::Document { .. } | Content::Redirect { .. } => return Ok(Some(entry)),
        }
    }
    Ok(missing)
}
