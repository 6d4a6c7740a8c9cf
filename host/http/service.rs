//! `Site`: answers one request of the public door.
//!
//! checks → a file, an API route, an endpoint of wisr's own, or the page → how the reader may have
//! it. A fresh page is answered at once; everything else in a boxed future.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use http::request::Parts;
use http::{Method, Request, Response, header};
use hyper::body::Incoming;
use tokio::runtime::Handle;

use super::api::{self, Apis};
use super::body::Body;
use super::check;
use super::draft::{self, Desk};
use super::errors::Problem;
use super::files::Files;
use super::locate::{Located, locate, pairs};
use super::overlay::{Dev, Overlay};
use super::respond::{Face, Reader};
use super::revalidate::{self, Revalidation};
use super::shadows::Shadows;
use super::showing::Showing;
use super::throttle::Throttle;
use super::views::{Asked, Views};
use super::webhook::{Mailroom, Webhook, webhook_of};
use super::witness::{Interest, TARGET, Witness};
use super::{Answer, Config, Express, Plain, Service, Settings};
use crate::isr::{Ask, Isr, Patience, Refused, Served};
use crate::page::{Content, Cost, Entry};
use crate::release::{ApiRouted, Release, Releases, Routed};
use crate::route::Path;
use crate::telemetry::Incidents;
use crate::telemetry::trace::at_route;

/// The built-in revalidate endpoint; an API route of the site takes its place.
pub const REVALIDATE: &str = "/api/revalidate";

/// An endpoint of wisr's own; an API route of the site takes its place.
enum Endpoint {
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

/// Everything under it is wisr's own.
const OWN: &str = "/_wisr/";

/// The props of pages.
const DATA: &str = "/_wisr/data/";

/// How a page failed, in development.
const FAILURE: &str = "/_wisr/dev/failure";

/// Who answers for a path.
enum Place {
    /// wisr itself, below [`OWN`].
    Own,
    /// A file of the public folder, by its name there.
    File(Box<str>),
    Api(Arc<ApiRouted>),
    Endpoint(Endpoint),
    /// A page, if a route has it.
    Page,
}

/// The public door.
pub struct Site {
    releases: Arc<Releases>,
    isr: Isr,
    views: Views,
    apis: Apis,
    revalidation: Revalidation,
    mailroom: Mailroom,
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
        let files = config.public.map(|public| {
            let mut shadows = Shadows::of(releases.clone());
            Files::watch(public, move |has_file| shadows.look(has_file))
        });
        let revalidation = Revalidation {
            isr: isr.clone(),
            releases: releases.clone(),
        };
        Self {
            apis: Apis::new(threads.clone(), revalidation.clone(), isr.metrics().clone()),
            mailroom: Mailroom::new(revalidation.clone(), threads),
            revalidation,
            throttle: Throttle::new("site", isr.metrics()),
            files,
            releases,
            isr,
            views: Views::default(),
            settings: ArcSwap::from_pointee(config.settings),
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
        let release = self.releases.load();
        match self.place(&release, &path) {
            Place::Own => self.own(&path, request),
            Place::File(name) => self.file(name, request),
            Place::Api(routed) => self.api(routed, request),
            Place::Endpoint(endpoint) => self.endpoint(endpoint, path, request, peer),
            Place::Page => self.page(&release, Some(&path), Face::Page, request),
        }
    }

    fn place(&self, release: &Release, path: &Path) -> Place {
        if path.as_str().starts_with(OWN) {
            return Place::Own;
        }
        if let Some(name) = self.files.as_ref().and_then(|files| files.find(path)) {
            return Place::File(name);
        }
        let endpoint = Endpoint::of(&self.settings, path);
        match (api::route_of(release, path, endpoint.is_some()), endpoint) {
            (Some(routed), _) => Place::Api(routed),
            (None, Some(endpoint)) => Place::Endpoint(endpoint),
            (None, None) => Place::Page,
        }
    }

    /// An endpoint of wisr's own.
    fn endpoint(
        self: &Arc<Self>,
        endpoint: Endpoint,
        path: Path,
        request: Request<Incoming>,
        peer: SocketAddr,
    ) -> Answer {
        let (site, address) = (self.clone(), peer.ip());
        Answer::Later(Box::pin(async move {
            let settings = site.settings.load_full();
            match endpoint {
                Endpoint::Revalidate => {
                    let endpoint = revalidate::Endpoint {
                        revalidation: &site.revalidation,
                        token: settings.token.as_ref(),
                        throttle: &site.throttle,
                    };
                    endpoint.answer(request, address).await
                }
                Endpoint::Draft => {
                    let desk = Desk {
                        draft: settings.draft.as_deref(),
                        release: &site.releases.current(),
                        throttle: &site.throttle,
                        now: site.isr.now(),
                    };
                    desk.answer(&path, &request.into_parts().0, address)
                }
                Endpoint::Webhook(name, webhook) => {
                    let from = (&site.throttle, address);
                    let mailroom = &site.mailroom;
                    mailroom.answer((&name, &webhook), request, from).await
                }
            }
        }))
    }

    fn api(self: &Arc<Self>, routed: Arc<ApiRouted>, request: Request<Incoming>) -> Answer {
        at_route(routed.pattern.as_str());
        let site = self.clone();
        Answer::Later(Box::pin(async move {
            site.apis.answer(routed, request, site.dev).await
        }))
    }

    /// `/_wisr/…`: data of pages, and in development the overlay.
    fn own(self: &Arc<Self>, path: &Path, request: Request<Incoming>) -> Answer {
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
        self.page(&release, page.as_ref(), Face::Data, request)
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

    /// A page, or its props: the cached ones, or to an editor in draft mode those of now.
    fn page(
        self: &Arc<Self>,
        release: &Release,
        path: Option<&Path>,
        face: Face,
        request: Request<Incoming>,
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
        self.find(located, face, request)
    }

    fn sees_drafts(&self, request: &Request<Incoming>) -> bool {
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
        let reader = Reader {
            headers: &parts.headers,
            method: &parts.method,
        };
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

    fn file(self: &Arc<Self>, name: Box<str>, request: Request<Incoming>) -> Answer {
        self.later(request, async move |site, parts| {
            let served = match &site.files {
                Some(files) => files.serve(name, parts.clone()).await,
                None => None,
            };
            match served {
                Some(response) => response,
                None => site.problem(&Problem::NotFound, Face::Page, &parts).await,
            }
        })
    }

    fn find(
        self: &Arc<Self>,
        located: Option<Located<'_>>,
        face: Face,
        request: Request<Incoming>,
    ) -> Answer {
        let located = located.filter(|located| !is_error_page(located));
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
        let (patience, ask) = (located.patience, located.ask());
        self.later(request, async move |site, parts| {
            site.wait(ask, patience, face, &parts).await
        })
    }

    fn asked<'a>(&'a self, located: &'a Located<'_>, face: Face, reader: Reader<'a>) -> Asked<'a> {
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
    fn express(&self, plain: &Plain<'_>) -> Option<Express> {
        if self.dev || is_watched() {
            return None;
        }
        let path = Path::parse(plain.path).ok()?;
        let release = self.releases.load();
        let Place::Page = self.place(&release, &path) else {
            return None;
        };
        let located = locate(&release, &path, plain.query)?;
        let reader = Reader {
            headers: &plain.headers,
            method: &Method::GET,
        };
        if is_error_page(&located) {
            return None;
        }
        self.views
            .express(&self.asked(&located, Face::Page, reader))
    }

    fn answer(self: &Arc<Self>, request: Request<Incoming>, peer: SocketAddr) -> Answer {
        match is_watched() || self.overlay.is_some() {
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

/// Whether somebody wants to read of each look into the cache.
fn is_watched() -> bool {
    tracing::enabled!(target: TARGET, tracing::Level::DEBUG)
}

/// Error pages answer for others; they have no address of their own.
fn is_error_page(located: &Located<'_>) -> bool {
    matches!(&*located.routed.page.route, "/404" | "/500")
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
