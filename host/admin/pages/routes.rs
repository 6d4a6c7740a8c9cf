//! The routes: a list, and each with its module and its rules.

use maud::{Markup, html};
use serde::Deserialize;

use super::super::Admin;
use super::super::api::routes::{ApiRoute, Common, LimitsOf, PageRoute, Routes, routes};
use super::super::refusal::Refusal;
use super::format::{ago, badge, bytes, link, rough, sentence, visible};
use super::nothing;
use crate::page::{Revalidate, plural};
use crate::release::Probation;

/// Which route is shown.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct One {
    name: String,
}

/// All routes, and what is not served.
pub(super) fn list(admin: &Admin) -> Markup {
    let all = routes(admin);
    html! {
        p {
            "Release " a href="/releases" { "#" (all.release) } ", since "
            (ago(all.since, admin.parts.isr.now())) "."
        }
        (refused(&all))
        @if all.routes.is_empty() && all.apis.is_empty() {
            (nothing("No module is in the folder yet: put one into pages/, and its page is live."))
        } @else {
            table {
                thead { tr {
                    th { "Route" } th { "Module" } th.number { "Size" } th { "Made anew" }
                    th { "May reach" } th.number { "Incidents" } th { "State" }
                } }
                tbody {
                    @for route in &all.routes {
                        (row(&route.common, &lifetime(route.revalidate), &trial(route.trial)))
                    }
                    @for ApiRoute { common } in &all.apis {
                        (row(common, "for each request", &badge("plain", "API")))
                    }
                }
            }
        }
    }
}

fn refused(all: &Routes) -> Markup {
    html! {
        @for refusal in &all.refused {
            div.notice.bad {
                strong { (visible(&refusal.file.display().to_string())) }
                " (" (refusal.kind) "): " (sentence(&refusal.message))
            }
        }
    }
}

fn row(common: &Common, lifetime: &str, state: &Markup) -> Markup {
    html! {
        tr {
            td.path data-label="Route" { a href=(link("/route", "name", &common.route)) { (visible(&common.route)) } }
            td data-label="Module" { code { (common.module) } }
            td.number data-label="Size" { (bytes(common.size)) }
            td data-label="Made anew" { (lifetime) }
            td data-label="May reach" { (reach(&common.outbound)) }
            td.number data-label="Incidents" { (common.incidents) }
            td data-label="State" { (state) }
        }
    }
}

fn reach(outbound: &[String]) -> String {
    match outbound {
        [] => "nothing".to_owned(),
        [only] => visible(only),
        many => format!("{} origins", many.len()),
    }
}

/// One route with its module and its rules.
pub(super) fn one(admin: &Admin, asked: &One) -> Result<Markup, Refusal> {
    let all = routes(admin);
    let Some(common) = all.find(&asked.name) else {
        return Err(Refusal::unknown(format!(
            "{} is not a route of the release that serves",
            asked.name
        )));
    };
    let page = all
        .routes
        .iter()
        .find(|route| route.common.route == asked.name);
    Ok(html! {
        p.lead.path { (visible(&common.route)) }
        p {
            a.button href=(link("/pages", "prefix", fixed(&common.route))) { "Its pages" }
            " " a.button href=(link("/incidents", "route", &common.route)) { "Incidents (" (common.incidents) ")" }
        }
        h2 { "Module" }
        dl.facts {
            div { dt { "File" } dd.path { (visible(&common.file.display().to_string())) } }
            div { dt { "Version (BLAKE3)" } dd.path { code { (common.digest) } } }
            div { dt { "Kind" } dd { (common.kind) } }
            div { dt { "Size" } dd { (bytes(common.size)) ", machine code " (bytes(common.compiled_size)) } }
            div { dt { "Compiled" } dd {
                @match common.compile_ms {
                    Some(ms) => { "in " (ms) " ms" }
                    None => { "before" }
                }
            } }
            div { dt { "Release" } dd { a href="/releases" { "#" (all.release) } } }
            @if let Some(page) = page { div { dt { "State" } dd { (trial(page.trial)) } } }
        }
        @if let Some(page) = page { (rules(page)) }
        h2 { "May reach" }
        @if common.outbound.is_empty() {
            (nothing("Nothing: its module makes no outgoing requests."))
        } @else {
            ul { @for entry in &common.outbound { li.path { code { (visible(entry)) } } } }
        }
        h2 { "Limits of one generation" }
        (limits(&common.limits))
    })
}

/// What all paths of a route begin with.
fn fixed(route: &str) -> &str {
    route.split('[').next().unwrap_or(route)
}

fn rules(page: &PageRoute) -> Markup {
    let max_stale = std::time::Duration::from_secs(page.max_stale_seconds);
    html! {
        h2 { "Freshness" }
        dl.facts {
            div { dt { "Made anew" } dd { (lifetime(page.revalidate)) ", unless a page says otherwise" } }
            div { dt { "Shown stale" } dd { "for " (rough(max_stale)) " at most" } }
            div { dt { "At once" } dd { (page.concurrency) " generation" (plural(page.concurrency)) } }
            div { dt { "Rendered" } dd {
                @if page.render_on_change { "when its props change" } @else { "every time" }
            } }
            div { dt { "Query" } dd {
                @if page.query.is_empty() { "no parameters" } @else { (visible(&page.query.join(", "))) }
            } }
        }
    }
}

fn lifetime(revalidate: Revalidate) -> String {
    match revalidate {
        Revalidate::Never => "when told to".to_owned(),
        Revalidate::After(seconds) => {
            format!(
                "after {}",
                rough(std::time::Duration::from_secs(seconds.into()))
            )
        }
    }
}

fn trial(trial: Probation) -> Markup {
    match trial {
        Probation { passed: true, .. } => badge("good", "serving"),
        Probation { failures: 0, .. } => badge("plain", "new: no page made yet"),
        Probation { failures, .. } => badge(
            "warn",
            &format!(
                "on trial: failed {failures} time{}, no page yet",
                plural(failures)
            ),
        ),
    }
}

/// What one generation may use.
pub(super) fn limits(limits: &LimitsOf) -> Markup {
    let millis = |ms| super::format::span(std::time::Duration::from_millis(ms));
    html! {
        dl.facts {
            div { dt { "CPU" } dd { (millis(limits.cpu_ms)) } }
            div { dt { "Wall" } dd { (millis(limits.wall_ms)) } }
            div { dt { "Memory" } dd { (bytes(limits.memory)) } }
            div { dt { "Page" } dd { (bytes(limits.page)) } }
            div { dt { "Props" } dd { (bytes(limits.props)) } }
            div { dt { "Outgoing requests" } dd { (limits.fetches) ", " (limits.fetches_in_flight) " at once" } }
            div { dt { "Their bodies" } dd { (bytes(limits.fetch_bytes)) " each way" } }
        }
    }
}
