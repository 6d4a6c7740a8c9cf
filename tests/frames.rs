//! RFC 9113 and RFC 7541, row by row, as h2spec lists them: what must be taken is answered, what breaks a
//! rule ends its stream or its connection, and says so.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::timeout;

use crate::http2::{
    ACK, Attacker, CONTINUATION, DATA, END_HEADERS, END_STREAM, GET, GOAWAY, HEADERS, PADDED, PING,
    PRIORITIZED, PRIORITY, PUSH_PROMISE, RST_STREAM, SETTINGS, WINDOW_UPDATE, frame, get, header,
    post, streams,
};
use crate::site::Site;

/// Error codes (section 7). `h2` has PROTOCOL_ERROR also for what has a code of its own: each row
/// says which it takes.
const PROTOCOL_ERROR: u32 = 1;
const FLOW_CONTROL_ERROR: u32 = 3;
const STREAM_CLOSED: u32 = 5;
const FRAME_SIZE_ERROR: u32 = 6;
const COMPRESSION_ERROR: u32 = 9;

/// How a row ends.
#[derive(Debug, Clone, Copy)]
enum End {
    /// This stream is answered.
    Answer(u32),
    /// The stream is reset, or the connection ends, with one of these codes.
    Stream(&'static [u32]),
    /// The connection ends with one of these codes.
    Connection(&'static [u32]),
    /// A ping is answered still, or the connection ends.
    Either,
}

use End::{Answer, Connection, Either, Stream};

/// A row: its section, what is sent, what follows when stream 1 has its answer, and how it ends.
type Row = (&'static str, Vec<u8>, Vec<u8>, End);

/// A head of `GET`, with more behind it.
fn with(stream: u32, flags: u8, before: &[u8], more: &[u8]) -> Vec<u8> {
    let flags = flags | END_STREAM | END_HEADERS;
    frame(HEADERS, flags, stream, &[before, GET, more].concat())
}

/// A head made of these fields.
fn head(fields: &[&[u8]]) -> Vec<u8> {
    frame(HEADERS, END_STREAM | END_HEADERS, 1, &fields.concat())
}

fn priority(stream: u32, on: u32, weight: u8) -> Vec<u8> {
    let payload = [&on.to_be_bytes()[..], &[weight]].concat();
    frame(PRIORITY, 0, stream, &payload)
}

fn open(stream: u32, bytes: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &bytes.to_be_bytes())
}

fn reset(stream: u32, code: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &code.to_be_bytes())
}

fn setting(name: u8, value: u32) -> Vec<u8> {
    let payload = [&[0, name][..], &value.to_be_bytes()].concat();
    frame(SETTINGS, 0, 0, &payload)
}

fn goaway(code: u32) -> Vec<u8> {
    let payload = [0_u32.to_be_bytes(), code.to_be_bytes()].concat();
    frame(GOAWAY, 0, 0, &payload)
}

fn data(flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    frame(DATA, flags, stream, payload)
}

fn continuation(flags: u8, stream: u32, block: &[u8]) -> Vec<u8> {
    frame(CONTINUATION, flags, stream, block)
}

/// Half a head.
fn begun(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_STREAM, stream, &GET[..3])
}

/// A row without a second part.
fn row(section: &'static str, parts: &[Vec<u8>], end: End) -> Row {
    (section, parts.concat(), Vec::new(), end)
}

/// What every endpoint takes.
#[rustfmt::skip]
fn taken() -> Vec<Row> {
    let answered = |section, parts: &[Vec<u8>]| row(section, parts, Answer(1));
    let third = |section, parts: &[Vec<u8>]| row(section, parts, Answer(3));
    let body = |section, parts: &[Vec<u8>]| {
        let all = [&[post(1)], parts].concat();
        row(section, &all, Answer(1))
    };
    vec![
        answered("5.1 priority of an idle stream", &[priority(1, 0, 1), get(1)]),
        answered("5.1 a window of a half-closed stream", &[get(1), open(1, 100)]),
        answered("5.1 priority of a half-closed stream", &[get(1), priority(1, 0, 255)]),
        third("5.1 reset of a half-closed stream", &[get(1), reset(1, 8), get(3)]),
        (
            "5.1 priority of a closed stream",
            get(1),
            [priority(1, 0, 1), get(3)].concat(),
            Answer(3),
        ),
        answered("6.10 a head in two", &[begun(1), continuation(END_HEADERS, 1, &GET[3..])]),
        answered(
            "6.10 a head in four",
            &[
                begun(1),
                continuation(0, 1, &GET[3..4]),
                continuation(0, 1, b""),
                continuation(END_HEADERS, 1, &GET[4..]),
            ],
        ),
        body("6.1 a body", &[data(END_STREAM, 1, b"{}")]),
        body("6.1 a body in parts", &[data(0, 1, b"{"), data(END_STREAM, 1, b"}")]),
        body("6.1 padding", &[data(END_STREAM | PADDED, 1, b"\x06{}\0\0\0\0\0\0")]),
        body("4.2 a frame of 16 KiB", &[data(END_STREAM, 1, &[b' '; 16_384])]),
        body("8.1 trailers", &[data(0, 1, b"{}"), frame(HEADERS, 5, 1, &header("x", "y"))]),
        answered("6.2 padding", &[with(1, PADDED, b"\x02", b"\0\0")]),
        answered("6.2 priority", &[with(1, PRIORITIZED, b"\0\0\0\0\xff", b"")]),
        answered("6.3 the least weight", &[priority(1, 0, 0), get(1)]),
        answered("6.3 the most", &[priority(1, 0, 255), get(1)]),
        third("6.3 on another stream", &[priority(3, 1, 15), get(3)]),
        third("6.3 on it alone", &[priority(3, 1 | 1 << 31, 15), get(3)]),
        third("6.3 an idle stream, then a lower one", &[priority(5, 0, 15), get(3)]),
        third("6.4 reset", &[post(1), reset(1, 8), get(3)]),
        third("7 an unknown code", &[post(1), reset(1, 0xff), get(3)]),
        answered("6.5 settings", &[setting(3, 100), get(1)]),
        answered("6.5.2 an unknown setting", &[setting(0xff, 1), get(1)]),
        answered("6.5.3 of two values the last", &[
            frame(SETTINGS, 0, 0, b"\0\x04\0\0\0\x01\0\x04\0\0\xff\xff"),
            get(1),
        ]),
        answered("6.7 a ping", &[frame(PING, 0, 0, b"h2spec!!"), get(1)]),
        answered("6.7 an answer to none", &[frame(PING, 1, 0, b"h2spec!!"), get(1)]),
        answered("6.9 windows", &[get(1), open(0, 1), open(1, 1)]),
        answered("6.9.2 a window that is less than nothing", &[
            get(1),
            setting(4, 0),
            setting(4, 65_535),
        ]),
        answered("4.1 an unknown type", &[frame(0xff, 0, 0, &[0; 8]), get(1)]),
        answered("5.5 an unknown extension", &[frame(0x16, 0xff, 1, &[0; 8]), get(1)]),
        answered("4.1 an unknown flag", &[frame(PING, 0x16, 0, &[0; 8]), get(1)]),
        answered("4.1 a reserved bit", &[frame(PING, 0, 1 << 31, &[0; 8]), get(1)]),
    ]
}

/// Fields in every way in which they can be written.
#[rustfmt::skip]
fn fields() -> Vec<Row> {
    let of_head = |section, fields: &[&[u8]]| {
        let rest = [&[&b"\x82\x86\x84"[..]], fields].concat();
        row(section, &[head(&rest)], Answer(1))
    };
    vec![
        of_head("7541 6.2.1 a known name", &[b"\x41\x01a"]),
        of_head("7541 6.2.1 a known name, in Huffman's code", &[b"\x41\x81\x1f"]),
        of_head("7541 6.2.1 a new name", &[b"\x41\x01a", b"\x40\x01x\x01y"]),
        of_head("7541 6.2.1 a new name, in Huffman's code", &[b"\x41\x01a", b"\x40\x81\xf3\x81\xf5"]),
        of_head("7541 6.2.1 what is remembered", &[b"\x41\x01a", b"\x40\x01x\x01y\xbe"]),
        of_head("7541 6.2.2 a known name", &[b"\x01\x01a"]),
        of_head("7541 6.2.2 a known name, in Huffman's code", &[b"\x01\x81\x1f"]),
        of_head("7541 6.2.2 a new name", &[b"\x01\x01a", b"\0\x01x\x01y"]),
        of_head("7541 6.2.2 a new name, in Huffman's code", &[b"\x01\x01a", b"\0\x81\xf3\x81\xf5"]),
        of_head("7541 6.2.3 a known name", &[b"\x11\x01a"]),
        of_head("7541 6.2.3 a known name, in Huffman's code", &[b"\x11\x81\x1f"]),
        of_head("7541 6.2.3 a new name", &[b"\x11\x01a", b"\x10\x01x\x01y"]),
        of_head("7541 6.2.3 a new name, in Huffman's code", &[b"\x11\x01a", b"\x10\x81\xf3\x81\xf5"]),
        row("7541 6.3 the size of the table", &[head(&[b"\x20", GET])], Answer(1)),
        row("7541 6.3 and again", &[head(&[b"\x20\x3e", GET])], Answer(1)),
    ]
}

/// What breaks a rule of streams and of frames.
#[rustfmt::skip]
fn broken() -> Vec<Row> {
    const PROTOCOL: End = Connection(&[PROTOCOL_ERROR]);
    const SIZE: End = Connection(&[FRAME_SIZE_ERROR, PROTOCOL_ERROR]);
    const CLOSED: End = Stream(&[STREAM_CLOSED, PROTOCOL_ERROR]);
    let long = vec![0; 16_385];
    let after = |section, then: Vec<u8>, end| (section, get(1), then, end);
    vec![
        row("4.2 data of more than 16 KiB", &[post(1), data(0, 1, &long)], SIZE),
        row("4.2 a head of more than 16 KiB", &[frame(HEADERS, 5, 1, &long)], SIZE),
        row("4.3 no head", &[head(&[b"\xff\xff\xff\xff\xff\xff"])], Connection(&[COMPRESSION_ERROR, PROTOCOL_ERROR])),
        row("4.3 priority in a head", &[begun(1), priority(1, 0, 1)], PROTOCOL),
        row("4.3 another head in a head", &[begun(1), get(3)], PROTOCOL),
        row("5.1 data on an idle stream", &[data(END_STREAM, 1, b"x")], PROTOCOL),
        row("5.1 reset of an idle stream", &[reset(1, 8)], PROTOCOL),
        row("5.1 a window of an idle stream", &[open(1, 100)], PROTOCOL),
        row("5.1 more of an idle stream's head", &[continuation(4, 1, GET)], PROTOCOL),
        row("5.1 data on a half-closed stream", &[get(1), data(END_STREAM, 1, b"x")], CLOSED),
        row("5.1 a head on a half-closed stream", &[get(1), get(1)], CLOSED),
        row("5.1 more of a half-closed stream's head", &[get(1), continuation(4, 1, GET)], CLOSED),
        row("5.1 data behind a reset", &[post(1), reset(1, 8), data(END_STREAM, 1, b"x")], CLOSED),
        row("5.1 a head behind a reset", &[post(1), reset(1, 8), get(1)], CLOSED),
        row("5.1 more of a head behind a reset", &[post(1), reset(1, 8), continuation(4, 1, GET)], CLOSED),
        after("5.1 data on a closed stream", data(END_STREAM, 1, b"x"), CLOSED),
        after("5.1 a head on a closed stream", get(1), CLOSED),
        after("5.1 more of a closed stream's head", continuation(4, 1, GET), CLOSED),
        row("5.1.1 an even stream", &[get(2)], PROTOCOL),
        row("5.1.1 a stream that is less than another", &[get(5), get(3)], PROTOCOL),
        row("5.3.1 a head that depends on itself", &[with(1, PRIORITIZED, b"\0\0\0\x01\xff", b"")], Stream(&[PROTOCOL_ERROR])),
        row("5.3.1 priority on itself", &[post(1), priority(1, 1, 15)], Stream(&[PROTOCOL_ERROR])),
        row("5.4.1 a broken ping", &[frame(PING, 0, 3, &[0; 8])], PROTOCOL),
        row("5.5 an unknown extension in a head", &[begun(1), frame(0x16, 0, 0, &[0; 8])], PROTOCOL),
        row("6.1 data of no stream", &[data(END_STREAM, 0, b"x")], PROTOCOL),
        row("6.1 more padding than payload", &[post(1), data(END_STREAM | PADDED, 1, b"\x09x")], PROTOCOL),
        row("6.2 a head of no stream", &[get(0)], PROTOCOL),
        row("6.2 more padding than payload", &[frame(HEADERS, 5 | PADDED, 1, b"\xff\x82\x86\x84\x01\x01a")], PROTOCOL),
        row("6.3 priority of no stream", &[priority(0, 1, 15)], PROTOCOL),
        row("6.3 priority of another length", &[post(1), frame(PRIORITY, 0, 1, &[0; 4])], Stream(&[FRAME_SIZE_ERROR, PROTOCOL_ERROR])),
        row("6.4 reset of no stream", &[reset(0, 8)], PROTOCOL),
        row("6.4 reset of another length", &[post(1), frame(RST_STREAM, 0, 1, &[0; 3])], SIZE),
        row("6.5 settings that answer, and say something", &[frame(SETTINGS, 1, 0, &[0; 6])], SIZE),
        row("6.5 settings of a stream", &[frame(SETTINGS, 0, 1, b"\0\x03\0\0\0\x64")], PROTOCOL),
        row("6.5 settings of another length", &[frame(SETTINGS, 0, 0, &[0, 3, 0])], SIZE),
        row("6.5.2 neither push nor none", &[setting(2, 2)], PROTOCOL),
        row("6.5.2 a window above the most", &[setting(4, 1 << 31)], Connection(&[FLOW_CONTROL_ERROR, PROTOCOL_ERROR])),
        row("6.5.2 frames below the least", &[setting(5, 16_383)], PROTOCOL),
        row("6.5.2 frames above the most", &[setting(5, 1 << 24)], PROTOCOL),
        row("6.7 a ping of a stream", &[frame(PING, 0, 1, &[0; 8])], PROTOCOL),
        row("6.7 a ping of another length", &[frame(PING, 0, 0, &[0; 6])], SIZE),
        row("6.8 an end of a stream", &[frame(GOAWAY, 0, 1, &[0; 8])], PROTOCOL),
        row("6.9 a window of nothing", &[open(0, 0)], PROTOCOL),
        row("6.9 a stream's window of nothing", &[post(1), open(1, 0)], Stream(&[PROTOCOL_ERROR])),
        row("6.9 a window of another length", &[frame(WINDOW_UPDATE, 0, 0, &[0; 3])], SIZE),
        row("6.9.1 a window above the most", &[open(0, u32::MAX >> 1)], Connection(&[FLOW_CONTROL_ERROR])),
        row("6.9.1 a stream's window above the most", &[post(1), open(1, u32::MAX >> 1)], Stream(&[FLOW_CONTROL_ERROR])),
        row("6.10 more, and then something else", &[begun(1), continuation(0, 1, b""), data(0, 1, b"x")], PROTOCOL),
        row("6.10 more of no stream", &[begun(1), continuation(4, 0, b"")], PROTOCOL),
        row("6.10 more of a head that has ended", &[post(1), continuation(4, 1, b"")], PROTOCOL),
        row("6.10 more of what has ended", &[begun(1), continuation(4, 1, &GET[3..]), continuation(4, 1, b"")], PROTOCOL),
        row("6.10 more of a body", &[post(1), data(0, 1, b"x"), continuation(4, 1, b"")], PROTOCOL),
        row("8.4 a promise", &[frame(PUSH_PROMISE, 4, 1, &[&2_u32.to_be_bytes()[..], GET].concat())], PROTOCOL),
        row("6.8 an end", &[goaway(0), frame(PING, 0, 0, &[0; 8])], Either),
        row("7 an end with an unknown code", &[goaway(0xff), frame(PING, 0, 0, &[0; 8])], Either),
    ]
}

/// What breaks a rule of heads.
#[rustfmt::skip]
fn heads() -> Vec<Row> {
    const MALFORMED: End = Stream(&[PROTOCOL_ERROR]);
    const UNREADABLE: End = Connection(&[COMPRESSION_ERROR, PROTOCOL_ERROR]);
    let malformed = |section, fields: &[&[u8]]| row(section, &[head(fields)], MALFORMED);
    let unreadable = |section, more: &[u8]| row(section, &[head(&[GET, more])], UNREADABLE);
    let trailers = [b"\x01\0\0\0\0\x0f", &header(":method", "GET")[..], b"\0"].concat();
    let padded = frame(HEADERS, 5 | PADDED | PRIORITIZED, 1, &trailers);
    let sized = |length| {
        let length = header("content-length", length);
        let block = [&b"\x83\x86\x84\x01\x01a"[..], &length].concat();
        frame(HEADERS, END_HEADERS, 1, &block)
    };
    vec![
        malformed("8.2 a name in capitals", &[GET, &header("X-Test", "y")]),
        malformed("8.3 an unknown pseudo-header", &[GET, &header(":test", "y")]),
        malformed("8.3 one of responses", &[GET, &header(":status", "200")]),
        malformed("8.3 one behind a header", &[b"\x82\x86\x01\x01a", &header("x", "y"), b"\x84"]),
        malformed("8.2.2 a header of the connection", &[GET, &header("connection", "keep-alive")]),
        malformed("8.2.2 te", &[GET, &header("te", "trailers, deflate")]),
        malformed("8.3.1 an empty path", &[b"\x82\x86\x01\x01a", &header(":path", "")]),
        malformed("8.3.1 no method", &[b"\x86\x84\x01\x01a"]),
        malformed("8.3.1 no scheme", &[b"\x82\x84\x01\x01a"]),
        malformed("8.3.1 no path", &[b"\x82\x86\x01\x01a"]),
        malformed("8.3.1 two methods", &[GET, b"\x82"]),
        malformed("8.3.1 two schemes", &[GET, b"\x86"]),
        malformed("8.3.1 two paths", &[GET, b"\x84"]),
        row("8.1.1 a body of another length", &[sized("1"), data(END_STREAM, 1, b"test")], MALFORMED),
        row("8.1.1 parts of another length", &[sized("1"), data(0, 1, b"te"), data(END_STREAM, 1, b"st")], MALFORMED),
        row("8.1 a second head that is no end", &[post(1), frame(HEADERS, END_HEADERS, 1, &header("x", "y"))], MALFORMED),
        row("8.1 a pseudo-header in trailers", &[post(1), frame(HEADERS, 5, 1, b"\x84")], MALFORMED),
        row("8.1 one behind padding and priority", &[post(1), data(0, 1, b"x"), padded], MALFORMED),
        row("8.1 one in the second part", &[post(1), frame(HEADERS, 1, 1, b""), continuation(4, 1, &header(":path", "/"))], MALFORMED),
        unreadable("7541 2.3.3 an index of nothing", b"\xc6"),
        unreadable("7541 2.3.3 a name of nothing", b"\x7f\x07\x01y"),
        unreadable("7541 4.2 the size of the table at the end", b"\x20"),
        unreadable("7541 5.2 more than seven bits of padding", b"\0\x01x\x82\xf3\xff"),
        unreadable("7541 5.2 padding of zeroes", b"\0\x01x\x81\xf2"),
        unreadable("7541 5.2 the end within", b"\0\x01x\x84\xff\xff\xff\xff"),
        unreadable("7541 6.1 the index 0", b"\x80"),
        row("7541 6.3 a larger table than allowed", &[head(&[b"\x3f\xff\xff\x03", GET])], UNREADABLE),
    ]
}

/// How long a row's end may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// How the row ended, if not as it is to.
async fn play(to: SocketAddr, (section, first, then, end): Row) -> Option<String> {
    let mut client = Attacker::new(to).await;
    client.send(&first).await;
    let mut is_answered = then.is_empty();
    let mut told = None;
    while let Ok(Some(frame)) = timeout(PATIENCE, client.next()).await {
        let is_end = frame.flags & END_STREAM != 0 && matches!(frame.kind, DATA | HEADERS);
        if !is_answered && frame.stream == 1 && is_end {
            is_answered = true;
            client.send(&then).await;
            continue;
        }
        match (frame.kind, end) {
            (HEADERS, Answer(stream)) if frame.stream == stream => return None,
            (PING, Either) if frame.flags & ACK != 0 => return None,
            (GOAWAY, Either) => {}
            (RST_STREAM | GOAWAY, _) => {
                told = Some((frame.kind, frame.code()));
                break;
            }
            _ => {}
        }
    }
    let is_right = match (told, end) {
        (Some((RST_STREAM | GOAWAY, code)), Stream(codes)) => codes.contains(&code),
        (Some((GOAWAY, code)), Connection(codes)) => codes.contains(&code),
        (None, Either) => true,
        _ => false,
    };
    (!is_right).then(|| format!("{section}: to be {end:?}, is {told:?}"))
}

#[tokio::test]
async fn frames_are_taken_and_refused_as_they_are_to_be() {
    let site = Site::new().pages(&["index"]).start().await;
    for rows in [taken(), fields(), broken(), heads()] {
        for door in [site.site(), site.admin_door()] {
            let played = rows.iter().cloned().map(|row| play(door, row));
            let wrong: Vec<String> = join_all(played).await.into_iter().flatten().collect();
            assert!(wrong.is_empty(), "{wrong:#?}");
        }
    }
    assert_eq!(site.get("/").await.status, 200);
}

/// Section 3.4: what does not begin as HTTP/2 is none, and the server says hello first.
#[tokio::test]
async fn a_connection_begins_with_its_preface() {
    let site = Site::new().pages(&["index"]).start().await;
    let told = Attacker::new(site.site()).await.next().await.unwrap();
    assert_eq!((told.kind, told.stream), (SETTINGS, 0));
    let refused = site.raw(b"INVALID CONNECTION PREFACE\r\n\r\n").await;
    assert!(refused.starts_with("HTTP/1.1 400 "), "{refused}");
    // Sections 6.9.1 and 6.9.2: not a byte more than the window has room for, whenever that is told.
    let mut reader = Attacker::with_window(site.site(), 1).await;
    reader.send(&get(1)).await;
    assert_eq!(reader.until(DATA, 1).await.payload.len(), 1);
    reader.send(&setting(4, 3)).await;
    assert_eq!(reader.until(DATA, 1).await.payload.len(), 2);
    // Section 6.5.3 and 6.7: both are answered, in turn.
    reader.send(&frame(PING, 0, 0, b"h2spec!!")).await;
    let pong = loop {
        let told = reader.next().await.unwrap();
        if told.kind == PING {
            break told;
        }
    };
    assert_eq!((pong.flags, &pong.payload[..]), (1, &b"h2spec!!"[..]));
    assert_eq!(streams(2).last(), Some(3));
}
