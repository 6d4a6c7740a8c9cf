//! [`Request`] and [`Response`]: HTTP for pages, one call at a time.
//!
//! A page may ask only the origins that its route's configuration allows. Redirects are not
//! followed. The time it takes counts against the page's time limit, so there is no time-out here.
//!
//! ```
//! # #[derive(serde::Deserialize)] struct Post { title: String }
//! # fn example() -> wisr_guest::Result<()> {
//! use wisr_guest::fetch;
//! let post: Post = fetch::get("https://example.org/posts/1")?.error_for_status()?.json()?;
//! # Ok(()) }
//! ```

use std::any::type_name;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Body, Error, Result};

/// An HTTP request.
///
/// ```
/// # fn example() -> wisr_guest::Result<()> {
/// use wisr_guest::fetch::Request;
/// let answer = Request::post("https://example.org/search")
///     .header("authorization", "Bearer token")
///     .json(&["rust", "wasm"])?
///     .send()?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
#[must_use = "a request does nothing until it is sent"]
pub struct Request {
    pub(crate) method: String,
    pub(crate) url: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

/// The answer to a [`Request`], read to its end.
#[derive(Clone, Debug)]
pub struct Response {
    pub(crate) url: String,
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, Vec<u8>)>,
    pub(crate) body: Vec<u8>,
}

/// The parts of a URL that a request is made of.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Target<'a> {
    pub(crate) https: bool,
    pub(crate) authority: &'a str,
    pub(crate) path_and_query: String,
}

/// Fetches a URL and returns the answer **whatever its status**: a 404 may be what a page wants to
/// know. [`Response::error_for_status`] makes an error of it.
///
/// # Errors
/// When no answer came: the origin is not allowed, the connection failed, the URL is malformed.
pub fn get(url: impl Into<String>) -> Result<Response> {
    Request::get(url).send()
}

impl Request {
    /// A request with any method.
    pub fn new(method: impl Into<String>, url: impl Into<String>) -> Self {
        Self {
            method: method.into(),
            url: url.into(),
            headers: Vec::new(),
            body: Vec::new(),
        }
    }

    /// A GET request.
    pub fn get(url: impl Into<String>) -> Self {
        Self::new("GET", url)
    }

    /// A POST request.
    pub fn post(url: impl Into<String>) -> Self {
        Self::new("POST", url)
    }

    /// Adds a header.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Sets the body: text or bytes.
    pub fn body(mut self, body: impl Into<Body>) -> Self {
        self.body = body.into().into_bytes();
        self
    }

    /// Sets the body to a value as JSON, and `content-type` with it.
    ///
    /// # Errors
    /// When the value has no JSON form; the error names its type.
    pub fn json<T: Serialize + ?Sized>(self, value: &T) -> Result<Self> {
        let body = serde_json::to_vec(value).map_err(|error| {
            let Self { method, url, .. } = &self;
            let name = type_name::<T>();
            Error::msg(format!(
                "{method} {url}: {name} cannot be written as JSON: {error}"
            ))
        })?;
        Ok(self.header("content-type", "application/json").body(body))
    }

    /// Sends the request and waits for the whole answer, whatever its status.
    ///
    /// # Errors
    /// When no answer came; the error names the method, the URL and the reason.
    pub fn send(self) -> Result<Response> {
        let fail = |why: Error| Error::msg(format!("{} {}: {why}", self.method, self.url));
        let target = Target::of(&self.url).map_err(fail)?;
        #[cfg(target_arch = "wasm32")]
        return crate::outgoing::send(&self, &target).map_err(fail);
        #[cfg(not(target_arch = "wasm32"))]
        return crate::testing::answer(&self.url, &target).map_err(fail);
    }
}

impl Response {
    /// The HTTP status.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The first value of a header, unless it is not UTF-8.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self
            .headers
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(value).ok()
    }

    /// The body.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.body
    }

    /// The body as text. As on the web, what is no UTF-8 in it is U+FFFD.
    ///
    /// # Errors
    /// None: the type is that of the first release, which refused such a body.
    pub fn text(self) -> Result<String> {
        Ok(match String::from_utf8(self.body) {
            Ok(text) => text,
            Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
        })
    }

    /// The body as JSON. As on the web, what is no Unicode in its texts is U+FFFD.
    ///
    /// # Errors
    /// When it is not JSON of this type; the error names the URL, the status and the type.
    pub fn json<T: DeserializeOwned>(self) -> Result<T> {
        let read = serde_json::from_slice(&self.body);
        let read = read.or_else(|error| {
            // Seldom needed, and it costs a copy.
            let text = String::from_utf8_lossy(&self.body);
            let whole = whole_characters(&text);
            if whole.as_bytes() == self.body {
                return Err(error);
            }
            serde_json::from_str(&whole)
        });
        read.map_err(|error| {
            let Self { url, status, .. } = &self;
            let name = type_name::<T>();
            Error::msg(format!(
                "{url}: the body (status {status}) is not a {name}: {error}"
            ))
        })
    }

    /// Makes an error of a status of 400 or more.
    ///
    /// # Errors
    /// `https://example.org/posts/1 answered 404`.
    pub fn error_for_status(self) -> Result<Self> {
        if self.status >= 400 {
            crate::bail!("{} answered {}", self.url, self.status);
        }
        Ok(self)
    }
}

/// JSON whose escapes are characters: half a surrogate pair, which JSON may write (`"\ud83d"`) and no
/// text holds, becomes U+FFFD.
fn whole_characters(json: &str) -> String {
    const ESCAPE: usize = r"\uXXXX".len();
    let unit = |at: usize| {
        let digits = json.get(at..at + ESCAPE)?.strip_prefix(r"\u")?;
        u32::from_str_radix(digits, 16).ok()
    };
    let mut whole = String::with_capacity(json.len());
    let mut rest = 0;
    while let Some(found) = json[rest..].find('\\') {
        let at = rest + found;
        whole.push_str(&json[rest..at]);
        let taken = match unit(at) {
            Some(0xD800..=0xDBFF) if matches!(unit(at + ESCAPE), Some(0xDC00..=0xDFFF)) => {
                2 * ESCAPE
            }
            Some(0xD800..=0xDFFF) => {
                whole.push(char::REPLACEMENT_CHARACTER);
                rest = at + ESCAPE;
                continue;
            }
            // The escaped character, whole; a text that ends here is no JSON.
            _ => json[at + 1..]
                .chars()
                .next()
                .map_or(1, |next| 1 + next.len_utf8()),
        };
        whole.push_str(&json[at..at + taken]);
        rest = at + taken;
    }
    whole.push_str(&json[rest..]);
    whole
}

impl<'a> Target<'a> {
    /// Splits an absolute URL; a fragment is left out, since it never travels (RFC 9110, section 7.1).
    pub(crate) fn of(url: &'a str) -> Result<Self> {
        if !url.bytes().all(|byte| byte.is_ascii_graphic()) {
            crate::bail!("a URL holds no spaces and only ASCII: percent-encode the rest");
        }
        let Some((scheme, rest)) = url.split_once("://") else {
            crate::bail!("not an absolute URL: it needs https:// or http://");
        };
        let https = match scheme.to_ascii_lowercase().as_str() {
            "https" => true,
            "http" => false,
            other => crate::bail!("the scheme {other} is neither https nor http"),
        };
        let rest = rest.split_once('#').map_or(rest, |(before, _)| before);
        let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        if authority.is_empty() {
            crate::bail!("the URL has no host");
        }
        if authority.contains('@') {
            crate::bail!("credentials belong into the authorization header, not into the URL");
        }
        let slash = if path.starts_with('/') { "" } else { "/" };
        Ok(Self {
            https,
            authority,
            path_and_query: format!("{slash}{path}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(status: u16, body: &str) -> Response {
        Response {
            url: "http://x/1".into(),
            status,
            headers: vec![
                ("Content-Type".into(), b"a/b".to_vec()),
                ("raw".into(), vec![255]),
            ],
            body: body.into(),
        }
    }

    fn refused(url: &str) -> String {
        Target::of(url).unwrap_err().to_string()
    }

    #[test]
    fn a_url_is_split_into_what_a_request_needs() {
        let split = |url| {
            let target = Target::of(url).unwrap();
            (
                target.https,
                target.authority.to_owned(),
                target.path_and_query,
            )
        };
        assert_eq!(
            split("https://a.b:8443/c/d?e=/f#g"),
            (true, "a.b:8443".into(), "/c/d?e=/f".into())
        );
        assert_eq!(split("HTTP://a"), (false, "a".into(), "/".into()));
        assert_eq!(
            split("http://[::1]:80?q"),
            (false, "[::1]:80".into(), "/?q".into())
        );
        assert_eq!(split("http://a#/b"), (false, "a".into(), "/".into()));
    }

    #[test]
    fn a_url_that_cannot_be_fetched_says_why() {
        assert!(refused("/posts").contains("not an absolute URL"));
        assert!(refused("ftp://a/").contains("ftp"));
        assert!(refused("http:///a").contains("no host"));
        assert!(refused("http://me:pw@a/").contains("authorization"));
        assert!(refused("http://a/b c").contains("percent-encode"));
        assert!(refused("http://a/é").contains("percent-encode"));
    }

    #[test]
    fn an_unsent_request_names_method_and_url() {
        let error = Request::post("nowhere").send().unwrap_err().to_string();
        assert!(
            error.starts_with("POST nowhere: not an absolute URL"),
            "{error}"
        );
    }

    #[test]
    fn json_goes_out_with_its_type() {
        let request = Request::post("http://x/").json(&[1, 2]).unwrap();
        assert_eq!(request.body, b"[1,2]");
        assert_eq!(
            request.headers,
            [("content-type".to_owned(), "application/json".to_owned())]
        );
    }

    #[test]
    fn json_of_another_type_names_url_status_and_type() {
        let error = response(502, "<html>")
            .json::<Vec<u8>>()
            .unwrap_err()
            .to_string();
        for part in ["http://x/1", "502", "Vec<u8>", "line 1"] {
            assert!(error.contains(part), "{error} lacks {part}");
        }
        assert_eq!(response(200, "[1]").json::<Vec<u8>>().unwrap(), [1]);
    }

    #[test]
    fn what_is_no_unicode_is_read_as_on_the_web() {
        let mut latin = response(200, "caf");
        latin.body.push(0xe9);
        assert_eq!(latin.text().unwrap(), "caf\u{fffd}");
        let mut quoted = response(200, "\"caf");
        quoted.body.extend([0xe9, b'"']);
        assert_eq!(quoted.json::<String>().unwrap(), "caf\u{fffd}");
        for (written, read) in [
            (r#""a\ud83d""#, "a\u{fffd}"),
            (r#""\ud83d\ude00 \ude00 \\ud83d""#, "😀 \u{fffd} \\ud83d"),
        ] {
            assert_eq!(response(200, written).json::<String>().unwrap(), read);
        }
        assert!(response(200, "\"\\é").json::<String>().is_err());
    }

    #[test]
    fn headers_are_found_in_any_case() {
        assert_eq!(response(200, "").header("content-type"), Some("a/b"));
        assert_eq!(response(200, "").header("raw"), None);
    }

    #[test]
    fn only_failures_become_errors() {
        assert!(response(399, "").error_for_status().is_ok());
        let error = response(404, "")
            .error_for_status()
            .unwrap_err()
            .to_string();
        assert_eq!(error, "http://x/1 answered 404");
    }
}
