//! `Problem`: the one table of errors to statuses, and the pages that tell of them.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use http::header::{self, HeaderValue};
use http::{Response, StatusCode};

use super::account::account;
use super::body::Body;
use super::hosts::{self, stranger};
use super::upload::BadUpload;
use crate::isr::Refused;
use crate::page::{Failure, plural};
use crate::release::ApiError;
use crate::route::BadPath;

/// When to try again after too many requests to API routes or webhooks: most of them take less.
pub(super) const BUSY: Duration = Duration::from_secs(1);

/// Why a request gets no page.
#[derive(Debug)]
pub(super) enum Problem {
    /// The `host` header is wrong in this way.
    Host(&'static str),
    /// An author's server is called by this name, which is none of its own.
    Stranger(String),
    /// The request breaks this rule of HTTP.
    Malformed(&'static str),
    /// The body is coded in a way that is not known here.
    Coding,
    /// More is expected than can be done.
    Expectation,
    /// The head has too many bytes or lines.
    HeadTooLarge,
    /// The URL is too long.
    UrlTooLong,
    /// The path means nothing.
    Path(BadPath),
    /// The page is at this URL.
    Elsewhere(String),
    /// The body was not read.
    Upload(BadUpload),
    /// It is not what the reader's conditions name.
    Precondition,
    /// Pages can only be read.
    Method,
    /// There is no such page.
    NotFound,
    /// The page failed, and there is no last good one.
    Failed(Arc<Failure>),
    /// A draft failed. Who sees it may know why: it holds a pass.
    Draft(Arc<Failure>),
    /// Too much is being made.
    Overloaded(Duration),
    /// The client had too much made.
    TooMany(Duration),
    /// A static file is there and cannot be read.
    Unreadable,
    /// The server itself is at fault.
    Panicked,
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Failed(failure) => Self::Failed(failure),
            Refused::Overloaded { retry_after } => Self::Overloaded(retry_after),
            Refused::Throttled { retry_after } => Self::TooMany(retry_after),
            Refused::NeverGenerated => Self::NotFound,
        }
    }
}

impl From<ApiError> for Problem {
    fn from(error: ApiError) -> Self {
        match error {
            ApiError::Busy => Self::Overloaded(BUSY),
            ApiError::Failed(failure) => Self::Failed(failure),
        }
    }
}

impl Problem {
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::Host(_) | Self::Malformed(_) | Self::Path(_) => StatusCode::BAD_REQUEST,
            Self::Stranger(_) => StatusCode::MISDIRECTED_REQUEST,
            Self::Coding => StatusCode::NOT_IMPLEMENTED,
            Self::Expectation => StatusCode::EXPECTATION_FAILED,
            Self::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::UrlTooLong => StatusCode::URI_TOO_LONG,
            Self::Upload(bad) => bad.status(),
            Self::Elsewhere(_) => StatusCode::PERMANENT_REDIRECT,
            Self::Precondition => StatusCode::PRECONDITION_FAILED,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::Failed(_) | Self::Draft(_) | Self::Unreadable | Self::Panicked => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
            Self::Overloaded(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::TooMany(_) => StatusCode::TOO_MANY_REQUESTS,
        }
    }

    fn title(&self) -> &'static str {
        match self {
            Self::Host(_) | Self::Malformed(_) | Self::Path(_) => "Bad request",
            Self::Coding | Self::Expectation => "The request cannot be met",
            Self::Stranger(_) => "This server has another name",
            Self::HeadTooLarge => "The request is too long",
            Self::UrlTooLong => "The address is too long",
            Self::Upload(_) => "The request was not read",
            Self::Elsewhere(_) => "This page has moved",
            Self::Precondition => "It is another one now",
            Self::Method => "Method not allowed",
            Self::NotFound => "This page could not be found",
            Self::Failed(_) => "This page failed",
            Self::Draft(_) => "This draft failed",
            Self::Overloaded(_) => "The server is busy",
            Self::TooMany(_) => "Too many requests",
            Self::Unreadable => "This file failed",
            Self::Panicked => "The server failed",
        }
    }

    /// What a reader is told. A failure's details are for the site's author, not for everybody: an
    /// editor is told what the page said, and not what it fetched or wrote to stderr.
    pub(super) fn explain(&self) -> String {
        match self {
            Self::Host(wrong) => format!("The `host` header {wrong}."),
            Self::Stranger(name) => format!("{}.", stranger(name, hosts::KEY)),
            Self::Malformed(rule) => format!("{rule}."),
            Self::Coding => "A body may be `chunked`, and coded in no other way.".to_owned(),
            Self::Expectation => "Only `100-continue` can be expected.".to_owned(),
            Self::Unreadable => "It is there, and could not be read.".to_owned(),
            Self::Panicked => "This request could not be answered.".to_owned(),
            Self::HeadTooLarge => "A head has at most 32 KiB and 100 lines.".to_owned(),
            Self::UrlTooLong => "A URL has at most 8 KiB.".to_owned(),
            Self::Upload(bad) => format!("{bad}."),
            Self::Path(bad) => format!("The address cannot be read: {bad}."),
            Self::Elsewhere(_) => "It has another address.".to_owned(),
            Self::Precondition => {
                "It is not what `if-match` or `if-unmodified-since` names: read it without them."
                    .to_owned()
            }
            Self::Method => "Pages are read with GET or HEAD.".to_owned(),
            Self::NotFound => "Nothing is published at this address.".to_owned(),
            Self::Failed(_) => "It could not be made. The next request tries again.".to_owned(),
            Self::Draft(failure) => {
                let failure = failure.to_string();
                let first = failure.lines().next().unwrap_or_default();
                format!("{first}. Readers go on getting the page that is published.")
            }
            Self::Overloaded(after) | Self::TooMany(after) => {
                let seconds = seconds(*after);
                format!("Please try again in {seconds} second{}.", plural(seconds))
            }
        }
    }

    /// The built-in page. In `dev` a failure tells everything it knows.
    pub(super) fn page(&self, dev: bool) -> Response<Body> {
        let (status, title) = (self.status(), self.title());
        let mut main = String::new();
        match self {
            Self::Elsewhere(location) => main.push_str(&link(location)),
            Self::Failed(failure) | Self::Draft(failure) if dev => main.push_str(&account(failure)),
            _ => {
                let _ = write!(main, "<p>{}</p>", escape(&self.explain()));
            }
        }
        let heading = format!("{}: {title}", status.as_u16());
        let mut response = Response::new(Body::from(html(&heading, &main)));
        self.head(&mut response, "text/html; charset=utf-8");
        response
    }

    /// The same for programs.
    pub(super) fn json(&self) -> Response<Body> {
        let body = match self {
            Self::NotFound => serde_json::json!({"notFound": true}),
            _ => serde_json::json!({"message": self.explain()}),
        };
        let mut response = Response::new(Body::from(body.to_string()));
        self.head(&mut response, "application/json");
        response
    }

    /// The status and what must accompany it.
    pub(super) fn head(&self, response: &mut Response<Body>, content_type: &'static str) {
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        headers.insert(header::CACHE_CONTROL, no_store());
        match self {
            Self::Elsewhere(location) => {
                // The path is canonical and the query was a part of a valid URL.
                if let Ok(location) = HeaderValue::from_bytes(location.as_bytes()) {
                    headers.insert(header::LOCATION, location);
                }
                // The spelling of a URL never becomes right: clients may remember.
                let public = HeaderValue::from_static("public, max-age=3600");
                headers.insert(header::CACHE_CONTROL, public);
            }
            Self::Method => {
                headers.insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            }
            Self::Overloaded(after) | Self::TooMany(after) => {
                headers.insert(header::RETRY_AFTER, seconds(*after).into());
            }
            _ => {}
        }
    }
}

/// Whole seconds that somebody is told to wait (RFC 9110 section 10.2.3), none too few.
pub fn seconds(wait: Duration) -> u64 {
    let seconds = u64::try_from(wait.as_millis().div_ceil(1000));
    seconds.unwrap_or(u64::MAX).max(1)
}

/// For what no cache may keep.
pub(super) fn no_store() -> HeaderValue {
    HeaderValue::from_static("private, no-store")
}

/// A paragraph with a link.
pub(super) fn link(location: &str) -> String {
    let location = escape(location);
    format!("<p>It is at <a href=\"{location}\">{location}</a>.</p>")
}

/// A small page of wisr's own.
pub(super) fn html(heading: &str, main: &str) -> String {
    let heading = escape(heading);
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <meta name=\"robots\" content=\"noindex\"><title>{heading}</title><style>{STYLE}</style>\
         </head><body><main><h1>{heading}</h1>{main}</main></body></html>\n"
    )
}

const STYLE: &str = ":root{color-scheme:light dark}\
body{font:1rem/1.5 system-ui,sans-serif;margin:0}\
main{max-width:60rem;margin:0 auto;padding:10vh 1.5rem}h1{font-size:1.4rem}\
pre{overflow:auto;padding:1rem;border:1px solid;white-space:pre-wrap}";

/// Text for HTML, in content and in quoted attributes.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::{FailureKind, Fetch, Frame};

    fn text(response: Response<Body>) -> String {
        match response.into_body() {
            Body::Full(bytes) => String::from_utf8(bytes.to_vec()).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    fn failure() -> Arc<Failure> {
        let mut failure = Failure::new(FailureKind::Trap, "render", "<b>bad</b>");
        failure.stderr = "panicked at <script>".to_owned();
        failure.frames.push(Frame {
            function: "page::render<T>".to_owned(),
            location: Some("page.rs:3".to_owned()),
        });
        failure.props = Some("{\"title\":\"<i>\"}".to_owned());
        failure.cost.fetches.push(Fetch {
            method: "GET".to_owned(),
            url: "http://a/?x=<y>".to_owned(),
            result: Err("refused".to_owned()),
            began: Duration::ZERO,
            duration: Duration::from_millis(7),
            bytes: 0,
        });
        Arc::new(failure)
    }

    #[test]
    fn the_table() {
        let after = Duration::from_millis(1500);
        for (problem, status) in [
            (Problem::Host("is missing"), 400),
            (Problem::Stranger("a".to_owned()), 421),
            (Problem::Malformed("is none"), 400),
            (Problem::Coding, 501),
            (Problem::Expectation, 417),
            (Problem::Unreadable, 500),
            (Problem::Panicked, 500),
            (Problem::HeadTooLarge, 431),
            (Problem::UrlTooLong, 414),
            (Problem::Path(BadPath::Escape), 400),
            (Problem::Elsewhere("/a".to_owned()), 308),
            (Problem::Precondition, 412),
            (Problem::Method, 405),
            (Problem::Upload(BadUpload::TooLarge(1024)), 413),
            (Problem::Upload(BadUpload::BrokeOff), 400),
            (Problem::Upload(BadUpload::TooSlow), 408),
            (Problem::from(Refused::NeverGenerated), 404),
            (Problem::from(Refused::Failed(failure())), 500),
            (
                Problem::from(Refused::Overloaded { retry_after: after }),
                503,
            ),
            (
                Problem::from(Refused::Throttled { retry_after: after }),
                429,
            ),
        ] {
            for response in [problem.page(false), problem.json()] {
                assert_eq!(response.status().as_u16(), status);
                let control = response.headers()[header::CACHE_CONTROL].to_str().unwrap();
                assert_eq!(control == "private, no-store", status != 308, "{status}");
                assert!(!control.contains("s-maxage"));
            }
        }
        assert_eq!(
            Problem::Method.page(false).headers()[header::ALLOW],
            "GET, HEAD"
        );
        assert_eq!(
            Problem::Overloaded(after).json().headers()[header::RETRY_AFTER],
            "2"
        );
        let told = Problem::Overloaded(after).explain();
        assert_eq!(told, "Please try again in 2 seconds.");
    }

    #[test]
    fn a_failure_is_told_to_its_author_only_and_escaped() {
        let problem = Problem::Failed(failure());
        let public = text(problem.page(false));
        assert!(!public.contains("bad") && !public.contains("panicked"));
        let told = text(problem.page(true));
        for part in [
            "&lt;b&gt;bad&lt;/b&gt;",
            "trap in <code>render</code>",
            "panicked at &lt;script&gt;",
            "page::render&lt;T&gt;",
            "page.rs:3",
            "GET http://a/?x=&lt;y&gt;</code> <b>refused</b>, 7 ms",
            "&quot;title&quot;: &quot;&lt;i&gt;&quot;",
        ] {
            assert!(told.contains(part), "{part} in {told}");
        }
    }

    #[test]
    fn a_link_cannot_break_out_of_its_attribute() {
        let told = text(Problem::Elsewhere("/a?\"onclick='x'".to_owned()).page(false));
        assert!(
            told.contains("href=\"/a?&quot;onclick=&#39;x&#39;\""),
            "{told}"
        );
    }
}
