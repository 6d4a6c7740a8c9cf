//! `/docs`: a page that is nothing but a redirect, made once.

use wisr_guest::{Context, Document, Page, Result, StaticProps};

struct Docs;

impl Page for Docs {
    type Props = ();

    fn static_props(_: &Context) -> Result<StaticProps<()>> {
        Ok(StaticProps::redirect("/docs/guide/first-page").never())
    }

    fn render(_: &Context, (): ()) -> Result<Document> {
        wisr_guest::bail!("a redirect is never rendered")
    }
}

wisr_guest::page!(Docs);
