//! Markdown to HTML. The text comes from another machine, so what is HTML in it is shown as text.

use maud::{Markup, PreEscaped};
use pulldown_cmark::{CowStr, Event, HeadingLevel, Options, Parser, Tag, TagEnd, html};

/// Renders Markdown with tables, footnotes, strikethrough and curly quotes. Headings get an id to link to.
#[must_use]
pub fn render(markdown: &str) -> Markup {
    let options = Options::ENABLE_TABLES
        | Options::ENABLE_SMART_PUNCTUATION
        | Options::ENABLE_FOOTNOTES
        | Options::ENABLE_STRIKETHROUGH;
    let mut events: Vec<Event<'_>> = Parser::new_ext(markdown, options).map(tame).collect();
    name_headings(&mut events);
    let mut out = String::with_capacity(markdown.len() * 3 / 2);
    html::push_html(&mut out, events.into_iter().flat_map(wrap));
    PreEscaped(out)
}

/// How long it takes to read, in minutes begun, at 220 words a minute.
#[must_use]
pub fn reading_minutes(markdown: &str) -> usize {
    markdown.split_whitespace().count().div_ceil(220)
}

fn tame(event: Event<'_>) -> Event<'_> {
    match event {
        Event::Html(text) | Event::InlineHtml(text) => Event::Text(text),
        Event::Start(Tag::Link {
            link_type,
            dest_url,
            title,
            id,
        }) => Event::Start(Tag::Link {
            link_type,
            dest_url: safe(dest_url),
            title,
            id,
        }),
        Event::Start(Tag::Image {
            link_type,
            dest_url,
            title,
            id,
        }) => Event::Start(Tag::Image {
            link_type,
            dest_url: safe(dest_url),
            title,
            id,
        }),
        other => other,
    }
}

/// Only addresses that lead somewhere: `javascript:` and its relatives lead nowhere.
fn safe(url: CowStr<'_>) -> CowStr<'_> {
    let scheme = url.split_once(':').map(|(scheme, _)| scheme);
    match scheme {
        None | Some("http" | "https" | "mailto") => url,
        Some(before) if before.contains(['/', '?', '#']) => url,
        Some(_) => CowStr::Borrowed("#"),
    }
}

/// The page has its own `h1`, so one in the text goes down a level.
fn name_headings(events: &mut [Event<'_>]) {
    for start in 0..events.len() {
        let (head, tail) = events.split_at_mut(start + 1);
        let Some(Event::Start(Tag::Heading { level, id, .. })) = head.last_mut() else {
            continue;
        };
        if *level == HeadingLevel::H1 {
            *level = HeadingLevel::H2;
        }
        let text = tail
            .iter()
            .take_while(|event| !matches!(event, Event::End(TagEnd::Heading(_))));
        *id = Some(CowStr::from(slug(text)));
        let end = tail
            .iter_mut()
            .find(|event| matches!(event, Event::End(TagEnd::Heading(_))));
        if let Some(Event::End(TagEnd::Heading(closing))) = end {
            *closing = *level;
        }
    }
}

fn slug<'a>(events: impl Iterator<Item = &'a Event<'a>>) -> String {
    let mut slug = String::new();
    for event in events {
        if let Event::Text(text) | Event::Code(text) = event {
            for char in text.chars().flat_map(char::to_lowercase) {
                if char.is_alphanumeric() {
                    slug.push(char);
                } else if !slug.ends_with('-') && !slug.is_empty() {
                    slug.push('-');
                }
            }
        }
    }
    slug.truncate(slug.trim_end_matches('-').len());
    slug
}

/// What may be wider than the column scrolls by itself, and can be reached with the keyboard.
fn wrap(event: Event<'_>) -> impl Iterator<Item = Event<'_>> {
    let html = |text: &'static str| Event::Html(CowStr::Borrowed(text));
    let (before, event, after) = match event {
        Event::Start(Tag::Table(_)) => (
            Some(html("<div class=\"scroll\" tabindex=\"0\">")),
            event,
            None,
        ),
        Event::End(TagEnd::Table) => (None, event, Some(html("</div>"))),
        Event::Start(Tag::CodeBlock(_)) => (None, html("<pre tabindex=\"0\"><code>"), None),
        Event::End(TagEnd::CodeBlock) => (None, html("</code></pre>"), None),
        other => (None, other, None),
    };
    before.into_iter().chain([event]).chain(after)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn html(markdown: &str) -> String {
        render(markdown).into_string()
    }

    #[test]
    fn html_in_the_text_is_shown_not_run() {
        let out = html("A <script>alert(1)</script>\n\n<img src=x onerror=alert(1)>");
        assert!(!out.contains("<script") && !out.contains("<img"), "{out}");
    }

    #[test]
    fn links_lead_somewhere_or_nowhere() {
        assert!(html("[a](/x:y)").contains("href=\"/x:y\""));
        assert!(html("[a](https://example.org)").contains("href=\"https://example.org\""));
        assert!(html("[a](JavaScript:alert)").contains("href=\"#\""));
    }

    #[test]
    fn headings_have_an_id_and_leave_h1_to_the_page() {
        assert_eq!(
            html("# Who *goes* first?"),
            "<h2 id=\"who-goes-first\">Who <em>goes</em> first?</h2>\n"
        );
    }

    #[test]
    fn wide_things_scroll_by_themselves() {
        assert_eq!(
            html("```\na < b\n```"),
            "<pre tabindex=\"0\"><code>a &lt; b\n</code></pre>"
        );
        let table = html("|a|\n|-|\n|b|");
        assert!(
            table.starts_with("<div class=\"scroll\"") && table.trim_end().ends_with("</div>"),
            "{table}"
        );
    }

    #[test]
    fn a_short_text_takes_a_minute() {
        assert_eq!(reading_minutes("word"), 1);
        assert_eq!(reading_minutes(&"word ".repeat(700)), 4);
    }
}
