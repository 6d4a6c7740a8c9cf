//! [`serve`]: the least that an HTTP server on hyper can do. What wisr costs above it is wisr's own.

use std::convert::Infallible;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;

use anyhow::{Context, Result};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response};
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use socket2::{Domain, Socket, Type};

/// The file of the bare loop's response headers, beside that of its body, `page`.
pub(crate) const HEADERS: &str = "headers.json";

/// Answers everything with one response, from `threads` threads with a queue each; never ends.
pub(crate) fn serve(addr: SocketAddr, folder: &Path, threads: usize) -> Result<()> {
    let body = Bytes::from(fs::read(folder.join("page"))?);
    let listed: Vec<(String, String)> = serde_json::from_slice(&fs::read(folder.join(HEADERS))?)?;
    let mut headers = HeaderMap::new();
    for (name, value) in listed {
        headers.append(HeaderName::try_from(name)?, HeaderValue::try_from(value)?);
    }
    let listeners = (0..threads)
        .map(|_| listen(addr))
        .collect::<Result<Vec<_>>>()?;
    std::thread::scope(|scope| {
        let threads: Vec<_> = listeners
            .into_iter()
            .map(|listener| scope.spawn(|| run(listener, &headers, &body)))
            .collect();
        threads.into_iter().try_for_each(|thread| {
            thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    })
}

fn listen(addr: SocketAddr) -> Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(1024)?;
    Ok(socket.into())
}

fn run(listener: TcpListener, headers: &HeaderMap, body: &Bytes) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        loop {
            let (stream, _) = listener.accept().await.context("accepting")?;
            stream.set_nodelay(true)?;
            let (headers, body) = (headers.clone(), body.clone());
            let answer = service_fn(move |_| {
                let mut response = Response::new(Full::new(body.clone()));
                response.headers_mut().clone_from(&headers);
                std::future::ready(Ok::<_, Infallible>(response))
            });
            // A connection that ends badly is its client's affair.
            tokio::task::spawn_local(
                http1::Builder::new().serve_connection(TokioIo::new(stream), answer),
            );
        }
    })
}
