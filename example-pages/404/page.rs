//! `/404`: the page for addresses that have no page. The host sets the status.

use layout::Frame;
use maud::html;
use wisr_guest::{Context, Document, Page, Result, StaticProps};

struct Lost;

impl Page for Lost {
    type Props = ();

    fn static_props(_: &Context) -> Result<StaticProps<()>> {
        Ok(StaticProps::new(()).never())
    }

    fn render(ctx: &Context, (): ()) -> Result<Document> {
        Ok(Frame::new(ctx, "Not on this chart").unlisted().document("message", html! {
            p.sounding aria-hidden="true" { "404" }
            h1 { "Not on this chart" }
            p.lead { "There is no page at this address. It may have moved, or been mistyped, or never have been charted at all." }
            p.more { a href="/" { "Back to the harbour" } " or " a href="/search" { "search" } }
        }))
    }
}

wisr_guest::page!(Lost);
