//! `Refusal`: why something is not done, as a program and as a person is told.

use std::time::Duration;

use http::StatusCode;
use http::header::{self, HeaderName, HeaderValue};
use schemars::JsonSchema;
use serde::Serialize;

use crate::http::seconds;
use crate::http::upload::BadUpload;

/// Something that is not done.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) message: String,
    /// What must accompany the status.
    pub(super) header: Option<(HeaderName, HeaderValue)>,
}

/// How a program is told.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Message<'a> {
    /// What is wrong, and what to do.
    pub(super) message: &'a str,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
            header: None,
        }
    }

    /// What is asked for is not there.
    pub(super) fn unknown(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, message)
    }

    /// What is asked for cannot be understood.
    pub(super) fn malformed(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// RFC 9110 section 15.5.6.
    pub(super) fn not_allowed(methods: &'static str) -> Self {
        let allow = (header::ALLOW, HeaderValue::from_static(methods));
        Self {
            header: Some(allow),
            ..Self::new(StatusCode::METHOD_NOT_ALLOWED, format!("use {methods}"))
        }
    }

    /// RFC 9110 section 11.6.1.
    pub(super) fn wants_token() -> Self {
        let reason = "authorization: Bearer <server.admin-token> is required";
        let bearer = HeaderValue::from_static("Bearer");
        Self {
            header: Some((header::WWW_AUTHENTICATE, bearer)),
            ..Self::new(StatusCode::UNAUTHORIZED, reason)
        }
    }

    /// Somebody guesses, and is not listened to for so long.
    pub(super) fn too_often(wait: Duration) -> Self {
        let seconds = seconds(wait);
        let reason = format!("too many invalid tokens: try again in {seconds} s");
        Self {
            header: Some((header::RETRY_AFTER, seconds.into())),
            ..Self::new(StatusCode::TOO_MANY_REQUESTS, reason)
        }
    }
}

impl From<BadUpload> for Refusal {
    fn from(bad: BadUpload) -> Self {
        Self::new(bad.status(), bad.to_string())
    }
}
