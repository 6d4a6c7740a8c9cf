//! [`Client`]: a reader who sees every byte: no redirects followed, nothing decoded, no retries.

use std::io::Read as _;
use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A keep-alive connection, opened anew when the server closed it.
pub(crate) struct Client {
    to: SocketAddr,
    open: Option<SendRequest<Full<Bytes>>>,
}

/// An answer as it was sent.
#[derive(Debug, Clone)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Client {
    pub(crate) fn new(to: SocketAddr) -> Self {
        Self { to, open: None }
    }

    /// Sends one request; an error is what the transport said.
    pub(crate) async fn send(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Result<Response, String> {
        let mut request = Request::builder().method(method).uri(target);
        if !headers.iter().any(|(name, _)| *name == "host") {
            request = request.header("host", self.to.to_string());
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request
            .body(Full::new(Bytes::copy_from_slice(body.as_bytes())))
            .map_err(|error| error.to_string())?;
        let connection = self.connection().await?;
        let response = connection
            .send_request(request)
            .await
            .map_err(|error| format!("{method} {target}: {error:?}"))?;
        let (head, body) = response.into_parts();
        let body = body
            .collect()
            .await
            .map_err(|error| format!("{method} {target}: the body broke off: {error:?}"))?;
        Ok(Response {
            status: head.status.as_u16(),
            headers: head.headers,
            body: body.to_bytes(),
        })
    }

    async fn connection(&mut self) -> Result<&mut SendRequest<Full<Bytes>>, String> {
        let usable = match &mut self.open {
            Some(open) => open.ready().await.is_ok(),
            None => false,
        };
        if !usable {
            let stream = TcpStream::connect(self.to)
                .await
                .map_err(|error| format!("connecting to {}: {error}", self.to))?;
            let (sender, connection) = http1::handshake(TokioIo::new(stream))
                .await
                .map_err(|error| error.to_string())?;
            tokio::spawn(connection);
            self.open = Some(sender);
        }
        Ok(self.open.as_mut().expect("it was just opened"))
    }
}

/// Writes `bytes` to a new connection and reads until the server closes it. For requests that no
/// HTTP library would send; they must say `connection: close`, or be answered by closing.
pub(crate) async fn raw(to: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(to).await.unwrap();
    let mut answer = Vec::new();
    // A server that refuses may answer before it has read everything, and reset the connection.
    let _ = stream.write_all(bytes).await;
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

impl Response {
    /// A header's value, or "" when it is missing.
    #[track_caller]
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| {
            value.to_str().expect("tests send visible ASCII")
        })
    }

    /// `x-wisr-cache`.
    #[track_caller]
    pub(crate) fn verdict(&self) -> &str {
        self.header("x-wisr-cache")
    }

    /// A directive of `cache-control` with its value: `s-maxage` gives `Some("60")`.
    pub(crate) fn directive(&self, name: &str) -> Option<&str> {
        self.header("cache-control").split(',').find_map(|part| {
            let (key, value) = part.trim().split_once('=').unwrap_or((part.trim(), ""));
            (key == name).then_some(value)
        })
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error} in {} {:?}", self.status, self.text()))
    }

    /// What the puppet printed: the context it was given and its props.
    #[track_caller]
    pub(crate) fn puppet(&self) -> Value {
        let text = self.text();
        let inner = text
            .split_once("<pre>")
            .and_then(|(_, rest)| rest.split_once("</pre>"))
            .unwrap_or_else(|| panic!("not a puppet's page: {} {text:?}", self.status))
            .0;
        serde_json::from_str(inner).unwrap()
    }

    /// What the puppet printed, on a page that must be as the puppet made it: by one version, and
    /// with its own sum at its end.
    #[track_caller]
    pub(crate) fn whole(&self) -> Value {
        let body = String::from_utf8(self.decoded()).unwrap();
        let (page, rest) = body.split_once("<!--sum ").unwrap_or((&body, ""));
        let step = |sum: u64, byte: u8| (sum ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        let sum = page.bytes().fold(0xcbf2_9ce4_8422_2325, step);
        assert_eq!(rest, format!("{sum:016x}-->"), "not whole: {body}");
        let plain = Self {
            body: body.into(),
            ..self.clone()
        };
        let seen = plain.puppet();
        for version in [&seen["version"], &seen["props"]["version"]] {
            assert_eq!(version, self.header("x-puppet-version"), "mixed: {seen}");
        }
        seen
    }

    /// Which of the origin's answers for this path the page was made from: 1 is the first.
    #[track_caller]
    pub(crate) fn n(&self) -> u64 {
        self.puppet()["props"]["n"].as_u64().unwrap()
    }

    /// The body with its `content-encoding` taken off.
    #[track_caller]
    pub(crate) fn decoded(&self) -> Vec<u8> {
        let mut plain = Vec::new();
        match self.header("content-encoding") {
            "" => plain.extend_from_slice(&self.body),
            "br" => {
                brotli::Decompressor::new(&self.body[..], 4096)
                    .read_to_end(&mut plain)
                    .unwrap();
            }
            "zstd" => plain = zstd::stream::decode_all(&self.body[..]).unwrap(),
            "gzip" => {
                flate2::read::GzDecoder::new(&self.body[..])
                    .read_to_end(&mut plain)
                    .unwrap();
            }
            other => panic!("a coding that nobody asked for: {other}"),
        }
        plain
    }
}
