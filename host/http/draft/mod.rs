//! `Desk`: `/api/draft`, where an editor enters draft mode, and `/api/draft/off`, where it ends.
//! [`Draft`] says who may, `pass` is the cookie, `sketch` makes what they see.

mod pass;
mod sketch;

use http::header::{self, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, Response, StatusCode};
use tokio::time::Instant;

use super::address::Client;
use super::body::Body;
use super::errors::{escape, html, no_store};
use super::locate::pairs;
use super::reply::{Proof, message, not_allowed, refusal};
use super::revalidate::{Target, authorised};
use super::throttle::Throttle;
use crate::page::Timestamp;
use crate::release::Release;
use crate::route::Path;
pub use pass::Draft;
pub(super) use pass::may_be_in;
use pass::{host, is_https};
pub(super) use sketch::sketch;

/// Where draft mode ends.
const LEAVE: &str = "/api/draft/off";

/// What the two endpoints work with.
pub(super) struct Desk<'a> {
    pub(super) draft: Option<&'a Draft>,
    pub(super) release: &'a Release,
    pub(super) throttle: &'a Throttle,
    pub(super) now: Timestamp,
}

impl Desk<'_> {
    /// Answers a request of `client` to either.
    pub(super) fn answer(&self, path: &Path, parts: &Parts, client: Client) -> Response<Body> {
        let Some(draft) = self.draft else {
            let off = "Draft mode is off: the server has no draft token";
            return message(StatusCode::NOT_FOUND, off);
        };
        match path.as_str() {
            LEAVE => leave(draft, parts),
            _ => self.enter(draft, parts, client),
        }
    }

    fn enter(&self, draft: &Draft, parts: &Parts, client: Client) -> Response<Body> {
        if parts.method != Method::GET {
            return not_allowed("GET");
        }
        let query = parts.uri.query().unwrap_or("");
        let is_right = || authorised(query, &parts.headers, &draft.token);
        if let Err(denied) = self.throttle.admit(client, Instant::now(), is_right) {
            return refusal(denied, Proof::Token);
        }
        let target = match target(query) {
            Ok(target) => target,
            Err(mistake) => return message(StatusCode::BAD_REQUEST, &mistake),
        };
        // Nobody is sent elsewhere, and nobody to where there is no page.
        if self.release.table.matches(&target.path).next().is_none() {
            let nowhere = format!("No route has the path {}", target.path);
            return message(StatusCode::NOT_FOUND, &nowhere);
        }
        let host = host(&parts.uri, &parts.headers);
        let is_https = is_https(&parts.uri, &parts.headers);
        let pass = draft.issue(host, is_https, self.now);
        sent(StatusCode::TEMPORARY_REDIRECT, &target, pass)
    }
}

/// Only a form ends draft mode: browsers fetch links ahead that nobody has clicked.
fn leave(draft: &Draft, parts: &Parts) -> Response<Body> {
    let query = parts.uri.query().unwrap_or("");
    let target = match target(query) {
        Ok(target) => target,
        Err(mistake) => return message(StatusCode::BAD_REQUEST, &mistake),
    };
    match parts.method {
        Method::GET => ask(parts),
        // Lax cookies do not protect what only answers with one.
        Method::POST if is_cross_site(parts) => message(
            StatusCode::FORBIDDEN,
            "Draft mode is left on the site itself",
        ),
        Method::POST => {
            let is_https = is_https(&parts.uri, &parts.headers);
            sent(StatusCode::SEE_OTHER, &target, draft.revoke(is_https))
        }
        _ => not_allowed("GET, POST"),
    }
}

fn is_cross_site(parts: &Parts) -> bool {
    let site = parts.headers.get("sec-fetch-site");
    site.is_some_and(|site| site == "cross-site")
}

/// A page with the form.
fn ask(parts: &Parts) -> Response<Body> {
    let to = parts.uri.path_and_query().map_or(LEAVE, |uri| uri.as_str());
    let form = format!(
        "<form method=\"post\" action=\"{}\"><button>Leave draft mode</button></form>",
        escape(to)
    );
    let mut response = Response::new(Body::from(html("Draft mode", &form)));
    let headers = response.headers_mut();
    let kind = HeaderValue::from_static("text/html; charset=utf-8");
    headers.insert(header::CONTENT_TYPE, kind);
    headers.insert(header::CACHE_CONTROL, no_store());
    response
}

/// Where to go: `path`, or `slug`, as links that were made for Next.js call it; `/` if not said.
/// Always a path of this site, in its one spelling.
fn target(query: &str) -> Result<Target, String> {
    let mut named = pairs(query).filter(|(name, _)| matches!(&**name, "path" | "slug"));
    let written = named.next().map(|(_, value)| value.into_owned());
    Target::parse(written.unwrap_or_else(|| "/".to_owned()))
}

fn sent(status: StatusCode, target: &Target, cookie: String) -> Response<Body> {
    let location = target.location();
    let values = [
        HeaderValue::try_from(location),
        HeaderValue::try_from(cookie),
    ];
    let [Ok(location), Ok(cookie)] = values else {
        let unsent = "The query of the path has characters that a URL cannot have: escape them";
        return message(StatusCode::BAD_REQUEST, unsent);
    };
    let mut response = Response::new(Body::Empty);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::LOCATION, location);
    headers.insert(header::SET_COOKIE, cookie);
    headers.insert(header::CACHE_CONTROL, no_store());
    // The address that led here has the token in it.
    let referrer = HeaderName::from_static("referrer-policy");
    headers.insert(referrer, HeaderValue::from_static("no-referrer"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_sent_to_another_site() {
        for (query, expected) in [
            ("path=/posts/1", Some("/posts/1")),
            ("slug=/posts/1/", Some("/posts/1")),
            ("path=/search?q=%2526", Some("/search?q=%26")),
            ("path=//evil.example/a", Some("/evil.example/a")),
            ("path=/%255Cevil.example", Some("/%5Cevil.example")),
            ("path=/%5Cevil.example", Some("/%5Cevil.example")),
            ("path=/a/../../b", Some("/b")),
            ("path=/%0d%0aset-cookie:a", Some("/%0D%0Aset-cookie:a")),
            ("path=https://evil.example", None),
            ("path=evil.example", None),
            ("path=", None),
            ("", Some("/")),
        ] {
            let told = target(query).ok().map(|target| target.location());
            assert_eq!(told.as_deref(), expected, "{query}");
        }
        let broken = target("path=/a?%0d%0aset-cookie:b").unwrap();
        let response = sent(StatusCode::SEE_OTHER, &broken, String::new());
        assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    }
}
