//! `Site`: answers one request of the public door.
//!
//! checks → a file, an API route, an endpoint of wisr's own, or the page → how the reader may have
//! it. A fresh page is answered at once; everything else in a boxed future.

mod own;
mod pages;
mod place;
mod watched;

use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use http::request::Parts;
use http::{Method, Request, Response};
use tokio::runtime::Handle;

use super::allowance::Allowance;
use super::api::Apis;
use super::body::Body;
use super::check;
use super::draft::Desk;
use super::errors::Problem;
use super::files::Files;
use super::hosts::Hosts;
use super::locate::locate;
use super::overlay::{Dev, Overlay};
use super::proxies::Proxies;
use super::respond::{Face, Reader};
use super::revalidate::{self, Revalidation};
use super::shadows::Shadows;
use super::throttle::Throttle;
use super::views::Views;
use super::webhook::Mailroom;
use super::{Answer, Config, Plain, Service, Settings, Short};
use crate::http::Upload;
use crate::isr::{Isr, Queue};
use crate::page::{Entry, PageKey};
use crate::release::{ApiRouted, Release, Releases};
use crate::route::Path;
use crate::telemetry::Incidents;
use crate::telemetry::trace::at_route;
use place::{Endpoint, Place};
use watched::is_watched;

/// The built-in revalidate endpoint; an API route of the site takes its place.
pub const REVALIDATE: &str = "/api/revalidate";

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
    proxies: Arc<Proxies>,
    /// None where nobody says which addresses are clients.
    allowance: Option<Allowance>,
    dev: bool,
    hosts: Option<Hosts>,
    overlay: Option<Overlay>,
}

impl Site {
    /// A site that serves the pages of `releases` through `isr`, and the files of the public
    /// folder. API routes run on `threads`, each in its turn. `dev` is what `wisr dev` adds, which shows
    /// the `incidents` of pages.
    pub fn new(
        config: Config,
        releases: Arc<Releases>,
        isr: Isr,
        (threads, turns): (Handle, Arc<Queue>),
        dev: Option<Dev>,
        incidents: Arc<Incidents>,
    ) -> Self {
        let files = config.public.map(|public| {
            let mut shadows = Shadows::of(releases.clone());
            Files::watch(public, config.open_files, move |has_file| {
                shadows.look(has_file)
            })
        });
        let revalidation = Revalidation {
            isr: isr.clone(),
            releases: releases.clone(),
        };
        Self {
            apis: Apis::new(
                (threads.clone(), turns),
                revalidation.clone(),
                isr.metrics().clone(),
            ),
            mailroom: Mailroom::new(revalidation.clone(), threads),
            revalidation,
            throttle: Throttle::new("site", isr.metrics()),
            files,
            releases,
            isr,
            views: Views::default(),
            settings: ArcSwap::from_pointee(config.settings),
            allowance: config.first_pages.map(Allowance::new),
            proxies: config.proxies,
            dev: config.dev,
            hosts: config.hosts,
            overlay: dev.map(|dev| Overlay::new(dev, incidents)),
        }
    }

    /// Takes up other settings; requests in flight go on under those that they began with.
    pub fn set(&self, settings: Settings) {
        self.settings.store(Arc::new(settings));
    }

    fn route(self: &Arc<Self>, request: Request<Upload>, peer: SocketAddr) -> Answer {
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
            Place::Own => self.own(&path, (request, peer)),
            Place::File(name) => self.file(name, request),
            Place::Api(routed) => self.api(routed, request, peer),
            Place::Endpoint(endpoint) => self.endpoint(endpoint, path, request, peer),
            Place::Page => self.page(&release, Some(&path), Face::Page, (request, peer)),
        }
    }

    /// Who answers for `path`: the one truth of [`Self::route`] and of the short way.
    fn place(&self, release: &Release, path: &Path) -> Place {
        let files = self.files.as_ref();
        Place::of(path, files, release, &self.settings)
    }

    /// The short way to a page; none for what is no plain one.
    fn short(&self, plain: &Plain<'_>, fetched: Option<&Arc<Entry>>) -> Option<Short> {
        let path = Path::parse(plain.path).ok()?;
        let release = self.releases.load();
        let Place::Page = self.place(&release, &path) else {
            return None;
        };
        let located = locate(&release, &path, plain.query)?;
        if located.is_error_page() {
            return None;
        }
        let reader = Reader {
            headers: &plain.headers,
            method: &Method::GET,
        };
        let asked = self.asked(&located, Face::Page, reader);
        let express = match fetched {
            Some(entry) => asked.express(entry),
            None => self.views.express(&asked),
        };
        express.map(Short::Now).or_else(|| {
            let page = self.isr.warm(&PageKey::new(asked.path, asked.query))?;
            Some(Short::Soon(Box::pin(page)))
        })
    }

    /// An endpoint of wisr's own.
    fn endpoint(
        self: &Arc<Self>,
        endpoint: Endpoint,
        path: Path,
        request: Request<Upload>,
        peer: SocketAddr,
    ) -> Answer {
        let client = self.proxies.client(peer.ip(), request.headers());
        let site = self.clone();
        Answer::Later(Box::pin(async move {
            let settings = site.settings.load_full();
            match endpoint {
                Endpoint::Revalidate => {
                    let endpoint = revalidate::Endpoint {
                        revalidation: &site.revalidation,
                        token: settings.token.as_ref(),
                        throttle: &site.throttle,
                    };
                    endpoint.answer(request, client).await
                }
                Endpoint::Draft => {
                    let desk = Desk {
                        draft: settings.draft.as_deref(),
                        release: &site.releases.current(),
                        throttle: &site.throttle,
                        now: site.isr.now(),
                    };
                    desk.answer(&path, &request.into_parts().0, client)
                }
                Endpoint::Webhook(name, webhook) => {
                    let from = (&site.throttle, client);
                    let mailroom = &site.mailroom;
                    mailroom.answer((&name, &webhook), request, from).await
                }
            }
        }))
    }

    fn api(
        self: &Arc<Self>,
        routed: Arc<ApiRouted>,
        request: Request<Upload>,
        peer: SocketAddr,
    ) -> Answer {
        at_route(routed.pattern.as_str());
        let client = self.proxies.client(peer.ip(), request.headers());
        let site = self.clone();
        Answer::Later(Box::pin(async move {
            let answer = site.apis.answer(routed, request, client, site.dev);
            answer.await
        }))
    }

    /// A file of the public folder.
    fn file(self: &Arc<Self>, name: Box<str>, request: Request<Upload>) -> Answer {
        self.later(request, async move |site, parts| {
            let served = match &site.files {
                Some(files) => files.serve(name, parts.clone(), site.isr.now()).await,
                None => None,
            };
            match served {
                Some(response) => response,
                None => site.problem(&Problem::NotFound, Face::Page, &parts).await,
            }
        })
    }

    fn later<F>(
        self: &Arc<Self>,
        request: Request<Upload>,
        answer: impl FnOnce(Arc<Self>, Parts) -> F,
    ) -> Answer
    where
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        Answer::Later(Box::pin(answer(self.clone(), request.into_parts().0)))
    }
}

impl Service for Site {
    fn express(&self, plain: &Plain<'_>, fetched: Option<&Arc<Entry>>) -> Short {
        if self.dev || is_watched() {
            return Short::None;
        }
        self.short(plain, fetched).unwrap_or(Short::None)
    }

    fn answer(self: &Arc<Self>, request: Request<Upload>, peer: SocketAddr) -> Answer {
        let hosts = self.hosts.as_ref();
        if let Some(Err(name)) = hosts.map(|hosts| hosts.admit(request.uri(), request.headers())) {
            let (method, headers) = (request.method(), request.headers());
            let problem = Problem::Stranger(name).page(false);
            return Answer::Now(Reader { headers, method }.sized(problem));
        }
        match is_watched() || self.overlay.is_some() {
            true => self.watched(request, peer),
            false => self.route(request, peer),
        }
    }
}
