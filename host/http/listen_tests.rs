//! Listeners, talked to through raw sockets.

use std::task::Poll;
use std::time::Instant;

use bytes::Bytes;
use futures_util::stream::poll_fn;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::StreamBody;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::super::body::Body;
use super::super::connection::Answer;
use super::*;
use crate::http::Upload;

/// Bytes of `/large`.
const LARGE: usize = 16 << 20;

/// Answers with the path; `/slow` says that it has arrived and waits for the signal, what has
/// `panic` in its name does so, and `/cores` says on how many cores its thread may run, and one that
/// waits for disks.
struct Echo {
    go: watch::Receiver<bool>,
    arrived: watch::Sender<bool>,
}

impl Service for Echo {
    fn answer(self: &Arc<Self>, request: Request<Upload>, _peer: SocketAddr) -> Answer {
        let path = request.uri().path().to_owned();
        match &*path {
            "/slow" => {}
            "/large" => return Answer::Now(Response::new(Body::from(Bytes::from(vec![0; LARGE])))),
            "/tail" => return Answer::Now(Response::new(Body::from(Bytes::from(vec![0; 1_000])))),
            "/cores" => {
                return Answer::Later(Box::pin(async {
                    let waiting = tokio::task::spawn_blocking(|| cores::all().count());
                    let both = (cores::all().count(), waiting.await.unwrap());
                    Response::new(Body::from(format!("{both:?}")))
                }));
            }
            "/panic" => panic!("asked for"),
            "/late-panic" => return Answer::Later(Box::pin(async { panic!("asked for") })),
            "/body-panic" => {
                let body = poll_fn(|_| -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
                    panic!("asked for")
                });
                return Answer::Now(Response::new(Body::stream(StreamBody::new(body))));
            }
            _ => return Answer::Now(Response::new(Body::from(path))),
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
    refused: Counter,
    in_flight_bytes: Gauge,
    slow: Counter,
    displaced: Counter,
    serving: Serving,
}

fn config() -> Config {
    Config {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        threads: 2,
        max_connections: 100,
        per_address: PerAddress::Public(100),
        proxies: Arc::default(),
        drain: Duration::from_secs(10),
        patience: Patience::default(),
        in_flight: 64 << 20,
        watch: None,
        open: Gauge::default(),
        refused: Counter::default(),
        in_flight_bytes: Gauge::default(),
        slow: Counter::default(),
        displaced: Counter::default(),
    }
}

fn start(config: Config) -> Server {
    let bound = Bound::bind(config.clone()).unwrap();
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
        open: config.open,
        refused: config.refused,
        in_flight_bytes: config.in_flight_bytes,
        slow: config.slow,
        displaced: config.displaced,
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
async fn each_thread_has_a_core_of_its_own_if_there_are_as_many() {
    let cores = cores::all().count();
    for (threads, on) in [(cores as usize, 1), (cores as usize + 1, cores)] {
        let server = start(Config {
            threads,
            ..config()
        });
        let asked = b"GET /cores HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
        let answer = talk(server.addr, asked).await;
        let told = format!("\r\n\r\n({on}, {cores})");
        assert!(answer.ends_with(&told), "{threads} threads: {answer}");
    }
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

/// Reads `path` and takes `bytes` at a time, a moment apart; what came in the end.
async fn sip(addr: SocketAddr, path: &'static str, bytes: usize) -> usize {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    // Without a large window there is little that the kernels take on their own.
    socket.set_recv_buffer_size(64 * 1024).unwrap();
    let mut stream = socket.connect(addr).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let (mut taken, mut room) = (0, vec![0; bytes]);
    while let Ok(length @ 1..) = stream.read(&mut room).await {
        taken += length;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    taken
}

fn hasty() -> Patience {
    Patience {
        idle: Duration::from_millis(300),
        stall: Duration::from_millis(300),
        ..Patience::default()
    }
}

#[tokio::test]
async fn who_takes_a_little_now_and_then_is_cut_off_and_who_is_slow_is_not() {
    let server = start(Config {
        patience: hasty(),
        ..config()
    });
    // Longer than the patience for idle connections, and for stalled ones.
    let slow = sip(server.addr, "/large", LARGE / 64).await;
    assert!(slow > LARGE, "{slow} bytes are not all");
    while server.open.get() > 0 {
        tokio::task::yield_now().await;
    }
    let trickle = tokio::spawn(sip(server.addr, "/large", 1));
    while server.open.get() < 1 {
        tokio::task::yield_now().await;
    }
    while server.open.get() > 0 {
        tokio::task::yield_now().await;
    }
    // It has not even read what the kernels hold for it.
    assert!(!trickle.is_finished());
    trickle.abort();
}

#[tokio::test]
async fn a_window_that_is_never_opened_holds_nothing_for_ever() {
    let server = start(Config {
        patience: hasty(),
        ..config()
    });
    let stream = TcpStream::connect(server.addr).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::Builder::new(hyper_util::rt::TokioExecutor::new())
            .initial_stream_window_size(1)
            .handshake(hyper_util::rt::TokioIo::new(stream))
            .await
            .unwrap();
    let running = tokio::spawn(connection);
    let mut stalled = Vec::new();
    for _ in 0..50 {
        let request = Request::get("http://x/large").body(Body::Empty).unwrap();
        stalled.push(sender.send_request(request).await.unwrap());
    }
    let _ = running.await.unwrap();
    drop(stalled);
    while server.open.get() > 0 {
        tokio::task::yield_now().await;
    }
}

/// A frame of HTTP/2 (RFC 9113 section 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()];
    [&head.concat(), payload].concat()
}

/// `GET path` on a stream.
fn get(stream: u32, path: &str) -> Vec<u8> {
    let path = [&[4, u8::try_from(path.len()).unwrap()], path.as_bytes()].concat();
    frame(1, 5, stream, &[&b"\x82\x86\x01\x01x"[..], &path].concat())
}

/// What the server resets (with which code), and which streams it ends, until there are `count`.
async fn endings(
    stream: &mut (impl tokio::io::AsyncRead + Unpin),
    count: usize,
) -> Vec<(u32, u32)> {
    let mut ended = Vec::new();
    while ended.len() < count {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await.unwrap();
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let mut payload = vec![0; length];
        stream.read_exact(&mut payload).await.unwrap();
        let of = u32::from_be_bytes(head[5..].try_into().unwrap());
        match head[3] {
            3 => ended.push((of, u32::from_be_bytes(payload[..4].try_into().unwrap()))),
            0 | 1 if head[4] & 1 == 1 => ended.push((of, 0)),
            _ => {}
        }
    }
    ended
}

/// RFC 9113 section 7.
const CANCEL: u32 = 8;

#[tokio::test]
async fn a_stream_whose_reader_lags_is_reset_and_no_other() {
    let server = start(Config {
        patience: hasty(),
        in_flight: 100 * LARGE,
        ..config()
    });
    let lagging: Vec<u32> = (0..100).map(|number| 2 * number + 1).collect();
    for (window, paths) in [(0, ["/large", "/tail"]), (1, ["/large", "/tail"])] {
        let mut client = TcpStream::connect(server.addr).await.unwrap();
        let window_size = [0, 4, 0, 0, 0, window];
        let mut hello = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        hello.extend(frame(4, 0, 0, &window_size));
        for (number, stream) in lagging.iter().enumerate() {
            hello.extend(get(*stream, paths[number % 2]));
        }
        client.write_all(&hello).await.unwrap();
        // Who asks for something else, and opens windows by a byte, buys no time with it.
        let (mut reading, mut writing) = client.into_split();
        let playing = tokio::spawn(async move {
            for number in 0.. {
                let other = 201 + 2 * number;
                let mut bytes = get(other, "/other");
                bytes.extend(frame(8, 0, other, &100_u32.to_be_bytes()));
                for stream in (1..200).step_by(2) {
                    bytes.extend(frame(8, 0, stream, &1_u32.to_be_bytes()));
                }
                if writing.write_all(&bytes).await.is_err() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        let began = Instant::now();
        let mut reset = Vec::new();
        while reset.len() < lagging.len() {
            let [(stream, code)] = endings(&mut reading, 1).await[..] else {
                panic!("not one");
            };
            match stream {
                ..200 => {
                    assert_eq!(code, CANCEL, "{stream}");
                    reset.push(stream);
                }
                other => assert_eq!(code, 0, "{other}"),
            }
        }
        assert!(began.elapsed() >= hasty().stall);
        reset.sort_unstable();
        assert_eq!(reset, lagging, "{window}");
        // The connection is as good as ever.
        endings(&mut reading, 1).await;
        playing.abort();
    }
    assert_eq!(server.slow.get(), 200);
    while server.in_flight_bytes.get() > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_stream_whose_reader_is_slow_gets_all_of_it() {
    let server = start(Config {
        patience: hasty(),
        ..config()
    });
    let mut client = TcpStream::connect(server.addr).await.unwrap();
    let mut hello = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    hello.extend(frame(4, 0, 0, &[0, 4, 0, 0, 0, 1]));
    hello.extend(get(1, "/large"));
    client.write_all(&hello).await.unwrap();
    let (mut reading, mut writing) = client.into_split();
    let reading = tokio::spawn(async move { endings(&mut reading, 1).await });
    let began = Instant::now();
    // In each of several spans of patience a little, and more than is asked of it.
    while began.elapsed() < 4 * hasty().stall {
        let step = u32::try_from(hasty().least / 2).unwrap().to_be_bytes();
        let opened = [frame(8, 0, 0, &step), frame(8, 0, 1, &step)].concat();
        writing.write_all(&opened).await.unwrap();
        tokio::time::sleep(hasty().stall / 20).await;
    }
    assert!(!reading.is_finished());
    let rest = u32::try_from(LARGE).unwrap().to_be_bytes();
    let opened = [frame(8, 0, 0, &rest), frame(8, 0, 1, &rest)].concat();
    writing.write_all(&opened).await.unwrap();
    assert_eq!(reading.await.unwrap(), [(1, 0)]);
}

#[tokio::test]
async fn what_is_under_way_has_a_bound_over_both_protocols() {
    let limit = 4 * LARGE;
    let server = start(Config {
        in_flight: limit,
        ..config()
    });
    // Every answer of `/large` is a page of its own; nobody reads, and one stalls in each way.
    let mut readers = Vec::new();
    for _ in 0..6 {
        let mut reader = TcpStream::connect(server.addr).await.unwrap();
        let request = b"GET /large HTTP/1.1\r\nhost: x\r\n\r\n";
        reader.write_all(request).await.unwrap();
        reader.read_exact(&mut [0]).await.unwrap();
        readers.push(reader);
    }
    let mut client = TcpStream::connect(server.addr).await.unwrap();
    let mut hello = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    hello.extend(frame(4, 0, 0, &[0, 4, 0, 0, 0, 1]));
    for number in 0..10 {
        hello.extend(get(2 * number + 1, "/large"));
    }
    client.write_all(&hello).await.unwrap();
    // The oldest go: all six of the first kind, and all but the last three of the second.
    let reset = endings(&mut client, 7).await;
    let expected: Vec<_> = (0..7).map(|number| (2 * number + 1, CANCEL)).collect();
    assert_eq!(reset, expected);
    for reader in &mut readers {
        let mut rest = Vec::new();
        let _ = reader.read_to_end(&mut rest).await;
        assert!(rest.len() < LARGE, "{} bytes came", rest.len());
    }
    assert_eq!(server.displaced.get(), 13);
    assert!(server.in_flight_bytes.get() <= i64::try_from(limit).unwrap());
    drop((client, readers));
    while server.in_flight_bytes.get() > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_panic_costs_its_request_only() {
    let server = start(config());
    let answer = talk(
        server.addr,
        b"GET /panic HTTP/1.1\r\nhost: x\r\n\r\nGET /late-panic HTTP/1.1\r\nhost: x\r\n\r\n\
          GET /after HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
    )
    .await;
    assert_eq!(answer.matches("HTTP/1.1 500 ").count(), 2, "{answer}");
    assert!(answer.ends_with("/after"), "{answer}");
    // A body that panics takes its connection along, which is given back like any other.
    let broken = talk(server.addr, b"GET /body-panic HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(!broken.ends_with("\r\n0\r\n\r\n"), "{broken}");
    while server.open.get() > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_body_that_panics_resets_its_stream_and_no_other() {
    let server = start(config());
    let stream = TcpStream::connect(server.addr).await.unwrap();
    let io = hyper_util::rt::TokioIo::new(stream);
    let executor = hyper_util::rt::TokioExecutor::new();
    let handshake = hyper::client::conn::http2::handshake(executor, io);
    let (mut sender, connection) = handshake.await.unwrap();
    let running = tokio::spawn(connection);
    let mut get = async |path: &str| {
        let request = Request::get(format!("http://x{path}")).body(Body::Empty);
        let response = sender.send_request(request.unwrap()).await?;
        http_body_util::BodyExt::collect(response.into_body()).await
    };
    let broken = format!("{:?}", get("/body-panic").await.unwrap_err());
    assert!(
        broken.contains("Reset(StreamId(1), INTERNAL_ERROR"),
        "{broken}"
    );
    assert_eq!(get("/after").await.unwrap().to_bytes(), "/after");
    running.abort();
}

#[tokio::test]
async fn one_address_has_no_more_than_its_share() {
    let server = start(Config {
        per_address: PerAddress::All(2),
        ..config()
    });
    let holders = [
        TcpStream::connect(server.addr).await.unwrap(),
        TcpStream::connect(server.addr).await.unwrap(),
    ];
    while server.open.get() < 2 {
        tokio::task::yield_now().await;
    }
    let request = "GET /next HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    assert_eq!(talk_owned(server.addr, request).await, "");
    assert_eq!(server.refused.get(), 1);
    drop(holders);
    while server.open.get() > 0 {
        tokio::task::yield_now().await;
    }
    assert!(talk_owned(server.addr, request).await.ends_with("/next"));
}

#[tokio::test]
async fn a_proxy_that_does_not_say_for_whom_it_connects_is_not_waited_for() {
    let trusted = "127.0.0.0/8".parse().ok();
    let server = start(Config {
        proxies: Arc::new(Proxies::new(trusted, None, true)),
        patience: Patience {
            head: Duration::from_millis(200),
            ..Patience::default()
        },
        ..config()
    });
    for start in ["", "PROXY TCP4 192.0.2.1", "\r\n\r\n\0\r\nQUI"] {
        // Reads to the end, which comes by itself.
        assert_eq!(talk_owned(server.addr, start).await, "");
    }
    assert_eq!(server.refused.get(), 3);
    let whole = "PROXY UNKNOWN\r\nGET /a HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    assert!(talk_owned(server.addr, whole).await.ends_with("/a"));
}
