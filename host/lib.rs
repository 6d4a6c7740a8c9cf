//! wisr
pub mod admin;
pub mod guest;
pub mod http;
pub mod isr;
pub mod page;
pub mod release;
pub mod route;
pub mod store;
pub mod telemetry;
