//! WebAssembly guests.

pub mod outbound;
