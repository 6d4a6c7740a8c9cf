//! `Revalidation`: what is done about a [`Call`], whoever made it: the endpoint, a webhook, a
//! module of the site.

use std::sync::Arc;

use futures_util::{StreamExt, stream};

use super::super::locate::{Located, locate};
use super::call::{Call, Target};
use crate::isr::{Ask, Isr, Refused};
use crate::page::{self, Count, Demand, Effect, Fate, Mode, PageKey, Report, Spread, Tag};
use crate::release::{Release, Releases};
use crate::route::Path;
use crate::store::SharedHealth;

/// Pages of one call that are made at once; the queue of generations has the last word.
const AT_ONCE: usize = 16;

/// Pages that one call regenerates for its tags; the others become stale.
const MAX_TAGGED: usize = 1_000;

/// A path of a call.
struct Named {
    /// As it was written.
    written: String,
    /// What is to be made, if a route has it.
    ask: Option<Ask>,
    /// Why it is not known whether it is listed, if so.
    unlisted: Option<String>,
    /// The page itself, if it is that of a path alone whose query variants are meant as well.
    whole: Option<PageKey>,
}

/// The pages that calls are about, and what they are routed by.
#[derive(Clone)]
pub struct Revalidation {
    /// The pages.
    pub isr: Isr,
    /// Whose they are.
    pub releases: Arc<Releases>,
}

impl Revalidation {
    /// Does what is demanded, for whom it may be done.
    ///
    /// # Errors
    /// The first thing that is wrong with it, for whoever wrote it to read.
    pub async fn demand(&self, demand: Demand) -> Result<Report, String> {
        Ok(self.perform(Call::of(demand)?).await)
    }

    /// Does what the call asks for, and waits for as much of it as the call waits for.
    pub(in crate::http) async fn perform(&self, call: Call) -> Report {
        let release = self.releases.current();
        let mode = call.mode.unwrap_or(Mode::Regenerate);
        let only_generated = call.only_generated;
        let named = call.paths.into_iter();
        let named = named.map(|target| Named::by(target, &release));
        let named: Vec<Named> = stream::iter(named).buffered(AT_ONCE).collect().await;
        let whole: Vec<PageKey> = named.iter().filter_map(|it| it.whole.clone()).collect();
        // Before anything changes.
        let census = self.isr.count(whole.clone(), call.tags.clone()).await;
        if !call.tags.is_empty() {
            // First: a page that is made anew below and has such a tag is fresh afterwards.
            self.isr.invalidate_tags(&call.tags);
        }
        let keys = named.iter().filter_map(|it| it.ask.as_ref());
        let keys = keys.map(|ask| ask.key.clone());
        match mode {
            // At once: one that is made anew here is not stale for the sake of another of the call.
            Mode::Regenerate => self.isr.announce(keys).await,
            Mode::Stale => self.isr.invalidate_paths(keys),
            Mode::Purge => {}
        }
        let done = stream::iter(named).map(
            async |Named {
                       written,
                       ask,
                       unlisted,
                       whole,
                   }| {
                let census = census.as_ref();
                let count = census.and_then(|it| Some(it.count(*it.variants.get(&whole?)?)));
                let done = match (ask, unlisted) {
                    (Some(ask), _) => self.apply(ask, &[], mode, only_generated).await,
                    (None, Some(error)) => (Effect::Failed, Some(error)),
                    (None, None) => (Effect::UnknownRoute, None),
                };
                fate(page::Target::Path(written), done, count)
            },
        );
        let mut fates: Vec<Fate> = done.buffered(AT_ONCE).collect().await;
        if mode == Mode::Purge {
            self.isr.forget_variants(whole).await;
        }
        fates.extend(call.tags.iter().map(|tag| {
            let census = census.as_ref();
            let count = census.and_then(|it| Some(it.count(*it.tagged.get(tag)?)));
            let tag = page::Target::Tag(tag.as_str().to_owned());
            fate(tag, (Effect::Stale, None), count)
        }));
        if !call.tags.is_empty() && call.mode == Some(Mode::Regenerate) {
            fates.extend(self.regenerate_tagged(&release, &call.tags).await);
        }
        // Once for all: a disk that hangs holds a call up once, not for every page.
        let kept = async {
            match mode {
                Mode::Regenerate if call.tags.is_empty() => self.isr.persisted().await,
                _ => self.isr.synced().await,
            }
        };
        let (kept, told) = tokio::join!(kept, self.isr.told());
        Report {
            fates,
            unkept: kept.err().map(|degraded| degraded.to_string()),
            spread: match told {
                Err(trouble) => Spread::Untold(trouble.to_string()),
                Ok(()) if self.isr.shared_health() == SharedHealth::Off => Spread::Alone,
                Ok(()) => Spread::Told,
            },
        }
    }

    async fn apply(
        &self,
        ask: Ask,
        tags: &[Tag],
        mode: Mode,
        only_generated: bool,
    ) -> (Effect, Option<String>) {
        let effect = match mode {
            Mode::Stale => Effect::Stale,
            Mode::Purge if self.isr.purge(&ask).await => Effect::Purged,
            Mode::Purge => Effect::Absent,
            Mode::Regenerate => match self.isr.renew(ask, tags, only_generated).await {
                Ok(_) => Effect::Regenerated,
                Err(Refused::NeverGenerated) => Effect::NotGenerated,
                Err(refused @ (Refused::Overloaded { .. } | Refused::Throttled { .. })) => {
                    return (Effect::Overloaded, Some(refused.to_string()));
                }
                Err(refused @ Refused::Failed(_)) => {
                    return (Effect::Failed, Some(refused.to_string()));
                }
            },
        };
        (effect, None)
    }

    /// Makes the known pages with any of these tags anew.
    async fn regenerate_tagged(&self, release: &Release, tags: &[Tag]) -> Vec<Fate> {
        // Hosts that are told later would make the pages once more.
        self.isr.announce([]).await;
        let known = self.isr.tagged(tags, MAX_TAGGED).await;
        let tagged = known.iter().filter_map(|key| {
            let (path, query) = match key.as_str().split_once('?') {
                Some((path, query)) => (path, Some(query)),
                None => (key.as_str(), None),
            };
            locate(release, &Path::parse(path).ok()?, query).map(Located::ask)
        });
        let tagged: Vec<Ask> = tagged.collect();
        stream::iter(tagged)
            .map(async |ask| {
                let key = page::Target::Path(ask.key.to_string());
                let done = self.apply(ask, tags, Mode::Regenerate, true).await;
                fate(key, done, None)
            })
            .buffered(AT_ONCE)
            .collect()
            .await
    }
}

/// Has paths listed anew where a path is in no list: what was published a moment ago is in none of
/// before.
///
/// # Errors
/// Why such a list cannot be had.
async fn list(release: &Release, target: &Target) -> Result<(), String> {
    let is_located = || locate(release, &target.path, target.query.as_deref()).is_some();
    if is_located() {
        return Ok(());
    }
    let mut failed = None;
    for found in release.table.matches(&target.path) {
        if let Err(error) = found.value.renew_listing(&target.path).await {
            failed = Some(error);
        }
    }
    match failed {
        Some(error) if !is_located() => Err(format!("its paths could not be listed anew: {error}")),
        _ => Ok(()),
    }
}

impl Named {
    async fn by(target: Target, release: &Release) -> Self {
        let unlisted = list(release, &target).await.err();
        let located = locate(release, &target.path, target.query.as_deref());
        let has_variants = |located: &Located<'_>| {
            located.query.is_empty() && !located.routed.config.query.is_empty()
        };
        let is_whole = located.as_ref().is_some_and(has_variants);
        let ask = located.map(Located::ask);
        Self {
            whole: ask.as_ref().filter(|_| is_whole).map(|ask| ask.key.clone()),
            written: target.written,
            unlisted,
            ask,
        }
    }
}

fn fate(
    target: page::Target,
    (effect, message): (Effect, Option<String>),
    count: Option<Count>,
) -> Fate {
    Fate {
        target,
        effect,
        message,
        count,
    }
}
