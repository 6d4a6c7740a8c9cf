//! The public door: from a request to the page that answers it.
//!
//! A request's way: `listen` and `connection` (sockets) → `sound` (is it one?) → `check` (of what?) → `service` (`Site`:
//! an endpoint, a file, an API route
//! (`api`) or a page?) → `locate` (whose page?) → the cache → `showing` (how did it
//! come to be shown?) → `respond`, with `negotiate` (which coding?) and `conditional` (does the
//! reader have it already?). What goes wrong becomes a `Problem` of `errors`.

mod account;
mod address;
mod api;
mod body;
mod check;
mod conditional;
mod config;
mod connection;
mod crawler;
mod errors;
mod files;
pub mod listen;
mod locate;
mod negotiate;
mod overlay;
mod respond;
mod revalidate;
mod service;
mod showing;
mod sound;
mod throttle;
mod timed;
pub mod upload;
mod views;
mod witness;

pub use address::PerAddress;
pub use body::{Body, BodyError};
pub use config::{Config, Secret, Settings};
pub use connection::{Answer, Service};
pub use crawler::{CRAWLERS, Crawlers};
pub use locate::pairs;
pub use overlay::{Dev, DevError, DevState};
pub use service::Site;
pub use throttle::{Denied, Throttle};
pub use timed::Patience;

#[cfg(test)]
mod fuzz;
