//! `/sitemap.xml` (sitemaps.org, protocol 0.9): every address, from three lists.

use layout::{absolute, content};
use maud::{PreEscaped, html};
use wisr_guest::{Context, Document, Page, Result, StaticProps};

struct Sitemap;

impl Page for Sitemap {
    type Props = Vec<String>;

    fn static_props(_: &Context) -> Result<StaticProps<Self::Props>> {
        let mut paths: Vec<String> = ["/", "/posts", "/products", "/clock"]
            .map(String::from)
            .into();
        paths.extend(
            content::posts()?
                .iter()
                .map(|post| format!("/posts/{}", post.id)),
        );
        let docs: Vec<content::Doc> = content::list("docs")?;
        paths.extend(docs.iter().map(|doc| format!("/docs/{}", doc.id)));
        let products: Vec<content::Product> = content::list("products")?;
        paths.extend(
            products
                .iter()
                .map(|product| format!("/products/{}", product.id)),
        );
        Ok(StaticProps::new(paths)
            .revalidate(300)
            .tags(["posts", "docs", "products"]))
    }

    fn render(_: &Context, paths: Self::Props) -> Result<Document> {
        let map = html! {
            (PreEscaped(r#"<?xml version="1.0" encoding="utf-8"?>"#))
            urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9" {
                @for path in &paths { url { loc { (absolute(path)) } } }
            }
        };
        Ok(Document::new(
            "application/xml; charset=utf-8",
            map.into_string(),
        ))
    }
}

wisr_guest::page!(Sitemap);
