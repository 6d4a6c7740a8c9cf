//! `Served`: how a reader's request for a page ended, and why.

use std::sync::Arc;
use std::time::Duration;

use crate::page::{Document, Entry, Failure, Page, PageKey, Param, Why};

/// What a client pays for a page that nobody has asked for before.
pub trait Toll: Send + Sync {
    /// Pays for one.
    ///
    /// # Errors
    /// How long until it can.
    fn pay(&self) -> Result<(), Duration>;

    /// Takes it back: nothing was made for it.
    fn give_back(&self);
}

/// A request for one page.
#[derive(Clone)]
pub struct Ask {
    /// The route that owns the path.
    pub page: Arc<Page>,
    /// Which page.
    pub key: PageKey,
    /// The canonical path.
    pub path: String,
    /// The route's parameters.
    pub params: Vec<Param>,
    /// The query parameters that the route allows.
    pub query: Vec<(String, String)>,
    /// What it takes to be the first to ask for it.
    pub toll: Option<Arc<dyn Toll>>,
}

impl Ask {
    /// Asks for the page of `page` at the canonical `path`.
    pub fn new(
        page: Arc<Page>,
        path: &str,
        params: Vec<Param>,
        query: Vec<(String, String)>,
    ) -> Self {
        Self {
            page,
            key: PageKey::new(path, &query),
            path: path.to_owned(),
            params,
            query,
            toll: None,
        }
    }

    /// The same for a client who pays for being the first.
    pub fn charged(self, toll: Option<Arc<dyn Toll>>) -> Self {
        Self { toll, ..self }
    }
}

/// What a reader gets when there is no entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// Waits for the page.
    Wait,
    /// Takes the shell at once, while the page is being made.
    Shell,
}

/// A fresh page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hit {
    /// The remaining freshness; none when no age ends it.
    pub ttl: Option<Duration>,
}

/// What goes on while a stale entry is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewal {
    /// This request started a generation.
    Started,
    /// A generation was under way already.
    Collapsed,
    /// The last one failed; the next attempt waits.
    BackOff,
}

/// An answer for a reader.
#[derive(Debug)]
pub enum Served {
    /// A fresh entry; `ttl` until it expires, none if only invalidation ends it.
    Hit {
        /// The entry.
        entry: Arc<Entry>,
        /// The remaining freshness.
        ttl: Option<Duration>,
    },
    /// A stale entry, shown at once.
    Stale {
        /// The entry.
        entry: Arc<Entry>,
        /// Why it is stale.
        why: Why,
        /// What is done about it.
        renewal: Renewal,
    },
    /// An entry that the reader waited for.
    Rendered {
        /// The entry.
        entry: Arc<Entry>,
        /// Why the entry before it could not be shown; none if there was none.
        why: Option<Why>,
        /// Whether another request's generation was waited for.
        collapsed: bool,
    },
    /// The entry was too old to show, and the attempt to renew it failed.
    LastGood {
        /// The entry.
        entry: Arc<Entry>,
        /// Why the attempt failed.
        failure: Arc<Failure>,
    },
    /// The shell of a page that is being made.
    Shell(Arc<Document>),
}

impl Served {
    /// The word for logs and metrics.
    pub fn as_str(&self) -> &'static str {
        match self {
            Served::Hit { .. } => "hit",
            Served::Stale { .. } => "stale",
            Served::Rendered { .. } => "miss",
            Served::LastGood { .. } => "last-good",
            Served::Shell(_) => "shell",
        }
    }
}

/// Why there is no answer for a reader.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Refused {
    /// The generation failed and there is no last good page.
    #[error("{0}")]
    Failed(Arc<Failure>),
    /// Too many generations are waiting already.
    #[error("too many pages are being made: try again in {} s", retry_after.as_secs())]
    Overloaded {
        /// When to come back.
        retry_after: Duration,
    },
    /// The client had too many pages made that nobody had asked for before.
    #[error("too many pages were made for this client: try again in {} s", retry_after.as_secs())]
    Throttled {
        /// When to come back.
        retry_after: Duration,
    },
    /// Only a generated page was to be renewed, and this one never was.
    #[error("the page was never generated")]
    NeverGenerated,
}

impl Refused {
    /// The word for logs and metrics.
    pub fn as_str(&self) -> &'static str {
        match self {
            Refused::Failed(_) => "error",
            Refused::Overloaded { .. } => "overloaded",
            Refused::Throttled { .. } => "throttled",
            Refused::NeverGenerated => "never-generated",
        }
    }
}
