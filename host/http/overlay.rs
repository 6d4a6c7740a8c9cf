//! `Overlay`: what `wisr dev` adds to pages in a browser: errors of the build and of the page, and
//! live reload.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use http_body::Frame;
use http_body_util::StreamBody;
use serde::Serialize;
use tokio::sync::watch;

use super::account::account;
use super::body::Body;
use super::errors::{escape, no_store};
use crate::isr::Ask;
use crate::page::{Digest, Entry, Timestamp};
use crate::telemetry::Incidents;

const SCRIPT: &str = include_str!("dev.js");
const TAG: &str = "<script src=\"/_wisr/dev.js\" defer></script>";
const SEC_FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");

/// How often a silent stream says that it lives: proxies commonly cut after 60 s, and the
/// listener takes a client that has gone for one that is there until something is written.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// What the browser shows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct DevState {
    /// The release that is served; another one makes browsers reload.
    pub release: u64,
    /// Whether something is being built.
    pub building: bool,
    /// What did not build.
    pub errors: Vec<DevError>,
}

/// One page that did not build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DevError {
    /// Which page.
    pub title: String,
    /// What the compiler said.
    pub text: String,
}

/// What an author's session gives to the door.
pub struct Dev {
    /// What the browser shows.
    pub states: watch::Receiver<DevState>,
    /// Writes a line to the terminal.
    pub say: fn(&str),
}

/// The development overlay.
pub(super) struct Overlay {
    dev: Dev,
    incidents: Arc<Incidents>,
}

/// One event of the stream.
#[derive(Serialize)]
struct Event<'a> {
    #[serde(flatten)]
    state: &'a DevState,
    /// The latest incident: with another one, the page that is shown may have failed.
    incident: u64,
}

impl Overlay {
    /// An overlay that shows what the session and the incidents tell.
    pub(super) fn new(dev: Dev, incidents: Arc<Incidents>) -> Self {
        Self { dev, incidents }
    }

    /// Writes a line to the author's terminal.
    pub(super) fn say(&self, line: &str) {
        (self.dev.say)(line);
    }

    /// How the page failed when it was last made, as HTML; nothing if it did not. `entry` is what
    /// there is of it.
    pub(super) fn failure(&self, ask: &Ask, entry: Option<&Entry>) -> Response<Body> {
        let module = ask.page.renderer.module();
        let found = self
            .incidents
            .of_page(&ask.key.to_string(), &module.short());
        let found = found.filter(|incident| !is_over(incident.at, module, entry));
        let Some(failure) = found.and_then(|incident| incident.failure.clone()) else {
            let mut nothing = Response::new(Body::Empty);
            *nothing.status_mut() = StatusCode::NO_CONTENT;
            return nothing;
        };
        let (route, account) = (escape(&ask.page.route), account(&failure));
        let html = format!("<h1>{route} failed</h1>{account}");
        answer(Body::from(html), "text/html; charset=utf-8")
    }

    /// The script, or its events; none for any other path.
    pub(super) fn serve(&self, path: &str) -> Option<Response<Body>> {
        let (body, kind) = match path {
            "/_wisr/dev.js" => (Body::from(SCRIPT), "text/javascript; charset=utf-8"),
            "/_wisr/dev/events" => (self.events(), "text/event-stream"),
            _ => return None,
        };
        Some(answer(body, kind))
    }

    /// Every state from now on (server-sent events, HTML standard section 9.2).
    fn events(&self) -> Body {
        let (mut states, incidents) = (self.dev.states.clone(), self.incidents.subscribe());
        states.mark_changed();
        Body::stream(StreamBody::new(stream::unfold(
            (states, incidents),
            async |(mut states, mut incidents)| {
                let changed = async {
                    tokio::select! {
                        changed = states.changed() => changed,
                        changed = incidents.changed() => changed,
                    }
                };
                let text = match tokio::time::timeout(HEARTBEAT, changed).await {
                    Err(_) => ": still here\n\n".to_owned(),
                    Ok(Ok(())) => {
                        let event = Event {
                            state: &states.borrow_and_update(),
                            incident: *incidents.borrow_and_update(),
                        };
                        format!("data: {}\n\n", serde_json::to_string(&event).ok()?)
                    }
                    Ok(Err(_)) => return None,
                };
                let frame = Ok::<_, Infallible>(Frame::data(Bytes::from(text)));
                Some((frame, (states, incidents)))
            },
        )))
    }

    /// Whether a browser asks for a document to show. Programs get the exact bytes of a page.
    pub(super) fn wanted(headers: &HeaderMap) -> bool {
        headers
            .get(SEC_FETCH_DEST)
            .is_some_and(|dest| dest == "document")
    }

    /// Asks for the page itself: in full, and in a form that a script can be put into.
    pub(super) fn prepare(headers: &mut HeaderMap) {
        for name in [
            header::ACCEPT_ENCODING,
            header::IF_NONE_MATCH,
            header::IF_MODIFIED_SINCE,
        ] {
            headers.remove(name);
        }
    }

    /// Puts the script into an HTML page.
    pub(super) fn inject(mut response: Response<Body>) -> Response<Body> {
        let html = response
            .headers()
            .get(header::CONTENT_TYPE)
            .is_some_and(|kind| kind.as_bytes().starts_with(b"text/html"));
        if !html || response.status() == StatusCode::NOT_MODIFIED {
            return response;
        }
        let Body::Full(page) = response.body() else {
            // HEAD: how long the page with the script would be is not known without it, and need
            // not be told (RFC 9110 section 9.3.2).
            describe(response.headers_mut());
            response.headers_mut().remove(header::CONTENT_LENGTH);
            return response;
        };
        let end = page
            .windows(7)
            .rposition(|window| window.eq_ignore_ascii_case(b"</body>"))
            .unwrap_or(page.len());
        let whole = [&page[..end], TAG.as_bytes(), &page[end..]].concat();
        let headers = response.headers_mut();
        describe(headers);
        headers.insert(header::CONTENT_LENGTH, whole.len().into());
        *response.body_mut() = Body::from(Bytes::from(whole));
        response
    }
}

/// Whether `module` has made the page since it failed then.
fn is_over(at: Timestamp, module: Digest, entry: Option<&Entry>) -> bool {
    entry.is_some_and(|entry| entry.stamp.module == module && entry.stamp.generated > at)
}

fn answer(body: Body, kind: &'static str) -> Response<Body> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, no_store());
    response
}

/// A page with the script is another representation than the one that these describe.
fn describe(headers: &mut HeaderMap) {
    headers.remove(header::ETAG);
    headers.remove(header::LAST_MODIFIED);
    headers.insert(header::CACHE_CONTROL, no_store());
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    fn injected(kind: &'static str, page: &'static str) -> (HeaderMap, String) {
        let mut response = Response::new(Body::from(page));
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        headers.insert(header::ETAG, HeaderValue::from_static("\"a\""));
        let (parts, body) = Overlay::inject(response).into_parts();
        let Body::Full(page) = body else {
            panic!("the page is gone");
        };
        (parts.headers, String::from_utf8(page.to_vec()).unwrap())
    }

    #[test]
    fn the_script_goes_before_the_end_of_the_last_body() {
        let (headers, page) = injected("text/html; charset=utf-8", "a</body>b</BODY></html>");
        assert_eq!(page, format!("a</body>b{TAG}</BODY></html>"));
        assert!(!headers.contains_key(header::ETAG));
        assert_eq!(
            headers[header::CONTENT_LENGTH],
            page.len().to_string().as_str()
        );
        assert_eq!(injected("text/html", "bare").1, format!("bare{TAG}"));
    }

    #[test]
    fn a_failure_is_over_when_the_same_module_has_made_the_page() {
        let at = Timestamp::from_millis;
        let entry = super::super::respond::tests::entry(crate::page::Revalidate::Never, at(7));
        let module = entry.stamp.module;
        assert!(is_over(at(6), module, Some(&entry)));
        assert!(!is_over(at(8), module, Some(&entry)));
        assert!(!is_over(at(6), Digest::of(b"another"), Some(&entry)));
        assert!(!is_over(at(6), module, None));
    }

    #[test]
    fn a_head_without_its_page_tells_no_length() {
        let mut response = Response::new(Body::Empty);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html"));
        headers.insert(header::CONTENT_LENGTH, 7.into());
        headers.insert(header::ETAG, HeaderValue::from_static("\"a\""));
        let response = Overlay::inject(response);
        assert!(!response.headers().contains_key(header::CONTENT_LENGTH));
        assert!(!response.headers().contains_key(header::ETAG));
    }

    #[test]
    fn what_is_no_page_is_left_alone() {
        let (headers, text) = injected("application/json", "</body>");
        assert_eq!(text, "</body>");
        assert!(headers.contains_key(header::ETAG));
    }

    #[tokio::test(start_paused = true)]
    async fn browsers_hear_of_the_state_now_of_changes_and_of_silence() {
        let (sender, states) = watch::channel(DevState::default());
        let incidents = Arc::new(Incidents::default());
        let overlay = Overlay::new(
            Dev {
                states,
                say: |_| {},
            },
            incidents.clone(),
        );
        let mut body = overlay.serve("/_wisr/dev/events").unwrap().into_body();
        let mut next = async || {
            let frame = body.frame().await.unwrap().unwrap();
            String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap()
        };
        assert!(next().await.contains("\"release\":0"));
        sender.send_modify(|state| state.release = 7);
        assert!(next().await.starts_with("data: {\"release\":7,"));
        assert!(next().await.starts_with(": "));
        let now = Timestamp::from_millis(0);
        incidents.record(
            now,
            crate::telemetry::Subject::Server,
            "host",
            "it broke",
            None,
        );
        assert!(next().await.ends_with("\"incident\":1}\n\n"));
    }
}
