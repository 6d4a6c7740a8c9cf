//! [`Frame`]: the document round a page, so that a page says only what is its own.

use maud::{DOCTYPE, Markup, html};
use wisr_guest::{Cause, Context, Document, setting};

use crate::Date;
use crate::content::escape;

/// The name of the publication.
pub const SITE: &str = "Slack Water";

const TAGLINE: &str = "Small tools and slow computing, from a harbour with a bar.";

const NAVIGATION: [(&str, &str); 4] = [
    ("/posts", "Articles"),
    ("/products", "Chandlery"),
    ("/docs", "Docs"),
    ("/clock", "Clock"),
];

/// The document round a page: give it a title, and perhaps more, then the content.
#[must_use]
pub struct Frame {
    title: String,
    path: String,
    description: String,
    published: Option<Date>,
    reload_seconds: Option<u32>,
    indexed: bool,
    draft: bool,
}

impl Frame {
    /// A frame for the page at the context's path.
    pub fn new(ctx: &Context, title: impl Into<String>) -> Self {
        Self {
            title: title.into(),
            path: ctx.path.clone(),
            description: TAGLINE.to_owned(),
            published: None,
            reload_seconds: None,
            indexed: true,
            draft: ctx.cause == Cause::Draft,
        }
    }

    /// What search engines and previews show below the title.
    pub fn description(mut self, description: impl Into<String>) -> Self {
        self.description = description.into();
        self
    }

    /// Marks the page as an article of this date.
    pub fn published(mut self, date: Date) -> Self {
        self.published = Some(date);
        self
    }

    /// Keeps the page out of search engines: it is an error, a result list or a shell.
    pub fn unlisted(mut self) -> Self {
        self.indexed = false;
        self
    }

    /// Reloads the page after so many seconds, without a script: for shells.
    pub fn reload_after(mut self, seconds: u32) -> Self {
        self.reload_seconds = Some(seconds);
        self
    }

    /// The finished document. The kind becomes the class of `main`, which the stylesheet lays out by.
    pub fn document(self, kind: &str, content: Markup) -> Document {
        let page = html! {
            (DOCTYPE)
            html lang="en" {
                (self.head())
                body {
                    a.skip href="#main" { "Skip to the content" }
                    @if self.draft { (self.draft_mode()) }
                    (self.masthead())
                    main id="main" class=(kind) tabindex="-1" { (content) }
                    (footer())
                }
            }
        };
        Document::html(page.into_string())
    }

    fn head(&self) -> Markup {
        let title = match self.path.as_str() {
            "/" => self.title.clone(),
            _ => format!("{} · {SITE}", self.title),
        };
        let address = absolute(&self.path);
        html! {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) }
                meta name="description" content=(self.description);
                @if self.indexed {
                    link rel="canonical" href=(address);
                    meta property="og:url" content=(address);
                } @else {
                    meta name="robots" content="noindex";
                }
                @if let Some(seconds) = self.reload_seconds {
                    meta http-equiv="refresh" content=(seconds);
                }
                meta property="og:site_name" content=(SITE);
                meta property="og:title" content=(self.title);
                meta property="og:description" content=(self.description);
                @if let Some(date) = self.published {
                    meta property="og:type" content="article";
                    meta property="article:published_time" content=(date);
                } @else {
                    meta property="og:type" content="website";
                }
                meta name="color-scheme" content="light dark";
                link rel="stylesheet" href="/style.css";
                link rel="icon" href="/favicon.svg" type="image/svg+xml";
                link rel="alternate" type="application/atom+xml" title=(SITE) href="/feed.xml";
            }
        }
    }

    /// What only an editor sees: that nobody else sees this, and how to end it.
    fn draft_mode(&self) -> Markup {
        let leave = format!("/api/draft/off?path={}", escape(&self.path));
        html! {
            form.draft method="post" action=(leave) {
                p { "A draft: made for you a moment ago, and shown to nobody else." }
                button { "Leave draft mode" }
            }
        }
    }

    fn masthead(&self) -> Markup {
        html! {
            header.masthead {
                a.wordmark href="/" aria-current=[self.current("/")] { (mark()) span { (SITE) } }
                nav aria-label="Main" {
                    ul {
                        @for (path, label) in NAVIGATION {
                            li { a href=(path) aria-current=[self.current(path)] { (label) } }
                        }
                        li { a.search href="/search" aria-current=[self.current("/search")] { "Search" } }
                    }
                }
            }
        }
    }

    /// `page` for the page itself, `true` for the part of the site that it belongs to.
    fn current(&self, path: &str) -> Option<&'static str> {
        let below = self.path.strip_prefix(path)?;
        match below {
            "" => Some("page"),
            _ if below.starts_with('/') => Some("true"),
            _ => None,
        }
    }
}

/// The address of a path with scheme and host, for feeds, sitemaps and previews.
#[must_use]
pub fn absolute(path: &str) -> String {
    let site = setting("site").unwrap_or_default();
    format!("{}{path}", site.trim_end_matches('/'))
}

/// The publication's mark: a buoy, upright, since the water is slack.
fn mark() -> Markup {
    html! {
        svg viewBox="0 0 24 28" width="24" height="28" aria-hidden="true" {
            path.buoy d="M12 1v4M9 5h6l3.4 14H5.6Z" {}
            path.band d="M7.8 10h8.4l1.1 4.5H6.7Z" {}
            path.sea d="M1 21.5q2.75-2.6 5.5 0t5.5 0 5.5 0 5.5 0M4 26q2.7-2.4 5.3 0t5.3 0 5.4 0" {}
        }
    }
}

fn footer() -> Markup {
    html! {
        footer.colophon {
            p.motto { "Slack water lasts about twenty minutes. Use it well." }
            ul {
                li { a href="/feed.xml" { "Feed" } }
                li { a href="/sitemap.xml" { "Sitemap" } }
                li { a href="/search" { "Search" } }
                li { a href="/clock" { "When was this made?" } }
            }
            p.small { "Set in whatever good serif your machine has. No scripts, no trackers, no cookies: each page is made once, by " a href="/docs" { "wisr" } ", and kept until there is a better one." }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(path: &str) -> Frame {
        Frame {
            title: "T".into(),
            path: path.into(),
            description: String::new(),
            published: None,
            reload_seconds: None,
            indexed: true,
            draft: false,
        }
    }

    #[test]
    fn an_editor_is_told_and_led_back() {
        let drawn = |draft| {
            let frame = Frame {
                draft,
                ..at("/posts/a&b")
            };
            let document = frame.document("article", html! {});
            document.text().unwrap_or_default().to_owned()
        };
        assert!(!drawn(false).contains("draft"));
        let told = drawn(true);
        assert!(
            told.contains("action=\"/api/draft/off?path=%2Fposts%2Fa%26b\""),
            "{told}"
        );
    }

    #[test]
    fn navigation_marks_the_page_and_the_part_it_belongs_to() {
        assert_eq!(at("/posts").current("/posts"), Some("page"));
        assert_eq!(at("/posts/a").current("/posts"), Some("true"));
        assert_eq!(at("/postscript").current("/posts"), None);
        assert_eq!(at("/posts").current("/"), None);
        assert_eq!(at("/").current("/"), Some("page"));
    }

    #[test]
    fn an_unlisted_page_has_no_canonical_address() {
        let head = at("/404").unlisted().head().into_string();
        assert!(
            head.contains("noindex") && !head.contains("canonical"),
            "{head}"
        );
    }
}
