//! `Caller`: how an API route's module has pages made anew: the interface `revalidate`, for one
//! request.

use std::pin::Pin;
use std::sync::Arc;

use super::bindings::wisr::page::revalidate as wit;
use super::sandbox::State;
use crate::page::{Count, Demand, Effect, Fate, Mode, Report, Target};

/// Does what a module demands and tells what became of it; of a call that cannot be understood,
/// what is wrong with it. This room knows neither the cache nor the routes.
pub type Revalidate = Arc<
    dyn Fn(Demand) -> Pin<Box<dyn Future<Output = Result<Report, String>> + Send>> + Send + Sync,
>;

/// Calls of one request: a module that works through a list goes on for a while; one that means
/// more pages names them in one call.
const MAX_CALLS: u32 = 256;

/// What one sandbox may call.
#[derive(Default)]
pub(super) enum Caller {
    /// A page: it is made from what it reads, and changes nothing.
    #[default]
    Page,
    /// An API route whose configuration does not grant it.
    NotGranted(Arc<str>),
    /// An API route that may call so many times more.
    Granted(Revalidate, u32),
}

impl Caller {
    /// One that may call.
    pub(super) fn granted(revalidate: Revalidate) -> Self {
        Self::Granted(revalidate, MAX_CALLS)
    }

    /// What to call by, once more.
    fn next(&mut self) -> Result<Revalidate, wit::Error> {
        match self {
            Self::Page => Err(wit::Error::NotGranted(
                "only API routes can be granted to revalidate pages".to_owned(),
            )),
            Self::NotGranted(route) => Err(wit::Error::NotGranted(format!(
                "this route may not revalidate pages: set `may-revalidate = true` in \
                 [routes.{route:?}] of wisr.toml"
            ))),
            Self::Granted(_, 0) => Err(wit::Error::TooMany(format!(
                "a request calls at most {MAX_CALLS} times: name more paths in each call"
            ))),
            Self::Granted(revalidate, left) => {
                *left -= 1;
                Ok(Arc::clone(revalidate))
            }
        }
    }
}

impl wit::Host for State {
    async fn revalidate(&mut self, call: wit::Call) -> Result<wit::Report, wit::Error> {
        let revalidate = self.caller.next()?;
        let report = revalidate(call.into()).await;
        let counts = report.iter().flat_map(|report| &report.fates);
        self.counts = counts.map(|fate| fate.count).collect();
        report.map(Into::into).map_err(wit::Error::Invalid)
    }

    fn counts(&mut self) -> Vec<Option<wit::Count>> {
        let count = |count: Count| wit::Count {
            pages: count.pages,
            is_whole: count.is_whole,
        };
        let counts = self.counts.iter();
        counts.map(|counted| counted.map(count)).collect()
    }
}

impl From<wit::Call> for Demand {
    fn from(call: wit::Call) -> Self {
        Self {
            paths: call.paths,
            tags: call.tags,
            only_generated: call.only_generated,
            mode: call.mode.map(|mode| match mode {
                wit::Mode::Regenerate => Mode::Regenerate,
                wit::Mode::Stale => Mode::Stale,
                wit::Mode::Purge => Mode::Purge,
            }),
        }
    }
}

impl From<Report> for wit::Report {
    fn from(report: Report) -> Self {
        Self {
            done: report.is_done(),
            warning: report.warning(),
            fates: report.fates.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<Fate> for wit::Fate {
    fn from(fate: Fate) -> Self {
        Self {
            target: match fate.target {
                Target::Path(path) => wit::Target::Path(path),
                Target::Tag(tag) => wit::Target::Tag(tag),
            },
            effect: match fate.effect {
                Effect::Regenerated => wit::Effect::Regenerated,
                Effect::Stale => wit::Effect::Stale,
                Effect::Purged => wit::Effect::Purged,
                Effect::Absent => wit::Effect::Absent,
                Effect::NotGenerated => wit::Effect::NotGenerated,
                Effect::UnknownRoute => wit::Effect::UnknownRoute,
                Effect::Overloaded => wit::Effect::Overloaded,
                Effect::Failed => wit::Effect::Failed,
            },
            message: fate.message,
        }
    }
}
