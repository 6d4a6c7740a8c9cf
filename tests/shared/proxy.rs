//! [`Proxy`]: the network between a host and Redis, as bad as a test wants it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What becomes of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Weather {
    /// They arrive.
    Fair,
    /// They arrive later, in both directions.
    Slow(Duration),
    /// This many arrive in a second, in each direction.
    Narrow(u32),
    /// They vanish, and nobody is told: half-open connections, a cable that is out.
    Black,
    /// Connections are reset at once, and so are new ones.
    Cut,
}

/// A way to a server. Dropping it ends all connections.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    server: Arc<Mutex<SocketAddr>>,
    weather: Arc<watch::Sender<Weather>>,
}

impl Proxy {
    pub(crate) async fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (weather, mut here) = watch::channel(Weather::Fair);
        let server = Arc::new(Mutex::new(server));
        let (serving, leads) = (here.clone(), server.clone());
        tokio::spawn(async move {
            loop {
                let client = tokio::select! {
                    accepted = listener.accept() => accepted.unwrap().0,
                    // The proxy is gone.
                    changed = here.changed() => match changed {
                        Ok(()) => continue,
                        Err(_) => return,
                    },
                };
                let server = *leads.lock();
                tokio::spawn(connect(client, server, serving.clone()));
            }
        });
        Self {
            address,
            server,
            weather: Arc::new(weather),
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    pub(crate) fn turn(&self, weather: Weather) {
        self.weather.send_replace(weather);
    }

    /// New connections lead to another server, as when a name or an address moves to it.
    pub(crate) fn lead_to(&self, server: SocketAddr) {
        *self.server.lock() = server;
    }
}

async fn connect(mut client: TcpStream, server: SocketAddr, mut weather: watch::Receiver<Weather>) {
    let Ok(mut server) = TcpStream::connect(server).await else {
        return;
    };
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    let there = carry(from_client, to_server, weather.clone());
    let back = carry(from_server, to_client, weather.clone());
    let is_cut = tokio::select! {
        () = async { tokio::join!(there, back); } => false,
        _ = weather.wait_for(|weather| *weather == Weather::Cut) => true,
    };
    if is_cut {
        // A reset in place of an orderly end; where the other side is gone already there is none.
        let _ = client.set_zero_linger();
        let _ = server.set_zero_linger();
    }
}

async fn carry(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    mut weather: watch::Receiver<Weather>,
) {
    let mut bytes = vec![0; 64 << 10];
    while let Ok(length @ 1..) = from.read(&mut bytes).await {
        let now = *weather.borrow_and_update();
        match now {
            Weather::Slow(delay) => tokio::time::sleep(delay).await,
            Weather::Narrow(rate) => {
                let takes = length as f64 / f64::from(rate);
                tokio::time::sleep(Duration::from_secs_f64(takes)).await;
            }
            // What was sent into the dark does not arrive when it is light again.
            Weather::Black => continue,
            Weather::Fair | Weather::Cut => {}
        }
        if to.write_all(&bytes[..length]).await.is_err() {
            return;
        }
    }
}
