//! `Shell`: what is around every page of the dashboard.

use maud::{DOCTYPE, Markup, html};

use super::super::Admin;
use super::assets::PATHS;
use super::login;

/// A part of the dashboard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Section {
    Overview,
    Routes,
    Pages,
    Incidents,
    Releases,
}

const SECTIONS: [(Section, &str, &str); 5] = [
    (Section::Overview, "/", "Overview"),
    (Section::Routes, "/routes", "Routes"),
    (Section::Pages, "/pages", "Pages"),
    (Section::Incidents, "/incidents", "Incidents"),
    (Section::Releases, "/releases", "Releases"),
];

/// The frame of one page.
pub(super) struct Shell<'a> {
    section: Option<Section>,
    title: &'a str,
    has_login: bool,
}

impl<'a> Shell<'a> {
    pub(super) fn new(admin: &Admin, section: Option<Section>, title: &'a str) -> Self {
        Self {
            section,
            title,
            has_login: admin.guard.has_token(),
        }
    }

    /// The page.
    pub(super) fn around(&self, main: Markup) -> Markup {
        let header = html! {
            header {
                a.brand href="/" { img src=(PATHS.icon) alt="" width="24" height="24"; "wisr" }
                nav aria-label="Dashboard" {
                    @for (section, path, name) in SECTIONS {
                        @let is_here = self.section == Some(section);
                        a href=(path) aria-current=[is_here.then_some("page")] { (name) }
                    }
                }
                @if self.has_login {
                    form method="post" action=(login::OUT) { button.quiet { "Log out" } }
                }
            }
        };
        document(self.title, header, main)
    }
}

/// A page with this header.
pub(super) fn document(title: &str, header: Markup, main: Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="robots" content="noindex";
                title { (title) " · wisr" }
                link rel="stylesheet" href=(PATHS.style);
                link rel="icon" href=(PATHS.icon);
                script src=(PATHS.script) defer {}
            }
            body {
                a.skip href="#main" { "Skip to the content" }
                (header)
                main id="main" tabindex="-1" {
                    h1 { (title) }
                    (main)
                }
            }
        }
    }
}
