//! `read`: the body of a request, whole, within bounds of size and time.

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body, Incoming};
use serde::de::DeserializeOwned;

/// How long a body may take: what is within its bounds comes over a poor network in that time.
const TIME: Duration = Duration::from_secs(10);

/// Why a body was not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadUpload {
    /// It is larger than this many KiB.
    #[error("The body is larger than {0} KiB")]
    TooLarge(u64),
    /// The connection was lost, or what came was no body.
    #[error("The body broke off")]
    BrokeOff,
    /// It took too long.
    #[error("The body took longer than {} s", TIME.as_secs())]
    TooSlow,
}

impl BadUpload {
    /// What it is answered with.
    pub fn status(self) -> StatusCode {
        match self {
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::BrokeOff => StatusCode::BAD_REQUEST,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
        }
    }
}

/// Reads a body that is one JSON object. Of a structure serde would take its fields in a list, too,
/// by their order: what nobody means, and no document could tell of.
///
/// # Errors
/// What is wrong with it, for whoever wrote it to read.
pub fn object<T: DeserializeOwned>(body: &[u8]) -> Result<T, String> {
    match body.trim_ascii_start().first() {
        Some(b'[') => Err("a list, where an object is expected".to_owned()),
        _ => serde_json::from_slice(body).map_err(|error| error.to_string()),
    }
}

/// Reads a body of at most `limit` bytes. One that says that it is larger is not read at all.
///
/// # Errors
/// [`BadUpload`].
pub async fn read(body: Incoming, limit: usize) -> Result<Bytes, BadUpload> {
    let too_large = BadUpload::TooLarge(limit as u64 / 1024);
    if body.size_hint().lower() > limit as u64 {
        return Err(too_large);
    }
    let whole = Limited::new(body, limit).collect();
    match tokio::time::timeout(TIME, whole).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large),
        Ok(Err(_)) => Err(BadUpload::BrokeOff),
        Err(_) => Err(BadUpload::TooSlow),
    }
}
