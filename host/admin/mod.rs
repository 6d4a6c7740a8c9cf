//! `Admin`: the operators' door: probes, metrics, and what the server knows of itself.

mod guard;
mod releases;
mod views;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::header::{self, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode, request};
use hyper::body::Incoming;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::http::{Answer, Body, Patience, PerAddress, Secret, Service, listen, pairs, upload};
use crate::isr::Isr;
use crate::release::Releases;
use crate::telemetry::Incidents;
use crate::telemetry::metrics::Metrics;
use guard::Guard;

/// Operators and their machines; a flood here must not take descriptors from readers.
const MAX_CONNECTIONS: usize = 64;

/// Of one address in the internet: a stranger must not keep the operators out.
const MAX_CONNECTIONS_OF_ONE: usize = 16;

/// Everything here is answered at once: nothing is worth waiting longer for.
const DRAIN: Duration = Duration::from_secs(2);

/// What a list has when its length is not asked for, and what it has at most.
const LIMIT: usize = 100;
const MAX_LIMIT: usize = 10_000;

/// Nothing of this door is loaded from elsewhere, shown in a frame, run as a script or told to the
/// next page. A line of guests' text that was left unescaped would stay text.
const POLICY: [(HeaderName, &str); 4] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (CROSS_ORIGIN_RESOURCE_POLICY, "same-origin"),
];

const CROSS_ORIGIN_RESOURCE_POLICY: HeaderName =
    HeaderName::from_static("cross-origin-resource-policy");

/// What Prometheus calls the format of [`Metrics::encode`].
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The settings of the admin door.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where it listens; port 0 takes any free one.
    pub listen: SocketAddr,
    /// What operators must know; needed beyond this machine.
    pub token: Option<Secret>,
}

/// The admin door would be open to everybody.
#[derive(Debug, thiserror::Error)]
#[error(
    "server.admin = \"{0}\" can be reached from other machines: set server.admin-token, or use a loopback address such as 127.0.0.1:3001"
)]
pub struct Exposed(SocketAddr);

impl Config {
    /// Refuses an address that others can reach without a token.
    ///
    /// # Errors
    /// [`Exposed`].
    pub fn check(&self) -> Result<(), Exposed> {
        if self.token.is_none() && !self.listen.ip().is_loopback() {
            return Err(Exposed(self.listen));
        }
        Ok(())
    }

    /// What the listener needs of it.
    pub fn listener(&self) -> listen::Config {
        listen::Config {
            listen: self.listen,
            threads: 1,
            max_connections: MAX_CONNECTIONS,
            per_address: PerAddress::Public(MAX_CONNECTIONS_OF_ONE),
            drain: DRAIN,
            patience: Patience::default(),
            // The metrics count readers.
            open: Default::default(),
            refused: Default::default(),
        }
    }
}

/// What the door shows.
pub struct Parts {
    /// The routes.
    pub releases: Arc<Releases>,
    /// The entries.
    pub isr: Isr,
    /// What failed.
    pub incidents: Arc<Incidents>,
    /// What was counted.
    pub metrics: Arc<Metrics>,
    /// Whether the first release was prerendered.
    pub is_ready: watch::Receiver<bool>,
}

/// The admin door.
pub struct Admin {
    guard: Guard,
    parts: Parts,
}

impl Admin {
    /// A door that shows `parts`.
    pub fn new(config: Config, parts: Parts) -> Self {
        Self {
            guard: Guard::new(config.token, config.listen),
            parts,
        }
    }

    async fn respond(&self, request: Request<Incoming>, address: IpAddr) -> Response<Body> {
        let (head, body) = request.into_parts();
        let admitted = self.guard.admit(&head.uri, &head.headers, address);
        if let Err((status, reason)) = admitted {
            return refusal(status, reason);
        }
        let Some(endpoint) = Endpoint::of(head.uri.path()) else {
            let reason = "no such page: `/` lists what there is";
            return match head.uri.path() {
                // RFC 9110 section 9.3.7: of the server as a whole.
                "*" => not_allowed("GET, HEAD, POST"),
                _ => refusal(StatusCode::NOT_FOUND, reason),
            };
        };
        match (endpoint, head.method.clone()) {
            (Endpoint::View(view), Method::GET | Method::HEAD) => {
                let shown = self.show(view, head.uri.query().unwrap_or(""));
                shown.await.unwrap_or_else(|refused| refused)
            }
            (Endpoint::View(_), _) => not_allowed("GET, HEAD"),
            (Endpoint::Rollback, Method::POST) => self.roll_back(&head, body).await,
            (Endpoint::Rollback, _) => not_allowed("POST"),
        }
    }

    async fn show(&self, view: View, query: &str) -> Result<Response<Body>, Response<Body>> {
        let parts = &self.parts;
        Ok(match view {
            View::Index => respond(StatusCode::OK, "text/html; charset=utf-8", self.index()),
            View::Alive => respond(StatusCode::OK, "text/plain", "ok\n".to_owned()),
            View::Ready => self.readiness(),
            View::Metrics => respond(StatusCode::OK, OPEN_METRICS, parts.metrics.encode()),
            View::Routes => list(views::routes(&parts.releases.current())),
            View::Entries => {
                let (limit, prefix) = (limit(query)?, value(query, "prefix"));
                let release = parts.releases.current();
                let prefix = prefix.unwrap_or_default();
                list(views::entries(&parts.isr, &release, &prefix, limit).await)
            }
            View::Incidents => {
                let incidents = &parts.incidents;
                let latest = incidents.latest(limit(query)?);
                list(json!({"count": incidents.count(), "incidents": latest}))
            }
            View::Releases => list(releases::history(&parts.releases)),
        })
    }

    async fn roll_back(&self, head: &request::Parts, body: Incoming) -> Response<Body> {
        if let Err((status, reason)) = self.guard.may_change(&head.uri, &head.headers) {
            return refusal(status, reason);
        }
        match upload::read(body, releases::BODY_BYTES).await {
            Ok(body) => {
                let (status, told) = releases::roll_back(&self.parts.releases, &body).await;
                json_response(status, &told)
            }
            Err(bad) => refusal(bad.status(), &bad.to_string()),
        }
    }

    fn readiness(&self) -> Response<Body> {
        let mut reasons = Vec::new();
        if self.parts.releases.current().id == 0 {
            reasons.push("the folder of modules was not read yet");
        }
        if !*self.parts.is_ready.borrow() {
            reasons.push("the pages of the first release are being made");
        }
        let status = if reasons.is_empty() {
            StatusCode::OK
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        };
        json_response(
            status,
            &json!({
                "ready": reasons.is_empty(),
                "reasons": reasons,
                // Pages are served all the same: not a reason to be taken out of rotation.
                "store": self.parts.isr.store_health().as_str(),
                "shared": views::shared(&self.parts.isr),
            }),
        )
    }

    fn index(&self) -> String {
        let release = self.parts.releases.current();
        let (id, routes) = (release.id, release.len());
        let (refused, incidents) = (release.refused.len(), self.parts.incidents.count());
        format!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>wisr</title>\
             <style>:root{{color-scheme:light dark}}body{{font:1rem/1.6 system-ui,sans-serif;\
             max-width:40rem;margin:10vh auto;padding:0 1rem}}</style></head><body><main>\
             <h1>wisr</h1><p>Release {id}: {routes} routes, {refused} files refused. \
             {incidents} incidents since the start.</p><ul>\
             <li><a href=\"/api/routes\">Routes</a></li>\
             <li><a href=\"/api/entries\">Entries</a> (<code>?prefix=/posts&amp;limit=100</code>)</li>\
             <li><a href=\"/api/releases\">Releases</a></li>\
             <li><a href=\"/api/incidents\">Incidents</a> (<code>?limit=100</code>)</li>\
             <li><a href=\"/metrics\">Metrics</a></li><li><a href=\"/livez\">Alive?</a></li>\
             <li><a href=\"/readyz\">Ready?</a></li></ul></main></body></html>\n"
        )
    }
}

impl Service for Admin {
    fn answer(self: &Arc<Self>, request: Request<Incoming>, peer: SocketAddr) -> Answer {
        let (admin, is_head) = (self.clone(), request.method() == Method::HEAD);
        Answer::Later(Box::pin(async move {
            let mut response = admin.respond(request, peer.ip()).await;
            if is_head {
                *response.body_mut() = Body::Empty;
            }
            response
        }))
    }
}

/// What can be asked for.
enum Endpoint {
    /// To be shown something, by GET.
    View(View),
    /// To go back to an earlier release, by POST.
    Rollback,
}

/// What can be shown.
enum View {
    Index,
    Alive,
    Ready,
    Metrics,
    Routes,
    Entries,
    Incidents,
    Releases,
}

impl Endpoint {
    fn of(path: &str) -> Option<Self> {
        Some(Endpoint::View(match path {
            "/" => View::Index,
            "/livez" => View::Alive,
            "/readyz" => View::Ready,
            "/metrics" => View::Metrics,
            "/api/routes" => View::Routes,
            "/api/entries" => View::Entries,
            "/api/incidents" => View::Incidents,
            "/api/releases" => View::Releases,
            "/api/releases/rollback" => return Some(Endpoint::Rollback),
            _ => return None,
        }))
    }
}

fn value(query: &str, name: &str) -> Option<String> {
    let found = pairs(query).find(|(key, _)| key == name)?;
    Some(found.1.into_owned())
}

/// How many things a list shows, as `?limit=` says.
fn limit(query: &str) -> Result<usize, Response<Body>> {
    match value(query, "limit").map_or(Ok(LIMIT), |limit| limit.parse()) {
        Ok(limit) if limit <= MAX_LIMIT => Ok(limit),
        _ => Err(refusal(
            StatusCode::BAD_REQUEST,
            "limit is a number from 0 to 10000",
        )),
    }
}

fn list(value: Value) -> Response<Body> {
    json_response(StatusCode::OK, &value)
}

fn refusal(status: StatusCode, reason: &str) -> Response<Body> {
    let mut response = json_response(status, &json!({"message": reason}));
    let headers = response.headers_mut();
    match status {
        StatusCode::UNAUTHORIZED => {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        StatusCode::TOO_MANY_REQUESTS => {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("60"));
        }
        _ => {}
    }
    response
}

fn not_allowed(methods: &'static str) -> Response<Body> {
    let mut response = refusal(StatusCode::METHOD_NOT_ALLOWED, &format!("use {methods}"));
    let methods = HeaderValue::from_static(methods);
    response.headers_mut().insert(header::ALLOW, methods);
    response
}

fn json_response(status: StatusCode, value: &Value) -> Response<Body> {
    respond(status, "application/json", format!("{value:#}\n"))
}

fn respond(status: StatusCode, kind: &'static str, body: String) -> Response<Body> {
    let length = body.len().into();
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CONTENT_LENGTH, length);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    for (name, value) in POLICY {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_door_needs_a_token() {
        let config = |listen: &str, token: Option<&str>| Config {
            listen: listen.parse().unwrap(),
            token: token.map(Secret::new),
        };
        assert!(config("127.0.0.1:3001", None).check().is_ok());
        assert!(config("[::1]:0", None).check().is_ok());
        assert!(config("0.0.0.0:3001", Some("t")).check().is_ok());
        let refused = config("0.0.0.0:3001", None)
            .check()
            .unwrap_err()
            .to_string();
        assert!(
            refused.contains("0.0.0.0:3001") && refused.contains("admin-token"),
            "{refused}"
        );
    }

    #[test]
    fn lists_have_limits() {
        let asked = |query| limit(query).map_err(|response| response.status().as_u16());
        assert_eq!(asked(""), Ok(LIMIT));
        assert_eq!(asked("prefix=/a&limit=7"), Ok(7));
        for query in ["limit=10001", "limit=-1", "limit="] {
            assert_eq!(asked(query), Err(400), "{query}");
        }
    }
}
