//! The words of the cache: keys, entries, freshness, and what is asked of a renderer.
//!
//! Everything here is a value or a rule. Nothing does I/O, awaits or reads a clock.

mod cost;
mod demand;
mod digest;
mod document;
mod encoding;
mod entry;
mod etag;
mod failure;
mod freshness;
mod hidden;
mod key;
mod plural;
mod render;
mod summary;
mod tag;
mod time;

pub use cost::{Cost, Fetch};
pub use demand::{Count, Demand, Effect, Fate, Mode, Report, Spread, Target};
pub use digest::Digest;
pub use document::{
    DRAFT_COOKIE, Document, OWN_COOKIES, Rejected, SESSION_COOKIE, check_redirect, is_no_guests,
    takes_own_cookie,
};
pub use encoding::{Coding, Payload, Variant, compressible};
pub use entry::{Content, Entry, Stamped};
pub use etag::BodyHash;
pub use failure::{Failure, FailureKind, Frame};
pub use freshness::{
    CLOCK_TOLERANCE, Freshness, NOT_FOUND_REVALIDATE, Policy, Revalidate, Stamp, Why, judge,
};
pub use hidden::{is_hidden, visible};
pub use key::PageKey;
pub use plural::plural;
pub use render::{
    Cause, Context, Fallback, Generation, Lifetime, Outcome, Page, Param, PathList, Pending, Props,
    Render,
};
pub use summary::Summary;
pub use tag::{Given, Tag, TagError};
pub use time::Timestamp;
