//! RFC 9113, attacked with frames that no library would send: what one client does costs that
//! client its connection, and nobody else anything.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use crate::modules;
use crate::site::{Running, Site, TOKEN};

/// Types of frames (section 6).
pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PUSH_PROMISE: u8 = 5;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

/// Flags of frames.
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const ACK: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
pub(crate) const PADDED: u8 = 8;
pub(crate) const PRIORITIZED: u8 = 0x20;

/// Error codes (section 7).
const PROTOCOL_ERROR: u32 = 1;
const REFUSED_STREAM: u32 = 7;
const CANCEL: u32 = 8;
const ENHANCE_YOUR_CALM: u32 = 11;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// The headers of `GET / HTTP/2` to `a` over http, compressed (RFC 7541 section 6).
pub(crate) const GET: &[u8] = b"\x82\x86\x84\x01\x01a";

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A request without a body.
pub(crate) fn get(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_STREAM | END_HEADERS, stream, GET)
}

/// A call of the endpoint whose body is to follow.
pub(crate) fn post(stream: u32) -> Vec<u8> {
    let block = [
        b"\x83\x86\x01\x01a",
        &header(":path", "/api/revalidate")[..],
    ];
    let token = header("authorization", &format!("Bearer {TOKEN}"));
    frame(
        HEADERS,
        END_HEADERS,
        stream,
        &[&block.concat()[..], &token].concat(),
    )
}

/// A header that is not remembered.
pub(crate) fn header(name: &str, value: &str) -> Vec<u8> {
    let mut field = vec![0];
    for text in [name, value] {
        field.push(
            u8::try_from(text.len())
                .ok()
                .filter(|length| *length < 127)
                .unwrap(),
        );
        field.extend(text.as_bytes());
    }
    field
}

/// The stream ids of a client (section 5.1.1).
pub(crate) fn streams(count: u32) -> impl Iterator<Item = u32> {
    (0..count).map(|number| 2 * number + 1)
}

/// A connection, after both sides have said hello.
pub(crate) struct Attacker(TcpStream);

/// A frame of the server.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Told {
    /// The error code of RST_STREAM and GOAWAY.
    pub(crate) fn code(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().unwrap())
    }
}

impl Attacker {
    pub(crate) async fn new(to: SocketAddr) -> Self {
        Self::with(to, &[]).await
    }

    /// One who lets the server send so many bytes of each response (section 6.9.2).
    pub(crate) async fn with_window(to: SocketAddr, bytes: u8) -> Self {
        Self::with(to, &[0, 4, 0, 0, 0, bytes]).await
    }

    /// One who asks for all of these pages and lets the server send a byte of each.
    pub(crate) async fn taking_nothing(to: SocketAddr, paths: &[String]) -> Self {
        let mut reader = Self::with_window(to, 1).await;
        let count = u32::try_from(paths.len()).unwrap();
        let requests = streams(count).zip(paths).map(|(stream, path)| {
            let block = [b"\x82\x86\x01\x01a", &header(":path", path)[..]].concat();
            frame(HEADERS, END_STREAM | END_HEADERS, stream, &block)
        });
        let requests: Vec<_> = requests.collect();
        reader.send(&requests.concat()).await;
        reader
    }

    async fn with(to: SocketAddr, settings: &[u8]) -> Self {
        let mut stream = TcpStream::connect(to).await.unwrap();
        let hello = [
            &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..],
            &frame(SETTINGS, 0, 0, settings),
        ];
        stream.write_all(&hello.concat()).await.unwrap();
        Self(stream)
    }

    /// Sends all of it, or what the server lets it.
    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        let _ = timeout(PATIENCE, self.0.write_all(bytes)).await;
    }

    /// The next frame; none once the connection is closed.
    pub(crate) async fn next(&mut self) -> Option<Told> {
        let read = async {
            let mut head = [0; 9];
            self.0.read_exact(&mut head).await.ok()?;
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let mut payload = vec![0; length];
            self.0.read_exact(&mut payload).await.ok()?;
            let stream = u32::from_be_bytes(head[5..].try_into().unwrap());
            let (kind, flags) = (head[3], head[4]);
            Some(Told {
                kind,
                flags,
                stream,
                payload,
            })
        };
        let told = timeout(PATIENCE, read).await;
        told.expect("the server says nothing and does not close")
    }

    /// Frames up to the first of this kind for this stream; panics if the connection ends before.
    pub(crate) async fn until(&mut self, kind: u8, stream: u32) -> Told {
        loop {
            let told = self.next().await;
            let told = told.unwrap_or_else(|| panic!("closed without a frame {kind} of {stream}"));
            let is_ack = told.flags & ACK != 0 && matches!(told.kind, SETTINGS | PING);
            if (told.kind, told.stream) == (kind, stream) && !is_ack {
                return told;
            }
        }
    }

    /// Reads to the end of the answer on this stream; how many others were reset before.
    async fn until_ended(&mut self, stream: u32) -> u32 {
        let mut reset = 0;
        loop {
            let told = self.next().await.expect("closed");
            match told.kind {
                RST_STREAM => {
                    assert!(told.stream < stream && told.code() == CANCEL, "{told:?}");
                    reset += 1;
                }
                DATA if told.stream == stream && told.flags & END_STREAM != 0 => return reset,
                _ => {}
            }
        }
    }

    /// Why the server closed the connection.
    async fn goaway(&mut self) -> Option<u32> {
        let mut code = None;
        while let Some(told) = self.next().await {
            if told.kind == GOAWAY {
                code = Some(told.code());
            }
        }
        code
    }
}

async fn site() -> Running {
    Site::new().pages(&["index"]).start().await
}

/// A rule of the protocol that is broken ends the connection, or at least the stream. (`h2` says
/// PROTOCOL_ERROR also where the RFC has a code of its own.)
#[tokio::test]
async fn broken_rules_end_what_they_are_broken_on() {
    let site = site().await;
    let with = |field: Vec<u8>| {
        let block = [GET, &field].concat();
        frame(HEADERS, END_STREAM | END_HEADERS, 1, &block)
    };
    let data = |stream| frame(DATA, 0, stream, b"abc");
    let short = header("content-length", "5");
    let body = [
        frame(
            HEADERS,
            END_HEADERS,
            1,
            &[b"\x83\x86\x84\x01\x01a", &short[..]].concat(),
        ),
        frame(DATA, END_STREAM, 1, b"abc"),
    ];
    for (section, bytes, kind) in [
        (
            "5.1 data on a closed stream",
            [get(1), data(1)].concat(),
            GOAWAY,
        ),
        ("5.1 data on an idle stream", data(1), GOAWAY),
        ("5.1.1 a stream of the server's", get(2), GOAWAY),
        ("6.1 data of no stream", data(0), GOAWAY),
        (
            "6.10 continuation of nothing",
            frame(CONTINUATION, END_HEADERS, 1, GET),
            GOAWAY,
        ),
        (
            "4.3 headers that do not decompress",
            frame(HEADERS, 5, 1, b"\xff\xff\xff\xff\xff\xff"),
            GOAWAY,
        ),
        ("8.1.1 a body of another length", body.concat(), RST_STREAM),
        ("8.2.1 an upper-case name", with(header("X", "y")), GOAWAY),
        (
            "8.2.1 CR LF in a value",
            with(header("x", "y\r\nz: w")),
            GOAWAY,
        ),
        (
            "8.2.2 a header of the connection",
            with(header("transfer-encoding", "chunked")),
            RST_STREAM,
        ),
        ("8.3 a second path", with(header(":path", "/")), RST_STREAM),
    ] {
        let mut attacker = Attacker::new(site.site()).await;
        attacker.send(&bytes).await;
        let told = loop {
            match attacker.next().await {
                Some(told) if matches!(told.kind, RST_STREAM | GOAWAY) => break told,
                Some(_) => {}
                None => panic!("{section}: closed without a reason"),
            }
        };
        assert_eq!(
            (told.kind, told.code()),
            (kind, PROTOCOL_ERROR),
            "{section}"
        );
    }
}

/// Section 8.1: what answers HEAD has no body, whoever answers: pages, endpoints and modules, well and
/// in trouble.
#[tokio::test]
async fn head_has_no_body_whoever_answers() {
    let site = Site::new()
        .pages(&["index"])
        .module("api/hook", modules::hook())
        .start()
        .await;
    for path in [
        "/",
        "/nothing",
        "/nothing/",
        "/api/hook",
        "/api/hook?do=trap",
        "/api/revalidate",
        "/api/draft",
    ] {
        let block = [b"\x86\x02\x04HEAD\x01\x01a", &header(":path", path)[..]].concat();
        let mut attacker = Attacker::new(site.site()).await;
        let head = frame(HEADERS, END_STREAM | END_HEADERS, 1, &block);
        attacker.send(&head).await;
        let told = attacker.until(HEADERS, 1).await;
        assert_ne!(told.flags & END_STREAM, 0, "{path}");
    }
}

/// Section 5.1.2: no more streams at once than were announced.
#[tokio::test]
async fn streams_beyond_the_limit_are_refused() {
    let site = site().await;
    let mut attacker = Attacker::new(site.site()).await;
    let settings = attacker.until(SETTINGS, 0).await;
    let limit = settings
        .payload
        .chunks(6)
        .find(|setting| setting[..2] == [0, 3]);
    let limit = u32::from_be_bytes(limit.expect("no limit")[2..].try_into().unwrap());
    assert_eq!(limit, 128);
    // Calls of the endpoint whose bodies never come.
    let block = [
        b"\x83\x86\x01\x01a".to_vec(),
        header(":path", "/api/revalidate"),
        header("authorization", &format!("Bearer {TOKEN}")),
    ];
    let open = |stream| frame(HEADERS, END_HEADERS, stream, &block.concat());
    let opened: Vec<u8> = streams(limit + 1).flat_map(open).collect();
    attacker.send(&opened).await;
    let told = attacker.until(RST_STREAM, 2 * limit + 1).await;
    assert_eq!(told.code(), REFUSED_STREAM);
    assert_eq!(site.get("/").await.status, 200);
}

/// Floods end their connection with a word to calm down, and cost no memory.
#[tokio::test]
async fn floods_are_told_to_calm_down() {
    let site = site().await;
    let reset = |stream| {
        [
            get(stream),
            frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()),
        ]
        .concat()
    };
    let resets: Vec<u8> = streams(2_000).flat_map(reset).collect();
    let mut continued = frame(HEADERS, END_STREAM, 1, GET);
    let more = frame(
        CONTINUATION,
        0,
        1,
        &header("x", &"y".repeat(100)).repeat(100),
    );
    continued.extend(more.repeat(2_000));
    let nothing = frame(CONTINUATION, 0, 1, b"").repeat(100_000);
    let empty = [frame(HEADERS, END_STREAM, 1, GET), nothing].concat();
    // 4 KiB once, and 16,000 times by its number.
    let remembered = [
        b"\x40\x01x\x7f\xa1\x1e".to_vec(),
        vec![b'y'; 4000],
        vec![0xbe; 12_000],
    ];
    let bomb = [GET, &remembered.concat()].concat();
    let bomb = frame(
        HEADERS,
        END_STREAM | END_HEADERS,
        1,
        &bomb[..16_000.min(bomb.len())],
    );
    // Each breaks a rule of its own stream.
    let mistaken = |stream| {
        let block = [GET, &header("connection", "close")].concat();
        frame(HEADERS, END_STREAM | END_HEADERS, stream, &block)
    };
    let mistakes: Vec<u8> = streams(2_000).flat_map(mistaken).collect();
    let before = site.resident();
    for (name, bytes) in [
        ("rapid reset", resets),
        ("continuation", continued),
        ("empty continuation", empty),
        ("compressed bomb", bomb),
        ("mistakes", mistakes),
    ] {
        let mut attacker = Attacker::new(site.site()).await;
        attacker.send(&bytes).await;
        assert_eq!(attacker.goaway().await, Some(ENHANCE_YOUR_CALM), "{name}");
        assert_eq!(site.get("/").await.status, 200, "{name}");
    }
    let grown = site.resident().saturating_sub(before);
    assert!(grown < 32 << 20, "{grown} bytes more");
}

/// Pings and settings are answered one by one: who does not read the answers is not read either.
#[tokio::test]
async fn what_must_be_answered_is_not_queued() {
    let site = site().await;
    let before = site.resident();
    for (kind, payload) in [(PING, vec![7; 8]), (SETTINGS, vec![0, 4, 0, 0, 255, 255])] {
        let mut attacker = Attacker::new(site.site()).await;
        let flood = frame(kind, 0, 0, &payload).repeat(1_000);
        let mut sent = 0;
        // Until nothing more is taken, or more than any buffers of the kernels hold.
        while sent < 64 << 20 {
            let written = timeout(Duration::from_millis(500), attacker.0.write(&flood)).await;
            let Ok(Ok(written @ 1..)) = written else {
                break;
            };
            sent += written;
        }
        assert!(sent < 64 << 20, "{kind}: all of it was taken");
        assert_eq!(site.get("/").await.status, 200);
    }
    let grown = site.resident().saturating_sub(before);
    assert!(grown < 32 << 20, "{grown} bytes more");
}

/// Pages that the cache has let go of, being sent to readers who open no window: what they hold has a
/// bound, and who reads is served.
#[tokio::test]
async fn pages_that_nobody_takes_have_a_bound_when_the_cache_has_let_go_of_them() {
    const PAGE: usize = 1 << 20;
    const PAGES: u32 = 40;
    const LIMIT: usize = 8 << 20;
    let mut site = Site::new()
        .pages(&["[id]"])
        .config("[server]\nin-flight = \"8MiB\"\n[store]\nmemory = \"4MiB\"");
    for id in 0..PAGES {
        let large = json!({"props": {"render": {"huge": PAGE}}});
        site = site.script(&format!("/{id}"), large);
    }
    let site = site.start().await;
    let paths: Vec<String> = (0..PAGES).map(|id| format!("/{id}")).collect();
    for path in &paths {
        assert!(site.get(path).await.body.len() >= PAGE);
    }
    let before = site.resident();
    let mut readers = Vec::new();
    for _ in 0..4 {
        let mut reader = Attacker::taking_nothing(site.site(), &paths).await;
        // Whatever order they come in, the last response has begun.
        let mut begun = 0;
        while begun < PAGES {
            begun += u32::from(reader.next().await.expect("closed").kind == HEADERS);
        }
        readers.push(reader);
    }
    let held = site.metric("wisr_in_flight_bytes").await;
    assert!((PAGE as f64..=LIMIT as f64).contains(&held), "{held} bytes");
    let displaced = site.metric("wisr_readers_displaced_total").await;
    assert!(displaced >= f64::from(PAGES), "{displaced} broken off");
    let grown = site.resident().saturating_sub(before);
    assert!(grown < 3 * LIMIT as u64, "{grown} bytes more");
    assert_eq!(site.get("/0").await.status, 200);
    drop(readers);
    site.until_metric("wisr_in_flight_bytes", 0.0).await;
}

/// The long form of what `host/http/listen_tests.rs` shows with less patience: who opens no window
/// loses the stream after 30 s, whatever else it asks meanwhile. `WISR_READERS=long` asks for it.
#[tokio::test]
async fn who_opens_no_window_is_cut_off_after_half_a_minute() {
    if std::env::var("WISR_READERS").as_deref() != Ok("long") {
        return;
    }
    let site = site().await;
    for window in [0, 1] {
        let mut reader = Attacker::with_window(site.site(), window).await;
        let began = Instant::now();
        let requests: Vec<u8> = streams(100).flat_map(get).collect();
        reader.send(&requests).await;
        let mut reset = 0;
        let mut other = 201;
        while reset < 100 {
            // Something small every few seconds, as who wants to stay does, with its own window.
            let opened = frame(WINDOW_UPDATE, 0, other, &65_000_u32.to_be_bytes());
            reader.send(&[get(other), opened].concat()).await;
            let answered = reader.until_ended(other).await;
            reset += answered;
            other += 2;
            tokio::time::sleep(Duration::from_secs(2)).await;
            assert!(began.elapsed() < Duration::from_secs(90), "{reset} reset");
        }
        assert!(began.elapsed() >= Duration::from_secs(28));
    }
    assert_eq!(site.metric("wisr_readers_too_slow_total").await, 200.0);
    site.until_metric("wisr_in_flight_bytes", 0.0).await;
}

/// Section 10.5.1: a head has 32 KiB and 100 lines, whichever request of a connection it is of. Cookies
/// may come in pieces (section 8.2.3), which are one line.
#[tokio::test]
async fn a_head_has_its_bounds_at_every_request() {
    let site = site().await;
    let lines = |name, count| header(name, "y").repeat(count);
    // Of 127 bytes each, as they are counted.
    let bytes = |count| header("x", &"y".repeat(94)).repeat(count);
    for (more, status) in [
        (lines("x", 100), 200),
        (lines("x", 101), 431),
        ([lines("x", 98), lines("cookie", 50)].concat(), 200),
        ([lines("x", 100), lines("cookie", 2)].concat(), 431),
        (bytes(90), 200),
        (bytes(300), 431),
    ] {
        let block = [GET, &more].concat();
        let (first, rest) = block.split_at(block.len().min(16_000));
        let mut request = frame(HEADERS, END_STREAM, 3, first);
        for chunk in rest.chunks(16_000) {
            request.extend(frame(CONTINUATION, 0, 3, chunk));
        }
        request.extend(frame(CONTINUATION, END_HEADERS, 3, b""));
        let mut attacker = Attacker::new(site.site()).await;
        attacker.send(&get(1)).await;
        attacker.until(HEADERS, 1).await;
        attacker.send(&request).await;
        let told = attacker.until(HEADERS, 3).await;
        // The static table has 200; another status is a text.
        let right = match status {
            200 => told.payload.contains(&0x88),
            _ => is_431(&told),
        };
        assert!(right, "{} lines are to be {status}: {told:?}", more.len());
    }
}

/// The digits of 431 in the code of RFC 7541 appendix B: 6, 6 and 5 bits, and ones.
fn is_431(told: &Told) -> bool {
    let code = [0b0110_1001, 0b1001_0000, 0b1111_1111];
    told.payload.windows(3).any(|window| window == code)
}

/// Section 8.3.1: a host beside `:authority` says the same.
#[tokio::test]
async fn a_request_is_for_one_host() {
    let site = site().await;
    for (host, status) in [("a", 0x88), ("b", 0x8c)] {
        let mut attacker = Attacker::new(site.site()).await;
        let block = [GET, &header("host", host)].concat();
        attacker
            .send(&frame(HEADERS, END_STREAM | END_HEADERS, 1, &block))
            .await;
        let told = loop {
            let told = attacker.next().await.expect("closed");
            if told.kind == HEADERS {
                break told;
            }
        };
        // The static table has the status: 200 is its number 8, 400 its number 12.
        assert!(told.payload.contains(&status), "{host}: {told:?}");
    }
}
