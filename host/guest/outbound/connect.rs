//! `Connector`: opens connections to judged addresses, DNS, TCP, TLS and HTTP under one time-out.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use wasmtime_wasi::runtime::{self, AbortOnDropJoinHandle};

use super::body::Sent;
use super::policy::Policy;
use super::refusal::Refusal;
use super::resolve::{Lookups, judge};
use super::target::{Host, Scheme, Target};

/// Fields in a response head; real ones have some thirty.
const MAX_HEADERS: usize = 100;

/// Bytes of a response head, and of a body buffered ahead of the guest, per connection.
pub(in crate::guest) const MAX_BUFFER: usize = 64 << 10;

/// Opens connections.
pub(super) struct Connector {
    pub(super) tls: TlsConnector,
    pub(super) own: Vec<SocketAddr>,
    pub(super) lookups: Lookups,
}

/// An open connection and the task that drives it, which ends with it.
pub(super) struct Connection {
    pub(super) sender: SendRequest<Sent>,
    /// Where it goes, as it was judged.
    pub(super) address: SocketAddr,
    pub(super) born: Instant,
    _driver: AbortOnDropJoinHandle<()>,
}

impl Connector {
    /// A connection for `target`, to an address that the policy opens, within `limit`.
    pub(super) async fn connect(
        &self,
        target: &Target,
        policy: &Policy,
        route: &Arc<str>,
        limit: Duration,
    ) -> Result<Connection, Refusal> {
        let until = Instant::now() + limit;
        let answers = timeout_at(until, self.lookups.lookup(&target.host, route))
            .await
            .map_err(|_| Refusal::DnsTimeout {
                host: target.host.clone(),
                limit,
            })?
            .map_err(|error| Refusal::Dns {
                host: target.host.clone(),
                error: error.to_string(),
            })?;
        let addresses = judge(&answers, target, policy, route)?;
        let mut failure = Refusal::ConnectTimeout(limit);
        for (tried, address) in addresses.iter().enumerate() {
            // A silent first address must leave time for the second.
            let rest = u32::try_from(addresses.len() - tried).unwrap_or(u32::MAX);
            let share = until.saturating_duration_since(Instant::now()) / rest;
            match timeout(share, self.open(target, *address)).await {
                Ok(Ok(connection)) => return Ok(connection),
                Ok(Err(refusal)) => failure = refusal,
                Err(_) => failure = Refusal::ConnectTimeout(limit),
            }
        }
        Err(failure)
    }

    async fn open(&self, target: &Target, address: SocketAddr) -> Result<Connection, Refusal> {
        let stream = TcpStream::connect(address)
            .await
            .map_err(|error| match error.kind() {
                ErrorKind::ConnectionRefused => Refusal::Refused(address),
                _ => Refusal::Unreachable { address, error },
            })?;
        if self.leads_home(&stream) {
            return Err(Refusal::Loop(address));
        }
        // Requests are written whole: waiting to fill a segment only adds latency.
        let _ = stream.set_nodelay(true);
        match target.scheme {
            Scheme::Http => handshake(stream, address).await,
            Scheme::Https => {
                let failed = |error| Refusal::Tls {
                    host: target.host.clone(),
                    error,
                };
                let name = server_name(&target.host).map_err(failed)?;
                let stream = self.tls.connect(name, stream).await.map_err(failed)?;
                handshake(stream, address).await
            }
        }
    }

    /// Whether the other end is this server. Asked of the socket and not of the address, because
    /// a listener on every address is reached by addresses that only the system knows: on such a
    /// connection both ends have the same one.
    fn leads_home(&self, stream: &TcpStream) -> bool {
        let (Ok(peer), Ok(local)) = (stream.peer_addr(), stream.local_addr()) else {
            return false;
        };
        let peer_ip = peer.ip().to_canonical();
        let is_us = |own: &SocketAddr| {
            own.port() == peer.port()
                && (own.ip().to_canonical() == peer_ip
                    || own.ip().is_unspecified() && local.ip().to_canonical() == peer_ip)
        };
        self.own.iter().any(is_us)
    }
}

fn server_name(host: &Host) -> std::io::Result<ServerName<'static>> {
    match host {
        Host::Name(name) => ServerName::try_from(name.clone())
            .map_err(|error| std::io::Error::new(ErrorKind::InvalidInput, error)),
        Host::Address(address) => Ok(ServerName::from(IpAddr::to_canonical(address))),
    }
}

async fn handshake<S>(stream: S, address: SocketAddr) -> Result<Connection, Refusal>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http1::Builder::new()
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_BUFFER)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| Refusal::of_hyper(&error, MAX_BUFFER))?;
    let driver = runtime::spawn(async move {
        // Its errors reach whoever waits for the answer or reads the body.
        let _ = connection.await;
    });
    Ok(Connection {
        sender,
        address,
        born: Instant::now(),
        _driver: driver,
    })
}
