//! The room tried with real modules.
