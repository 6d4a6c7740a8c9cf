//! The releases: what changed with each, and the way back.

use std::path::Path;

use maud::{Markup, html};
use serde::Deserialize;

use super::super::Admin;
use super::super::api::releases::{History, history};
use super::format::{ago, badge, link, visible};
use super::nothing;
use crate::release::{How, Record};

/// Changed files that are named.
const NAMED: usize = 6;

/// The release that was gone back to just now.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Query {
    done: Option<u64>,
}

/// Those that are remembered.
pub(super) fn list(admin: &Admin, query: &Query) -> Markup {
    let told = history(admin);
    html! {
        @if let Some(done) = query.done {
            p.notice.good role="status" { "The modules of release #" (done) " serve again." }
        }
        @if told.held {
            p.notice.warn {
                "A rollback holds: what lies in the folder is served when it changes again."
            }
        }
        @for file in told.fallen.keys() {
            p.notice.bad {
                strong { (visible(&file.display().to_string())) }
                ": the module in the folder did nothing but fail, and its route is back to the one \
                 before. Drop a mended one in."
            }
        }
        @if told.releases.is_empty() {
            (nothing("No release yet: the folder has no module."))
        } @else {
            (table(admin, &told))
        }
    }
}

fn table(admin: &Admin, told: &History) -> Markup {
    let before = told.releases.iter().skip(1).map(Some).chain([None]);
    html! {
        table {
            thead { tr {
                th { "Release" } th { "Since" } th { "Made by" } th.number { "Modules" }
                th { "Changes" } th { "" }
            } }
            tbody {
                @for (record, before) in told.releases.iter().zip(before) {
                    tr {
                        td data-label="Release" {
                            "#" (record.id) " "
                            @if told.current == Some(record.id) { (badge("good", "serving")) }
                        }
                        td data-label="Since" { (ago(record.at, admin.parts.isr.now())) }
                        td data-label="Made by" { (how(record.how)) }
                        td.number data-label="Modules" { (record.files.len()) }
                        td.path data-label="Changes" { (changes(record, before)) }
                        td data-label="" {
                            @if told.current != Some(record.id) {
                                @let confirm = link("/releases/confirm", "id", &record.id.to_string());
                                a.button href=(confirm) aria-label={ "Roll back to release " (record.id) } {
                                    "Roll back"
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn how(how: How) -> String {
    match how {
        How::Folder => "the folder".to_owned(),
        How::Rollback { of } => format!("a rollback to #{of}"),
        How::Returned => "the return of a module".to_owned(),
    }
}

/// What is there, gone and other than in the release before.
fn changes(record: &Record, before: Option<&Record>) -> Markup {
    let Some(before) = before else {
        return html! { span.quiet { "the oldest that is remembered" } };
    };
    let (new, old) = (&*record.files, &*before.files);
    let changed = new.iter().filter_map(|(file, digest)| match old.get(file) {
        None => Some(("+", &**file)),
        Some(before) if before != digest => Some(("~", &**file)),
        Some(_) => None,
    });
    let gone = old.keys().filter(|file| !new.contains_key(*file));
    let all: Vec<(&str, &Path)> = changed.chain(gone.map(|file| ("−", &**file))).collect();
    html! {
        @for (sign, file) in all.iter().take(NAMED) {
            span.change { (sign) " " (visible(&file.display().to_string())) }
        }
        @if all.len() > NAMED { span.quiet { "and " (all.len() - NAMED) " more" } }
        @if all.is_empty() { span.quiet { "none" } }
    }
}
