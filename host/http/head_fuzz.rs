//! Heads of requests, as the short way and hyper read them.

use std::convert::Infallible;
use std::sync::Arc;

use http::{HeaderMap, Method, Request, Response, Uri, Version};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::super::body::Body;
use super::super::sound::sound;
use super::Head;
use crate::fuzz;

const SEEDS: &[&str] = &[
    "GET / HTTP/1.1\r\nhost: x\r\n\r\n",
    "GET /a/%C3%A9;b?q=1&r=%20 HTTP/1.1\r\nHost: x:80\r\nUser-Agent: y\r\n\r\n",
    "GET /a HTTP/1.1\r\nhost: [::1]:80\r\naccept-encoding: br;q=0.5, gzip\r\naccept-encoding:zstd\r\n\r\n",
    "GET /a HTTP/1.1\r\nhost: x\r\nif-none-match: W/\"a\", \"b\"\r\nif-modified-since: \t c \r\n\r\n",
    "GET /a HTTP/1.1\r\nhost: x\r\nconnection: keep-alive\r\n\r\n",
];

const WORDS: &[&[u8]] = &[
    b"\r\n",
    b"\n",
    b"\r",
    b"\r\n ",
    b": ",
    b" ",
    b"\0",
    b"#",
    b"?",
    b"//",
    b"\xff",
    b"http://y",
    b"*",
    b"HEAD ",
    b"HTTP/1.0",
    b"\r\nhost: y",
    b"\r\ncontent-length: 0",
    b"\r\ntransfer-encoding: chunked",
    b"\r\nconnection: close",
    b"\r\nexpect: 100-continue",
    b"\r\naccept-encoding: ",
    b"GET /b HTTP/1.1\r\nhost: x\r\n\r\n",
];

/// The requests that hyper reads, and whether each has no body.
async fn read_by_hyper(bytes: &[u8]) -> Vec<(Request<()>, bool)> {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let service = service_fn(|request: Request<Incoming>| {
        let ends = request.body().is_end_stream();
        seen.lock().push((request.map(drop), ends));
        async { Ok::<_, Infallible>(Response::new(Body::Empty)) }
    });
    let (mut client, server) = tokio::io::duplex(64 * 1024);
    let serving = hyper::server::conn::http1::Builder::new()
        .half_close(true)
        .serve_connection(TokioIo::new(server), service);
    let sending = async {
        client.write_all(bytes).await.unwrap();
        client.shutdown().await.unwrap();
        let _ = client.read_to_end(&mut Vec::new()).await;
    };
    let _ = tokio::join!(serving, sending);
    std::mem::take(&mut *seen.lock())
}

/// What decides which page a request gets, and in which form.
fn asked(path: &str, query: Option<&str>, headers: &HeaderMap) -> String {
    let forms = ["accept-encoding", "if-none-match", "if-modified-since"]
        .map(|name| headers.get_all(name).iter().collect::<Vec<_>>());
    format!("{path} {query:?} {forms:?}")
}

#[test]
fn who_takes_the_short_way_would_get_the_same_by_the_long_one() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let seeds = SEEDS.iter().map(|seed| seed.as_bytes().to_vec()).collect();
    fuzz::run("heads", &fuzz::bytes(seeds, WORDS), |bytes| {
        let head = Head::of(&bytes);
        if matches!(head, Head::Unclear) {
            return Ok(());
        }
        let mut requests = runtime.block_on(read_by_hyper(&bytes));
        // What hyper refuses ends the connection, however it began.
        prop_assert!(requests.len() <= 1, "it is {} requests", requests.len());
        if let Some((_, ends)) = requests.first() {
            prop_assert!(*ends, "it has a body");
        }
        let Head::Plain(plain) = head else {
            return Ok(());
        };
        let Some((request, _)) = requests.first_mut() else {
            return Err(TestCaseError::fail("hyper does not read it"));
        };
        let seen: (&Method, Version) = (request.method(), request.version());
        prop_assert_eq!(seen, (&Method::GET, Version::HTTP_11));
        let uri: Uri = request.uri().clone();
        prop_assert_eq!(
            asked(plain.path, plain.query, &plain.headers),
            asked(uri.path(), uri.query(), request.headers())
        );
        prop_assert!(sound(request).is_ok(), "it breaks a rule");
        Ok(())
    });
}
