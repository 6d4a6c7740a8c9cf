//! Incremental static regeneration.

mod served;

pub use served::{Ask, Patience, Refused, Renewal, Served};
