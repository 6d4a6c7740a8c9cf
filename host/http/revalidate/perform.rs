//! `Revalidation`: what is done about a [`Call`], whoever made it: the endpoint, a webhook, a
//! module of the site.

use std::sync::Arc;

use futures_util::{StreamExt, stream};
use http::{Response, StatusCode};
use serde_json::{Map, Value, json};

use super::super::body::Body;
use super::super::locate::{Located, locate};
use super::call::{Call, Target};
use super::respond;
use crate::isr::{Ask, Isr, Refused};
use crate::page::{self, Effect, Fate, Mode, Report, Tag};
use crate::release::{Release, Releases};
use crate::route::Path;

/// Pages of one call that are made at once; the queue of generations has the last word.
const AT_ONCE: usize = 16;

/// Pages that one call regenerates for its tags; the others become stale.
const MAX_TAGGED: usize = 1_000;

/// The pages that calls are about, and what they are routed by.
#[derive(Clone)]
pub(in crate::http) struct Revalidation {
    pub(in crate::http) isr: Isr,
    pub(in crate::http) releases: Arc<Releases>,
}

impl Revalidation {
    /// Does what the call asks for, and waits for as much of it as the call waits for.
    pub(in crate::http) async fn perform(&self, call: Call) -> Report {
        let release = self.releases.current();
        let mode = call.mode.unwrap_or(Mode::Regenerate);
        let only_generated = call.only_generated;
        if !call.tags.is_empty() {
            // First: a page that is made anew below and has such a tag is fresh afterwards.
            self.isr.invalidate_tags(&call.tags);
        }
        let paths = stream::iter(call.paths).map(|target| {
            let release = &release;
            async move {
                let located = locate(release, &target.path, target.query.as_deref());
                let done = match located.map(Located::ask) {
                    Some(ask) => self.apply(ask, mode, only_generated).await,
                    None => (Effect::UnknownRoute, None),
                };
                let Target { written, .. } = target;
                fate(page::Target::Path(written), done)
            }
        });
        let mut fates: Vec<Fate> = paths.buffered(AT_ONCE).collect().await;
        let stale = |tag: &Tag| {
            let tag = page::Target::Tag(tag.as_str().to_owned());
            fate(tag, (Effect::Stale, None))
        };
        fates.extend(call.tags.iter().map(stale));
        if !call.tags.is_empty() && call.mode == Some(Mode::Regenerate) {
            fates.extend(self.regenerate_tagged(&release, &call.tags).await);
        }
        // Once for all: a disk that hangs holds a call up once, not for every page.
        let kept = match mode {
            Mode::Regenerate if call.tags.is_empty() => self.isr.persisted().await,
            _ => self.isr.synced().await,
        };
        Report {
            fates,
            unkept: kept.err().map(|degraded| degraded.to_string()),
        }
    }

    async fn apply(&self, ask: Ask, mode: Mode, only_generated: bool) -> (Effect, Option<String>) {
        let key = &ask.key;
        let effect = match mode {
            Mode::Stale => {
                self.isr.invalidate_paths([key.clone()]);
                Effect::Stale
            }
            Mode::Purge if self.isr.purge(key).await => Effect::Purged,
            Mode::Purge => Effect::Absent,
            Mode::Regenerate => match self.isr.revalidate(ask, only_generated).await {
                Ok(_) => Effect::Regenerated,
                Err(Refused::NeverGenerated) => Effect::NotGenerated,
                Err(refused @ Refused::Overloaded { .. }) => {
                    return (Effect::Overloaded, Some(refused.to_string()));
                }
                Err(refused @ Refused::Failed(_)) => {
                    return (Effect::Failed, Some(refused.to_string()));
                }
            },
        };
        (effect, None)
    }

    /// Makes the known pages with any of these tags anew.
    async fn regenerate_tagged(&self, release: &Release, tags: &[Tag]) -> Vec<Fate> {
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
                let key = page::Target::Path(ask.key.to_string());
                fate(key, self.apply(ask, Mode::Regenerate, true).await)
            })
            .buffered(AT_ONCE)
            .collect()
            .await
    }
}

fn fate(target: page::Target, (effect, message): (Effect, Option<String>)) -> Fate {
    Fate {
        target,
        effect,
        message,
    }
}

/// The answer. A failure outweighs an unknown route, and both outweigh what went well. What holds
/// but is not on disk is told: it ends with the process, unless the disk recovers before.
pub(in crate::http) fn answer(report: &Report) -> Response<Body> {
    let (status, trouble) = if report.has(Effect::Failed) {
        (StatusCode::INTERNAL_SERVER_ERROR, "Error revalidating")
    } else if report.has(Effect::Overloaded) {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "Too many pages are being made",
        )
    } else if report.has(Effect::UnknownRoute) {
        (StatusCode::NOT_FOUND, "No route has this path")
    } else {
        (StatusCode::OK, "")
    };
    let results: Vec<Value> = report.fates.iter().map(told).collect();
    let mut told = json!({"revalidated": report.is_done(), "results": results});
    if status != StatusCode::OK {
        told["message"] = trouble.into();
    }
    if let Some(warning) = report.warning() {
        told["stored"] = false.into();
        told["warning"] = warning.into();
    }
    respond(status, &told)
}

fn told(fate: &Fate) -> Value {
    let (name, value) = match &fate.target {
        page::Target::Path(path) => ("path", path),
        page::Target::Tag(tag) => ("tag", tag),
    };
    let mut told = Map::new();
    told.insert(name.to_owned(), value.as_str().into());
    told.insert("status".to_owned(), fate.effect.as_str().into());
    if let Some(message) = &fate.message {
        told.insert("message".to_owned(), message.as_str().into());
    }
    Value::Object(told)
}

#[cfg(test)]
mod tests {
    use http::header;

    use super::*;

    fn report(effects: &[Effect]) -> Report {
        let path = || page::Target::Path("/posts/1".to_owned());
        let why = |effect: Effect| (!effect.is_done()).then(|| "out of cheese".to_owned());
        let fates = effects
            .iter()
            .map(|effect| fate(path(), (*effect, why(*effect))));
        Report {
            fates: fates.collect(),
            unkept: None,
        }
    }

    fn json_of(response: Response<Body>) -> Value {
        let Body::Full(body) = response.into_body() else {
            panic!("no body");
        };
        serde_json::from_slice(&body).unwrap()
    }

    #[test]
    fn the_worst_outcome_decides_the_status() {
        use Effect::*;
        for (effects, status) in [
            (&[Regenerated, Stale, Purged][..], 200),
            (&[Absent, NotGenerated], 200),
            (&[], 200),
            (&[Regenerated, UnknownRoute], 404),
            (&[Overloaded, UnknownRoute], 503),
            (&[UnknownRoute, Failed, Overloaded], 500),
        ] {
            let response = answer(&report(effects));
            assert_eq!(response.status().as_u16(), status);
            assert_eq!(json_of(response)["revalidated"], status == 200);
        }
    }

    #[test]
    fn what_is_done_but_not_on_disk_is_told() {
        let mut report = report(&[Effect::Purged]);
        assert!(json_of(answer(&report)).get("stored").is_none());
        report.unkept = Some("no space left on device".to_owned());
        let response = answer(&report);
        assert_eq!(response.status(), StatusCode::OK);
        let full = json_of(response);
        assert_eq!(
            (&full["revalidated"], &full["stored"]),
            (&true.into(), &false.into())
        );
        let warning = full["warning"].as_str().unwrap();
        assert!(warning.starts_with("no space left on device"), "{warning}");
    }

    #[test]
    fn a_failure_is_told_as_next_tells_it_and_with_its_reason() {
        let response = answer(&report(&[Effect::Failed]));
        assert_eq!(
            response.headers()[header::CACHE_CONTROL],
            "private, no-store"
        );
        let told = json_of(response);
        assert_eq!(told["revalidated"], false);
        assert_eq!(told["message"], "Error revalidating");
        assert_eq!(told["results"][0]["path"], "/posts/1");
        assert_eq!(told["results"][0]["status"], "failed");
        assert_eq!(told["results"][0]["message"], "out of cheese");
    }
}
