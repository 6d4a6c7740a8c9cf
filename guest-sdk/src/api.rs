//! [`Api`]: a module below `api/`, which answers requests itself.
//!
//! ```
//! use wisr_guest::api::{Api, Request, Response};
//! use wisr_guest::{Result, revalidate, setting};
//!
//! struct Hook;
//!
//! impl Api for Hook {
//!     fn handle(request: Request) -> Result<Response> {
//!         let secret = setting("secret").unwrap_or_default();
//!         if secret.is_empty() || !request.knows(&secret) {
//!             return Ok(Response::text("Invalid token").status(401));
//!         }
//!         revalidate::path("/posts/1")?;
//!         Response::json(&serde_json::json!({"revalidated": true}))
//!     }
//! }
//!
//! wisr_guest::api!(Hook);
//! ```
//!
//! Below it is the standard world `wasi:http/proxy`: the handler runs wherever that does, as long as
//! it asks for nothing of wisr's.

use std::borrow::Cow;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::page::to_json;
use crate::{Body, Result};

/// What an author writes. One type of a crate, handed to [`api!`](macro@crate::api).
pub trait Api {
    /// Answers a request. The answer is sent once this returns, and kept by nobody unless it says
    /// `cache-control`.
    ///
    /// # Errors
    /// Any: the caller gets a 500, and the message is an incident of the server.
    fn handle(request: Request) -> Result<Response>;
}

/// A request, read to its end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// `GET`, `POST`, …
    pub method: String,
    /// The path and the query as they were sent: `/api/hook?secret=1`.
    pub target: String,
    /// The headers in order; names in lower case.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The body: 1 MiB at most.
    pub body: Vec<u8>,
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Response {
    /// The HTTP status, 200 to 599.
    pub status: u16,
    /// The headers in order; names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Request {
    /// The path, without the query.
    #[must_use]
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// The first value of a query parameter, decoded.
    #[must_use]
    pub fn query(&self, name: &str) -> Option<String> {
        let (_, query) = self.target.split_once('?')?;
        let pairs = query
            .split('&')
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        let mut decoded = pairs.map(|(name, value)| (decode(name), decode(value)));
        decoded
            .find(|(known, _)| known == name)
            .map(|(_, value)| value)
    }

    /// The first value of a header, if it is text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut named = self
            .headers
            .iter()
            .filter(|(known, _)| known.eq_ignore_ascii_case(name));
        named
            .next()
            .and_then(|(_, value)| std::str::from_utf8(value).ok())
    }

    /// The body as text; what is no UTF-8 is replaced.
    #[must_use]
    pub fn text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.body)
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// When it is not what is expected.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T> {
        Ok(serde_json::from_slice(&self.body)?)
    }

    /// Whether the caller knows a secret, from `?secret=` or `authorization: Bearer`: compared in a
    /// time that does not tell how much of it is right. Nobody knows an empty one.
    #[must_use]
    pub fn knows(&self, secret: &str) -> bool {
        let bearer = self.header("authorization").and_then(|line| {
            let (scheme, token) = line.split_once(' ')?;
            let is_bearer = scheme.eq_ignore_ascii_case("bearer");
            is_bearer.then(|| token.trim().to_owned())
        });
        let given = self.query("secret").or(bearer).unwrap_or_default();
        !secret.is_empty() && same(given.as_bytes(), secret.as_bytes())
    }
}

/// Whether two texts are the same, in a time that depends on their lengths alone.
fn same(one: &[u8], other: &[u8]) -> bool {
    let differences = one.iter().zip(other).fold(0, |all, (a, b)| all | (a ^ b));
    // What is not known to the compiler cannot be left early.
    one.len() == other.len() && std::hint::black_box(differences) == 0
}

impl Response {
    /// An answer of any type, with status 200.
    pub fn new(content_type: impl Into<String>, body: impl Into<Body>) -> Self {
        Self {
            status: 200,
            headers: vec![("content-type".to_owned(), content_type.into())],
            body: body.into().into_bytes(),
        }
    }

    /// Plain text.
    pub fn text(text: impl Into<String>) -> Self {
        Self::new("text/plain; charset=utf-8", text.into())
    }

    /// JSON.
    ///
    /// # Errors
    /// When the value has no form in JSON.
    pub fn json<T: Serialize + ?Sized>(value: &T) -> Result<Self> {
        Ok(Self::new("application/json", to_json(value)?))
    }

    /// No body, as with 204 or a redirect.
    pub fn empty(status: u16) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: Vec::new(),
        }
    }

    /// Sends the caller elsewhere, by 307: with the same method.
    pub fn redirect(location: impl Into<String>) -> Self {
        Self::empty(307).header("location", location)
    }

    /// Sets the HTTP status.
    pub fn status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    /// Adds a header. Framing is the server's, and so are the names that begin with `x-wisr-`.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        let name = name.into().to_ascii_lowercase();
        self.headers.push((name, value.into()));
        self
    }
}

/// A name or value of a query (URL standard, section 5.1).
fn decode(text: &str) -> String {
    let mut out = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let hex = tail.get(..2).filter(|_| *first == b'%');
        let hex = hex.and_then(|hex| std::str::from_utf8(hex).ok());
        let byte = hex.and_then(|hex| u8::from_str_radix(hex, 16).ok());
        out.push(match (byte, first) {
            (Some(byte), _) => byte,
            (None, b'+') => b' ',
            (None, other) => *other,
        });
        rest = if byte.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(target: &str, headers: &[(&str, &str)]) -> Request {
        let headers = headers.iter();
        Request {
            target: target.to_owned(),
            headers: headers
                .map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec()))
                .collect(),
            ..Request::default()
        }
    }

    #[test]
    fn a_query_is_decoded() {
        let request = request("/api/a?b=1+2%2f&%63=%zz&b=3&d", &[]);
        assert_eq!(request.path(), "/api/a");
        for (name, value) in [
            ("b", Some("1 2/")),
            ("c", Some("%zz")),
            ("d", Some("")),
            ("e", None),
        ] {
            assert_eq!(request.query(name).as_deref(), value, "{name}");
        }
    }

    #[test]
    fn a_secret_is_known_whole() {
        for (target, headers, expected) in [
            ("/?secret=abc", &[][..], true),
            ("/", &[("authorization", "bearer abc")], true),
            ("/?secret=ab", &[], false),
            ("/?secret=abcd", &[], false),
            ("/?secret=", &[("authorization", "Bearer abc")], false),
            ("/", &[("authorization", "Basic abc")], false),
            ("/", &[], false),
        ] {
            let knows = request(target, headers).knows("abc");
            assert_eq!(knows, expected, "{target} {headers:?}");
        }
        assert!(!request("/?secret=", &[]).knows(""));
    }
}
