//! [`Proxy`]: the network between a host and Redis, as bad as a test wants it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
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
    /// Connections end at once, and so do new ones.
    Cut,
}

/// A way to a server. Dropping it ends all connections.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    weather: Arc<watch::Sender<Weather>>,
}

impl Proxy {
    pub(crate) async fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (weather, mut here) = watch::channel(Weather::Fair);
        let serving = here.clone();
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
                if *serving.borrow() != Weather::Cut {
                    tokio::spawn(connect(client, server, serving.clone()));
                }
            }
        });
        Self {
            address,
            weather: Arc::new(weather),
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    pub(crate) fn turn(&self, weather: Weather) {
        self.weather.send_replace(weather);
    }
}

async fn connect(client: TcpStream, server: SocketAddr, mut weather: watch::Receiver<Weather>) {
    let Ok(server) = TcpStream::connect(server).await else {
        return;
    };
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let there = carry(from_client, to_server, weather.clone());
    let back = carry(from_server, to_client, weather.clone());
    tokio::select! {
        () = async { tokio::join!(there, back); } => {}
        _ = weather.wait_for(|weather| *weather == Weather::Cut) => {}
    }
}

async fn carry(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
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
