//! What the server says of itself: time, incidents, metrics.

mod clock;
mod incident;
mod latency;
pub mod metrics;

pub use clock::Clock;
pub use incident::{Incident, Incidents, Subject};
pub use latency::{Counts, Latency};
