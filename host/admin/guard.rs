//! `Guard`: who may use the admin door.

use std::net::{IpAddr, SocketAddr};

use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, ORIGIN};
use http::{StatusCode, Uri};
use tokio::time::Instant;

use super::refusal::Refusal;
use super::session::Sessions;
use crate::http::hosts::{self, Hosts, called, name_of};
use crate::http::{Client, Denied, Secret, Throttle};

/// Where a browser says that a request comes from (Fetch Metadata Request Headers, section 2.3).
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Lets callers in by a token, or a session that began with it; without one, by the address they
/// call.
#[derive(Debug)]
pub(super) struct Guard {
    token: Option<Secret>,
    sessions: Sessions,
    throttle: Throttle,
    listen: SocketAddr,
    /// By which names an author calls it.
    hosts: Option<Hosts>,
}

/// What a request that changes something is written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Written {
    /// By a program. A page of another site cannot have a browser send this content type without
    /// being asked first.
    Json,
    /// By the forms of the dashboard, in a browser that says where they are from.
    Form,
}

impl Guard {
    pub(super) fn new(token: Option<Secret>, listen: SocketAddr, throttle: Throttle) -> Self {
        Self {
            token,
            sessions: Sessions::default(),
            throttle,
            listen,
            hosts: None,
        }
    }

    /// The same under `wisr dev`, whatever the token says.
    pub(super) fn called(self, hosts: Option<Hosts>) -> Self {
        Self { hosts, ..self }
    }

    /// Whether people must log in.
    pub(super) fn has_token(&self) -> bool {
        self.token.is_some()
    }

    /// Whether a request may go on. What is `open` needs no token: it tells nothing worth hiding.
    ///
    /// # Errors
    /// The refusal.
    pub(super) fn admit(
        &self,
        uri: &Uri,
        headers: &HeaderMap,
        address: IpAddr,
        is_open: bool,
    ) -> Result<(), Refusal> {
        if let Some(hosts) = &self.hosts {
            hosts.admit(uri, headers).map_err(|name| {
                let reason = hosts::stranger(&name, hosts::KEY);
                Refusal::new(StatusCode::MISDIRECTED_REQUEST, reason)
            })?;
        }
        let now = Instant::now();
        match &self.token {
            Some(_) if is_open || self.sessions.has(headers, now) => Ok(()),
            // Who shows none does not guess one.
            Some(_) if !headers.contains_key(AUTHORIZATION) => Err(Refusal::wants_token()),
            Some(token) => self.judge(address, now, || token.opens(headers)),
            // A page on the web can have its own name resolve to 127.0.0.1 and then read what a
            // browser here may read (DNS rebinding); but it cannot change the `host` it calls.
            None if self.hosts.is_some() || self.is_ours(uri, headers) => Ok(()),
            None => Err(Refusal::new(
                StatusCode::MISDIRECTED_REQUEST,
                "without a token the admin port answers to localhost only",
            )),
        }
    }

    fn judge(
        &self,
        address: IpAddr,
        now: Instant,
        is_right: impl FnOnce() -> bool,
    ) -> Result<(), Refusal> {
        let admitted = self.throttle.admit(Client::at(address), now, is_right);
        admitted.map_err(|denied| match denied {
            Denied::Wrong => Refusal::wants_token(),
            Denied::TooOften(wait) => Refusal::too_often(wait),
        })
    }

    /// Logs somebody in who gives this token: the cookie of it; none where none is needed.
    ///
    /// # Errors
    /// The refusal.
    pub(super) fn log_in(
        &self,
        headers: &HeaderMap,
        address: IpAddr,
        given: &str,
    ) -> Result<Option<String>, Refusal> {
        let Some(token) = &self.token else {
            return Ok(None);
        };
        let now = Instant::now();
        self.judge(address, now, || token.is(given.as_bytes()))?;
        let origin = headers.get(ORIGIN).map(|origin| origin.as_bytes());
        let is_secure = origin.is_some_and(|origin| origin.starts_with(b"https://"));
        let begun = self.sessions.begin(is_secure, now);
        begun
            .map(Some)
            .map_err(|error| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
    }

    /// Logs out whoever makes the request: the cookie that removes theirs.
    pub(super) fn log_out(&self, headers: &HeaderMap) -> String {
        self.sessions.end(headers)
    }

    /// Whether an admitted request may change something: it must not be one that a page of another
    /// site, or of another port of this host, had a browser here make. Cookies and localhost let
    /// those in; but such a page cannot hide where it is from.
    ///
    /// # Errors
    /// The refusal.
    pub(super) fn may_change(
        &self,
        uri: &Uri,
        headers: &HeaderMap,
        written: Written,
    ) -> Result<(), Refusal> {
        let kind = headers
            .get(CONTENT_TYPE)
            .and_then(|kind| kind.to_str().ok());
        let kind = kind.and_then(|kind| kind.split(';').next()).map(str::trim);
        let wanted = match written {
            Written::Json => "application/json",
            Written::Form => "application/x-www-form-urlencoded",
        };
        if !kind.is_some_and(|kind| kind.eq_ignore_ascii_case(wanted)) {
            let reason = format!("content-type: {wanted} is required");
            return Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, reason));
        }
        let foreign = || {
            let reason = "requests that other sites make are refused";
            Err(Refusal::new(StatusCode::FORBIDDEN, reason))
        };
        let site = headers.get(SEC_FETCH_SITE).map(|site| site.as_bytes());
        if site.is_some_and(|site| !matches!(site, b"same-origin" | b"none")) {
            return foreign();
        }
        let Some(origin) = headers.get(ORIGIN) else {
            // Any browser says one of the two with a form; a program that does not has the API.
            return match (written, site) {
                (Written::Form, None) => foreign(),
                _ => Ok(()),
            };
        };
        let origin = origin
            .to_str()
            .ok()
            .and_then(|origin| origin.split_once("://"));
        match (origin, called(uri, headers)) {
            (Some((_, from)), Some(host)) if from.eq_ignore_ascii_case(host) => Ok(()),
            _ => foreign(),
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

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use http::header::{COOKIE, HOST, RETRY_AFTER};

    use super::*;

    fn told(guard: &Guard, path: &str, headers: HeaderMap) -> u16 {
        let stranger = [192, 0, 2, 1].into();
        let is_open = path == "/readyz";
        match guard.admit(&path.parse().unwrap(), &headers, stranger, is_open) {
            Ok(()) => 200,
            Err(refusal) => refusal.status.as_u16(),
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
        let form = ("content-type", "application/x-www-form-urlencoded");
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
            (vec![form, origin("http://127.0.0.1:3001")], 200),
            (vec![form, site("same-origin")], 200),
            (vec![form], 403),
            (vec![form, origin("http://127.0.0.1:3000")], 403),
            (
                vec![form, origin("http://127.0.0.1:3001"), site("same-site")],
                403,
            ),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, HeaderValue::from_static("127.0.0.1:3001"));
            for (name, value) in &lines {
                headers.insert(*name, HeaderValue::from_static(value));
            }
            let [as_form, as_json] = [Written::Form, Written::Json].map(|written| {
                let told = guard.may_change(&"/".parse().unwrap(), &headers, written);
                told.map_or_else(|refusal| refusal.status.as_u16(), |()| 200)
            });
            let (told, other) = match lines.first() == Some(&form) {
                true => (as_form, as_json),
                false => (as_json, as_form),
            };
            assert_eq!((told, other), (expected, 415), "{lines:?}");
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
        for _ in 0..9 {
            assert_eq!(told(&guard, "/metrics", with("Bearer cow")), 401);
        }
        assert_eq!(told(&guard, "/metrics", with("Bearer cow")), 429);
        assert_eq!(told(&guard, "/metrics", with("Bearer horse")), 429);
        assert_eq!(told(&guard, "/readyz", HeaderMap::new()), 200);
    }

    #[tokio::test(start_paused = true)]
    async fn who_logs_in_with_the_token_is_known_by_a_cookie_until_logging_out() {
        let guard = Guard::new(
            Some(Secret::new("horse")),
            "0.0.0.0:3001".parse().unwrap(),
            Throttle::default(),
        );
        let (stranger, none) = ([192, 0, 2, 1].into(), HeaderMap::new());
        let wrong = guard.log_in(&none, stranger, "cow").unwrap_err();
        assert_eq!(wrong.status.as_u16(), 401);
        let cookie = guard.log_in(&none, stranger, "horse").unwrap().unwrap();
        assert!(!cookie.contains("horse"), "{cookie}");
        let pair = HeaderValue::from_str(cookie.split(';').next().unwrap()).unwrap();
        let with = HeaderMap::from_iter([(COOKIE, pair)]);
        assert_eq!(told(&guard, "/metrics", with.clone()), 200);
        guard.log_out(&with);
        assert_eq!(told(&guard, "/metrics", with), 401);
        for _ in 0..9 {
            assert!(guard.log_in(&none, stranger, "cow").is_err());
        }
        let throttled = guard.log_in(&none, stranger, "horse").unwrap_err();
        assert_eq!(throttled.status.as_u16(), 429);
        let wait = (RETRY_AFTER, HeaderValue::from_static("6"));
        assert_eq!(throttled.header, Some(wait));
        assert!(throttled.message.ends_with("try again in 6 s"));
        let origin = HeaderMap::from_iter([(ORIGIN, HeaderValue::from_static("https://a"))]);
        let secure = guard.log_in(&origin, [192, 0, 2, 2].into(), "horse");
        assert!(secure.unwrap().unwrap().contains("Secure"));
        let open = Guard::new(None, "127.0.0.1:3001".parse().unwrap(), Throttle::default());
        assert_eq!(open.log_in(&none, stranger, "x").unwrap(), None);
    }
}
