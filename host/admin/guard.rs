//! `Guard`: who may use the admin door.

use std::net::{IpAddr, SocketAddr};

use http::header::{HOST, HeaderMap};
use http::{StatusCode, Uri};
use tokio::time::Instant;

use crate::http::{Denied, Secret, Throttle};

/// Lets callers in by a token; without one, by the address they call.
#[derive(Debug)]
pub(super) struct Guard {
    token: Option<Secret>,
    throttle: Throttle,
    listen: SocketAddr,
}

impl Guard {
    pub(super) fn new(token: Option<Secret>, listen: SocketAddr) -> Self {
        Self {
            token,
            throttle: Throttle::default(),
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

    fn is_ours(&self, uri: &Uri, headers: &HeaderMap) -> bool {
        let host = match (uri.authority(), headers.get(HOST)) {
            (_, Some(host)) => host.to_str().ok(),
            (Some(authority), None) => Some(authority.as_str()),
            (None, None) => None,
        };
        let Some(name) = host.and_then(name_of) else {
            return false;
        };
        match name.parse::<IpAddr>() {
            Ok(address) => address.is_loopback() || address == self.listen.ip(),
            Err(_) => name.eq_ignore_ascii_case("localhost"),
        }
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
        let guard = Guard::new(None, "127.0.0.1:3001".parse().unwrap());
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
    fn with_a_token_it_is_the_token_that_counts() {
        let guard = Guard::new(Some(Secret::new("horse")), "0.0.0.0:3001".parse().unwrap());
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
