//! Listeners, talked to through raw sockets.

use std::time::Instant;

use http::{Request, Response};
use hyper::body::Incoming;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::super::body::Body;
use super::super::connection::Answer;
use super::*;

/// Answers with the path; `/slow` says that it has arrived and waits for the signal.
struct Echo {
    go: watch::Receiver<bool>,
    arrived: watch::Sender<bool>,
}

impl Service for Echo {
    fn answer(self: &Arc<Self>, request: Request<Incoming>, _peer: SocketAddr) -> Answer {
        let path = request.uri().path().to_owned();
        if path != "/slow" {
            return Answer::Now(Response::new(Body::from(path)));
        }
        let (mut go, arrived) = (self.go.clone(), self.arrived.clone());
        Answer::Later(Box::pin(async move {
            arrived.send_replace(true);
            // What the test does next counts from the connection's next turn on.
            tokio::task::yield_now().await;
            told(&mut go).await;
            Response::new(Body::from(path))
        }))
    }
}

struct Server {
    addr: SocketAddr,
    stop: watch::Sender<bool>,
    go: watch::Sender<bool>,
    arrived: watch::Receiver<bool>,
    open: Gauge,
    serving: Serving,
}

fn config() -> Config {
    Config {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        threads: 2,
        max_connections: 100,
        per_address: PerAddress::Public(100),
        drain: Duration::from_secs(10),
        patience: Patience::default(),
        open: Gauge::default(),
        refused: Counter::default(),
    }
}

fn start(config: Config) -> Server {
    let open = config.open.clone();
    let bound = Bound::bind(config).unwrap();
    let (stop, stopping) = watch::channel(false);
    let (go, going) = watch::channel(false);
    let (arrived, arrivals) = watch::channel(false);
    let addr = bound.addr();
    let echo = Echo { go: going, arrived };
    let serving = bound.serve(Arc::new(echo), stopping);
    Server {
        addr,
        stop,
        go,
        arrived: arrivals,
        open,
        serving,
    }
}

/// Sends `bytes` and reads until the server closes.
async fn talk(addr: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    // The server may answer and close before all is written.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn both_versions_are_answered_on_one_port() {
    let server = start(config());
    let answer = talk(
        server.addr,
        b"GET /one HTTP/1.1\r\nhost: x\r\n\r\nGET /two HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
    )
    .await;
    assert!(answer.contains("\r\n\r\n/oneHTTP/1.1 200 OK"), "{answer}");
    assert!(answer.ends_with("/two"), "{answer}");

    let stream = TcpStream::connect(server.addr).await.unwrap();
    let io = hyper_util::rt::TokioIo::new(stream);
    let executor = hyper_util::rt::TokioExecutor::new();
    let (mut sender, connection) = hyper::client::conn::http2::handshake(executor, io)
        .await
        .unwrap();
    let running = tokio::spawn(connection);
    let request = Request::get("http://x/three").body(Body::Empty).unwrap();
    let response = sender.send_request(request).await.unwrap();
    let body = http_body_util::BodyExt::collect(response.into_body()).await;
    assert_eq!(body.unwrap().to_bytes(), "/three");
    running.abort();
}

#[tokio::test]
async fn a_head_beyond_the_limit_is_431() {
    let server = start(config());
    let head = format!(
        "GET / HTTP/1.1\r\nhost: x\r\nbig: {}\r\n\r\n",
        "x".repeat(40_000)
    );
    let answer = talk(server.addr, head.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    let many = format!(
        "GET / HTTP/1.1\r\nhost: x\r\n{}\r\n",
        "a: b\r\n".repeat(101)
    );
    let answer = talk(server.addr, many.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
}

#[tokio::test]
async fn dawdlers_are_cut_off_at_every_stage() {
    let patience = Patience {
        head: Duration::from_millis(200),
        idle: Duration::from_millis(600),
        ..Patience::default()
    };
    let server = start(Config {
        patience,
        ..config()
    });
    let timed = async |bytes: &[u8]| {
        let started = Instant::now();
        let answer = talk(server.addr, bytes).await;
        (answer, started.elapsed())
    };
    for nothing_whole in [&b""[..], b"GET / HTTP/1.1\r\nhost: x\r\n"] {
        let (answer, took) = timed(nothing_whole).await;
        assert_eq!(answer, "");
        assert!(
            took >= patience.head && took < Duration::from_secs(5),
            "{took:?}"
        );
    }
    let (answer, took) = timed(b"GET /kept HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(answer.ends_with("/kept"));
    assert!(
        took >= patience.idle && took < Duration::from_secs(5),
        "{took:?}"
    );
}

#[tokio::test]
async fn a_request_in_flight_is_finished_after_the_stop_signal() {
    let mut server = start(config());
    let idle = TcpStream::connect(server.addr).await.unwrap();
    let slow = tokio::spawn(talk_owned(
        server.addr,
        "GET /slow HTTP/1.1\r\nhost: x\r\n\r\n",
    ));
    told(&mut server.arrived).await;
    while server.open.get() < 2 {
        tokio::task::yield_now().await;
    }
    server.stop.send(true).unwrap();
    while server.open.get() > 1 {
        tokio::task::yield_now().await;
    }
    server.go.send(true).unwrap();
    let answer = slow.await.unwrap();
    assert!(answer.contains("connection: close"), "{answer}");
    assert!(answer.ends_with("/slow"), "{answer}");
    server.serving.join().await.unwrap();
    assert!(TcpStream::connect(server.addr).await.is_err());
    drop(idle);
}

#[tokio::test]
async fn the_drain_has_an_end() {
    let mut server = start(Config {
        drain: Duration::from_millis(50),
        ..config()
    });
    let slow = tokio::spawn(talk_owned(
        server.addr,
        "GET /slow HTTP/1.1\r\nhost: x\r\n\r\n",
    ));
    told(&mut server.arrived).await;
    server.stop.send(true).unwrap();
    server.serving.join().await.unwrap();
    assert_eq!(slow.await.unwrap(), "");
}

#[tokio::test]
async fn beyond_the_limit_connections_wait_for_their_turn() {
    let server = start(Config {
        max_connections: 1,
        ..config()
    });
    let holder = TcpStream::connect(server.addr).await.unwrap();
    while server.open.get() < 1 {
        tokio::task::yield_now().await;
    }
    let request = "GET /next HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let mut waiting = Vec::new();
    for _ in 0..4 {
        waiting.push(tokio::spawn(talk_owned(server.addr, request)));
    }
    assert_eq!(server.open.get(), 1);
    drop(holder);
    for next in waiting {
        assert!(next.await.unwrap().ends_with("/next"));
    }
}

async fn talk_owned(addr: SocketAddr, text: &'static str) -> String {
    talk(addr, text.as_bytes()).await
}

#[test]
fn a_port_that_is_taken_is_named() {
    let bound = Bound::bind(config()).unwrap();
    let taken = Bound::bind(Config {
        listen: bound.addr(),
        ..config()
    });
    let message = taken.unwrap_err().to_string();
    assert!(message.contains(&bound.addr().to_string()), "{message}");
    assert!(message.contains("in use"), "{message}");
}
