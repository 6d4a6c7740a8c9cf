//! `/posts/[id]`, one article: all four answers (props, not found, redirect, error), and tags.

use layout::{Frame, content, markdown, moon::Moon, parts};
use maud::html;
use wisr_guest::{Context, Document, Page, Result, StaticPaths, StaticProps};

struct Post;

impl Page for Post {
    type Props = content::Post;

    fn static_paths() -> Result<StaticPaths> {
        let posts = content::posts()?;
        Ok(StaticPaths::blocking().paths(posts.into_iter().map(|post| [("id", post.id)])))
    }

    fn static_props(ctx: &Context) -> Result<StaticProps<Self::Props>> {
        let id = ctx.param("id").unwrap_or_default();
        let Some(post) = content::find::<content::Post>("posts", id)? else {
            return Ok(StaticProps::not_found());
        };
        if let Some(moved) = post.moved {
            return Ok(StaticProps::permanent_redirect(format!("/posts/{moved}")).revalidate(60));
        }
        let tag = format!("post:{}", post.id);
        Ok(StaticProps::new(post).revalidate(10).tag("posts").tag(tag))
    }

    fn render(ctx: &Context, post: Self::Props) -> Result<Document> {
        let minutes = markdown::reading_minutes(&post.body);
        let moon = Moon::on(post.date);
        let frame = Frame::new(ctx, &post.title)
            .description(&post.summary)
            .published(post.date);
        Ok(frame.document("article", html! {
            article {
                header {
                    p.when { (moon.draw()) (parts::date(post.date)) ", " (moon.name()) }
                    h1 { (post.title) }
                    p.lead { (post.summary) }
                    p.by { "By " (post.author) ", " (minutes) " min" }
                }
                div.prose { (markdown::render(&post.body)) }
                footer { (parts::tags(&post.tags)) p.more { a href="/posts" { "All articles" } } }
            }
        }))
    }
}

wisr_guest::page!(Post);
