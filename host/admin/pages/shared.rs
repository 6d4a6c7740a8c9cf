//! The hosts that share pages: whether they do, and what stands between them.

use std::time::Duration;

use maud::{Markup, html};

use super::super::Admin;
use super::super::api::shared::{Account, account};
use super::super::refusal::Refusal;
use super::format::{ago, badge, count, sentence, span, visible};
use super::nothing;

/// All that is known of sharing.
pub(super) fn main(admin: &Admin) -> Result<Markup, Refusal> {
    let told = account(admin).ok_or_else(|| {
        let reason = "no pages are shared with other hosts: `store.url` in wisr.toml says where";
        Refusal::unknown(reason)
    })?;
    Ok(html! {
        @if let Some(reason) = &told.reason {
            p.notice.bad role="status" {
                strong { "This host goes on alone. " } (sentence(reason)) "."
            }
        }
        @if told.resting > 0 {
            p.notice.warn role="status" {
                (told.resting) " % of the Cluster's keys are not asked for: they only failed of late. \
                 Each host makes those pages for itself."
            }
        }
        @if let Some(warning) = &told.warning {
            p.notice.warn role="status" { (sentence(warning)) "." }
        }
        (facts(&told))
        h2 { "Hosts" }
        @if told.hosts.is_empty() {
            (nothing("Redis was not asked yet who shares."))
        } @else {
            (hosts(&told))
        }
    })
}

fn facts(told: &Account) -> Markup {
    let wide = |number: usize| count(number.try_into().unwrap_or(u64::MAX));
    html! {
        dl.facts {
            div { dt { "Breaker" } dd {
                (badge(colour(told), told.breaker)) " since " (ago(told.since, told.now))
            } }
            div { dt { "Redis" } dd {
                @for server in &told.servers { span.change { code { (visible(server)) } } }
                @if let Some(trip) = told.round_trip_us {
                    p { "There and back in " (span(Duration::from_micros(trip))) }
                }
            } }
            div { dt { "Site" } dd { code { (told.site) } } }
            div { dt { "Invalidations" } dd {
                @match told.heard {
                    Some(heard) => { "heard until " (ago(heard, told.now)) }
                    None => "none of another host was heard yet"
                }
                p { strong { (wide(told.marks)) } " tags and paths are remembered" }
            } }
            div { dt { "To be told to others" } dd {
                @if told.untold + told.owed == 0 { "nothing" } @else {
                    strong { (wide(told.untold)) } " invalidations, " strong { (wide(told.owed)) } " pages"
                }
            } }
            div { dt { "Made for all hosts" } dd {
                strong { (told.leases) } " pages right now"
                @if told.fenced > 0 { p { (count(told.fenced)) " in vain: another host was faster" } }
            } }
            div { dt { "Had from other hosts" } dd { strong { (count(told.hits)) } " pages" } }
            div { dt { "Last repair" } dd {
                @match told.repaired {
                    Some(at) => { (ago(at, told.now)) p { "Redis was told again what it had lost" } }
                    None => "none since the start"
                }
            } }
            div.wide { dt { "Last failure" } dd {
                @match &told.failed {
                    Some(failed) => { (ago(failed.at, told.now)) p { (sentence(&failed.why)) "." } }
                    None => "none since the start"
                }
            } }
        }
    }
}

fn colour(told: &Account) -> &'static str {
    match (&told.reason, told.resting) {
        (None, 0) => "good",
        (None, _) => "warn",
        (Some(_), _) => "bad",
    }
}

fn hosts(told: &Account) -> Markup {
    let most = told.hosts.iter().map(|host| host.count).max().unwrap_or(0);
    html! {
        table {
            thead { tr {
                th { "Host" } th { "Heard of" } th { "Invalidations" }
            } }
            tbody {
                @for host in &told.hosts {
                    tr {
                        td.path data-label="Host" {
                            (visible(&host.name)) " "
                            @if host.this { (badge("plain", "this one")) }
                        }
                        td data-label="Heard of" { (ago(host.heard, told.now)) }
                        td data-label="Knows" {
                            @if host.count == most { (badge("good", "all")) }
                            @else { (badge("warn", "not all, when heard of")) }
                        }
                    }
                }
            }
        }
        p.quiet {
            @if told.reason.is_some() { "As it was when Redis was last asked." }
            @else { "A host that cannot reach Redis is not heard of." }
        }
    }
}
