//! `Head`: what the first bytes of a request say, as far as the short way must know. Pure.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use super::draft;
use super::sound::{is_host, letters_digits_and};

/// Lines that are looked at; a request with more takes the long way, where hyper's limit holds.
const MAX_LINES: usize = 64;

/// The beginning of what a client sent, up to which it is understood.
#[derive(Debug)]
pub(super) enum Head<'a> {
    /// All of it is one request to read a page, in which nothing asks for more than the page.
    Plain(Plain<'a>),
    /// All of it is one request without a body.
    Other,
    /// Something else: half a request, or more than one, or one with a body or of HTTP/1.0, or none
    /// at all.
    Unclear,
}

/// A GET of HTTP/1.1 that breaks no rule of `sound`.
#[derive(Debug)]
pub struct Plain<'a> {
    /// As it was sent.
    pub path: &'a str,
    /// As it was sent.
    pub query: Option<&'a str>,
    /// What decides in which form the reader has the page, and no more.
    pub headers: HeaderMap,
}

/// What a line of a request's head means for its way.
enum Line {
    Host,
    /// Decides the form of the answer.
    Form(HeaderName),
    /// Frames a body, or asks for another protocol.
    Body,
    /// Is about the connection or the reader.
    Special,
    /// Changes nothing.
    Idle,
}

impl<'a> Head<'a> {
    /// Reads what came in one piece.
    pub(super) fn of(bytes: &'a [u8]) -> Self {
        let mut lines = [httparse::EMPTY_HEADER; MAX_LINES];
        let mut request = httparse::Request::new(&mut lines);
        let Ok(httparse::Status::Complete(length)) = request.parse(bytes) else {
            return Self::Unclear;
        };
        let (Some(method), Some(target)) = (request.method, request.path) else {
            return Self::Unclear;
        };
        // hyper answers what it cannot read in the version of what it read last.
        let is_old = request.version != Some(1);
        if length != bytes.len() || method == "CONNECT" || is_old {
            return Self::Unclear;
        }
        let mut is_plain = method == "GET" && is_plain(target);
        let mut hosts = 0;
        let mut headers = HeaderMap::new();
        for line in request.headers.iter() {
            match Line::of(line) {
                Line::Idle => {}
                Line::Body => return Self::Unclear,
                Line::Special => is_plain = false,
                Line::Host => {
                    hosts += 1;
                    is_plain &= !line.value.is_empty() && is_host(line.value);
                }
                Line::Form(name) => match HeaderValue::from_bytes(line.value) {
                    Ok(value) => {
                        headers.append(name, value);
                    }
                    Err(_) => is_plain = false,
                },
            }
        }
        if !is_plain || hosts != 1 {
            return Self::Other;
        }
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (target, None),
        };
        Self::Plain(Plain {
            path,
            query,
            headers,
        })
    }
}

impl Line {
    fn of(line: &httparse::Header<'_>) -> Self {
        let is = |name: HeaderName| line.name.eq_ignore_ascii_case(name.as_str());
        // By length first: most lines of a browser are none of these.
        match line.name.len() {
            4 if is(header::HOST) => Self::Host,
            6 if is(header::EXPECT) => Self::Special,
            6 if is(header::COOKIE) && draft::may_be_in(line.value) => Self::Special,
            7 if is(header::UPGRADE) => Self::Body,
            8 if is(header::IF_MATCH) => Self::Special,
            10 if is(header::CONNECTION) => {
                if line.value.eq_ignore_ascii_case(b"keep-alive") {
                    Self::Idle
                } else {
                    Self::Special
                }
            }
            13 if is(header::IF_NONE_MATCH) => Self::Form(header::IF_NONE_MATCH),
            14 if is(header::CONTENT_LENGTH) => Self::Body,
            15 if is(header::ACCEPT_ENCODING) => Self::Form(header::ACCEPT_ENCODING),
            17 if is(header::TRANSFER_ENCODING) => Self::Body,
            17 if is(header::IF_MODIFIED_SINCE) => Self::Form(header::IF_MODIFIED_SINCE),
            19 if is(header::IF_UNMODIFIED_SINCE) => Self::Special,
            _ => Self::Idle,
        }
    }
}

/// The bytes that RFC 3986 has for a path and a query (sections 3.3 and 3.4): how anything else is
/// read is left to one parser.
static IN_TARGET: [bool; 256] = letters_digits_and(b"-._~%!$&'()*+,;=:@/?");

fn is_plain(target: &str) -> bool {
    target.starts_with('/') && target.bytes().all(|byte| IN_TARGET[usize::from(byte)])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The way that a head takes, with what it takes along.
    fn way(text: &str) -> String {
        let text = text.replace('\n', "\r\n");
        match Head::of(text.as_bytes()) {
            Head::Plain(plain) => {
                let query = plain
                    .query
                    .map_or(String::new(), |query| format!("?{query}"));
                let mut told = format!("{}{query}", plain.path);
                for (name, value) in &plain.headers {
                    told += &format!(" {name}={}", value.to_str().unwrap());
                }
                told
            }
            Head::Other => "other".to_owned(),
            Head::Unclear => "unclear".to_owned(),
        }
    }

    #[test]
    fn a_plain_read_takes_along_what_decides_its_form() {
        for (text, expected) in [
            ("GET / HTTP/1.1\nhost: x\n\n", "/"),
            ("GET / HTTP/1.1\nhost: x\ncookie: a=b\n\n", "/"),
            (
                "GET /a/b%20?q=1?2 HTTP/1.1\nHOST: x:80\n\n",
                "/a/b%20?q=1?2",
            ),
            (
                "GET / HTTP/1.1\nhost: x\nuser-agent: y\nAccept-Encoding: br\naccept-encoding: gzip\nconnection: Keep-Alive\n\n",
                "/ accept-encoding=br accept-encoding=gzip",
            ),
            (
                "GET / HTTP/1.1\nhost: x\nif-none-match: \"a\"\nif-modified-since: b\n\n",
                "/ if-none-match=\"a\" if-modified-since=b",
            ),
        ] {
            assert_eq!(way(text), expected, "{text}");
        }
    }

    #[test]
    fn whoever_wants_more_takes_the_long_way() {
        for text in [
            "HEAD / HTTP/1.1\nhost: x\n\n",
            "DELETE / HTTP/1.1\nhost: x\n\n",
            "GET * HTTP/1.1\nhost: x\n\n",
            "GET http://y/ HTTP/1.1\nhost: x\n\n",
            "GET /# HTTP/1.1\nhost: x\n\n",
            "GET /\" HTTP/1.1\nhost: x\n\n",
            "GET / HTTP/1.1\n\n",
            "GET / HTTP/1.1\nhost: x\nhost: x\n\n",
            "GET / HTTP/1.1\nhost:\n\n",
            "GET / HTTP/1.1\nhost: a@b\n\n",
            "GET / HTTP/1.1\nhost: x\nconnection: close\n\n",
            "GET / HTTP/1.1\nhost: x\nif-match: \"a\"\n\n",
            "GET / HTTP/1.1\nhost: x\nif-unmodified-since: b\n\n",
            "GET / HTTP/1.1\nhost: x\nexpect: 100-continue\n\n",
            "GET / HTTP/1.1\nhost: x\ncookie: a=b; wisr_draft=1.x\n\n",
        ] {
            assert_eq!(way(text), "other", "{text}");
        }
    }

    #[test]
    fn where_a_request_ends_is_left_to_one_parser() {
        for text in [
            "",
            "GET / HTTP/1.1\nhost: x\n",
            "GET / HTTP/1.1\nhost: x\n\nG",
            "GET / HTTP/1.1\nhost: x\n\nGET / HTTP/1.1\nhost: x\n\n",
            "GET / HTTP/1.1\nhost: x\ncontent-length: 0\n\n",
            "GET / HTTP/1.1\nhost: x\nTransfer-Encoding: chunked\n\n",
            "GET / HTTP/1.1\nhost: x\nupgrade: h2c\n\n",
            "GET / HTTP/1.1\nhost : x\n\n",
            "GET / HTTP/1.1\nhost: x\n y\n\n",
            "CONNECT x:80 HTTP/1.1\nhost: x:80\n\n",
            "GET / HTTP/1.0\nhost: x\n\n",
            "PRI * HTTP/2.0\n\nSM\n\n",
        ] {
            assert_eq!(way(text), "unclear", "{text}");
        }
        let many = "a: b\n".repeat(MAX_LINES);
        assert_eq!(
            way(&format!("GET / HTTP/1.1\nhost: x\n{many}\n")),
            "unclear"
        );
    }
}

#[cfg(test)]
#[path = "head_fuzz.rs"]
mod fuzz;
