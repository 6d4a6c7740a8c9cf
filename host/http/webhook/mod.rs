//! `Webhook`: `/api/webhooks/NAME`, by which systems that cannot say what `/api/revalidate` wants
//! say what they have: a payload of their own, from which `wisr.toml` makes paths and tags.
//!
//! `seal` checks whose delivery it is, `replays` whether it came before, `rule` finds the pages that
//! it means (`pointer`, `template`), and the revalidate endpoint's way does the rest.

#[cfg(test)]
mod fuzz;
mod pointer;
mod replays;
mod rule;
mod seal;
mod template;

use std::collections::BTreeMap;
use std::sync::Arc;

use http::{HeaderMap, Method, Request, Response, StatusCode};
use serde_json::{Value, json};
use tokio::runtime::Handle;
use tokio::time::Instant;

use super::address::Client;
use super::body::Body;
use super::errors::{BUSY, Problem};
use super::places::{Place, Places};
use super::reply::{Proof, message, not_allowed, refusal, respond, unproven};
use super::revalidate::{Call, Revalidation, Told};
use super::throttle::Throttle;
use super::upload;
use crate::http::Upload;
use crate::page::Report;
use replays::{Replays, Taken};
pub use rule::{Rule, RuleText};
use seal::{Proven, Unproven};
pub use seal::{Scheme, Seal};

/// Bytes of a delivery: entries with long texts fit.
const MAX_BODY: usize = 1 << 20;

/// Deliveries that are read or worked on at once, so that their bodies have a bound. Those that are
/// not proven yet are shared out among callers.
const AT_ONCE: usize = 256;

/// Bytes of all of them.
pub(super) const BODY_BYTES: u64 = (MAX_BODY * AT_ONCE) as u64;

/// The webhooks of a site, by name.
pub type Webhooks = BTreeMap<String, Arc<Webhook>>;

/// One sender, and what its deliveries mean.
#[derive(Debug, Clone)]
pub struct Webhook {
    /// What the sender proves itself by.
    pub seal: Seal,
    /// All that are for a delivery are followed.
    pub rules: Vec<Rule>,
}

/// Where deliveries arrive.
#[derive(Clone)]
pub(super) struct Mailroom {
    revalidation: Revalidation,
    threads: Handle,
    replays: Replays,
    places: Arc<Places>,
}

/// The webhook of a path below `/api/`, with its name.
pub(super) fn webhook_of<'a>(
    webhooks: &Webhooks,
    path: &'a str,
) -> Option<(&'a str, Arc<Webhook>)> {
    let name = path.strip_prefix("webhooks/")?;
    Some((name, Arc::clone(webhooks.get(name)?)))
}

impl Mailroom {
    /// Deliveries are worked on on `threads`.
    pub(super) fn new(revalidation: Revalidation, threads: Handle) -> Self {
        Self {
            revalidation,
            threads,
            replays: Replays::default(),
            places: Places::new(AT_ONCE),
        }
    }

    /// Answers a delivery of `client` to the webhook `name`.
    pub(super) async fn answer(
        &self,
        (name, webhook): (&str, &Webhook),
        request: Request<Upload>,
        (throttle, client): (&Throttle, Client),
    ) -> Response<Body> {
        let (parts, body) = request.into_parts();
        if parts.method != Method::POST {
            return not_allowed("POST");
        }
        let Some(mut place) = self.places.take(name.into(), client) else {
            return Problem::Overloaded(BUSY).json();
        };
        let seal = &webhook.seal;
        let may_be_right = || seal.is_there(&parts.headers);
        if let Err(denied) = throttle.admit(client, Instant::now(), may_be_right) {
            return refusal(denied, Proof::Signature);
        }
        let body = match upload::read(body, MAX_BODY).await {
            Ok(body) => body,
            Err(bad) => return message(bad.status(), &bad.to_string()),
        };
        let now = self.revalidation.isr.now();
        let proven = seal.check(&parts.headers, &body, now);
        let is_right = || proven != Err(Unproven::Wrong);
        if let Err(denied) = throttle.admit(client, Instant::now(), is_right) {
            return refusal(denied, Proof::Signature);
        }
        let Ok(Proven { once }) = proven else {
            let untimely = "The delivery was signed too long ago, or the clocks disagree";
            return unproven(Proof::Signature, untimely);
        };
        place.vouch();
        let taken = match once {
            None => None,
            Some((signature, until)) => match self.replays.take((name, signature), until, now) {
                Some(taken) => Some(taken),
                None => return message(StatusCode::CONFLICT, "This delivery was taken already"),
            },
        };
        match calls(webhook, &parts.headers, &body) {
            Ok(calls) => self.perform(name, calls, (taken, place)).await,
            Err(mistake) => mistake.answer(name),
        }
    }

    /// Goes on if the sender hangs up, as some do after a few seconds: what it told of has changed. So
    /// it also keeps its place.
    async fn perform(
        &self,
        name: &str,
        calls: Vec<Call>,
        (taken, place): (Option<Taken>, Place),
    ) -> Response<Body> {
        let revalidation = self.revalidation.clone();
        let working = self.threads.spawn(async move {
            let _place = place;
            let mut all = Report::default();
            for call in calls {
                all.and(revalidation.perform(call).await);
            }
            // What failed may be sent again.
            if all.is_done()
                && let Some(taken) = taken
            {
                taken.done();
            }
            all
        });
        match working.await {
            Ok(report) => {
                let (status, told) = Told::of(&report);
                respond(status, &told)
            }
            Err(lost) => {
                let lost = format!("webhook `{name}`: wisr lost the delivery: {lost}");
                message(StatusCode::INTERNAL_SERVER_ERROR, &lost)
            }
        }
    }
}

/// Why a delivery means no pages.
#[derive(Debug)]
enum Unmeant {
    /// Its body is no JSON.
    NotJson(serde_json::Error),
    /// No rule is for it, or the rules name nothing.
    Nothing,
    /// A rule is for it, and cannot be followed.
    Unmapped(String),
}

impl Unmeant {
    fn answer(&self, name: &str) -> Response<Body> {
        match self {
            Self::NotJson(error) => {
                let words = format!(
                    "webhook `{name}`: the body is no JSON ({error}): choose `application/json` \
                     where the webhook is set up"
                );
                message(StatusCode::BAD_REQUEST, &words)
            }
            Self::Nothing => {
                let words = format!("webhook `{name}`: no rule is for this delivery");
                respond(
                    StatusCode::OK,
                    &json!({"revalidated": false, "message": words}),
                )
            }
            Self::Unmapped(why) => {
                let words = format!("webhook `{name}`: {why}");
                message(StatusCode::UNPROCESSABLE_ENTITY, &words)
            }
        }
    }
}

/// What a delivery demands: all of it is understood before anything is done.
fn calls(webhook: &Webhook, headers: &HeaderMap, body: &[u8]) -> Result<Vec<Call>, Unmeant> {
    let payload: Value = serde_json::from_slice(body).map_err(Unmeant::NotJson)?;
    let mut calls = Vec::new();
    for rule in &webhook.rules {
        let demand = rule.demand(headers, &payload);
        let demand = demand.map_err(|why| Unmeant::Unmapped(why.to_string()))?;
        if let Some(demand) = demand.filter(|demand| !demand.is_empty()) {
            calls.push(Call::of(demand).map_err(Unmeant::Unmapped)?);
        }
    }
    if calls.is_empty() {
        return Err(Unmeant::Nothing);
    }
    Ok(calls)
}
