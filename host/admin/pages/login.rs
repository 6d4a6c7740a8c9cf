//! The way in, where the admin port has a token: shown in place of any page to who is not known.

use std::net::IpAddr;
use std::sync::Arc;

use http::header::{HeaderValue, SET_COOKIE};
use http::request::Parts as Head;
use http::{Method, Response};
use maud::{Markup, html};
use serde::Deserialize;

use super::super::refusal::Refusal;
use super::super::{Admin, answer};
use super::assets::PATHS;
use super::format::sentence;
use super::shell;
use crate::http::Body;

/// Where the form is, and where it goes.
pub(super) const PATH: &str = "/login";

/// Where the button goes that leads out.
pub(super) const OUT: &str = "/logout";

/// What the form says.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Form {
    token: String,
    /// Where to go on, on this server.
    to: String,
}

impl Form {
    /// An empty one that leads on to where the request wanted to go.
    pub(super) fn of(head: &Head) -> Self {
        let is_shown = head.method != Method::POST && head.uri.path() != PATH;
        let to = head.uri.path_and_query().filter(|_| is_shown);
        Self {
            token: String::new(),
            to: to.map_or("/", |to| to.as_str()).to_owned(),
        }
    }

    /// The address, if it is one of this server: `//host` and `/\host` are of another.
    fn onward(&self) -> &str {
        let rest = self.to.strip_prefix('/');
        match rest {
            Some(rest) if !rest.starts_with(['/', '\\']) => &self.to,
            _ => "/",
        }
    }
}

/// The form, in place of a page that was refused.
pub(super) fn page(head: &Head, refusal: &Refusal) -> Markup {
    let was_wrong = head.method == Method::POST && head.uri.path() == PATH;
    form(Form::of(head), was_wrong.then_some(refusal))
}

/// The form.
pub(super) fn form(form: Form, refusal: Option<&Refusal>) -> Markup {
    let header = html! {
        header { span.brand { img src=(PATHS.icon) alt="" width="24" height="24"; "wisr" } }
    };
    let main = html! {
        @if refusal.is_some() {
            p.notice.bad role="alert" { (sentence("that is not the token")) "." }
        }
        form.login method="post" action=(PATH) {
            label for="token" { "Admin token" }
            input id="token" name="token" type="password" required autofocus
                autocomplete="current-password" aria-describedby="hint";
            p.quiet id="hint" { code { "server.admin-token" } " of the site's wisr.toml" }
            input type="hidden" name="to" value=(form.onward());
            button.primary { "Log in" }
        }
    };
    shell::document("Log in", header, main)
}

/// Lets in who knows the token.
pub(super) fn enter(
    admin: &Arc<Admin>,
    head: &Head,
    address: IpAddr,
    form: Form,
) -> Result<Response<Body>, Refusal> {
    let cookie = admin.guard.log_in(&head.headers, address, &form.token)?;
    let mut response = answer::see_other(form.onward());
    if let Some(cookie) = cookie {
        set(&mut response, &cookie);
    }
    Ok(response)
}

/// Lets out.
pub(super) fn leave(admin: &Arc<Admin>, head: &Head) -> Response<Body> {
    let mut response = answer::see_other("/");
    set(&mut response, &admin.guard.log_out(&head.headers));
    response
}

fn set(response: &mut Response<Body>, cookie: &str) {
    if let Ok(cookie) = HeaderValue::from_str(cookie) {
        response.headers_mut().insert(SET_COOKIE, cookie);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_led_to_another_server() {
        for (to, expected) in [
            ("/page?path=/a", "/page?path=/a"),
            ("/", "/"),
            ("//evil.example", "/"),
            ("/\\evil.example", "/"),
            ("https://evil.example", "/"),
            ("", "/"),
        ] {
            let form = Form {
                to: to.to_owned(),
                ..Form::default()
            };
            assert_eq!(form.onward(), expected, "{to}");
        }
    }
}
