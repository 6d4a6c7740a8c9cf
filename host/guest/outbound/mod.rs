//! Outgoing HTTP of guests: who may call whom, and the client that makes the call.
//!
//! Nothing is granted by default. A [`Policy`] lists what a route may call, a [`Client`] is shared
//! by the whole program and owns the connections, a [`Session`] is one generation's use of it: it
//! is what the sandbox plugs in as `wasi:http`'s hooks.
//!
//! The order of checks is the security argument: a URL is brought into its one spelling,
//! held against the policy, resolved once, and every address is judged on its
//! own; the socket goes to exactly the address that was judged, so an answer that changes between
//! check and use changes nothing.

mod address;
mod body;
mod client;
mod connect;
mod entry;
mod log;
mod policy;
mod pool;
mod refusal;
mod resolve;
mod session;
mod target;
mod tls;

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod live;

pub use client::{Client, ClientConfig, ClientError};
pub(super) use connect::MAX_BUFFER as READ_AHEAD;
pub use entry::Entry;
pub use policy::{Policy, PolicyError};
pub use resolve::Resolver;
pub(super) use session::Companion;
pub use session::{Session, SessionLimits};
