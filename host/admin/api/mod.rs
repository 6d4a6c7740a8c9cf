//! `OPERATIONS`: all that programs can ask of the admin port. One table routes, runs and documents
//! them, so that the document cannot say something else than what is done.

mod document;
pub(super) mod entries;
pub(super) mod health;
pub(super) mod incidents;
mod operation;
pub(super) mod releases;
pub(super) mod routes;
pub(super) mod shared;

use std::sync::LazyLock;

pub(super) use document::{PATH as DOCUMENT, document};
pub(super) use operation::{Found, Given, find};

use operation::Operation;

/// In the order of the document.
pub(super) static OPERATIONS: LazyLock<Vec<Operation>> = LazyLock::new(|| {
    let mut all = health::operations();
    all.extend(routes::operations());
    all.extend(entries::operations());
    all.extend(incidents::operations());
    all.extend(releases::operations());
    all.extend(shared::operations());
    all
});
