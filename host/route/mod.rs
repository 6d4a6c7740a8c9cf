//! Routes: the paths that readers ask for, the patterns that modules stand for, and the table that
//! joins the two. Values and rules only: nothing here does I/O, awaits or reads a clock.

mod path;
mod pattern;
mod table;

pub use path::{BadPath, MAX_SEGMENTS, Path, PathError, Segments};
pub use pattern::{ParamsError, Pattern, PatternError};
pub use table::{Conflict, Match, Rule, Table};

#[cfg(test)]
mod fuzz;
