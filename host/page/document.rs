//! `Document`: what a page rendered, checked to be something that everybody may be sent.

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{StatusCode, Uri};

/// A rendered page whose status and headers passed [`Document::check`].
#[derive(Debug, Clone)]
pub struct Document {
    /// 200 to 499, without 304 and what has no body.
    pub status: StatusCode,
    /// The page's own headers; always a `content-type`.
    pub headers: HeaderMap,
    /// The body, not yet compressed.
    pub body: Bytes,
}

/// The rule that a document breaks. The message names what was wrong and what to do.
#[derive(Debug, thiserror::Error)]
pub enum Rejected {
    /// Not a status at all, or one that cannot carry a page.
    #[error(
        "status {0} cannot be a page's: use 200 to 299, 400 to 499 (redirects are returned by static-props)"
    )]
    Status(u16),
    /// A status that says the page failed.
    #[error("status {0} says that the page failed, so it does not replace the last good one")]
    ServerError(u16),
    /// A header whose name or value HTTP does not allow.
    #[error(
        "header {0:?} is not a valid HTTP field (RFC 9110 section 5): check it for line breaks"
    )]
    Header(String),
    /// A header that belongs to the connection or to the cache.
    #[error("header `{0}` is wisr's to set: remove it from the page")]
    Reserved(HeaderName),
    /// A cookie in a page that everybody gets.
    #[error("`set-cookie` would hand one reader's cookie to all: a cached page is for everybody")]
    Cookie,
    /// A page that must not be shared.
    #[error(
        "`cache-control: {0}` says that the page is not for everybody: a cached page is; use an API route"
    )]
    NotShared(String),
    /// More headers than the limit.
    #[error("{0} headers: at most {MAX_HEADERS} are allowed")]
    TooMany(usize),
    /// Longer headers than the limit.
    #[error("headers of more than {MAX_HEADER_BYTES} bytes, names and values together")]
    TooLarge,
    /// A redirect that cannot be sent.
    #[error("redirect to {0:?}: a location is an http(s) URL, or a path that begins with one `/`")]
    Location(String),
    /// A longer location than the limit.
    #[error("redirect to a location of {0} bytes: at most {MAX_LOCATION_BYTES} are allowed")]
    LongLocation(usize),
    /// A redirect status that does not redirect.
    #[error("redirect with status {0}: use 301, 302, 303, 307 or 308")]
    RedirectStatus(u16),
}

/// Headers a page may set; more would not fit what proxies accept (commonly 100 in all).
const MAX_HEADERS: usize = 64;

/// Bytes of a page's header names and values: with what wisr adds, half of the 16 KiB that proxies
/// commonly take of a response.
const MAX_HEADER_BYTES: usize = 8 << 10;

/// Bytes of a redirect's location: browsers and servers commonly take no longer request line.
const MAX_LOCATION_BYTES: usize = 8 << 10;

/// Framing and hop-by-hop fields (RFC 9110 section 7.6.1), those that the cache computes, and what
/// would take the cookies of everybody who reads the page.
const RESERVED: [&str; 20] = [
    "connection",
    "content-length",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "proxy-authenticate",
    "host",
    "content-encoding",
    "content-range",
    "accept-ranges",
    "age",
    "cache-status",
    "clear-site-data",
    "date",
    "etag",
    "last-modified",
    "vary",
];

/// Whether no guest sets the header, neither for a page nor for an answer of its own: wisr says it,
/// or a proxy in front obeys it, and would send files that it keeps to itself.
pub fn is_no_guests(name: &HeaderName) -> bool {
    let name = name.as_str();
    name.starts_with("x-wisr-")
        || matches!(
            name,
            "x-accel-redirect" | "x-lighttpd-send-file" | "x-sendfile"
        )
}

/// The cookie of who is logged in to the admin port. Browsers send the cookies of a host to all of
/// its ports, so the public one keeps it from the modules of API routes.
pub const SESSION_COOKIE: &str = "wisr-session";

/// The cookie by which an editor sees drafts: nginx knows it as `$cookie_wisr_draft`.
pub const DRAFT_COOKIE: &str = "wisr_draft";

/// What opens more than a guest may see or change: cookies know neither ports nor paths apart.
pub const OWN_COOKIES: [&str; 2] = [SESSION_COOKIE, DRAFT_COOKIE];

/// Why a guest's answer would log operators and editors out, or in as somebody else; none if it
/// leaves wisr's own cookies alone.
pub fn takes_own_cookie(headers: &HeaderMap) -> Option<String> {
    let lines = headers.get_all(header::SET_COOKIE).iter();
    let mut own = lines.filter_map(|line| {
        // Browsers send `=a=b`, a cookie without a name, as they send `a=b`.
        let is_padding = |byte: &u8| matches!(byte, b'=') || byte.is_ascii_whitespace();
        let from = line.as_bytes().iter().position(|byte| !is_padding(byte))?;
        let name = line.as_bytes()[from..]
            .split(|byte| matches!(byte, b'=' | b';'))
            .next()?;
        let name = name.trim_ascii();
        OWN_COOKIES.into_iter().find(|own| own.as_bytes() == name)
    });
    if let Some(own) = own.next() {
        return Some(format!(
            "the cookie `{own}` is wisr's to set: choose another name"
        ));
    }
    let clears = |value: &HeaderValue| {
        let value = value.as_bytes().to_ascii_lowercase();
        [&b"\"cookies\""[..], b"\"*\""]
            .iter()
            .any(|kind| value.windows(kind.len()).any(|part| part == *kind))
    };
    let all = headers.get_all("clear-site-data").iter().any(clears);
    all.then(|| {
        "`clear-site-data` would take wisr's own cookies as well: take back yours by `set-cookie` \
         with `max-age=0`"
            .to_owned()
    })
}

impl Document {
    /// Checks what a guest returned.
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub fn check<'a>(
        status: u16,
        headers: impl ExactSizeIterator<Item = (&'a str, &'a [u8])>,
        body: Bytes,
    ) -> Result<Self, Rejected> {
        let status = check_status(status)?;
        if headers.len() > MAX_HEADERS {
            return Err(Rejected::TooMany(headers.len()));
        }
        let mut checked = HeaderMap::with_capacity(headers.len() + 1);
        let mut bytes = 0;
        for (name, value) in headers {
            bytes += name.len() + value.len();
            if bytes > MAX_HEADER_BYTES {
                return Err(Rejected::TooLarge);
            }
            let (name, value) = check_header(name, value)?;
            // The cache decides how long a page lives; `public, max-age=60` from a page is moot.
            if name != header::CACHE_CONTROL {
                checked.append(name, value);
            }
        }
        checked
            .entry(header::CONTENT_TYPE)
            .or_insert(HeaderValue::from_static("text/html; charset=utf-8"));
        Ok(Self {
            status,
            headers: checked,
            body,
        })
    }
}

fn check_status(status: u16) -> Result<StatusCode, Rejected> {
    match status {
        // Without a range, which only wisr could serve, 206 means nothing (RFC 9110 section 15.3.7).
        204..=206 => Err(Rejected::Status(status)),
        200..=299 | 400..=499 => StatusCode::from_u16(status).map_err(|_| Rejected::Status(status)),
        500..=599 => Err(Rejected::ServerError(status)),
        _ => Err(Rejected::Status(status)),
    }
}

fn check_header(name: &str, value: &[u8]) -> Result<(HeaderName, HeaderValue), Rejected> {
    let invalid = || Rejected::Header(name.chars().take(80).collect());
    let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| invalid())?;
    let value = HeaderValue::from_bytes(value).map_err(|_| invalid())?;
    if name == header::SET_COOKIE {
        return Err(Rejected::Cookie);
    }
    if RESERVED.contains(&name.as_str()) || is_no_guests(&name) {
        return Err(Rejected::Reserved(name));
    }
    if name == header::CACHE_CONTROL {
        check_shared(&value)?;
    }
    Ok((name, value))
}

fn check_shared(cache_control: &HeaderValue) -> Result<(), Rejected> {
    let text = String::from_utf8_lossy(cache_control.as_bytes()).to_ascii_lowercase();
    let directive = |part: &str| part.split('=').next().unwrap_or("").trim().to_owned();
    match text
        .split(',')
        .map(directive)
        .find(|name| name == "private" || name == "no-store")
    {
        Some(name) => Err(Rejected::NotShared(name)),
        None => Ok(()),
    }
}

/// Checks a redirect's target and status.
///
/// # Errors
/// [`Rejected::Location`] or [`Rejected::RedirectStatus`].
pub fn check_redirect(location: &str, status: u16) -> Result<(HeaderValue, StatusCode), Rejected> {
    if !matches!(status, 301 | 302 | 303 | 307 | 308) {
        return Err(Rejected::RedirectStatus(status));
    }
    if location.len() > MAX_LOCATION_BYTES {
        return Err(Rejected::LongLocation(location.len()));
    }
    let refused = || Rejected::Location(location.chars().take(200).collect());
    // RFC 9110 section 10.2.2: a URI reference, which is ASCII; the rest is escaped as browsers do.
    let escaped: String =
        percent_encoding::utf8_percent_encode(location, percent_encoding::CONTROLS).collect();
    if location.is_empty() || location.chars().any(char::is_control) {
        return Err(refused());
    }
    let uri = escaped.parse::<Uri>().map_err(|_| refused())?;
    if !leads_to_a_page(&escaped, &uri) {
        return Err(refused());
    }
    let location = HeaderValue::from_str(&escaped).map_err(|_| refused())?;
    let status = StatusCode::from_u16(status).map_err(|_| Rejected::RedirectStatus(status))?;
    Ok((location, status))
}

/// Whether it is an http(s) URL or a path of this site. `//host` and `/\host`, which browsers read
/// as another host, come about when a parameter that begins with a slash follows a slash.
fn leads_to_a_page(location: &str, uri: &Uri) -> bool {
    match location.strip_prefix('/') {
        Some(rest) => !rest.starts_with(['/', '\\']),
        None => matches!(uri.scheme_str(), Some("http" | "https")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(status: u16, headers: &[(&str, &str)]) -> Result<Document, String> {
        let headers: Vec<_> = headers.iter().map(|(n, v)| (*n, v.as_bytes())).collect();
        Document::check(status, headers.into_iter(), Bytes::from_static(b"x"))
            .map_err(|rejected| rejected.to_string())
    }

    #[test]
    fn statuses() {
        for good in [200, 203, 299, 404, 410, 418, 451, 499] {
            assert!(check(good, &[]).is_ok(), "{good}");
        }
        for bad in [
            0, 99, 100, 101, 199, 204, 205, 206, 301, 304, 500, 503, 599, 600, 1000,
        ] {
            assert!(check(bad, &[]).is_err(), "{bad}");
        }
    }

    #[test]
    fn headers_of_the_connection_and_the_cache_are_refused() {
        for name in RESERVED.iter().chain(&[
            "Set-Cookie",
            "X-Wisr-Anything",
            "Transfer-Encoding",
            "X-Accel-Redirect",
        ]) {
            assert!(check(200, &[(name, "1")]).is_err(), "{name}");
        }
        for (name, value) in [
            ("bad name", "x"),
            ("x-a", "1\r\nset-cookie: a=b"),
            ("x-a", "\0"),
            ("", "x"),
        ] {
            assert!(check(200, &[(name, value)]).is_err(), "{name:?}");
        }
    }

    #[test]
    fn headers_and_locations_are_bounded() {
        let value = "x".repeat(MAX_HEADER_BYTES - 3);
        assert!(check(200, &[("x-a", &value)]).is_ok());
        let error = check(200, &[("x-b", ""), ("x-a", &value)]).unwrap_err();
        assert!(error.contains("more than 8192 bytes"), "{error}");
        let location = format!("/{}", "x".repeat(MAX_LOCATION_BYTES - 1));
        assert!(check_redirect(&location, 307).is_ok());
        let error = check_redirect(&format!("{location}x"), 307).unwrap_err();
        assert!(error.to_string().contains("8193 bytes"), "{error}");
    }

    #[test]
    fn pages_for_one_reader_are_refused_and_other_lifetimes_are_moot() {
        assert!(check(200, &[("cache-control", "Private, max-age=0")]).is_err());
        assert!(check(200, &[("Cache-Control", "max-age=0, NO-STORE")]).is_err());
        assert!(check(200, &[("cache-control", "private=\"x\"")]).is_err());
        let document = check(200, &[("cache-control", "public, max-age=60")]).unwrap();
        assert!(!document.headers.contains_key("cache-control"));
        assert_eq!(document.headers["content-type"], "text/html; charset=utf-8");
    }

    #[test]
    fn redirects() {
        assert_eq!(check_redirect("/é", 307).unwrap().0, "/%C3%A9");
        assert!(check_redirect("https://example.com/a?b#c", 308).is_ok());
        for bad in ["", "/a\r\nx: y", "/a\0", "http://[", "/a b\n"] {
            assert!(check_redirect(bad, 307).is_err(), "{bad:?}");
        }
        assert!(check_redirect("/", 300).is_err());
        assert!(check_redirect("HTTPS://example.com", 307).is_ok());
        assert!(check_redirect("/a//b?to=//c", 307).is_ok());
        for elsewhere in [
            "//evil.example/a",
            "/\\evil.example",
            "\\\\evil.example",
            "evil.example",
            "evil.example:443",
            "javascript:alert(1)",
            "javascript://x/%0aalert(1)",
            "data://text/html,x",
            "ftp://example.com/",
            "*",
        ] {
            assert!(check_redirect(elsewhere, 307).is_err(), "{elsewhere:?}");
        }
    }

    #[test]
    fn the_cookies_of_operators_and_editors_are_left_alone() {
        let rule = |name: &'static str, value: &'static str| {
            let name = HeaderName::from_static(name);
            takes_own_cookie(&HeaderMap::from_iter([(
                name,
                HeaderValue::from_static(value),
            )]))
        };
        for value in [
            "wisr-session=x; Path=/",
            " wisr-session = x",
            "=wisr-session=x",
            "\t==wisr_draft=; max-age=0",
            "wisr_draft",
        ] {
            assert!(rule("set-cookie", value).is_some(), "{value:?}");
        }
        for value in [
            "a=wisr-session",
            "wisr-sessions=1",
            "Wisr-Session=1",
            "",
            "=",
        ] {
            assert_eq!(rule("set-cookie", value), None, "{value:?}");
        }
        for (value, taken) in [
            ("\"cookies\"", true),
            ("\"cache\", \"Cookies\"", true),
            ("\"*\"", true),
            ("\"cache\", \"storage\"", false),
        ] {
            assert_eq!(rule("clear-site-data", value).is_some(), taken, "{value}");
        }
    }
}
