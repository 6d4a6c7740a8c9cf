//! `/docs/[...slug]`, the documentation: a catch-all route whose list of paths is complete.

use layout::{Frame, content, markdown};
use maud::{Markup, html};
use serde::{Deserialize, Serialize};
use wisr_guest::{Context, Document, Page, Result, StaticPaths, StaticProps};

struct Docs;

#[derive(Serialize, Deserialize)]
struct Props {
    doc: content::Doc,
    all: Vec<content::Doc>,
}

impl Page for Docs {
    type Props = Props;

    fn static_paths() -> Result<StaticPaths> {
        let all: Vec<content::Doc> = content::list("docs")?;
        let list =
            |paths: StaticPaths, doc: &content::Doc| paths.catch_all("slug", doc.id.split('/'));
        Ok(all.iter().fold(StaticPaths::not_found(), list))
    }

    fn static_props(ctx: &Context) -> Result<StaticProps<Props>> {
        let Some(doc) = content::find("docs", &ctx.params("slug").join("/"))? else {
            return Ok(StaticProps::not_found());
        };
        let all = content::list("docs")?;
        Ok(StaticProps::new(Props { doc, all })
            .revalidate(300)
            .tag("docs"))
    }

    fn render(ctx: &Context, Props { doc, all }: Props) -> Result<Document> {
        let next = all.iter().skip_while(|other| other.id != doc.id).nth(1);
        let frame = Frame::new(ctx, &doc.title).description(&doc.summary);
        Ok(frame.document("docs", html! {
            (sidebar(&doc, &all))
            article {
                header { h1 { (doc.title) } p.lead { (doc.summary) } }
                div.prose { (markdown::render(&doc.body)) }
                @if let Some(next) = next {
                    footer { p.more { "Next: " a href={ "/docs/" (next.id) } { (next.title) } } }
                }
            }
        }))
    }
}

/// The pages by section, which is the first part of their place.
fn sidebar(here: &content::Doc, all: &[content::Doc]) -> Markup {
    let section = |doc: &content::Doc| doc.id.split('/').next().unwrap_or_default().to_owned();
    html! {
        nav.sidebar aria-label="Documentation" {
            @for docs in all.chunk_by(|a, b| section(a) == section(b)) {
                p { (section(&docs[0])) }
                ul { @for doc in docs {
                    li { a href={ "/docs/" (doc.id) } aria-current=[(doc.id == here.id).then_some("page")] { (doc.title) } }
                } }
            }
        }
    }
}

wisr_guest::page!(Docs);
