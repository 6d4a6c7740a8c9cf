//! `Census`: how many pages an invalidation is about.
//!
//! To invalidate costs the same for ten pages and for ten million, to count them does not. So it is
//! bounded: on a host with very many pages it says how many there are at least.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::durable::Durable;
use super::super::{Brief, Store, Window};
use super::Tiers;
use crate::page::{self, PageKey, Summary, Tag};

/// How long pages are counted: a hundred thousand of them, and less than whoever waits for the answer
/// would notice.
const BUDGET: Duration = Duration::from_millis(100);

/// How long a disk that hangs is waited for.
const PATIENCE: Duration = Duration::from_secs(1);

/// Pages between two looks at the clock.
const STRIDE: u32 = 256;

/// Variants that are looked at in one piece.
const AT_ONCE: usize = 1_000;

/// Pages of this host, in memory and on disk.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// How many variants each path has beside the page itself.
    pub variants: HashMap<PageKey, u64>,
    /// How many pages each tag has.
    pub tagged: HashMap<Tag, u64>,
    /// Whether all pages were looked at: otherwise there are so many at least.
    pub is_whole: bool,
}

/// A count that is under way.
struct Count {
    census: Census,
    /// What was counted in memory, and may be met on disk again.
    seen: HashSet<PageKey>,
    until: Instant,
    looked: u32,
}

impl Tiers {
    /// How many pages there are with each of `tags`, and how many variants of each of `paths`; none
    /// while others have pages counted for so long that it would take too long.
    pub async fn census(self: &Arc<Self>, paths: Vec<PageKey>, tags: Vec<Tag>) -> Option<Census> {
        if paths.is_empty() && tags.is_empty() {
            return Some(Census::default());
        }
        let turn = tokio::time::timeout(BUDGET, self.counting.lock());
        let _turn = turn.await.ok()?;
        let tiers = self.clone();
        let counted = tokio::task::spawn_blocking(move || tiers.count(paths, tags));
        let counted = tokio::time::timeout(PATIENCE, counted).await.ok()?;
        counted
            .inspect_err(|error| tracing::error!("pages were not counted: {error}"))
            .ok()
    }

    fn count(&self, paths: Vec<PageKey>, tags: Vec<Tag>) -> Census {
        let has_tags = !tags.is_empty();
        let zero = |path| (path, 0);
        let mut count = Count {
            census: Census {
                variants: paths.iter().cloned().map(zero).collect(),
                tagged: tags.into_iter().map(|tag| (tag, 0)).collect(),
                is_whole: true,
            },
            seen: HashSet::new(),
            until: Instant::now() + BUDGET,
            looked: 0,
        };
        self.memory.survey(&mut |brief| count.look(&brief, true));
        match &self.durable {
            Some(durable) if durable.hangs() => count.census.is_whole = false,
            Some(durable) if has_tags => durable.survey(&mut |brief| count.look(&brief, false)),
            Some(durable) => paths.iter().for_each(|path| count.variants(durable, path)),
            None => {}
        }
        count.census
    }

    /// Forgets the variants of pages that were purged: they are not shown any more, but would be once
    /// the purges themselves are forgotten.
    pub async fn forget_variants(self: &Arc<Self>, paths: Vec<PageKey>) {
        if paths.is_empty() {
            return;
        }
        let tiers = self.clone();
        let forget = move |durable: Option<&Durable>| {
            let mut hot = Vec::new();
            let named: HashSet<&str> = paths.iter().map(PageKey::as_str).collect();
            tiers.memory.survey(&mut |brief| {
                let path = brief.key.split_once('?').map(|(path, _)| path);
                if path.is_some_and(|path| named.contains(path)) {
                    hot.push((brief.page_key(), brief.stamp.sequence));
                }
                ControlFlow::Continue(())
            });
            tiers.forget_purged(hot);
            let durable = durable.filter(|durable| !durable.hangs());
            for (durable, path) in durable
                .iter()
                .flat_map(|it| paths.iter().map(move |p| (it, p)))
            {
                each_on_disk(durable, path, |listed| {
                    let cold = listed.iter().map(|it| (it.key.clone(), it.stamp.sequence));
                    tiers.forget_purged(cold.collect());
                    true
                });
            }
        };
        // Otherwise it goes on by itself.
        let _ = self.blocking(forget).await;
    }

    /// Forgets those that were purged; what was made since stays.
    fn forget_purged(&self, pages: Vec<(PageKey, u64)>) {
        for (key, sequence) in pages {
            if self.ledger.purged_since(&key, sequence) {
                self.remove(&key);
            }
        }
    }
}

/// Shows the variants of a path on disk, where they are neighbours, until `visit` has seen enough.
fn each_on_disk(durable: &Durable, path: &PageKey, mut visit: impl FnMut(&[Summary]) -> bool) {
    let mut window = Window::new(&prefix(path), AT_ONCE);
    loop {
        let listed = durable.list(&window);
        if !visit(&listed) {
            return;
        }
        match listed.last() {
            Some(last) if listed.len() >= AT_ONCE => {
                window.after = Some(last.key.as_str().to_owned());
            }
            _ => return,
        }
    }
}

/// What the keys of a path's variants begin with.
fn prefix(path: &PageKey) -> String {
    format!("{path}?")
}

impl Census {
    /// What is said of one of its numbers.
    pub fn count(&self, pages: u64) -> page::Count {
        page::Count {
            pages,
            is_whole: self.is_whole,
        }
    }
}

impl Count {
    fn look(&mut self, brief: &Brief<'_>, is_hot: bool) -> ControlFlow<()> {
        self.looked += 1;
        if self.looked.is_multiple_of(STRIDE) && Instant::now() > self.until {
            self.census.is_whole = false;
            return ControlFlow::Break(());
        }
        let path = brief.key.split_once('?').map(|(path, _)| path);
        let is_variant = path.is_some_and(|path| self.census.variants.contains_key(path));
        let has_tag = |tag: &Tag| self.census.tagged.contains_key(tag);
        if !is_variant && !brief.stamp.tags.iter().any(has_tag) {
            return ControlFlow::Continue(());
        }
        match is_hot {
            true => drop(self.seen.insert(brief.page_key())),
            false if self.seen.contains(brief.key) => return ControlFlow::Continue(()),
            false => {}
        }
        if let Some(variants) = path.and_then(|path| self.census.variants.get_mut(path)) {
            *variants += 1;
        }
        // One that is named twice is one.
        let tags: HashSet<&Tag> = brief.stamp.tags.iter().collect();
        for tag in tags {
            if let Some(pages) = self.census.tagged.get_mut(tag) {
                *pages += 1;
            }
        }
        ControlFlow::Continue(())
    }

    /// Counts the variants of one path on disk.
    fn variants(&mut self, durable: &Durable, path: &PageKey) {
        each_on_disk(durable, path, |listed| {
            let new = listed.iter().filter(|it| !self.seen.contains(&it.key));
            let new = new.count() as u64;
            if let Some(variants) = self.census.variants.get_mut(path) {
                *variants += new;
            }
            self.census.is_whole &= Instant::now() < self.until;
            self.census.is_whole
        });
    }
}
