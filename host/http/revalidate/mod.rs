//! `Endpoint`: `/api/revalidate`, by which content systems say that something has changed.

mod call;
#[cfg(test)]
mod fuzz;
mod perform;
mod told;

use std::net::IpAddr;

use http::header::{self, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use serde::Serialize;
use serde_json::json;
use tokio::time::Instant;

use super::Secret;
use super::body::Body;
use super::errors::{no_store, seconds};
use super::throttle::{Denied, Throttle};
use super::upload;
pub use call::Parameters;
use call::demand;
pub(super) use call::{Call, Target, authorised};
pub use perform::Revalidation;
pub use told::Told;

/// Bytes of a body: a thousand long paths.
const MAX_BODY: usize = 64 * 1024;

/// What the endpoint works with.
pub(super) struct Endpoint<'a> {
    pub(super) revalidation: &'a Revalidation,
    pub(super) token: Option<&'a Secret>,
    pub(super) throttle: &'a Throttle,
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
            return not_allowed("GET, POST");
        }
        let query = parts.uri.query().unwrap_or("");
        let is_right = || authorised(query, &parts.headers, token);
        if let Err(denied) = self.throttle.admit(address, Instant::now(), is_right) {
            return refusal(denied, "token");
        }
        let body = match upload::read(body, MAX_BODY).await {
            Ok(body) => body,
            Err(bad) => return message(bad.status(), &bad.to_string()),
        };
        match demand(query, &body).and_then(Call::of) {
            Ok(call) => {
                let (status, told) = Told::of(&self.revalidation.perform(call).await);
                respond(status, &told)
            }
            Err(mistake) => message(StatusCode::BAD_REQUEST, &mistake),
        }
    }
}

/// Who was wrong about `what`: a token, a signature.
pub(super) fn refusal(denied: Denied, what: &str) -> Response<Body> {
    let Denied::TooOften(wait) = denied else {
        return message(StatusCode::UNAUTHORIZED, &format!("Invalid {what}"));
    };
    let seconds = seconds(wait);
    let told = format!("Too many invalid {what}s: try again in {seconds} s");
    let mut response = message(StatusCode::TOO_MANY_REQUESTS, &told);
    let headers = response.headers_mut();
    headers.insert(header::RETRY_AFTER, seconds.into());
    response
}

/// Another method is wanted; `allow` are the right ones.
pub(super) fn not_allowed(allow: &'static str) -> Response<Body> {
    let wanted = format!("Use {}", allow.replace(", ", " or "));
    let mut response = message(StatusCode::METHOD_NOT_ALLOWED, &wanted);
    let allow = HeaderValue::from_static(allow);
    response.headers_mut().insert(header::ALLOW, allow);
    response
}

pub(super) fn message(status: StatusCode, text: &str) -> Response<Body> {
    respond(status, &json!({"message": text}))
}

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
