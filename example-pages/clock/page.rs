//! `/clock`: shows when it was made and why, so that regeneration can be watched. Fresh for 5 s.

use std::time::UNIX_EPOCH;

use layout::Frame;
use maud::{Markup, html};
use wisr_guest::{Cause, Context, Document, Page, Result, StaticProps};

struct Clock;

impl Page for Clock {
    /// Seconds since 1970.
    type Props = u64;

    fn static_props(_: &Context) -> Result<StaticProps<u64>> {
        Ok(StaticProps::new(UNIX_EPOCH.elapsed()?.as_secs()).revalidate(5))
    }

    fn render(ctx: &Context, now: u64) -> Result<Document> {
        let [hour, minute, second] = [now / 3600 % 24, now / 60 % 60, now % 60];
        let time = format!("{hour:02}:{minute:02}:{second:02}");
        let frame = Frame::new(ctx, "Clock").description("When this page was made, and why.");
        Ok(frame.document("clock", html! {
            (dial(hour as f32, minute as f32, second as f32))
            div {
                h1 { "This page was made at " time { (time) } " UTC" }
                p.lead { (why(ctx.cause)) }
                div.prose {
                    p { "It stays fresh for five seconds. Reload it at once, and you get this same page with this same time: nothing was computed for you. Wait a little longer and reload it twice. The first reload still shows this time, without any waiting, and sets a new generation going behind your back. The second shows what it made." }
                    p { "The response says the same in its headers: " code { "x-wisr-cache" } ", " code { "age" } " and " code { "cache-status" } ". There is more about it in " a href="/docs/guide/freshness" { "How long a page stays fresh" } "." }
                }
                p.more { a href="/clock" { "Ask again" } }
            }
        }))
    }
}

fn why(cause: Cause) -> &'static str {
    match cause {
        Cause::Build => "Because the site was being built: nobody had to wait for it.",
        Cause::FirstRequest => "Because somebody asked, and there was no page yet.",
        Cause::Stale => {
            "Because the one before was more than five seconds old, and somebody looked at it."
        }
        Cause::OnDemand => "Because the revalidate endpoint was called.",
        Cause::Draft => "For you alone: this is a draft, and is not kept.",
    }
}

fn dial(hour: f32, minute: f32, second: f32) -> Markup {
    let turn = |part: f32| format!("rotate({:.1})", part * 360.0);
    let (second, minute) = (second / 60.0, minute / 60.0);
    html! {
        svg.dial viewBox="-110 -110 220 220" aria-hidden="true" {
            circle.rim r="104" {}
            @for mark in 0..60u8 {
                line.hour[mark % 5 == 0] y1="-98" y2=(if mark % 5 == 0 { -86 } else { -93 }) transform=(turn(f32::from(mark) / 60.0)) {}
            }
            line.hand y2="-50" transform=(turn((hour + minute) / 12.0)) {}
            line.hand y2="-76" transform=(turn(minute + second / 60.0)) {}
            line.second y1="16" y2="-84" transform=(turn(second)) {}
            circle.pin r="4" {}
        }
    }
}

wisr_guest::page!(Clock);
