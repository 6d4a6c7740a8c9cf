//! `Admin`: the operators' door: probes, metrics, and what the server knows of itself.
//!
//! A request is admitted by the `guard`: with the token, or in a browser with one of the `session`s
//! that the token opens. Then it is one of the `api`'s operations, which programs ask for, or one of
//! the `pages` of the dashboard, which show what the operations tell, and of the last minutes what
//! `live` remembers. `answer` says what a browser may do with each, `refusal` why something is not
//! done.

mod answer;
mod api;
mod guard;
mod live;
mod pages;
mod refusal;
mod session;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::request::Parts as Head;
use http::{Method, Request, Response, StatusCode};
use tokio::sync::watch;

use crate::http::Upload;
use crate::http::hosts::Hosts;
use crate::http::{
    Answer, Body, Patience, PerAddress, Revalidation, Secret, Service, Throttle, listen, upload,
};
use crate::isr::Isr;
use crate::release::Releases;
use crate::telemetry::Incidents;
use crate::telemetry::metrics::Metrics;
use api::{Found, Given, OPERATIONS};
use guard::{Guard, Written};
use live::Live;
use refusal::Refusal;

/// Operators and their machines; a flood here must not take descriptors from readers.
pub const MAX_CONNECTIONS: usize = 64;

/// Of one address in the internet: a stranger must not keep the operators out.
const MAX_CONNECTIONS_OF_ONE: usize = 16;

/// Bytes that requests and answers may hold while they are under way: some of the largest.
const MAX_IN_FLIGHT: usize = 32 << 20;

/// Everything here is answered at once: nothing is worth waiting longer for.
const DRAIN: Duration = Duration::from_secs(2);

/// The settings of the admin door.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where it listens; port 0 takes any free one.
    pub listen: SocketAddr,
    /// What operators must know; needed beyond this machine.
    pub token: Option<Secret>,
    /// Open connections at once.
    pub max_connections: usize,
    /// By which names an author calls it; none where it is for operators.
    pub hosts: Option<Hosts>,
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
            max_connections: self.max_connections,
            per_address: PerAddress::Public(MAX_CONNECTIONS_OF_ONE),
            // Operators connect themselves: nobody else's word is taken for who they are.
            proxies: Arc::default(),
            drain: DRAIN,
            patience: Patience::default(),
            in_flight: MAX_IN_FLIGHT,
            // The metrics count readers.
            watch: None,
            open: Default::default(),
            refused: Default::default(),
            in_flight_bytes: Default::default(),
            slow: Default::default(),
            displaced: Default::default(),
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
    revalidation: Revalidation,
    live: Live,
}

impl Admin {
    /// A door that shows `parts`.
    pub fn new(config: Config, parts: Parts) -> Self {
        let revalidation = Revalidation {
            isr: parts.isr.clone(),
            releases: parts.releases.clone(),
        };
        Self {
            guard: Guard::new(
                config.token,
                config.listen,
                Throttle::new("admin", &parts.metrics),
            )
            .called(config.hosts),
            parts,
            revalidation,
            live: Live::default(),
        }
    }

    /// Keeps what the dashboard shows of the last minutes, until `stop`.
    pub async fn watch(&self, stop: impl Future<Output = ()>) {
        let now = || self.parts.isr.now();
        self.live.watch(&self.parts.metrics, now, stop).await;
    }

    async fn respond(
        self: &Arc<Self>,
        request: Request<Upload>,
        address: IpAddr,
    ) -> Response<Body> {
        let (head, body) = request.into_parts();
        let path = head.uri.path();
        let is_open = matches!(path, "/livez" | "/readyz") || pages::are_open(path);
        let admitted = self.guard.admit(&head.uri, &head.headers, address, is_open);
        let found = api::find(&OPERATIONS, &head.method, path);
        let for_programs = !matches!(found, Found::Nothing) || path.starts_with("/api/");
        if let Err(refusal) = admitted {
            return match for_programs {
                true => answer::refusal(&refusal),
                false => pages::refused(self, &head, &refusal),
            };
        }
        match found {
            Found::Operation(operation, parameters) => {
                let query = head.uri.query().unwrap_or("");
                let given = self.given(&head, body, operation.body_limit()).await;
                match given {
                    Ok(body) => {
                        let parameters = parameters + query;
                        let given = Given { parameters, body };
                        operation.run(self.clone(), given).await
                    }
                    Err(refusal) => answer::refusal(&refusal),
                }
            }
            Found::Methods(methods) => answer::refusal(&Refusal::not_allowed(methods)),
            Found::Nothing if path == api::DOCUMENT => match head.method {
                Method::GET | Method::HEAD => {
                    answer::json(StatusCode::OK, &api::document(&OPERATIONS))
                }
                _ => answer::refusal(&Refusal::not_allowed("GET, HEAD")),
            },
            // RFC 9110 section 9.3.7: of the server as a whole.
            Found::Nothing if path == "*" => {
                answer::refusal(&Refusal::not_allowed("GET, HEAD, POST"))
            }
            Found::Nothing if for_programs => {
                let reason = format!("no such operation: {} lists those there are", api::DOCUMENT);
                answer::refusal(&Refusal::unknown(reason))
            }
            Found::Nothing => pages::respond(self, &head, body, address).await,
        }
    }

    /// The body that an operation reads, if the request may change something.
    async fn given(
        &self,
        head: &Head,
        body: Upload,
        limit: usize,
    ) -> Result<bytes::Bytes, Refusal> {
        if head.method != Method::POST {
            return Ok(bytes::Bytes::new());
        }
        self.guard
            .may_change(&head.uri, &head.headers, Written::Json)?;
        Ok(upload::read(body, limit).await?)
    }
}

impl Service for Admin {
    fn answer(self: &Arc<Self>, request: Request<Upload>, peer: SocketAddr) -> Answer {
        let admin = self.clone();
        Answer::Later(Box::pin(
            async move { admin.respond(request, peer.ip()).await },
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_door_needs_a_token() {
        let config = |listen: &str, token: Option<&str>| Config {
            listen: listen.parse().unwrap(),
            token: token.map(Secret::new),
            max_connections: MAX_CONNECTIONS,
            hosts: None,
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
}
