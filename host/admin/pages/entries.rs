//! The known pages: a search, and each with all that is known of it.

use maud::{Markup, html};
use serde::Deserialize;

use super::super::Admin;
use super::super::api::entries::{Detail, Entries, Known, Limit, Query, State, detail, entries};
use super::super::refusal::Refusal;
use super::actions::Action;
use super::format::{ago, at, bytes, count, link, rough, sentence, span, state, visible};
use super::{incidents, nothing};
use crate::page::{Cause, Revalidate, Timestamp};

/// Rows of a table: what loads at once, also over a phone.
const ROWS: usize = 50;

/// Which pages are searched for.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Search {
    prefix: String,
    after: Option<String>,
}

/// Which page is shown, and what was done to it just now.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct One {
    path: String,
    done: Option<Action>,
}

/// The pages below a path.
pub(super) async fn list(admin: &Admin, search: Search) -> Markup {
    let Search { prefix, after } = search;
    let is_first = after.is_none();
    let query = Query {
        prefix: prefix.clone(),
        after,
        limit: Limit(ROWS),
    };
    let told = entries(admin, query).await;
    html! {
        form.search role="search" action="/pages" {
            label for="prefix" { "Paths that begin with" }
            input id="prefix" name="prefix" type="search" value=(prefix) placeholder="/posts/"
                autocomplete="off" autocapitalize="none" spellcheck="false";
            button { "Search" }
        }
        @if told.entries.is_empty() {
            @if prefix.is_empty() && is_first {
                (nothing("No page was made yet: ask for one, and it is here."))
            } @else {
                (nothing("No known page's path begins so."))
            }
        } @else {
            (table(&told))
        }
        nav.more aria-label="Parts of the list" {
            @if !is_first { a.button href=(link("/pages", "prefix", &prefix)) { "First" } }
            @if let Some(next) = &told.next {
                @let from = link("/pages", "after", next.as_str());
                @let below = link("", "prefix", &prefix).replacen('?', "&", 1);
                a.button rel="next" href={ (from) (below) } { "Next" }
            }
        }
    }
}

fn table(told: &Entries) -> Markup {
    html! {
        table {
            thead { tr {
                th { "Path" } th { "State" } th { "Made" } th { "Because" } th.number { "Took" }
                th.number { "Size" } th.number { "Hits" } th { "Tags" }
            } }
            tbody { @for entry in &told.entries { (row(entry, told.now)) } }
        }
        p.quiet { "Hits are counted while a page is in memory. – means it is on disk only." }
    }
}

fn row(entry: &Known, now: Timestamp) -> Markup {
    html! {
        tr {
            td.path data-label="Path" {
                a href=(link("/page", "path", entry.path.as_str())) { (visible(entry.path.as_str())) }
                @if entry.content != "document" { " " span.quiet { (entry.content) } }
            }
            td data-label="State" { (state(entry.state)) }
            td data-label="Made" { (ago(entry.generated, now)) }
            td.short data-label="Because" { (cause(entry.cause)) }
            td.number data-label="Took" { (span(entry.cost.wall)) }
            td.number data-label="Size" { (bytes(entry.size as u64)) }
            td.number data-label="Hits" { (hits(entry.hits)) }
            td.tags data-label="Tags" { (tags(entry, 2)) }
        }
    }
}

fn hits(hits: Option<u64>) -> String {
    hits.map_or_else(|| "–".to_owned(), count)
}

fn tags(entry: &Known, most: usize) -> Markup {
    html! {
        @for tag in entry.tags.iter().take(most) { span.tag { (visible(tag.as_str())) } " " }
        @if entry.tags.len() > most { span.quiet { "+" (entry.tags.len() - most) } }
        @if entry.tags.is_empty() { span.quiet { "none" } }
    }
}

fn cause(cause: Option<Cause>) -> &'static str {
    match cause {
        None => "unknown",
        Some(Cause::Build) => "made ahead",
        Some(Cause::FirstRequest) => "first request",
        Some(Cause::Stale) => "it was stale",
        Some(Cause::OnDemand) => "on demand",
        Some(Cause::Draft) => "a draft",
    }
}

/// One page with all that is known of it.
pub(super) async fn one(admin: &Admin, asked: &One) -> Result<Markup, Refusal> {
    let detail = match detail(admin, &asked.path).await {
        Ok(detail) => detail,
        // What was removed just now is not an error.
        Err(_) if asked.done == Some(Action::Purge) => {
            return Ok(html! {
                p.notice.good role="status" { (Action::Purge.done()) }
                p.lead.path { (visible(&asked.path)) }
                p { a.button href="/pages" { "All pages" } }
            });
        }
        Err(refusal) => return Err(refusal),
    };
    Ok(html! {
        @if let Some(done) = asked.done { p.notice.good role="status" { (done.done()) } }
        (shown(&detail))
    })
}

fn shown(detail: &Detail) -> Markup {
    let entry = &detail.entry;
    html! {
        p.lead.path { (visible(entry.path.as_str())) }
        @if let Some(failure) = &detail.held_back {
            p.notice.warn {
                "The last attempt to make it anew failed, and the next one waits: "
                (visible(&failure.to_string())) " "
                a href="/incidents" { "Incidents" }
            }
        }
        (buttons(entry))
        dl.facts {
            div { dt { "State" } dd {
                (state(entry.state))
                @if let Some(why) = entry.why { " " (why) }
            } }
            div { dt { "Made" } dd { (ago(entry.generated, detail.now)) ", " (at(entry.generated)) } }
            div { dt { "Because" } dd { (cause(entry.cause)) } }
            div { dt { "Fresh" } dd { (fresh(entry, detail.now)) } }
            div { dt { "Hits in memory" } dd { (hits(entry.hits)) } }
            div { dt { "Route" } dd.path { a href=(link("/route", "name", &entry.route)) { (visible(&entry.route)) } } }
            div { dt { "Made by" } dd.path { code title=(detail.digest) { (entry.module) } } }
            div { dt { "Sent as" } dd { (detail.status) " " (entry.content) } }
            @if let Some(location) = &detail.location {
                div { dt { "Leads to" } dd.path { (visible(location)) } }
            }
            div.wide { dt { "Tags" } dd { (tags(entry, usize::MAX)) } }
        }
        @if !detail.codings.is_empty() {
            h2 { "Size" }
            dl.facts {
                @for coded in &detail.codings {
                    div { dt { (coded.coding) } dd { (bytes(coded.bytes as u64)) } }
                }
            }
        }
        h2 { "What making it cost" }
        (incidents::cost(&entry.cost))
        @if !entry.cost.fetches.is_empty() {
            h2 { "Outgoing requests" }
            (incidents::fetches(&entry.cost.fetches))
        }
        @if !detail.headers.is_empty() {
            h2 { "Headers of its own" }
            table {
                thead { tr { th { "Name" } th { "Value" } } }
                tbody { @for [name, value] in &detail.headers {
                    tr { td data-label="Name" { (name) } td.path data-label="Value" { (visible(value)) } }
                } }
            }
        }
    }
}

fn buttons(entry: &Known) -> Markup {
    if entry.state == State::Orphan {
        return html! {
            p.notice.warn { (sentence("its route is gone, and it will be forgotten")) "." }
        };
    }
    html! {
        p.actions {
            @for action in Action::ALL {
                @let confirm = link("/page/confirm", "path", entry.path.as_str());
                a.button.danger[action == Action::Purge] href={ (confirm) "&action=" (action.as_str()) } {
                    (action.name())
                }
            }
        }
    }
}

fn fresh(entry: &Known, now: Timestamp) -> Markup {
    let left = entry.fresh_until.filter(|until| *until > now);
    let whole = |seconds: u32| rough(std::time::Duration::from_secs(seconds.into()));
    html! {
        @match (entry.revalidate, left) {
            (Revalidate::Never, _) => { "until told otherwise" }
            (Revalidate::After(seconds), Some(until)) => {
                "for " (rough(until.since(now))) " more, of " (whole(seconds))
            }
            (Revalidate::After(seconds), None) => { "no more: it was for " (whole(seconds)) }
        }
    }
}
