//! `StoreHealth`: whether what is made is also kept.

use std::io;
use std::sync::Arc;

use super::database::ReadError;
use super::opened::describe;

/// How the durable tier is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreHealth {
    /// What is made is kept, or there is no durable tier to keep it in.
    Ok,
    /// Pages are made and served, but not all are kept on disk.
    Degraded(Degraded),
}

/// Why pages are not kept. Everything else goes on, and it heals by itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Degraded {
    /// The disk refuses: full, read-only, broken.
    #[error("{0}; wisr goes on trying")]
    Disk(Arc<str>),
    /// Pages are made faster than the disk takes them.
    #[error("the disk is slower than pages are made, and too many wait already")]
    Full,
    /// It took longer than somebody was ready to wait.
    #[error("the disk takes long")]
    Slow,
    /// The store is being closed.
    #[error("the store is closed")]
    Closed,
    /// What earlier runs had kept could not be opened. Until the next start: somebody should know.
    #[error("{0}")]
    SetAside(Arc<str>),
}

/// Why the disk did not take something.
#[derive(Debug, thiserror::Error)]
pub(super) enum DiskError {
    /// The database says so.
    #[error("{}", describe(.0))]
    Database(#[from] fjall::Error),
    /// The file system says so.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// What must be read before something is written cannot be.
    #[error("{0}")]
    Unreadable(#[from] ReadError),
    /// It is being opened again.
    #[error("the database is closed after a failure")]
    Closed,
    /// It has other bytes than were written, and cannot go on with them.
    #[error(
        "the disk or the file system changed bytes of the store. Start the server again: the store is then set aside, and what can be read of it taken back"
    )]
    Damaged,
    /// A bug, or bytes that nobody wrote.
    #[error("the database panicked (please report it)")]
    Panicked,
}

/// How safe something must be before it is reported as done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// It survives `kill -9`: the operating system has it.
    Committed,
    /// It survives a power cut: the disk has it.
    Synced,
}

/// How far the writer has come.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// The latest change that is committed.
    pub(super) committed: u64,
    /// The latest change that is synced.
    pub(super) synced: u64,
    /// Why nothing is written for the time being.
    pub(super) failing: Option<Arc<str>>,
    /// Whether a page was refused lately.
    pub(super) full: bool,
}

impl StoreHealth {
    /// The word for logs, metrics and JSON.
    pub fn as_str(&self) -> &'static str {
        match self {
            StoreHealth::Ok => "ok",
            StoreHealth::Degraded(why) => why.as_str(),
        }
    }
}

impl Degraded {
    /// The word for logs, metrics and JSON.
    pub fn as_str(&self) -> &'static str {
        match self {
            Degraded::Disk(_) => "disk",
            Degraded::Full => "full",
            Degraded::Slow => "slow",
            Degraded::Closed => "closed",
            Degraded::SetAside(_) => "set-aside",
        }
    }
}

impl Progress {
    /// The latest change that is as safe as `need` says.
    pub(super) fn safe(&self, need: Need) -> u64 {
        match need {
            Need::Committed => self.committed,
            Need::Synced => self.synced,
        }
    }

    pub(super) fn health(&self) -> StoreHealth {
        match (&self.failing, self.full) {
            (Some(reason), _) => StoreHealth::Degraded(Degraded::Disk(reason.clone())),
            (None, true) => StoreHealth::Degraded(Degraded::Full),
            (None, false) => StoreHealth::Ok,
        }
    }
}
