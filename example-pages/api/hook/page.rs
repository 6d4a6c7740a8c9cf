//! `/api/hook?secret=…&path=/posts/…`: has a page made anew for whoever knows this site's own
//! secret, which `wisr.toml` has under `[routes."/api/hook".settings]`.
//!
//! It is the handler of the Next.js documentation, `pages/api/revalidate`, with the path that is to
//! be made anew in the query. Served as `api/revalidate.wasm`, it takes the place of the endpoint
//! that wisr brings along.

use serde_json::json;
use wisr_guest::api::{Api, Request, Response};
use wisr_guest::{Result, log, revalidate, setting};

struct Hook;

impl Api for Hook {
    fn handle(request: Request) -> Result<Response> {
        let secret = setting("secret").unwrap_or_default();
        if !request.knows(&secret) {
            return Ok(Response::json(&json!({"message": "Invalid token"}))?.status(401));
        }
        let Some(path) = request.query("path") else {
            return Ok(Response::json(&json!({"message": "Which path?"}))?.status(400));
        };
        match revalidate::path(path) {
            Ok(()) => Response::json(&json!({"revalidated": true})),
            Err(error) => {
                // The last good page stays up.
                log::warn(error.to_string());
                Ok(Response::text("Error revalidating").status(500))
            }
        }
    }
}

wisr_guest::api!(Hook);

#[cfg(test)]
mod tests {
    use super::*;
    use wisr_guest::testing::{Answered, ApiTest};

    fn ask(target: &str) -> Answered {
        let test = ApiTest::<Hook>::new("GET", target).setting("secret", "s3cret");
        test.send().unwrap()
    }

    #[test]
    fn who_knows_the_secret_has_a_page_made_anew() {
        let answered = ask("/api/hook?secret=s3cret&path=/posts/1");
        assert_eq!(answered.response.status, 200);
        assert_eq!(answered.calls[0].paths, ["/posts/1"]);
    }

    #[test]
    fn nobody_else_has() {
        for target in [
            "/api/hook?path=/",
            "/api/hook?secret=x&path=/",
            "/api/hook?secret=",
        ] {
            let answered = ask(target);
            assert_eq!(
                (answered.response.status, answered.calls.len()),
                (401, 0),
                "{target}"
            );
        }
        let unset = ApiTest::<Hook>::new("GET", "/api/hook?secret=&path=/").send();
        assert_eq!(unset.unwrap().response.status, 401);
        assert_eq!(ask("/api/hook?secret=s3cret").response.status, 400);
    }
}
