//! Has pages made anew from within an API route, as the server's endpoint `/api/revalidate` does.
//!
//! The server's configuration must grant it: `[routes."/api/hook"] may-revalidate = true`.
//!
//! ```
//! # fn example() -> wisr_guest::Result<()> {
//! use wisr_guest::revalidate::{self, Call, Mode};
//!
//! revalidate::path("/posts/1")?; // the very next reader sees the new page
//! revalidate::tag("posts")?; // these are shown once more while they are made anew
//! let report = Call::new().path("/posts/1").path("/posts/2").mode(Mode::Purge).send()?;
//! # Ok(()) }
//! ```

use crate::{Result, bail};

/// What is done with the pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// They are made anew before the call returns.
    Regenerate,
    /// They are shown once more, while they are made anew.
    Stale,
    /// They are removed. For paths only.
    Purge,
}

/// Which pages have changed: at most 1,000 paths and tags in a call, and 256 calls in a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use = "a call does nothing until it is sent"]
pub struct Call {
    /// Paths, with the query parameters that are part of the page's key.
    pub paths: Vec<String>,
    /// Tags.
    pub tags: Vec<String>,
    /// Leave pages alone that were never made.
    pub only_generated: bool,
    /// By default paths are regenerated, and tags become stale.
    pub mode: Option<Mode>,
}

/// What became of a call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Whether all is as it was asked for.
    pub done: bool,
    /// What became of each path and tag.
    pub fates: Vec<Fate>,
    /// What to know of a disk that does not take it.
    pub warning: Option<String>,
}

/// What became of one path or tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fate {
    /// The path or the tag.
    pub target: String,
    /// `regenerated`, `stale`, `purged`, `absent`, `not-generated`, or what went wrong:
    /// `unknown-route`, `overloaded`, `failed`.
    pub effect: &'static str,
    /// Why it went wrong.
    pub message: Option<String>,
    /// How many pages it was about, where that was counted.
    pub count: Option<Count>,
}

/// How many pages the host knew that a tag or a path was about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    /// Of a tag, the pages that had it; of a path, its query variants.
    pub pages: u64,
    /// Whether that is all of them: otherwise there are so many at least.
    pub is_whole: bool,
}

/// Makes a page anew and waits for it: the very next reader sees it.
///
/// # Errors
/// When it is not granted, no route has the path, or the page failed: the last good one stays.
pub fn path(path: impl Into<String>) -> Result<()> {
    Call::new().path(path).send()?.into_result()
}

/// Marks the pages with a tag: each is shown once more, and made anew meanwhile.
///
/// # Errors
/// When it is not granted, or the tag is none.
pub fn tag(tag: impl Into<String>) -> Result<()> {
    Call::new().tag(tag).send()?.into_result()
}

impl Call {
    /// A call that names nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Names a path.
    pub fn path(mut self, path: impl Into<String>) -> Self {
        self.paths.push(path.into());
        self
    }

    /// Names a tag.
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.tags.push(tag.into());
        self
    }

    /// Leaves pages alone that were never made.
    pub fn only_generated(mut self) -> Self {
        self.only_generated = true;
        self
    }

    /// Says what is done with the pages.
    pub fn mode(mut self, mode: Mode) -> Self {
        self.mode = Some(mode);
        self
    }

    /// Sends it, and waits for as much as its mode waits for. Waiting counts to the wall time of the
    /// request.
    ///
    /// # Errors
    /// When it is not granted, or something is wrong with it: nothing was done. What became of each
    /// page is in the report.
    pub fn send(self) -> Result<Report> {
        #[cfg(target_arch = "wasm32")]
        return crate::serve::revalidate(self);
        #[cfg(not(target_arch = "wasm32"))]
        return crate::testing::revalidate(self);
    }
}

impl Report {
    /// Nothing, if all is as it was asked for.
    ///
    /// # Errors
    /// The first thing that went wrong.
    pub fn into_result(self) -> Result<()> {
        let wrong = |fate: &&Fate| matches!(fate.effect, "unknown-route" | "overloaded" | "failed");
        match self.fates.iter().find(wrong) {
            None => Ok(()),
            Some(Fate {
                target,
                effect,
                message: None,
                ..
            }) => bail!("{target}: {effect}"),
            Some(Fate {
                target,
                effect,
                message: Some(why),
                ..
            }) => bail!("{target}: {effect}: {why}"),
        }
    }
}
