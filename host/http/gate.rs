//! `Gate`: who may connect, and as whom a connection counts.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::address::{Client, Counted, Crowd};
use super::listen::Config;
use super::preface::{self, BadPreface};
use super::proxies::Proxies;

/// How often it is told that proxies are not understood: each of their connections would fill the
/// log.
const MISUNDERSTANDING_TOLD: Duration = Duration::from_secs(60);

/// The gate of a port, the same for all its threads.
pub(super) struct Gate {
    proxies: Arc<Proxies>,
    crowd: Arc<Crowd>,
    refused: Counter,
    /// For a preface: as long as for a head.
    patience: Duration,
    /// When the last misunderstanding was told.
    told: Mutex<Option<Instant>>,
}

/// Why a connection is closed at once.
#[derive(Debug, thiserror::Error)]
pub(super) enum Closed {
    #[error("too many connections of one address")]
    Crowded,
    #[error("none of server.trusted-proxies has its address")]
    Stranger,
    #[error("its PROXY header did not come in time")]
    Late,
    #[error(transparent)]
    Preface(#[from] BadPreface),
}

impl Gate {
    pub(super) fn new(config: &Config) -> Arc<Self> {
        Arc::new(Self {
            proxies: Arc::clone(&config.proxies),
            crowd: Crowd::new(config.per_address),
            refused: config.refused.clone(),
            patience: config.patience.head,
            told: Mutex::new(None),
        })
    }

    /// Whether who connects may, by the address alone; and what counts the connection, unless it is a
    /// proxy's.
    ///
    /// # Errors
    /// Why not.
    pub(super) fn meet(&self, peer: SocketAddr) -> Result<Option<Counted>, Closed> {
        if !self.proxies.have_preface() {
            return self.count(self.proxies.connected(peer.ip()));
        }
        match self.proxies.trust(peer.ip()) {
            true => Ok(None),
            false => Err(Closed::Stranger),
        }
    }

    /// Hears for whom a proxy connects, where it says so; and what counts the connection from then on.
    ///
    /// # Errors
    /// When it does not say it, or whoever it is has too many connections.
    pub(super) async fn hear(
        &self,
        stream: &mut TcpStream,
        peer: SocketAddr,
    ) -> Result<(SocketAddr, Option<Counted>), Closed> {
        if !self.proxies.have_preface() {
            return Ok((peer, None));
        }
        let heard = tokio::time::timeout(self.patience, preface::read(stream)).await;
        match heard.map_err(|_| Closed::Late)?? {
            // The proxy itself, or somebody without an address.
            None => Ok((peer, None)),
            Some(client) => Ok((client, self.count(self.proxies.connected(client.ip()))?)),
        }
    }

    fn count(&self, client: Option<Client>) -> Result<Option<Counted>, Closed> {
        let counted = client.map(|client| self.crowd.enter(client).ok_or(Closed::Crowded));
        counted.transpose()
    }

    /// Counts a connection that is closed at once, and tells why.
    pub(super) fn refuse(&self, peer: SocketAddr, closed: &Closed) {
        self.refused.inc();
        tracing::debug!(%peer, "closed: {closed}");
        // A proxy on which it was forgotten: nobody is served through it.
        let is_mistake = matches!(
            closed,
            Closed::Preface(BadPreface::Missing | BadPreface::Text(_) | BadPreface::Binary(_))
        );
        let mut told = self.told.lock();
        if is_mistake && told.is_none_or(|told| told.elapsed() >= MISUNDERSTANDING_TOLD) {
            *told = Some(Instant::now());
            tracing::warn!(
                %peer,
                "a trusted proxy was not understood, as server.proxy-protocol is true: {closed} \
                 (nginx: proxy_protocol on; HAProxy: send-proxy-v2)"
            );
        }
    }
}
