//! `Reader`: what a request may vary, and the responses that entries become for it.

use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::request::Parts;
use http::{Method, Response, StatusCode};

use super::body::Body;
use super::conditional::Verdict;
use super::errors::{Problem, html, link, no_store};
use super::negotiate;
use super::showing::{CACHE_STATUS, Showing, X_WISR_CACHE, tell_coding};
use crate::page::{Content, Document, Entry, Payload, Timestamp, Variant};

/// The part of a request that decides which form of an entry is sent.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a> {
    pub(super) headers: &'a HeaderMap,
    pub(super) method: &'a Method,
}

/// Which side of an entry is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Face {
    Page,
    Data,
}

/// A side of an entry that has a body of its own.
pub(super) struct Drawn<'a> {
    pub(super) status: StatusCode,
    pub(super) headers: &'a HeaderMap,
    pub(super) body: &'a Payload,
}

/// The headers of all data.
static JSON: LazyLock<HeaderMap> = LazyLock::new(|| {
    let json = HeaderValue::from_static("application/json");
    HeaderMap::from_iter([(header::CONTENT_TYPE, json)])
});

impl<'a> Drawn<'a> {
    pub(super) fn of(entry: &'a Entry, face: Face) -> Option<Self> {
        let Content::Document {
            status,
            headers,
            body,
            data,
            ..
        } = &entry.content
        else {
            return None;
        };
        let (status, headers, body) = match face {
            Face::Page => (*status, headers, body),
            Face::Data => (StatusCode::OK, &*JSON, data),
        };
        Some(Self {
            status,
            headers,
            body,
        })
    }
}

/// A side of an entry in one coding, as it is sent to whoever does not have it already.
#[derive(Clone)]
pub(super) struct Form {
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl<'a> Reader<'a> {
    /// Who sent this request.
    pub(super) fn of(parts: &'a Parts) -> Self {
        Self {
            headers: &parts.headers,
            method: &parts.method,
        }
    }
}

impl Reader<'_> {
    /// A page. `not_found` is the site's own 404 page, where it has one.
    pub(super) fn page(&self, showing: &Showing<'_>, not_found: Option<&Entry>) -> Response<Body> {
        let (entry, status) = match &showing.entry.content {
            Content::Document { status, .. } => (Some(showing.entry), *status),
            Content::NotFound => (not_found, StatusCode::NOT_FOUND),
            Content::Redirect { location, status } => {
                return self.plain(moved(location, *status), showing);
            }
        };
        match entry.and_then(|entry| Drawn::of(entry, Face::Page)) {
            Some(drawn) => self.coded(&Drawn { status, ..drawn }, showing),
            None => self.plain(Problem::NotFound.page(false), showing),
        }
    }

    /// The props of a page, as the scripts in it read them.
    pub(super) fn data(&self, showing: &Showing<'_>) -> Response<Body> {
        if let Some(drawn) = Drawn::of(showing.entry, Face::Data) {
            return self.coded(&drawn, showing);
        }
        let Content::Redirect { location, status } = &showing.entry.content else {
            return self.plain(Problem::NotFound.json(), showing);
        };
        let drawn = Drawn {
            status: StatusCode::OK,
            headers: &JSON,
            body: &Payload::encode(Bytes::from(redirection(location, *status)), None),
        };
        self.coded(&drawn, showing)
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

    /// A draft: for this editor alone. `not_found` is the site's own 404 page, where it has one.
    pub(super) fn draft(
        &self,
        entry: &Entry,
        face: Face,
        not_found: Option<&Entry>,
    ) -> Response<Body> {
        let drawn = |entry, status: Option<StatusCode>| {
            let drawn = Drawn::of(entry, face)?;
            let variant = negotiate::choose(self.headers, drawn.body);
            let mut response = Response::new(Body::from(variant.body.clone()));
            *response.status_mut() = status.unwrap_or(drawn.status);
            response.headers_mut().clone_from(drawn.headers);
            tell_coding(response.headers_mut(), variant.coding);
            Some(response)
        };
        let response = match (&entry.content, face) {
            (Content::Document { .. }, _) => drawn(entry, None),
            (Content::Redirect { location, status }, Face::Page) => Some(moved(location, *status)),
            (Content::Redirect { location, status }, Face::Data) => {
                let mut response = Response::new(Body::from(redirection(location, *status)));
                response.headers_mut().clone_from(&JSON);
                Some(response)
            }
            (Content::NotFound, _) => {
                not_found.and_then(|entry| drawn(entry, Some(StatusCode::NOT_FOUND)))
            }
        };
        match response {
            Some(response) => self.bypassed(response),
            None => self.draft_problem(&Problem::NotFound, face, false),
        }
    }

    /// Why there is no draft.
    pub(super) fn draft_problem(&self, problem: &Problem, face: Face, dev: bool) -> Response<Body> {
        self.bypassed(match face {
            Face::Page => problem.page(dev),
            Face::Data => problem.json(),
        })
    }

    /// Says that the cache had no part in it (RFC 9211 section 2.2), and that none may keep it.
    fn bypassed(&self, mut response: Response<Body>) -> Response<Body> {
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, no_store());
        headers.insert(X_WISR_CACHE, HeaderValue::from_static("BYPASS"));
        headers.insert(CACHE_STATUS, HeaderValue::from_static("wisr; fwd=bypass"));
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
        let drawn = own.and_then(|entry| Drawn::of(entry, Face::Page));
        let Some(drawn) = drawn.filter(|_| hidden) else {
            return self.sized(problem.page(dev));
        };
        // Nobody keeps it, and thus it needs no validator.
        let variant = negotiate::choose(self.headers, drawn.body);
        let mut response = Response::new(Body::from(variant.body.clone()));
        *response.status_mut() = problem.status();
        let headers = response.headers_mut();
        headers.clone_from(drawn.headers);
        tell_coding(headers, variant.coding);
        headers.insert(header::CACHE_CONTROL, no_store());
        self.sized(response)
    }

    /// A body in the coding that the reader likes best, or 304.
    fn coded(&self, drawn: &Drawn<'_>, showing: &Showing<'_>) -> Response<Body> {
        let variant = negotiate::choose(self.headers, drawn.body);
        let form = Form {
            headers: showing.head(drawn.headers, variant),
            body: variant.body.clone(),
        };
        let verdict = self.judge(drawn.status, showing.entry.stamp.generated, variant);
        self.formed(drawn.status, form, verdict)
    }

    /// What the reader's conditions come to for this variant. RFC 9110 section 13.2.1: they count
    /// only where the answer would be a success.
    pub(super) fn judge(
        &self,
        status: StatusCode,
        generated: Timestamp,
        variant: &Variant,
    ) -> Verdict {
        match status.is_success() {
            true => Verdict::of(self.headers, || variant.etag(), generated),
            false => Verdict::Send,
        }
    }

    /// What has this form, as far as the verdict has it sent.
    pub(super) fn formed(
        &self,
        status: StatusCode,
        form: Form,
        verdict: Verdict,
    ) -> Response<Body> {
        if verdict == Verdict::Failed {
            return self.sized(Problem::Precondition.page(false));
        }
        let mut response = Response::new(Body::Empty);
        *response.status_mut() = status;
        *response.headers_mut() = form.headers;
        if verdict == Verdict::Unchanged {
            // Section 15.4.5: not the metadata of a body that is not sent.
            for of_body in [
                header::CONTENT_TYPE,
                header::CONTENT_LENGTH,
                header::CONTENT_ENCODING,
            ] {
                response.headers_mut().remove(of_body);
            }
            *response.status_mut() = StatusCode::NOT_MODIFIED;
        } else {
            *response.body_mut() = Body::from(form.body);
        }
        response
    }

    /// A small body of our own for an entry that has none: a redirect or a 404. No tag: conditions
    /// count only where the answer would be a success (RFC 9110 section 13.2.1), so that it would
    /// never be compared with anything.
    fn plain(&self, mut response: Response<Body>, showing: &Showing<'_>) -> Response<Body> {
        let headers = response.headers_mut();
        headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
        showing.describe(headers);
        self.sized(response)
    }

    /// Says how long the body is.
    pub(super) fn sized(&self, mut response: Response<Body>) -> Response<Body> {
        if let Body::Full(bytes) = response.body() {
            let length = bytes.len().into();
            response
                .headers_mut()
                .insert(header::CONTENT_LENGTH, length);
        }
        response
    }
}

/// A redirect, for a script to follow.
fn redirection(location: &HeaderValue, status: StatusCode) -> String {
    let redirect = serde_json::json!({"redirect": {
        "location": String::from_utf8_lossy(location.as_bytes()),
        "status": status.as_u16(),
    }});
    redirect.to_string()
}

fn moved(location: &HeaderValue, status: StatusCode) -> Response<Body> {
    let target = String::from_utf8_lossy(location.as_bytes());
    let mut response = Response::new(Body::from(html("This page has moved", &link(&target))));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::LOCATION, location.clone());
    let kind = HeaderValue::from_static("text/html; charset=utf-8");
    headers.insert(header::CONTENT_TYPE, kind);
    response
}

#[cfg(test)]
#[path = "respond_tests.rs"]
pub(super) mod tests;
