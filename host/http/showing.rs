//! `Showing`: how an entry came to be shown, and the headers that say so. Pure.
//!
//! On `cache-status` (RFC 9211): `hit` and `fwd` exclude each other (section 2.2), and `fwd` means
//! that this very response was obtained by going forward. A stale page that is shown at once is
//! thus a `hit` with a negative `ttl` (section 2.4), whatever is done in the background; only who
//! waited for a generation reads `fwd`.

use std::borrow::Cow;
use std::fmt::Write;
use std::time::Duration;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use super::conditional::whole_seconds;
use crate::isr::{Renewal, Served};
use crate::page::{Coding, Entry, Revalidate, Stamp, Timestamp, Variant, Why};

pub(super) const X_WISR_CACHE: HeaderName = HeaderName::from_static("x-wisr-cache");
pub(super) const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// What `s-maxage` says of a page that only invalidation ends: a year, which RFC 9111's users take
/// for ever.
const YEAR: u64 = 31_536_000;

/// What `x-wisr-cache` says of a hit.
pub(super) const FRESH: &str = "HIT";

/// What `cache-status` says of a hit that no age ends.
pub(super) const HIT: &str = "wisr; hit";

/// An entry and what its reader is told of it.
pub(super) struct Showing<'a> {
    pub(super) entry: &'a Entry,
    word: &'static str,
    status: Cow<'static, str>,
    lifetime: Lifetime,
    max_stale: Duration,
    age: Duration,
    /// When it was made, and never after the time of the response (RFC 9110 section 8.8.2.1).
    made: Timestamp,
}

/// What shared caches in front of wisr are told.
#[derive(Clone, Copy, PartialEq)]
enum Lifetime {
    /// The entry's own; `age` says how much of it is over.
    Own,
    /// None: something other than age ended it, which no `age` would show.
    Over,
}

impl<'a> Showing<'a> {
    /// None for a shell, which is no entry.
    pub(super) fn of(served: &'a Served, now: Timestamp, max_stale: Duration) -> Option<Self> {
        let (entry, word, lifetime) = match served {
            Served::Hit { entry, .. } => (entry, FRESH, Lifetime::Own),
            Served::Rendered { entry, .. } => (entry, "MISS", Lifetime::Own),
            Served::Stale {
                entry,
                why: Why::Age,
                ..
            } => (entry, "STALE", Lifetime::Own),
            Served::Stale { entry, .. } | Served::LastGood { entry, .. } => {
                (entry, "STALE", Lifetime::Over)
            }
            Served::Shell(_) => return None,
        };
        Some(Self {
            entry,
            word,
            status: match served {
                Served::Hit { ttl: None, .. } => Cow::Borrowed(HIT),
                _ => Cow::Owned(cache_status(served, now)),
            },
            lifetime,
            max_stale,
            age: now.since(entry.stamp.generated),
            made: entry.stamp.generated.min(now),
        })
    }

    /// All headers of a response with this variant of a body, whose own are `own`.
    pub(super) fn head(&self, own: &HeaderMap, variant: &Variant) -> HeaderMap {
        let mut headers = own.clone();
        headers.reserve(10);
        tell_coding(&mut headers, variant.coding);
        self.describe(&mut headers);
        headers.insert(header::ETAG, variant.etag());
        headers.insert(header::CONTENT_LENGTH, variant.body.len().into());
        headers
    }

    /// Adds everything that is said of a cached response, but for its validator.
    pub(super) fn describe(&self, headers: &mut HeaderMap) {
        headers.insert(X_WISR_CACHE, HeaderValue::from_static(self.word));
        headers.insert(header::AGE, self.age.as_secs().into());
        let made = httpdate::fmt_http_date(whole_seconds(self.made));
        let control = cache_control(&self.entry.stamp, self.lifetime, self.max_stale);
        for (name, text) in [
            (header::CACHE_CONTROL, control),
            (header::LAST_MODIFIED, made),
            (CACHE_STATUS, self.status.clone().into_owned()),
        ] {
            // Made of digits, dates and words of ours; a tag is left out where it does not fit.
            if let Ok(value) = HeaderValue::try_from(text) {
                headers.insert(name, value);
            }
        }
    }
}

/// Says how a body is coded, and that it could have been otherwise.
pub(super) fn tell_coding(headers: &mut HeaderMap, coding: Coding) {
    headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    if coding != Coding::Identity {
        let coding = HeaderValue::from_static(coding.as_str());
        headers.insert(header::CONTENT_ENCODING, coding);
    }
}

fn cache_control(stamp: &Stamp, lifetime: Lifetime, max_stale: Duration) -> String {
    let shared = match stamp.revalidate {
        Revalidate::Never => YEAR,
        Revalidate::After(seconds) => u64::from(seconds),
    };
    let stale = max_stale.as_secs().saturating_sub(shared);
    match (lifetime, stamp.revalidate) {
        (Lifetime::Own, Revalidate::Never) => format!("public, max-age=0, s-maxage={shared}"),
        (Lifetime::Own, Revalidate::After(_)) => {
            format!("public, max-age=0, s-maxage={shared}, stale-while-revalidate={stale}")
        }
        (Lifetime::Over, _) => "public, max-age=0, s-maxage=0".to_owned(),
    }
}

fn cache_status(served: &Served, now: Timestamp) -> String {
    let mut text = String::from("wisr");
    // Writing to a `String` cannot fail.
    let _ = match served {
        Served::Hit { ttl: None, .. } => write!(text, "; hit"),
        Served::Hit { ttl: Some(ttl), .. } => write!(text, "; hit; ttl={}", ttl.as_secs()),
        Served::Stale {
            entry,
            why,
            renewal,
        } => {
            text.push_str("; hit");
            if let (Why::Age, Some(until)) = (why, entry.stamp.fresh_until) {
                let _ = write!(text, "; ttl={}", -signed(now.since(until)));
            }
            let waiting = match renewal {
                Renewal::Started | Renewal::Collapsed => "",
                Renewal::BackOff => ", back-off",
            };
            write!(text, "; detail=\"{}{waiting}\"", why.as_str())
        }
        Served::Rendered { why, collapsed, .. } => {
            let collapsed = if *collapsed { "; collapsed" } else { "" };
            match why {
                None => write!(text, "; fwd=uri-miss; stored{collapsed}"),
                Some(why) => write!(
                    text,
                    "; fwd=stale; stored{collapsed}; detail=\"{}\"",
                    why.as_str()
                ),
            }
        }
        Served::LastGood { failure, .. } => {
            write!(
                text,
                "; fwd=stale; detail=\"last-good, {}\"",
                failure.kind.as_str()
            )
        }
        Served::Shell(_) => write!(text, "; fwd=uri-miss; detail=\"shell\""),
    };
    text
}

fn signed(span: Duration) -> i64 {
    i64::try_from(span.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::page::{Content, Failure, FailureKind};

    const NOW: Timestamp = Timestamp::from_millis(784_111_777_900);

    use super::super::respond::tests::entry;

    fn told(served: &Served) -> [String; 3] {
        let showing = Showing::of(served, NOW, Duration::from_secs(100)).unwrap();
        let mut headers = HeaderMap::new();
        showing.describe(&mut headers);
        [X_WISR_CACHE, CACHE_STATUS, header::CACHE_CONTROL]
            .map(|name| headers[name].to_str().unwrap().to_owned())
    }

    const OWN: &str = "public, max-age=0, s-maxage=60, stale-while-revalidate=40";
    const FOREVER: &str = "public, max-age=0, s-maxage=31536000";
    const OVER: &str = "public, max-age=0, s-maxage=0";

    fn sixty(at: Timestamp) -> Arc<Entry> {
        entry(Revalidate::After(60), at)
    }

    fn expect(served: &Served, expected: [&str; 3]) {
        let told = told(served);
        assert_eq!(told, expected);
        // RFC 8941: it is a list that any structured-fields parser reads.
        sfv::Parser::new(&told[1]).parse::<sfv::List>().unwrap();
    }

    #[test]
    fn a_fresh_page_says_how_long_it_stays_so() {
        let ttl = Some(Duration::from_millis(42_900));
        let hit = Served::Hit {
            entry: sixty(NOW),
            ttl,
        };
        expect(&hit, ["HIT", "wisr; hit; ttl=42", OWN]);
        let (entry, ttl) = (entry(Revalidate::Never, NOW), None);
        expect(&Served::Hit { entry, ttl }, ["HIT", "wisr; hit", FOREVER]);
    }

    #[test]
    fn a_page_that_was_waited_for_says_for_which_generation() {
        let made = |why, collapsed| Served::Rendered {
            entry: sixty(NOW),
            why,
            collapsed,
        };
        let expect = |why, collapsed, status| {
            expect(&made(why, collapsed), ["MISS", status, OWN]);
        };
        expect(None, false, "wisr; fwd=uri-miss; stored");
        expect(None, true, "wisr; fwd=uri-miss; stored; collapsed");
        let status = "wisr; fwd=stale; stored; detail=\"module-changed\"";
        expect(Some(Why::Module), false, status);
    }

    #[test]
    fn a_stale_page_says_why_and_what_is_done() {
        let old = sixty(Timestamp::from_millis(784_111_707_900));
        let stale = |why, renewal| Served::Stale {
            entry: old.clone(),
            why,
            renewal,
        };
        let told = "wisr; hit; ttl=-10; detail=\"expired\"";
        expect(&stale(Why::Age, Renewal::Started), ["STALE", told, OWN]);
        let told = "wisr; hit; ttl=-10; detail=\"expired, back-off\"";
        expect(&stale(Why::Age, Renewal::BackOff), ["STALE", told, OWN]);
        let told = "wisr; hit; detail=\"module-changed\"";
        expect(
            &stale(Why::Module, Renewal::Collapsed),
            ["STALE", told, OVER],
        );
        let failure = Arc::new(Failure::new(FailureKind::Cpu, "render", ""));
        let last_good = Served::LastGood {
            entry: old.clone(),
            failure,
        };
        expect(
            &last_good,
            ["STALE", "wisr; fwd=stale; detail=\"last-good, cpu\"", OVER],
        );
    }

    #[test]
    fn age_and_date_are_the_generation_s() {
        let old = entry(
            Revalidate::After(60),
            Timestamp::from_millis(784_111_707_900),
        );
        let hit = Served::Hit {
            entry: old,
            ttl: None,
        };
        let showing = Showing::of(&hit, NOW, Duration::ZERO).unwrap();
        let mut headers = HeaderMap::new();
        showing.describe(&mut headers);
        assert_eq!(headers[header::AGE], "70");
        assert_eq!(
            headers[header::LAST_MODIFIED],
            "Sun, 06 Nov 1994 08:48:27 GMT"
        );
        assert!(
            headers[header::CACHE_CONTROL]
                .to_str()
                .unwrap()
                .ends_with("=0")
        );
    }

    #[test]
    fn the_404_page_is_shown_with_the_dates_of_what_is_missing() {
        let page = entry(Revalidate::Never, NOW);
        let Content::Document { headers, body, .. } = &page.content else {
            panic!("a document");
        };
        let missing = |generated| {
            let mut missing = Arc::into_inner(entry(Revalidate::After(60), generated)).unwrap();
            missing.content = Content::NotFound;
            let hit = Served::Hit {
                entry: Arc::new(missing),
                ttl: None,
            };
            let showing = Showing::of(&hit, NOW, Duration::ZERO).unwrap();
            let head = showing.head(headers, body.identity());
            head[header::LAST_MODIFIED].to_str().unwrap().to_owned()
        };
        let earlier = Timestamp::from_millis(784_111_707_900);
        assert_eq!(missing(NOW), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(missing(earlier), "Sun, 06 Nov 1994 08:48:27 GMT");
    }
}
