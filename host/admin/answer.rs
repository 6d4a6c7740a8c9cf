//! Responses of the admin door: text, JSON, pages, refusals; and what a browser may do with each.

use http::header::{self, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use maud::Markup;
use serde::Serialize;

use super::refusal::{Message, Refusal};
use crate::http::Body;

/// What programs read: nothing of it is loaded, run, framed or told to the next page. A line of
/// guests' text that was left unescaped would stay text.
const FOR_PROGRAMS: [(HeaderName, &str); 2] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (header::REFERRER_POLICY, "no-referrer"),
];

/// What people read: with wisr's own style and script, and forms that lead to wisr. The referrer
/// policy is the one under which browsers tell forms' origin (Fetch, section 3.1.1), which the
/// guard wants to know.
const FOR_PEOPLE: [(HeaderName, &str); 2] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; \
         connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'; \
         require-trusted-types-for 'script'; trusted-types 'none'",
    ),
    (header::REFERRER_POLICY, "same-origin"),
];

const CROSS_ORIGIN_RESOURCE_POLICY: HeaderName =
    HeaderName::from_static("cross-origin-resource-policy");

/// JSON, indented: people read it too.
pub(super) fn json(status: StatusCode, told: &impl Serialize) -> Response<Body> {
    // What we tell is made of texts and numbers, which all have a form in JSON.
    let text = serde_json::to_string_pretty(told).unwrap_or_default();
    self::text(status, "application/json", text + "\n")
}

/// A refusal, for programs.
pub(super) fn refusal(refusal: &Refusal) -> Response<Body> {
    let message = Message {
        message: &refusal.message,
    };
    with(json(refusal.status, &message), refusal)
}

/// The same response with what must accompany a refusal.
pub(super) fn with(mut response: Response<Body>, refusal: &Refusal) -> Response<Body> {
    if let Some((name, value)) = refusal.header.clone() {
        response.headers_mut().insert(name, value);
    }
    response
}

/// Text of any type, for programs.
pub(super) fn text(status: StatusCode, kind: &'static str, body: String) -> Response<Body> {
    respond(status, kind, body.into(), FOR_PROGRAMS)
}

/// A page.
pub(super) fn page(status: StatusCode, page: Markup) -> Response<Body> {
    let kind = "text/html; charset=utf-8";
    respond(status, kind, page.into_string().into(), FOR_PEOPLE)
}

/// A file that pages need, which never changes under its name.
pub(super) fn asset(kind: &'static str, body: &'static str) -> Response<Body> {
    let mut response = respond(StatusCode::OK, kind, body.into(), FOR_PROGRAMS);
    let forever = HeaderValue::from_static("public, max-age=31536000, immutable");
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, forever);
    response
}

/// RFC 9110 section 15.4.4: the answer to a form is another page, which may be loaded anew.
pub(super) fn see_other(location: &str) -> Response<Body> {
    let mut response = text(StatusCode::SEE_OTHER, "text/plain", String::new());
    // What we lead to is percent-encoded.
    if let Ok(location) = HeaderValue::from_str(location) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

fn respond(
    status: StatusCode,
    kind: &'static str,
    body: Body,
    policy: [(HeaderName, &'static str); 2],
) -> Response<Body> {
    let length = match &body {
        Body::Full(bytes) => bytes.len(),
        Body::Empty | Body::Stream(_) => 0,
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CONTENT_LENGTH, length.into());
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let common = [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (CROSS_ORIGIN_RESOURCE_POLICY, "same-origin"),
    ];
    for (name, value) in policy.into_iter().chain(common) {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}
