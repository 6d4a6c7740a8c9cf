//! The known pages: a list in the order of their paths, one with all that is known of it, and what
//! can be done about them.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use http::StatusCode;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize};

use super::super::Admin;
use super::super::refusal::Refusal;
use super::operation::{Operation, Told as Answer};
use crate::http::Told;
use crate::page::{
    Cause, Content, Cost, Demand, Digest, Entry, Failure, Freshness, Page, PageKey, Report,
    Revalidate, Summary, Tag, Timestamp,
};
use crate::release::Release;
use crate::store::Window;

/// Bytes of a body: a thousand long paths.
const BODY_BYTES: usize = 64 * 1024;

/// What a list has when its length is not asked for, and what it has at most.
const LIMIT: usize = 100;
const MAX_LIMIT: usize = 10_000;

/// How many things a list shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::admin) struct Limit(pub(in crate::admin) usize);

/// Which pages are listed.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in crate::admin) struct Query {
    /// What their paths begin with.
    pub(in crate::admin) prefix: String,
    /// Only those after this one: `next` of the list before.
    pub(in crate::admin) after: Option<String>,
    /// How many, at most.
    pub(in crate::admin) limit: Limit,
}

/// Some of the known pages.
#[derive(Debug, Serialize, JsonSchema)]
pub(in crate::admin) struct Entries {
    /// What time it is here, in milliseconds since the Unix epoch.
    pub(in crate::admin) now: Timestamp,
    /// In the order of their paths.
    pub(in crate::admin) entries: Vec<Known>,
    /// Where the list goes on, if it does.
    pub(in crate::admin) next: Option<PageKey>,
}

/// What is known of a page.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Entry")]
pub(in crate::admin) struct Known {
    /// The path, with the query parameters that are part of the key.
    pub(in crate::admin) path: PageKey,
    /// The route that made it.
    pub(in crate::admin) route: Arc<str>,
    /// `document`, `not-found` or `redirect`.
    pub(in crate::admin) content: &'static str,
    pub(in crate::admin) state: State,
    /// Why it is not fresh.
    pub(in crate::admin) why: Option<&'static str>,
    /// When it was made, in milliseconds since the Unix epoch.
    pub(in crate::admin) generated: Timestamp,
    /// When its age makes it stale.
    pub(in crate::admin) fresh_until: Option<Timestamp>,
    /// Seconds after which it is made anew.
    pub(in crate::admin) revalidate: Revalidate,
    /// The first digits of the digest of the module that made it.
    pub(in crate::admin) module: String,
    pub(in crate::admin) tags: Vec<Tag>,
    /// Bytes of the page as it was rendered.
    pub(in crate::admin) size: usize,
    /// Bytes of the page and its props in all codings.
    pub(in crate::admin) bytes: usize,
    /// Why it was made.
    pub(in crate::admin) cause: Option<Cause>,
    /// What making it cost.
    pub(in crate::admin) cost: Cost,
    /// How often it was sent since it came into memory; none while it is on disk only.
    pub(in crate::admin) hits: Option<u64>,
}

/// Whether a page is shown as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(in crate::admin) enum State {
    /// It is.
    Fresh,
    /// It is shown once more while it is made anew.
    Stale,
    /// It is shown only if making it anew fails.
    Expired,
    /// Its route is gone.
    Orphan,
}

/// Which page is shown.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct One {
    /// Its path, with the query parameters that are part of the key.
    pub(in crate::admin) path: String,
}

/// All that is known of a page.
#[derive(Debug, Serialize, JsonSchema)]
pub(in crate::admin) struct Detail {
    /// What time it is here, in milliseconds since the Unix epoch.
    pub(in crate::admin) now: Timestamp,
    pub(in crate::admin) entry: Known,
    /// The digest of the module that made it.
    pub(in crate::admin) digest: Digest,
    /// The status that it is sent with.
    pub(in crate::admin) status: u16,
    /// The headers that it set itself.
    pub(in crate::admin) headers: Vec<[String; 2]>,
    /// Where it leads to.
    pub(in crate::admin) location: Option<String>,
    /// Bytes of the page in each coding.
    pub(in crate::admin) codings: Vec<Coded>,
    /// Why it is not made anew at the moment: the last attempt failed, and the next one waits.
    pub(in crate::admin) held_back: Option<Failure>,
}

/// A page in one coding.
#[derive(Debug, Serialize, JsonSchema)]
pub(in crate::admin) struct Coded {
    pub(in crate::admin) coding: &'static str,
    pub(in crate::admin) bytes: usize,
}

pub(super) fn operations() -> Vec<Operation> {
    let list = Operation::show("/api/entries", "Known pages, in the order of paths", list);
    let one = Operation::show("/api/entry", "One page, with all that is known of it", one);
    let unknown = &[(StatusCode::NOT_FOUND, "The page is not known")];
    let act = Operation::act(
        "/api/entries/revalidate",
        "Make pages anew, mark them stale or remove them, as the public endpoint does",
        (BODY_BYTES, "as {\"paths\": [\"/posts/1\"]}"),
        act,
    );
    vec![list, one.refuses(unknown), act.also(&Told::STATUSES)]
}

async fn list(admin: Arc<Admin>, query: Query) -> Result<Answer<Entries>, Refusal> {
    Ok(entries(&admin, query).await.into())
}

async fn one(admin: Arc<Admin>, asked: One) -> Result<Answer<Detail>, Refusal> {
    Ok(detail(&admin, &asked.path).await?.into())
}

async fn act(admin: Arc<Admin>, demand: Demand) -> Result<Answer<Told>, Refusal> {
    let (status, told) = Told::of(&revalidate(&admin, demand).await?);
    Ok(Answer(status, told))
}

/// Does something about pages.
pub(in crate::admin) async fn revalidate(admin: &Admin, demand: Demand) -> Result<Report, Refusal> {
    let done = admin.revalidation.demand(demand).await;
    done.map_err(Refusal::malformed)
}

/// The pages that the query is about.
pub(in crate::admin) async fn entries(admin: &Admin, query: Query) -> Entries {
    let limit = query.limit.0;
    let window = Window {
        prefix: query.prefix,
        after: query.after,
        // One more tells whether there are more.
        limit: limit + 1,
    };
    let mut found = admin.parts.isr.list(window).await;
    let is_cut = found.len() > limit;
    found.truncate(limit);
    let release = admin.parts.releases.current();
    let pages = pages(&release);
    Entries {
        now: admin.parts.isr.now(),
        next: found.last().filter(|_| is_cut).map(|it| it.key.clone()),
        entries: found.iter().map(|it| known(admin, &pages, it)).collect(),
    }
}

/// All that is known of a page.
pub(in crate::admin) async fn detail(admin: &Admin, path: &str) -> Result<Detail, Refusal> {
    let key = PageKey::new(path, &[]);
    let Some(entry) = admin.parts.isr.entry(&key).await else {
        return Err(Refusal::unknown(format!(
            "{path} is not a page that is known: nobody has asked for it, or it was removed"
        )));
    };
    let release = admin.parts.releases.current();
    let pages = pages(&release);
    let page = pages.get(&*entry.route);
    let held_back = page.and_then(|page| admin.parts.isr.held_back(page, &key));
    Ok(Detail {
        held_back: held_back.map(|failure| Failure::clone(&failure)),
        ..Detail::of(admin, &entry, known(admin, &pages, &entry.summary()))
    })
}

impl Detail {
    fn of(admin: &Admin, entry: &Entry, known: Known) -> Self {
        let text =
            |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let mut detail = Self {
            now: admin.parts.isr.now(),
            entry: known,
            digest: entry.stamp.module,
            status: StatusCode::NOT_FOUND.as_u16(),
            headers: Vec::new(),
            location: None,
            codings: Vec::new(),
            held_back: None,
        };
        match &entry.content {
            Content::Document {
                status,
                headers,
                body,
                ..
            } => {
                detail.status = status.as_u16();
                let lines = headers.iter();
                detail.headers = lines
                    .map(|(name, value)| [name.to_string(), text(value)])
                    .collect();
                let identity = Coded {
                    coding: "identity",
                    bytes: body.size(),
                };
                let coded = body.coded().iter().map(|variant| Coded {
                    coding: variant.coding.as_str(),
                    bytes: variant.body.len(),
                });
                detail.codings = std::iter::once(identity).chain(coded).collect();
            }
            Content::NotFound => {}
            Content::Redirect { location, status } => {
                detail.status = status.as_u16();
                detail.location = Some(text(location));
            }
        }
        detail
    }
}

/// The pages of a release by route, those of errors among them.
fn pages(release: &Release) -> HashMap<&str, &Page> {
    let routes = release.table.iter().map(|(_, routed)| routed);
    let all = routes.chain(&release.not_found).chain(&release.error);
    all.map(|routed| (&*routed.page.route, &*routed.page))
        .collect()
}

fn known(admin: &Admin, pages: &HashMap<&str, &Page>, entry: &Summary) -> Known {
    let isr = &admin.parts.isr;
    let page = pages.get(&*entry.route);
    let (state, why) = match page.map(|page| isr.freshness(page, entry)) {
        None => (State::Orphan, Some("route-removed")),
        Some(Freshness::Fresh(_)) => (State::Fresh, None),
        Some(Freshness::Stale(why)) => (State::Stale, Some(why.as_str())),
        Some(Freshness::Expired(why)) => (State::Expired, Some(why.as_str())),
    };
    Known {
        path: entry.key.clone(),
        route: entry.route.clone(),
        content: entry.content,
        state,
        why,
        generated: entry.stamp.generated,
        fresh_until: entry.stamp.fresh_until,
        revalidate: entry.stamp.revalidate,
        module: entry.stamp.module.short(),
        tags: entry.stamp.tags.to_vec(),
        size: entry.size,
        bytes: entry.bytes,
        cause: entry.cause,
        cost: entry.cost.clone(),
        hits: isr.hits(&entry.key),
    }
}

impl State {
    /// The word for tables.
    pub(in crate::admin) fn as_str(self) -> &'static str {
        match self {
            State::Fresh => "fresh",
            State::Stale => "stale",
            State::Expired => "expired",
            State::Orphan => "orphan",
        }
    }
}

impl Default for Limit {
    fn default() -> Self {
        Self(LIMIT)
    }
}

impl<'de> Deserialize<'de> for Limit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        match text.parse() {
            Ok(limit @ 0..=MAX_LIMIT) => Ok(Self(limit)),
            _ => {
                let rule = format!("limit is a number from 0 to {MAX_LIMIT}");
                Err(serde::de::Error::custom(rule))
            }
        }
    }
}

impl JsonSchema for Limit {
    fn schema_name() -> Cow<'static, str> {
        "Limit".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "integer", "minimum": 0, "maximum": MAX_LIMIT, "default": LIMIT})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_have_limits() {
        let asked = |query| serde_html_form::from_str::<Query>(query).map(|query| query.limit.0);
        assert_eq!(asked("").unwrap(), LIMIT);
        assert_eq!(asked("prefix=/a&limit=7").unwrap(), 7);
        for query in [
            "limit=10001",
            "limit=-1",
            "limit=",
            "limit=1&limit=2",
            "limits=1",
        ] {
            assert!(asked(query).is_err(), "{query}");
        }
    }
}
