//! `serve`: one connection, from its first request to the last byte of its last response.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use http::{Request, Response};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::TcpStream;

use super::body::{Body, BodyError};
use super::listen::{Stop, told};
use super::timed::{Busy, Patience, Pulse, Timed};

/// Bytes of a request head, in either version: cookies and long query strings fit, a flood does
/// not. More is answered 431. (The number of headers is limited to 100 by hyper.)
const MAX_HEAD: usize = 32 * 1024;

/// Streams of one HTTP/2 connection at once; the figure that RFC 9113 section 6.5.2 advises not to
/// go below is 100.
const MAX_STREAMS: u32 = 128;

/// An answer, at once where it can be: a hit is never boxed.
pub enum Answer {
    /// It is here.
    Now(Response<Body>),
    /// It must be waited for.
    Later(Pin<Box<dyn Future<Output = Response<Body>> + Send>>),
}

/// What answers the requests of a door.
pub trait Service: Send + Sync + 'static {
    /// Answers one request.
    fn answer(self: &Arc<Self>, request: Request<Incoming>, peer: SocketAddr) -> Answer;
}

/// Serves one connection until either side ends it. After the stop signal, requests in flight are
/// finished and no more are taken.
pub(super) async fn serve<S: Service>(
    stream: TcpStream,
    peer: SocketAddr,
    service: Arc<S>,
    mut stop: Stop,
    patience: Patience,
) {
    // A response is one write; holding back its last segment would only delay it.
    let _ = stream.set_nodelay(true);
    let pulse = Arc::new(Pulse::new());
    let io = Timed::new(stream, Arc::clone(&pulse), patience);
    let answer = service_fn(move |request: Request<Incoming>| {
        let busy = pulse.enter(request.version());
        let answer = service.answer(request, peer);
        async move {
            let response = match answer {
                Answer::Now(response) => response,
                Answer::Later(response) => response.await,
            };
            Ok::<_, Infallible>(response.map(|body| Sent { body, _busy: busy }))
        }
    });
    let builder = builder();
    let mut connection = pin!(builder.serve_connection(TokioIo::new(io), answer));
    // Asked only when it has something to say: asking the signal itself takes a lock that all
    // connections of all threads share.
    let mut stopping: FuturesUnordered<_> = std::iter::once(told(&mut stop)).collect();
    let ended = tokio::select! {
        // The signal first: a response that is ready at the same moment then tells the client
        // that it is the last one.
        biased;
        _ = stopping.next() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
        ended = connection.as_mut() => ended,
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, error, "connection ended early");
    }
}

fn builder() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    // `Timed` times heads: hyper's own timer would count the time between requests as well.
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .max_buf_size(MAX_HEAD);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEAD as u32);
    builder
}

/// A body that ends its request's [`Busy`].
struct Sent {
    body: Body,
    _busy: Busy,
}

impl http_body::Body for Sent {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
