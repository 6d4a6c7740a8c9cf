//! What failed: a list, and each with everything needed to act.

use std::sync::Arc;

use maud::{Markup, html};

use super::super::Admin;
use super::super::api::incidents::{One, Query, find, latest};
use super::super::api::routes;
use super::super::refusal::Refusal;
use super::format::{ago, at, bytes, count, link, span, visible};
use super::nothing;
use super::routes::limits;
use crate::page::{Cost, Failure, Fetch, Timestamp};
use crate::telemetry::{Incident, Subject};

/// The latest.
pub(super) fn list(admin: &Admin, query: &Query) -> Markup {
    let told = latest(admin, query);
    html! {
        @if let Some(route) = &query.route {
            p { "Of " strong.path { (visible(route)) } ". " a href="/incidents" { "All incidents" } }
        }
        @if told.incidents.is_empty() {
            (nothing("Nothing has failed so far."))
        } @else {
            p { (count(told.count)) " since the start. What is alike is one here; a thousand are remembered." }
            (table(&told.incidents, admin.parts.isr.now()))
        }
        @if let Some(next) = told.next {
            @let older = link("/incidents", "before", &next.to_string());
            @let of = query.route.as_deref().map(|route| link("", "route", route));
            @let of = of.map_or_else(String::new, |of| of.replacen('?', "&", 1));
            p { a.button rel="next" href={ (older) (of) } { "Older" } }
        }
    }
}

/// Incidents in short.
pub(super) fn table(incidents: &[Arc<Incident>], now: Timestamp) -> Markup {
    html! {
        table {
            thead { tr { th { "Incident" } th { "When" } th { "About" } th.number { "Times" } th { "Kind" } th { "What" } } }
            tbody {
                @for incident in incidents {
                    tr {
                        td data-label="Incident" {
                            a href=(link("/incident", "id", &incident.id.to_string())) {
                                "#" (incident.id)
                            }
                        }
                        td data-label="When" { (ago(incident.at, now)) }
                        td.path data-label="About" { (about(&incident.subject)) }
                        td.number data-label="Times" { (count(incident.count)) }
                        td data-label="Kind" { code { (incident.kind) } }
                        td.long data-label="What" { (first_line(&incident.message)) }
                    }
                }
            }
        }
    }
}

/// One with everything that is known of it.
pub(super) fn one(admin: &Admin, asked: &One) -> Result<Markup, Refusal> {
    let incident = find(admin, asked.id)?;
    let failure = incident.failure.as_deref();
    Ok(html! {
        p.lead {
            "#" (incident.id) " · " code { (incident.kind) } " · "
            (ago(incident.at, admin.parts.isr.now()))
        }
        pre.message { (visible(&incident.message)) }
        (subject(&incident))
        @if let Some(failure) = failure {
            (account(failure))
        }
        @if let Some(route) = incident.subject.route() {
            @let all = routes::routes(admin);
            @if let Some(common) = all.find(route) {
                h2 { "Limits of the route now" }
                (limits(&common.limits))
            }
        }
    })
}

fn subject(incident: &Incident) -> Markup {
    html! {
        dl.facts {
            div { dt { "When" } dd { (at(incident.at)) } }
            @if incident.count > 1 {
                div { dt { "How often" } dd { (count(incident.count)) " times" } }
                @if let Some(first) = incident.first { div { dt { "First" } dd { (at(first)) } } }
            }
            @match &incident.subject {
                Subject::Generation { route, path, module, cause } => {
                    div { dt { "Page" } dd.path { a href=(link("/page", "path", path)) { (visible(path)) } } }
                    div { dt { "Route" } dd.path { a href=(link("/route", "name", route)) { (visible(route)) } } }
                    div { dt { "Cause" } dd { (cause) } }
                    div { dt { "Module" } dd { code { (module) } } }
                }
                Subject::Listing { route } => {
                    div { dt { "Route" } dd.path { a href=(link("/route", "name", route)) { (visible(route)) } } }
                    div { dt { "Asked for" } dd { "its paths" } }
                }
                Subject::Module { file } => { div { dt { "File" } dd.path { (visible(file)) } } }
                Subject::Server => { div { dt { "About" } dd { "wisr itself" } } }
            }
            @if let Some(failure) = incident.failure.as_deref() {
                div { dt { "Ended in" } dd { code { (failure.call) } } }
            }
        }
    }
}

fn account(failure: &Failure) -> Markup {
    html! {
        h2 { "What it wrote to stderr" }
        @if failure.stderr.is_empty() {
            (nothing("Nothing."))
        } @else {
            pre { (visible(failure.stderr.trim_end())) }
        }
        @if let Some(props) = failure.readable_props() {
            h2 { "Props that it rendered" }
            pre { (visible(&props)) }
        }
        h2 { "Backtrace" }
        @if failure.frames.is_empty() {
            (nothing("None: it did not trap, or the incident is kept without it."))
        } @else {
            ol.frames {
                @for frame in &failure.frames {
                    li {
                        code { (visible(&frame.function)) }
                        @if let Some(location) = &frame.location { " " span.quiet { (visible(location)) } }
                    }
                }
            }
        }
        h2 { "Outgoing requests" }
        (fetches(&failure.cost.fetches))
        h2 { "What it had used" }
        (cost(&failure.cost))
    }
}

/// What a generation asked others for.
pub(super) fn fetches(fetches: &[Fetch]) -> Markup {
    if fetches.is_empty() {
        return nothing("None.");
    }
    html! {
        table {
            thead { tr { th { "Request" } th { "Result" } th.number { "Took" } th.number { "Read" } } }
            tbody {
                @for fetch in fetches {
                    tr {
                        td.path data-label="Request" { code { (visible(&fetch.method)) } " " (visible(&fetch.url)) }
                        td.long data-label="Result" {
                            @match &fetch.result {
                                Ok(status) => { (status) }
                                Err(reason) => { (visible(reason)) }
                            }
                        }
                        td.number data-label="Took" { (span(fetch.duration)) }
                        td.number data-label="Read" { (bytes(fetch.bytes)) }
                    }
                }
            }
        }
    }
}

/// What a generation used.
pub(super) fn cost(cost: &Cost) -> Markup {
    html! {
        dl.facts {
            div { dt { "CPU" } dd { (span(cost.cpu)) } }
            div { dt { "Wall" } dd { (span(cost.wall)) } }
            div { dt { "Memory" } dd { (bytes(cost.memory)) } }
            div { dt { "Instantiate" } dd { (span(cost.instantiate)) } }
            div { dt { "static-props" } dd { (span(cost.static_props)) } }
            div { dt { "render" } dd { (span(cost.render)) } }
            div { dt { "Compress" } dd { (span(cost.encode)) } }
        }
    }
}

fn about(subject: &Subject) -> String {
    visible(match subject {
        Subject::Generation { path, .. } => path,
        Subject::Module { file } => file,
        Subject::Listing { route } => route,
        Subject::Server => "wisr",
    })
}

fn first_line(message: &str) -> String {
    const SHOWN: usize = 160;
    let line = message.lines().next().unwrap_or("");
    let end = line.floor_char_boundary(SHOWN);
    let cut = if end < message.len() { "…" } else { "" };
    visible(&line[..end]) + cut
}
