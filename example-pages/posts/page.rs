//! `/posts`, the list of articles: tagged, so that one call renews it with everything else.

use layout::{Frame, content, parts};
use maud::html;
use wisr_guest::{Context, Document, Page, Result, StaticProps};

struct Posts;

impl Page for Posts {
    type Props = Vec<content::Post>;

    fn static_props(_: &Context) -> Result<StaticProps<Self::Props>> {
        Ok(StaticProps::new(content::posts()?)
            .revalidate(60)
            .tag("posts"))
    }

    fn render(ctx: &Context, posts: Self::Props) -> Result<Document> {
        let mut tags: Vec<String> = posts.iter().flat_map(|post| post.tags.clone()).collect();
        tags.sort();
        tags.dedup();
        let frame =
            Frame::new(ctx, "Articles").description("Everything we have published, newest first.");
        Ok(frame.document(
            "listing",
            html! {
                header {
                    h1 { "Articles" }
                    p.lead { "One every other Monday, each under the moon it appeared with." }
                    (parts::tags(&tags))
                }
                h2.count { "Newest first" }
            (parts::articles(&posts))
            },
        ))
    }
}

wisr_guest::page!(Posts);

#[cfg(test)]
mod tests {
    use super::*;
    use wisr_guest::testing::Test;

    #[test]
    fn a_moved_article_is_not_listed_at_its_old_place() {
        let list = r#"[{"id":"new","title":"New & old","date":"2026-11-02","tags":["b","a"]},
            {"id":"old","title":"Old","date":"2026-11-01","moved":"new"}]"#;
        let page = Test::<Posts>::at("/posts", "/posts")
            .setting("content", "http://content")
            .fetch("http://content/posts", 200, list)
            .render()
            .unwrap();
        let html = page.text();
        assert!(
            html.contains("href=\"/posts/new\">New &amp; old</a>"),
            "{html}"
        );
        assert!(!html.contains("/posts/old"), "{html}");
        assert!(html.find("/tags/a").unwrap() < html.find("/tags/b").unwrap());
    }
}
