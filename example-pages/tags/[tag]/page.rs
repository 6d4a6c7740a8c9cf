//! `/tags/[tag]`, the articles about one thing: pages that nobody lists, made when first asked for.

use layout::{Frame, content, parts};
use maud::html;
use wisr_guest::{Context, Document, Page, Result, StaticProps};

struct Tag;

impl Page for Tag {
    type Props = Vec<content::Post>;

    fn static_props(ctx: &Context) -> Result<StaticProps<Self::Props>> {
        let tag = ctx.param("tag").unwrap_or_default();
        let mut posts = content::posts()?;
        posts.retain(|post| post.tags.iter().any(|other| other == tag));
        if posts.is_empty() {
            return Ok(StaticProps::not_found());
        }
        Ok(StaticProps::new(posts).never().tag("posts"))
    }

    fn render(ctx: &Context, posts: Self::Props) -> Result<Document> {
        let tag = ctx.param("tag").unwrap_or_default();
        let frame =
            Frame::new(ctx, format!("About {tag}")).description(format!("Articles about {tag}."));
        Ok(frame.document("listing", html! {
            header { h1 { "About " em { (tag) } } p.more { a href="/posts" { "All articles" } } }
            h2.count { "Newest first" }
            (parts::articles(&posts))
        }))
    }
}

wisr_guest::page!(Tag);
