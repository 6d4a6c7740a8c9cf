//! The overview: whether all is well, and what goes on.

use maud::{Markup, html};

use super::super::Admin;
use super::super::api::health::{self, Shared};
use super::chart::CHARTS;
use super::format::{ago, badge, bytes, count, sentence};
use crate::page::{Timestamp, plural};

/// What is said of the server as a whole.
pub(super) fn main(admin: &Admin) -> Markup {
    let overview = health::overview(admin);
    let samples = health::live(admin, Timestamp::from_millis(0)).samples;
    let (readiness, memory) = (&overview.readiness, &overview.memory);
    let incidents = admin.parts.incidents.latest(5);
    html! {
        section.charts aria-label="The last five minutes" {
            @for chart in CHARTS { (chart.draw(&samples)) }
        }
        dl.facts {
            div { dt { "Readiness" } dd {
                @if readiness.ready { (badge("good", "ready")) } @else { (badge("warn", "not ready")) }
                @for reason in &readiness.reasons { p { (sentence(reason)) "." } }
            } }
            div { dt { "Store" } dd {
                @match &overview.trouble {
                    None => { (badge("good", &readiness.store)) }
                    Some(why) => { (badge("bad", &readiness.store)) p { (sentence(why)) "." } }
                }
            } }
            @if readiness.shared.is_on() { (shared(&readiness.shared)) }
            div { dt { "Memory" } dd {
                @if let Some(resident) = memory.resident { strong { (bytes(resident)) } " in all, " }
                (bytes(memory.bytes.try_into().unwrap_or(0))) " of it for "
                @let pages = u64::try_from(memory.entries).unwrap_or(0);
                (count(pages)) " page" (plural(pages))
            } }
            div { dt { "Release" } dd {
                a href="/releases" { strong { "#" (overview.release) } } ", since "
                (ago(overview.since, overview.now))
            } }
            div { dt { "Routes" } dd {
                a href="/routes" { strong { (overview.routes) } }
                @if overview.refused > 0 {
                    " " (badge("bad", &refused(overview.refused)))
                }
            } }
            div { dt { "Incidents" } dd {
                a href="/incidents" { strong { (count(overview.incidents)) } } " since the start"
            } }
        }
        @if !incidents.is_empty() {
            h2 { "Latest incidents" }
            (super::incidents::table(&incidents, overview.now))
        }
        p.quiet {
            "For programs: " a href="/metrics" { "metrics" } ", "
            a href="/api/openapi.json" { "the API" } "."
        }
    }
}

/// What other hosts have of this one.
fn shared(shared: &Shared) -> Markup {
    let colour = if shared.reason.is_none() {
        "good"
    } else {
        "warn"
    };
    let untold = shared.untold.try_into().unwrap_or(u64::MAX);
    html! {
        div { dt { "Shared" } dd {
            (badge(colour, &format!("breaker {}", shared.breaker))) " " a href="/shared" { "Hosts" }
            @if let Some(reason) = &shared.reason { p { (sentence(reason)) "." } }
            @if untold > 0 { p { "Invalidations not told to other hosts yet: " strong { (count(untold)) } "." } }
        } }
    }
}

fn refused(files: usize) -> String {
    format!("{files} file{} refused", plural(files))
}
