//! `Client`: what all guests share for outgoing HTTP, the trust and the idle connections.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::time::Instant;
use tokio_rustls::rustls;

use super::connect::Connector;
use super::policy::Policy;
use super::pool::Pool;
use super::resolve::{Lookups, Resolver};
use super::session::{Session, SessionLimits};
use super::tls;

/// What a client is made from.
#[derive(Debug, Clone, Default)]
pub struct ClientConfig {
    /// A PEM file of certificates to trust besides the public ones.
    pub extra_roots: Option<PathBuf>,
    /// Where this server listens: guests cannot call it.
    pub own_addresses: Vec<SocketAddr>,
    /// Who answers for names.
    pub resolver: Resolver,
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The file of extra roots is unusable.
    #[error("{}: {error}; it must be a PEM file of CA certificates", .file.display())]
    Roots {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        error: String,
    },
    /// The TLS library rejects its own defaults.
    #[error("TLS cannot be set up: {0}")]
    Tls(#[source] rustls::Error),
}

/// Outgoing HTTP for all guests. A clone is the same client.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub(super) connector: Connector,
    pub(super) pool: Arc<Pool>,
}

impl Client {
    /// A client with no connections yet. Reads the platform's certificates: once is enough.
    ///
    /// # Errors
    ///
    /// When the extra roots cannot be read.
    pub fn new(config: ClientConfig) -> Result<Self, ClientError> {
        let connector = Connector {
            tls: tls::connector(config.extra_roots.as_deref())?,
            own: config.own_addresses,
            lookups: Lookups::new(config.resolver),
        };
        let pool = Arc::default();
        Ok(Self {
            shared: Arc::new(Shared { connector, pool }),
        })
    }

    /// One generation's use of the client: it ends at `deadline` and is logged under `route`.
    pub fn session(
        &self,
        policy: Arc<Policy>,
        limits: SessionLimits,
        deadline: Instant,
        route: Arc<str>,
    ) -> Session {
        Session::new(Arc::clone(&self.shared), policy, limits, deadline, route)
    }
}
