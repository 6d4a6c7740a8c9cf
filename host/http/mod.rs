//! The public door: from a request to the page that answers it.

mod body;
mod conditional;
mod connection;
mod crawler;
pub mod listen;
mod negotiate;

pub use body::{Body, BodyError};
pub use connection::{Answer, Patience, Service};
pub use crawler::{CRAWLERS, Crawlers};
