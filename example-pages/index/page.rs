//! `/`, the home page: data from two places, freshness by time and by tag.

use layout::{Frame, content, parts};
use maud::{Markup, html};
use wisr_guest::{Context, Document, Page, Result, StaticProps};

struct Home;

impl Page for Home {
    type Props = (Vec<content::Post>, Vec<content::Product>);

    fn static_props(_: &Context) -> Result<StaticProps<Self::Props>> {
        let mut posts = content::posts()?;
        posts.truncate(6);
        let mut products = content::list("products")?;
        products.truncate(3);
        Ok(StaticProps::new((posts, products))
            .revalidate(60)
            .tags(["posts", "products"]))
    }

    fn render(ctx: &Context, (posts, products): Self::Props) -> Result<Document> {
        Ok(
            Frame::new(ctx, "Slack Water: small tools and slow computing").document(
                "home",
                html! {
                    (hero())
                    section.latest aria-labelledby="latest" {
                        h2 id="latest" { "Latest articles" }
                        (parts::articles(&posts))
                        p.more { a href="/posts" { "All articles" } }
                    }
                    section aria-labelledby="shelf" {
                        h2 id="shelf" { "From the chandlery" }
                        (parts::shelf(&products))
                        p.more { a href="/products" { "The whole shelf" } }
                    }
                },
            ),
        )
    }
}

fn hero() -> Markup {
    html! {
        section.hero {
            div {
                h1 { "Software for the hour when nothing is moving" }
                p.lead { "A periodical about small tools, slow computing, and machines that remember what they have already done." }
                p.definition { dfn { "slack water" } ", " i { "n." } " The short time when the tide has finished going one way and has not begun to go the other. Those who know the harbour cross the bar then." }
            }
            figure {
                img src="/chart.svg" alt="A nautical chart of a small harbour: buff land, blue shallows, and depths in metres." width="720" height="560";
            }
        }
    }
}

wisr_guest::page!(Home);
