//! `Site`: answers one request of the public door.
//!
//! checks → the endpoint of wisr's own, a file, an API route, or the page → how the reader may have it. A fresh
//! page is answered at once; everything else in a boxed future.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use http::request::Parts;
use http::{Request, Response};
use hyper::body::Incoming;
use tokio::runtime::Handle;

use super::api::{self, Apis};
use super::body::Body;
use super::check;
use super::errors::Problem;
use super::files::Files;
use super::locate::{Located, locate, pairs};
use super::overlay::{Dev, Overlay};
use super::respond::{Face, Reader};
use super::revalidate;
use super::showing::Showing;
use super::throttle::Throttle;
use super::views::{Asked, Views};
use super::witness::{Interest, TARGET, Witness};
use super::{Answer, Config, Service, Settings};
use crate::isr::{Ask, Isr, Patience, Refused, Served};
use crate::page::{Content, Cost, Entry};
use crate::release::{ApiRouted, Release, Releases, Routed};
use crate::route::Path;
use crate::telemetry::Incidents;

/// The built-in revalidate endpoint; an API route of the site takes its place.
const REVALIDATE: &str = "/api/revalidate";

/// Everything under it is wisr's own.
const OWN: &str = "/_wisr/";

/// The public door.
pub struct Site {
    releases: Arc<Releases>,
    isr: Isr,
    views: Views,
    apis: Apis,
    files: Option<Files>,
    settings: ArcSwap<Settings>,
    throttle: Throttle,
    dev: bool,
    overlay: Option<Overlay>,
}

impl Site {
    /// A site that serves the pages of `releases` through `isr`, and the files of the public
    /// folder. API routes run on `threads`. `dev` is what `wisr dev` adds, which shows
    /// the `incidents` of pages.
    pub fn new(
        config: Config,
        releases: Arc<Releases>,
        isr: Isr,
        threads: Handle,
        dev: Option<Dev>,
        incidents: Arc<Incidents>,
    ) -> Self {
        Self {
            releases,
            isr,
            views: Views::default(),
            apis: Apis::new(threads),
            files: config.public.map(Files::watch),
            settings: ArcSwap::from_pointee(config.settings),
            throttle: Throttle::default(),
            dev: config.dev,
            overlay: dev.map(|dev| Overlay::new(dev, incidents)),
        }
    }

    /// Takes up other settings; requests in flight go on under those that they began with.
    pub fn set(&self, settings: Settings) {
        self.settings.store(Arc::new(settings));
    }

    fn route(self: &Arc<Self>, request: Request<Incoming>, peer: SocketAddr) -> Answer {
        let (method, uri, headers) = (request.method(), request.uri(), request.headers());
        let target = check::target(method, uri);
        let path = match target {
            Ok(path) => path,
            Err(problem) => {
                let reader = Reader { headers, method };
                return Answer::Now(reader.sized(problem.page(self.dev)));
            }
        };
        if let Some(own) = path.as_str().strip_prefix(OWN) {
            return self.own(own, &path, request);
        }
        if self.files.as_ref().is_some_and(|files| files.has(&path)) {
            return self.file(request.into_parts().0);
        }
        let release = self.releases.load();
        if let Some(routed) = api::route_of(&release, &path, REVALIDATE) {
            return self.api(routed, request);
        }
        if path.as_str() == REVALIDATE {
            let site = self.clone();
            return Answer::Later(Box::pin(async move {
                let settings = site.settings.load_full();
                let call = revalidate::Endpoint {
                    isr: &site.isr,
                    releases: &site.releases,
                    token: settings.token.as_ref(),
                    throttle: &site.throttle,
                };
                call.answer(request, peer.ip()).await
            }));
        }
        let located = locate(&release, &path, uri.query());
        self.find(located, Face::Page, request)
    }

    fn api(self: &Arc<Self>, routed: Arc<ApiRouted>, request: Request<Incoming>) -> Answer {
        let site = self.clone();
        Answer::Later(Box::pin(async move {
            site.apis.answer(routed, request, site.dev).await
        }))
    }

    /// `/_wisr/…`: data of pages, and in development the overlay.
    fn own(self: &Arc<Self>, own: &str, path: &Path, request: Request<Incoming>) -> Answer {
        let overlay = self.overlay.as_ref();
        if let Some(response) = overlay.and_then(|overlay| overlay.serve(path.as_str())) {
            return Answer::Now(response);
        }
        if let (Some(overlay), "dev/failure") = (overlay, own) {
            return Answer::Now(self.failure(overlay, request.uri().query().unwrap_or_default()));
        }
        let page = own
            .strip_prefix("data/")
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
        let query = request.uri().query();
        let located = page.as_ref().and_then(|page| locate(&release, page, query));
        self.find(located, Face::Data, request)
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

    fn file(self: &Arc<Self>, parts: Parts) -> Answer {
        let site = self.clone();
        Answer::Later(Box::pin(async move {
            match &site.files {
                Some(files) => files.serve(parts).await,
                None => Problem::NotFound.page(site.dev),
            }
        }))
    }

    fn find(
        self: &Arc<Self>,
        located: Option<Located<'_>>,
        face: Face,
        request: Request<Incoming>,
    ) -> Answer {
        // Error pages answer for others; they have no address of their own.
        let is_error_page = |route: &str| matches!(route, "/404" | "/500");
        let located = located.filter(|located| !is_error_page(&located.routed.page.route));
        let Some(located) = located else {
            return self.later(request, async move |site, parts| {
                site.problem(&Problem::NotFound, face, &parts).await
            });
        };
        if !check::is_read(request.method()) {
            return Answer::Now(match face {
                Face::Page => Problem::Method.page(self.dev),
                Face::Data => Problem::Method.json(),
            });
        }
        let asked = Asked {
            isr: &self.isr,
            page: &located.routed.page,
            path: located.path.as_str(),
            query: &located.query,
            face,
            reader: Reader {
                headers: request.headers(),
                method: request.method(),
            },
            now: self.isr.now(),
        };
        if let Some(hit) = self.views.answer(&asked) {
            return Answer::Now(hit);
        }
        let (patience, ask) = (located.patience, located.ask());
        self.later(request, async move |site, parts| {
            site.wait(ask, patience, face, &parts).await
        })
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
            _ if face == Face::Data || self.settings.load().crawlers.sent(&parts.headers) => {
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
        let reader = Reader {
            headers: &parts.headers,
            method: &parts.method,
        };
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

    async fn problem(&self, problem: &Problem, face: Face, parts: &Parts) -> Response<Body> {
        let reader = Reader {
            headers: &parts.headers,
            method: &parts.method,
        };
        match face {
            Face::Data => reader.sized(problem.json()),
            Face::Page => {
                let own = self.own_page(problem).await;
                reader.problem(problem, own.as_deref(), self.dev)
            }
        }
    }

    /// The site's own page for a problem, where it has one that does not fail itself.
    async fn own_page(&self, problem: &Problem) -> Option<Arc<Entry>> {
        let release = self.releases.current();
        let (routed, path) = error_page(&release, problem)?;
        let ask = Ask::new(routed.page.clone(), path, Vec::new(), Vec::new());
        match self.isr.serve(ask, Patience::Wait).await.ok()? {
            Served::Hit { entry, .. }
            | Served::Stale { entry, .. }
            | Served::Rendered { entry, .. }
            | Served::LastGood { entry, .. } => Some(entry),
            Served::Shell(_) => None,
        }
    }

    /// Answers while somebody watches: an author in the browser and on the terminal, an operator in
    /// the log.
    fn watched(self: &Arc<Self>, mut request: Request<Incoming>, peer: SocketAddr) -> Answer {
        let witness = Witness::of(&request);
        let injects = self.overlay.is_some() && Overlay::wanted(request.headers());
        if injects {
            Overlay::prepare(request.headers_mut());
        }
        let answer = self.route(request, peer);
        let site = self.clone();
        let finish = move |mut response| {
            if injects {
                response = Overlay::inject(response);
            }
            site.tell(&witness, &mut response);
            response
        };
        match answer {
            Answer::Now(response) => Answer::Now(finish(response)),
            Answer::Later(response) => {
                Answer::Later(Box::pin(async move { finish(response.await) }))
            }
        }
    }

    fn tell(&self, witness: &Witness, response: &mut Response<Body>) {
        let (line, interest) = witness.line(response);
        match (&self.overlay, interest) {
            (Some(overlay), Interest::Told) => overlay.say(&line),
            (None, Interest::Told) => tracing::debug!(target: TARGET, "{line}"),
            (_, Interest::Quiet) => tracing::trace!(target: TARGET, "{line}"),
        }
        if self.overlay.is_some() {
            witness.time(response);
        }
    }

    fn later<F>(
        self: &Arc<Self>,
        request: Request<Incoming>,
        answer: impl FnOnce(Arc<Self>, Parts) -> F,
    ) -> Answer
    where
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        Answer::Later(Box::pin(answer(self.clone(), request.into_parts().0)))
    }
}

impl Service for Site {
    fn answer(self: &Arc<Self>, request: Request<Incoming>, peer: SocketAddr) -> Answer {
        let is_watched = tracing::enabled!(target: TARGET, tracing::Level::DEBUG);
        match is_watched || self.overlay.is_some() {
            true => self.watched(request, peer),
            false => self.route(request, peer),
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
