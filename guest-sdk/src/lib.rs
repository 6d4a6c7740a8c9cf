//! Write pages for wisr in Rust: one trait, one macro.
//!
//! A page is a library of crate type `cdylib`, built for `wasm32-wasip2` (or `wasm32-wasip1`), with
//! a type that implements [`Page`] and [`page!`] at the end:
//!
//! ```
//! use wisr_guest::{Context, Document, Page, Result, StaticProps, html};
//!
//! struct Hello;
//!
//! impl Page for Hello {
//!     type Props = String;
//!
//!     fn static_props(ctx: &Context) -> Result<StaticProps<String>> {
//!         let name = ctx.param("name").unwrap_or("world");
//!         Ok(StaticProps::new(name.to_owned()).revalidate(60))
//!     }
//!
//!     fn render(_: &Context, name: String) -> Result<Document> {
//!         Ok(Document::html(format!("<!doctype html><p>Hello {}", html::escape(&name))))
//!     }
//! }
//!
//! wisr_guest::page!(Hello);
//! ```
//!
//! ```toml
//! [lib]
//! crate-type = ["cdylib"]
//!
//! [profile.release]   # 150 to 200 KB instead of two megabytes
//! opt-level = "s"
//! lto = true
//! codegen-units = 1
//! panic = "abort"
//! strip = "debuginfo" # keeps the names of functions, which the host shows when a page traps
//! ```
//!
//! | where | what |
//! |---|---|
//! | [`Page`] | what an author writes |
//! | [`Context`] | which page is being made, and why now |
//! | [`StaticProps`], [`StaticPaths`] | what a page answers before anything is rendered |
//! | [`Document`] | the rendered page |
//! | [`fetch`], [`setting`], [`log`] | what a page may ask of the host |
//! | [`mod@api`], [`revalidate`] | an API route, and how it has pages made anew |
//! | [`Error`], [`bail!`] | `?` on any error |
//! | `testing` | renders a page natively, without wasm |

pub mod api;
mod context;
mod document;
mod error;
pub mod fetch;
mod host;
pub mod html;
pub mod log;
mod outcome;
mod page;
pub mod revalidate;
#[cfg(not(target_arch = "wasm32"))]
pub mod testing;

#[cfg(target_arch = "wasm32")]
#[doc(hidden)]
#[allow(
    missing_docs,
    unreachable_pub,
    unsafe_code,
    clippy::all,
    clippy::allow_attributes_without_reason,
    reason = "generated: the border to the host is raw pointers"
)]
pub mod bindings;
#[cfg(target_arch = "wasm32")]
#[doc(hidden)]
pub mod export;
#[cfg(target_arch = "wasm32")]
mod outgoing;
#[cfg(target_arch = "wasm32")]
#[doc(hidden)]
pub mod serve;

#[cfg(target_arch = "wasm32")]
#[doc(hidden)]
pub use wasip2;

pub use context::{Cause, Context, Param};
pub use document::{Body, Document};
pub use error::{Error, Result};
pub use host::{setting, tag};
pub use outcome::{Fallback, Freshness, Outcome, StaticPaths, StaticProps};
pub use page::Page;

/// Makes a type that implements [`Page`] the page of this module. Once in a crate, at its end.
///
/// In a native build, as by `cargo test`, it only checks that the type is a [`Page`].
#[macro_export]
macro_rules! page {
    ($page:ty) => {
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            type Exported = $crate::export::Exported<$page>;
    $crate::bindings::export!(Exported with_types_in $crate::bindings);
        };
        #[cfg(not(target_arch = "wasm32"))]
        const _: () = {
            const fn is_a_page<P: $crate::Page>() {}
            is_a_page::<$page>()
        };
    };
}

/// Makes a type that implements [`Api`](api::Api) the API route of this module. Once in a crate, at
/// its end.
///
/// In a native build, as by `cargo test`, it only checks that the type is an [`Api`](api::Api).
#[macro_export]
macro_rules! api {
    ($api:ty) => {
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            type Served = $crate::serve::Served<$api>;
            $crate::wasip2::http::proxy::export!(Served);
        };
        #[cfg(not(target_arch = "wasm32"))]
        const _: () = {
            const fn is_an_api<A: $crate::api::Api>() {}
            is_an_api::<$api>()
        };
    };
}
