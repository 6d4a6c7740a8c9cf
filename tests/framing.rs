//! RFC 9112, row by row: what is no request is refused, and nothing that follows it on its
//! connection is taken for one. On both doors.

use std::net::SocketAddr;

use futures_util::future::join_all;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::client::raw;
use crate::modules;
use crate::site::{Running, Site, TOKEN};

/// What may stand behind a row's bytes: a request that somebody wants smuggled past a proxy.
const NEXT: &str = "GET /next HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";

/// A row: its section, the bytes up to the smuggled request, the status of the answer, and whether
/// the connection is kept, so that the next request is answered too.
type Row = (&'static str, String, u16, bool);

const CLOSED: bool = false;
const KEPT: bool = true;

/// A request for `/` with these further lines, each with its end.
fn get(lines: &str) -> String {
    format!("GET / HTTP/1.1\r\nhost: localhost\r\n{lines}\r\n")
}

/// A request with a body. Nobody reads it: pages are not posted to.
fn post(lines: &str, body: &str) -> String {
    format!("POST / HTTP/1.1\r\nhost: localhost\r\n{lines}\r\n{body}")
}

/// A request line, and a head that is in order.
fn line(line: &str) -> String {
    format!("{line}\r\nhost: localhost\r\n\r\n")
}

/// A row of a later request on its connection: what holds for the first holds for it.
fn later(rows: Vec<Row>) -> Vec<Row> {
    let after = |bytes: String| get("") + &bytes;
    // Empty lines that are read with the end of the request before are nobody's.
    rows.into_iter()
        .filter(|row| !row.1.starts_with("\r\n\r\n\r\n"))
        .map(|(section, bytes, status, kept)| (section, after(bytes), status, kept))
        .collect()
}

/// The statuses of the answers in what came.
fn statuses(answer: &str) -> Vec<u16> {
    let heads = answer.match_indices("HTTP/1.");
    heads
        .filter_map(|(at, _)| answer.get(at + 9..at + 12)?.parse().ok())
        .collect()
}

/// Holds a door to each row, behind so many requests. All at once: a row that is not answered takes
/// long. Who is not kept hears so (section 9.6), but for HTTP/1.0, which knows nothing else.
async fn hold(door: SocketAddr, behind: usize, rows: Vec<Row>) {
    let told = rows
        .into_iter()
        .map(async |(section, bytes, status, kept)| {
            let answer = raw(door, (bytes.clone() + NEXT).as_bytes()).await;
            let statuses = statuses(&answer);
            let last = answer.rfind("HTTP/1.").map_or("", |at| &answer[at..]);
            let is_told = last.starts_with("HTTP/1.0")
                || last
                    .to_ascii_lowercase()
                    .contains("\r\nconnection: close\r\n");
            let right = match (kept, statuses.get(behind..)) {
                (KEPT, Some([first, _])) => *first == status,
                (CLOSED, Some([first])) => *first == status && is_told,
                _ => false,
            };
            let shown: String = bytes.chars().take(200).collect();
            let how = if is_told { "told" } else { "not told" };
            (!right)
                .then(|| format!("{section}: {shown:?} is to be {status}, is {statuses:?}, {how}"))
        });
    let wrong: Vec<String> = join_all(told).await.into_iter().flatten().collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

async fn site() -> Running {
    let site = Site::new().pages(&["index", "[id]"]);
    site.module("api/hook", modules::hook()).start().await
}

/// Where a body ends.
fn lengths() -> Vec<Row> {
    let coded = |coding: &str| post(&format!("transfer-encoding: {coding}\r\n"), "0\r\n\r\n");
    let long = |length: &str| post(&format!("content-length: {length}\r\n"), "abc");
    let both = "content-length: 5\r\ntransfer-encoding: chunked\r\n";
    let either = "transfer-encoding: chunked\r\ncontent-length: 5\r\n";
    vec![
        ("6.2", long("3"), 405, KEPT),
        ("6.3.3", post(both, "0\r\n\r\n"), 405, CLOSED),
        ("6.3.3", post(either, "0\r\n\r\n"), 405, CLOSED),
        ("6.3.5", long("3\r\ncontent-length: 4"), 400, CLOSED),
        ("6.3.5", long("3\r\ncontent-length: 3"), 405, KEPT),
        ("6.3.5", long("3, 4"), 400, CLOSED),
        // One valid value said twice in a line may be taken for one; it need not be.
        ("6.3.5", long("3, 3"), 400, CLOSED),
        ("6.3.5", long(""), 400, CLOSED),
        ("6.3.5", long("-3"), 400, CLOSED),
        ("6.3.5", long("+3"), 400, CLOSED),
        ("6.3.5", long("0x3"), 400, CLOSED),
        ("6.3.5", long("3 3"), 400, CLOSED),
        ("6.3.5", long("18446744073709551619"), 400, CLOSED),
        // A number, and longer than any message: hyper has one status for all that is too large.
        ("6.3.5", long("18446744073709551615"), 431, CLOSED),
        ("6.1", coded("chunked"), 405, KEPT),
        ("6.1", coded("ChunKed"), 405, KEPT),
        ("6.1", coded("xchunked"), 400, CLOSED),
        ("6.1", coded("\"chunked\""), 400, CLOSED),
        ("6.1", coded("\x0bchunked"), 400, CLOSED),
        ("6.1", coded(""), 400, CLOSED),
        ("6.1", coded("identity"), 400, CLOSED),
        ("6.1", coded("chunked, identity"), 400, CLOSED),
        ("6.1", coded("identity, chunked"), 501, CLOSED),
        ("6.1", coded("gzip, chunked"), 501, CLOSED),
        ("6.1", coded("chunked, chunked"), 400, CLOSED),
        (
            "6.1",
            coded("chunked\r\ntransfer-encoding: chunked"),
            400,
            CLOSED,
        ),
        ("6.1", coded("chunked").replace("1.1", "1.0"), 400, CLOSED),
        // A body that is there already is read past; else nobody waits for it.
        ("9.3", get("content-length: 3\r\n") + "abc", 200, KEPT),
        (
            "9.3",
            get("content-length: 300000\r\n") + &"a".repeat(300_000),
            200,
            CLOSED,
        ),
        (
            "9.3",
            get("transfer-encoding: chunked\r\n")
                + "493e0\r\n"
                + &"a".repeat(300_000)
                + "\r\n0\r\n\r\n",
            200,
            CLOSED,
        ),
    ]
}

/// Where a head ends, and what it is made of.
fn heads() -> Vec<Row> {
    let hostless = |lines: &str| format!("GET / HTTP/1.1\r\n{lines}\r\n");
    let many = |count: usize| get(&"x: y\r\n".repeat(count));
    vec![
        ("2.2", format!("\r\n\r\n{}", get("")), 200, KEPT),
        ("2.2", "\r\n".repeat(20_000) + &get(""), 431, CLOSED),
        // A bare LF may be taken for the end of a line: all lines of the head are read alike, and
        // nothing behind this server reads them again.
        ("2.2", get("").replace("\r\n", "\n"), 200, KEPT),
        ("2.2", get("x: y\n"), 200, KEPT),
        ("2.2", get("x: a\rb\r\n"), 400, CLOSED),
        ("2.2", get("").replace("\r\n", "\r"), 400, CLOSED),
        ("2.2", get("").replace("host", " host"), 400, CLOSED),
        ("5", get("x: a\0b\r\n"), 400, CLOSED),
        ("5", get(": y\r\n"), 400, CLOSED),
        ("5", get("xy\r\n"), 400, CLOSED),
        ("5.1", get("x : y\r\n"), 400, CLOSED),
        ("5.1", get("x\t: y\r\n"), 400, CLOSED),
        ("5.2", get("x: a\r\n b\r\n"), 400, CLOSED),
        ("5.2", get("x: a\r\n\tb\r\n"), 400, CLOSED),
        ("5.4 of RFC 9110", many(99), 200, KEPT),
        ("5.4 of RFC 9110", many(100), 431, CLOSED),
        (
            "5.4 of RFC 9110",
            get(&format!("x: {}\r\n", "y".repeat(40_000))),
            431,
            CLOSED,
        ),
        ("3.2", hostless(""), 400, CLOSED),
        (
            "3.2",
            hostless("host: localhost\r\nhost: localhost\r\n"),
            400,
            CLOSED,
        ),
        ("3.2", hostless("host:\r\n"), 400, CLOSED),
        ("3.2", hostless("host: local host\r\n"), 400, CLOSED),
        ("3.2", hostless("host: localhost/\r\n"), 400, CLOSED),
        ("3.2", hostless("host: u@localhost\r\n"), 400, CLOSED),
        (
            "3.2",
            hostless("host: localhost, localhost\r\n"),
            400,
            CLOSED,
        ),
        ("3.2", hostless("host: localhost:http\r\n"), 400, CLOSED),
        (
            "10.1.1 of RFC 9110",
            get("expect: 100-continue\r\n"),
            200,
            KEPT,
        ),
        ("10.1.1 of RFC 9110", get("expect: 200-ok\r\n"), 417, CLOSED),
        (
            "7.8 of RFC 9110",
            get("connection: upgrade\r\nupgrade: websocket\r\n"),
            200,
            KEPT,
        ),
        ("9.6", get("connection: close\r\n"), 200, CLOSED),
    ]
}

/// What the first line says.
fn lines() -> Vec<Row> {
    let target = |target: &str| line(&format!("GET {target} HTTP/1.1"));
    vec![
        ("2.3", "GET /\r\n".to_owned(), 400, CLOSED),
        ("2.3", "GET /\r\n\r\n".to_owned(), 400, CLOSED),
        ("2.3", line("GET / HTTP/1.0"), 200, CLOSED),
        // 1.2 is to be read as 1.1, and 2.0 could be told 505: hyper knows two versions and refuses
        // the others. No client sends them.
        ("2.3", line("GET / HTTP/1.2"), 400, CLOSED),
        ("2.3", line("GET / HTTP/2.0"), 400, CLOSED),
        ("2.3", line("GET / HTTP/1.10"), 400, CLOSED),
        ("2.3", line("GET / http/1.1"), 400, CLOSED),
        ("3", line("GET  / HTTP/1.1"), 400, CLOSED),
        ("3", line("GET\t/ HTTP/1.1"), 400, CLOSED),
        ("3", line("GET /a b HTTP/1.1"), 400, CLOSED),
        ("3.1", line("get / HTTP/1.1"), 405, KEPT),
        ("3.1", line("G@T / HTTP/1.1"), 400, CLOSED),
        ("3.2.1", target("next"), 400, CLOSED),
        ("3.2.1", target("?next"), 400, CLOSED),
        ("3.2.1", target("/\0"), 400, CLOSED),
        // No target has a fragment. What stands before it is what is meant.
        ("3.2.1", target("/#next"), 200, KEPT),
        ("3.2.2", target("http://localhost/"), 200, KEPT),
        (
            "3.2.2",
            "GET http://localhost/ HTTP/1.1\r\n\r\n".to_owned(),
            400,
            CLOSED,
        ),
        ("3.2.2", target("ftp://localhost/"), 400, CLOSED),
        (
            "4.2.4 of RFC 9110",
            target("http://u:p@localhost/"),
            400,
            CLOSED,
        ),
        ("3.2.3", target("localhost:80"), 400, CLOSED),
        ("3.2.3", line("CONNECT localhost:80 HTTP/1.1"), 405, CLOSED),
        ("3.2.3", line("CONNECT / HTTP/1.1"), 405, CLOSED),
        ("3.2.4", line("OPTIONS * HTTP/1.1"), 405, KEPT),
        ("3.2.4", target("*"), 400, CLOSED),
        // Beyond what a head may have it is the head that is too large.
        (
            "3",
            target(&format!("/{}", "a".repeat(40_000))),
            431,
            CLOSED,
        ),
        (
            "–",
            "PRI * HTTP/2.0\r\n\r\nSMUGGLED\r\n\r\n".to_owned(),
            400,
            CLOSED,
        ),
        (
            "–",
            "\x16\x03\x01\0\u{a5}\x01\0\0\u{a1}\x03\x03".to_owned(),
            400,
            CLOSED,
        ),
        ("–", "EHLO localhost\r\n".to_owned(), 400, CLOSED),
    ]
}

/// What the HTTP Garden found in other servers, as far as no other row has it.
fn found_elsewhere() -> Vec<Row> {
    let refused = |bytes: String| ("Garden", bytes, 400, CLOSED);
    let coded = |coding: &str| post(&format!("transfer-encoding: {coding}\r\n"), "0\r\n\r\n");
    let name = |name: &str| refused(get(&format!("{name}: y\r\n")));
    let rows = [
        refused(post("content-length: 1_0\r\n", "0123456789")),
        refused(post("content-length: 3Z\r\n", "abc")),
        refused(post("content-length: -48\r\n", "")),
        refused(post("content-length: 0x10\r\n", "abc")),
        refused(post("content-length: \r\ncontent-length: 3\r\n", "abc")),
        refused(post("content-length: 0\r\ncontent-length: 3\r\n", "abc")),
        refused(post("content-length 3\r\n", "abc")),
        refused(post("content-length\u{85}: 3\r\n", "abc")),
        refused(post("transfer-\r\nencoding: chunked\r\n", "0\r\n\r\n")),
        refused(coded("blegh")),
        refused(coded("\u{a0}chunked\u{a0}")),
        refused(coded("\u{85}chunked")),
        // Zeroes in front are a number's.
        (
            "Garden",
            post("content-length: 010\r\n", "0123456789"),
            405,
            KEPT,
        ),
        ("Garden", coded(",chunked"), 501, CLOSED),
        (
            "Garden",
            post("content-length: 0\r\nconnection: keep-alive\r\n", ""),
            405,
            KEPT,
        ),
        // What somebody else takes for the value of a line is the end of the head here.
        (
            "Garden",
            get("").replace("\r\n\r\n", "\r\nx:\n\n"),
            200,
            KEPT,
        ),
        refused(get("te\nst: y\r\n")),
        refused(get("x: y\0\r\n")),
        refused(get(":\r\n")),
        refused(get("").replace("\r\n\r\n", "\r\n\rZ")),
        refused(get("").replace("host: localhost", "host: localhost\0.example")),
        refused(line("GET /\nHTTP/1.1")),
        refused(line("GET / HTTP/4294967295.255")),
        refused(line("GET / HTTP/\r\r1.1")),
        refused(line("GET / HTTP/1.32")),
        refused(line("GET / HTTP/............0596.7407.")),
        refused(line("G=\":<>(e),[T];?\" / HTTP/1.1")),
        refused(line("\0 / HTTP/1.1")),
        refused(line("GET ! HTTP/1.1")),
    ];
    let no_names = "\x01\x08\x0b\x0c\x1f\x7f\"(),/;<=>?@[]{}\u{85}\u{ef}";
    let names = no_names.chars().map(|mark| name(&format!("x{mark}")));
    rows.into_iter().chain(no_chunks()).chain(names).collect()
}

/// Bodies that nobody reads: what is no chunk ends the connection, whatever the answer.
fn no_chunks() -> impl IntoIterator<Item = Row> {
    let chunks = [
        "0_2e\r\n\r\n",
        "1these-bytes\r\nZ\r\n0\r\n\r\n",
        "INVALID!!!\r\n",
        "Z\r\nZZ\r\nZZZ\r\n\r\n",
        "\r\n\r\n",
        "-0x0\r\n\r\n",
        "5\r\r;ABCD\r\n34\r\nE\r\n0\r\n\r\n",
        "2;a=b\r\rXX\r\n0\r\n\r\n",
        "1\r0\n",
        "1\r\nZ\n0\r\n\r\n",
        "1\r\nZ\r\n\r\n0\r\n\r\n",
    ];
    let lines = "transfer-encoding: chunked\r\n";
    chunks.map(|chunks| ("Garden", post(lines, chunks), 405, CLOSED))
}

/// A head has 32 KiB and 100 lines, however it is filled.
fn large_heads() -> Vec<Row> {
    let long = |bytes: usize| get(&format!("x: {}\r\n", "y".repeat(bytes)));
    let spaced = |bytes: usize| get(&format!("x:{}y\r\n", " ".repeat(bytes)));
    let cookies = |count: usize| get(&"cookie: a=b\r\n".repeat(count));
    vec![
        ("5.4 of RFC 9110", long(32_000), 200, KEPT),
        ("5.4 of RFC 9110", long(33_000), 431, CLOSED),
        ("5.4 of RFC 9110", long(50_000), 431, CLOSED),
        ("5.4 of RFC 9110", long(100_000), 431, CLOSED),
        ("5.4 of RFC 9110", spaced(50_000), 431, CLOSED),
        (
            "5.4 of RFC 9110",
            get(&"x: y\r\n".repeat(8_000)),
            431,
            CLOSED,
        ),
        ("5.4 of RFC 9110", cookies(99), 200, KEPT),
        ("5.4 of RFC 9110", cookies(100), 431, CLOSED),
    ]
}

#[tokio::test]
async fn what_is_no_request_is_refused_with_its_connection_on_both_doors() {
    let site = site().await;
    for rows in [lengths, heads, lines, found_elsewhere, large_heads] {
        for door in [site.site(), site.admin_door()] {
            hold(door, 0, rows()).await;
            hold(door, 1, later(rows())).await;
        }
    }
}

#[tokio::test]
async fn a_body_is_read_by_the_letter() {
    let site = site().await;
    let call = json!({"paths": ["/"]}).to_string();
    assert_eq!(call.len(), 15, "the rows say so");
    let chunked = |body: &str| {
        format!(
            "POST /api/revalidate HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {TOKEN}\r\n\
             transfer-encoding: chunked\r\n\r\n{}",
            body.replace('_', &call)
        )
    };
    let rows = [
        ("7.1", "f\r\n_\r\n0\r\n\r\n", 200, KEPT),
        ("7.1", "F\r\n_\r\n00\r\n\r\n", 200, KEPT),
        ("7.1", "10000000000000000f\r\n_\r\n0\r\n\r\n", 400, CLOSED),
        ("7.1", "-f\r\n_\r\n0\r\n\r\n", 400, CLOSED),
        ("7.1", "+f\r\n_\r\n0\r\n\r\n", 400, CLOSED),
        ("7.1", "0xf\r\n_\r\n0\r\n\r\n", 400, CLOSED),
        ("7.1", " f\r\n_\r\n0\r\n\r\n", 400, CLOSED),
        ("7.1", "\r\n_\r\n0\r\n\r\n", 400, CLOSED),
        ("7.1", "f\n_\r\n0\r\n\r\n", 400, CLOSED),
        ("7.1", "f\r\n_\n0\r\n\r\n", 400, CLOSED),
        ("7.1", "f\r\n_no0\r\n\r\n", 400, CLOSED),
        ("7.1.1", "f;a=b\r\n_\r\n0\r\n\r\n", 200, KEPT),
        ("7.1.1", "f;a\nb\r\n_\r\n0\r\n\r\n", 400, CLOSED),
        ("7.1.2", "f\r\n_\r\n0\r\nx: y\r\n\r\n", 200, KEPT),
        (
            "7.1.2",
            "f\r\n_\r\n0\r\ncontent-length: 99\r\n\r\n",
            200,
            KEPT,
        ),
        ("7.1.2", "f\r\n_\r\n0\r\nx y\r\n\r\n", 400, CLOSED),
    ];
    let rows = rows.map(|(section, body, status, kept)| (section, chunked(body), status, kept));
    let floods = [
        format!("f;{}\r\n_\r\n0\r\n\r\n", "a".repeat(30_000)),
        format!(
            "{}f\r\n_\r\n0\r\n\r\n",
            "1;aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n \r\n".repeat(800)
        ),
        format!("f\r\n_\r\n0\r\n{}\r\n", "x: y\r\n".repeat(2_000)),
        format!("f\r\n_\r\n0\r\nx: {}\r\n\r\n", "y".repeat(70_000)),
    ];
    let floods = floods.map(|body| ("7.1", chunked(&body), 400, CLOSED));
    let large = (
        "9.3 of RFC 9110",
        chunked(&format!("20000\r\n{}", " ".repeat(0x20000))),
        413,
        CLOSED,
    );
    let rows = rows.into_iter().chain(floods).chain([large]);
    hold(site.site(), 0, rows.collect()).await;
}

/// What a client says last, to which door, and the answers to it.
fn last_words(site: &Running) -> Vec<(SocketAddr, String, Vec<u16>)> {
    let request = |line: &str, rest: &str| format!("{line} HTTP/1.1\r\nhost: localhost\r\n{rest}");
    let read = |path: &str| request(&format!("GET {path}"), "\r\n");
    let call = json!({"paths": ["/later"]}).to_string();
    let length = call.len();
    let call = request(
        "POST /api/revalidate",
        &format!("authorization: Bearer {TOKEN}\r\ncontent-length: {length}\r\n\r\n{call}"),
    );
    vec![
        (site.site(), read("/"), vec![200]),
        (site.site(), read("/slow"), vec![200]),
        (site.site(), read("/nothing/here"), vec![404]),
        (site.site(), request("HEAD /", "\r\n"), vec![200]),
        // The short way has the second, and it is not there yet when the third is asked for.
        (site.site(), read("/").repeat(2), vec![200; 2]),
        (
            site.site(),
            read("/") + &read("/slow") + &read("/"),
            vec![200; 3],
        ),
        (site.site(), read("/api/hook"), vec![200]),
        (
            site.site(),
            request("POST /api/hook", "content-length: 3\r\n\r\nabc"),
            vec![200],
        ),
        (
            site.site(),
            request(
                "POST /api/hook",
                "transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            ),
            vec![200],
        ),
        (site.site(), call, vec![200]),
        (site.admin_door(), read("/api/routes"), vec![200]),
        // In the midst of a request it is an end like any other.
        (
            site.site(),
            request("POST /api/hook", "content-length: 30\r\n\r\nabc"),
            vec![400],
        ),
        (
            site.site(),
            request(
                "POST /api/hook",
                "transfer-encoding: chunked\r\n\r\n3\r\nab",
            ),
            vec![400],
        ),
        (
            site.site(),
            "GET / HTTP/1.1\r\nhost: loc".to_owned(),
            vec![],
        ),
    ]
}

/// RFC 9112 section 9.6: who has asked for all that it wants may say so, and gets it, at once or when
/// it has been made.
#[tokio::test]
async fn who_says_no_more_is_answered_all_the_same() {
    let site = site().await;
    site.origin.hold("/slow");
    site.origin.hold("/later");
    let asking: Vec<_> = last_words(&site)
        .into_iter()
        .map(async |(door, bytes, expected)| {
            let mut stream = TcpStream::connect(door).await.unwrap();
            stream.write_all(bytes.as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await.unwrap();
            let answer = String::from_utf8_lossy(&answer).into_owned();
            (statuses(&answer) != expected).then(|| format!("{bytes:?}: {answer:?}"))
        })
        .collect();
    let released = async {
        site.until_calls("/slow", 1).await;
        site.until_calls("/later", 1).await;
        site.origin.release("/slow");
        site.origin.release("/later");
    };
    let (answered, ()) = tokio::join!(join_all(asking), released);
    let wrong: Vec<String> = answered.into_iter().flatten().collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// RFC 9112 section 9.3.2: every request of a pipeline is answered, in order.
#[tokio::test]
async fn a_pipeline_is_answered_in_order() {
    let site = site().await;
    let asked: Vec<String> = (0..40).map(|number| format!("/page-{number}")).collect();
    let requests = asked
        .iter()
        .map(|path| format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n"));
    let answer = site
        .raw((requests.collect::<String>() + NEXT).as_bytes())
        .await;
    assert_eq!(statuses(&answer), [200; 41]);
    let told = answer.match_indices("/page-").map(|(at, _)| {
        let rest = &answer[at..];
        rest.split_once('"')
            .map_or(rest, |(path, _)| path)
            .to_owned()
    });
    let mut told: Vec<String> = told.collect();
    told.dedup();
    assert_eq!(told, asked);
}

/// RFC 9110 section 10.1.1: who is waited for is told to go on; who is refused anyway is not.
#[tokio::test]
async fn a_body_is_asked_for_only_when_it_will_be_read() {
    let site = site().await;
    let call = |token: &str| {
        format!(
            "POST /api/revalidate HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\n\
             expect: 100-continue\r\ncontent-length: 15\r\nconnection: close\r\n\r\n{}",
            json!({"paths": ["/"]})
        )
    };
    let welcome = site.raw(call(TOKEN).as_bytes()).await;
    assert_eq!(statuses(&welcome), [100, 200], "{welcome}");
    let refused = site.raw(call("wrong").as_bytes()).await;
    assert_eq!(statuses(&refused), [401], "{refused}");
}

/// RFC 9112 section 3.2.2: the target's own host is the one that counts, also for a module.
#[tokio::test]
async fn the_host_of_an_absolute_target_wins() {
    let site = site().await;
    let ask = |target: &str, host: &str| {
        format!("GET {target} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n")
    };
    let answer = site
        .raw(ask("http://right.example/api/hook", "wrong.example").as_bytes())
        .await;
    assert!(answer.contains("authority: right.example"), "{answer}");
    assert!(!answer.contains("wrong.example"), "{answer}");
    let rebound = ask("http://evil.example/api/routes", "localhost");
    let answer = raw(site.admin_door(), rebound.as_bytes()).await;
    assert_eq!(statuses(&answer), [421], "{answer}");
}

/// RFC 9112 section 9.6: who is refused while sending hears it, and may finish: a reset could take
/// the answer away from a client that has not read it yet.
#[tokio::test]
async fn who_still_sends_hears_why_nobody_listens() {
    let site = site().await;
    let mut stream = TcpStream::connect(site.site()).await.unwrap();
    let head = format!(
        "POST /api/revalidate HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {TOKEN}\r\n\
         content-length: 200000\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut start = [0; 12];
    stream.read_exact(&mut start).await.unwrap();
    assert_eq!(&start, b"HTTP/1.1 413");
    for _ in 0..20 {
        stream.write_all(&[b'x'; 10_000]).await.unwrap();
    }
    stream.shutdown().await.unwrap();
    let mut rest = String::new();
    stream.read_to_string(&mut rest).await.unwrap();
    assert!(rest.contains("larger than 64 KiB"), "{rest}");
    assert!(rest.contains("connection: close"), "{rest}");
}
