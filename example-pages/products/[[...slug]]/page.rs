//! `/products` and every product below it: an optional catch-all, and a shell for what is not made.

use layout::{Frame, content, markdown, parts};
use maud::html;
use serde::{Deserialize, Serialize};
use wisr_guest::{Context, Document, Page, Result, StaticPaths, StaticProps};

struct Products;

#[derive(Serialize, Deserialize)]
enum Props {
    Shelf(Vec<content::Product>),
    One(content::Product),
}

impl Page for Products {
    type Props = Props;

    fn static_paths() -> Result<StaticPaths> {
        Ok(StaticPaths::shell().catch_all("slug", [""; 0]))
    }

    fn static_props(ctx: &Context) -> Result<StaticProps<Props>> {
        let props = match ctx.params("slug") {
            [] => Some(Props::Shelf(content::list("products")?)),
            [id] => content::find("products", id)?.map(Props::One),
            _ => None,
        };
        Ok(match props {
            Some(props) => StaticProps::new(props).revalidate(300).tag("products"),
            None => StaticProps::not_found(),
        })
    }

    fn render(ctx: &Context, props: Props) -> Result<Document> {
        Ok(match props {
            Props::Shelf(products) => {
                let content = html! {
                    header { h1 { "The chandlery" } p.lead { "Five things we make, and mend." } }
                    h2.count { "On the shelf" }
                    (parts::shelf(&products))
                };
                Frame::new(ctx, "The chandlery").document("listing", content)
            }
            Props::One(product) => {
                let content = html! {
                    (parts::drawing(&product))
                    article {
                        h1 { (product.title) }
                        p.lead { (product.summary) }
                        p.price { (product.price) }
                        div.prose { (markdown::render(&product.body)) }
                        p.more { a href="/products" { "The whole shelf" } }
                    }
                };
                let frame = Frame::new(ctx, &product.title).description(&product.summary);
                frame.document("product", content)
            }
        })
    }

    fn shell(ctx: &Context) -> Result<Document> {
        let frame = Frame::new(ctx, "One moment").unlisted().reload_after(1);
        Ok(frame.document("message", html! {
            h1 { "One moment" }
            p.lead role="status" { "Nobody has asked for this one yet, so it is still in the back. It appears here by itself." }
            p.more { a href="/products" { "Back to the shelf" } }
        }))
    }
}

wisr_guest::page!(Products);
