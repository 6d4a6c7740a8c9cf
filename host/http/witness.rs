//! `Witness`: sees one request through and tells how it was answered: a line for whoever watches, and
//! `server-timing` for an author's browser.

use std::fmt::Write;
use std::time::{Duration, Instant};

use http::header::{HeaderName, HeaderValue};
use http::{Request, Response};

use super::showing::{CACHE_STATUS, X_WISR_CACHE};
use crate::page::Cost;

/// Where the lines go in the log. `WISR_DEBUG_CACHE` asks for it.
pub(super) const TARGET: &str = "wisr::cache";

const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// One request, from its arrival on.
pub(super) struct Witness {
    request: String,
    is_api: bool,
    began: Instant,
}

/// Who wants to read a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Interest {
    /// It is about a page, an API route, or something that went wrong.
    Told,
    /// A file, or what belongs to the overlay: there are many, and they say nothing.
    Quiet,
}

impl Witness {
    /// Begins with a request.
    pub(super) fn of<B>(request: &Request<B>) -> Self {
        let uri = request.uri();
        let is_api = uri.path().starts_with("/api");
        let target = match uri.path_and_query() {
            // A query there may hold a token.
            Some(target) if !is_api => target.as_str(),
            _ => uri.path(),
        };
        Self {
            request: format!("{} {target}", request.method()),
            is_api,
            began: Instant::now(),
        }
    }

    /// The line of its answer: `GET /posts/1 200 STALE (module-changed) 3 ms`.
    pub(super) fn line<B>(&self, response: &Response<B>) -> (String, Interest) {
        let word = |name| {
            let value: Option<&HeaderValue> = response.headers().get(name);
            value.and_then(|value| value.to_str().ok())
        };
        let status = response.status().as_u16();
        let mut line = format!("{} {status}", self.request);
        let verdict = word(X_WISR_CACHE);
        // Writing to a `String` cannot fail.
        if let Some(verdict) = verdict {
            let _ = write!(line, " {verdict}");
        }
        let reason = word(CACHE_STATUS).map(reason).unwrap_or_default();
        if !reason.is_empty() {
            let _ = write!(line, " ({reason})");
        }
        let _ = write!(line, " {}", millis(self.began.elapsed()));
        let interest = match verdict.is_some() || self.is_api || status >= 400 {
            true => Interest::Told,
            false => Interest::Quiet,
        };
        (line, interest)
    }

    /// Adds what the generation took, if there was one, and the request as a whole (W3C Server
    /// Timing, section 4).
    pub(super) fn time<B>(&self, response: &mut Response<B>) {
        let mut phases = String::new();
        if let Some(cost) = response.extensions().get::<Cost>() {
            for (name, span) in [
                ("queue", cost.queue),
                ("instantiate", cost.instantiate),
                ("static-props", cost.static_props),
                ("render", cost.render),
                ("encode", cost.encode),
            ] {
                let _ = write!(phases, "{name};dur={:.3}, ", span.as_secs_f64() * 1e3);
            }
        }
        let total = self.began.elapsed().as_secs_f64() * 1e3;
        let _ = write!(phases, "total;dur={total:.3}");
        if let Ok(value) = HeaderValue::try_from(phases) {
            response.headers_mut().insert(SERVER_TIMING, value);
        }
    }
}

/// What our own `cache-status` (RFC 9211) says, in the words of a person.
fn reason(status: &str) -> String {
    let parameters = status.split("; ").skip(1);
    let words = parameters.filter_map(|parameter| match parameter.split_once('=') {
        // That it expired is told with the time since then.
        Some(("detail", words)) => {
            let words = words.trim_matches('"');
            let words = words.strip_prefix("expired").unwrap_or(words);
            let words = words.trim_start_matches(", ");
            (!words.is_empty()).then(|| words.to_owned())
        }
        Some(("fwd", "uri-miss")) => Some("first request".to_owned()),
        Some(("ttl", seconds)) => Some(match seconds.strip_prefix('-') {
            Some(seconds) => format!("expired {seconds} s ago"),
            // It has been for less than a second.
            None if status.contains("\"expired") => "expired just now".to_owned(),
            None => format!("fresh for {seconds} s"),
        }),
        None if parameter == "collapsed" => Some("waited for another request".to_owned()),
        _ => None,
    });
    words.collect::<Vec<_>>().join(", ")
}

fn millis(span: Duration) -> String {
    match span.as_millis() {
        0 => "<1 ms".to_owned(),
        millis => format!("{millis} ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(url: &str, status: u16, headers: &[(&str, &str)]) -> (String, Interest) {
        let request = Request::get(url).body(()).unwrap();
        let mut response = Response::builder().status(status);
        for (name, value) in headers {
            response = response.header(*name, *value);
        }
        Witness::of(&request).line(&response.body(()).unwrap())
    }

    #[test]
    fn a_line_says_how_a_page_came_to_be_shown_and_why() {
        for (verdict, status, expected) in [
            ("HIT", "wisr; hit", "HIT "),
            ("HIT", "wisr; hit; ttl=42", "HIT (fresh for 42 s) "),
            (
                "MISS",
                "wisr; fwd=uri-miss; stored",
                "MISS (first request) ",
            ),
            (
                "MISS",
                "wisr; fwd=stale; stored; collapsed; detail=\"module-changed\"",
                "MISS (waited for another request, module-changed) ",
            ),
            (
                "STALE",
                "wisr; hit; ttl=0; detail=\"expired\"",
                "STALE (expired just now) ",
            ),
            (
                "STALE",
                "wisr; hit; ttl=-3; detail=\"expired, back-off\"",
                "STALE (expired 3 s ago, back-off) ",
            ),
        ] {
            let headers = [("x-wisr-cache", verdict), ("cache-status", status)];
            let (line, interest) = line("/posts/1?page=2", 200, &headers);
            let line = line.strip_prefix("GET /posts/1?page=2 200 ").unwrap();
            assert!(line.starts_with(expected), "{line}");
            assert_eq!(interest, Interest::Told);
        }
    }

    #[test]
    fn files_are_quiet_and_what_went_wrong_is_not() {
        let interest = |url, status| line(url, status, &[]).1;
        assert_eq!(interest("/style.css", 200), Interest::Quiet);
        assert_eq!(interest("/_wisr/dev.js", 200), Interest::Quiet);
        assert_eq!(interest("/style.csss", 404), Interest::Told);
        assert_eq!(interest("/api/hook", 200), Interest::Told);
        let (line, _) = line("/api/revalidate?secret=abc", 401, &[]);
        assert!(line.starts_with("GET /api/revalidate 401 "), "{line}");
    }

    #[test]
    fn the_phases_of_a_generation_are_timed() {
        let witness = Witness::of(&Request::get("/").body(()).unwrap());
        let mut response = Response::new(());
        response.extensions_mut().insert(Cost {
            render: Duration::from_micros(1500),
            ..Cost::default()
        });
        witness.time(&mut response);
        let value = response.headers()[SERVER_TIMING].to_str().unwrap();
        assert!(
            value.contains("static-props;dur=0.000, render;dur=1.500, encode"),
            "{value}"
        );
        assert!(value.contains(", total;dur="), "{value}");
    }
}
