//! `Sessions`: people who have shown the token to the login page, by a cookie that is not the token.

use std::collections::HashMap;
use std::time::Duration;

use http::HeaderMap;
use http::header::COOKIE;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::page::{Digest, SESSION_COOKIE};

/// How long somebody stays logged in: a working day, with its breaks.
const LIFE: Duration = Duration::from_secs(12 * 60 * 60);

/// People at once; one more pushes out whoever came first.
const MOST: usize = 64;

/// Random bytes of a session's name.
const NAME_BYTES: usize = 32;

/// Who is logged in, by the hash of the cookie's value: what is looked up takes the same time for
/// every wrong one, and a picture of the memory lets nobody in.
#[derive(Debug, Default)]
pub(super) struct Sessions(Mutex<HashMap<Digest, Instant>>);

impl Sessions {
    /// Begins a session: the `set-cookie` of it. Over TLS the cookie stays there.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub(super) fn begin(&self, is_secure: bool, now: Instant) -> Result<String, getrandom::Error> {
        let mut name = [0; NAME_BYTES];
        getrandom::fill(&mut name)?;
        let name: String = name.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut all = self.0.lock();
        all.retain(|_, end| *end > now);
        if all.len() >= MOST
            && let Some(first) = all.iter().min_by_key(|(_, end)| **end)
        {
            let first = *first.0;
            all.remove(&first);
        }
        all.insert(Digest::of(name.as_bytes()), now + LIFE);
        let secure = if is_secure { "; Secure" } else { "" };
        let seconds = LIFE.as_secs();
        Ok(format!(
            "{SESSION_COOKIE}={name}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}"
        ))
    }

    /// Whether the request is of a session that goes on.
    pub(super) fn has(&self, headers: &HeaderMap, now: Instant) -> bool {
        let all = self.0.lock();
        let mut names = names(headers);
        names.any(|name| all.get(&name).is_some_and(|end| *end > now))
    }

    /// Ends the request's session: the `set-cookie` that removes the cookie.
    pub(super) fn end(&self, headers: &HeaderMap) -> String {
        let mut all = self.0.lock();
        for name in names(headers) {
            all.remove(&name);
        }
        format!("{SESSION_COOKIE}=; Path=/; Max-Age=0; HttpOnly; SameSite=Strict")
    }
}

/// The sessions that a request names (RFC 6265 section 5.4; HTTP/2 may send several lines).
fn names(headers: &HeaderMap) -> impl Iterator<Item = Digest> {
    let lines = headers.get_all(COOKIE).iter();
    let pairs = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b';'));
    pairs.filter_map(|pair| {
        let pair = pair.trim_ascii().strip_prefix(SESSION_COOKIE.as_bytes())?;
        Some(Digest::of(pair.strip_prefix(b"=")?))
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn with(cookie: &str) -> HeaderMap {
        let pair = cookie.split(';').next().unwrap();
        let line = HeaderValue::from_str(&format!("theme=dark; {pair}")).unwrap();
        HeaderMap::from_iter([(COOKIE, line)])
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_lasts_until_its_time_or_its_end() {
        let (sessions, now) = (Sessions::default(), Instant::now());
        let one = sessions.begin(false, now).unwrap();
        let other = sessions.begin(true, now).unwrap();
        assert!(!one.contains("Secure") && other.ends_with("; Secure"));
        assert!(one.contains("HttpOnly") && one.contains("SameSite=Strict"));
        assert!(sessions.has(&with(&one), now) && sessions.has(&with(&other), now));
        assert!(!sessions.has(&HeaderMap::new(), now));
        assert!(!sessions.has(&with("wisr-session=00"), now));
        assert!(!sessions.has(&with("wisr-session="), now));
        assert!(sessions.end(&with(&one)).contains("Max-Age=0"));
        assert!(!sessions.has(&with(&one), now) && sessions.has(&with(&other), now));
        assert!(!sessions.has(&with(&other), now + LIFE));
    }

    #[tokio::test(start_paused = true)]
    async fn the_newest_are_remembered() {
        let (sessions, now) = (Sessions::default(), Instant::now());
        let at = |number: u64| now + Duration::from_secs(number);
        let all: Vec<String> = (0..=MOST as u64)
            .map(|number| sessions.begin(false, at(number)).unwrap())
            .collect();
        let has = |place: usize| sessions.has(&with(&all[place]), at(100));
        assert!(!has(0) && has(1) && has(MOST));
    }
}
