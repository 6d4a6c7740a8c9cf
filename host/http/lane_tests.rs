//! Connections on which hits take the short way, talked to through raw sockets.

use std::net::SocketAddr;
use std::time::Duration;

use http::{Request, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use super::super::connection::{Answer, Manner, Short, serve};
use super::super::head::Plain;
use super::super::respond::tests::entry as some_entry;
use super::super::timed::Patience;
use super::*;
use crate::http::Upload;
use crate::page::Revalidate;

/// Bytes of `/large`: more than the kernels take on their own.
const LARGE: usize = 8 << 20;

/// Answers with the way that a request took; `/slow` waits for a turn of its own, `/cold` is no hit,
/// `/fetched` is one that comes when it was given leave, `/gone` does not come, `/stale` is none when it
/// comes, and `/panics` and `/panics-later` have a bug on the short way.
#[derive(Default)]
struct Ways {
    asked: Arc<Notify>,
    leave: Arc<Notify>,
}

impl Service for Ways {
    fn answer(self: &Arc<Self>, request: Request<Upload>, _peer: SocketAddr) -> Answer {
        match request.uri().path() {
            "/slow" => Answer::Later(Box::pin(async {
                tokio::task::yield_now().await;
                response("long")
            })),
            _ => Answer::Now(response("long")),
        }
    }

    fn express(&self, plain: &Plain<'_>, fetched: Option<&Arc<Entry>>) -> Short {
        let response = match plain.path {
            "/hit" => response("short"),
            "/large" => response("x".repeat(LARGE)),
            "/panics" => panic!("wanted"),
            "/fetched" if fetched.is_some() => response("short"),
            "/fetched" => {
                self.asked.notify_one();
                let leave = self.leave.clone();
                return Short::Soon(Box::pin(async move {
                    leave.notified().await;
                    Some(entry())
                }));
            }
            "/gone" => return Short::Soon(Box::pin(async { None })),
            "/stale" if fetched.is_none() => {
                return Short::Soon(Box::pin(async { Some(entry()) }));
            }
            "/panics-later" => return Short::Soon(Box::pin(async { panic!("wanted") })),
            "/unchanged" => {
                let mut response = Response::new(Body::Empty);
                *response.status_mut() = StatusCode::NOT_MODIFIED;
                response
            }
            _ => return Short::None,
        };
        let now = Timestamp::from_millis(784_111_777_900);
        Short::Now(Express::of(response, now))
    }
}

fn entry() -> Arc<Entry> {
    some_entry(Revalidate::Never, Timestamp::from_millis(0))
}

fn response(text: impl Into<String>) -> Response<Body> {
    let text: String = text.into();
    let length = text.len();
    let mut response = Response::new(Body::from(text));
    response
        .headers_mut()
        .insert("content-length", length.into());
    response
}

struct Client {
    stream: TcpStream,
    asked: Arc<Notify>,
    leave: Arc<Notify>,
    stop: watch::Sender<bool>,
    connection: JoinHandle<()>,
}

/// A client whose first request is over.
async fn client() -> Client {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let socket = TcpSocket::new_v4().unwrap();
    // Without a large window there is little that the kernels take on their own.
    socket.set_recv_buffer_size(64 * 1024).unwrap();
    let stream = socket
        .connect(listener.local_addr().unwrap())
        .await
        .unwrap();
    let (accepted, peer) = listener.accept().await.unwrap();
    let (stop, stopping) = watch::channel(false);
    let ways = Ways::default();
    let (asked, leave) = (ways.asked.clone(), ways.leave.clone());
    let connection = serve(accepted, peer, Arc::new(ways), stopping, Manner::some());
    let connection = tokio::spawn(connection);
    let mut client = Client {
        stream,
        asked,
        leave,
        stop,
        connection,
    };
    assert_eq!(client.ask("GET /hit").await, "long");
    client
}

impl Client {
    async fn send(&mut self, bytes: &str) {
        self.stream.write_all(bytes.as_bytes()).await.unwrap();
    }

    /// The head of a response, and its body.
    async fn read(&mut self) -> (String, String) {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(self.stream.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap();
        let length = head.lines().find_map(|line| {
            let length = line.strip_prefix("content-length: ")?;
            length.parse::<usize>().ok()
        });
        let mut body = vec![0; length.unwrap_or(0)];
        self.stream.read_exact(&mut body).await.unwrap();
        (head, String::from_utf8(body).unwrap())
    }

    async fn ask(&mut self, line: &str) -> String {
        self.send(&format!("{line} HTTP/1.1\r\nhost: x\r\n\r\n"))
            .await;
        self.read().await.1
    }
}

#[tokio::test]
async fn hits_take_the_short_way_and_come_back_to_it() {
    let mut client = client().await;
    for (line, way) in [
        ("GET /hit", "short"),
        ("GET /hit", "short"),
        ("GET /cold", "long"),
        ("GET /hit", "short"),
        ("GET /slow", "long"),
        ("GET /hit", "short"),
        ("DELETE /hit", "long"),
        ("GET /hit", "short"),
        ("GET /panics", "long"),
        ("GET /hit", "short"),
        ("GET /panics-later", "long"),
        ("GET /hit", "short"),
        ("GET /gone", "long"),
        ("GET /hit", "short"),
        ("GET /stale", "long"),
        ("GET /hit", "short"),
    ] {
        assert_eq!(client.ask(line).await, way, "{line}");
    }
}

#[tokio::test]
async fn an_answer_is_written_as_the_standard_has_it() {
    let mut client = client().await;
    client.send("GET /hit HTTP/1.1\r\nhost: x\r\n\r\n").await;
    let date = "date: Sun, 06 Nov 1994 08:49:37 GMT";
    let expected = format!("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n{date}\r\n\r\n");
    assert_eq!(client.read().await, (expected, "short".to_owned()));
    client
        .send("GET /unchanged HTTP/1.1\r\nhost: x\r\n\r\n")
        .await;
    let expected = format!("HTTP/1.1 304 Not Modified\r\n{date}\r\n\r\n");
    assert_eq!(client.read().await, (expected, String::new()));
}

#[tokio::test]
async fn doubt_about_where_a_request_ends_closes_the_lane() {
    for doubtful in [
        "GET /hit HTTP/1.1\r\nhost: x\r\n\r\nGET /hit HTTP/1.1\r\nhost: x\r\n\r\n",
        "POST /hit HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\nbodyGET /hit HTTP/1.1\r\nhost: x\r\n\r\n",
    ] {
        let mut client = client().await;
        client.send(doubtful).await;
        assert_eq!(client.read().await.1, "long", "{doubtful}");
        assert_eq!(client.read().await.1, "long", "{doubtful}");
        assert_eq!(client.ask("GET /hit").await, "long", "{doubtful}");
    }
}

#[tokio::test]
async fn a_request_in_pieces_is_answered() {
    let mut client = client().await;
    client.send("GET /hit HTTP/1.1\r\nho").await;
    // The server reads the first piece, or both at once: it must not matter.
    tokio::task::yield_now().await;
    client.send("st: x\r\n\r\n").await;
    let (_, body) = client.read().await;
    assert!(["short", "long"].contains(&&*body), "{body}");
}

#[tokio::test]
async fn a_reader_who_lags_gets_all_of_it_in_order() {
    let mut client = client().await;
    let lines = "GET /large HTTP/1.1\r\nhost: x\r\n\r\n";
    client.send(lines).await;
    client.stream.peek(&mut [0]).await.unwrap();
    // Arrives while the first answer is stuck.
    client.send("GET /cold HTTP/1.1\r\nhost: x\r\n\r\n").await;
    let (_, body) = client.read().await;
    assert!(body.len() == LARGE && body.bytes().all(|byte| byte == b'x'));
    assert_eq!(client.read().await.1, "long");
    assert_eq!(client.ask("GET /hit").await, "short");
}

#[tokio::test]
async fn what_is_being_sent_is_finished_after_the_stop_signal() {
    let mut client = client().await;
    client.send("GET /large HTTP/1.1\r\nhost: x\r\n\r\n").await;
    client.stream.peek(&mut [0]).await.unwrap();
    client.stop.send(true).unwrap();
    let (_, body) = client.read().await;
    assert_eq!(body.len(), LARGE);
    assert_eq!(client.stream.read(&mut [0]).await.unwrap(), 0);
    client.connection.await.unwrap();
}

/// RFC 9112 section 9.6: closed on what the client has sent meanwhile, the connection would be reset,
/// and what of the answer had not arrived would be lost.
#[tokio::test]
async fn who_pipelines_has_the_end_of_the_last_answer() {
    let mut client = client().await;
    client.send("GET /large HTTP/1.1\r\nhost: x\r\n\r\n").await;
    client.stream.peek(&mut [0]).await.unwrap();
    let more = "GET /hit HTTP/1.1\r\nhost: x\r\n\r\n".repeat(500);
    client.send(&more).await;
    client.stop.send(true).unwrap();
    let (_, body) = client.read().await;
    assert_eq!(body.len(), LARGE);
    assert_eq!(client.stream.read(&mut [0]).await.unwrap(), 0);
    drop(client.stream);
    client.connection.await.unwrap();
}

#[tokio::test]
async fn a_page_is_waited_for_on_the_short_way() {
    let mut client = client().await;
    client.leave.notify_one();
    assert_eq!(client.ask("GET /fetched").await, "short");
    assert_eq!(client.ask("GET /hit").await, "short");
    assert_eq!(client.ask("GET /cold").await, "long");
}

#[tokio::test]
async fn a_page_that_is_waited_for_is_sent_after_the_stop_signal() {
    let mut client = client().await;
    client
        .send("GET /fetched HTTP/1.1\r\nhost: x\r\n\r\n")
        .await;
    client.asked.notified().await;
    client.stop.send(true).unwrap();
    // It hears of it before the page comes.
    for _ in 0..8 {
        tokio::task::yield_now().await;
    }
    client.leave.notify_one();
    assert_eq!(client.read().await.1, "short");
    assert_eq!(client.stream.read(&mut [0]).await.unwrap(), 0);
    client.connection.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn nobody_is_timed_while_a_page_is_waited_for() {
    let mut client = client().await;
    client
        .send("GET /fetched HTTP/1.1\r\nhost: x\r\n\r\n")
        .await;
    tokio::time::sleep(Patience::default().idle * 2).await;
    client.leave.notify_one();
    assert_eq!(client.read().await.1, "short");
}

#[tokio::test]
async fn who_says_no_more_still_gets_the_answer() {
    let mut client = client().await;
    client.send("GET /hit HTTP/1.1\r\nhost: x\r\n\r\n").await;
    client.stream.shutdown().await.unwrap();
    assert_eq!(client.read().await.1, "short");
    client.connection.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn who_takes_nothing_is_cut_off() {
    let mut client = client().await;
    client.send("GET /large HTTP/1.1\r\nhost: x\r\n\r\n").await;
    client.stream.peek(&mut [0]).await.unwrap();
    let stall = Patience::default().stall;
    let ended = tokio::time::timeout(stall + Duration::from_secs(5), client.connection).await;
    ended.unwrap().unwrap();
}
