//! `Endpoint`: `/api/revalidate`, by which content systems say that something has changed.

mod call;
#[cfg(test)]
mod fuzz;
mod perform;
mod told;

use http::{Method, Request, Response, StatusCode};
use tokio::time::Instant;

use super::Secret;
use super::address::Client;
use super::body::Body;
use super::reply::{Proof, message, not_allowed, refusal, respond};
use super::throttle::Throttle;
use super::upload;
use crate::http::Upload;
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
    pub(super) async fn answer(&self, request: Request<Upload>, client: Client) -> Response<Body> {
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
        if let Err(denied) = self.throttle.admit(client, Instant::now(), is_right) {
            return refusal(denied, Proof::Token);
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
