//! The public door: from a request to the page that answers it.
//!
//! A request's way: `listen` and `connection` (sockets) → `sound` (is it one?) → `check` (of what?)
//! → `service` (`Site`; its `place` says who answers: a file, an API route (`api`), an endpoint
//! (`revalidate`, `webhook`, `draft`) or a page?) → `locate` (whose page?) → the cache → `showing` (how did it come to be
//! shown?) → `respond`, with `negotiate` (which coding?) and `conditional` (does the reader have it
//! already?). What goes wrong becomes a `Problem` of `errors`. A hit that is asked for plainly has a
//! short way: `lane`, with `head` and `views`, which asks the same `place`. Both are counted by
//! `visit`. An author's browser also gets the `overlay`, and whoever watches a line of the `witness`.
//!
//! Who calls with a token or a seal, for `revalidate`, `draft` or `webhook`, may be wrong as often as
//! `throttle` allows, and is answered by `reply`; what they ask for is done by one [`Revalidation`].
//!
//! For whom a request is, `proxies` says, by what `forwarded` and the `preface` of a connection have;
//! how many new pages may be made for them, their `allowance`.
//!
//! A file's way: `files` (is there one, and in which codings?) → `file` (which part of it?), with `contents`
//! (what does it hold?),
//! `media` (what its name says) and, beside it, `shadows` (whose path does it take?).

mod account;
mod address;
mod allowance;
mod api;
mod body;
mod check;
mod conditional;
mod config;
mod connection;
mod contents;
mod crawler;
mod delivery;
mod draft;
mod errors;
mod file;
mod files;
mod forwarded;
mod gate;
mod head;
pub mod hosts;
mod in_flight;
mod lane;
pub mod listen;
mod locate;
pub mod media;
mod negotiate;
mod overlay;
mod places;
mod preface;
mod proxies;
mod reply;
mod respond;
mod revalidate;
mod service;
mod shadows;
mod showing;
mod sound;
mod strand;
mod throttle;
mod timed;
mod trailers;
pub mod upload;
mod views;
mod visit;
mod webhook;
mod witness;

pub use address::{Client, PerAddress};
pub use body::{Body, BodyError};
pub use config::{CONNECTION_BYTES, Config, Secret, Settings};
pub use connection::{Answer, Coming, Service, Short};
pub use crawler::{CRAWLERS, Crawlers};
pub use draft::Draft;
pub use errors::seconds;
pub use forwarded::Header;
pub use head::Plain;
pub use lane::Express;
pub use locate::pairs;
pub use overlay::{Dev, DevError, DevState};
pub use proxies::Proxies;
pub use revalidate::{Parameters, Revalidation, Told};
pub use service::{REVALIDATE, Site};
pub use throttle::{Denied, Throttle};
pub use timed::Patience;
pub use upload::Upload;
pub use visit::Watch;
pub use webhook::{Rule, RuleText, Scheme, Seal, Webhook, Webhooks};

#[cfg(test)]
mod fuzz;
