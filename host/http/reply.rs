//! `respond`: what the programs are told that call an endpoint of wisr's own, in JSON.

use http::header::{self, HeaderValue};
use http::{Response, StatusCode};
use serde::Serialize;
use serde_json::json;

use super::body::Body;
use super::errors::{no_store, seconds};
use super::throttle::Denied;

/// What a caller proves itself by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Proof {
    Token,
    Signature,
}

impl Proof {
    /// The word for who was wrong about it.
    fn as_str(self) -> &'static str {
        match self {
            Proof::Token => "token",
            Proof::Signature => "signature",
        }
    }

    /// What asks for it: no 401 is without a challenge (RFC 9110 section 15.5.2). For signatures of
    /// webhooks there is no registered one.
    fn challenge(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Proof::Token => "Bearer",
            Proof::Signature => "Signature",
        })
    }
}

/// What is told, and how it ended.
pub(super) fn respond(status: StatusCode, told: &impl Serialize) -> Response<Body> {
    // What we tell is made of texts and numbers, which all have a form in JSON.
    let text = serde_json::to_string(told).unwrap_or_default();
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    let json = HeaderValue::from_static("application/json");
    headers.insert(header::CONTENT_TYPE, json);
    headers.insert(header::CACHE_CONTROL, no_store());
    response
}

/// Words alone.
pub(super) fn message(status: StatusCode, text: &str) -> Response<Body> {
    respond(status, &json!({"message": text}))
}

/// Another method is wanted; `allow` are the right ones.
pub(super) fn not_allowed(allow: &'static str) -> Response<Body> {
    let wanted = format!("Use {}", allow.replace(", ", " or "));
    let mut response = message(StatusCode::METHOD_NOT_ALLOWED, &wanted);
    let allow = HeaderValue::from_static(allow);
    response.headers_mut().insert(header::ALLOW, allow);
    response
}

/// The proof will not do, for this reason.
pub(super) fn unproven(proof: Proof, why: &str) -> Response<Body> {
    let mut response = message(StatusCode::UNAUTHORIZED, why);
    let headers = response.headers_mut();
    headers.insert(header::WWW_AUTHENTICATE, proof.challenge());
    response
}

/// Who was wrong about the proof, perhaps too often.
pub(super) fn refusal(denied: Denied, proof: Proof) -> Response<Body> {
    let what = proof.as_str();
    let Denied::TooOften(wait) = denied else {
        return unproven(proof, &format!("Invalid {what}"));
    };
    let seconds = seconds(wait);
    let told = format!("Too many invalid {what}s: try again in {seconds} s");
    let mut response = message(StatusCode::TOO_MANY_REQUESTS, &told);
    let headers = response.headers_mut();
    headers.insert(header::RETRY_AFTER, seconds.into());
    response
}
