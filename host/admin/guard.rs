//! `Guard`: who may use the admin door.

use std::net::{IpAddr, SocketAddr};

use http::header::{CONTENT_TYPE, HOST, HeaderMap, HeaderName, ORIGIN};
use http::{StatusCode, Uri};
use tokio::time::Instant;

use crate::http::{Denied, Secret, Throttle};

/// Where a browser says that a request comes from (Fetch Metadata Request Headers, section 2.3).
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Lets callers in by a token; without one, by the address they call.
#[derive(Debug)]
pub(super) struct Guard {
    token: Option<Secret>,
    throttle: Throttle,
    listen: SocketAddr,
}

impl Guard {
    pub(super) fn new(token: Option<Secret>, listen: SocketAddr, throttle: Throttle) -> Self {
        Self {
            token,
            throttle,
            listen,
        }
    }

    /// Whether a request may go on. Probes need no token: they tell nothing worth hiding.
    ///
    /// # Errors
    /// The status and the reason of the refusal.
    pub(super) fn admit(
        &self,
        uri: &Uri,
        headers: &HeaderMap,
        address: IpAddr,
    ) -> Result<(), (StatusCode, &'static str)> {
        let probe = matches!(uri.path(), "/livez" | "/readyz");
        match &self.token {
            Some(_) if probe => Ok(()),
            Some(token) => {
                let is_right = || token.opens(headers);
                let admitted = self.throttle.admit(address, Instant::now(), is_right);
                admitted.map_err(|denied| match denied {
                    Denied::Wrong => (
                        StatusCode::UNAUTHORIZED,
                        "authorization: Bearer <server.admin-token> is required",
                    ),
                    Denied::TooOften(_) => {
                        (StatusCode::TOO_MANY_REQUESTS, "too many invalid tokens")
                    }
                })
            }
            // A page on the web can have its own name resolve to 127.0.0.1 and then read what a
            // browser here may read (DNS rebinding); but it cannot change the `host` it calls.
            None if self.is_ours(uri, headers) => Ok(()),
            None => Err((
                StatusCode::MISDIRECTED_REQUEST,
                "without a token the admin port answers to localhost only",
            )),
        }
    }

    /// Whether an admitted request may change something: it must not be one that a page of another
    /// site had a browser here make. Such a page cannot send this content type without being asked
    /// first, nor hide where it is from.
    ///
    /// # Errors
    /// The status and the reason of the refusal.
    pub(super) fn may_change(
        &self,
        uri: &Uri,
        headers: &HeaderMap,
    ) -> Result<(), (StatusCode, &'static str)> {
        let kind = headers
            .get(CONTENT_TYPE)
            .and_then(|kind| kind.to_str().ok());
        let kind = kind.and_then(|kind| kind.split(';').next()).map(str::trim);
        if !kind.is_some_and(|kind| kind.eq_ignore_ascii_case("application/json")) {
            let reason = "content-type: application/json is required";
            return Err((StatusCode::UNSUPPORTED_MEDIA_TYPE, reason));
        }
        let foreign = "requests that other sites make are refused";
        let site = headers.get(SEC_FETCH_SITE).map(|site| site.as_bytes());
        if site.is_some_and(|site| !matches!(site, b"same-origin" | b"none")) {
            return Err((StatusCode::FORBIDDEN, foreign));
        }
        let Some(origin) = headers.get(ORIGIN) else {
            return Ok(());
        };
        let origin = origin
            .to_str()
            .ok()
            .and_then(|origin| origin.split_once("://"));
        match (origin, called(uri, headers)) {
            (Some((_, from)), Some(host)) if from.eq_ignore_ascii_case(host) => Ok(()),
            _ => Err((StatusCode::FORBIDDEN, foreign)),
        }
    }

    fn is_ours(&self, uri: &Uri, headers: &HeaderMap) -> bool {
        let Some(name) = called(uri, headers).and_then(name_of) else {
            return false;
        };
        match name.parse::<IpAddr>() {
            Ok(address) => address.is_loopback() || address == self.listen.ip(),
            Err(_) => name.eq_ignore_ascii_case("localhost"),
        }
    }
}

/// The host that the request is for, with its port.
fn called<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> Option<&'a str> {
    match (uri.authority(), headers.get(HOST)) {
        (_, Some(host)) => host.to_str().ok(),
        (Some(authority), None) => Some(authority.as_str()),
        (None, None) => None,
    }
}

/// The host without its port and brackets.
fn name_of(host: &str) -> Option<&str> {
    if let Some(rest) = host.strip_prefix('[') {
        return rest.split_once(']').map(|(name, _)| name);
    }
    host.split(':').next()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use http::header::AUTHORIZATION;

    use super::*;

    fn told(guard: &Guard, path: &str, headers: HeaderMap) -> u16 {
        let stranger = [192, 0, 2, 1].into();
        match guard.admit(&path.parse().unwrap(), &headers, stranger) {
            Ok(()) => 200,
            Err((status, _)) => status.as_u16(),
        }
    }

    #[test]
    fn without_a_token_only_local_names_are_answered() {
        let guard = Guard::new(None, "127.0.0.1:3001".parse().unwrap(), Throttle::default());
        for (host, expected) in [
            ("localhost:3001", 200),
            ("LOCALHOST", 200),
            ("127.0.0.1:3001", 200),
            ("127.9.9.9", 200),
            ("[::1]:3001", 200),
            ("evil.example:3001", 421),
            ("localhost.evil.example", 421),
            ("127.0.0.1.evil.example", 421),
            ("10.0.0.1", 421),
            ("", 421),
        ] {
            let headers = HeaderMap::from_iter([(HOST, HeaderValue::from_static(host))]);
            assert_eq!(
                told(&guard, "/api/routes", headers.clone()),
                expected,
                "{host}"
            );
            assert_eq!(told(&guard, "/livez", headers), expected, "{host}");
        }
        assert_eq!(told(&guard, "/metrics", HeaderMap::new()), 421);
    }

    #[test]
    fn what_another_site_asks_for_changes_nothing() {
        let guard = Guard::new(None, "127.0.0.1:3001".parse().unwrap(), Throttle::default());
        let json = ("content-type", "application/json; charset=utf-8");
        let origin = |value| ("origin", value);
        let site = |value| ("sec-fetch-site", value);
        for (lines, expected) in [
            (vec![json], 200),
            (
                vec![json, origin("http://127.0.0.1:3001"), site("same-origin")],
                200,
            ),
            (vec![json, site("none")], 200),
            (vec![], 415),
            (vec![("content-type", "text/plain")], 415),
            (vec![("content-type", "application/jsonp")], 415),
            (vec![json, origin("http://127.0.0.1:3000")], 403),
            (vec![json, origin("http://evil.example")], 403),
            (vec![json, origin("null")], 403),
            (vec![json, site("cross-site")], 403),
            (vec![json, site("same-site")], 403),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, HeaderValue::from_static("127.0.0.1:3001"));
            for (name, value) in &lines {
                headers.insert(*name, HeaderValue::from_static(value));
            }
            let told = guard.may_change(&"/".parse().unwrap(), &headers);
            let status = told.map_or_else(|(status, _)| status.as_u16(), |()| 200);
            assert_eq!(status, expected, "{lines:?}");
        }
    }

    #[test]
    fn with_a_token_it_is_the_token_that_counts() {
        let address = "0.0.0.0:3001".parse().unwrap();
        let guard = Guard::new(Some(Secret::new("horse")), address, Throttle::default());
        let with = |value: &'static str| {
            HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_static(value))])
        };
        assert_eq!(told(&guard, "/metrics", with("Bearer horse")), 200);
        assert_eq!(told(&guard, "/metrics", with("Bearer cow")), 401);
        assert_eq!(told(&guard, "/api/incidents", HeaderMap::new()), 401);
        for _ in 0..8 {
            assert_eq!(told(&guard, "/metrics", with("Bearer cow")), 401);
        }
        assert_eq!(told(&guard, "/metrics", with("Bearer cow")), 429);
        assert_eq!(told(&guard, "/metrics", with("Bearer horse")), 429);
        assert_eq!(told(&guard, "/readyz", HeaderMap::new()), 200);
    }
}
