//! What failed: the latest, and each with everything that is known of it.

use std::sync::Arc;

use http::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::Admin;
use super::super::refusal::Refusal;
use super::entries::Limit;
use super::operation::{Operation, Told};
use crate::telemetry::Incident;

/// Which incidents are listed.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in crate::admin) struct Query {
    /// How many, at most.
    pub(in crate::admin) limit: Limit,
    /// Only those of this route.
    pub(in crate::admin) route: Option<String>,
    /// Only those before this one: `next` of the list before.
    pub(in crate::admin) before: Option<u64>,
}

/// Some of the incidents that are remembered.
#[derive(Debug, Serialize, JsonSchema)]
pub(in crate::admin) struct Incidents {
    /// How many there were since the start.
    pub(in crate::admin) count: u64,
    /// Newest first. What is alike in route, kind and message is one.
    pub(in crate::admin) incidents: Vec<Arc<Incident>>,
    /// Where the list goes on, if it does.
    pub(in crate::admin) next: Option<u64>,
}

/// Which incident is shown.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct One {
    /// Its number.
    pub(in crate::admin) id: u64,
}

pub(super) fn operations() -> Vec<Operation> {
    let list = Operation::show("/api/incidents", "The latest incidents, newest first", list);
    let one = Operation::show(
        "/api/incidents/{id}",
        "One incident, with everything that is known of it",
        one,
    );
    let forgotten = &[(StatusCode::NOT_FOUND, "No such incident is remembered")];
    vec![list, one.refuses(forgotten)]
}

async fn list(admin: Arc<Admin>, query: Query) -> Result<Told<Incidents>, Refusal> {
    Ok(latest(&admin, &query).into())
}

async fn one(admin: Arc<Admin>, asked: One) -> Result<Told<Arc<Incident>>, Refusal> {
    Ok(find(&admin, asked.id)?.into())
}

/// The incidents that the query is about.
pub(in crate::admin) fn latest(admin: &Admin, query: &Query) -> Incidents {
    let (all, limit) = (&admin.parts.incidents, query.limit.0);
    let latest = all.latest(usize::MAX).into_iter();
    let is_wanted = |incident: &Arc<Incident>| {
        let of = incident.subject.route().map(|of| &**of);
        query.before.is_none_or(|before| incident.id < before)
            && (query.route.is_none() || query.route.as_deref() == of)
    };
    let mut incidents: Vec<_> = latest.filter(is_wanted).take(limit + 1).collect();
    let is_cut = incidents.len() > limit;
    incidents.truncate(limit);
    Incidents {
        count: all.count(),
        next: incidents.last().filter(|_| is_cut).map(|last| last.id),
        incidents,
    }
}

/// One that is remembered.
pub(in crate::admin) fn find(admin: &Admin, id: u64) -> Result<Arc<Incident>, Refusal> {
    admin.parts.incidents.find(id).ok_or_else(|| {
        Refusal::unknown(format!(
            "incident {id} is not remembered: the latest thousand are, each with how often it happened"
        ))
    })
}
