//! `FetchLog`: the outgoing requests of one generation, for its incident page and the log.

use std::sync::Arc;
use std::time::Duration;

use http::{Request, StatusCode};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::page::Fetch;

use super::refusal::Refusal;

/// Bytes of a URL, or of a reason that quotes one, that are kept: a URL may have 64 KiB, and a generation's incident must stay
/// readable.
const MAX_URL: usize = 2048;

/// Bytes of all URLs and reasons of a generation that are kept; what comes later is cut to
/// [`SHORT_URL`]. An incident, and every page, keeps them.
const MAX_URLS: usize = 32 << 10;

/// Bytes of a URL, or of a reason, once there are many.
const SHORT_URL: usize = 128;

/// The requests of one session, in order.
pub(super) struct FetchLog {
    route: Arc<str>,
    begun: Instant,
    rows: Mutex<Rows>,
}

#[derive(Default)]
struct Rows {
    list: Vec<Fetch>,
    /// Bytes of URLs and reasons that were kept.
    text: usize,
}

impl Rows {
    fn keep(&mut self, mut text: String) -> String {
        let most = if self.text < MAX_URLS {
            MAX_URL
        } else {
            SHORT_URL
        };
        if text.len() > most {
            text.truncate(text.floor_char_boundary(most));
            text.push('…');
        }
        self.text += text.len();
        text
    }
}

/// One request being made. Dropping it writes its line to the log.
pub(super) struct Record {
    log: Arc<FetchLog>,
    /// Its row; none beyond the first request over the limit, so that a loop cannot fill memory.
    row: Option<usize>,
    started: Instant,
    refused: Option<&'static str>,
}

impl FetchLog {
    pub(super) fn new(route: Arc<str>) -> Arc<Self> {
        Arc::new(Self {
            route,
            begun: Instant::now(),
            rows: Mutex::default(),
        })
    }

    pub(super) fn rows(&self) -> Vec<Fetch> {
        self.rows.lock().list.clone()
    }

    /// Opens the record of `request`; the second value says whether it is among the first `limit`.
    pub(super) fn open<B>(self: &Arc<Self>, request: &Request<B>, limit: u32) -> (Record, bool) {
        let mut rows = self.rows.lock();
        let row = rows.list.len();
        let limit = limit as usize;
        if row <= limit {
            let url = rows.keep(shown(request.uri()));
            let method = rows.keep(request.method().to_string());
            rows.list.push(Fetch {
                method,
                url,
                result: Err("the generation ended before the answer came".to_owned()),
                began: self.begun.elapsed(),
                duration: Duration::ZERO,
                bytes: 0,
            });
        }
        let record = Record {
            log: Arc::clone(self),
            row: (row <= limit).then_some(row),
            started: Instant::now(),
            refused: None,
        };
        (record, row < limit)
    }
}

impl Record {
    fn update(&self, change: impl FnOnce(&mut Fetch)) {
        let mut rows = self.log.rows.lock();
        if let Some(row) = self.row.and_then(|row| rows.list.get_mut(row)) {
            change(row);
        }
    }

    /// The head of the answer is here.
    pub(super) fn answered(&self, status: StatusCode) {
        let duration = self.started.elapsed();
        self.update(|row| {
            row.result = Ok(status.as_u16());
            row.duration = duration;
        });
    }

    /// The guest has read so many bytes more.
    pub(super) fn received(&self, bytes: u64) {
        self.update(|row| row.bytes += bytes);
    }

    /// It failed, before or after the head.
    pub(super) fn refused(&mut self, refusal: &Refusal) {
        self.refused = Some(refusal.as_str());
        let duration = self.started.elapsed();
        let words = self.log.rows.lock().keep(refusal.to_string());
        self.update(|row| {
            row.result = Err(match row.result {
                Ok(status) => format!("status {status}, then: {words}"),
                Err(_) => {
                    row.duration = duration;
                    words
                }
            });
        });
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let (log, refused, total) = (Arc::clone(&self.log), self.refused, self.started.elapsed());
        self.update(|row| {
            let route = &*log.route;
            let total_ms = total.as_millis();
            let Fetch {
                method, url, bytes, ..
            } = &*row;
            let head_ms = row.duration.as_millis();
            match &row.result {
                Ok(status) => tracing::info!(
                    target: "wisr::fetch",
                    route, method, url, status, head_ms, total_ms, bytes, "fetched"
                ),
                Err(reason) => tracing::warn!(
                    target: "wisr::fetch",
                    route, method, url, kind = refused.unwrap_or("abandoned"), total_ms, bytes,
                    "no answer: {reason}"
                ),
            }
        });
    }
}

/// The URL for people: passwords left out.
fn shown(uri: &http::Uri) -> String {
    let scheme = uri.scheme_str().unwrap_or_default();
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let host = authority.rsplit('@').next().unwrap_or(authority);
    let path = uri.path_and_query().map_or("", |path| path.as_str());
    format!("{scheme}://{host}{path}")
}
