//! `/_wisr/`: data of pages, and in development the overlay.

use std::net::SocketAddr;
use std::sync::Arc;

use http::{Request, Response};

use super::super::Answer;
use super::super::body::Body;
use super::super::errors::Problem;
use super::super::locate::{locate, pairs};
use super::super::overlay::Overlay;
use super::super::respond::Face;
use super::Site;
use crate::http::Upload;
use crate::route::Path;

/// The props of pages.
const DATA: &str = "/_wisr/data/";

/// How a page failed, in development.
const FAILURE: &str = "/_wisr/dev/failure";

impl Site {
    /// Whatever is asked for there.
    pub(super) fn own(
        self: &Arc<Self>,
        path: &Path,
        asked: (Request<Upload>, SocketAddr),
    ) -> Answer {
        let request = &asked.0;
        let overlay = self.overlay.as_ref();
        if let Some(response) = overlay.and_then(|overlay| overlay.serve(path.as_str())) {
            return Answer::Now(response);
        }
        if let (Some(overlay), FAILURE) = (overlay, path.as_str()) {
            return Answer::Now(self.failure(overlay, request.uri().query().unwrap_or_default()));
        }
        let page = path
            .as_str()
            .strip_prefix(DATA)
            .and_then(|name| name.strip_suffix(".json"))
            // A second address of the index would be a second entry in every cache in front.
            .filter(|name| !name.is_empty())
            .map(|name| {
                if name == "index" {
                    "/".to_owned()
                } else {
                    format!("/{name}")
                }
            })
            .and_then(|page| Path::parse(&page).ok());
        let release = self.releases.load();
        self.page(&release, page.as_ref(), Face::Data, asked)
    }

    /// How the page that `?page=` names failed, for the browser that shows it.
    fn failure(&self, overlay: &Overlay, query: &str) -> Response<Body> {
        let named = pairs(query).find(|(name, _)| name == "page");
        let (_, page) = named.unwrap_or_default();
        let (path, query) = page.split_once('?').unwrap_or((&page, ""));
        let release = self.releases.load();
        let path = Path::parse(path).ok();
        let located = path.as_ref();
        match located.and_then(|path| locate(&release, path, Some(query))) {
            Some(located) => {
                let ask = located.ask();
                let kept = self.isr.kept(&ask.key);
                overlay.failure(&ask, kept.as_ref().map(|kept| &**kept.entry()))
            }
            None => Problem::NotFound.json(),
        }
    }
}
