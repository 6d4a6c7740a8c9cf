//! `Place`: who answers for a path. Both ways through the door ask here.

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::super::Settings;
use super::super::api;
use super::super::files::Files;
use super::super::webhook::{Webhook, webhook_of};
use crate::release::{ApiRouted, Release};
use crate::route::Path;

/// Everything under it is wisr's own.
const OWN: &str = "/_wisr/";

/// Who answers for a path.
pub(super) enum Place {
    /// wisr itself, below [`OWN`].
    Own,
    /// A file of the public folder, by its name there.
    File(Box<str>),
    Api(Arc<ApiRouted>),
    Endpoint(Endpoint),
    /// A page, if a route has it.
    Page,
}

impl Place {
    pub(super) fn of(
        path: &Path,
        files: Option<&Files>,
        release: &Release,
        settings: &ArcSwap<Settings>,
    ) -> Self {
        if path.as_str().starts_with(OWN) {
            return Self::Own;
        }
        if let Some(name) = files.and_then(|files| files.find(path)) {
            return Self::File(name);
        }
        let endpoint = Endpoint::of(settings, path);
        match (api::route_of(release, path, endpoint.is_some()), endpoint) {
            (Some(routed), _) => Self::Api(routed),
            (None, Some(endpoint)) => Self::Endpoint(endpoint),
            (None, None) => Self::Page,
        }
    }
}

/// An endpoint of wisr's own; an API route of the site takes its place.
pub(super) enum Endpoint {
    Revalidate,
    Draft,
    Webhook(String, Arc<Webhook>),
}

impl Endpoint {
    fn of(settings: &ArcSwap<Settings>, path: &Path) -> Option<Self> {
        let path = path.as_str();
        match path.strip_prefix("/api/")? {
            "revalidate" => Some(Self::Revalidate),
            "draft" | "draft/off" => Some(Self::Draft),
            below => {
                let (name, webhook) = webhook_of(&settings.load().webhooks, below)?;
                Some(Self::Webhook(name.to_owned(), webhook))
            }
        }
    }
}
