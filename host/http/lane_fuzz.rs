//! What clients send, in whatever pieces, answered with the short way and without it.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use http::{HeaderMap, Method, Request, Response};
use http_body_util::BodyExt;
use proptest::prelude::*;
use proptest::sample::Index;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::super::body::Body;
use super::super::connection::{Answer, Manner, Service, Short, serve};
use super::super::head::Plain;
use super::super::respond::tests::entry;
use super::Express;
use crate::fuzz;
use crate::http::Upload;
use crate::page::{Entry, Revalidate, Timestamp};

const SEEDS: &[&str] = &[
    "GET /a HTTP/1.1\r\nhost: x\r\n\r\n",
    "GET /b?q=1 HTTP/1.1\r\nHost: x:80\r\naccept-encoding: br\r\ncookie: a=b\r\n\r\n",
    "GET /a HTTP/1.1\r\nhost: x\r\nrange: bytes=0-1\r\nif-none-match: \"a\"\r\n\r\n",
    "GET /later HTTP/1.1\r\nhost: x\r\n\r\n",
    "HEAD /a HTTP/1.1\r\nhost: x\r\n\r\n",
    "OPTIONS * HTTP/1.1\r\nhost: x\r\n\r\n",
    "GET http://y/a HTTP/1.1\r\nhost: x\r\n\r\n",
    "GET /a HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
    "GET /a HTTP/1.1\r\nhost: x\r\nconnection: keep-alive\r\n\r\n",
    "GET /a HTTP/1.0\r\nconnection: keep-alive\r\n\r\n",
    "POST /a HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\nabc",
    "POST /a HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
];

const WORDS: &[&[u8]] = &[
    b"\r\n",
    b"\n",
    b"\r\n\r\n",
    b"\r\n ",
    b"\0",
    b"\xff",
    b"\r\nhost: y",
    b"\r\ncontent-length: 3",
    b"\r\ntransfer-encoding: chunked",
    b"\r\nconnection: close",
    b"\r\nexpect: 100-continue",
    b"\r\nupgrade: h2c",
    b"GET /a HTTP/1.1\r\nhost: x\r\n\r\n",
    b"GET /later HTTP/1.1\r\nhost: x\r\n\r\n",
    b"HEAD /a HTTP/1.1\r\nhost: x\r\n\r\n",
];

/// How long an answer may take: none waits for anything.
const SOON: Duration = Duration::from_secs(5);

/// Tells what it was asked; `/later` not at once, and bodies when they have come.
struct Echo {
    has_short_way: bool,
    is_next_cold: AtomicBool,
}

fn echo(path: &str, query: Option<&str>, headers: &HeaderMap, body: &[u8]) -> Response<Body> {
    let forms = ["accept-encoding", "if-none-match", "if-modified-since"]
        .map(|name| headers.get_all(name).iter().collect::<Vec<_>>());
    let text = format!("{path} {query:?} {forms:?} {body:?}");
    let length = text.len();
    let mut response = Response::new(Body::from(text));
    let headers = response.headers_mut();
    headers.insert("content-length", length.into());
    response
}

impl Service for Echo {
    fn answer(self: &Arc<Self>, request: Request<Upload>, _peer: SocketAddr) -> Answer {
        let is_plain = *request.method() == Method::GET && request.uri().path() != "/later";
        let (head, body) = request.into_parts();
        let (path, query) = (
            head.uri.path().to_owned(),
            head.uri.query().map(str::to_owned),
        );
        if is_plain {
            return Answer::Now(echo(&path, query.as_deref(), &head.headers, b""));
        }
        Answer::Later(Box::pin(async move {
            tokio::task::yield_now().await;
            let body = body.collect().await.map(|body| body.to_bytes());
            echo(
                &path,
                query.as_deref(),
                &head.headers,
                &body.unwrap_or_default(),
            )
        }))
    }

    fn express(&self, plain: &Plain<'_>, fetched: Option<&Arc<Entry>>) -> Short {
        if !self.has_short_way || plain.path == "/later" {
            return Short::None;
        }
        // Every other one must be waited for first.
        if fetched.is_none() && self.is_next_cold.fetch_not(Relaxed) {
            return Short::Soon(Box::pin(async {
                tokio::task::yield_now().await;
                Some(entry(Revalidate::Never, Timestamp::from_millis(0)))
            }));
        }
        let hit = echo(plain.path, plain.query, &plain.headers, b"");
        Short::Now(Express::of(hit, Timestamp::from_millis(0)))
    }
}

/// All that is answered to these pieces, but for the dates.
async fn answered(has_short_way: bool, pieces: &[Vec<u8>]) -> String {
    // Of one address the ports run out, which the kernel keeps for a minute each.
    let address = Ipv4Addr::new(127, 0, 0, fastrand::u8(1..));
    let listener = TcpListener::bind((address, 0)).await.unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap())
        .await
        .unwrap();
    client.set_nodelay(true).unwrap();
    let (accepted, peer) = listener.accept().await.unwrap();
    let (_stop, stopping) = watch::channel(false);
    let service = Arc::new(Echo {
        has_short_way,
        is_next_cold: AtomicBool::new(false),
    });
    let manner = Manner::some();
    let serving = tokio::spawn(serve(accepted, peer, service, stopping, manner));
    let mut all = Vec::new();
    let talk = async {
        for piece in pieces {
            // Who is refused is not read any more.
            let _ = client.write_all(piece).await;
            for _ in 0..8 {
                tokio::task::yield_now().await;
            }
        }
        let _ = client.shutdown().await;
        let _ = client.read_to_end(&mut all).await;
    };
    tokio::time::timeout(SOON, talk).await.expect("no end");
    serving.await.unwrap();
    let text = String::from_utf8_lossy(&all).into_owned();
    let lines = text
        .split("\r\n")
        .filter(|line| !line.starts_with("date: "));
    lines.collect::<Vec<_>>().join("\r\n")
}

#[test]
fn whatever_is_sent_is_answered_as_without_the_short_way() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let seeds = SEEDS.iter().map(|seed| seed.as_bytes().to_vec()).collect();
    // Few requests end where a random cut is, and only what comes alone takes the short way.
    let whole = fuzz::bytes(seeds, WORDS);
    let cut = (whole, any::<Index>(), any::<bool>()).prop_map(|(mut bytes, at, is_cut)| {
        let rest = bytes.split_off(at.index(bytes.len() + 1));
        if is_cut {
            return vec![bytes, rest];
        }
        bytes.extend(rest);
        vec![bytes]
    });
    fuzz::run("lane", &prop::collection::vec(cut, 1..4), |pieces| {
        let pieces = pieces.concat();
        let [with, without] = [true, false].map(|short| runtime.block_on(answered(short, &pieces)));
        prop_assert_eq!(with, without);
        Ok(())
    });
}
