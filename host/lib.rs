//! wisr
