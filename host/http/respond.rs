//! `Reader`: what a request may vary, and the responses that entries become for it.

use std::sync::Arc;

use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Response, StatusCode};

use super::body::Body;
use super::errors::{Problem, html, link, no_store};
use super::showing::{CACHE_STATUS, Showing, X_WISR_CACHE, tell_coding};
use super::{conditional, negotiate};
use crate::page::{Content, Document, Entry, Payload};

/// The part of a request that decides which form of an entry is sent.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a> {
    pub(super) headers: &'a HeaderMap,
    pub(super) method: &'a Method,
}

/// An entry's document, which is what error pages are made of too.
struct Drawn<'a> {
    headers: &'a HeaderMap,
    body: &'a Payload,
}

impl<'a> Drawn<'a> {
    fn of(entry: &'a Entry) -> Option<Self> {
        match &entry.content {
            Content::Document { headers, body, .. } => Some(Self { headers, body }),
            Content::NotFound | Content::Redirect { .. } => None,
        }
    }
}

impl Reader<'_> {
    /// A page. `not_found` is the site's own 404 page, where it has one.
    pub(super) fn page(&self, showing: &Showing<'_>, not_found: Option<&Entry>) -> Response<Body> {
        match &showing.entry.content {
            Content::Document {
                status,
                headers,
                body,
                ..
            } => self.coded(*status, headers, body, Some(showing)),
            Content::NotFound => match not_found.and_then(Drawn::of) {
                Some(Drawn { headers, body }) => {
                    self.coded(StatusCode::NOT_FOUND, headers, body, Some(showing))
                }
                None => self.plain(Problem::NotFound.page(false), showing),
            },
            Content::Redirect { location, status } => {
                let target = String::from_utf8_lossy(location.as_bytes());
                let body = html("This page has moved", &link(&target));
                let mut response = Response::new(Body::from(body));
                *response.status_mut() = *status;
                let headers = response.headers_mut();
                headers.insert(header::LOCATION, location.clone());
                headers.insert(
                    header::CONTENT_TYPE,
                    content_type("text/html; charset=utf-8"),
                );
                self.plain(response, showing)
            }
        }
    }

    /// The props of a page, as the scripts in it read them.
    pub(super) fn data(&self, showing: &Showing<'_>) -> Response<Body> {
        let redirect = match &showing.entry.content {
            Content::Document { data, .. } => {
                let json = content_type("application/json");
                let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, json)]);
                return self.coded(StatusCode::OK, &headers, data, Some(showing));
            }
            Content::NotFound => return self.plain(Problem::NotFound.json(), showing),
            Content::Redirect { location, status } => serde_json::json!({"redirect": {
                "location": String::from_utf8_lossy(location.as_bytes()),
                "status": status.as_u16(),
            }}),
        };
        let mut response = Response::new(Body::from(redirect.to_string()));
        let json = content_type("application/json");
        response.headers_mut().insert(header::CONTENT_TYPE, json);
        self.plain(response, showing)
    }

    /// A shell: for this reader alone.
    pub(super) fn shell(&self, shell: &Arc<Document>) -> Response<Body> {
        let mut response = Response::new(Body::from(shell.body.clone()));
        *response.status_mut() = shell.status;
        let headers = response.headers_mut();
        *headers = shell.headers.clone();
        headers.insert(header::CACHE_CONTROL, no_store());
        headers.insert(X_WISR_CACHE, HeaderValue::from_static("SHELL"));
        let status = HeaderValue::from_static("wisr; fwd=uri-miss; detail=\"shell\"");
        headers.insert(CACHE_STATUS, status);
        self.sized(response)
    }

    /// An error, drawn by the site's own page for it where there is one.
    pub(super) fn problem(
        &self,
        problem: &Problem,
        own: Option<&Entry>,
        dev: bool,
    ) -> Response<Body> {
        let hidden = !(dev && matches!(problem, Problem::Failed(_)));
        let Some(drawn) = own.and_then(Drawn::of).filter(|_| hidden) else {
            return self.sized(problem.page(dev));
        };
        let mut response = self.coded(problem.status(), drawn.headers, drawn.body, None);
        response
            .headers_mut()
            .insert(header::CACHE_CONTROL, no_store());
        response
    }

    /// A body in the coding that the reader likes best, or 304. Without a `showing` it is an error
    /// page, which nobody keeps and which thus needs no validator.
    fn coded(
        &self,
        status: StatusCode,
        own: &HeaderMap,
        payload: &Payload,
        showing: Option<&Showing<'_>>,
    ) -> Response<Body> {
        let variant = negotiate::choose(self.headers, payload);
        let mut response = Response::new(Body::Empty);
        let Some(showing) = showing else {
            let headers = response.headers_mut();
            *headers = own.clone();
            tell_coding(headers, variant.coding);
            *response.status_mut() = status;
            *response.body_mut() = Body::from(variant.body.clone());
            return self.sized(response);
        };
        *response.headers_mut() = showing.head(own, variant);
        // RFC 9110 section 13.2.1: conditions count only where the answer would be a success.
        let generated = showing.entry.stamp.generated;
        if status.is_success() && conditional::unchanged(self.headers, &variant.etag, generated) {
            // Section 15.4.5: not the metadata of a body that is not sent.
            for of_body in [
                header::CONTENT_TYPE,
                header::CONTENT_LENGTH,
                header::CONTENT_ENCODING,
            ] {
                response.headers_mut().remove(of_body);
            }
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            return response;
        }
        *response.status_mut() = status;
        if *self.method != Method::HEAD {
            *response.body_mut() = Body::from(variant.body.clone());
        }
        response
    }

    /// A small body of our own for an entry that has none.
    fn plain(&self, mut response: Response<Body>, showing: &Showing<'_>) -> Response<Body> {
        let headers = response.headers_mut();
        headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
        showing.describe(headers);
        self.sized(response)
    }

    /// RFC 9110 section 9.3.2: HEAD has the headers of GET, its length among them.
    pub(super) fn sized(&self, mut response: Response<Body>) -> Response<Body> {
        if let Body::Full(bytes) = response.body() {
            let length = bytes.len().into();
            response
                .headers_mut()
                .insert(header::CONTENT_LENGTH, length);
        }
        if *self.method == Method::HEAD {
            *response.body_mut() = Body::Empty;
        }
        response
    }
}

fn content_type(text: &'static str) -> HeaderValue {
    HeaderValue::from_static(text)
}

#[cfg(test)]
#[path = "respond_tests.rs"]
pub(super) mod tests;
