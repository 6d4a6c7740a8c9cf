//! `Origin`: a server with bad manners on 127.0.0.1, and sessions that call it.

mod connections;
mod limits;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use wasmtime_wasi::runtime::{AbortOnDropJoinHandle, spawn};
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpHooks};

use super::{Client, ClientConfig, Policy, Resolver, Session, SessionLimits};

const LIMITS: SessionLimits = SessionLimits {
    requests: 32,
    in_flight: 6,
    bytes: 1 << 20,
};

struct Origin {
    address: SocketAddr,
    seen: Arc<Seen>,
    _task: AbortOnDropJoinHandle<()>,
}

struct Seen {
    connections: AtomicUsize,
    /// Requests that wait at `/gate`.
    waiting: AtomicUsize,
    gate: Semaphore,
}

impl Origin {
    async fn start() -> Self {
        Self::start_with(None).await
    }

    async fn start_with(tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Seen {
            connections: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            gate: Semaphore::new(0),
        });
        let seen_by_task = Arc::clone(&seen);
        let task = spawn(async move {
            let mut open = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (seen, tls) = (Arc::clone(&seen_by_task), tls.clone());
                seen.connections.fetch_add(1, Ordering::SeqCst);
                open.spawn(async move {
                    match tls {
                        None => converse(stream, &seen).await,
                        Some(tls) => converse(tls.accept(stream).await?, &seen).await,
                    }
                });
            }
        });
        Self {
            address,
            seen,
            _task: task,
        }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The entry that opens this server.
    fn entry(&self) -> String {
        format!("http://{}", self.address)
    }

    fn connections(&self) -> usize {
        self.seen.connections.load(Ordering::SeqCst)
    }

    async fn waiting(&self, count: usize) {
        while self.seen.waiting.load(Ordering::SeqCst) != count {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

/// Answers requests on one connection, by path.
async fn converse<S>(mut stream: S, seen: &Seen) -> std::io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    for count in 0.. {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await?);
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        let path = head.split([' ', '?']).nth(1).unwrap_or_default();
        match path {
            "/echo" => whole(&mut stream, "200 OK", &head).await?,
            "/big" => whole(&mut stream, "200 OK", &"x".repeat(100_000)).await?,
            "/redirect" => whole(&mut stream, "302 Found\r\nlocation: /echo", "").await?,
            "/once" if count > 0 => return Ok(()),
            "/last" => return whole(&mut stream, "200 OK", "bye").await,
            "/gate" => {
                seen.waiting.fetch_add(1, Ordering::SeqCst);
                let permit = seen.gate.acquire().await.map_err(std::io::Error::other)?;
                permit.forget();
                seen.waiting.fetch_sub(1, Ordering::SeqCst);
                whole(&mut stream, "200 OK", "through").await?;
            }
            "/head" => {
                stream.write_all(b"HTTP/1.1 200 OK\r\n").await?;
                loop {
                    stream.write_all(b"x-more: of the same\r\n").await?;
                }
            }
            "/drip" => {
                let head = b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n";
                stream.write_all(head).await?;
                loop {
                    stream.write_all(b"x").await?;
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
            "/slow" => {
                let head = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n";
                stream.write_all(head).await?;
                for letter in b"hello" {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    stream.write_all(&[*letter]).await?;
                }
            }
            "/stall" => {
                let head = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nx";
                stream.write_all(head).await?;
                std::future::pending::<()>().await;
            }
            "/mute" => std::future::pending().await,
            "/switch" => {
                stream
                    .write_all(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n")
                    .await?;
            }
            _ => whole(&mut stream, "200 OK", "hello").await?,
        }
    }
    Ok(())
}

async fn whole<S: AsyncWrite + Unpin>(
    stream: &mut S,
    status: &str,
    body: &str,
) -> std::io::Result<()> {
    let length = body.len();
    let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n{body}");
    stream.write_all(answer.as_bytes()).await
}

fn client(resolver: Resolver) -> Client {
    Client::new(ClientConfig {
        resolver,
        ..ClientConfig::default()
    })
    .unwrap()
}

fn scripted(answers: &[&[&str]]) -> Resolver {
    let parse = |answer: &&[&str]| answer.iter().map(|a| a.parse().unwrap()).collect();
    Resolver::Scripted(Arc::new(parking_lot::Mutex::new(
        answers.iter().map(parse).collect(),
    )))
}

fn session_with(client: &Client, entries: &[String], limits: SessionLimits) -> Session {
    let policy = Arc::new(Policy::parse(entries).unwrap());
    let deadline = Instant::now() + Duration::from_secs(20);
    client.session(policy, limits, deadline, "/posts/[id]".into())
}

fn session(client: &Client, entries: &[String]) -> Session {
    session_with(client, entries, LIMITS)
}

fn get(url: &str) -> Request<WasiBody> {
    with_body("GET", url, Bytes::new())
}

fn with_body(method: &str, url: &str, body: Bytes) -> Request<WasiBody> {
    let body = Full::new(body).map_err(Error::from).boxed_unsync();
    let request = Request::builder().method(method).uri(url);
    request.body(body).unwrap()
}

async fn send_with(
    session: &Session,
    request: Request<WasiBody>,
    options: RequestOptions,
) -> Result<Response<WasiBody>, Error> {
    let mut hooks = session.clone();
    let pending = hooks.send_request(request, Some(options), Box::new(async { Ok(()) }));
    Ok(Box::into_pin(pending).await?.0)
}

async fn send(session: &Session, request: Request<WasiBody>) -> Result<Response<WasiBody>, Error> {
    send_with(session, request, RequestOptions::default()).await
}

/// Sends and reads to the end.
async fn read(session: &Session, request: Request<WasiBody>) -> Result<(u16, String), Error> {
    let response = send(session, request).await?;
    let status = response.status().as_u16();
    let body = response.into_body().collect().await?.to_bytes();
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}
