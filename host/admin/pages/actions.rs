//! What the dashboard changes: asked for once more on a page of its own, then done, then told.

use std::sync::Arc;

use http::Response;
use maud::{Markup, html};
use serde::Deserialize;

use super::super::api::entries::{detail, revalidate};
use super::super::api::releases::{history, roll_back};
use super::super::refusal::Refusal;
use super::super::{Admin, answer};
use super::format::{at, link, sentence, visible};
use super::shell::{Section, Shell};
use crate::http::{Body, Told};
use crate::page::{Demand, Mode, plural};

/// Where forms about a page go.
pub(super) const ENTRY: &str = "/page/act";

/// Where the form about a release goes.
pub(super) const ROLLBACK: &str = "/releases/rollback";

/// What can be done with a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Action {
    /// Made anew now.
    Regenerate,
    /// Shown once more, then made anew.
    Stale,
    /// Removed.
    Purge,
}

/// Which page, and what is to be done with it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    path: String,
    action: Action,
}

/// Which release to go back to.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Back {
    id: u64,
}

impl Action {
    pub(super) const ALL: [Self; 3] = [Self::Regenerate, Self::Stale, Self::Purge];

    /// The word in addresses.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Action::Regenerate => "regenerate",
            Action::Stale => "stale",
            Action::Purge => "purge",
        }
    }

    /// The word on its button.
    pub(super) fn name(self) -> &'static str {
        match self {
            Action::Regenerate => "Revalidate",
            Action::Stale => "Mark stale",
            Action::Purge => "Purge",
        }
    }

    fn means(self) -> &'static str {
        match self {
            Action::Regenerate => {
                "The page is made anew now. Until that is done, and if it fails, readers get the \
                 page that there is."
            }
            Action::Stale => {
                "The next reader still gets the page that there is, and it is made anew behind them."
            }
            Action::Purge => {
                "The page is removed, the last good one included. The next reader waits until it is \
                 made anew, and gets an error if that fails."
            }
        }
    }

    /// What is said when it is done.
    pub(super) fn done(self) -> &'static str {
        match self {
            Action::Regenerate => "The page was made anew.",
            Action::Stale => "The page is stale: it is made anew behind its next reader.",
            Action::Purge => "The page was removed.",
        }
    }

    fn mode(self) -> Mode {
        match self {
            Action::Regenerate => Mode::Regenerate,
            Action::Stale => Mode::Stale,
            Action::Purge => Mode::Purge,
        }
    }
}

/// Asks whether it is really meant.
pub(super) async fn confirm_entry(admin: &Admin, wanted: &Wanted) -> Result<Markup, Refusal> {
    detail(admin, &wanted.path).await?;
    let Wanted { path, action } = wanted;
    Ok(html! {
        p.lead.path { (visible(path)) }
        p { (action.means()) }
        form.actions method="post" action=(ENTRY) {
            input type="hidden" name="path" value=(path);
            input type="hidden" name="action" value=(action.as_str());
            button.primary.danger[*action == Action::Purge] { (action.name()) }
            a.button href=(link("/page", "path", path)) { "Cancel" }
        }
    })
}

/// Does it, and leads back to the page; or tells first what is not done everywhere yet.
pub(super) async fn entry(admin: &Admin, wanted: Wanted) -> Result<Response<Body>, Refusal> {
    let Wanted { path, action } = wanted;
    let demand = Demand {
        paths: vec![path.clone()],
        mode: Some(action.mode()),
        ..Demand::default()
    };
    let report = revalidate(admin, demand).await?;
    let (status, _) = Told::of(&report);
    if !status.is_success() {
        let why = report.fates.into_iter().find_map(|fate| fate.message);
        let why = why.unwrap_or_else(|| format!("no route has the path {path}"));
        return Err(Refusal::new(status, why));
    }
    let back = link("/page", "path", &path);
    let Some(warning) = report.warning() else {
        let done = format!("{back}&done={}", action.as_str());
        return Ok(answer::see_other(&done));
    };
    let told = Shell::new(admin, Some(Section::Pages), "Page").around(html! {
        p.notice.good role="status" { (action.done()) }
        p.notice.warn { (sentence(&warning)) "." }
        p.lead.path { (visible(&path)) }
        p { a.button href=(back) { "To the page" } }
    });
    Ok(answer::page(status, told))
}

/// Asks whether it is really meant.
pub(super) fn confirm_rollback(admin: &Admin, back: &Back) -> Result<Markup, Refusal> {
    let history = history(admin);
    let record = history.releases.iter().find(|record| record.id == back.id);
    let Some(record) = record else {
        return Err(Refusal::unknown(format!(
            "release {} is not remembered",
            back.id
        )));
    };
    Ok(html! {
        p.lead { "Roll back to release #" (record.id) }
        p {
            @let modules = record.files.len();
            "What served since " (at(record.at)) ", " (modules) " module" (plural(modules))
            ", serves again at once, with the pages that it made. It holds until the folder changes: a \
             module that is dropped in afterwards is served."
        }
        form.actions method="post" action=(ROLLBACK) {
            input type="hidden" name="id" value=(record.id);
            button.primary.danger { "Roll back" }
            a.button href="/releases" { "Cancel" }
        }
    })
}

/// Goes back, and tells to what.
pub(super) async fn rollback(admin: &Arc<Admin>, back: &Back) -> Result<Response<Body>, Refusal> {
    roll_back(admin, Some(back.id)).await?;
    Ok(answer::see_other(&format!("/releases?done={}", back.id)))
}
