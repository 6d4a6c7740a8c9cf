//! `/search?q=`: the one page that sees the query, because `wisr.toml` allows `q` by name.

use layout::{Frame, content, parts};
use maud::html;
use wisr_guest::{Context, Document, Page, Result, StaticProps};

struct Search;

impl Page for Search {
    type Props = Vec<content::Post>;

    fn static_props(ctx: &Context) -> Result<StaticProps<Self::Props>> {
        let query = query(ctx).to_lowercase();
        if query.is_empty() {
            return Ok(StaticProps::new(Vec::new()));
        }
        let mut found = content::posts()?;
        found.retain(|post| {
            let text = format!(
                "{} {} {} {}",
                post.title,
                post.summary,
                post.author,
                post.tags.join(" ")
            );
            let text = text.to_lowercase();
            query.split_whitespace().all(|word| text.contains(word))
        });
        Ok(StaticProps::new(found).tag("posts"))
    }

    fn render(ctx: &Context, found: Self::Props) -> Result<Document> {
        let query = query(ctx);
        Ok(Frame::new(ctx, "Search").unlisted().document("listing", html! {
            header {
                h1 { "Search" }
                form role="search" action="/search" {
                    label for="q" { "Words in a title, a summary, a tag or a name" }
                    input id="q" name="q" type="search" value=(query) autocomplete="off" maxlength="80";
                    button { "Search" }
                }
            }
            @if !query.is_empty() {
                h2.count { @match found.len() {
                    0 => { "Nothing about " em { (query) } " yet." }
                    1 => { "One article about " em { (query) } "." }
                    many => { (many) " articles about " em { (query) } "." }
                } }
                (parts::articles(&found))
            }
        }))
    }
}

fn query(ctx: &Context) -> &str {
    ctx.query("q").unwrap_or_default().trim()
}

wisr_guest::page!(Search);
