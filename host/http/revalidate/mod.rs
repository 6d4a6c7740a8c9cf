//! `Endpoint`: `/api/revalidate`, by which content systems say that something has changed.

mod call;
#[cfg(test)]
mod fuzz;

use std::net::IpAddr;

use futures_util::{StreamExt, stream};
use http::header::{self, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::Secret;
use super::body::Body;
use super::errors::no_store;
use super::locate::{Located, locate};
use super::throttle::{Denied, Throttle};
use super::upload;
use crate::isr::{Ask, Isr, Refused};
use crate::page::Tag;
use crate::release::{Release, Releases};
use crate::route::Path;
use crate::store::{Degraded, SharedHealth, Trouble};
use call::{Call, Mode, Target, authorised};

/// Bytes of a body: a thousand long paths.
const MAX_BODY: usize = 64 * 1024;

/// Pages of one call that are made at once; the queue of generations has the last word.
const AT_ONCE: usize = 16;

/// Pages that one call regenerates for its tags; the others become stale.
const MAX_TAGGED: usize = 1_000;

/// What the endpoint works with.
pub(super) struct Endpoint<'a> {
    pub(super) isr: &'a Isr,
    pub(super) releases: &'a Releases,
    pub(super) token: Option<&'a Secret>,
    pub(super) throttle: &'a Throttle,
}

/// How it went for one path.
enum Done {
    Regenerated,
    Stale,
    Purged,
    Absent,
    NotGenerated,
    UnknownRoute,
    Refused(Refused),
}

impl Done {
    fn as_str(&self) -> &'static str {
        match self {
            Done::Regenerated => "regenerated",
            Done::Stale => "stale",
            Done::Purged => "purged",
            Done::Absent => "absent",
            Done::NotGenerated => "not-generated",
            Done::UnknownRoute => "unknown-route",
            Done::Refused(Refused::Overloaded { .. }) => "overloaded",
            Done::Refused(_) => "failed",
        }
    }

    fn told(&self, name: &str, value: &str) -> Value {
        let mut told = Map::new();
        told.insert(name.to_owned(), value.into());
        told.insert("status".to_owned(), self.as_str().into());
        if let Done::Refused(refused) = self {
            told.insert("message".to_owned(), refused.to_string().into());
        }
        Value::Object(told)
    }
}

impl Endpoint<'_> {
    /// Answers one call from `address`.
    pub(super) async fn answer(
        &self,
        request: Request<Incoming>,
        address: IpAddr,
    ) -> Response<Body> {
        let Some(token) = self.token else {
            let off = "The revalidate endpoint is off: the server has no token";
            return message(StatusCode::NOT_FOUND, off);
        };
        let (parts, body) = request.into_parts();
        if !matches!(parts.method, Method::GET | Method::POST) {
            let mut response = message(StatusCode::METHOD_NOT_ALLOWED, "Use GET or POST");
            let allow = HeaderValue::from_static("GET, POST");
            response.headers_mut().insert(header::ALLOW, allow);
            return response;
        }
        let query = parts.uri.query().unwrap_or("");
        let is_right = || authorised(query, &parts.headers, token);
        if let Err(denied) = self.throttle.admit(address, Instant::now(), is_right) {
            return refusal(denied);
        }
        let body = match upload::read(body, MAX_BODY).await {
            Ok(body) => body,
            Err(bad) => return message(bad.status(), &bad.to_string()),
        };
        match Call::parse(query, &body) {
            Ok(call) => self.perform(call).await,
            Err(mistake) => message(StatusCode::BAD_REQUEST, &mistake),
        }
    }

    async fn perform(&self, call: Call) -> Response<Body> {
        let release = self.releases.current();
        let mode = call.mode.unwrap_or(Mode::Regenerate);
        let only_generated = call.only_generated;
        if !call.tags.is_empty() {
            // First: a page that is made anew below and has such a tag is fresh afterwards.
            self.isr.invalidate_tags(&call.tags);
        }
        let outcomes: Vec<(Target, Done)> = stream::iter(call.paths)
            .map(|target| {
                let release = &release;
                async move {
                    let located = locate(release, &target.path, target.query.as_deref());
                    let done = match located.map(Located::ask) {
                        Some(ask) => self.apply(ask, mode, only_generated).await,
                        None => Done::UnknownRoute,
                    };
                    (target, done)
                }
            })
            .buffered(AT_ONCE)
            .collect()
            .await;
        let told = |(target, done): &(Target, Done)| done.told("path", &target.written);
        let mut results: Vec<Value> = outcomes.iter().map(told).collect();
        let mut outcomes: Vec<Done> = outcomes.into_iter().map(|(_, done)| done).collect();
        let stale = |tag: &Tag| Done::Stale.told("tag", tag.as_str());
        results.extend(call.tags.iter().map(stale));
        if !call.tags.is_empty() && call.mode == Some(Mode::Regenerate) {
            for (key, done) in self.regenerate_tagged(&release, &call.tags).await {
                results.push(done.told("path", &key));
                outcomes.push(done);
            }
        }
        // Once for all: a disk that hangs holds a call up once, not for every page.
        let kept = async {
            match mode {
                Mode::Regenerate if call.tags.is_empty() => self.isr.persisted().await,
                _ => self.isr.synced().await,
            }
        };
        let (kept, told) = tokio::join!(kept, self.isr.told());
        let missing = Missing {
            stored: kept.err(),
            told: told.err(),
            is_shared: self.isr.shared_health() != SharedHealth::Off,
        };
        summary(&outcomes, results, &missing)
    }

    async fn apply(&self, ask: Ask, mode: Mode, only_generated: bool) -> Done {
        let key = &ask.key;
        match mode {
            Mode::Stale => {
                self.isr.invalidate_paths([key.clone()]);
                Done::Stale
            }
            Mode::Purge if self.isr.purge(&ask).await => Done::Purged,
            Mode::Purge => Done::Absent,
            Mode::Regenerate => match self.isr.revalidate(ask, only_generated).await {
                Ok(_) => Done::Regenerated,
                Err(Refused::NeverGenerated) => Done::NotGenerated,
                Err(refused) => Done::Refused(refused),
            },
        }
    }

    /// Makes the known pages with any of these tags anew.
    async fn regenerate_tagged(&self, release: &Release, tags: &[Tag]) -> Vec<(String, Done)> {
        let known = self.isr.tagged(tags, MAX_TAGGED).await;
        let tagged = known.iter().filter_map(|key| {
            let (path, query) = match key.as_str().split_once('?') {
                Some((path, query)) => (path, Some(query)),
                None => (key.as_str(), None),
            };
            locate(release, &Path::parse(path).ok()?, query).map(Located::ask)
        });
        let tagged: Vec<Ask> = tagged.collect();
        stream::iter(tagged)
            .map(async |ask| {
                let key = ask.key.to_string();
                (key, self.apply(ask, Mode::Regenerate, true).await)
            })
            .buffered(AT_ONCE)
            .collect()
            .await
    }
}

/// What a call has not reached, though it holds on this host.
#[derive(Default)]
struct Missing {
    /// It is not on disk: it ends with the process, unless the disk recovers before.
    stored: Option<Degraded>,
    /// The other hosts were not told: they are once Redis is back.
    told: Option<Trouble>,
    is_shared: bool,
}

impl Missing {
    fn tell(&self, told: &mut Value) {
        let mut warnings = Vec::new();
        if let Some(why) = &self.stored {
            told["stored"] = false.into();
            warnings.push(format!(
                "{why}: this holds until wisr ends, and is stored once the disk recovers"
            ));
        }
        if self.is_shared {
            told["propagated"] = self.told.is_none().into();
        }
        if let Some(why) = &self.told {
            warnings.push(format!(
                "{why}: this holds on this host, and the others are told once Redis recovers"
            ));
        }
        if !warnings.is_empty() {
            told["warning"] = warnings.join("; ").into();
        }
    }
}

/// A failure outweighs an unknown route, and both outweigh what went well. What went well here but
/// is not known to the other hosts is only accepted.
fn summary(outcomes: &[Done], results: Vec<Value>, missing: &Missing) -> Response<Body> {
    let any = |kind: fn(&Done) -> bool| outcomes.iter().any(kind);
    let (status, trouble) = if any(|done| matches!(done, Done::Refused(Refused::Failed(_)))) {
        (StatusCode::INTERNAL_SERVER_ERROR, "Error revalidating")
    } else if any(|done| matches!(done, Done::Refused(_))) {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "Too many pages are being made",
        )
    } else if any(|done| matches!(done, Done::UnknownRoute)) {
        (StatusCode::NOT_FOUND, "No route has this path")
    } else if missing.told.is_some() {
        (StatusCode::ACCEPTED, "")
    } else {
        (StatusCode::OK, "")
    };
    let mut told = json!({"revalidated": status.is_success(), "results": results});
    if !status.is_success() {
        told["message"] = trouble.into();
    }
    missing.tell(&mut told);
    respond(status, &told)
}

fn refusal(denied: Denied) -> Response<Body> {
    let Denied::TooOften(wait) = denied else {
        return message(StatusCode::UNAUTHORIZED, "Invalid token");
    };
    let mut response = message(StatusCode::TOO_MANY_REQUESTS, "Too many invalid tokens");
    let seconds = wait.as_millis().div_ceil(1000) as u64;
    let headers = response.headers_mut();
    headers.insert(header::RETRY_AFTER, seconds.into());
    response
}

fn message(status: StatusCode, text: &str) -> Response<Body> {
    respond(status, &json!({"message": text}))
}

fn respond(status: StatusCode, told: &Value) -> Response<Body> {
    let mut response = Response::new(Body::from(told.to_string()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    let json = HeaderValue::from_static("application/json");
    headers.insert(header::CONTENT_TYPE, json);
    headers.insert(header::CACHE_CONTROL, no_store());
    response
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use std::time::Duration;

    use super::*;
    use crate::page::{Failure, FailureKind};

    fn failed() -> Done {
        let failure = Failure::new(FailureKind::Trap, "render", "out of cheese");
        Done::Refused(Refused::Failed(Arc::new(failure)))
    }

    fn overloaded() -> Done {
        let retry_after = Duration::from_secs(1);
        Done::Refused(Refused::Overloaded { retry_after })
    }

    #[test]
    fn the_worst_outcome_decides_the_status() {
        for (outcomes, status) in [
            (vec![Done::Regenerated, Done::Stale, Done::Purged], 200),
            (vec![Done::Absent, Done::NotGenerated], 200),
            (vec![], 200),
            (vec![Done::Regenerated, Done::UnknownRoute], 404),
            (vec![overloaded(), Done::UnknownRoute], 503),
            (vec![Done::UnknownRoute, failed(), overloaded()], 500),
        ] {
            assert_eq!(
                summary(&outcomes, Vec::new(), &Missing::default())
                    .status()
                    .as_u16(),
                status
            );
        }
    }

    #[test]
    fn what_is_done_but_not_on_disk_is_told() {
        let told = |stored| {
            let missing = Missing {
                stored,
                ..Missing::default()
            };
            let response = summary(&[Done::Purged], Vec::new(), &missing);
            assert_eq!(response.status(), StatusCode::OK);
            let Body::Full(body) = response.into_body() else {
                panic!("no body");
            };
            serde_json::from_slice::<Value>(&body).unwrap()
        };
        assert!(told(None).get("stored").is_none());
        let full = told(Some(Degraded::Disk("no space left on device".into())));
        assert_eq!(
            (&full["revalidated"], &full["stored"]),
            (&true.into(), &false.into())
        );
        let warning = full["warning"].as_str().unwrap();
        assert!(warning.starts_with("no space left on device"), "{warning}");
    }

    #[test]
    fn a_failure_is_told_as_next_tells_it_and_with_its_reason() {
        let done = failed();
        let results = vec![done.told("path", "/posts/1")];
        let response = summary(&[done], results, &Missing::default());
        assert_eq!(
            response.headers()[header::CACHE_CONTROL],
            "private, no-store"
        );
        let Body::Full(body) = response.into_body() else {
            panic!("no body");
        };
        let told: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(told["revalidated"], false);
        assert_eq!(told["message"], "Error revalidating");
        assert_eq!(told["results"][0]["path"], "/posts/1");
        assert_eq!(told["results"][0]["status"], "failed");
        let reason = told["results"][0]["message"].as_str().unwrap();
        assert!(reason.contains("out of cheese"), "{reason}");
    }
}
