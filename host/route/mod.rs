//! Routes: patterns, paths and the table that joins them.
