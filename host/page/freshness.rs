//! `judge`: whether an entry may be shown, and whether it must be made anew. A pure function.

use std::borrow::Cow;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Serialize;

use super::{Digest, Lifetime, Tag, Timestamp};

/// When a route's pages grow old.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Revalidate {
    /// Only when something invalidates them.
    Never,
    /// This many seconds after they were made.
    After(u32),
}

/// The freshness rules of a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// What [`Lifetime::Inherit`] means.
    pub revalidate: Revalidate,
    /// Older than this, a stale page is no longer shown without an attempt to renew it.
    pub max_stale: Duration,
    /// Skip `render` when `static-props` returns what it returned before.
    pub render_on_change: bool,
    /// Generations of this route at once.
    pub concurrency: usize,
}

/// A 404 must not stick: what a not-found without a lifetime of its own gets.
pub const NOT_FOUND_REVALIDATE: Revalidate = Revalidate::After(60);

/// Entries from further ahead than this were made before the clock was set back.
pub const CLOCK_TOLERANCE: Duration = Duration::from_secs(60);

/// What freshness depends on, of an entry.
#[derive(Debug, Clone)]
pub struct Stamp {
    /// When the generation was stored.
    pub generated: Timestamp,
    /// The page's lifetime, for headers.
    pub revalidate: Revalidate,
    /// `generated` + `revalidate` + jitter; none for [`Revalidate::Never`].
    pub fresh_until: Option<Timestamp>,
    /// The module that made it.
    pub module: Digest,
    /// The invalidation sequence number, read before the generation began.
    pub sequence: u64,
    /// What it was made from.
    pub tags: Box<[Tag]>,
}

/// Why an entry must be made anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// It outlived its revalidate time.
    Age,
    /// Its path was invalidated.
    Path,
    /// Its path was invalidated, and whoever did so was told that there is a new one.
    Replaced,
    /// This tag of its was invalidated.
    Tag(Tag),
    /// Another module now owns the route.
    Module,
    /// The clock was set back past its making, so that its age is unknown.
    Clock,
}

impl Why {
    /// The word for `cache-status`, logs and metrics.
    pub fn as_str(&self) -> &'static str {
        match self {
            Why::Age => "expired",
            Why::Path => "path-invalidated",
            Why::Replaced => "replaced",
            Why::Tag(_) => "tag-invalidated",
            Why::Module => "module-changed",
            Why::Clock => "clock-changed",
        }
    }
}

/// What may be done with an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Freshness {
    /// Show it; it stays fresh for this long, or until invalidated.
    Fresh(Option<Duration>),
    /// Show it and make it anew meanwhile.
    Stale(Why),
    /// Too old to show before an attempt to make it anew.
    Expired(Why),
}

impl Revalidate {
    /// A page's own lifetime, or else `inherited`.
    pub fn resolve(lifetime: Lifetime, inherited: Revalidate) -> Self {
        match lifetime {
            Lifetime::Inherit => inherited,
            Lifetime::Never => Revalidate::Never,
            Lifetime::Seconds(seconds) => Revalidate::After(seconds),
        }
    }

    /// When an entry made `at` expires. `jitter` in 0..1 spreads expiries over up to 10 % more
    /// time, so that a million prerendered pages do not expire in one second.
    pub fn fresh_until(self, at: Timestamp, jitter: f64) -> Option<Timestamp> {
        match self {
            Revalidate::Never => None,
            Revalidate::After(seconds) => {
                let span = Duration::from_secs(u64::from(seconds));
                Some(at.plus(span.mul_f64(1.0 + 0.1 * jitter.clamp(0.0, 1.0))))
            }
        }
    }
}

/// Judges an entry at `now` for a route that `owner` renders under `max_stale`. `mark` is the
/// invalidation that the entry is subject to, if any.
pub fn judge(
    stamp: &Stamp,
    now: Timestamp,
    owner: Digest,
    max_stale: Duration,
    mark: Option<Why>,
) -> Freshness {
    let age = now.since(stamp.generated);
    let why = if let Some(why) = mark {
        why
    } else if stamp.module != owner {
        Why::Module
    } else if stamp.generated > now.plus(CLOCK_TOLERANCE) {
        Why::Clock
    } else {
        match stamp.fresh_until {
            None => return Freshness::Fresh(None),
            Some(until) if now < until => return Freshness::Fresh(Some(until.since(now))),
            Some(_) => Why::Age,
        }
    };
    if age > max_stale || why == Why::Replaced {
        Freshness::Expired(why)
    } else {
        Freshness::Stale(why)
    }
}

impl Serialize for Revalidate {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Revalidate::Never => serializer.serialize_str("never"),
            Revalidate::After(seconds) => serializer.serialize_u32(*seconds),
        }
    }
}

impl JsonSchema for Revalidate {
    fn schema_name() -> Cow<'static, str> {
        "Revalidate".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "Seconds after which a page is made anew, or `never`",
            "oneOf": [
                {"const": "never"},
                {"type": "integer", "minimum": 0, "maximum": u32::MAX},
            ],
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const YEAR: Duration = Duration::from_secs(31_536_000);

    fn stamp(generated: u64, revalidate: Revalidate, jitter: f64) -> Stamp {
        let generated = Timestamp::from_millis(generated);
        Stamp {
            generated,
            revalidate,
            fresh_until: revalidate.fresh_until(generated, jitter),
            module: Digest::of(b"a"),
            sequence: 0,
            tags: Box::default(),
        }
    }

    #[test]
    fn each_row_of_the_table() {
        let owner = Digest::of(b"a");
        let at = Timestamp::from_millis;
        let two = stamp(1_000, Revalidate::After(2), 0.0);
        let secs = Duration::from_secs;
        let millis = Duration::from_millis;
        assert_eq!(
            judge(&two, at(2_999), owner, YEAR, None),
            Freshness::Fresh(Some(millis(1)))
        );
        assert_eq!(
            judge(&two, at(3_000), owner, YEAR, None),
            Freshness::Stale(Why::Age)
        );
        assert_eq!(
            judge(&two, at(7_001), owner, secs(6), None),
            Freshness::Expired(Why::Age)
        );
        assert_eq!(
            judge(&two, at(1_500), Digest::of(b"b"), YEAR, None),
            Freshness::Stale(Why::Module)
        );
        assert_eq!(
            judge(&two, at(1_500), owner, YEAR, Some(Why::Path)),
            Freshness::Stale(Why::Path)
        );
        let never = stamp(1_000, Revalidate::Never, 0.0);
        assert_eq!(
            judge(&never, at(u64::MAX), owner, secs(6), None),
            Freshness::Fresh(None)
        );
        assert_eq!(
            judge(
                &stamp(200_000, Revalidate::Never, 0.0),
                at(1_000),
                owner,
                YEAR,
                None
            ),
            Freshness::Stale(Why::Clock)
        );
    }

    proptest! {
        /// The model: fresh exactly while younger than revalidate stretched by the jitter.
        #[test]
        fn age_alone_decides_while_nothing_is_invalidated(
            made in 0u64..1 << 40, seconds in 1u32..100_000, jitter in 0.0f64..=1.0, age in 0u64..1 << 30,
        ) {
            let entry = stamp(made, Revalidate::After(seconds), jitter);
            let fresh = matches!(
                judge(&entry, Timestamp::from_millis(made + age), Digest::of(b"a"), YEAR, None),
                Freshness::Fresh(_)
            );
            let shortest = u64::from(seconds) * 1000;
            let longest = shortest + shortest / 10 + 1;
            prop_assert!(!fresh || age < longest);
            prop_assert!(fresh || age >= shortest);
        }

        #[test]
        fn a_mark_is_never_overlooked(made in 0u64..1 << 40, age in 0u64..1 << 40) {
            let verdict = judge(&stamp(made, Revalidate::Never, 0.0), Timestamp::from_millis(made + age),
                Digest::of(b"a"), YEAR, Some(Why::Path));
            prop_assert!(!matches!(verdict, Freshness::Fresh(_)));
        }
    }
}
