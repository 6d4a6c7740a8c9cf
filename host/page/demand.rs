//! `Demand`: which pages somebody says have changed, and the `Report` of what became of each.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What somebody says has changed, as they wrote it. Unknown fields are refused: a misspelt one
/// would silently do nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Demand {
    /// Paths of pages, with the query parameters that are part of their keys.
    #[schemars(inner(pattern("^/")))]
    pub paths: Vec<String>,
    /// Tags of pages.
    #[schemars(inner(length(min = 1, max = 256)))]
    pub tags: Vec<String>,
    /// Leave pages alone that were never made.
    pub only_generated: bool,
    /// What is done; by default paths are regenerated and tags become stale.
    pub mode: Option<Mode>,
}

/// What is done with the pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Made anew before the call is answered.
    Regenerate,
    /// Shown once more, while they are made anew.
    Stale,
    /// Removed.
    Purge,
}

/// What became of all that was demanded.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Of each path and tag.
    pub fates: Vec<Fate>,
    /// Why it holds only until wisr ends, if so: the disk does not take it.
    pub unkept: Option<String>,
    /// Whether the other hosts know.
    pub spread: Spread,
}

/// Whether the hosts that share pages know of what was done here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Spread {
    /// There are no others.
    #[default]
    Alone,
    /// They do.
    Told,
    /// They will, once they can be told; why they cannot be now.
    Untold(String),
}

/// What became of one path or tag.
#[derive(Debug, Clone)]
pub struct Fate {
    /// Which one.
    pub target: Target,
    /// What became of it.
    pub effect: Effect,
    /// Why it was not done, if so.
    pub message: Option<String>,
    /// How many pages it was about, where that was counted.
    pub count: Option<Count>,
}

/// How many pages a host knows that a target is about: of a tag those that have it, of a path its
/// query variants beside the page itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count {
    /// So many.
    pub pages: u64,
    /// Whether that is all of them: otherwise there are so many at least.
    pub is_whole: bool,
}

/// A path or a tag, as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// The path of a page.
    Path(String),
    /// A tag.
    Tag(String),
}

/// What became of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Effect {
    /// It was made anew.
    Regenerated,
    /// It will be, after it was shown once more.
    Stale,
    /// It was removed.
    Purged,
    /// There was none to remove.
    Absent,
    /// It was left alone: it was never made.
    NotGenerated,
    /// No route has the path.
    UnknownRoute,
    /// There was no room to make it.
    Overloaded,
    /// Making it failed; the last good page stays.
    Failed,
}

impl Demand {
    /// Whether it names nothing.
    pub fn is_empty(&self) -> bool {
        self.paths.is_empty() && self.tags.is_empty()
    }
}

impl Effect {
    /// The word for JSON and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Effect::Regenerated => "regenerated",
            Effect::Stale => "stale",
            Effect::Purged => "purged",
            Effect::Absent => "absent",
            Effect::NotGenerated => "not-generated",
            Effect::UnknownRoute => "unknown-route",
            Effect::Overloaded => "overloaded",
            Effect::Failed => "failed",
        }
    }

    /// Whether it is what was demanded.
    pub fn is_done(self) -> bool {
        !matches!(
            self,
            Effect::UnknownRoute | Effect::Overloaded | Effect::Failed
        )
    }
}

impl Report {
    /// Takes in what became of another demand.
    pub fn and(&mut self, other: Report) {
        self.fates.extend(other.fates);
        self.unkept = self.unkept.take().or(other.unkept);
        if !matches!(self.spread, Spread::Untold(_)) {
            self.spread = other.spread;
        }
    }

    /// Whether all is as demanded.
    pub fn is_done(&self) -> bool {
        self.fates.iter().all(|fate| fate.effect.is_done())
    }

    /// Whether any target had this effect.
    pub fn has(&self, effect: Effect) -> bool {
        self.fates.iter().any(|fate| fate.effect == effect)
    }

    /// Whether the other hosts know, if there are any.
    pub fn is_propagated(&self) -> Option<bool> {
        match self.spread {
            Spread::Alone => None,
            Spread::Told => Some(true),
            Spread::Untold(_) => Some(false),
        }
    }

    /// What to tell of a disk that does not take it, and of hosts that do not hear of it.
    pub fn warning(&self) -> Option<String> {
        let unkept = self.unkept.as_ref().map(|why| {
            format!("{why}: this holds until wisr ends, and is stored once the disk recovers")
        });
        let untold = match &self.spread {
            Spread::Untold(why) => Some(format!(
                "{why}: this holds on this host, and the others are told once Redis recovers"
            )),
            Spread::Alone | Spread::Told => None,
        };
        let warnings: Vec<String> = unkept.into_iter().chain(untold).collect();
        (!warnings.is_empty()).then(|| warnings.join("; "))
    }
}
