//! Pages and their props: the cached ones, and to an editor in draft mode those of now; and what
//! is shown in place of one.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use http::{Request, Response, header};

use super::super::Answer;
use super::super::body::Body;
use super::super::check;
use super::super::draft;
use super::super::errors::Problem;
use super::super::locate::{Located, locate};
use super::super::respond::{Face, Reader};
use super::super::showing::Showing;
use super::super::views::Asked;
use super::Site;
use crate::http::Upload;
use crate::isr::{Ask, Patience, Refused, Served, Toll};
use crate::page::{Content, Cost, Entry};
use crate::release::{Release, Routed};
use crate::route::Path;
use crate::telemetry::trace::at_route;

impl Site {
    /// A page, or its props: the cached ones, or to an editor in draft mode those of now.
    pub(super) fn page(
        self: &Arc<Self>,
        release: &Release,
        path: Option<&Path>,
        face: Face,
        (request, peer): (Request<Upload>, SocketAddr),
    ) -> Answer {
        if let Some(path) = path
            && check::is_read(request.method())
            && self.sees_drafts(&request)
        {
            let path = path.clone();
            return self.later(request, async move |site, parts| {
                site.sketch(&path, face, &parts).await
            });
        }
        let query = request.uri().query();
        let located = path.and_then(|path| locate(release, path, query));
        self.find(located, face, (request, peer))
    }

    fn sees_drafts(&self, request: &Request<Upload>) -> bool {
        // Nearly nobody has one: the others pay for no more than this look.
        request.headers().contains_key(header::COOKIE)
            && self
                .settings
                .load()
                .draft
                .as_ref()
                .is_some_and(|draft| draft.admits(request.uri(), request.headers(), self.isr.now()))
    }

    async fn sketch(&self, path: &Path, face: Face, parts: &Parts) -> Response<Body> {
        let reader = Reader::of(parts);
        let release = self.releases.current();
        let sketch = draft::sketch(&self.isr, &release, path, parts.uri.query());
        let problem = match sketch.await {
            Ok(Some(entry)) => {
                let own = match (face, &entry.content) {
                    (Face::Page, Content::NotFound) => self.own_page(&Problem::NotFound).await,
                    _ => None,
                };
                return reader.draft(&entry, face, own.as_deref());
            }
            Ok(None) => return self.problem(&Problem::NotFound, face, parts).await,
            Err(Refused::Failed(failure)) => Problem::Draft(failure),
            Err(refused) => refused.into(),
        };
        reader.draft_problem(&problem, face, self.dev)
    }

    fn find(
        self: &Arc<Self>,
        located: Option<Located<'_>>,
        face: Face,
        (request, peer): (Request<Upload>, SocketAddr),
    ) -> Answer {
        let located = located.filter(|located| !located.is_error_page());
        let Some(located) = located else {
            return self.later(request, async move |site, parts| {
                site.problem(&Problem::NotFound, face, &parts).await
            });
        };
        at_route(&located.routed.page.route);
        if !check::is_read(request.method()) {
            return Answer::Now(match face {
                Face::Page => Problem::Method.page(self.dev),
                Face::Data => Problem::Method.json(),
            });
        }
        let reader = Reader {
            headers: request.headers(),
            method: request.method(),
        };
        if let Some(hit) = self.views.answer(&self.asked(&located, face, reader)) {
            return Answer::Now(hit);
        }
        let toll = self.toll(&located, &request, peer);
        let (patience, ask) = (located.patience, located.ask().charged(toll));
        self.later(request, async move |site, parts| {
            site.wait(ask, patience, face, &parts).await
        })
    }

    /// What a client pays with who is the first to ask for a page that the site does not name.
    fn toll<B>(
        &self,
        located: &Located<'_>,
        request: &Request<B>,
        peer: SocketAddr,
    ) -> Option<Arc<dyn Toll>> {
        let allowance = self.allowance.as_ref()?;
        let client = || self.proxies.client(peer.ip(), request.headers());
        (!located.is_named()).then(|| allowance.of(client()))
    }

    pub(super) fn asked<'a>(
        &'a self,
        located: &'a Located<'_>,
        face: Face,
        reader: Reader<'a>,
    ) -> Asked<'a> {
        Asked {
            isr: &self.isr,
            page: &located.routed.page,
            path: located.path.as_str(),
            query: &located.query,
            face,
            reader,
            now: self.isr.now(),
        }
    }

    async fn wait(
        &self,
        ask: Ask,
        patience: Patience,
        face: Face,
        parts: &Parts,
    ) -> Response<Body> {
        let patience = match patience {
            // A script asks for props, and a crawler for what it will index: a shell helps neither.
            Patience::Shell
                if face == Face::Data || self.settings.load().crawlers.sent(&parts.headers) =>
            {
                Patience::Wait
            }
            patience => patience,
        };
        let max_stale = ask.page.policy.max_stale;
        let served = self.isr.serve(ask, patience).await;
        let cost = self.overlay.as_ref().and_then(|_| cost(&served));
        let mut response = match served {
            Ok(served) => self.show(&served, max_stale, face, parts).await,
            Err(refused) => self.problem(&refused.into(), face, parts).await,
        };
        if let Some(cost) = cost {
            response.extensions_mut().insert(cost);
        }
        response
    }

    async fn show(
        &self,
        served: &Served,
        max_stale: Duration,
        face: Face,
        parts: &Parts,
    ) -> Response<Body> {
        let reader = Reader::of(parts);
        if let Served::Shell(shell) = served {
            return reader.shell(shell);
        }
        let Some(showing) = Showing::of(served, self.isr.now(), max_stale) else {
            return self.problem(&Problem::NotFound, face, parts).await;
        };
        match (face, &showing.entry.content) {
            (Face::Data, _) => reader.data(&showing),
            (Face::Page, Content::NotFound) => {
                let own = self.own_page(&Problem::NotFound).await;
                reader.page(&showing, own.as_deref())
            }
            (Face::Page, _) => reader.page(&showing, None),
        }
    }

    pub(super) async fn problem(
        &self,
        problem: &Problem,
        face: Face,
        parts: &Parts,
    ) -> Response<Body> {
        let reader = Reader::of(parts);
        match face {
            Face::Data => reader.sized(problem.json()),
            Face::Page => {
                let own = self.own_page(problem).await;
                reader.problem(problem, own.as_deref(), self.dev)
            }
        }
    }

    /// The site's own page for a problem, where it has one that does not fail itself. One that never
    /// did otherwise, and failed a moment ago, keeps nobody waiting who is told of a problem.
    async fn own_page(&self, problem: &Problem) -> Option<Arc<Entry>> {
        let release = self.releases.current();
        let (routed, path) = error_page(&release, problem)?;
        let ask = Ask::new(routed.page.clone(), path, Vec::new(), Vec::new());
        let is_held_back = self.isr.held_back(&ask.page, &ask.key).is_some();
        if is_held_back && self.isr.entry(&ask.key).await.is_none() {
            return None;
        }
        match self.isr.serve(ask, Patience::Wait).await.ok()? {
            Served::Hit { entry, .. }
            | Served::Stale { entry, .. }
            | Served::Rendered { entry, .. }
            | Served::LastGood { entry, .. } => Some(entry),
            Served::Shell(_) => None,
        }
    }
}

/// What the generation took that the reader waited for.
fn cost(served: &Result<Served, Refused>) -> Option<Cost> {
    match served {
        Ok(Served::Rendered { entry, .. }) => Some(entry.cost.clone()),
        Ok(Served::LastGood { failure, .. }) | Err(Refused::Failed(failure)) => {
            Some(failure.cost.clone())
        }
        _ => None,
    }
}

fn error_page<'a>(
    release: &'a Release,
    problem: &Problem,
) -> Option<(&'a Arc<Routed>, &'static str)> {
    match problem {
        Problem::NotFound => Some((release.not_found.as_ref()?, "/404")),
        Problem::Failed(_) => Some((release.error.as_ref()?, "/500")),
        _ => None,
    }
}
