//! `Config`: what the public door is told; and `Secret`, which it keeps to itself.

use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use http::header::{AUTHORIZATION, HeaderValue};
use subtle::ConstantTimeEq;

use super::hosts::Hosts;
use super::{Crawlers, Draft, Patience, PerAddress, Proxies, Watch, Webhooks, listen};
use crate::page::Digest;
use crate::telemetry::access::AccessConfig;
use crate::telemetry::metrics::Metrics;

/// The settings of the public door.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where it listens; port 0 takes any free one.
    pub listen: SocketAddr,
    /// Threads that serve.
    pub threads: usize,
    /// Open connections at once, over all threads.
    pub max_connections: usize,
    /// Static files that are held open for readers at once.
    pub open_files: usize,
    /// Open connections of one address.
    pub per_address: PerAddress,
    /// Who may speak for others.
    pub proxies: Arc<Proxies>,
    /// Bytes that requests and responses may hold while they are under way.
    pub in_flight: usize,
    /// Pages that nobody has asked for before and the site does not name, made for one client in a
    /// minute; none where it is not known who is one.
    pub first_pages: Option<NonZeroU32>,
    /// How long requests in flight may go on after the stop signal.
    pub drain: Duration,
    /// What can be changed while it is open.
    pub settings: Settings,
    /// The folder of static files.
    pub public: Option<PathBuf>,
    /// Where each request is written down.
    pub access: Option<AccessConfig>,
    /// Show failures in error pages.
    pub dev: bool,
    /// By which names an author calls it; none where it is for readers.
    pub hosts: Option<Hosts>,
}

/// What the public door can be told anew while it is open.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What callers of `/api/revalidate` must know; none turns the endpoint off.
    pub token: Option<Secret>,
    /// Who never gets a shell.
    pub crawlers: Crawlers,
    /// Who may see drafts; none turns draft mode off.
    pub draft: Option<Arc<Draft>>,
    /// Who else says what has changed.
    pub webhooks: Arc<Webhooks>,
}

impl Config {
    /// Bytes that the bodies of requests may take, all of them: to API routes, and to webhooks where
    /// there are any.
    pub fn upload_bytes(&self) -> u64 {
        let webhooks = match self.settings.webhooks.is_empty() {
            true => 0,
            false => super::webhook::BODY_BYTES,
        };
        super::api::BODY_BYTES + webhooks
    }

    /// What the listener needs of it.
    pub fn listener(&self, metrics: &Metrics, watch: Watch) -> listen::Config {
        listen::Config {
            listen: self.listen,
            threads: self.threads,
            max_connections: self.max_connections,
            per_address: self.per_address,
            proxies: Arc::clone(&self.proxies),
            drain: self.drain,
            patience: Patience::default(),
            in_flight: self.in_flight,
            watch: Some(watch),
            open: metrics.connections.clone(),
            refused: metrics.connections_refused.clone(),
            in_flight_bytes: metrics.in_flight_bytes.clone(),
            slow: metrics.readers_too_slow.clone(),
            displaced: metrics.readers_displaced.clone(),
        }
    }
}

/// Bytes that a connection may take beside the pages that it is sent: the head of a request, which
/// may be as long as it may, read and parsed, and what HTTP/2 knows of its streams.
pub const CONNECTION_BYTES: u64 = 40 << 10;

/// A token: compared in constant time, never printed.
#[derive(Clone)]
pub struct Secret(Digest);

impl Secret {
    /// The secret `text`.
    pub fn new(text: impl AsRef<str>) -> Self {
        Self(Digest::of(text.as_ref().as_bytes()))
    }

    /// Whether `given` is the secret. Hashes are compared, so that not even the length shows.
    pub fn is(&self, given: &[u8]) -> bool {
        let given = Digest::of(given);
        self.0.as_bytes().ct_eq(given.as_bytes()).into()
    }

    /// Whether the request's one `authorization` header bears the secret.
    pub fn opens(&self, headers: &HeaderMap) -> bool {
        let mut lines = headers.get_all(AUTHORIZATION).iter();
        match (lines.next().and_then(bearer), lines.next()) {
            (Some(given), None) => self.is(given),
            _ => false,
        }
    }
}

/// The token of `Bearer <token>` (RFC 6750 section 2.1); the scheme's case does not matter (RFC
/// 9110 section 11.1).
pub(super) fn bearer(authorization: &HeaderValue) -> Option<&[u8]> {
    let (scheme, token) = authorization.as_bytes().split_at_checked(7)?;
    scheme
        .eq_ignore_ascii_case(b"bearer ")
        .then(|| token.trim_ascii())
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_itself_and_nothing_else() {
        let secret = Secret::new("correct horse");
        assert!(secret.is(b"correct horse"));
        for other in [&b""[..], b"correct", b"correct horse ", b"Correct horse"] {
            assert!(!secret.is(other));
        }
        assert!(!format!("{secret:?}").contains("horse"));
    }

    #[test]
    fn one_header_opens() {
        let secret = Secret::new("horse");
        for (lines, expected) in [
            (&["Bearer horse"][..], true),
            (&["bEARER   horse "], true),
            (&["Bearer horse", "Bearer horse"], false),
            (&["Basic horse"], false),
            (&["Bearer"], false),
            (&[], false),
        ] {
            let values = lines.iter().map(|line| HeaderValue::from_static(line));
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(AUTHORIZATION, value);
            }
            assert_eq!(secret.opens(&headers), expected, "{lines:?}");
        }
    }
}
