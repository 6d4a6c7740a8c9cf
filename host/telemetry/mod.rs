//! What the server says of itself: time, incidents, metrics, traces, a line for each request.

pub mod access;
mod clock;
mod incident;
mod incidents;
mod latency;
mod memory;
pub mod metrics;
mod process;
mod sum;
pub mod timings;
pub mod trace;

pub use clock::Clock;
pub use incident::{Incident, Subject};
pub use incidents::{Incidents, Kept};
pub use latency::Counts;
pub use memory::Memory;
