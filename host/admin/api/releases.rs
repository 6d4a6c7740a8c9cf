//! The history of releases, and the way back.

use std::sync::Arc;

use http::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::Admin;
use super::super::refusal::Refusal;
use super::operation::{Nothing, Operation, Told};
use crate::release::{Files, Record, RollbackError};

/// Bytes of a body: a number and its name.
const BODY_BYTES: usize = 1024;

/// The releases that are remembered.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Releases")]
pub(in crate::admin) struct History {
    /// The one that serves; none before the first.
    pub(in crate::admin) current: Option<u64>,
    /// Whether a rollback holds: what lies in the folder is served when it changes again.
    pub(in crate::admin) held: bool,
    /// Modules that did nothing but fail, by file.
    pub(in crate::admin) fallen: Files,
    /// Newest first.
    pub(in crate::admin) releases: Vec<Record>,
}

/// Which release to go back to.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct Rollback {
    /// Its number; none for the one before the current.
    #[serde(default)]
    pub(in crate::admin) id: Option<u64>,
}

/// What serves after a rollback.
#[derive(Debug, Serialize, JsonSchema)]
pub(in crate::admin) struct RolledBack {
    /// The new release, which has the modules of the one that was asked for.
    pub(in crate::admin) release: Option<Record>,
}

pub(super) fn operations() -> Vec<Operation> {
    let list = Operation::show("/api/releases", "The latest releases, newest first", list);
    let act = Operation::act(
        "/api/releases/rollback",
        "Go back to an earlier release, pages included, until the folder changes",
        (BODY_BYTES, "{} or {\"id\": N}"),
        act,
    );
    let act = act.refuses(&[
        (StatusCode::NOT_FOUND, "No such release is remembered"),
        (
            StatusCode::CONFLICT,
            "A module of it is lost, or it serves already",
        ),
    ]);
    vec![list, act]
}

async fn list(admin: Arc<Admin>, _: Nothing) -> Result<Told<History>, Refusal> {
    Ok(history(&admin).into())
}

async fn act(admin: Arc<Admin>, asked: Rollback) -> Result<Told<RolledBack>, Refusal> {
    Ok(roll_back(&admin, asked.id).await?.into())
}

/// The releases that are remembered.
pub(in crate::admin) fn history(admin: &Admin) -> History {
    let history = admin.parts.releases.history();
    History {
        current: history.current().map(|record| record.id),
        held: history.held().is_some(),
        fallen: history.fallen().clone(),
        releases: history.releases().rev().cloned().collect(),
    }
}

/// Goes back to a release, or to the one before the current.
pub(in crate::admin) async fn roll_back(
    admin: &Admin,
    id: Option<u64>,
) -> Result<RolledBack, Refusal> {
    let releases = &admin.parts.releases;
    match releases.rollback(id).await {
        Ok(current) => Ok(RolledBack {
            release: releases.history().find(current).cloned(),
        }),
        Err(error) => {
            let status = match error {
                RollbackError::Unknown(_) | RollbackError::NothingBefore => StatusCode::NOT_FOUND,
                RollbackError::Already { .. } | RollbackError::Gone { .. } => StatusCode::CONFLICT,
            };
            Err(Refusal::new(status, error.to_string()))
        }
    }
}
