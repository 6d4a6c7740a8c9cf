//! `Releases`: the folder of modules, as the immutable set of routes that readers are served from.
//!
//! | where | what |
//! |---|---|
//! | `folder` | what lies in the folder: files, their marks, and the names that are refused |
//! | `plan` | what a look at the folder asks for: load, wait, remove. And which route gets a place |
//! | `loads` | the files that are being loaded, beside the passes |
//! | `load` | one file → bytes → module → [`Routed`] or [`ApiRouted`] |
//! | [`Routed`] | a page's route with its module, rules and listing, shared by releases while unchanged |
//! | [`ApiRouted`] | the same for an API route, in a table of its own |
//! | [`Listing`] | what `static-paths` said: who is a page and who is not |
//! | [`Release`] | one immutable set of routes, and the [`Refusal`]s beside it |
//! | `state` | what is held of each file between two passes |
//! | [`Releases`] | the passes over the folder |
//! | `publish` | what is held → the next release: recorded, then swapped in |
//! | [`History`] | the latest releases, by file and digest |
//! | `archive` | the history and its modules on disk |
//! | `rollback` | modules of earlier releases serve again: on demand, and after a start |
//! | `trial` | a new module that only fails gives its route back to the one before |
//! | `watch` | when to make a pass |
//! | `reconfigure` | the same modules under other rules |
//!
//! A pass changes a route only by a module that passed every check, or by the absence of its file,
//! seen twice; and back, if the module does nothing but fail. Whatever else it meets becomes a
//! [`Refusal`] and an incident. While a rollback holds, passes go on, and the folder's routes wait
//! for its next change.

mod api;
mod archive;
mod folder;
mod history;
mod listing;
mod load;
mod loads;
mod plan;
mod publish;
mod reconfigure;
mod releases;
mod rollback;
mod routed;
mod routes;
mod state;
mod trial;
mod watch;

pub use api::{ApiError, ApiRouted};
pub use history::{Files, History, How, Modules, Record};
pub use listing::{Listing, Place};
pub use load::misplaced;
pub use releases::{Change, Config, Herald, Parts, Releases, ScanReport};
pub use rollback::RollbackError;
pub use routed::{Admission, Probation, RouteConfig, RouteRules, Routed};
pub use routes::{Refusal, Release};

#[cfg(test)]
mod tests;
