//! `account`: everything that is known of a failure, as HTML for the page's author: on the error page
//! and in the overlay.

use std::fmt::Write;
use std::time::Duration;

use super::errors::escape;
use crate::page::{Failure, Fetch, plural};

/// The account, without a heading. Writing to a `String` cannot fail.
pub(super) fn account(failure: &Failure) -> String {
    let mut html = String::from("<section data-wisr-failure>");
    let (kind, call) = (failure.kind.as_str(), escape(&failure.call));
    let (message, stack) = failure
        .message
        .split_once('\n')
        .unwrap_or((&failure.message, ""));
    let _ = write!(html, "<p><strong>{}</strong></p>", escape(message));
    if !stack.is_empty() {
        let _ = write!(html, "<pre>{}</pre>", escape(stack));
    }
    let cost = &failure.cost;
    let _ = write!(
        html,
        "<p>{kind} in <code>{call}</code>, after {} of CPU time, {} by the clock and with {:.1} MiB of memory</p>",
        millis(cost.cpu),
        millis(cost.wall),
        cost.memory as f64 / f64::from(1 << 20)
    );
    if !failure.frames.is_empty() {
        html.push_str("<h2>Backtrace</h2><ol>");
        for frame in &failure.frames {
            let function = escape(&frame.function);
            let _ = write!(html, "<li><code>{function}</code>");
            if let Some(place) = &frame.location {
                let _ = write!(html, " <span>{}</span>", escape(place));
            }
            html.push_str("</li>");
        }
        html.push_str("</ol>");
    }
    if !failure.stderr.is_empty() {
        preformatted(&mut html, "stderr", failure.stderr.trim_end());
    }
    if let Some(props) = failure.readable_props() {
        preformatted(&mut html, "Props", &props);
    }
    if !cost.fetches.is_empty() {
        html.push_str("<h2>Fetches</h2><ol>");
        for fetch in &cost.fetches {
            row(&mut html, fetch);
        }
        html.push_str("</ol>");
    }
    html.push_str("</section>");
    html
}

fn preformatted(html: &mut String, title: &str, text: &str) {
    let _ = write!(html, "<h2>{title}</h2><pre>{}</pre>", escape(text));
}

fn row(html: &mut String, fetch: &Fetch) {
    let (method, url) = (escape(&fetch.method), escape(&fetch.url));
    let result = match &fetch.result {
        Ok(status) => status.to_string(),
        Err(error) => format!("<b>{}</b>", escape(error)),
    };
    let _ = write!(
        html,
        "<li><code>{method} {url}</code> {result}, {}, {} byte{}</li>",
        millis(fetch.duration),
        fetch.bytes,
        plural(fetch.bytes)
    );
}

fn millis(span: Duration) -> String {
    format!("{} ms", span.as_millis())
}
