//! `/500`: the page for when a page was never made and cannot be. It fetches nothing, so that it cannot fail.

use layout::Frame;
use maud::html;
use wisr_guest::{Context, Document, Page, Result, StaticProps};

struct Aground;

impl Page for Aground {
    type Props = ();

    fn static_props(_: &Context) -> Result<StaticProps<()>> {
        Ok(StaticProps::new(()).never())
    }

    fn render(ctx: &Context, (): ()) -> Result<Document> {
        Ok(Frame::new(ctx, "Run aground").unlisted().document("message", html! {
            p.sounding aria-hidden="true" { "500" }
            h1 { "Run aground" }
            p.lead { "This page could not be made just now, and there is no earlier copy to show. It has been noted in the log. Please try again in a little while." }
            p.more { a href="/" { "Back to the harbour" } " or " a href="/search" { "search" } }
        }))
    }
}

wisr_guest::page!(Aground);
