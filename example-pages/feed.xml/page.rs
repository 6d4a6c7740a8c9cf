//! `/feed.xml`, an Atom feed (RFC 4287): a page need not be HTML.

use layout::{SITE, absolute, content};
use maud::{PreEscaped, html};
use wisr_guest::{Context, Document, Page, Result, StaticProps};

struct Feed;

impl Page for Feed {
    type Props = Vec<content::Post>;

    fn static_props(_: &Context) -> Result<StaticProps<Self::Props>> {
        Ok(StaticProps::new(content::posts()?)
            .revalidate(300)
            .tag("posts"))
    }

    fn render(_: &Context, posts: Self::Props) -> Result<Document> {
        // A feed has to say when it changed, even while it is empty.
        let updated = posts
            .first()
            .map_or("1970-01-01".into(), |post| post.date.to_string());
        let feed = html! {
            (PreEscaped(r#"<?xml version="1.0" encoding="utf-8"?>"#))
            feed xmlns="http://www.w3.org/2005/Atom" xml:lang="en" {
                id { (absolute("/")) }
                title { (SITE) }
                updated { (updated) "T00:00:00Z" }
                link rel="self" type="application/atom+xml" href=(absolute("/feed.xml")) {}
                link rel="alternate" type="text/html" href=(absolute("/")) {}
                @for post in &posts {
                    @let address = absolute(&format!("/posts/{}", post.id));
                    entry {
                        id { (address) }
                        title { (post.title) }
                        updated { (post.date) "T00:00:00Z" }
                        author { name { @if post.author.is_empty() { (SITE) } @else { (post.author) } } }
                        link rel="alternate" type="text/html" href=(address) {}
                        summary { (post.summary) }
                        @for tag in &post.tags { category term=(tag) {} }
                    }
                }
            }
        };
        Ok(Document::new(
            "application/atom+xml; charset=utf-8",
            feed.into_string(),
        ))
    }
}

wisr_guest::page!(Feed);

#[cfg(test)]
mod tests {
    use super::*;
    use wisr_guest::testing::Test;

    #[test]
    fn every_element_is_closed_and_every_address_absolute() {
        let list = r#"[{"id":"a","title":"<A>","date":"2026-11-02","tags":["x"]}]"#;
        let feed = Test::<Feed>::at("/feed.xml", "/feed.xml")
            .setting("content", "http://content")
            .setting("site", "https://example.org/")
            .fetch("http://content/posts", 200, list)
            .render()
            .unwrap();
        let xml = feed.text();
        assert!(
            xml.contains("<id>https://example.org/posts/a</id><title>&lt;A&gt;</title>"),
            "{xml}"
        );
        assert!(
            xml.contains("<updated>2026-11-02T00:00:00Z</updated>"),
            "{xml}"
        );
        let opened =
            xml.matches('<').count() - xml.matches("</").count() - xml.matches("<?").count();
        assert_eq!(opened, xml.matches("</").count(), "{xml}");
    }
}
