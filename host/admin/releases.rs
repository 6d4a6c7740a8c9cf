//! The history of releases for operators, and the way back.

use std::sync::Arc;

use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::release::{Record, Releases, RollbackError};

/// Bytes of a body: a number and its name.
pub(super) const BODY_BYTES: usize = 1024;

/// What is asked of `/api/releases/rollback`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rollback {
    /// The release to go back to; none for the one before the current.
    id: Option<u64>,
}

/// The releases that are remembered, newest first.
pub(super) fn history(releases: &Releases) -> Value {
    let history = releases.history();
    let newest_first: Vec<&Record> = history.releases().rev().collect();
    json!({
        "current": history.current().map(|record| record.id),
        "held": history.held().is_some(),
        "fallen": history.fallen(),
        "releases": newest_first,
    })
}

/// Goes back, and says to what.
pub(super) async fn roll_back(releases: &Arc<Releases>, body: &[u8]) -> (StatusCode, Value) {
    let Rollback { id } = match serde_json::from_slice(body) {
        Ok(asked) => asked,
        Err(error) => {
            let message = format!("the body is {{}} or {{\"id\": N}}: {error}");
            return (StatusCode::BAD_REQUEST, json!({ "message": message }));
        }
    };
    match releases.rollback(id).await {
        Ok(current) => {
            let history = releases.history();
            (StatusCode::OK, json!({ "release": history.find(current) }))
        }
        Err(error) => {
            let status = match error {
                RollbackError::Unknown(_) | RollbackError::NothingBefore => StatusCode::NOT_FOUND,
                RollbackError::Already { .. } | RollbackError::Gone { .. } => StatusCode::CONFLICT,
            };
            (status, json!({ "message": error.to_string() }))
        }
    }
}
