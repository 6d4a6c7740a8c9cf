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
                    p.by { @if !post.author.is_empty() { "By " (post.author) ", " } (minutes) " min" }
                }
                div.prose { (markdown::render(&post.body)) }
                footer { (parts::tags(&post.tags)) p.more { a href="/posts" { "All articles" } } }
            }
        }))
    }
}

wisr_guest::page!(Post);

#[cfg(test)]
mod tests {
    use super::*;
    use wisr_guest::testing::{Rendered, Test};
    use wisr_guest::{Freshness, Outcome};

    fn answer(status: u16, body: &str) -> Result<Rendered<content::Post>> {
        Test::<Post>::at("/posts/[id]", "/posts/a")
            .setting("content", "http://content")
            .fetch("http://content/posts/a", status, body)
            .render()
    }

    #[test]
    fn an_article_is_shown_and_tagged() {
        let json = r#"{"id":"a","title":"A & B","date":"2026-11-02","body":"Some *words*."}"#;
        let page = answer(200, json).unwrap();
        assert_eq!(page.tags, ["posts", "post:a"]);
        assert_eq!(page.revalidate, Freshness::Seconds(10));
        for part in ["<h1>A &amp; B</h1>", "<em>words</em>", "2 November 2026"] {
            assert!(
                page.text().contains(part),
                "{part} is not in {}",
                page.text()
            );
        }
    }

    #[test]
    fn an_article_that_moved_sends_the_reader_on() {
        let json = r#"{"id":"a","title":"A","date":"2026-11-02","moved":"b"}"#;
        let location = String::from("/posts/b");
        let moved = Outcome::Redirect {
            location,
            status: 308,
        };
        assert_eq!(answer(200, json).unwrap().outcome, moved);
    }

    #[test]
    fn only_a_404_means_that_there_is_no_article() {
        assert_eq!(answer(404, "{}").unwrap().outcome, Outcome::NotFound);
        assert!(answer(500, "{}").is_err());
    }
}
