//! `Pass`: the cookie by which an editor sees drafts: signed, for one host, until it expires.

use std::time::Duration;

use data_encoding::BASE64URL_NOPAD;
use http::Uri;
use http::header::{self, HeaderMap, HeaderValue};
use ring::hmac;

use super::super::Secret;
use crate::page::{DRAFT_COOKIE as COOKIE, Timestamp};

/// Whether a line of cookies may hold a pass.
pub(in crate::http) fn may_be_in(line: &[u8]) -> bool {
    std::str::from_utf8(line).map_or(true, |line| line.contains(COOKIE))
}

/// The version of what is signed, and of how the key is made.
const VERSION: &str = "1";

/// What the key is for, so that the token never signs anything else (BLAKE3's key derivation).
const PURPOSE: &str = "wisr 2026-11 draft cookie";

/// Cookies of that name that are looked at: one for each path that somebody else may have set.
const MAX_COOKIES: usize = 4;

/// Draft mode: who may enter it, and for how long.
#[derive(Debug, Clone)]
pub struct Draft {
    pub(super) token: Secret,
    /// Made from the token: all servers of a site agree on it, nothing must be kept, and another
    /// token ends all passes at once.
    key: hmac::Key,
    lifetime: Duration,
    /// Whether frames of other sites show drafts: the preview panes of content systems.
    embed: bool,
}

impl Draft {
    /// Draft mode for those who know `token`.
    pub fn new(token: &str, lifetime: Duration, embed: bool) -> Self {
        let key = blake3::derive_key(PURPOSE, token.as_bytes());
        Self {
            token: Secret::new(token),
            key: hmac::Key::new(hmac::HMAC_SHA256, &key),
            lifetime,
            embed,
        }
    }

    /// The `set-cookie` of a new pass for `host`.
    pub(super) fn issue(&self, host: &str, is_https: bool, now: Timestamp) -> String {
        let until = now.as_millis() / 1000 + self.lifetime.as_secs();
        let tag = hmac::sign(&self.key, signed(until, host).as_bytes());
        let tag = BASE64URL_NOPAD.encode(tag.as_ref());
        let lifetime = self.lifetime.as_secs();
        let place = self.place(is_https);
        format!("{COOKIE}={VERSION}.{until}.{tag}; Max-Age={lifetime}; {place}")
    }

    /// The `set-cookie` that takes it back.
    pub(super) fn revoke(&self, is_https: bool) -> String {
        format!("{COOKIE}=; Max-Age=0; {}", self.place(is_https))
    }

    /// Scripts never see it, and other sites' requests do not carry it: not their forms, and not
    /// their frames unless these are wanted.
    fn place(&self, is_https: bool) -> &'static str {
        match (self.embed, is_https) {
            (true, _) => "Path=/; HttpOnly; SameSite=None; Secure; Partitioned",
            (false, true) => "Path=/; HttpOnly; SameSite=Lax; Secure",
            (false, false) => "Path=/; HttpOnly; SameSite=Lax",
        }
    }

    /// Whether the request has a valid pass.
    pub(in crate::http) fn admits(&self, uri: &Uri, headers: &HeaderMap, now: Timestamp) -> bool {
        let host = host(uri, headers);
        cookies(headers)
            .take(MAX_COOKIES)
            .any(|pass| self.is_valid(pass, host, now))
    }

    fn is_valid(&self, pass: &str, host: &str, now: Timestamp) -> bool {
        let check = || {
            let (until, tag) = pass
                .strip_prefix(VERSION)?
                .strip_prefix('.')?
                .split_once('.')?;
            let until: u64 = until.parse().ok()?;
            let tag = BASE64URL_NOPAD.decode(tag.as_bytes()).ok()?;
            hmac::verify(&self.key, signed(until, host).as_bytes(), &tag).ok()?;
            // A pass from far in the future is one from before the clock was set right.
            let left = until.checked_sub(now.as_millis() / 1000)?;
            (left > 0 && left <= self.lifetime.as_secs()).then_some(())
        };
        check().is_some()
    }
}

fn signed(until: u64, host: &str) -> String {
    format!("{VERSION}.{until}.{}", host.to_ascii_lowercase())
}

/// The values of all cookies of the name; HTTP/2 may part them into lines (RFC 9113 section 8.2.3).
fn cookies(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let lines = headers.get_all(header::COOKIE).iter();
    // The cookies beside it may be of any bytes.
    let pairs = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b';'));
    pairs
        .filter_map(|pair| std::str::from_utf8(pair).ok()?.trim().split_once('='))
        .filter(|(name, _)| *name == COOKIE)
        .map(|(_, value)| value)
}

/// The host that is asked, with its port.
pub(super) fn host<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> &'a str {
    let line = || headers.get(header::HOST)?.to_str().ok();
    uri.authority()
        .map(http::uri::Authority::as_str)
        .or_else(line)
        .unwrap_or_default()
}

/// Whether the browser speaks https, to this server or to a proxy before it. Who claims it wrongly
/// gets a cookie that their own browser does not send back.
pub(super) fn is_https(uri: &Uri, headers: &HeaderMap) -> bool {
    let claims = |name: &str, part: &[u8]| {
        let value = headers.get(name).map(HeaderValue::as_bytes);
        value.is_some_and(|value| {
            let value = value.to_ascii_lowercase();
            value.windows(part.len()).any(|window| window == part)
        })
    };
    uri.scheme() == Some(&http::uri::Scheme::HTTPS)
        || claims("x-forwarded-proto", b"https")
        || claims("forwarded", b"proto=https")
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);
    const HOUR: Duration = Duration::from_secs(3_600);
    const HOST: &str = "example.org";

    fn draft(token: &str) -> Draft {
        Draft::new(token, HOUR, false)
    }

    fn pass(draft: &Draft) -> String {
        let cookie = draft.issue(HOST, false, NOW);
        cookie.split_once(';').unwrap().0.to_owned()
    }

    fn admits(draft: &Draft, host: &'static str, cookies: &[&str], now: Timestamp) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, HeaderValue::from_static(host));
        for line in cookies {
            let line = HeaderValue::from_bytes(line.as_bytes()).unwrap();
            headers.append(header::COOKIE, line);
        }
        draft.admits(&Uri::from_static("/"), &headers, now)
    }

    fn later(seconds: u64) -> Timestamp {
        Timestamp::from_millis(NOW.as_millis() + 1000 * seconds)
    }

    #[test]
    fn a_pass_is_valid_for_its_site_and_its_time() {
        let own = draft("a token of 16 and more");
        let cookie = pass(&own);
        let line = format!("a=\u{e9}; {cookie};b=2");
        assert!(admits(&own, HOST, &[&line], NOW));
        assert!(admits(&own, HOST, &["a=1", &cookie], later(3_599)));
        assert!(admits(
            &own,
            "EXAMPLE.org",
            &["wisr_draft=1.x", &cookie],
            NOW
        ));
        for (host, cookies, now) in [
            (HOST, vec![], NOW),
            (HOST, vec![cookie.as_str()], later(3_600)),
            (HOST, vec![cookie.as_str()], Timestamp::from_millis(0)),
            ("example.org:81", vec![cookie.as_str()], NOW),
            (
                HOST,
                vec!["wisr_draft=", "wisr_draft=1..", "wisr_draft"],
                NOW,
            ),
        ] {
            assert!(!admits(&own, host, &cookies, now), "{host} {cookies:?}");
        }
        let other = draft("another token of the kind");
        assert!(!admits(&other, HOST, &[&cookie], NOW));
    }

    #[test]
    fn no_letter_of_a_pass_can_be_changed() {
        let own = draft("a token of 16 and more");
        let cookie = pass(&own);
        for at in 0..cookie.len() {
            let mut bytes = cookie.clone().into_bytes();
            bytes[at] = if bytes[at] == b'1' { b'2' } else { b'1' };
            let forged = String::from_utf8(bytes).unwrap();
            assert!(!admits(&own, HOST, &[&forged], NOW), "{forged}");
        }
    }

    /// A pass that an earlier version issued; it must open as long as it lasts.
    #[test]
    fn an_old_pass_still_opens() {
        let own = draft("a token of 16 and more");
        let old = "wisr_draft=1.1700003600.iJofC-kmbsJXDT3DL61cV1BmQUR9Vm-CYD3zZWqxU-U";
        assert!(admits(&own, HOST, &[old], NOW), "{}", pass(&own));
    }

    #[test]
    fn a_cookie_is_for_the_site_alone() {
        let cookie = |embed, is_https| {
            let draft = Draft::new("a token of 16 and more", HOUR, embed);
            draft.issue(HOST, is_https, NOW)
        };
        let http = "; Max-Age=3600; Path=/; HttpOnly; SameSite=Lax";
        assert!(cookie(false, false).ends_with(http));
        assert!(cookie(false, true).ends_with("; SameSite=Lax; Secure"));
        let embedded = "; SameSite=None; Secure; Partitioned";
        assert!(cookie(true, false).ends_with(embedded));
    }
}
