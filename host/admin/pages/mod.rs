//! The dashboard: pages for people, made of what the operations tell. They work without scripts;
//! one script keeps the charts going.

mod actions;
mod assets;
mod chart;
mod entries;
mod format;
mod incidents;
mod login;
mod overview;
mod releases;
mod routes;
mod shared;
mod shell;

use std::net::IpAddr;
use std::sync::Arc;

use http::request::Parts as Head;
use http::{Method, Response, StatusCode};
use maud::{Markup, html};
use serde::de::DeserializeOwned;

use super::guard::Written;
use super::refusal::Refusal;
use super::{Admin, answer};
use crate::http::Upload;
use crate::http::{Body, upload};
use shell::{Section, Shell};

/// Bytes of a form: a path of 8 KiB, percent-encoded, and room for its other fields.
const FORM_BYTES: usize = 32 * 1024;

/// Whether a path needs no token: it leads into the dashboard, and tells nothing of the site.
pub(super) fn are_open(path: &str) -> bool {
    path == login::PATH || assets::find(path).is_some()
}

/// A page, or what a form leads to.
pub(super) async fn respond(
    admin: &Arc<Admin>,
    head: &Head,
    body: Upload,
    address: IpAddr,
) -> Response<Body> {
    let done = match head.method {
        Method::GET | Method::HEAD => shown(admin, head).await,
        Method::POST => posted(admin, head, body, address).await,
        _ => Err(Refusal::not_allowed("GET, HEAD, POST")),
    };
    done.unwrap_or_else(|refusal| refused(admin, head, &refusal))
}

/// A page that says why there is no other.
pub(super) fn refused(admin: &Admin, head: &Head, refusal: &Refusal) -> Response<Body> {
    let page = match refusal.status {
        StatusCode::UNAUTHORIZED => login::page(head, refusal),
        status => {
            let shell = Shell::new(admin, None, status.canonical_reason().unwrap_or("Refused"));
            shell.around(html! {
                p.notice.bad role="alert" { (format::sentence(&refusal.message)) }
                p { a href="/" { "To the overview" } }
            })
        }
    };
    answer::with(answer::page(refusal.status, page), refusal)
}

async fn shown(admin: &Arc<Admin>, head: &Head) -> Result<Response<Body>, Refusal> {
    let path = head.uri.path();
    if let Some((kind, body)) = assets::find(path) {
        return Ok(answer::asset(kind, body));
    }
    let (section, title, main) = match path {
        "/" => (Section::Overview, "Overview", overview::main(admin)),
        "/routes" => (Section::Routes, "Routes", routes::list(admin)),
        "/route" => (Section::Routes, "Route", routes::one(admin, &query(head)?)?),
        "/pages" => (
            Section::Pages,
            "Pages",
            entries::list(admin, query(head)?).await,
        ),
        "/page" => (
            Section::Pages,
            "Page",
            entries::one(admin, &query(head)?).await?,
        ),
        "/page/confirm" => (
            Section::Pages,
            "Are you sure?",
            actions::confirm_entry(admin, &query(head)?).await?,
        ),
        "/incidents" => (
            Section::Incidents,
            "Incidents",
            incidents::list(admin, &query(head)?),
        ),
        "/incident" => (
            Section::Incidents,
            "Incident",
            incidents::one(admin, &query(head)?)?,
        ),
        "/shared" => (Section::Overview, "Shared", shared::main(admin)?),
        "/releases" => (
            Section::Releases,
            "Releases",
            releases::list(admin, &query(head)?),
        ),
        "/releases/confirm" => (
            Section::Releases,
            "Are you sure?",
            actions::confirm_rollback(admin, &query(head)?)?,
        ),
        login::PATH if !admin.guard.has_token() => return Ok(answer::see_other("/")),
        login::PATH => {
            let page = login::form(login::Form::of(head), None);
            return Ok(answer::page(StatusCode::OK, page));
        }
        login::OUT | actions::ENTRY | actions::ROLLBACK => {
            return Err(Refusal::not_allowed("POST"));
        }
        _ => {
            let reason = "there is no such page: the overview leads to all there are";
            return Err(Refusal::unknown(reason));
        }
    };
    let page = Shell::new(admin, Some(section), title).around(main);
    Ok(answer::page(StatusCode::OK, page))
}

async fn posted(
    admin: &Arc<Admin>,
    head: &Head,
    body: Upload,
    address: IpAddr,
) -> Result<Response<Body>, Refusal> {
    let path = head.uri.path();
    if ![login::PATH, login::OUT, actions::ENTRY, actions::ROLLBACK].contains(&path) {
        return Err(Refusal::not_allowed("GET, HEAD"));
    }
    let guard = &admin.guard;
    guard.may_change(&head.uri, &head.headers, Written::Form)?;
    let form = upload::read(body, FORM_BYTES).await?;
    match path {
        login::PATH => login::enter(admin, head, address, read(&form)?),
        login::OUT => Ok(login::leave(admin, head)),
        actions::ENTRY => actions::entry(admin, read(&form)?).await,
        _ => actions::rollback(admin, &read(&form)?).await,
    }
}

fn query<T: DeserializeOwned>(head: &Head) -> Result<T, Refusal> {
    read(head.uri.query().unwrap_or("").as_bytes())
}

fn read<T: DeserializeOwned>(form: &[u8]) -> Result<T, Refusal> {
    serde_html_form::from_bytes(form).map_err(|error| Refusal::malformed(error.to_string()))
}

/// What is shown where there is nothing to show.
fn nothing(words: &str) -> Markup {
    html! { p.nothing { (words) } }
}
